"""Two treatments of the same subjects, compared pair by pair with no assumed distribution.

Hodges-Lehmann estimate and the interval that inverts Wilcoxon's signed-rank test (Hollander, Wolfe and
Chicken, Nonparametric Statistical Methods, 3rd ed., sections 3.2 and 3.3). They assume that the differences
scatter evenly around their centre; ratios are therefore compared by their logarithms.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from aifbench.stats.intervals import CONFIDENCE, Estimate, exponential

_TAIL = (1 - CONFIDENCE) / 2
_Z = 1.959964  # 97.5 % point of the normal distribution
_EXACT_UP_TO = 100  # pairs; from here the normal approximation is off by less than 0.1 % of the ranks

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PairedSummary:
    """What `b` does against `a`; an estimate is None without pairs, its bounds are None below 6 pairs.

    `ratio` uses the pairs whose sides are both positive; its `n` says how many.
    """

    difference: Estimate | None  # b - a, in the unit of the values
    ratio: Estimate | None  # b / a
    pairs: int
    left_out: int  # pairs with a side that is missing or no number


def paired_summary(a: Sequence[float | None], b: Sequence[float | None]) -> PairedSummary:
    """Compares a[i] with b[i]. Raises ValueError when the lengths differ."""
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values cannot be paired with {len(b)}")
    first, second = (np.array([math.nan if x is None else x for x in side], np.float64) for side in (a, b))
    whole = np.isfinite(first) & np.isfinite(second)
    first, second = first[whole], second[whole]
    positive = (first > 0) & (second > 0)
    logs = hodges_lehmann(np.log(second[positive]) - np.log(first[positive]))
    return PairedSummary(
        hodges_lehmann(second - first), exponential(logs), len(first), len(whole) - len(first)
    )


def hodges_lehmann(values: Floats) -> Estimate | None:
    """The centre of `values`: the median of the averages of all pairs, each value with itself included.

    None when there are no values; no interval below 6.
    """
    n = len(values)
    if n == 0:
        return None
    ordered = np.sort(values)
    averages = n * (n + 1) // 2
    middle = (walsh_average(ordered, (averages + 1) // 2) + walsh_average(ordered, averages // 2 + 1)) / 2
    rank = interval_rank(n)
    if rank is None:
        return Estimate(middle, None, None, n)
    low, high = walsh_average(ordered, rank), walsh_average(ordered, averages + 1 - rank)
    return Estimate(middle, low, high, n)


@lru_cache(maxsize=64)
def interval_rank(n: int) -> int | None:
    """The rank c such that the c-th smallest and c-th largest of n values' averages enclose the centre.

    P(T < c) <= 2.5 % for Wilcoxon's signed-rank statistic T. None when no rank is that sure (n < 6).
    """
    if n > _EXACT_UP_TO:
        spread = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return math.floor(n * (n + 1) / 4 - _Z * spread)
    chances = np.ones(1)
    for rank in range(1, n + 1):  # T is the sum of the ranks 1 to n, each counted with probability 1/2
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    return int(np.searchsorted(np.cumsum(chances), _TAIL, side="right")) or None


def walsh_average(ordered: Floats, rank: int) -> float:
    """The rank-th smallest (from 1) of the averages (x_i + x_j) / 2, i <= j, of an ascending array.

    By bisection on the value with O(n log n) counting, so that no n² averages are kept.
    """
    low, high = float(ordered[0]), float(ordered[-1])
    precision = 1e-13 * max(abs(low), abs(high))
    if _averages_up_to(ordered, low) >= rank:
        return low
    while high - low > precision:
        middle = low + (high - low) / 2
        if _averages_up_to(ordered, middle) >= rank:
            high = middle
        else:
            low = middle
    return _greatest_average_up_to(ordered, high)


def _averages_up_to(ordered: Floats, limit: float) -> int:
    both_orders = int(np.searchsorted(ordered, 2 * limit - ordered, side="right").sum())
    with_itself = int(np.searchsorted(ordered, limit, side="right"))
    return (both_orders + with_itself) // 2


def _greatest_average_up_to(ordered: Floats, limit: float) -> float:
    partner = np.searchsorted(ordered, 2 * limit - ordered, side="right") - 1
    has_one = partner >= 0
    return float((ordered[has_one] + ordered[partner[has_one]]).max() / 2)
