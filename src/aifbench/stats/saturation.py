"""The highest rate that still meets an objective: a search that says which rate to try next.

Free of I/O and clocks: the caller asks for a rate, loads the service at it, and tells what share of the
requests met the limits. The answer is a bracket, and an interval that also covers what the trials could not
tell apart.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from aifbench.stats.intervals import Estimate, proportion

_GROWTH = 2.0
_FLOOR = 1 / 16  # of the first rate, unless the caller says otherwise
_MOST_TRIALS_OF_A_RATE = 3
_ROUNDING = 1e-9
# Several trials lie near the edge and share the 5 % chance of an error, so each is judged at 99 %: the
# intervals of 95 % stretched by the ratio of the two normal quantiles.
_STRETCH = 2.575829 / 1.959964


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a load at one rate.

    `attainment` is the share of requests that met the limits, with its interval; `required` the share that
    has to. `served_per_s` counts good answers per second while the load lasted, without the drain.
    `overloaded` marks a trial that was stopped because it could not be met any more (see `in_flight_limit`).
    `blind` is the overload, relative to the capacity, that a trial as short as this one cannot see (see
    `blind_overload`).
    """

    attainment: Estimate
    required: float
    served_per_s: float
    overloaded: bool = False
    blind: float = 0.0

    @property
    def met(self) -> bool | None:
        """None where the 99 % interval of the attainment encloses what is required."""
        return False if self.overloaded else _verdict(self.attainment, self.required)


class State(Enum):
    BRACKETED = "BRACKETED"  # as narrow as asked for
    UNBOUNDED = "UNBOUNDED"  # even the highest rate allowed met the objective
    NEVER = "NEVER"  # even the lowest rate failed
    UNDECIDED = "UNDECIDED"  # out of trials before the bracket was narrow


@dataclass(frozen=True, slots=True)
class Capacity:
    """What is known: a bracket, and an interval around it.

    `met_per_s` is the highest rate that met the objective, `failed_per_s` the lowest above it that did not,
    and `estimate_per_s` lies between them. `low_per_s` and `high_per_s` enclose the capacity with the doubt
    of the trials included: they do not rely on trials that were undecided or contradicted, and allow for what
    a short trial cannot see. Each is None where nothing is known. `trials` are (rate, trial) as told.
    """

    state: State
    met_per_s: float | None
    failed_per_s: float | None
    estimate_per_s: float | None
    low_per_s: float | None
    high_per_s: float | None
    trials: tuple[tuple[float, Trial], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Outcome:
    """All trials of one rate taken together. `meets` is the better guess where it is not `decided`."""

    rate_per_s: float
    meets: bool
    decided: bool
    trials: tuple[Trial, ...]

    @classmethod
    def of(cls, rate_per_s: float, trials: Sequence[Trial]) -> "_Outcome":
        votes = [trial.met for trial in trials if trial.met is not None]
        lead = votes.count(True) - votes.count(False)
        if lead:
            return cls(rate_per_s, lead > 0, abs(lead) == len(votes), tuple(trials))
        pooled, required = _pooled(trials), trials[-1].required
        decided = not votes and _verdict(pooled, required) is not None
        return cls(rate_per_s, pooled.value >= required, decided, tuple(trials))

    @property
    def disagrees(self) -> bool:
        """Whether one trial met the objective for sure and another surely did not."""
        return {trial.met for trial in self.trials} >= {True, False}


class RateSearch:
    """Doubles the rate until one fails, then closes in; `next_rate()` is None when it is done.

    * An overloaded trial tells the capacity almost exactly by what it served. The search then steps outwards
      from there, with growing steps, instead of halving the whole bracket.
    * An undecided trial counts by its point estimate. Where the search ends on it, it is asked for once more
      (`attempt` is then 2: load longer); the interval of the result does not rely on it.
    * A failure that nothing else speaks for is asked for again before the search ends on it, so that one
      stall does not halve a capacity; rates whose trials disagree get a third, and the result says so.

    `precision` is the width of the bracket relative to its lower end.
    """

    def __init__(
        self,
        start_per_s: float,
        *,
        precision: float = 0.02,
        max_steps: int = 20,
        ceiling_per_s: float = math.inf,
        floor_per_s: float | None = None,
    ) -> None:
        self._start_per_s = min(start_per_s, ceiling_per_s)
        self._precision = precision
        self._max_steps = max_steps
        self._ceiling_per_s = ceiling_per_s
        self._floor_per_s = self._start_per_s * _FLOOR if floor_per_s is None else floor_per_s
        self._told: list[tuple[float, Trial]] = []
        self._outcomes: list[_Outcome] = []  # by rate

    def tell(self, rate_per_s: float, trial: Trial) -> None:
        """Take in one trial, usually at the rate last asked for."""
        self._told.append((rate_per_s, trial))
        by_rate: dict[float, list[Trial]] = {}
        for rate, each in self._told:
            by_rate.setdefault(rate, []).append(each)
        self._outcomes = [_Outcome.of(rate, by_rate[rate]) for rate in sorted(by_rate)]

    def next_rate(self) -> float | None:
        """The rate to try next, in requests per second; None when the search is over."""
        return None if len(self._told) >= self._max_steps else self._wanted()

    @property
    def attempt(self) -> int:
        """Which trial of that rate the next one is, from 1: later ones should last longer."""
        wanted = self._wanted()
        return 1 + sum(rate == wanted for rate, _ in self._told)

    @property
    def result(self) -> Capacity:
        """What is known, also before the search is over."""
        low, high = self._edges()
        met, failed = (None if edge is None else edge.rate_per_s for edge in (low, high))
        return Capacity(
            state=self._state(),
            met_per_s=met,
            failed_per_s=failed,
            estimate_per_s=math.sqrt(met * failed) if met and failed else met,
            low_per_s=self._surely_met(),
            high_per_s=self._surely_failed(),
            trials=tuple(self._told),
            notes=self._notes(),
        )

    def _edges(self) -> tuple[_Outcome | None, _Outcome | None]:
        """The lowest failing rate, and the highest below it that meets the objective."""
        high = next((each for each in self._outcomes if not each.meets), None)
        below = self._outcomes if high is None else self._outcomes[: self._outcomes.index(high)]
        return (below[-1] if below else None), high

    def _wanted(self) -> float | None:
        if not self._outcomes:
            return self._start_per_s
        low, high = self._edges()
        if high is None:
            assert low is not None
            at_ceiling = low.rate_per_s >= self._ceiling_per_s
            return None if at_ceiling else min(low.rate_per_s * _GROWTH, self._ceiling_per_s)
        if self._is_contradicted(high):
            return high.rate_per_s
        if low is None:
            return self._below(high)
        if self._is_narrow(low, high):
            doubtful = (edge for edge in (high, low) if self._deserves_another(edge))
            return next((edge.rate_per_s for edge in doubtful), None)
        return self._between(low.rate_per_s, high.rate_per_s)

    def _is_contradicted(self, high: _Outcome) -> bool:
        """Whether its one failure stands against a higher rate that met the objective."""
        met_above = any(each.meets and each.rate_per_s > high.rate_per_s for each in self._outcomes)
        return met_above and len(high.trials) == 1

    def _is_narrow(self, low: _Outcome, high: _Outcome) -> bool:
        return high.rate_per_s <= low.rate_per_s * (1 + self._precision + _ROUNDING)

    def _deserves_another(self, edge: _Outcome) -> bool:
        """An edge of the final bracket that is undecided, or a failure that nothing else speaks for."""
        if not edge.decided:
            return len(edge.trials) < (_MOST_TRIALS_OF_A_RATE if edge.disagrees else 2)
        if edge.meets or len(edge.trials) > 1 or edge.trials[0].overloaded:
            return False
        served = self._served_when_overloaded()
        return served is None or served > edge.rate_per_s * (1 + self._precision)

    def _served_when_overloaded(self) -> float | None:
        """Good answers per second of the lowest rate that was overloaded."""
        for outcome in self._outcomes:
            served = min(trial.served_per_s for trial in outcome.trials)
            if not outcome.meets and 0 < served < outcome.rate_per_s * (1 - self._precision):
                return served
        return None

    def _below(self, high: _Outcome) -> float | None:
        """No rate has met the objective yet: try what was served, or else half the rate."""
        served = self._served_when_overloaded()
        lowest = self._floor_per_s if served is None else min(self._floor_per_s, served / _GROWTH)
        if high.rate_per_s <= lowest * (1 + _ROUNDING):
            return None
        half = high.rate_per_s / _GROWTH
        return max(lowest, half if served is None else self._around(served, 0.0, high.rate_per_s))

    def _between(self, low_per_s: float, high_per_s: float) -> float:
        served = self._served_when_overloaded()
        if served is None:
            return math.sqrt(low_per_s * high_per_s)
        return self._around(served, low_per_s, high_per_s)

    def _around(self, served_per_s: float, low_per_s: float, high_per_s: float) -> float:
        """A rate inside the bracket: just below what was served, then outwards, each step twice the last."""
        precision, middle = self._precision, math.sqrt(low_per_s * high_per_s)
        guess, width = served_per_s * (1 - precision / 2), 1 + precision
        is_new = not any(guess / width < each.rate_per_s < guess * width for each in self._outcomes)
        if is_new and low_per_s < guess < high_per_s:
            return guess
        if low_per_s * width > guess:
            steps = sum(each.meets and each.rate_per_s * width > guess for each in self._outcomes)
            return min(low_per_s * (1 + precision * 2.0 ** (steps - 1)), middle)
        steps = sum(not each.meets and each.rate_per_s < guess * width for each in self._outcomes)
        return max(high_per_s / (1 + precision * 2.0 ** (steps - 1)), middle)

    def _state(self) -> State:
        low, high = self._edges()
        if low is not None and high is None and low.rate_per_s >= self._ceiling_per_s:
            return State.UNBOUNDED
        if self._outcomes and self._wanted() is None:
            return State.NEVER if low is None else State.BRACKETED
        return State.BRACKETED if low and high and self._is_narrow(low, high) else State.UNDECIDED

    def _surely_met(self) -> float | None:
        """The highest rate below every failure that met the objective for sure.

        As no rate does better than a lower one, whatever came out at a rate and above it speaks for that
        rate: trials of few requests are taken together.
        """
        low, _ = self._edges()
        below = self._outcomes[: self._outcomes.index(low) + 1] if low else []
        for first in reversed(range(len(below))):
            trials = [trial for outcome in below[first:] for trial in outcome.trials]
            if not below[first].disagrees and _verdict(_pooled(trials), trials[-1].required):
                return below[first].rate_per_s / (1 + max(trial.blind for trial in trials))
        return None

    def _surely_failed(self) -> float | None:
        """The lowest rate that decidedly failed and has no success above it."""
        highest_met = max((e.rate_per_s for e in self._outcomes if e.meets), default=0.0)
        rates = (
            each.rate_per_s
            for each in self._outcomes
            if not each.meets and each.decided and each.rate_per_s > highest_met
        )
        return min(rates, default=None)

    def _notes(self) -> tuple[str, ...]:
        notes = [f"trials at {e.rate_per_s:.4g}/s disagreed" for e in self._outcomes if e.disagrees]
        low, high = self._edges()
        for edge in (low, high):
            if edge is not None and high is not None and not edge.decided:
                notes.append(f"at {edge.rate_per_s:.4g}/s the objective was too close to call")
        above = [e.rate_per_s for e in self._outcomes if high and e.meets and e.rate_per_s > high.rate_per_s]
        if high is not None and above:
            notes.append(f"{high.rate_per_s:.4g}/s failed although {max(above):.4g}/s met the objective")
        return tuple(notes)


def _pooled(trials: Sequence[Trial]) -> Estimate:
    n = sum(trial.attainment.n for trial in trials)
    successes = sum(trial.attainment.value * trial.attainment.n for trial in trials)
    return proportion(successes, n) or Estimate(0.0, 0.0, 1.0, 0)


def _verdict(attainment: Estimate, required: float) -> bool | None:
    value, low, high = attainment.value, attainment.low, attainment.high
    if low is not None and value - _STRETCH * (value - low) >= required:
        return True
    return False if high is not None and value + _STRETCH * (high - value) < required else None


def blind_overload(latency_limit_s: float, trial_s: float) -> float:
    """The overload, relative to the capacity, that a trial of that length cannot see.

    At (1 + x) times the capacity a queue grows by x seconds of waiting per second. Whoever arrives within the
    trial waits at most x · trial_s, which meets the limit while x <= latency_limit_s / trial_s.
    """
    return latency_limit_s / trial_s


def in_flight_limit(rate_per_s: float, latency_limit_s: float, slack: float = 2.0, *, least: int = 16) -> int:
    """Stop a trial with more requests in flight than this: it cannot meet its limit any more.

    Little's law (Operations Research 9(3), 1961): in flight on average = rate · time in the system. While
    nearly all leave within the limit, rate · limit is the most there can be on average. Arrivals at random
    make it a Poisson number at most, so five standard deviations come on top of `slack`, and never fewer than
    `least`. The limit is on the time that a request counts as in flight: the E2E limit for whole requests;
    for a limit on the first token either count only those that wait for it, or add the time that generation
    may take.
    """
    expected = rate_per_s * latency_limit_s
    return max(least, math.ceil(slack * expected + 5 * math.sqrt(expected)))
