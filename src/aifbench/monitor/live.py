"""A benchmark that runs, whoever runs it, as seen from the files that grow in its run's directory."""

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aifbench.clock import Clock
from aifbench.errors import BenchError, ResultError
from aifbench.load import rendezvous as rv
from aifbench.load.arrivals import Closed, from_json
from aifbench.load.plan import PhasePlan, StreamPlan
from aifbench.load.recorder import (
    MAX_NEW_ROWS,
    Rows,
    count_errors,
    count_rows,
    read_new_rows,
    response_ms,
    rows_path,
)
from aifbench.load.workload import NOT_SEEN
from aifbench.results.files import heartbeat_age_s
from aifbench.results.neighbours import service_names
from aifbench.results.record import RunRecord, RunState
from aifbench.results.resource_samples import parse
from aifbench.results.store import RunStore

# Rates and percentiles are of the last so many seconds.
WINDOW_S = 5.0
_HISTORY = 60
# Of so many of the newest runs one may be running; older ones only if their heartbeat is young.
_CANDIDATES = 20
_STILL_BEATS_S = 120.0
_EDGE_BYTES = 16_384
# Longer than a worker takes to write an answer down, on a shared file system too.
_SILENT_S = 1.5


@dataclass(frozen=True, slots=True)
class PhaseView:
    """A phase now. `stage` is preparing, warm-up, measuring, finishing; or running, without a planned time.

    `planned_s` is None when the phase ends after a number of operations, `in_flight` where nobody can tell;
    `errors` are at least so many when `has_more_errors`.
    """

    name: str
    number: int
    stage: str
    elapsed_s: float = 0.0
    planned_s: float | None = None
    operations: int = 0
    planned_operations: int | None = None
    rate_per_s: float = 0.0
    offered_per_s: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    errors: int = 0
    recent_errors: int = 0
    has_more_errors: bool = False
    in_flight: int | None = None
    rates_per_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class RunView:
    """A running benchmark; without a `phase` it is between two, or has not begun one."""

    run_id: str
    bench: str
    services: tuple[str, ...]
    phase: PhaseView | None


@dataclass(frozen=True, slots=True)
class NodeView:
    """What a node's sampler saw last: means over `seen_s`, ended `age_s` ago by this machine's clock."""

    node: str
    values: Mapping[str, float]
    age_s: float


class RunWatch:
    """Looks again and again at the running benchmark of one service; none is no error."""

    def __init__(self, runs: RunStore, service: str, clock: Clock) -> None:
        self._runs = runs
        self._service = service
        self._clock = clock
        self._phase: PhaseWatch | None = None

    def look(self) -> RunView | None:
        """The newest run that loads the service now."""
        record = self._running()
        if record is None:
            self._phase = None
            return None
        root = self.client_directory(record.run_id)
        newest = max(root.glob("phase-*/plan.json"), default=None)
        if newest is None or self._phase is None or self._phase.directory != newest.parent:
            self._phase = PhaseWatch.open(newest.parent, self._clock) if newest else None
        phase = self._phase.look() if self._phase else None
        return RunView(record.run_id, str(record.recipe.get("bench", "")), service_names(record), phase)

    def client_directory(self, run_id: str) -> Path:
        """Where the run's load workers, and the sampler beside them, write."""
        return self._runs.path(run_id) / "phases"

    def _running(self) -> RunRecord | None:
        now_s = self._clock.wall_s()
        for run_id in self._runs.run_ids()[:_CANDIDATES]:
            age_s = heartbeat_age_s(self._runs.path(run_id), now_s)
            if age_s is None or age_s > _STILL_BEATS_S:
                continue
            with suppress(ResultError):
                record = self._runs.load(run_id)
                if record.state is RunState.RUNNING and self._service in service_names(record):
                    return record
        return None


class PhaseWatch:
    """One phase; each `look` reads only what is new."""

    def __init__(self, directory: Path, plan: PhasePlan, clock: Clock) -> None:
        self.directory = directory
        self._plan = plan
        self._clock = clock
        self._workers = {s.name: [rv.rows_name(s.name, k) for k in range(s.workers)] for s in plan.streams}
        self._seen: dict[str, int] = {}
        self._tips: dict[str, _Tip] = {}
        self._errors = 0
        self._has_more_errors = False
        self._start_wall_s: float | None = None
        self._looks: deque[_Look] = deque()
        self._rates: deque[float] = deque(maxlen=_HISTORY)
        self._due = {s.name: _due_s(plan, s) for s in plan.streams}

    @classmethod
    def open(cls, directory: Path, clock: Clock) -> "PhaseWatch | None":
        """None for a plan that this version cannot read."""
        with suppress(OSError, ValueError, TypeError, KeyError, AssertionError, BenchError):
            data = rv.read_json(directory / rv.PLAN)
            return cls(directory, PhasePlan.from_json(data), clock) if data else None
        return None

    def look(self) -> PhaseView:
        name, number = self._plan.name, int(self.directory.name.rpartition("-")[2])
        if self._start_wall_s is None:
            with suppress(OSError, ValueError, AssertionError):
                start = rv.read_json(self.directory / rv.START)
                self._start_wall_s = float(start["start_wall_s"]) if start else None
        if self._start_wall_s is None:
            return PhaseView(name, number, "preparing")
        elapsed_s = max(0.0, self._clock.wall_s() - self._start_wall_s)
        operations = self._read(elapsed_s)
        spans = np.concatenate([look.spans_ms for look in self._looks])
        timed = self._plan.measure_s is not None
        planned_s = self._plan.warmup_s + (self._plan.measure_s or 0.0) if timed else None
        rate_per_s = self._rate_per_s()
        self._rates.append(rate_per_s)
        quantiles = np.quantile(spans, [0.5, 0.99]) if len(spans) else None
        return PhaseView(
            name=name,
            number=number,
            stage=self._stage(elapsed_s, planned_s),
            elapsed_s=elapsed_s,
            planned_s=planned_s,
            operations=operations,
            planned_operations=None if timed else sum(s.limit or 0 for s in self._plan.streams),
            rate_per_s=rate_per_s,
            offered_per_s=self._offered_per_s(planned_s),
            p50_ms=float(quantiles[0]) if quantiles is not None else None,
            p99_ms=float(quantiles[1]) if quantiles is not None else None,
            errors=self._errors,
            recent_errors=sum(look.errors for look in self._looks),
            has_more_errors=self._has_more_errors,
            in_flight=self._in_flight(elapsed_s, planned_s),
            rates_per_s=tuple(self._rates),
        )

    def _read(self, elapsed_s: float) -> int:
        """Take what is new; how many operations there are now."""
        rows, is_first = [], not self._seen
        for names in self._workers.values():
            for name in names:
                first, count = self._seen.get(name, 0), count_rows(self.directory, name)
                with suppress(OSError):  # its files are merged and removed at the phase's end
                    new, finished_s = self._new_rows(name, first)
                    if len(new):
                        self._tips[name] = _Tip(float(finished_s.max()), self._clock.monotonic_s())
                    rows.append(_recent(new, finished_s, elapsed_s) if is_first else (new, 0))
                    self._has_more_errors |= count - first > MAX_NEW_ROWS
                # Never backwards: then the count on screen would fall.
                self._seen[name] = max(first, count)
        operations, now_s = sum(self._seen.values()), self._clock.monotonic_s()
        spans = np.concatenate([_good_ms(new) for new, _ in rows] or [np.empty(0)])
        errors = sum(count_errors(new) for new, _ in rows)
        if is_first:
            recent = sum(len(new) for new, _ in rows)
            self._looks.append(_Look(now_s - min(WINDOW_S, max(elapsed_s, 1e-3)), operations - recent))
        self._errors += sum(older for _, older in rows) + errors
        self._looks.append(_Look(now_s, operations, spans, errors))
        while len(self._looks) > 2 and self._looks[1].at_s <= now_s - WINDOW_S:
            self._looks.popleft()
        return operations

    def _new_rows(self, name: str, first: int) -> tuple[Rows, NDArray[np.float64]]:
        """What is new of one worker, and when it was finished, in seconds since its start."""
        rows = read_new_rows(self.directory, name, first)
        if not len(rows):
            return rows, np.empty(0)
        origin_ns = np.fromfile(rows_path(self.directory, name), rows.dtype, count=1)["intended_ns"][0]
        return rows, np.where(rows["finished_ns"] == NOT_SEEN, 0, rows["finished_ns"] - origin_ns) / 1e9

    def _rate_per_s(self) -> float:
        first, last = self._looks[0], self._looks[-1]
        return (last.operations - first.operations) / max(last.at_s - first.at_s, 1e-3)

    def _stage(self, elapsed_s: float, planned_s: float | None) -> str:
        if planned_s is None:
            return "running"
        if elapsed_s > planned_s:
            return "finishing"
        return "warm-up" if elapsed_s < self._plan.warmup_s else "measuring"

    def _offered_per_s(self, planned_s: float | None) -> float | None:
        """None where any stream is a closed loop."""
        if planned_s is None:
            return None
        rates = [from_json(s.arrivals).mean_rate_per_s(planned_s) for s in self._plan.streams]
        known = [rate for rate in rates if rate is not None]
        return sum(known) if len(known) == len(rates) else None

    def _in_flight(self, elapsed_s: float, planned_s: float | None) -> int | None:
        """Due and not finished; in a closed loop the clients, as long as they have work."""
        total = 0
        for stream in self._plan.streams:
            due_s, names = self._due[stream.name], self._workers[stream.name]
            if due_s is None:
                return None
            if isinstance(due_s, int):
                left = stream.limit - sum(map(self._seen.__getitem__, names)) if stream.limit else due_s
                total += min(due_s, left) if planned_s is None or elapsed_s <= planned_s else 0
                continue
            for number, name in enumerate(names):
                due = np.searchsorted(due_s[number :: len(names)], self._known_until_s(name, elapsed_s))
                total += max(0, int(due) - self._seen[name])
        return total

    def _known_until_s(self, name: str, elapsed_s: float) -> float:
        """Answers come to disk a little later: so what was in flight is known for when the last one came.

        Of a worker that has written nothing for long, there is nothing else to come.
        """
        tip = self._tips.get(name)
        if tip is None or self._clock.monotonic_s() - tip.read_at_s > _SILENT_S:
            return elapsed_s
        return tip.finished_s


@dataclass(frozen=True, slots=True)
class _Tip:
    """The last answer of a worker: when it came, since the phase's start, and when it was read, monotonic."""

    finished_s: float
    read_at_s: float


@dataclass(frozen=True, slots=True)
class _Look:
    at_s: float
    operations: int
    spans_ms: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    errors: int = 0


def nodes_now(directory: Path, now_s: float) -> list[NodeView]:
    """What the samplers that write into `directory` saw last; none where there are none."""
    found = []
    for path in sorted(directory.glob("resources-*.jsonl")):
        try:
            with path.open("rb") as file:
                begin = file.read(_EDGE_BYTES)
                file.seek(max(len(begin), path.stat().st_size - _EDGE_BYTES))
                parts = (begin, file.read())
        except OSError:
            continue
        lines = [line for part in parts for line in part.decode(errors="replace").splitlines()]
        samples = parse(lines, 0.0, float("inf"))
        if samples is None or not samples.stretches:
            continue
        last = samples.stretches[-1]
        found.append(NodeView(samples.node, last.values, max(0.0, now_s - last.end_s)))
    return found


def _recent(rows: Rows, finished_s: NDArray[np.float64], elapsed_s: float) -> tuple[Rows, int]:
    """Those of the window, and how many of the others are errors."""
    # Workers on other nodes may be ahead of this clock.
    end_s = max(elapsed_s, float(finished_s.max(initial=0.0)))
    is_recent = finished_s > end_s - WINDOW_S
    return rows[is_recent], count_errors(rows[~is_recent])


def _good_ms(rows: Rows) -> NDArray[np.float64]:
    return response_ms(rows[rows["outcome"] == 0])


def _due_s(plan: PhasePlan, stream: StreamPlan) -> NDArray[np.float64] | int | None:
    """When operations are due; of a closed loop how many clients there are; None for chains on a schedule."""
    arrivals = from_json(stream.arrivals)
    if isinstance(arrivals, Closed):
        return arrivals.clients
    if stream.chain > 1 or plan.measure_s is None:
        return None
    return arrivals.offsets_s(plan.warmup_s + plan.measure_s)[: stream.limit]
