"""Phases of database load: how a kind of work is loaded, counted by the server, and checked."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aifbench.load.arrivals import to_json
from aifbench.load.fleet import PhaseOutcome
from aifbench.load.plan import Quality, StreamPlan
from aifbench.results.metrics import metric_of
from aifbench.results.record import Check, Measurement, Metric, Verdict
from aifbench.results.slo import Slo
from aifbench.servers.benchmark import Evidence, Phase
from aifbench.servers.counting import count_check
from aifbench.servers.levels import Level
from aifbench.servers.postgres_checks import check_agreement
from aifbench.servers.postgres_database import RunDatabase
from aifbench.servers.postgres_metrics import server_metrics
from aifbench.stats.intervals import proportion
from aifbench.workloads.postgres_stats import Snapshot, change

PGBENCH = "pgbench"
OWN = "psycopg"
# In open loop a connection has to be free whenever an operation is due.
OPEN_CONNECTIONS = 32
_NS = 1e9
_SILENT = Check(
    "SERVER",
    Verdict.INVALID,
    "the server gives no answer any more, now that the load is over",
    advice="`status` and `logs` tell what became of it",
)


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of operation, made by pgbench or by our own engine (`via`).

    `connections`: whether the workload has a parameter of that name. `stored` counts rows, of which each
    operation adds one or, where it has items, as many as those: `rows_each` at most. `checks` are told beside
    each of its measurements, for so many clients.
    """

    name: str
    workload: str
    params: Mapping[str, Any]
    via: str
    items: str = ""
    qualities: tuple[Quality, ...] = ()
    connections: bool = True
    is_stationary: bool = True
    stored: Callable[[], int] | None = None
    rows_each: int = 1
    checks: Callable[[int], Sequence[Check]] = lambda _: ()
    parameters: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of a level, for whoever decides about the next one."""

    work: Work
    level: Level
    measurement: Measurement

    def value(self, metric: str) -> float | None:
        found = self.measurement.metric(metric)
        return found.value if found else None


class PhaseMaker:
    """Makes phases of levels, and keeps what came of each in `seen`."""

    def __init__(self, database: RunDatabase, options: Mapping[str, Any]) -> None:
        self._database = database
        self._options = options
        self._before: Snapshot | None = None
        self._after: Snapshot | None = None
        self._stored_before = 0
        self.seen: list[Seen] = []

    def phase(
        self, work: Work, level: Level, more: Callable[[Measurement], Sequence[Metric]] = lambda _: ()
    ) -> Phase:
        """`more` makes further metrics of the measurement, once it is in `seen`."""
        options = self._options
        connections = level.clients or open_connections(options)
        params = dict(work.params)
        if work.connections:
            params["connections"] = -(-connections // level.workers(options))
        stream = StreamPlan(
            work.name,
            work.workload,
            params,
            to_json(level.arrivals),
            items=work.items,
            qualities=work.qualities,
            via=work.via,
            is_stationary=work.is_stationary,
        )
        database = self._database
        plan = level.plan(
            stream, database.endpoint if level.is_measured else database.direct_endpoint, options
        )
        (stream,) = plan.streams

        def verify(outcome: PhaseOutcome, measured: Mapping[str, Measurement]) -> Mapping[str, Evidence]:
            (measurement,) = measured.values()
            evidence = self._evidence(work, level, outcome, stream, measurement)
            measurement = replace(measurement, metrics=(*measurement.metrics, *evidence.metrics))
            self.seen.append(Seen(work, level, measurement))
            return {stream.name: Evidence(evidence.checks, (*evidence.metrics, *more(measurement)))}

        parameters = {
            **(work.parameters or {}),
            "connections": connections,
            "via": work.via,
            **({"pooler": str(self._database.pooler)} if self._database.pooler else {}),
            **({"slo": str(level.slo)} if level.slo else {}),
        }
        return Phase(
            plan,
            parameters,
            verify,
            is_measured=level.is_measured,
            role=level.role,
            watching=self._watching(work) if level.is_measured else lambda _: nullcontext(),
        )

    def _watching(self, work: Work) -> Callable[[Path], AbstractContextManager[object]]:
        @contextmanager
        def watch(_: Path) -> Iterator[None]:
            self._stored_before = work.stored() if work.stored else 0
            self._before = self._database.snapshot()
            yield
            self._after = self._database.snapshot()

        return watch

    def _evidence(
        self, work: Work, level: Level, outcome: PhaseOutcome, stream: StreamPlan, measurement: Measurement
    ) -> Evidence:
        checks = [*work.checks(level.clients or open_connections(self._options))]
        metrics: list[Metric] = []
        if level.slo is not None:
            metrics.append(_attainment(outcome, stream, measurement, level.slo))
        if self._before and self._after:
            metrics += server_metrics(change(self._before, self._after), _lasted_s(outcome, stream))
        elif self._before:
            checks.append(_SILENT)
        if work.via == PGBENCH:
            checks.append(_agreement(outcome, stream))
            _discard_logs(outcome, stream)
        if work.stored:
            samples = outcome.samples(stream)
            certain = int(samples.items[samples.ok].sum()) if work.items else int(samples.ok.sum())
            doubtful = int((~samples.ok).sum()) * work.rows_each
            grown = work.stored() - self._stored_before
            checks.append(count_check(grown, certain, certain + doubtful, "rows"))
        return Evidence(tuple(checks), tuple(metrics))


def _lasted_s(outcome: PhaseOutcome, stream: StreamPlan) -> float:
    return int(outcome.samples(stream).finished_ns.max(initial=0)) / _NS


def open_connections(options: Mapping[str, Any]) -> int:
    """In all, for operations that come at a rate."""
    return int(options["clients"]) if "clients" in options["given"] else OPEN_CONNECTIONS


def _attainment(outcome: PhaseOutcome, stream: StreamPlan, measurement: Measurement, slo: Slo) -> Metric:
    """Of operations that were due in the window, those that succeeded within the limit."""
    samples = outcome.samples(stream)
    start_ns, end_ns = (edge * _NS for edge in measurement.window_s)
    due = (samples.intended_ns >= start_ns) & (samples.intended_ns < end_ns)
    took_ms = (samples.finished_ns - samples.intended_ns) / 1e6
    met = due & samples.ok & (took_ms <= (slo.e2e_ms or 0.0))
    return metric_of("attainment", "%", "higher", proportion(int(met.sum()), int(due.sum())), 100)


def _agreement(outcome: PhaseOutcome, stream: StreamPlan) -> Check:
    """Of the worker whose pgbench is least at one with its log."""
    checks = [check_agreement(report.notes) for report in outcome.reports(stream)]
    order = (Verdict.VALID, Verdict.WARN, Verdict.INVALID)
    worst = max(checks, key=lambda check: order.index(check.verdict))
    if worst.verdict is Verdict.VALID and len(checks) > 1:
        total = sum(int(report.notes["processed"]) for report in outcome.reports(stream))
        text = (
            f"the summaries and logs of {len(checks)} pgbench agree on {total:,} transactions and their mean"
        )
        return replace(worst, message=text)
    return worst


def _discard_logs(outcome: PhaseOutcome, stream: StreamPlan) -> None:
    """What they told is in the samples, in a tenth of the space."""
    for worker in range(stream.workers):
        for path in outcome.program_folder(stream, worker).glob("transactions.*"):
            path.unlink(missing_ok=True)
