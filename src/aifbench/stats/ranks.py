"""Two independent samples compared by their ranks, with no assumed distribution.

The Mann-Whitney test, and the Hodges-Lehmann shift with the interval that inverts it (Hollander, Wolfe and
Chicken, Nonparametric Statistical Methods, 3rd ed., sections 4.1 to 4.3).
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from aifbench.stats.intervals import CONFIDENCE, Estimate

EXACT_UP_TO = 100  # values of both sides, and more where one is small; the distribution takes 0.1 s, once
_EXACT_PRODUCT = EXACT_UP_TO * EXACT_UP_TO // 2
_TAIL = (1 - CONFIDENCE) / 2
_NORMAL = NormalDist()

Floats = NDArray[np.float64]


def rank_sum_p(a: Floats, b: Floats) -> float:
    """Two-sided p of the Mann-Whitney test: twice the smaller tail, at most 1. Neither side is empty.

    Exact, ties included, up to 100 values, or 5,000 by the size of the smaller side: every way to deal the
    pooled ranks out to the sides is counted. Beyond, the normal approximation with corrections for ties and
    continuity, which is far off for one value against many.
    """
    few, many = sorted((a, b), key=len)
    values, inverse, ties = np.unique(np.concatenate([few, many]), return_inverse=True, return_counts=True)
    if len(values) == 1:
        return 1.0
    doubled = _doubled_ranks(ties)
    rank_sum = int(doubled[inverse[: len(few)]].sum())
    if not _is_exact(len(few), len(many)):
        return _normal_p(rank_sum / 2 - len(few) * (len(few) + 1) / 2, len(few), len(many), ties)
    chances = _rank_sums(tuple(ties.tolist()), len(few))
    return min(1.0, 2 * float(min(chances[: rank_sum + 1].sum(), chances[rank_sum:].sum())))


def _is_exact(few: int, many: int) -> bool:
    """What the distribution costs grows with the square of this product."""
    return few * (few + many) <= _EXACT_PRODUCT


def _doubled_ranks(ties: NDArray[np.int64]) -> NDArray[np.int64]:
    """Twice the mean rank of each group of equal values, which is a whole number."""
    doubled: NDArray[np.int64] = 2 * np.cumsum(ties) - ties + 1
    return doubled


def _normal_p(u: float, n: int, m: int, ties: NDArray[np.int64]) -> float:
    both = n + m
    tied = float((ties.astype(np.float64) ** 3 - ties).sum()) / (both * (both - 1))
    spread = math.sqrt(n * m / 12 * (both + 1 - tied))
    return min(1.0, 2 * _NORMAL.cdf(-(abs(u - n * m / 2) - 0.5) / spread))


@lru_cache(maxsize=256)
def _rank_sums(ties: tuple[int, ...], n: int) -> Floats:
    """P(S = s) for s = 0, 1, ...; S is the sum of n doubled ranks drawn from groups of `ties` equal values.

    By adding one value at a time to the sums of 0 to n values; the counts are exact up to 2^53, and of
    positive terms only beyond.
    """
    ranks = np.repeat(_doubled_ranks(np.array(ties)), ties).tolist()
    ways = np.zeros((n + 1, sum(ranks[len(ranks) - n :]) + 1))
    ways[0, 0] = 1
    for rank in ranks:
        ways[1:, rank:] += ways[:-1, :-rank]
    chances: Floats = ways[n] / ways[n].sum()
    return chances


def shift(a: Floats, b: Floats) -> Estimate | None:
    """How far b lies above a: the median of all differences, with the interval of shifts not rejected at 5 %.

    None without a value on each side, no bounds where no shift could be rejected (4 and 4, 3 and 5, 2 and 8
    are enough). With ties the interval is at least as sure as it says. Its `n` counts both sides.
    """
    if not len(a) or not len(b):
        return None
    differences = np.sort(np.subtract.outer(b, a).ravel())
    middle, both = float(np.median(differences)), len(a) + len(b)
    rank = interval_rank(*sorted((len(a), len(b))))
    if rank is None:
        return Estimate(middle, None, None, both)
    return Estimate(middle, float(differences[rank - 1]), float(differences[-rank]), both)


def interval_rank(n: int, m: int) -> int | None:
    """The rank c such that the c-th smallest and c-th largest of n·m differences enclose the shift.

    P(U < c) <= 2.5 % for the Mann-Whitney statistic U. None when no rank is that sure. n <= m.
    """
    if not _is_exact(n, m):
        spread = math.sqrt(n * m * (n + m + 1) / 12)
        rank = math.floor(n * m / 2 - _NORMAL.inv_cdf(1 - _TAIL) * spread + 0.5)
        return rank if rank > 0 else None
    return _critical(n, m, _TAIL) or None


def attained(n: int, alpha: float) -> float:
    """The chance of p < alpha or p = alpha without a difference, n values a side, no ties: at most alpha."""
    critical = _critical(n, n, alpha / 2)
    return 2 * _chance_below(n, n, critical)


def fewest(alpha: float) -> int:
    """The smallest number of values a side with which p < alpha is possible."""
    n = 1
    while 2 / math.comb(2 * n, n) >= alpha:
        n += 1
    return n


def _critical(n: int, m: int, tail: float) -> int:
    """The largest c with P(U < c) <= tail."""
    return int(np.searchsorted(_u_up_to(n, m), tail, side="right"))


def _chance_below(n: int, m: int, c: int) -> float:
    return float(_u_up_to(n, m)[c - 1]) if c else 0.0


def _u_up_to(n: int, m: int) -> Floats:
    """P(U <= u) for u = 0, 1, ...: without ties, U is the rank sum less its smallest value."""
    return np.cumsum(_rank_sums((1,) * (n + m), n)[n * (n + 1) :: 2])


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: to reject those below alpha errs in at most alpha of families.

    S. Holm, Scandinavian Journal of Statistics 6(2), 1979. In the order given.
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for left_out, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - left_out) * p_values[index]))
        adjusted[index] = highest
    return adjusted
