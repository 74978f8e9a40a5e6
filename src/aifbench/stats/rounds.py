"""Two conditions measured in turn, round by round: how one relates to the other.

The rounds are few, so no distribution-free interval exists (that takes six pairs): the logarithms of the
ratios are taken to be normal, and the interval is Student's.
"""

import math
from collections.abc import Sequence

from aifbench.stats.intervals import Estimate, exponential
from aifbench.stats.student import student_t


def ratio_of_rounds(a: Sequence[float | None], b: Sequence[float | None]) -> Estimate | None:
    """The geometric mean of b[i] / a[i]; no interval from one round, None without any.

    A round with a side that is missing or not positive is left out; `n` says how many were used. Raises
    ValueError when the lengths differ.
    """
    logs = [math.log(y / x) for x, y in zip(a, b, strict=True) if x and y and x > 0 and 0 < y / x < math.inf]
    n = len(logs)
    if not n:
        return None
    mean = math.fsum(logs) / n
    if n == 1:
        return exponential(Estimate(mean, None, None, 1))
    spread = math.sqrt(math.fsum((log - mean) ** 2 for log in logs) / (n - 1))
    half = student_t(n - 1) * spread / math.sqrt(n)
    return exponential(Estimate(mean, mean - half, mean + half, n))
