"""Session: the Python API. Services, runs and reports as objects; every face of the program uses this.

Importing it is cheap: what measures and draws is imported when it is first needed.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifbench.clock import Clock, SystemClock
from aifbench.cluster.jobs import Scheduler
from aifbench.cluster.tracker import REST_AGE_S, JobTracker
from aifbench.config import Config, load_config
from aifbench.errors import BenchError, ConfigError, ServiceError, UnknownRun, UnknownService, UsageError
from aifbench.load.progress import Progress
from aifbench.options import Option, nearest
from aifbench.results.store import RunStore, RunSummary
from aifbench.servers.attached import attach, attach_options
from aifbench.servers.base import SlurmServer
from aifbench.servers.instance import Instance, InstanceStore
from aifbench.servers.options import LOAD_OPTIONS, START_OPTIONS, with_own
from aifbench.servers.registry import kinds, server_class
from aifbench.servers.site import Site
from aifbench.servers.status import ServiceStatus

if TYPE_CHECKING:
    from aifbench.doctor import Finding
    from aifbench.results.record import RunRecord
    from aifbench.servers.calibrate import Calibration

QUICKSTART_WAIT_S = 120.0

# Small enough for two cores and three minutes, at a rate that leaves them idle half of the time; the run
# says itself that it is short.
QUICKSTART_OPTIONS: Mapping[str, Any] = {
    "vectors": "20k",
    "batch": "50",
    "rate": "100/s",
    "ingest_rate": "250/s",
    "duration": "20s",
    "warmup": "3s",
    "note": "quickstart",
}

# Services that ended are still shown for this long, so that a death is not overlooked.
SHOW_ENDED_S = 3600.0


class Session:
    """One user's view of services and results. Safe to use from a background thread for `status`."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        scheduler: Scheduler | None = None,
        clock: Clock | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.config = config or load_config(environ)
        self._environ = environ
        clock = clock or SystemClock()
        scheduler = scheduler or choose_scheduler(self.config, clock)
        self._site = Site(
            config=self.config,
            scheduler=scheduler,
            tracker=JobTracker(scheduler, clock),
            clock=clock,
            instances=InstanceStore(self.config.services_dir),
            runs=RunStore(self.config.results_dir, clock),
            inside_allocation="SLURM_JOB_ID" in environ,
        )
        self._cached: list[ServiceStatus] = []

    @property
    def scheduler_kind(self) -> str:
        """`slurm` or `local`."""
        return self._site.scheduler.kind

    def kinds(self) -> list[str]:
        return kinds()

    def describe(self, kind: str) -> str:
        """What a kind of service is, in one line."""
        return server_class(kind).description

    def start_options(self, kind: str) -> tuple[Option, ...]:
        return (*START_OPTIONS, *server_class(kind).options)

    def bench_names(self, kind: str) -> tuple[str, ...]:
        return server_class(kind).benches

    def bench_options(self, kind: str) -> tuple[Option, ...]:
        return with_own(LOAD_OPTIONS, server_class(kind).bench_options)

    def instances(self) -> list[str]:
        """Names of this scheduler's services whose end has not been seen; no scheduler call."""
        return [
            instance.name for instance in self._site.instances.open_instances() if self._is_here(instance)
        ]

    def server(self, name: str) -> SlurmServer:
        """The living service of that name, else its latest. Raises UnknownService, naming the nearest."""
        known = {instance.name: instance for instance in self._site.instances.all()}
        if name in known:
            instance = known[name]
            return server_class(instance.kind)(self._site, instance)
        alive = self.instances()
        first = name if name in kinds() else kinds()[0]
        hint = f"running: {', '.join(alive)}" if alive else f"none is running; `start {first}` starts one"
        raise UnknownService(f"no service is called {name!r}{nearest(name, known)}", hint=hint)

    def kind_of(self, name: str) -> str:
        """The kind of the service called `name`."""
        return self.server(name).instance.kind

    def start(self, kind: str, given: Mapping[str, Any]) -> ServiceStatus:
        """Submit a service; it is QUEUED or STARTING when this returns. `detail` has the site's message."""
        status = server_class(kind).start(self._site, given).status(max_age_s=0)
        message = self._site.scheduler.last_message.replace("\n", "; ")
        return replace(status, detail="; ".join(filter(None, (status.detail, message))))

    def attachable_kinds(self) -> list[str]:
        return [kind for kind in kinds() if server_class(kind).attachable]

    def attach_options(self, kind: str) -> tuple[Option, ...]:
        return attach_options(server_class(kind))

    def attach(self, kind: str, url: str, given: Mapping[str, Any]) -> ServiceStatus:
        """Use a service that somebody else started, by its address; it is READY when this returns.

        Raises UsageError for an address, name or key that cannot be used, ServiceError for a service that
        cannot.
        """
        server = server_class(kind)
        if not server.attachable:
            valid = ", ".join(self.attachable_kinds()) or "none yet"
            raise UsageError(f"{kind} cannot be attached", hint=f"kinds that can: {valid}")
        return attach(server, self._site, url, given, self._environ).status()

    def dry_run(self, kind: str, given: Mapping[str, Any]) -> str:
        """What `start` would run: environment, script and command, as text."""
        return server_class(kind).dry_run(self._site, given)

    def status(self, *, max_age_s: float = REST_AGE_S) -> list[ServiceStatus]:
        """Every living service, and those that ended lately; one scheduler call for all of them."""
        earliest_s = self._site.clock.wall_s() - SHOW_ENDED_S
        shown = {
            instance.name: instance
            for instance in self._site.instances.all()
            if instance.kind in kinds() and (instance.is_open or instance.ended_wall_s > earliest_s)
        }.values()
        asked = [found.job_id for found in shown if found.is_open and found.job_id and self._is_here(found)]
        self._site.tracker.infos(asked, max_age_s=max_age_s)
        # What was just asked for is not asked for again, however long the probes take.
        max_age_s = max(max_age_s, REST_AGE_S)
        servers = [server_class(instance.kind)(self._site, instance) for instance in shown]
        self._cached = [server.status(max_age_s=max_age_s) for server in servers]
        return self._cached

    def cached_status(self) -> list[ServiceStatus]:
        """What `status` said last; never blocks."""
        return self._cached

    def check(
        self,
        name: str,
        *,
        wait_s: float = 0.0,
        progress: Callable[[ServiceStatus], None] = lambda _: None,
    ) -> ServiceStatus:
        """See SlurmServer.check."""
        return self.server(name).check(wait_s=wait_s, progress=progress)

    def logs(self, name: str, *, lines: int = 50) -> list[str]:
        return self._with_log(name).log_lines(lines)

    def follow(self, name: str) -> Iterator[str]:
        """The log's lines as they come, until the service's job has ended."""
        return self._with_log(name).follow_log()

    def stop(self, names: Sequence[str]) -> list[ServiceStatus]:
        """Stop these services, or `all`; returns when their jobs have ended. Attached ones are forgotten.

        One that cannot be stopped does not keep the others; its error is raised at the end.
        """
        chosen = self.instances() if list(names) == ["all"] else dict.fromkeys(names)
        servers = [self.server(name) for name in chosen]
        errors: list[BenchError] = []
        asked, statuses = [], []
        for server in servers:
            with _noting(errors):
                server.request_end()
                asked.append(server)
        for server in asked:
            with _noting(errors):
                statuses.append(server.await_end())
        if errors:
            raise errors[0]
        return statuses

    def bench(self, name: str, bench: str, given: Mapping[str, Any], progress: Progress) -> "RunRecord":
        """Run a benchmark on a ready service; see BenchRun.run for what happens when it ends early."""
        from aifbench.servers.run import BenchRun, resolve_bench

        server = self.server(name)
        recipe = resolve_bench(type(server), bench, given)
        return BenchRun(self._site, server, recipe, progress).run()

    def calibrate(self, given: Mapping[str, Any], progress: Progress) -> "Calibration":
        """What this machine's load client adds to the times it reports; see servers.calibrate."""
        from aifbench.servers.calibrate import calibrate

        if self.scheduler_kind != "local" and not self._site.inside_allocation:
            progress.note("this is about the machine you are on; load for services is made on compute nodes")
        return calibrate(given, progress)

    def runs(
        self, *, filters: Sequence[str] = (), sort: str = "created", limit: int | None = None
    ) -> Sequence[RunSummary]:
        """Stored runs, newest first unless sorted otherwise."""
        return self._site.runs.list(filters, sort, limit)

    def run(self, ref: str) -> "RunRecord":
        """The run that `ref` (an id, a unique part of one, or `last`) means."""
        return self._site.runs.load(ref)

    def run_directory(self, ref: str) -> Path:
        return self._site.runs.path(self._site.runs.resolve(ref))

    def run_text(self, ref: str, *, full: bool = False) -> str:
        """A run as tables and verdicts; `full` adds provenance and every check."""
        from aifbench.report import markdown, tables

        record = self.run(ref)
        return markdown.run_markdown(record) if full else tables.run_text(record)

    def report(self, ref: str) -> Path:
        """Write report.html, report.md, metrics.csv and metrics.json into the run's directory; the path of
        the first.
        """
        from aifbench.report import html, markdown
        from aifbench.results import export

        record, directory = self.run(ref), self.run_directory(ref)
        path = directory / "report.html"
        texts = {
            path: html.run_html(record),
            directory / "report.md": markdown.run_markdown(record),
            directory / "metrics.csv": export.metrics_csv(record),
            directory / "metrics.json": export.metrics_json(record),
        }
        try:
            for target, text in texts.items():
                target.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from error
        return path

    def save(self, ref: str, out: Path | None = None) -> Path:
        """A zip with everything a run rests on, secrets masked. `ref` may name a service: its last run."""
        from aifbench.results.archive import save_zip

        run_id = self._resolve_run(ref)
        self.report(run_id)
        secrets = [path for path in self.config.services_dir.glob("*/secret") if path.is_file()]
        secrets += self._attached_key_files()
        target = out or self.config.results_dir / f"{run_id}.zip"
        return save_zip(self._site.runs.path(run_id), target, secrets)

    def doctor(self) -> "list[Finding]":
        """What is right and wrong with this machine and set-up, with the remedy for each."""
        from aifbench.doctor import examine

        return examine(self.config, self._site.scheduler)

    def quickstart(self, progress: Progress) -> tuple["RunRecord", Path]:
        """Deploy Chroma, run all its benchmarks, stop it, save the run: the record and the zip."""
        name = self._free_name("quickstart")
        try:
            server = server_class("chroma").start(self._site, {"name": name})
            progress.phase("start", f"job {server.instance.job_id}")
            status = server.check(wait_s=QUICKSTART_WAIT_S)
            progress.note(f"chroma is ready at {status.endpoint.url if status.endpoint else '?'}")
            record = self.bench(name, "all", QUICKSTART_OPTIONS, progress)
        finally:
            self._stop_quietly(name, progress)
        return record, self.save(record.run_id)

    def _stop_quietly(self, name: str, progress: Progress) -> None:
        """Stop, also what Ctrl-C left half submitted, without hiding the error that may be on its way."""
        try:
            if name in self.instances():
                self.stop([name])
        except BenchError as error:
            progress.note(str(error))

    def _free_name(self, base: str) -> str:
        taken = {instance.name for instance in self._site.instances.open_instances()}
        names = [base, *(f"{base}-{number}" for number in range(2, 1000))]
        return next(name for name in names if name not in taken)

    def _is_here(self, instance: Instance) -> bool:
        return instance.is_attached or instance.scheduler in ("", self._site.scheduler.kind)

    def _with_log(self, name: str) -> SlurmServer:
        server = self.server(name)
        if server.instance.is_attached:
            raise ServiceError(f"{name} was attached: its log is with whoever started it")
        return server

    def _attached_key_files(self) -> list[Path]:
        """Files of the user's that hold the keys of attached services."""
        attached = (found for found in self._site.instances.all() if found.is_attached)
        files = {Path(str(found.endpoint.get("secret_file") or "")) for found in attached}
        return [path for path in sorted(files) if path.is_file() and os.access(path, os.R_OK)]

    def _resolve_run(self, ref: str) -> str:
        try:
            return self._site.runs.resolve(ref)
        except UnknownRun:
            for summary in self._site.runs.list([f"service={ref}"], "created", 1):
                if summary.name == ref:
                    return summary.run_id
            raise


def choose_scheduler(config: Config, clock: Clock) -> Scheduler:
    """Slurm where there is one, else local processes; `config.scheduler` decides when not `auto`."""
    if config.scheduler != "local":
        from aifbench.cluster.slurm_cli import SlurmCli, slurm_available

        if slurm_available():
            return SlurmCli(clock=clock)
        if config.scheduler == "slurm":
            raise ConfigError(
                "no Slurm here: sbatch and squeue are not on PATH, or belong to no cluster",
                hint="use `--scheduler local`, or log in to a Slurm cluster",
            )
    from aifbench.cluster.local import LocalProcess

    return LocalProcess(config.services_dir / ".local", clock=clock)


@contextmanager
def _noting(errors: list[BenchError]) -> Iterator[None]:
    """Go on after an expected error, which is kept."""
    try:
        yield
    except BenchError as error:
        errors.append(error)
