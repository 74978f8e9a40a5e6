"""How many repeats a comparison needs before it can find what it looks for.

By normal theory with the loss of a rank test, Student's t for z, and the size that the exact test really has:
few ranks have few p, so that a test at 5 % is one at 2.9 % with 4 a side.
"""

import math
from statistics import NormalDist

from aifbench.stats.ranks import EXACT_UP_TO, attained, fewest
from aifbench.stats.student import normal_to_student

ALPHA = 0.05
POWER = 0.8
EFFICIENCY = 0.955  # of the Mann-Whitney test beside Student's, where Student's is best: 3 / pi
_SMALL = EXACT_UP_TO // 2
_MOST = 1_000
_NORMAL = NormalDist()


def repeats_for(effect: float, noise: float, *, alpha: float = ALPHA) -> int:
    """Repeats per side for p < alpha in 80 of 100 comparisons of sides that differ by `effect`, above 0.

    `noise` is the standard deviation between repeats in the unit of `effect`: both relative, or both of
    logarithms. n = 2 (z_alpha/2 + z_power)² (noise / effect)² / 0.955, which at alpha 5 % is
    15.7 (noise / effect)² / 0.955, with what small samples cost. One more, because normal theory still
    promises up to 8 points too much where only sides without overlap differ.
    """
    first = fewest(alpha)
    if noise <= 0:
        return first
    for n in range(first, _SMALL):
        if _NORMAL.cdf(effect / _error(noise, n) - _quantile(n, alpha)) >= POWER:
            return n + 1
    quantiles = _quantile(_SMALL + 1, alpha) + _NORMAL.inv_cdf(POWER)
    return 1 + max(_SMALL, math.ceil(2 * (quantiles * noise / effect) ** 2 / EFFICIENCY))


def repeats_to_decide(
    effect: float, noise: float, *, least: float, margin: float, alpha: float = ALPHA
) -> int | None:
    """Repeats per side after which 80 of 100 comparisons end with a change found or excluded.

    In the terms of stats/comparison.py: `effect` (not below 0) and `noise` are taken for the truth, and what
    is observed is undecided from where an interval of 95 % no longer lies within the margin, or already
    excludes no change by more than the `least` effect, up to where p < alpha. None for more than 1,000.
    """
    for n in range(fewest(alpha), _MOST):
        error = _error(noise, n)
        half = _quantile(n, ALPHA) * error
        low, high = min(margin - half, max(half, least)), _quantile(n, alpha) * error
        if _chance_between(low, high, effect, error) <= 1 - POWER:
            return n + 1
    return None


def _chance_between(low: float, high: float, centre: float, error: float) -> float:
    """That what is observed is larger than `low` and smaller than `high`, in either direction."""
    low = max(low, 0.0)
    if low >= high:
        return 0.0
    seen = NormalDist(centre, error)
    return seen.cdf(high) - seen.cdf(low) + seen.cdf(-low) - seen.cdf(-high)


def _error(noise: float, n: int) -> float:
    """The standard error of the shift between two sides of n repeats."""
    return noise * math.sqrt(2 / (n * EFFICIENCY))


def _quantile(n: int, alpha: float) -> float:
    """How many standard errors p < alpha takes with n a side."""
    if n > _SMALL:
        return _NORMAL.inv_cdf(1 - alpha / 2)
    return normal_to_student(_NORMAL.inv_cdf(1 - attained(n, alpha) / 2), 2 * n - 2)
