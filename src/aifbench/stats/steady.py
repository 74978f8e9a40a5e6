"""Where a series settles, and whether it does: MSER-5 (White, Simulation 69(6), 1997), made robust to stalls.

Plain MSER removes whatever makes the rest quieter, so a stall in mid-run would be cut away with all that
came before it: the very thing a latency measurement must show. Here the series is one median per batch,
outliers are pulled in before the search, and a cut counts only when the part before it differs from the
part after it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH = 5
MIN_BATCHES = 30
# Fewer, longer batches for long series: single bursts average out, and the cut is known to 0.5 % of the run.
MAX_BATCHES = 200

# Differences below 0.1 % of the level do not matter to the search, whatever their statistical weight.
_RESOLUTION = 1e-3
_OUTLIER = 4.5  # median absolute deviations, 3 standard deviations of normal noise
# Two parts of a series differ when three quarters of all pairs agree in direction (1/2 is chance) and their
# medians are 5 % apart: long runs show drifts that are real and too small to matter.
_AGREEMENT = 0.75
_MATERIAL = 0.05


@dataclass(frozen=True, slots=True)
class Steady:
    """`cut` is the number of leading values to leave out.

    `steady` is None for a series too short to judge, and False when it never settles: then `cut` is 0, and
    `shift` is how far its two parts lie apart, as a share of the latter's median.
    """

    cut: int
    steady: bool | None
    batches: int
    shift: float = 0.0


def settle(values: NDArray[Any]) -> Steady:
    """Judge a series in time order, by batches of 5 values or more; by single values below 150."""
    n = len(values)
    batch = max(BATCH, -(-n // MAX_BATCHES)) if n >= BATCH * MIN_BATCHES else 1
    batches = n // batch
    if batches < MIN_BATCHES:
        return Steady(0, None, batches)
    medians = np.median(np.reshape(values[: batches * batch], (batches, batch)), axis=1)
    cut = mser(_without_outliers(medians))
    if cut and not _differ(medians[:cut], medians[cut:]):
        cut = 0
    if cut >= batches / 2:
        return Steady(0, False, batches, _shift(medians[:cut], medians[cut:]))
    half = cut + (batches - cut) // 2
    if half - cut >= MIN_BATCHES // 2 and _differ(medians[cut:half], medians[half:]):
        return Steady(0, False, batches, _shift(medians[cut:half], medians[half:]))
    return Steady(cut * batch, True, batches)


def mser(series: NDArray[Any]) -> int:
    """The number of leading values d that minimises the squared deviations of the rest by (n - d)².

    A result of n/2 or more means that the series has not settled. The last 5 values are never cut.
    """
    values = np.asarray(series, np.float64)
    n = len(values)
    if n <= BATCH:
        return 0
    centred = values - values.mean()
    left = np.arange(n, 0, -1)
    sums = np.cumsum(centred[::-1])[::-1]
    squares = np.cumsum(centred[::-1] ** 2)[::-1]
    floor = (_RESOLUTION * values.mean()) ** 2
    deviations = np.maximum(squares - sums**2 / left, 0) + left * floor
    return int(np.argmin((deviations / left**2)[: n - BATCH + 1]))


def _without_outliers(values: NDArray[np.float64]) -> NDArray[np.float64]:
    middle = np.median(values)
    spread = max(float(np.median(np.abs(values - middle))), _RESOLUTION * abs(float(middle)))
    return np.clip(values, middle - _OUTLIER * spread, middle + _OUTLIER * spread)


def _shift(lead: NDArray[np.float64], rest: NDArray[np.float64]) -> float:
    level = abs(float(np.median(rest)))
    return abs(float(np.median(lead) - np.median(rest))) / level if level else 0.0


def _differ(lead: NDArray[np.float64], rest: NDArray[np.float64]) -> bool:
    """Whether two parts lie apart: by their medians and by the Mann-Whitney share of pairs."""
    ordered = np.sort(rest)
    below = np.searchsorted(ordered, lead, side="left")
    not_above = np.searchsorted(ordered, lead, side="right")
    share = float((below + not_above).mean()) / (2 * len(rest))
    return _shift(lead, rest) > _MATERIAL and not 1 - _AGREEMENT < share < _AGREEMENT
