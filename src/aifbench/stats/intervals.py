"""Estimates with 95 % intervals that assume no distribution, and none where the sample cannot carry one.

Operations of one run are correlated, so every interval here describes that run only; comparing runs
needs repeated runs.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
_TAIL = (1 - CONFIDENCE) / 2
_LARGEST_LOG = 700.0
_Z = 1.959964  # 97.5 % point of the normal distribution

# Few long batches keep the correlation inside them: 10 to 30 is enough for any sample
# (Schmeiser, Operations Research 30(3), 1982), and a fixed number needs one constant of Student's t.
BATCHES = 20
_BLOCK = 65_536  # values looked at together: a million of them are to take little memory
_T = 2.093024  # 97.5 % point of Student's t with 19 degrees of freedom
MIN_FOR_BATCHES = 5 * BATCHES


@dataclass(frozen=True, slots=True)
class Estimate:
    """A point estimate from n values; `low` and `high` are None when there is no interval."""

    value: float
    low: float | None
    high: float | None
    n: int


def exponential(logs: Estimate | None) -> Estimate | None:
    """What an estimate made on natural logarithms says of the values; None beyond what a float can hold."""
    if logs is None or any(abs(x) > _LARGEST_LOG for x in (logs.value, logs.low, logs.high) if x is not None):
        return None
    low, high = (None if bound is None else math.exp(bound) for bound in (logs.low, logs.high))
    return Estimate(math.exp(logs.value), low, high, logs.n)


def quantile_rank(n: int, q: float) -> int:
    """The 1-based rank of the sample quantile: the smallest value with at least q·n values up to it."""
    return max(1, math.ceil(round(q * n, 9)))


def minimum_n(q: float) -> int:
    """The smallest sample whose extremes enclose quantile q, each side with 97.5 % confidence."""
    return math.ceil(math.log(_TAIL) / math.log(max(q, 1 - q)))


def highest_quantile(n: int) -> float:
    """The highest quantile for which n values give a two-sided interval; 0.5 or less means none."""
    return float(_TAIL ** (1 / n)) if n else 0.0


@lru_cache(maxsize=256)
def quantile_interval_ranks(n: int, q: float) -> tuple[int, int] | None:
    """1-based ranks (l, u) such that the l-th and u-th smallest of n values enclose quantile q.

    The number of values below the quantile is binomial(n, q), whatever the distribution; l and u cut at most
    2.5 % off each side of it. None when n < minimum_n(q).
    """
    if n < minimum_n(q):
        return None
    first, cumulative = _binomial_cdf(n, q)
    low = first + int(np.searchsorted(cumulative, _TAIL, side="right"))
    high = first + int(np.searchsorted(cumulative, 1 - _TAIL, side="left")) + 1
    return max(low, 1), min(high, n)


def _binomial_cdf(n: int, q: float) -> tuple[int, NDArray[np.float64]]:
    """(k0, P(B <= k0), P(B <= k0 + 1), ...) of B ~ binomial(n, q), around its bulk.

    Built outwards from the mode by the ratio of neighbouring probabilities, so nothing overflows for any n;
    what lies beyond 10 standard deviations is below the precision of a float.
    """
    mode = int((n + 1) * q)
    reach = 50 + int(10 * math.sqrt(n * q * (1 - q)))
    above = np.arange(mode, min(mode + reach, n), dtype=np.float64)
    below = np.arange(mode, max(mode - reach, 0), -1, dtype=np.float64)
    odds = q / (1 - q)
    rising = np.cumprod((n - above) / (above + 1) * odds)
    falling = np.cumprod(below / (n - below + 1) / odds)
    weights = np.concatenate([falling[::-1], [1.0], rising])
    return mode - len(below), np.cumsum(weights / weights.sum())


def quantile(ordered: NDArray[Any], q: float) -> Estimate | None:
    """Quantile q of an ascending array with its order-statistic interval; None when n < minimum_n(q)."""
    n = len(ordered)
    ranks = quantile_interval_ranks(n, q)
    if ranks is None:
        return None
    low, high = ranks
    return Estimate(
        float(ordered[quantile_rank(n, q) - 1]), float(ordered[low - 1]), float(ordered[high - 1]), n
    )


def proportion(successes: float, n: int) -> Estimate | None:
    """Wilson's score interval for a share (JASA 22, 1927); None when n is 0."""
    if n == 0:
        return None
    share = successes / n
    spread = _Z**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    return Estimate(share, min(max(0.0, centre - half), share), max(min(1.0, centre + half), share), n)


def mean(values: NDArray[Any]) -> Estimate | None:
    """Arithmetic mean of values in time order, interval by 20 batch means; None when there are no values.

    No interval below 100 values. For costs such as seconds; a rate is total work by total time.
    """
    n = len(values)
    if n == 0:
        return None
    value = float(np.mean(values, dtype=np.float64))
    if n < MIN_FOR_BATCHES:
        return Estimate(value, None, None, n)
    edges = np.linspace(0, n, BATCHES, endpoint=False).astype(np.int64)
    batches = np.add.reduceat(values, edges, dtype=np.float64) / np.diff(edges, append=n)
    half = _half_width(batches)
    return Estimate(value, value - half, value + half, n)


def mean_of_shares(values: NDArray[Any]) -> Estimate | None:
    """Mean of values in [0, 1]. Where batches say nothing, the interval of a share with that mean.

    A value in [0, 1] varies at most as much as a coin of the same mean, so that interval is wide enough; it
    keeps 200 answers that are all right from claiming a recall of exactly 1.
    """
    estimate = mean(values)
    if estimate is None:
        return None
    if estimate.low is None or estimate.high is None or estimate.low == estimate.high:
        return proportion(min(1.0, estimate.value) * estimate.n, estimate.n)
    return Estimate(estimate.value, max(0.0, estimate.low), min(1.0, estimate.high), estimate.n)


def rate(
    times: NDArray[Any],
    start: float,
    end: float,
    *,
    amounts: NDArray[Any] | None = None,
    where: NDArray[np.bool_] | None = None,
) -> Estimate | None:
    """Events per unit of time in (start, end]: total by total time, interval by 20 equal slices of time.

    `times` and the bounds share one unit; `amounts` weighs each event (1 when not given); `where` says which
    events count (all when not given). None for an empty
    window; no interval below 100 events. Slices, not single gaps, because completions come in bursts.
    """
    if end <= start:
        return None
    edges = np.linspace(start, end, BATCHES + 1)
    counts, sums = np.zeros((2, BATCHES + 2))  # of what is not after the start, each slice, after the end
    for first in range(0, len(times), _BLOCK):
        block = slice(first, first + _BLOCK)
        chosen = slice(None) if where is None else where[block]
        places = np.searchsorted(edges, times[block][chosen])
        counts += np.bincount(places, minlength=BATCHES + 2)
        if amounts is not None:
            sums += np.bincount(places, weights=amounts[block][chosen], minlength=BATCHES + 2)
    n = int(counts[1:-1].sum())
    amount = (counts if amounts is None else sums)[1:-1]
    value = float(amount.sum()) / (end - start)
    if n < MIN_FOR_BATCHES:
        return Estimate(value, None, None, n)
    half = _half_width(amount * BATCHES / (end - start))
    return Estimate(value, max(0.0, value - half), value + half, n)


def _half_width(batches: NDArray[np.float64]) -> float:
    return float(_T * batches.std(ddof=1) / math.sqrt(len(batches)))
