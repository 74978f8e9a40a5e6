"""Which operations a measurement describes, and how long each took.

* The window starts after the warm-up and, where the load is stationary, after what `stats.steady` finds not
  yet steady. Fixed work is never cut: its result is all of the work by all of the time. The window ends
  as planned, or for fixed work when the last operation ended.
* Operations belong to the window by the time they were intended. Each counts with whatever became of it,
  also after the window's end: to take only those that finished inside would leave out the slowest.
* Open loop looks at *response* time (from intended), closed loop at *service* time (from sent).
* Latencies are those of answered (OK) operations and of TIMEOUT and UNFINISHED ones. The latter count as
  slower than every answered one, with at least the time they had waited, so that no percentile looks
  better because operations got no answer; a percentile that falls among them is only a lower bound.
  Operations that failed by an answer, often a fast one, have no latency: they are errors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifbench.load.plan import Quality
from aifbench.load.samples import Int64, Samples
from aifbench.load.workload import NOT_SEEN, OutcomeKind
from aifbench.results.record import Role
from aifbench.results.slo import Slo
from aifbench.stats.intervals import quantile_rank
from aifbench.stats.steady import settle

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What was asked of one stream. `measure_s` is None for fixed work.

    `arrivals` is for people; `offered_rate_per_s` is what was asked for in open loop, None where it varies.
    `items` names what an operation counts ("vectors"); it is empty when operations are their own unit.
    """

    phase: str
    stream: str
    arrivals: str
    open_loop: bool
    offered_rate_per_s: float | None = None
    warmup_s: float = 0.0
    measure_s: float | None = None
    drain_s: float = 0.0
    timeout_s: float = 30.0
    items: str = ""
    qualities: tuple[Quality, ...] = ()
    via: str = ""
    workers: int = 1
    parameters: Mapping[str, Any] = field(default_factory=dict)
    is_stationary: bool = True
    slo: Slo | None = None
    role: Role = Role.MEASURE
    samples_file: str = ""
    started_utc: str = ""

    @property
    def can_settle(self) -> bool:
        """A steady state is to be expected: timed, and the same load from beginning to end."""
        return self.measure_s is not None and self.is_stationary


@dataclass(frozen=True, slots=True)
class Times:
    """Of all operations: when each was sent and ended (at the end of watching, where it did not), and how
    long it took.

    Latencies mean something where `has_latency`, and are lower bounds where `waited`.
    """

    intended_ns: Int64
    sent_ns: Int64
    finished_ns: Int64
    latency_ns: Int64
    has_latency: Bools
    waited: Bools

    @property
    def lag_ns(self) -> Int64:
        return self.sent_ns - self.intended_ns


@dataclass(frozen=True, slots=True)
class Window:
    """Samples number `first` to `last` (exclusive) were intended in it.

    `duration_s` is its length before the steady-state cut, and `unsteady_share` the part of it (of fixed
    work: of its operations) that comes before the steady state; without one, `shift` says how far the latency
    moved, as a share of itself.
    """

    start_ns: int
    end_ns: int
    first: int
    last: int
    duration_s: float
    steady: bool | None
    unsteady_share: float
    shift: float

    @property
    def length_s(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9

    @property
    def rows(self) -> slice:
        return slice(self.first, self.last)


@dataclass(frozen=True, slots=True)
class Latencies:
    """Those of a window, in time order, and ascending; beyond the first `answered` they are lower bounds."""

    in_time_ns: Int64
    ordered_ns: Int64
    answered: int

    def __len__(self) -> int:
        return len(self.ordered_ns)

    def at_ns(self, q: float) -> int | None:
        """The sample quantile, however few they are; None when there are none."""
        return int(self.ordered_ns[quantile_rank(len(self), q) - 1]) if len(self) else None


@dataclass(frozen=True, slots=True)
class View:
    """One stream of one phase, seen through its window."""

    samples: Samples
    facts: StreamFacts
    times: Times
    window: Window
    latencies: Latencies

    @classmethod
    def of(cls, samples: Samples, facts: StreamFacts) -> "View":
        times = _times_of(samples, facts)
        window = _window_of(samples, facts, times)
        return cls(samples, facts, times, window, _latencies_of(times, window))

    @property
    def ok(self) -> Bools:
        """Which operations of the window succeeded."""
        return self.samples.ok[self.window.rows]

    @property
    def operations(self) -> int:
        return self.window.last - self.window.first

    def finished_ok_ns(self) -> Int64:
        """When each success of the whole phase finished."""
        return self.times.finished_ns[self.samples.ok]


def _times_of(samples: Samples, facts: StreamFacts) -> Times:
    watched_ns = _last_event_ns(samples)
    if facts.measure_s is not None:
        watched_ns = max(watched_ns, _ns(facts.warmup_s + facts.measure_s + facts.drain_s))
    finished_ns = _seen_or(samples.finished_ns, watched_ns)
    sent_ns = _seen_or(samples.sent_ns, watched_ns)
    waited = np.isin(samples.outcome, (OutcomeKind.TIMEOUT, OutcomeKind.UNFINISHED))
    return Times(
        intended_ns=samples.intended_ns,
        sent_ns=sent_ns,
        finished_ns=finished_ns,
        latency_ns=finished_ns - (samples.intended_ns if facts.open_loop else sent_ns),
        has_latency=samples.ok | waited,
        waited=waited,
    )


def _window_of(samples: Samples, facts: StreamFacts, times: Times) -> Window:
    start_ns = _ns(facts.warmup_s)
    first = int(np.searchsorted(samples.intended_ns, start_ns))
    if facts.measure_s is None:
        end_ns = max(start_ns, int(samples.finished_ns.max(initial=0)) or _last_event_ns(samples))
        last = len(samples)
    else:
        end_ns = start_ns + _ns(facts.measure_s)
        last = int(np.searchsorted(samples.intended_ns, end_ns))
    duration_s = (end_ns - start_ns) / 1e9
    places = first + np.flatnonzero(times.has_latency[first:last])
    steady = settle(times.latency_ns[places])
    unsteady_share = steady.cut / len(places) if steady.cut else 0.0
    if steady.cut and facts.can_settle:
        first = int(places[steady.cut])
        unsteady_share = (int(samples.intended_ns[first]) - start_ns) / (end_ns - start_ns)
        start_ns = int(samples.intended_ns[first])
    return Window(start_ns, end_ns, first, last, duration_s, steady.steady, unsteady_share, steady.shift)


def _seen_or(column_ns: Int64, otherwise_ns: int) -> Int64:
    """The column itself where nothing is missing: a million operations are to fit in little memory."""
    missing = column_ns == NOT_SEEN
    return np.where(missing, otherwise_ns, column_ns) if missing.any() else column_ns


def _latencies_of(times: Times, window: Window) -> Latencies:
    chosen = times.has_latency[window.rows]
    if chosen.all():
        return latencies_of(times.latency_ns[window.rows], times.waited[window.rows])
    return latencies_of(times.latency_ns[window.rows][chosen], times.waited[window.rows][chosen])


def latencies_of(in_time_ns: Int64, waited: Bools) -> Latencies:
    """Latencies in time order, of which those that `waited` are lower bounds."""
    if not waited.any():
        return Latencies(in_time_ns, np.sort(in_time_ns), len(in_time_ns))
    answered_ns, waits_ns = np.sort(in_time_ns[~waited]), np.sort(in_time_ns[waited])
    ordered_ns = np.concatenate([answered_ns, np.maximum(waits_ns, answered_ns.max(initial=0))])
    return Latencies(in_time_ns, ordered_ns, len(answered_ns))


def _last_event_ns(samples: Samples) -> int:
    columns = (samples.intended_ns, samples.sent_ns, samples.finished_ns)
    return max(int(column.max(initial=0)) for column in columns)


def _ns(duration_s: float) -> int:
    return round(duration_s * 1e9)
