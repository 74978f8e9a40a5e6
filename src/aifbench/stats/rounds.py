"""Two conditions measured in turn, round by round: how one relates to the other.

The rounds are few, so no distribution-free interval exists (that takes six pairs): the logarithms of the
ratios are taken to be normal, and the interval is Student's.
"""

import math
from collections.abc import Sequence

from aifbench.stats.intervals import Estimate

# 97.5 % points of Student's t for 1 to 30 degrees of freedom.
_T = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip


def ratio_of_rounds(a: Sequence[float | None], b: Sequence[float | None]) -> Estimate | None:
    """The geometric mean of b[i] / a[i]; no interval from one round, None without any.

    A round with a side that is missing or not positive is left out; `n` says how many were used. Raises
    ValueError when the lengths differ.
    """
    logs = [math.log(y / x) for x, y in zip(a, b, strict=True) if x and y and x > 0 and y > 0]
    n = len(logs)
    if not n:
        return None
    mean = math.fsum(logs) / n
    if n == 1:
        return Estimate(math.exp(mean), None, None, 1)
    spread = math.sqrt(math.fsum((log - mean) ** 2 for log in logs) / (n - 1))
    half = _T[min(n - 1, len(_T)) - 1] * spread / math.sqrt(n)
    return Estimate(math.exp(mean), math.exp(mean - half), math.exp(mean + half), n)
