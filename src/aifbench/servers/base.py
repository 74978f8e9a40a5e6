"""SlurmServer: one deployable service and its life cycle, start to stop, written once for all.

A subclass says which batch script it is, its options, how to tell that it answers, and its benchmarks.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from aifbench.cluster.announce import Announcement, read_announcement
from aifbench.cluster.endpoint import Endpoint
from aifbench.cluster.jobs import JobInfo, JobState
from aifbench.cluster.targets import Target
from aifbench.cluster.tracker import REST_AGE_S
from aifbench.errors import ConfigError, NotReady, ServiceDied, ServiceError, SubmitError
from aifbench.options import Option, resolve_options
from aifbench.servers import log
from aifbench.servers.attached import KeyFile, attached_announcement, job_of
from aifbench.servers.deployment import (
    SCRIPT_COPY,
    SECRET_FILE,
    Deployment,
    age_s,
    dry_run_text,
    plan_deployment,
    reserve,
)
from aifbench.servers.instance import Instance
from aifbench.servers.log_news import LogNews
from aifbench.servers.options import START_OPTIONS, with_own
from aifbench.servers.site import Site
from aifbench.servers.status import ServiceStatus, Stage

if TYPE_CHECKING:
    from aifbench.servers.benchmark import Benchmark, BenchmarkContext

# While somebody waits for a service: how often it is probed, and how often the scheduler is asked.
PROBE_INTERVAL_S = 0.2
WAITING_AGE_S = 2.0
STOPPING_AGE_S = 0.5

STOP_TIMEOUT_S = 60.0
# A job that was asked to end, and that the scheduler has not known for this long, has ended.
FORGOTTEN_AFTER_S = 5.0
_DIAGNOSIS_LINES = 5
# Lines of a log that `read_log` gets: a traceback of several processes is some hundreds.
_NEWS_LINES = 2000


@dataclass(frozen=True, slots=True)
class Probe:
    """One attempt to use a service. `detail` says why it is not ready, or how far it has come."""

    is_ready: bool
    version: str = ""
    detail: str = ""


class SlurmServer(ABC):
    """A service deployed as one job. Cheap to make from a stored Instance; holds no connection."""

    kind: ClassVar[str]
    description: ClassVar[str]
    script: ClassVar[str]
    options: ClassVar[tuple[Option, ...]] = ()
    benches: ClassVar[tuple[str, ...]] = ()
    # Those that are one load for a time, which leaves the service as it was: so they can be repeated beside
    # the loads of other services.
    steady_benches: ClassVar[tuple[str, ...]] = ()
    bench_options: ClassVar[tuple[Option, ...]] = ()
    has_secret: ClassVar[bool] = True
    max_nodes: ClassVar[int] = 1
    # Whether its job makes something and ends; the service is READY from then on until it is stopped.
    runs_and_ends: ClassVar[bool] = False
    # Whether one that somebody else started can be used, by its address; the end of an address that its own
    # paths begin with again; and what is asked of those besides what all are asked;
    # and the file of its keys where these are no API key.
    attachable: ClassVar[bool] = False
    attach_suffix: ClassVar[str] = ""
    attach_options: ClassVar[tuple[Option, ...]] = ()
    attach_key: ClassVar[KeyFile | None] = None

    def __init__(self, site: Site, instance: Instance) -> None:
        self._site = site
        self._job = job_of(site, instance)

    @property
    def instance(self) -> Instance:
        return self._job.instance

    @property
    def name(self) -> str:
        return self.instance.name

    @property
    def own_name(self) -> str:
        """The name of one that we started, whose end takes along what is in it; empty for an attached one."""
        return "" if self.instance.is_attached else self.name

    @property
    def services(self) -> "Mapping[str, SlurmServer]":
        """What a run of its benchmarks loads."""
        return {"": self}

    @property
    def directory(self) -> Path:
        return self._site.instances.path(self.instance)

    @property
    def log_path(self) -> Path:
        return self.directory / f"job-{self.instance.job_id}.log"

    @property
    def script_path(self) -> Path:
        """The batch script as it was submitted."""
        return self.directory / SCRIPT_COPY

    @property
    def secret_path(self) -> Path:
        return self.directory / SECRET_FILE

    @property
    def bench_defaults(self) -> Mapping[str, Any]:
        """Options of benchmarks that were chosen when the service was started, by key; None where not."""
        return {}

    @abstractmethod
    def probe(self, endpoint: Endpoint) -> Probe:
        """Use the service once, within about two seconds. Never raises for a service that is not ready."""

    def prove(self, endpoint: Endpoint) -> Probe:
        """Use the service for real, once in each of its runs, before it counts as READY for the first time.

        For services whose probe can be answered by one that cannot work. Never raises for such a one.
        """
        del endpoint
        return Probe(is_ready=True)

    def metrics_targets(self, endpoint: Endpoint) -> Sequence[Target]:
        """Where the service itself tells metrics that Prometheus reads; none for most. Labels are added."""
        del endpoint
        return ()

    def read_log(self, lines: Sequence[str]) -> LogNews:
        """What the end of the service's log says of its start, or of why it ended. Pure."""
        del lines
        return LogNews()

    @abstractmethod
    def benchmark(self, bench: str, options: Mapping[str, Any], context: "BenchmarkContext") -> "Benchmark":
        """The benchmark `bench` (one of `benches`) with resolved options."""

    @classmethod
    def environment(cls, options: Mapping[str, Any]) -> dict[str, str]:
        """The service's own variables for its batch script, from resolved options."""
        del options
        return {}

    @classmethod
    def start_options(cls, site: Site) -> tuple[Option, ...]:
        """What `start` takes, with the site's own defaults."""
        del site
        return with_own(START_OPTIONS, cls.options)

    @classmethod
    def plan(cls, site: Site, given: Mapping[str, Any]) -> Deployment:
        """What `start` would submit. Raises UsageError and ConfigError; changes nothing."""
        options = resolve_options((*START_OPTIONS, *cls.options), given)
        return plan_deployment(
            site,
            cls.kind,
            cls.script,
            options,
            cls.environment(options),
            has_secret=cls.has_secret,
            max_nodes=cls.max_nodes,
        )

    @classmethod
    def dry_run(cls, site: Site, given: Mapping[str, Any]) -> str:
        return dry_run_text(site, cls.plan(site, given))

    @classmethod
    def start(cls, site: Site, given: Mapping[str, Any]) -> Self:
        """Submit the job and return at once. Raises SubmitError with the scheduler's own words."""
        deployment = cls.plan(site, given)
        for other in site.instances.open_instances(deployment.instance.name):
            cls(site, other).loss(max_age_s=WAITING_AGE_S)  # an end that nobody has seen frees the name
        instance = reserve(site, deployment, has_secret=cls.has_secret)
        site.instances.prune()
        server = cls(site, instance)
        try:
            job_id = site.scheduler.submit(deployment.spec)
        except (SubmitError, ConfigError):
            site.instances.remove(instance)
            raise
        # Any other end, such as no answer or Ctrl-C, may leave a job: `status` looks for it by its name.
        server._job.submitted(job_id)
        return server

    def observe(self, job: JobInfo) -> ServiceStatus:
        """The service's status given its job's: reads the log, probes the endpoint, remembers what is new."""
        if made := self._made(job):
            return made
        if job.state.is_final or not self.instance.is_open:
            return self._ended(job)
        announced = None if self._is_out_of_sight(job) else self.announcement(job)
        if announced is None:
            return self._silent_status(job)
        endpoint = self._endpoint(announced)
        was_ready = self.instance.ready_restarts == announced.restarts
        probe = self.probe(endpoint)
        if probe.is_ready and not was_ready:
            proof = self.prove(endpoint)
            detail = proof.detail or probe.detail
            probe = replace(proof, version=proof.version or probe.version, detail=detail)
        elif not was_ready:
            probe = replace(probe, detail=self._news().progress or probe.detail)
        if probe.is_ready:
            self._remember_ready(announced, endpoint, probe)
            detail = probe.detail if self.runs_and_ends else _ready_detail(announced, job)
            parts = "" if self.runs_and_ends else probe.detail
            return replace(self._status(job, Stage.READY, endpoint, detail), parts=parts)
        stage = Stage.SILENT if was_ready else Stage.STARTING
        advice = self._silence_advice() if was_ready else ""
        return self._status(job, stage, endpoint, probe.detail, advice)

    def status(self, *, max_age_s: float = REST_AGE_S) -> ServiceStatus:
        """What `observe` says of the job as the scheduler knows it, at most `max_age_s` old."""
        return self.observe(self._job.info(max_age_s=max_age_s))

    def loss(self, *, max_age_s: float = REST_AGE_S) -> str:
        """Why what was ready here is gone: its job ended or was requeued. Empty as far as is known."""
        job = self._job.info(max_age_s=max_age_s)
        if self._made(job):
            return ""
        if job.state.is_final or not self.instance.is_open:
            status = self._ended(job)
            return status.detail + (f" ({status.advice})" if status.advice else "")
        if 0 <= self.instance.ready_restarts < job.restarts:
            return f"job {job.job_id} was requeued and starts anew"
        return ""

    def check(
        self, *, wait_s: float = 0.0, progress: Callable[[ServiceStatus], None] = lambda _: None
    ) -> ServiceStatus:
        """The status now, or READY within `wait_s`.

        With a wait, raises NotReady when the time is over or the job will never start, and ServiceDied as
        soon as the job has ended.
        """
        deadline_s = self._site.clock.monotonic_s() + wait_s
        while True:
            status = self.status(max_age_s=WAITING_AGE_S)
            progress(status)
            if status.stage is Stage.READY or not wait_s:
                return status
            if not status.is_alive:
                raise ServiceDied(f"{self.name}: {status.detail}", hint=status.advice + self._last_words())
            if status.stage is Stage.QUEUED and status.job.is_stuck:
                raise NotReady(f"{self.name} will not start: {status.detail}", hint=status.advice)
            if self._site.clock.monotonic_s() >= deadline_s:
                raise NotReady(
                    f"{self.name} is not ready after {wait_s:g} s: {_stage_words(status)}",
                    hint=self._waiting_hint(status),
                )
            self._site.clock.sleep(PROBE_INTERVAL_S)

    def ready_endpoint(self) -> Endpoint:
        """Where the service answers now. Raises NotReady or ServiceDied, saying why."""
        status = self.status(max_age_s=WAITING_AGE_S)
        if not status.is_alive:
            raise ServiceDied(
                f"{self.name}: {status.detail}", hint=f"`start {self.instance.kind}` starts a new one"
            )
        if status.stage is not Stage.READY or status.endpoint is None:
            raise NotReady(
                f"{self.name} is {_stage_words(status)}",
                hint=f"`check {self.name} --wait 600` waits for it",
            )
        return status.endpoint

    @property
    def log_files(self) -> dict[str, Path]:
        """The logs of its job by what they are of; see servers.log."""
        return log.log_files(self.directory, self.instance.job_id)

    def log_lines(self, lines: int) -> list[str]:
        """The last lines of the job's own output."""
        return log.tail(self.log_path, lines)

    def chosen_log_lines(self, lines: int, wanted: log.Wanted) -> list[str]:
        """The last lines that are wanted, of all its logs. Raises UsageError for what no line tells."""
        return log.select(self.log_files, lines, wanted, self._site.clock.wall_s())

    def follow_log(self, wanted: log.Wanted = log.ALL) -> Iterator[str]:
        """Lines as they come, from the logs' beginning, until the job has ended."""

        def is_over() -> bool:
            self.loss()
            return not self.instance.is_open

        clock = self._site.clock
        return log.follow(
            lambda: self.log_files, is_over, lambda: clock.sleep(PROBE_INTERVAL_S), wanted, clock.wall_s
        )

    def stop(self) -> ServiceStatus:
        """Cancel the job and wait for its end. Raises ServiceError when it does not end."""
        self.request_end()
        return self.await_end()

    def request_end(self) -> None:
        """Cancel the job. Raises SchedulerError; nothing happens to one that has ended."""
        if self.instance.is_open:
            self._job.cancel()

    def await_end(self) -> ServiceStatus:
        """Wait until a cancelled job has ended. Raises ServiceError when it does not."""
        clock, job_id = self._site.clock, self.instance.job_id
        asked_s = clock.monotonic_s()
        while True:
            job = self._job.info(max_age_s=STOPPING_AGE_S)
            if job.state.is_final or not self.instance.is_open:
                return self._ended(job)
            waited_s = clock.monotonic_s() - asked_s
            if waited_s >= FORGOTTEN_AFTER_S and self._job.is_forgotten(job):
                return self._ended(job)
            if waited_s >= STOP_TIMEOUT_S:
                raise ServiceError(
                    f"job {job_id} of {self.name} is {job.state.value} after {STOP_TIMEOUT_S:g} s",
                    hint=f"`stop {self.name}` tries again, `status` shows it",
                )
            clock.sleep(PROBE_INTERVAL_S)

    def announcement(self, job: JobInfo) -> Announcement | None:
        """What the job's present run has announced; that of another run or job is not believed."""
        if self.instance.is_attached:
            return attached_announcement(self.instance)
        restarts = None if job.state is JobState.UNKNOWN else job.restarts
        return read_announcement(self.log_path, self.instance.job_id, restarts)

    def describe(self) -> dict[str, Any]:
        """What a run's record keeps of this service. Holds no secret."""
        return {
            "kind": self.instance.kind,
            "name": self.instance.name,
            "version": self.instance.version,
            "endpoint": {key: value for key, value in self.instance.endpoint.items() if key != "secret_file"},
            "authentication": "token" if self.instance.endpoint.get("secret_file") else "none",
            "options": dict(self.instance.options),
            "job_id": self.instance.job_id,
            "job_name": self.instance.job_name,
            "scheduler": self.instance.scheduler,
            "command": list(self.instance.command),
            "script_sha256": self.instance.script_sha256,
            "submitted_utc": self.instance.submitted_utc,
            "ready_after_s": self.instance.ready_after_s,
        }

    def _made(self, job: JobInfo) -> ServiceStatus | None:
        """The status of a service whose job has ended as it should, leaving what it made; None for others."""
        if not self.runs_and_ends or not self.instance.is_open or job.state is not JobState.COMPLETED:
            return None
        if not self.instance.is_made:
            announced = self.announcement(job)
            if announced is None:  # a shared file system may show a log later than the scheduler its end
                return self._status(job, Stage.STARTING, detail="its job has ended, its log is not here yet")
            endpoint = self._endpoint(announced)
            self._remember_ready(announced, endpoint, self.probe(endpoint))
            self._job.update(is_made=True)
        endpoint = Endpoint.from_json(self.instance.endpoint)
        probe = self.probe(endpoint)
        if probe.is_ready:
            return self._status(job, Stage.READY, endpoint, probe.detail)
        return self._status(job, Stage.SILENT, endpoint, probe.detail, f"`stop {self.name}` forgets it")

    def _endpoint(self, announced: Announcement) -> Endpoint:
        if self.instance.is_attached:
            return Endpoint.from_json(self.instance.endpoint)
        return Endpoint(
            host=announced.host,
            port=announced.port,
            ports=announced.ports,
            secret_file=self.secret_path if announced.auth == "token" else None,
        )

    def _is_out_of_sight(self, job: JobInfo) -> bool:
        """Its address means another machine from here, or it is about to go."""
        elsewhere = job.state is JobState.UNKNOWN and bool(job.advice)
        return self._job.is_foreign or elsewhere or job.state is JobState.COMPLETING

    def _silent_status(self, job: JobInfo) -> ServiceStatus:
        """The status of a service that has no address: not yet, not any more, or not from here."""
        if self._job.is_foreign:
            detail = f"started with --scheduler {self.instance.scheduler}: seen from there only"
            return self._status(job, Stage.UNKNOWN, detail=detail)
        if job.state is JobState.UNKNOWN:
            return self._status(job, Stage.UNKNOWN, detail=self._unknown_detail(job))
        if job.state is JobState.COMPLETING:
            return self._status(job, self._ending_stage(job), detail="its job is ending")
        if job.state.is_waiting:
            return self._status(job, Stage.QUEUED, detail=job.reason, advice=job.advice)
        detail = self._news().progress or "no address yet"
        return self._status(job, Stage.STARTING, detail=detail, advice=job.advice)

    def _ending_stage(self, job: JobInfo) -> Stage:
        """Right after a requeue, a job is still ending and has the number of its next run already."""
        if self.instance.ready_restarts < 0:
            return Stage.STARTING
        return Stage.QUEUED if job.restarts > self.instance.ready_restarts else Stage.SILENT

    def _unknown_detail(self, job: JobInfo) -> str:
        if self._site.tracker.problem:
            return ""  # that is told of every service
        if not self.instance.job_id:
            return "its submission is under way"
        return job.advice or job.reason or "the scheduler does not know its job"

    def _ended(self, job: JobInfo) -> ServiceStatus:
        if self.instance.is_open:
            self._job.end(job)
            self._explain_end(job)
        if self.instance.stopped or job.state is JobState.COMPLETED:
            return self._status(job, Stage.ENDED, detail=self.instance.end_detail)
        advice = self.instance.end_advice or self._end_advice(job)
        return self._status(job, Stage.FAILED, detail=self.instance.end_detail, advice=advice)

    def _end_advice(self, job: JobInfo) -> str:
        if job.state is JobState.CANCELLED:
            return f"cancelled by scancel or an administrator; `start {self.instance.kind}` starts a new one"
        return f"`logs {self.name}` shows its last words"

    def _explain_end(self, job: JobInfo) -> None:
        """Note what the log says of a failure, beside what the scheduler says."""
        news = self._news() if job.state is JobState.FAILED and not self.instance.stopped else LogNews()
        if news.cause:
            self._job.update(
                end_detail=f"{self.instance.end_detail}: {news.cause}",
                end_advice=news.advice or self.instance.end_advice,
            )

    def _news(self) -> LogNews:
        return self.read_log(self.log_lines(_NEWS_LINES))

    def _silence_advice(self) -> str:
        if self.instance.is_attached:
            return f"it was attached: ask whoever runs it; `stop {self.name}` forgets it"
        return f"`logs {self.name}` shows what it says"

    def _waiting_hint(self, status: ServiceStatus) -> str:
        if status.stage is Stage.QUEUED:
            return status.advice or f"`check {self.name} --wait 600` waits on, `stop {self.name}` gives it up"
        return f"`check {self.name} --wait 600` waits on, `logs {self.name}` shows what it says"

    def _last_words(self) -> str:
        lines = [line for line in self.log_lines(50) if line.strip()][-_DIAGNOSIS_LINES:]
        return "".join(f"\n  | {line}" for line in lines)

    def _status(
        self,
        job: JobInfo,
        stage: Stage,
        endpoint: Endpoint | None = None,
        detail: str = "",
        advice: str = "",
    ) -> ServiceStatus:
        problem = self._site.tracker.problem
        if problem and self.instance.is_open and not self.instance.is_attached:
            detail = "; ".join(filter(None, (detail, f"no news: {problem}")))
        return ServiceStatus(
            name=self.name,
            kind=self.instance.kind,
            stage=stage,
            job=job,
            endpoint=endpoint,
            detail=detail,
            advice=advice,
            ready_after_s=self.instance.ready_after_s,
        )

    def _remember_ready(self, announced: Announcement, endpoint: Endpoint, probe: Probe) -> None:
        if self.instance.ready_restarts == announced.restarts:
            return
        self._job.update(
            ready_after_s=age_s(self._site, self.instance),
            ready_restarts=announced.restarts,
            endpoint=endpoint.to_json(),
            version=announced.version or probe.version,
        )


def _stage_words(status: ServiceStatus) -> str:
    """`STARTING, no address yet`."""
    return ", ".join(filter(None, (status.stage.value, status.detail)))


def _ready_detail(announced: Announcement, job: JobInfo) -> str:
    parts = [announced.version]
    if announced.auth == "none":
        parts.append("no authentication")
    if job.state is JobState.UNKNOWN:
        parts.append("scheduler cannot tell")
    return ", ".join(part for part in parts if part)
