"""Services that a study can start, load and stop, at once and in memory; they fail when a test says so."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from test.fakes.catalog import FakeCatalog
from test.fakes.records import sample_record

from aifbench.cluster.jobs import JobInfo, JobState
from aifbench.errors import BenchError, NotReady, ServiceDied, SubmitError, UnknownService
from aifbench.load.progress import Progress
from aifbench.options import Option, count_option, resolve_options
from aifbench.results.record import RunRecord
from aifbench.servers.options import parse_name
from aifbench.servers.status import ServiceStatus, Stage


class FakeServices(FakeCatalog):
    """`calls` is what was asked, in order. A test sets what goes wrong: see the attributes."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.stages: dict[str, Stage] = {}
        self.kind: dict[str, str] = {}
        self.runs: list[RunRecord] = []
        self.refused_starts = 0  # so many of the next submissions are refused
        self.dying_starts = 0  # so many of the next services die before they are ready
        self.waits_in_queue = 0  # so often waiting is over while the job is still queued
        self.queue_advice = ""
        self.is_stuck = False
        self.time_left_s: float | None = None
        self.unstoppable = False
        self.on_refused_stop: Callable[[], object] = lambda: None
        self.during_bench: Callable[[int], object] = lambda _: None

    def bench_options(self, kind: str) -> tuple[Option, ...]:
        return (*super().bench_options(kind), count_option("seed", "seed", 1, minimum=0, maximum=2**32 - 1))

    def run_already(self, name: str, kind: str = "store") -> None:
        """Somebody has started it."""
        self.stages[name], self.kind[name] = Stage.READY, kind

    def die(self) -> None:
        """Every service ends by itself."""
        self.stages = dict.fromkeys(self.stages, Stage.FAILED)

    def instances(self) -> list[str]:
        return [name for name, stage in self.stages.items() if stage is not Stage.ENDED]

    def kind_of(self, name: str) -> str:
        if name not in self.kind:
            raise UnknownService(f"no service is called {name!r}")
        return self.kind[name]

    def start(self, kind: str, given: Mapping[str, Any]) -> ServiceStatus:
        values = resolve_options(self.start_options(kind), given)
        name = parse_name(values["name"])
        self.calls.append(("start", name, {key: given[key] for key in given if key != "name"}))
        assert self.stages.get(name) in (None, Stage.ENDED, Stage.FAILED), f"{name} runs already"
        if self.refused_starts:
            self.refused_starts -= 1
            raise SubmitError("sbatch: invalid partition")
        self.run_already(name, kind)
        if self.dying_starts:
            self.dying_starts -= 1
            self.stages[name] = Stage.FAILED
        return self._status(name)

    def check(
        self, name: str, *, wait_s: float = 0.0, progress: Callable[[Any], None] = lambda _: None
    ) -> ServiceStatus:
        self.kind_of(name)
        if wait_s and self.waits_in_queue:
            self.waits_in_queue -= 1
            job = JobInfo("12", JobState.PENDING, advice=self.queue_advice, is_stuck=self.is_stuck)
            progress(replace(self._status(name), stage=Stage.QUEUED, job=job, advice=job.advice))
            raise NotReady(f"{name} is not ready after {wait_s:g} s: QUEUED")
        status = self._status(name)
        progress(status)
        if wait_s and not status.is_alive:
            raise ServiceDied(f"{name}: out of memory")
        return status

    def stop(self, names: Sequence[str]) -> list[ServiceStatus]:
        self.calls.append(("stop", *names))
        if self.unstoppable:
            self.on_refused_stop()
            raise BenchError("the scheduler does not answer")
        self.stages.update(dict.fromkeys(names, Stage.ENDED))
        return [self._status(name) for name in names]

    def bench(
        self,
        name: str,
        bench: str,
        given: Mapping[str, Any],
        progress: Progress,
        *,
        study: Mapping[str, Any] | None = None,
    ) -> RunRecord:
        self._require_ready(name)
        progress.phase(bench, "")
        values = resolve_options(self.bench_options(self.kind[name]), given)
        self.calls.append(("bench", name, bench, dict(given)))
        recipe = {"bench": bench, **values, "given": sorted(given), **(study or {})}
        return self._measure({"kind": self.kind[name], "name": name, "options": {}}, recipe)

    def bench_together(
        self,
        members: Mapping[str, tuple[str, str, Mapping[str, Any]]],
        together: str,
        given: Mapping[str, Any],
        progress: Progress,
        *,
        study: Mapping[str, Any] | None = None,
    ) -> RunRecord:
        for name, _, _ in members.values():
            self._require_ready(name)
        progress.phase(together, "")
        self.calls.append(("together", together, dict(members), dict(given)))
        return self._measure({"kind": "together"}, {"bench": together, **given, **(study or {})})

    def called(self, operation: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == operation]

    def _measure(self, service: Mapping[str, Any], recipe: Mapping[str, Any]) -> RunRecord:
        number = len(self.runs) + 1
        run_id = f"20261120-131455-store-{number:04x}"
        record = sample_record(run_id=run_id, service=service, recipe=recipe)
        self.runs.append(record)
        try:
            self.during_bench(number)
        except BenchError as error:
            error.run_id = run_id
            raise
        return record

    def _require_ready(self, name: str) -> None:
        if self.stages.get(name) is not Stage.READY:
            raise NotReady(f"{name} is not ready")

    def _status(self, name: str) -> ServiceStatus:
        job = JobInfo("12", JobState.RUNNING, time_left_s=self.time_left_s)
        return ServiceStatus(name, self.kind[name], self.stages[name], job)
