"""Two sides of repeated runs compared in one quantity: how much they differ, and what may be said about it.

The unit is the run: each value is one run's summary. The repeats of both sides should have been measured in
turn or shuffled; a machine that changes between the sides looks like a difference between them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from aifbench.stats.intervals import Estimate, exponential
from aifbench.stats.power import ALPHA, repeats_to_decide
from aifbench.stats.ranks import fewest, holm, rank_sum_p, shift

LEAST_EFFECT = 0.02
NOISE_FACTOR = 2.0  # two single runs of one side differ by less in 84 of 100 pairs

Floats = NDArray[np.float64]


class Change(Enum):
    """What a comparison found.

    A found change has p < alpha: IMPROVED or REGRESSED (CHANGED where neither direction is better) when it
    is larger than the least effect, WITHIN_NOISE when it is not. NO_CHANGE is a finding too: the
    interval excludes every change larger than the margin. UNDECIDED is all else.
    """

    IMPROVED = "improved"
    REGRESSED = "regressed"
    CHANGED = "changed"
    NO_CHANGE = "no change"
    WITHIN_NOISE = "within noise"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Side:
    """The runs of one side; `left_out` are those whose value is missing or no finite number.

    `cv` is the standard deviation between runs relative to their mean; None below 2 runs or for a mean of 0.
    """

    values: tuple[float, ...]
    left_out: int

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def median(self) -> float | None:
        return float(np.median(self.values)) if self.values else None

    @property
    def cv(self) -> float | None:
        if self.n < 2:
            return None
        mean = float(np.mean(self.values))
        return float(np.std(self.values, ddof=1)) / abs(mean) if mean else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Side b against side a.

    `threshold` is the least relative change that counts. It does not grow with the noise: the test already
    asks more of noisy runs, and of fewer of them; a bound of so many standard deviations of single runs
    would hide smaller changes however often they were repeated.

    `margin` is the relative change that NO_CHANGE excludes: `threshold`, or twice the noise between
    repeats if that is more, as differences of that size are seen between runs of the same side. It has to
    be shown beside the word: `no change beyond ±7 %`.

    `repeats_needed` is, of an UNDECIDED comparison, how many per side would decide it with a chance of 80 %
    if the difference and the noise seen were the true ones. None for others, and where the noise cannot be
    told.
    """

    a: Side
    b: Side
    direction: str
    ratio: Estimate | None  # b / a, by logarithms; None unless all values are positive
    difference: Estimate | None  # b - a; None without a value on each side
    p: float | None  # as adjusted, if it was; None without a value on each side
    raw_p: float | None
    threshold: float
    margin: float
    change: Change
    repeats_needed: int | None

    def adjusted(self, p: float, *, tests: int = 1, alpha: float = ALPHA) -> "Comparison":
        """The same judged anew by a p that was adjusted for `tests` comparisons made together."""
        return _judged(replace(self, p=p), alpha, tests)


def compare(
    a: Sequence[float | None],
    b: Sequence[float | None],
    *,
    direction: str,
    alpha: float = ALPHA,
    least_effect: float = LEAST_EFFECT,
) -> Comparison:
    """Side b against side a, one value per run; `direction`: higher, lower (is better), or none.

    Two-sided Mann-Whitney test, see ranks; intervals are of 95 %.
    """
    first, second = _side(a), _side(b)
    x, y = np.array(first.values), np.array(second.values)
    comparable = bool(len(x) and len(y))
    positive = comparable and min(x.min(), y.min()) > 0
    p = rank_sum_p(x, y) if comparable else None
    ratio = exponential(shift(np.log(x), np.log(y))) if positive else None
    positive = ratio is not None
    return _judged(
        Comparison(
            first, second, direction, ratio, shift(x, y), p, p, least_effect,
            max(least_effect, _margin(_noise(x, y) or 0.0, positive)), Change.UNDECIDED, None,
        ),
        alpha, tests=1,
    )  # fmt: skip


def adjust(comparisons: Sequence[Comparison], *, alpha: float = ALPHA) -> list[Comparison]:
    """A family of comparisons judged by Holm's adjusted p: at most alpha of families have a false finding.

    With few repeats a large family finds nothing: the smallest p of 5 and 5 runs is 0.0079, below alpha
    for 6 comparisons at most; `repeats_needed` tells. Name the few that matter before looking.
    """
    tested = [each for each in comparisons if each.p is not None]
    p_values = iter(holm([each.raw_p for each in tested if each.raw_p is not None]))
    return [
        each if each.raw_p is None else each.adjusted(next(p_values), tests=len(tested), alpha=alpha)
        for each in comparisons
    ]


def _side(values: Sequence[float | None]) -> Side:
    whole = tuple(float(value) for value in values if value is not None and math.isfinite(value))
    return Side(whole, len(values) - len(whole))


def _margin(noise: float, of_logarithms: bool) -> float:
    return math.expm1(NOISE_FACTOR * noise) if of_logarithms else NOISE_FACTOR * noise


def _noise(x: Floats, y: Floats) -> float | None:
    """The relative standard deviation between repeats of a side, of both sides together.

    Of logarithms where all values are positive, else relative to the median of the first side. None where
    that is 0, or no side has 2 values.
    """
    freedom = len(x) + len(y) - 2
    if not len(x) or not len(y) or not freedom:
        return None
    positive = min(x.min(), y.min()) > 0
    scale = 1.0 if positive else abs(float(np.median(x)))
    if positive:
        x, y = np.log(x), np.log(y)
    squares = float(np.sum((x - x.mean()) ** 2) + np.sum((y - y.mean()) ** 2))
    return math.sqrt(squares / freedom) / scale if scale else None


def _judged(seen: Comparison, alpha: float, tests: int) -> Comparison:
    effect = _effect(seen)
    if effect is None or seen.p is None or seen.raw_p is None:
        return replace(seen, change=Change.UNDECIDED, repeats_needed=fewest(alpha / tests))
    large = abs(effect.value) > _scaled(seen.threshold, seen)
    if seen.p < alpha:
        change = _direction(effect.value, seen.direction) if large else Change.WITHIN_NOISE
        return replace(seen, change=change, repeats_needed=None)
    margin = _scaled(seen.margin, seen)
    is_inside = (
        effect.low is not None and effect.high is not None and -margin <= effect.low <= effect.high <= margin
    )
    # One of many may be a change by its own p and none by the adjusted one: that is not the absence of one.
    if is_inside and not (large and seen.raw_p < alpha):
        return replace(seen, change=Change.NO_CHANGE, repeats_needed=None)
    return replace(seen, change=Change.UNDECIDED, repeats_needed=_repeats_needed(seen, effect, alpha, tests))


def _effect(seen: Comparison) -> Estimate | None:
    """The change where as much more and as much less are alike: ln(b / a), else (b - a) / |median of a|."""
    ratio, difference = seen.ratio, seen.difference
    if ratio is not None:
        low, high = (None if bound is None else math.log(bound) for bound in (ratio.low, ratio.high))
        return Estimate(math.log(ratio.value), low, high, ratio.n)
    if difference is None:
        return None
    scale = abs(seen.a.median or 0.0)
    low, value, high = (
        None if x is None else _relative(x, scale)
        for x in (difference.low, difference.value, difference.high)
    )
    assert value is not None
    return Estimate(value, low, high, difference.n)


def _relative(difference: float, scale: float) -> float:
    """Any change from 0 is infinite."""
    return difference / scale if scale else math.copysign(math.inf, difference) if difference else 0.0


def _scaled(relative: float, seen: Comparison) -> float:
    return math.log1p(relative) if seen.ratio is not None else relative


def _direction(effect: float, direction: str) -> Change:
    if direction not in ("higher", "lower"):
        return Change.CHANGED
    return Change.IMPROVED if (effect > 0) == (direction == "higher") else Change.REGRESSED


def _repeats_needed(seen: Comparison, effect: Estimate, alpha: float, tests: int) -> int | None:
    now, possible = min(seen.a.n, seen.b.n), fewest(alpha / tests)
    noise = _noise(np.array(seen.a.values), np.array(seen.b.values))
    if not noise:
        return possible if now < possible else None
    needed = repeats_to_decide(
        abs(effect.value), noise, alpha=alpha / tests,
        least=_scaled(seen.threshold, seen), margin=_scaled(seen.margin, seen),
    )  # fmt: skip
    return None if needed is None else max(needed, now + 1)
