"""Fleet: many load workers behind one start barrier, on this machine or in a client job.

The coordinator speaks to its workers through files (see rendezvous) and never takes part in the load.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from aifbench.clock import Clock, SystemClock
from aifbench.cluster.jobs import JobInfo, JobSpec, JobState, Scheduler
from aifbench.errors import (
    BenchError,
    FleetError,
    SchedulerError,
    SchedulerUnavailable,
    SubmitError,
    ending_words,
)
from aifbench.load import rendezvous as rv
from aifbench.load.arrivals import from_json
from aifbench.load.engine import load_workload
from aifbench.load.interpretation import interpret
from aifbench.load.plan import PhasePlan, StreamPlan, WorkerReport
from aifbench.load.progress import LoadStatus, Progress, StreamStatus
from aifbench.load.recorder import (
    ErrorTally,
    answers_path,
    count_errors,
    count_rows,
    discard,
    read_merged,
    read_new_rows,
    response_ms,
)
from aifbench.load.samples import Samples

# Time between the last worker's readiness and the common start: several polls of every worker.
START_LEAD_S = 0.07
JOB_START_LEAD_S = 2.0

_POLL_S = 0.05
_ALIVE_S = 1.0
_PROGRESS_S = 1.0
_STOP_GRACE_S = 10.0
# How lines begin that are not of the workers.
_SLURM_SAYS = ("srun: ", "slurmstepd: ")


class Launcher(Protocol):
    """Starts worker processes for a rendezvous directory, and says when they are gone."""

    @property
    def start_lead_s(self) -> float: ...

    @property
    def waiting_for(self) -> str:
        """Why the workers have not been started yet; empty once they have."""

    def launch(self, root: Path, workers: int) -> None:
        """Start workers 0 .. workers-1."""

    def failure(self) -> str:
        """Why the workers cannot finish, or nothing while they may. Cheap: called often."""

    def has_ended(self, worker: int) -> bool:
        """Whether this worker is known to be gone."""

    def stop(self) -> None:
        """End all workers; returns when they are gone or cannot be ended."""


class LocalLauncher:
    """Worker processes beside this one."""

    start_lead_s = START_LEAD_S
    waiting_for = ""

    def __init__(self, python: str = sys.executable) -> None:
        self._python = python
        self._processes: list[subprocess.Popen[bytes]] = []
        self._root: Path | None = None

    def launch(self, root: Path, workers: int) -> None:
        self._root = root
        source = str(Path(__file__).resolve().parents[2])
        environment = {**os.environ, "PYTHONPATH": source}
        for name in [name for name in environment if name.startswith("SLURM_")]:
            del environment[name]
        for index in range(len(self._processes), workers):
            with (root / f"worker-{index}.log").open("wb") as log:
                self._processes.append(
                    subprocess.Popen(
                        [self._python, "-m", "aifbench.load.worker", str(root), str(index)],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        env=environment,
                        start_new_session=True,
                    )
                )

    def failure(self) -> str:
        for index, process in enumerate(self._processes):
            code = process.poll()
            if code is not None:
                how = f"signal {-code}" if code < 0 else f"exit code {code}"
                return f"load worker {index} ended ({how}){self._last_words(index)}"
        return ""

    def has_ended(self, worker: int) -> bool:
        return self._processes[worker].poll() is not None

    def _last_words(self, index: int) -> str:
        assert self._root is not None
        log = self._root / f"worker-{index}.log"
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if not lines and not shutil.disk_usage(self._root).free:
            return f": no space left for {self._root}"
        return f": {lines[-1]}" if lines else ""

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
        deadline_s = time.monotonic() + _STOP_GRACE_S
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._processes.clear()


class JobLauncher:
    """Workers as the tasks of a job of their own, for use where the shell must not make load itself.

    `spec(workers)` describes the job; its script starts one worker per task.
    """

    start_lead_s = JOB_START_LEAD_S

    def __init__(
        self,
        scheduler: Scheduler,
        spec: Callable[[Path, int], JobSpec],
        *,
        clock: Clock | None = None,
        poll_interval_s: float = 5.0,
    ) -> None:
        self._scheduler = scheduler
        self._spec = spec
        self._clock = clock or SystemClock()
        self._poll_interval_s = poll_interval_s
        self._polled_s = -poll_interval_s
        self._failure = ""
        self._submitted: JobSpec | None = None
        self.job_id = ""
        self.waiting_for = "submission"

    def launch(self, root: Path, workers: int) -> None:
        if self.job_id:
            return
        self._submitted = self._spec(root, workers)
        try:
            self.job_id = self._scheduler.submit(self._submitted)
        except SubmitError:
            self._submitted = None
            raise

    def failure(self) -> str:
        now_s = self._clock.monotonic_s()
        if now_s - self._polled_s >= self._poll_interval_s:
            self._polled_s = now_s
            info = self._info()
            self.waiting_for = (info.reason or "the queue") if info.state.is_waiting else ""
            if info.state.is_final:
                words = self._words() if info.state is JobState.FAILED else ""
                advice = f"; {info.advice}" if info.advice else ""
                self._failure = f"client job {self.job_id} ended ({info.state.value}){words}{advice}"
            elif info.restarts:
                self._failure = f"client job {self.job_id} was requeued: its workers are gone"
            elif info.is_stuck:
                self._failure = f"client job {self.job_id} will not start ({info.reason}): {info.advice}"
        return self._failure

    def _info(self) -> JobInfo:
        """What the scheduler says now. Its silence says nothing of the job."""
        try:
            return self._scheduler.poll([self.job_id])[self.job_id]
        except SchedulerUnavailable:
            return JobInfo(self.job_id, JobState.UNKNOWN)

    def has_ended(self, worker: int) -> bool:  # noqa: ARG002 (a job ends as a whole)
        return bool(self._failure)

    def _words(self) -> str:
        assert self._submitted is not None
        return _last_words(Path(str(self._submitted.log_path).replace("%j", self.job_id)))

    def stop(self) -> None:
        if not self.job_id and not self._find():
            return
        deadline_s = self._clock.monotonic_s() + _STOP_GRACE_S
        while self._clock.monotonic_s() < deadline_s:
            state = self._info().state
            if state.is_final:
                return
            if state.is_waiting:
                break
            self._clock.sleep(1.0)
        with suppress(SchedulerUnavailable):  # then the workers leave by themselves: nobody is alive for them
            self._scheduler.cancel([self.job_id])

    def _find(self) -> bool:
        """A submission that ended without an answer, as by Ctrl-C, may have made its job."""
        if self._submitted is not None:
            with suppress(SchedulerError):
                for job in self._scheduler.find(self._submitted.name):
                    self.job_id = job.job_id
        return bool(self.job_id)


class Fleet:
    """Runs phases on the workers of one Launcher; a context manager that leaves no worker behind."""

    def __init__(
        self,
        root: Path,
        launcher: Launcher,
        *,
        workers: int,
        clock: Clock | None = None,
        ready_timeout_s: float = 600.0,
    ) -> None:
        self._root = root
        self._launcher = launcher
        self._workers = workers
        self._clock = clock or SystemClock()
        self._ready_timeout_s = ready_timeout_s
        self._phases = 0
        self._leaving = threading.Event()

    def __enter__(self) -> Self:
        self._root.mkdir(parents=True, exist_ok=True)
        (self._root / rv.ALIVE).touch()
        # From a thread: a scheduler that hangs must not look like a coordinator that is gone.
        threading.Thread(target=self._stay_alive, name="fleet", daemon=True).start()
        try:
            self._launcher.launch(self._root, self._workers)
        except BaseException:
            self._leaving.set()
            self._launcher.stop()
            raise
        return self

    def _stay_alive(self) -> None:
        while not self._leaving.wait(_ALIVE_S):
            with suppress(OSError):
                (self._root / rv.ALIVE).touch()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.set()
        (self._root / rv.END).touch()
        if kind is not None:
            (self._root / rv.STOP).touch()
        self._launcher.stop()

    def run(self, plan: PhasePlan, progress: Progress, *, watch: Callable[[], str]) -> "PhaseOutcome":
        """Prepare, start together, wait for all. `watch` names a reason to give up early, or nothing.

        What was recorded is returned whatever happened: a lost worker or an early end is in
        `PhaseOutcome.problem`, never an exception. Raises FleetError only when nothing began.
        """
        directory = rv.phase_dir(self._root, self._phases)
        self._phases += 1
        directory.mkdir()
        rv.write_json(directory / rv.PLAN, plan.to_json())
        count = sum(stream.workers for stream in plan.streams)
        self._await_ready(directory, count, progress)
        start_s = self._start(directory)
        try:
            problem = self._await_reports(directory, plan, count, start_s, progress, watch)
            interrupted = False
        except KeyboardInterrupt as interrupt:
            problem, interrupted = ending_words(interrupt), True
            self._stop_early(directory, count)
        return PhaseOutcome(directory, plan, start_s, problem, interrupted=interrupted)

    def _stop_early(self, directory: Path, count: int) -> None:
        (self._root / rv.STOP).touch()
        deadline_s = self._clock.monotonic_s() + _STOP_GRACE_S
        while self._clock.monotonic_s() < deadline_s:
            if all(self._launcher.has_ended(k) for k in _silent(directory, count)):
                return
            self._clock.sleep(_POLL_S)

    def _await_ready(self, directory: Path, count: int, progress: Progress) -> None:
        deadline_s = self._clock.monotonic_s() + self._ready_timeout_s
        missing = set(range(count))
        told = ""
        while True:
            missing -= {k for k in missing if (directory / rv.ready_file(k)).exists()}
            if not missing:
                return
            self._raise_failed(directory, count)
            if waiting_for := self._launcher.waiting_for:
                deadline_s = self._clock.monotonic_s() + self._ready_timeout_s
                if waiting_for != told:
                    progress.note(f"load workers wait for {waiting_for}")
                    told = waiting_for
            if self._clock.monotonic_s() > deadline_s:
                raise FleetError(
                    f"{len(missing)} of {count} load workers not ready after {self._ready_timeout_s:g} s",
                    hint=f"see the worker logs in {self._root}",
                )
            self._clock.sleep(_POLL_S)

    def _raise_failed(self, directory: Path, count: int) -> None:
        for report in _reports(directory, count):
            if report.failure:
                raise FleetError(f"load worker on {report.host} could not prepare: {report.failure}")
        failure = self._launcher.failure()
        if failure:
            raise FleetError(failure, hint=f"see the worker logs in {self._root}")

    def _start(self, directory: Path) -> float:
        """Publish the common start in worker 0's clock (this machine's, when that is the same one)."""
        first = rv.read_json(directory / rv.ready_file(0))
        assert first is not None
        start_s = self._clock.wall_s() + self._launcher.start_lead_s
        rv.write_json(directory / rv.START, {**first, "start_wall_s": start_s})
        return start_s

    def _await_reports(
        self,
        directory: Path,
        plan: PhasePlan,
        count: int,
        start_s: float,
        progress: Progress,
        watch: Callable[[], str],
    ) -> str:
        display = _Display(plan, directory, progress)
        began_s = self._clock.monotonic_s() + start_s - self._clock.wall_s()
        problem = ""
        give_up_s = float("inf")
        while silent := _silent(directory, count):
            now_s = self._clock.monotonic_s()
            all_gone = all(self._launcher.has_ended(k) for k in silent)
            if not problem:
                problem = self._launcher.failure() or watch()
                if problem:
                    (self._root / rv.STOP).touch()
                    give_up_s = now_s + _STOP_GRACE_S
            if all_gone or now_s > give_up_s:
                break
            display.refresh(now_s - began_s)
            self._clock.sleep(_POLL_S)
        display.refresh(self._clock.monotonic_s() - began_s, is_last=True)
        return problem or _terminated(directory, count)


def _terminated(directory: Path, count: int) -> str:
    """Workers that were told to end report what they have done, as if that were all."""
    hosts = sorted({report.host for report in _reports(directory, count) if report.terminated})
    return f"load workers on {', '.join(hosts)} were ended by a signal" if hosts else ""


def _last_words(log: Path) -> str:
    """`: ` and the last line that a program wrote, not what Slurm says of its end; nothing without one."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    said = [line.strip() for line in lines if line.strip() and not line.startswith(_SLURM_SAYS)]
    return f": {said[-1]}" if said else ""


class PhaseOutcome:
    """Where a phase left its samples and reports."""

    def __init__(
        self, directory: Path, plan: PhasePlan, start_s: float, problem: str, *, interrupted: bool = False
    ) -> None:
        self.interrupted = interrupted
        self.directory = directory
        self.plan = plan
        self.start_wall_s = start_s
        self.problem = problem

    def reports(self, stream: StreamPlan) -> list[WorkerReport]:
        """One per worker of the stream, in order; a worker that never reported has a `failure`."""
        count = sum(s.workers for s in self.plan.streams)
        found = {(r.stream, r.worker): r for r in _reports(self.directory, count)}
        return [found.get((stream.name, k)) or _lost(stream, k, self.problem) for k in range(stream.workers)]

    def samples(self, stream: StreamPlan) -> Samples:
        """Everything the stream's workers wrote, lost workers included."""
        return read_merged(self.directory, [rv.rows_name(stream.name, k) for k in range(stream.workers)])

    def recover(self, stream: StreamPlan) -> None:
        """Read the answers that lost workers left unread, so that what they measured counts."""
        names = [rv.rows_name(stream.name, k) for k in range(stream.workers)]
        unread = [name for name in names if _has_answers(self.directory, name)]
        if not unread:
            return
        with suppress(BenchError, OSError), closing(load_workload(stream)) as workload:
            workload.open(self.plan.endpoint_of(stream))
            for name in unread:
                interpret(self.directory, name, workload, ErrorTally())

    def program_folder(self, stream: StreamPlan, worker: int) -> Path:
        """What a program that makes the load itself has left of that worker's part."""
        return rv.program_folder(self.directory, rv.rows_name(stream.name, worker))

    def discard_raw(self, stream: StreamPlan) -> None:
        """Remove the workers' own files, once the merged samples are stored."""
        for name in (rv.rows_name(stream.name, k) for k in range(stream.workers)):
            discard(self.directory, name)


class _Display:
    """Turns files that grow into a LoadStatus about once a second."""

    def __init__(self, plan: PhasePlan, directory: Path, progress: Progress) -> None:
        self._plan = plan
        self._directory = directory
        self._progress = progress
        self._next_s = 0.0
        self._names = {s.name: [rv.rows_name(s.name, k) for k in range(s.workers)] for s in plan.streams}
        self._seen = {name: 0 for names in self._names.values() for name in names}
        self._last_s = 0.0
        self._errors = 0
        limits = [s.limit for s in plan.streams]
        timed = plan.measure_s is not None
        self._planned_s = plan.warmup_s + (plan.measure_s or 0.0) if timed else None
        self._planned_operations = None if timed else sum(limit or 0 for limit in limits)
        self._offered_per_s = {
            s.name: from_json(s.arrivals).mean_rate_per_s(self._planned_s) if self._planned_s else None
            for s in plan.streams
        }

    def refresh(self, elapsed_s: float, *, is_last: bool = False) -> None:
        if elapsed_s < self._next_s and not is_last:
            return
        self._next_s = elapsed_s + _PROGRESS_S
        streams = [self._look(stream) for stream in self._names]
        rows = np.concatenate([stream.rows for stream in streams])
        spans_ms = response_ms(rows)
        self._errors += count_errors(rows)
        passed_s, self._last_s = elapsed_s - self._last_s, elapsed_s
        self._progress.update(
            LoadStatus(
                phase=self._plan.name,
                elapsed_s=max(0.0, elapsed_s),
                planned_s=self._planned_s,
                operations=sum(self._seen.values()),
                planned_operations=self._planned_operations,
                rate_per_s=sum(stream.operations for stream in streams) / max(passed_s, 1e-9),
                errors=self._errors,
                p99_ms=float(np.quantile(spans_ms, 0.99)) if len(spans_ms) else None,
                warmup_s=self._plan.warmup_s,
                passed_s=passed_s,
                streams=streams,
            )
        )

    def _look(self, stream: str) -> StreamStatus:
        new, operations = [], 0
        for name in self._names[stream]:
            count = count_rows(self._directory, name)
            new.append(read_new_rows(self._directory, name, self._seen[name])[: count - self._seen[name]])
            operations += count - self._seen[name]
            self._seen[name] = count
        return StreamStatus(stream, operations, np.concatenate(new), self._offered_per_s[stream])


def _has_answers(directory: Path, name: str) -> bool:
    try:
        return answers_path(directory, name).stat().st_size > 0
    except OSError:
        return False


def _reports(directory: Path, count: int) -> Sequence[WorkerReport]:
    found = (rv.read_json(directory / rv.report_file(k)) for k in range(count))
    return [WorkerReport.from_json(data) for data in found if data is not None]


def _silent(directory: Path, count: int) -> list[int]:
    """Workers that have not reported yet."""
    return [k for k in range(count) if not (directory / rv.report_file(k)).exists()]


def _lost(stream: StreamPlan, worker: int, problem: str) -> WorkerReport:
    failure = problem or "no report"
    return WorkerReport(stream.name, worker, "", 0, operations=0, cpu_s=0.0, wall_s=0.0, failure=failure)
