"""A Session without scheduler, disk or load: services become what a test says, runs appear at once."""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from test.fakes.clock import FakeClock

from aifbench.cluster.endpoint import Endpoint
from aifbench.cluster.jobs import JobInfo, JobState
from aifbench.config import Config
from aifbench.doctor import Finding
from aifbench.errors import NotReady, ServiceDied, UnknownRun, UnknownService
from aifbench.eventlog import EventLog
from aifbench.load.progress import LoadStatus, Progress
from aifbench.monitor.live import NodeView, RunView
from aifbench.options import Option, nearest, resolve_options
from aifbench.results.query import RunSummary, matcher, sort_key
from aifbench.results.record import Check, Measurement, RunRecord, RunState, Verdict
from aifbench.servers.attached import ATTACH_OPTIONS
from aifbench.servers.calibrate import Calibration, Compared
from aifbench.servers.instance import ATTACHED
from aifbench.servers.log import ALL, Wanted
from aifbench.servers.status import ServiceStatus, Stage
from aifbench.units import parse_count, parse_duration_s, parse_rate_per_s

BENCHES = ("all", "ingest", "search", "mixed")
START_OPTIONS = (
    Option("name", "name of this instance", metavar="NAME"),
    Option("nodes", "nodes", lambda text: parse_count(text, "--nodes", maximum=1000), 1),
    Option("time", "time limit", lambda text: parse_duration_s(text, "--time"), 3600.0),
    Option("partition", "Slurm partition"),
)
BENCH_OPTIONS = (
    Option("rate", "operations per second", lambda text: parse_rate_per_s(text, "--rate"), 50.0),
    Option("duration", "how long to measure", lambda text: parse_duration_s(text, "--duration"), 30.0),
    Option("clients", "load processes", lambda text: parse_count(text, "--clients", maximum=4096), 1),
    Option("via", "through our client or the vendor's", choices=("http", "sdk"), default="http"),
    Option("cold", "skip the warm-up", flag=True, default=False),
)


def calibration() -> Calibration:
    return Calibration(
        load="closed loop, 256 clients",
        host="node7, 64 cores",
        workers=1,
        answers=3700,
        errors=0,
        tokens_per_s=47_800.0,
        cpu_percent=31.0,
        cpu_s_per_1k_tokens=0.0071,
        ttft_p50=Compared("TTFT p50", 50.1, 0.12),
        ttft_p99=Compared("TTFT p99", 51.0, 0.9),
        gap_p50=Compared("gap p50", 5.0, 0.001),
        gap_p99=Compared("gap p99", 5.2, 0.4),
        way_p99_ms=0.7,
    )


class FakeSession:
    """Records its calls. `stages` is what a service goes through while `check` waits for it.

    An operation in `interrupted` meets Ctrl-C that many times; one in `failing` raises that error.
    """

    def __init__(self, *services: str) -> None:
        self.services: dict[str, ServiceStatus] = {}
        self.records: list[RunRecord] = []
        self.calls: list[tuple[Any, ...]] = []
        self._cached: list[ServiceStatus] = []
        self.scheduler_kind_now = "local"
        self.config = Config(Path("/project"), Path("/results"), Path("/scratch"), Path("/images"))
        self.events = EventLog(Path("/nonexistent"), FakeClock(), level="off", keep_s=86_400.0)
        self.left: list[str] = []
        self.run_views: list[RunView | None] = []
        self.during_status: Callable[[], None] = lambda: None
        self.stages: Sequence[Stage] = (Stage.QUEUED, Stage.STARTING, Stage.READY)
        self.verdict = Verdict.VALID
        self.client_percent = 31.0
        self.interrupted: dict[str, int] = {}
        self.failing: dict[str, BaseException] = {}
        self.findings = [Finding("python", True, "3.11"), Finding("scheduler", True, "local")]
        for name in services:
            self.services[name] = self._status(name, Stage.READY)

    @property
    def scheduler_kind(self) -> str:
        return self.scheduler_kind_now

    def kinds(self) -> list[str]:
        return ["chroma", "postgres"]

    def describe(self, kind: str) -> str:
        return {"chroma": "Chroma vector database", "postgres": "PostgreSQL"}[kind]

    def start_options(self, kind: str) -> tuple[Option, ...]:
        own = Option("shards", "shards", lambda text: parse_count(text, "--shards"), 1)
        return START_OPTIONS if kind == "chroma" else (*START_OPTIONS, own)

    def bench_names(self, kind: str) -> tuple[str, ...]:
        return BENCHES if kind == "chroma" else ("all", "tpcb")

    def bench_options(self, _kind: str) -> tuple[Option, ...]:
        return BENCH_OPTIONS

    def instances(self) -> list[str]:
        return [name for name, status in self.services.items() if status.is_alive]

    def kind_of(self, name: str) -> str:
        self._known(name)
        return self.services[name].kind

    def start(self, kind: str, given: Mapping[str, Any]) -> ServiceStatus:
        values = resolve_options(self.start_options(kind), given)
        name = values["name"] or kind
        self._enter("start", kind, values)
        self.services[name] = self._status(name, Stage.QUEUED, kind=kind)
        return self.services[name]

    def attachable_kinds(self) -> list[str]:
        return ["postgres"]

    def attach_options(self, _kind: str) -> tuple[Option, ...]:
        return ATTACH_OPTIONS

    def attach(self, kind: str, url: str, given: Mapping[str, Any]) -> ServiceStatus:
        values = resolve_options(ATTACH_OPTIONS, given)
        self._enter("attach", kind, url, values)
        name = values["name"] or kind
        status = self._status(name, Stage.READY, kind=kind)
        job = JobInfo("", JobState.RUNNING, source=ATTACHED)
        self.services[name] = replace(status, job=job, detail="16.2, no authentication")
        return self.services[name]

    def dry_run(self, kind: str, given: Mapping[str, Any]) -> str:
        values = resolve_options(self.start_options(kind), given)
        return f"sbatch --nodes={values['nodes']} batch_scripts/start_{kind}.sh"

    def status(self, *, max_age_s: float = 5.0) -> list[ServiceStatus]:
        self._enter("status", max_age_s)
        self.during_status()
        self._cached = list(self.services.values())
        return self._cached

    def status_of(self, name: str) -> ServiceStatus:
        self._known(name)
        self._enter("status_of", name)
        return self.services[name]

    def run_watch(self, name: str) -> "FakeSession":
        self._known(name)
        return self

    def look(self) -> RunView | None:
        """Of the watch: the next of `run_views`, the last for ever."""
        views = self.run_views
        return (views.pop(0) if len(views) > 1 else views[0]) if views else None

    def nodes_now(self, name: str, run_id: str = "") -> dict[str, list[NodeView]]:
        self._enter("nodes_now", name, run_id)
        return {"service": [NodeView("mel1", {"cpu_percent": 37.0}, 0.4)], "clients": []}

    def left_behind(self) -> list[str]:
        return self.left

    def cached_status(self) -> list[ServiceStatus]:
        return self._cached

    def check(
        self, name: str, *, wait_s: float = 0, progress: Callable[[ServiceStatus], None] = lambda _: None
    ) -> ServiceStatus:
        self._known(name)
        for stage in self.stages if wait_s else ():
            self.become(name, stage)
            progress(self.services[name])
            progress(self.services[name])
        self._enter("check", name, wait_s)
        status = self.services[name]
        if status.stage is Stage.FAILED:
            raise ServiceDied(f"{name} died: out of memory", hint=f"see `logs {name}`")
        if status.stage is not Stage.READY:
            raise NotReady(f"{name} is not ready after {wait_s:g} s", hint=f"`check {name} --wait 5m`")
        return replace(status, ready_after_s=12.3)

    def logs(self, name: str, *, lines: int = 50, wanted: Wanted = ALL) -> list[str]:
        self._known(name)
        self._enter("logs", name, lines, *([] if wanted.is_all else [wanted]))
        return [f"line {number}" for number in range(1, 101)][-lines:]

    def follow(self, name: str, *, wanted: Wanted = ALL) -> Iterator[str]:
        self._known(name)
        yield from ("first", "second")
        self._enter("follow", name, *([] if wanted.is_all else [wanted]))
        yield "third"

    def stop(self, names: Sequence[str]) -> list[ServiceStatus]:
        chosen = self.instances() if list(names) == ["all"] else list(names)
        for name in chosen:
            self._known(name)
        self._enter("stop", *chosen)
        for name in chosen:
            self.become(name, Stage.ENDED)
        return [self.services[name] for name in chosen]

    def bench(self, name: str, bench: str, given: Mapping[str, Any], progress: Progress) -> RunRecord:
        self._known(name)
        values = resolve_options(BENCH_OPTIONS, given)
        progress.phase(bench, f"poisson {values['rate']:g}/s, {values['duration']:g} s")
        for second in range(0, 30, 3):
            progress.update(LoadStatus(bench, float(second), 30.0, second * 50, None, 50.0, 0, 12.3))
        self._enter("bench", name, bench, values)
        progress.note("recall@10 0.991")
        return self._measured(self.services[name].kind, name, bench)

    def calibrate(self, given: Mapping[str, Any], progress: Progress) -> Calibration:
        progress.phase("calibrate", "closed loop, 64 clients, 10 s, on node7")
        self._enter("calibrate", dict(given))
        return replace(calibration(), cpu_percent=self.client_percent)

    def runs(
        self, *, filters: Sequence[str] = (), sort: str = "created", limit: int | None = None
    ) -> list[RunSummary]:
        self._enter("runs")
        matches = matcher(filters, 1_800_000_000.0)
        found = [s for s in (RunSummary.of(record, 20480) for record in self.records) if matches(s)]
        key = sort_key(sort)
        return (sorted(found, key=key) if key else found[::-1])[:limit]

    def run(self, ref: str) -> RunRecord:
        for record in reversed(self.records):
            if ref == "last" or record.run_id.endswith(ref):
                return record
        raise UnknownRun(f"no run matches {ref!r}", hint="`results` lists them")

    def run_text(self, ref: str, *, full: bool = False) -> str:
        record = self.run(ref)
        return f"{record.run_id} {record.verdict.value}{' in full' if full else ''}"

    def report(self, ref: str, *, formats: Sequence[str] = (), out: Path | None = None) -> list[Path]:
        directory = out or Path("/results") / self.run(ref).run_id
        return [directory / f"report.{name}" for name in formats or ("html", "md")]

    def run_directory(self, ref: str) -> Path:
        return Path("/results") / ref

    def save(self, ref: str, out: Path | None = None) -> Path:
        self._enter("save", ref, out)
        return out or Path(f"/results/{self.run('last').run_id}.zip")

    def doctor(self) -> list[Finding]:
        return self.findings

    def quickstart(self, progress: Progress) -> tuple[RunRecord, Path]:
        progress.phase("start", "chroma")
        self._enter("quickstart")
        return self._measured("chroma", "chroma", "all"), Path("/results/quickstart.zip")

    def become(self, name: str, stage: Stage, **changes: Any) -> None:
        """Another shell, the scheduler or time has changed a service."""
        old = self.services[name]
        job = {"job": old.job} if old.job.source == ATTACHED else {}
        self.services[name] = replace(self._status(name, stage, kind=old.kind), **job, **changes)

    def called(self, operation: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == operation]

    def _enter(self, operation: str, *arguments: Any) -> None:
        self.calls.append((operation, *arguments))
        if operation in self.failing:
            raise self.failing[operation]
        if operation in self.interrupted:
            _press_ctrl_c(self.interrupted[operation])

    def _known(self, name: str) -> None:
        if name not in self.services:
            raise UnknownService(
                f"no service {name!r}" + nearest(name, self.services), hint="`status` lists them"
            )

    def _status(self, name: str, stage: Stage, kind: str = "chroma") -> ServiceStatus:
        is_up = stage in (Stage.READY, Stage.STARTING)
        state = JobState.RUNNING if is_up else JobState.PENDING
        job = JobInfo(
            "12", state, reason="" if is_up else "Priority", nodes=("mel1",) if is_up else (), elapsed_s=192.0
        )
        endpoint = Endpoint("127.0.0.1", 8000) if is_up else None
        return ServiceStatus(name, kind, stage, replace(job, time_left_s=3408.0), endpoint)

    def _measured(self, kind: str, name: str, bench: str) -> RunRecord:
        check = Check("lag", self.verdict, "generator kept up")
        measurement = Measurement("search", "search", "poisson 50/s", "http", 1, (0.0, 30.0), (), (check,))
        record = RunRecord(
            run_id=f"20261120-13145{len(self.records)}-{kind}-a3f{len(self.records)}",
            created_utc="2026-11-20T13:14:55Z",
            state=RunState.COMPLETE,
            service={"kind": kind, "name": name},
            recipe={"bench": bench},
            measurements=(measurement,),
        )
        self.records.append(record)
        return record


def _press_ctrl_c(times: int) -> None:
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        if times > 1:
            _press_ctrl_c(times - 1)
