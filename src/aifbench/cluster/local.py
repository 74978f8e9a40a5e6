"""Scheduler without Slurm: batch scripts as processes of this machine, with Slurm's variables and states.

Every job is watched by its own supervisor (local_job.py), so a job outlives the shell that submitted it, and
any shell that uses the same state directory sees and cancels it. There is no queue: a job starts at once.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from aifbench.clock import Clock, SystemClock
from aifbench.cluster import local_job, processes
from aifbench.cluster.jobs import JobInfo, JobSpec, JobState, JobUsage
from aifbench.errors import SchedulerError, SchedulerUnavailable, SubmitError

_OTHER_JOBS_VARIABLES = ("SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "SALLOC_")
_SUPERVISOR = (
    "import sys; sys.path.insert(0, sys.argv[1]); from aifbench.cluster import local_job as j; j.main()"
)
_SOURCES = Path(__file__).resolve().parents[2]

# A supervisor needs some 50 ms; far beyond this, its submitter was killed before it started one.
_START_ALLOWANCE_S = 30.0

_ID = re.compile(r"[1-9][0-9]*")
_EXIT_ADVICE = {
    127: "a command was not found: see the end of its log",
    137: "it was killed by SIGKILL, which for want of memory the kernel does: see `dmesg`",
}


class LocalProcess:
    """Jobs in `state_dir`, one directory each; its name is the job's id, a positive integer."""

    kind = "local"
    last_message = ""

    def __init__(self, state_dir: Path, *, clock: Clock | None = None, grace_s: float = 5.0) -> None:
        """`grace_s` is how long an ending job has between SIGTERM and SIGKILL."""
        self._jobs_dir = state_dir.absolute() / "jobs"
        self._clock = clock or SystemClock()
        self._grace_s = grace_s

    def submit(self, spec: JobSpec) -> str:
        _check(spec)
        try:
            job_id, job_dir = self._create(spec)
        except OSError as error:
            raise SubmitError(f"cannot keep the state of job {spec.name!r} in {self._jobs_dir}") from error
        environment = job_environment(spec, job_id, os.environ)
        environment[local_job.MARK] = str(job_dir)
        failure = _supervise("run", job_dir, environment, spec.work_dir)
        if not (job_dir / "started.json").exists():
            shutil.rmtree(job_dir, ignore_errors=True)
            raise SubmitError(f"job {spec.name!r} could not be started: {failure or 'no answer from it'}")
        return job_id

    def poll(self, job_ids: Iterable[str]) -> dict[str, JobInfo]:
        try:
            return {job_id: self._info(job_id) for job_id in job_ids}
        except OSError as error:
            raise SchedulerUnavailable("cannot read the state of local jobs") from error

    def cancel(self, job_ids: Sequence[str]) -> None:
        """Returns at once; the supervisor ends the job within the grace time."""
        for job_id, info in self.poll(job_ids).items():
            if not info.state.is_final and info.source == self.kind:
                self._cancel(self._jobs_dir / job_id)

    def find(self, name: str) -> list[JobInfo]:
        infos = self.poll(str(number) for number in self._ids()).values()
        return [info for info in infos if info.name == name]

    def usage(self, job_ids: Sequence[str]) -> list[JobUsage]:  # noqa: ARG002 (nobody keeps accounts here)
        return []

    def command_line(self, spec: JobSpec) -> list[str]:
        return ["bash", str(spec.script)]

    def _create(self, spec: JobSpec) -> tuple[str, Path]:
        """A job directory that appears complete under a free id: rename never replaces a full directory."""
        self._jobs_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".new-", dir=self._jobs_dir))
        try:
            shutil.copyfile(spec.script, draft / "script")
            return self._place(draft, spec)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _place(self, draft: Path, spec: JobSpec) -> tuple[str, Path]:
        number = max(self._ids(), default=0) + 1
        while True:
            job_dir = self._jobs_dir / str(number)
            log_path = str(spec.log_path.absolute()).replace("%j", str(number))
            local_job.write_json(draft / "job.json", self._job(spec, log_path))
            try:
                draft.rename(job_dir)
            except OSError:
                if not job_dir.exists():
                    raise
                number += 1
            else:
                return str(number), job_dir

    def _job(self, spec: JobSpec, log_path: str) -> dict[str, Any]:
        return {
            "name": spec.name,
            "script": str(spec.script),
            "log_path": log_path,
            "time_limit_s": spec.time_limit_s,
            "grace_s": self._grace_s,
            "comment": spec.comment,
            "submitted_s": self._clock.wall_s(),
        }

    def _ids(self) -> list[int]:
        try:
            return sorted(int(entry.name) for entry in self._jobs_dir.iterdir() if entry.name.isdigit())
        except FileNotFoundError:
            return []

    def _cancel(self, job_dir: Path) -> None:
        started = local_job.read_json(job_dir / "started.json")
        if started is not None and started["host"] != os.uname().nodename:
            raise SchedulerError(f"job {job_dir.name} runs on {started['host']}", hint="cancel it there")
        with suppress(OSError):  # a full disk must not keep a job alive
            (job_dir / "cancel").touch()
        # Read again: a supervisor that starts just now sees either the file or the signal.
        started = local_job.read_json(job_dir / "started.json")
        if started is None:
            return
        if _is_alive(started):
            processes.send([started["pid"]], signal.SIGTERM)
        elif failure := _supervise("end", job_dir, os.environ, job_dir):
            raise SchedulerError(f"job {job_dir.name} could not be cancelled: {failure}")

    def _info(self, job_id: str) -> JobInfo:
        job_dir = self._jobs_dir / job_id
        job = local_job.read_json(job_dir / "job.json") if _ID.fullmatch(job_id) else None
        if job is None:
            return JobInfo(job_id, JobState.UNKNOWN)
        started = local_job.read_json(job_dir / "started.json")
        # Looked at before ended.json: a supervisor writes that file and then goes, never the other way.
        alive = started is not None and _is_alive(started)
        ended = local_job.read_json(job_dir / "ended.json")
        info = JobInfo(job_id, JobState.PENDING, name=job["name"], source="local")
        if started is None:
            return self._not_started(info, job)
        info = replace(info, nodes=(started["host"],))
        if ended is not None:
            return _ended(info, ended)
        if alive:
            return self._running(info, job, started, is_ending=(job_dir / "cancel").exists())
        return _without_supervisor(info, job_dir, started)

    def _not_started(self, info: JobInfo, job: Mapping[str, Any]) -> JobInfo:
        if self._clock.wall_s() - job["submitted_s"] < _START_ALLOWANCE_S:
            return info
        advice = "its submission was interrupted before it began: start it again"
        return replace(info, state=JobState.FAILED, reason="NeverStarted", advice=advice)

    def _running(
        self, info: JobInfo, job: Mapping[str, Any], started: Mapping[str, Any], *, is_ending: bool
    ) -> JobInfo:
        elapsed_s = self._clock.monotonic_s() - started["monotonic_s"]
        return replace(
            info,
            state=JobState.COMPLETING if is_ending else JobState.RUNNING,
            elapsed_s=elapsed_s,
            time_left_s=max(0.0, job["time_limit_s"] - elapsed_s),
        )


def job_environment(spec: JobSpec, job_id: str, environ: Mapping[str, str]) -> dict[str, str]:
    """What the script sees: `environ` less another job's variables, the spec's own, Slurm's for one node."""
    kept = {key: value for key, value in environ.items() if not key.startswith(_OTHER_JOBS_VARIABLES)}
    host = os.uname().nodename
    cpus = str(len(os.sched_getaffinity(0)))
    tasks = str(spec.tasks_per_node)
    slurm = {
        "SLURM_JOB_ID": job_id,
        "SLURM_JOBID": job_id,
        "SLURM_JOB_NAME": spec.name,
        "SLURM_JOB_NODELIST": host,
        "SLURM_NODELIST": host,
        "SLURMD_NODENAME": host,
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_NNODES": "1",
        "SLURM_NTASKS": tasks,
        "SLURM_NPROCS": tasks,
        "SLURM_NTASKS_PER_NODE": tasks,
        "SLURM_TASKS_PER_NODE": tasks,
        "SLURM_CPUS_ON_NODE": cpus,
        "SLURM_JOB_CPUS_PER_NODE": cpus,
        "SLURM_PROCID": "0",
        "SLURM_NODEID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_RESTART_COUNT": "0",
        "SLURM_SUBMIT_DIR": str(spec.work_dir),
        "SLURM_SUBMIT_HOST": host,
    }
    if spec.cpus_per_task is not None:
        slurm["SLURM_CPUS_PER_TASK"] = str(spec.cpus_per_task)
    return {**kept, **spec.environment, **slurm, "AIFBENCH_SCHEDULER": "local"}


def _check(spec: JobSpec) -> None:
    """Refuse what would otherwise fail in silence: without a log there is nothing to read afterwards."""
    if spec.nodes != 1:
        raise SubmitError(
            f"{spec.nodes} nodes were asked for, and without Slurm there is one", hint="use --nodes 1"
        )
    try:
        with spec.script.open("rb") as script:
            is_script = script.read(2) == b"#!"
    except OSError as error:
        raise SubmitError(f"cannot read the batch script {spec.script}") from error
    if not is_script:
        raise SubmitError(f"{spec.script} is not a batch script", hint="its first line must begin with #!")
    if not spec.work_dir.is_dir():
        raise SubmitError(f"the working directory {spec.work_dir} does not exist")
    if not os.access(spec.log_path.parent, os.W_OK | os.X_OK):
        raise SubmitError(f"the log directory {spec.log_path.parent} does not exist or is not writable")


def _supervise(verb: str, job_dir: Path, environment: Mapping[str, str], work_dir: Path) -> str:
    """Start a supervisor and wait until it works; the last line of its complaint, if any."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _SUPERVISOR, str(_SOURCES), verb, str(job_dir)],
            env=environment,
            cwd=work_dir,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            timeout=_START_ALLOWANCE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stderr.decode(errors="replace").strip().rpartition("\n")[2]


def _is_alive(started: Mapping[str, Any]) -> bool:
    """Whether the very process that wrote `started` lives: a recycled pid has another start time."""
    same_boot = started["host"] == os.uname().nodename and started["boot_id"] == processes.boot_id()
    return same_boot and processes.start_ticks(started["pid"]) == int(started["start_ticks"])


def _ended(info: JobInfo, ended: Mapping[str, Any]) -> JobInfo:
    state = JobState(ended["state"])
    exit_code, signal_number = ended["exit_code"], ended["signal"]
    reason, advice = "", ""
    if state is JobState.TIMEOUT:
        reason, advice = "TimeLimit", "it reached its time limit: ask for more with --time"
    elif state is JobState.FAILED:
        reason = "NonZeroExitCode" if exit_code else "Signalled"
        advice = _EXIT_ADVICE.get(exit_code or 128 + signal_number, "")
    if ended["left_pids"]:
        left = ", ".join(map(str, ended["left_pids"]))
        advice = f"these of its processes do not end even on SIGKILL: {left}"
    return replace(
        info,
        state=state,
        reason=reason,
        advice=advice,
        exit_code=exit_code,
        signal=signal_number,
        elapsed_s=ended.get("elapsed_s"),
    )


def _without_supervisor(info: JobInfo, job_dir: Path, started: Mapping[str, Any]) -> JobInfo:
    """A job with no final state whose supervisor does not live here (any more)."""
    host = started["host"]
    if host != os.uname().nodename:
        return replace(
            info, state=JobState.UNKNOWN, reason="OtherHost", advice=f"it was started on {host}: look there"
        )
    if started["boot_id"] != processes.boot_id():
        return replace(
            info, state=JobState.NODE_FAIL, reason="NodeDown", advice=f"{host} was restarted: start it again"
        )
    if local_job.marked(job_dir):
        advice = "its supervisor was killed: it runs without time limit until you stop it"
        return replace(info, state=JobState.RUNNING, reason="SupervisorLost", advice=advice)
    advice = "it and its supervisor were killed and left no exit code: its log may tell more"
    return replace(info, state=JobState.FAILED, reason="SupervisorLost", advice=advice)
