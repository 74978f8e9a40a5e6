"""BenchRun: one benchmark from its first phase to its stored record, kept whatever happens on the way."""

import hashlib
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from aifbench.clock import utc_text
from aifbench.cluster.jobs import JobSpec
from aifbench.errors import (
    BenchError,
    ConfigError,
    FleetError,
    ResultError,
    ServiceDied,
    UsageError,
    WorkloadError,
    ending_words,
)
from aifbench.load.arrivals import Closed, from_json
from aifbench.load.fleet import Fleet, JobLauncher, Launcher, LocalLauncher, PhaseOutcome
from aifbench.load.plan import StreamPlan
from aifbench.load.progress import Progress
from aifbench.load.samples import Samples
from aifbench.options import resolve_options
from aifbench.results.belongings import Belongings, LeftStore
from aifbench.results.neighbours import neighbours, with_shared
from aifbench.results.provenance import collect
from aifbench.results.record import Check, Measurement, RunRecord, RunState, Verdict
from aifbench.results.summary import StreamFacts, summarise
from aifbench.servers.base import SlurmServer
from aifbench.servers.benchmark import BenchmarkContext, Evidence, Phase, Target
from aifbench.servers.instance import new_job_name
from aifbench.servers.instrumented import traced_checks
from aifbench.servers.options import LOAD_OPTIONS, with_own
from aifbench.servers.sampling import Sampling
from aifbench.servers.site import Site
from aifbench.stats.histogram import Histogram

LOAD_SCRIPT = "bench_load.sh"
_WATCH_INTERVAL_S = 5.0
_UNKNOWN_S = 120.0  # of a time that the benchmark decides


def resolve_bench(server_class: type[SlurmServer], bench: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The full recipe of a benchmark, defaults filled in; `given` names what was asked. Raises UsageError."""
    if not server_class.benches:
        raise UsageError(f"{server_class.kind} has no benchmark", hint=server_class.description)
    if bench not in server_class.benches:
        raise UsageError(
            f"{server_class.kind} has no benchmark {bench!r}",
            hint=f"valid: {', '.join(server_class.benches)}",
        )
    options = resolve_options(with_own(LOAD_OPTIONS, server_class.bench_options), given)
    asked = sorted(key for key, value in given.items() if value is not None)
    return {"bench": bench, **options, "given": asked}


class BenchRun:
    """Runs one benchmark of one ready service, or of several at once. Use once."""

    def __init__(self, site: Site, target: Target, recipe: Mapping[str, Any], progress: Progress) -> None:
        self._site = site
        self._target = target
        self._services = target.services
        self._recipe = recipe
        self._progress = progress
        self._record: RunRecord
        self._sampling: Sampling
        self._client_job_id = ""
        self._watched_s = site.clock.monotonic_s()

    def run(self) -> RunRecord:
        """The COMPLETE record. Whatever ends it early is raised after what was measured has been stored:
        KeyboardInterrupt and SystemExit leave the run INTERRUPTED, a BenchError leaves it FAILED, and of
        options that cannot be used no run is left.
        """
        first, *_ = self._services.values()
        endpoint, *_ = [server.ready_endpoint() for server in self._services.values()]
        launcher = self._launcher()
        config = self._site.config
        script = None if first.instance.is_attached else first.script_path
        self._record = self._site.runs.create(
            self._target.describe(), self._recipe, collect(config.project_dir, script)
        )
        self._sampling = Sampling(self._services, self._directory, self._site.clock)
        context = BenchmarkContext(
            endpoint,
            config.results_dir / "datasets",
            self._record.run_id.replace("-", ""),
            self._progress,
            Belongings(LeftStore(config.results_dir).note(self._record.run_id), first.own_name),
        )
        try:
            self._run_phases(launcher, context)
        except BaseException as error:
            self._end_early(error)
            raise
        self._finish(RunState.COMPLETE, "")
        return self._record

    def _end_early(self, error: BaseException) -> None:
        """Keep what there is, as far as the disk takes it, without hiding why the run ends."""
        if isinstance(error, UsageError) and not self._record.measurements:
            shutil.rmtree(self._directory, ignore_errors=True)
            return
        with suppress(ResultError):
            if isinstance(error, KeyboardInterrupt | SystemExit):
                self._finish(RunState.INTERRUPTED, ending_words(error))
            elif isinstance(error, BenchError):
                error.run_id = self._record.run_id
                self._finish(RunState.FAILED, str(error))
            else:
                self._finish(RunState.FAILED, f"{type(error).__name__}: {error}")
        kept = "keeps what was measured" if self._record.measurements else "tells why"
        self._progress.note(f"run {self._record.run_id} {kept}")

    def _run_phases(self, launcher: Launcher, context: BenchmarkContext) -> None:
        benchmark = self._target.benchmark(self._recipe["bench"], self._recipe, context)
        self._progress.phase("run", self._record.run_id)
        try:
            if isinstance(launcher, LocalLauncher):
                self._sampling.start_here(self._site.config.python, self._directory / "phases")
            with Fleet(self._directory / "phases", launcher, workers=benchmark.workers) as fleet:
                for phase in benchmark.phases():
                    self._run_phase(fleet, phase)
        except BenchError as error:
            loss = self._loss(max_age_s=0.0)
            if loss and loss not in error.message:
                raise ServiceDied(loss) from error
            raise
        finally:
            if isinstance(launcher, JobLauncher):
                self._client_job_id = launcher.job_id
            self._sampling.stop()
            facts = benchmark.facts()
            benchmark.close()
            self._record = replace(self._record, recipe={**self._record.recipe, "facts": facts})

    def _run_phase(self, fleet: Fleet, phase: Phase) -> None:
        self._progress.phase(phase.plan.name, _describe(phase))
        with phase.watching(self._directory / "phases"):
            outcome = fleet.run(phase.plan, self._progress, watch=self._watch)
        before = len(self._record.measurements)
        try:
            if phase.is_measured:
                self._keep(phase, outcome)
            else:
                _require_clean(phase, outcome)
        finally:
            self._sampling.saw(
                phase.plan.name,
                outcome.start_wall_s,
                [report for stream in phase.plan.streams for report in outcome.reports(stream)],
                self._record.measurements[before:],
                before,
                is_measured=phase.is_measured,
            )
        if outcome.interrupted:
            raise KeyboardInterrupt(outcome.problem)
        if loss := self._loss(max_age_s=0.0):
            raise ServiceDied(f"in phase {phase.plan.name}: {loss}")
        if outcome.problem:
            raise FleetError(f"phase {phase.plan.name} ended early: {outcome.problem}")

    def _keep(self, phase: Phase, outcome: PhaseOutcome) -> None:
        if phase.conclude is not None:
            self._add(_with_checks(m, _early_end(outcome)) for m in phase.conclude(outcome))
            for stream in phase.plan.streams:
                outcome.discard_raw(stream)
            self._site.runs.write(self._record)
            return
        measured = {stream.name: self._measure(phase, stream, outcome) for stream in phase.plan.streams}
        extra = _verified(phase, outcome, measured)
        for stream in phase.plan.streams:
            measurement, more = measured[stream.name], extra.get(stream.name, Evidence())
            complete = replace(measurement, metrics=(*measurement.metrics, *more.metrics))
            self._add([_with_checks(complete, (*more.checks, *_early_end(outcome)))])
            outcome.discard_raw(stream)
        earlier = {label: more for label, more in extra.items() if label not in measured}
        if earlier:
            measurements = tuple(_with_evidence(m, earlier) for m in self._record.measurements)
            self._record = replace(self._record, measurements=measurements)
        self._site.runs.write(self._record)

    def _add(self, measurements: Iterable[Measurement]) -> None:
        self._record = replace(self._record, measurements=(*self._record.measurements, *measurements))

    def _measure(self, phase: Phase, stream: StreamPlan, outcome: PhaseOutcome) -> Measurement:
        outcome.recover(stream)
        samples = outcome.samples(stream)
        path = outcome.directory / f"samples-{stream.name}.npz"
        samples.save(path)
        facts = stream_facts(phase, stream, str(path.relative_to(self._directory)), outcome.start_wall_s)
        facts = replace(facts, measure_s=_measured_s(outcome, stream, samples))
        good = samples.select(samples.ok)
        latencies = Histogram.of(good.response_ns if facts.open_loop else good.service_ns)
        path.with_name(f"latency-{stream.name}.hgrm").write_text(latencies.to_hgrm(), encoding="ascii")
        return _with_checks(summarise(samples, facts, outcome.reports(stream)), traced_checks(stream))

    @property
    def _directory(self) -> Path:
        return self._site.runs.path(self._record.run_id)

    def _watch(self) -> str:
        """Called often while a phase runs: keeps the run alive for other shells, and sees the service die."""
        now_s = self._site.clock.monotonic_s()
        if now_s - self._watched_s < _WATCH_INTERVAL_S:
            return ""
        self._watched_s = now_s
        self._site.runs.heartbeat(self._record.run_id)
        return self._loss(max_age_s=_WATCH_INTERVAL_S)

    def _loss(self, *, max_age_s: float) -> str:
        for server in self._services.values():
            if loss := server.loss(max_age_s=max_age_s):
                return f"{server.name} is gone: {loss}"
        return ""

    def _finish(self, state: RunState, error: str) -> None:
        self._keep_service_files()
        try:
            self._record = self._sampling.join(self._record, self._site.scheduler, self._client_job_id)
        except (OSError, ArithmeticError, LookupError, TypeError, ValueError) as damage:
            # What machines did is beside the point of a run, which must not be lost for a damaged line of it.
            self._progress.note(f"what the machines did could not be read: {type(damage).__name__}: {damage}")
        with suppress(ResultError):  # a folder that cannot be listed now tells nothing of others
            others = neighbours(self._site.runs, self._record, self._site.clock)
            self._record = with_shared(self._record, others)
        ended = utc_text(self._site.clock.wall_s())
        record = replace(self._record, state=state, error=error, ended_utc=ended)
        self._record = replace(record, files=_hashes(self._directory))
        self._site.runs.write(self._record)

    def _keep_service_files(self) -> None:
        for role, server in self._services.items():
            if server.instance.is_attached:
                continue
            folder = self._directory / "service" / role
            with suppress(OSError):  # helpful, not needed: a log may be gone, a disk full
                folder.mkdir(parents=True, exist_ok=True)
                logs = {f"{what}.log": path for what, path in server.log_files.items()}
                for name, source in {**logs, "script.sh": server.script_path}.items():
                    if source.is_file():
                        shutil.copyfile(source, folder / name)

    def _client_time_limit_s(self) -> float:
        """As long as the services' jobs may run, for a run ends with them, and more might be refused.

        Where no job of a service will end, a generous guess at least: two timed phases of each service in
        each round, and as long for all the rest.
        """
        servers = self._services.values()
        limits_s = [
            server.instance.options.get("time") or self._site.config.time_limit_s for server in servers
        ]
        lasting = [server.instance.is_attached or server.runs_and_ends for server in servers]
        if not all(lasting):
            return float(min(limit_s for limit_s, lasts in zip(limits_s, lasting, strict=True) if not lasts))
        phases = 2 + 2 * len(self._services) * int(self._recipe.get("rounds", 1))
        times_s = (self._recipe[key] for key in ("warmup", "duration", "drain"))
        guess_s = phases * float(sum(_UNKNOWN_S if time_s is None else time_s for time_s in times_s))
        return max(*limits_s, guess_s)

    def _launcher(self) -> Launcher:
        """Load is made here where that is a compute node or the only node; else by a client job."""
        nodes = self._recipe["client_nodes"]
        if self._site.scheduler.kind == "local" or (self._site.inside_allocation and not nodes):
            if nodes and nodes > 1:
                raise UsageError(
                    f"--client-nodes {nodes} needs Slurm", hint="use --workers for more processes here"
                )
            return LocalLauncher(self._site.config.python)
        return JobLauncher(self._site.scheduler, self._client_job, clock=self._site.clock)

    def _client_job(self, root: Path, workers: int) -> JobSpec:
        config, (first, *_) = self._site.config, self._services.values()
        options = first.instance.options
        script = config.batch_scripts_dir / LOAD_SCRIPT
        if not script.is_file():
            raise ConfigError(f"no batch script {script}", hint="restore it, or set AIFBENCH_HOME")
        nodes = min(self._recipe["client_nodes"] or 1, workers)
        per_node = -(-workers // nodes)
        return JobSpec(
            name=new_job_name("load", self._target.name),
            script=script,
            log_path=root / "client-job-%j.log",
            work_dir=root,
            environment={
                "AIFBENCH_HOME": str(config.project_dir),
                "AIFBENCH_PYTHON": config.python,
                "AIFBENCH_PLAN": str(root),
                "AIFBENCH_WORKERS_PER_NODE": str(per_node),
            },
            nodes=nodes,
            tasks_per_node=max(per_node, -(-self._recipe.get("workers", 1) // nodes)),
            time_limit_s=self._client_time_limit_s(),
            account=options.get("account") or config.account,
            partition=options.get("partition") or config.partition,
            qos=options.get("qos") or config.qos,
            reservation=options.get("reservation") or config.reservation,
            comment=f"aifbench load for {self._target.name}",
        )


def stream_facts(phase: Phase, stream: StreamPlan, samples_file: str, start_wall_s: float) -> StreamFacts:
    """What the summary needs to know of a stream besides its samples."""
    plan, own = phase.plan, phase.by_stream.get(stream.name, phase)
    arrivals = from_json(stream.arrivals)
    duration_s = plan.warmup_s + (plan.measure_s or 0.0)
    return StreamFacts(
        phase=plan.name,
        stream=stream.name,
        arrivals=str(arrivals),
        open_loop=not isinstance(arrivals, Closed),
        offered_rate_per_s=arrivals.mean_rate_per_s(duration_s) if plan.measure_s else None,
        warmup_s=plan.warmup_s,
        measure_s=plan.measure_s,
        drain_s=plan.drain_s,
        timeout_s=plan.timeout_s,
        items=stream.items,
        qualities=stream.qualities,
        via=stream.via,
        workers=stream.workers,
        parameters=own.parameters,
        is_stationary=stream.is_stationary,
        slo=own.slo,
        role=phase.role,
        samples_file=samples_file,
        started_utc=utc_text(start_wall_s),
    )


def _measured_s(outcome: PhaseOutcome, stream: StreamPlan, samples: Samples) -> float | None:
    """As planned, unless the phase ended early: rates are then over the time that there was."""
    plan = outcome.plan
    overloaded = any(report.overloaded for report in outcome.reports(stream))
    if plan.measure_s is None or not (overloaded or outcome.interrupted or outcome.problem):
        return plan.measure_s
    last_s = max(int(column.max(initial=0)) for column in (samples.intended_ns, samples.finished_ns)) / 1e9
    return min(plan.measure_s, max(last_s - plan.warmup_s, 1e-3))


def _describe(phase: Phase) -> str:
    parts = []
    for stream in phase.plan.streams:
        what = f"{stream.name}: " if len(phase.plan.streams) > 1 else ""
        work = f", {stream.limit:,} operations" if stream.limit else ""
        parts.append(f"{what}{from_json(stream.arrivals)}{work}")
    return "; ".join(parts) + ("" if phase.is_measured else " (preparation, not measured)")


def _with_evidence(measurement: Measurement, found: Mapping[str, Evidence]) -> Measurement:
    """An earlier measurement with what a later phase found out about it, by `phase/stream`."""
    more = found.get(f"{measurement.phase}/{measurement.stream}", Evidence())
    return replace(
        measurement,
        checks=(*measurement.checks, *more.checks),
        metrics=(*measurement.metrics, *more.metrics),
    )


def _with_checks(measurement: Measurement, more: tuple[Check, ...]) -> Measurement:
    return replace(measurement, checks=(*measurement.checks, *more))


def _early_end(outcome: PhaseOutcome) -> tuple[Check, ...]:
    if not outcome.problem:
        return ()
    return (Check("ENDED", Verdict.INVALID, f"the phase ended early: {outcome.problem}"),)


def _verified(
    phase: Phase, outcome: PhaseOutcome, measured: Mapping[str, Measurement]
) -> Mapping[str, Evidence]:
    """The phase's own checks; a service that does not answer them makes its numbers INVALID, not lost."""
    if outcome.problem:
        return {}
    try:
        return phase.verify(outcome, measured)
    except BenchError as error:
        message = f"what the service holds could not be verified: {error}"
        check = Check("COUNT", Verdict.INVALID, message, advice="see `logs` of the service")
        return {stream.name: Evidence((check,)) for stream in phase.plan.streams}


def _require_clean(phase: Phase, outcome: PhaseOutcome) -> None:
    """A preparation that went wrong would make everything after it meaningless."""
    for stream in phase.plan.streams:
        samples = outcome.samples(stream)
        failed = int((~samples.ok).sum())
        errors = [
            text for report in outcome.reports(stream) for text in (report.failure, *report.errors) if text
        ]
        is_bad = failed == len(samples) if phase.may_fail_in_part else failed or errors
        if is_bad and not outcome.problem:
            what = f": {errors[0]}" if errors else ""
            raise WorkloadError(f"{failed} of {len(samples)} operations of {phase.plan.name} failed{what}")
        outcome.discard_raw(stream)


def _hashes(directory: Path) -> dict[str, str]:
    """SHA-256 of every evidence file of the run, by relative path."""
    paths = [path for path in sorted(directory.rglob("*")) if path.is_file() and path.parent != directory]
    return {str(path.relative_to(directory)): _sha256(path) for path in paths}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
