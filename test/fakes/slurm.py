"""A Slurm cluster in memory behind its commands: a CommandRunner that speaks their real text formats.

Formats, messages and exit codes are those seen with Slurm 22.05 and 25.11. Nothing happens by itself: a
test moves jobs with `start`, `end`, `requeue`..., and breaks things with `controller`, `accounting` and
the other public attributes.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from test.fakes.clock import FakeClock

from aifbench.cluster.command import CommandResult

MESSAGE_TIMEOUT_S = 10.0
_FINAL = (
    *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY"),
    *("NODE_FAIL", "PREEMPTED", "DEADLINE", "BOOT_FAIL"),
)
_NO_CONTACT = "Unable to contact slurm controller (connect failure)"
_TIMED_OUT = "Socket timed out on send/recv operation"
_NO_JOB = "slurm_load_jobs error: Invalid job id specified"


@dataclass
class FakeJob:
    """One job. `nodes` is Slurm's expression; `ending` is the shell's raw exit code and the signal."""

    job_id: int
    name: str
    argv: list[str]
    environment: dict[str, str]
    submitted_s: float
    time_limit_min: int
    state: str = "PENDING"
    reason: str = "Priority"
    nodes: str = ""
    restarts: int = 0
    ending: tuple[int, int] = (0, 0)
    started_s: float | None = None
    ended_s: float | None = None
    cancelled_by: int | None = None
    forgotten: bool = False
    earlier_runs: list[str] = field(default_factory=list)


class FakeSlurm:
    """See the module. `controller` is up, down or hung; `accounting` is up, disabled, down or missing."""

    def __init__(self, clock: FakeClock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.jobs: dict[int, FakeJob] = {}
        self.calls: list[list[str]] = []
        self.controller = "up"
        self.controller_back_at_s: float | None = None
        self.accounting = "up"
        self.visible_after_s = 0.0
        self.ghost_submits = 0
        self.hanging_sbatch = False
        self.hanging_jobs: set[str] = set()  # once cancelled they stay COMPLETING, as with a hung epilog
        self.refusal: tuple[int, str] | None = None
        self.site_message = ""
        self.cluster_suffix = ""
        self.step_rows: dict[str, str] = {}  # what sstat says of a step after its name
        self._next_id = 1

    # What happens on the cluster

    def start(self, job_id: str, nodes: str = "node1") -> None:
        job = self.jobs[int(job_id)]
        job.state, job.reason, job.nodes, job.started_s = "RUNNING", "None", nodes, self.clock.elapsed_s

    def end(
        self, job_id: str, state: str = "COMPLETED", exit_code: int = 0, signal: int = 0, reason: str = "None"
    ) -> None:
        job = self.jobs[int(job_id)]
        job.state, job.reason, job.ending = state, reason, (exit_code, signal)
        job.ended_s = self.clock.elapsed_s

    def pend(self, job_id: str, reason: str) -> None:
        job = self.jobs[int(job_id)]
        job.state, job.reason = "PENDING", reason

    def requeue(self, job_id: str, cause: str = "NODE_FAIL") -> None:
        """The job waits again under its id; `start` it on other nodes."""
        job = self.jobs[int(job_id)]
        job.earlier_runs.append(cause)
        job.state, job.reason, job.nodes = "PENDING", "BeginTime", ""
        job.restarts, job.started_s, job.ended_s = job.restarts + 1, None, None

    def forget(self, job_id: str) -> None:
        """MinJobAge has passed: only accounting still knows the job."""
        self.jobs[int(job_id)].forgotten = True

    # The commands

    def __call__(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        environment: Mapping[str, str],
        stdin: str = "",  # noqa: ARG002 - part of the protocol
    ) -> CommandResult:
        self.calls.append(list(argv))
        if self.controller_back_at_s is not None and self.clock.elapsed_s >= self.controller_back_at_s:
            self.controller = "up"
        command, *arguments = argv
        if command == "sbatch":
            return self._sbatch(arguments, timeout_s, environment)
        if command == "sacct":
            return self._sacct(_Options(arguments))
        if command == "sstat":
            return self._sstat(_Options(arguments))
        if self.controller != "up":
            return self._unanswered(f"{_ERROR_PREFIX[command]}{self._excuse()}", timeout_s)
        answers: dict[str, Callable[[_Options], CommandResult]] = {
            "squeue": self._squeue,
            "scontrol": self._scontrol,
            "scancel": self._scancel,
        }
        return answers[command](_Options(arguments))

    def commands(self, name: str) -> list[list[str]]:
        """The calls of one command so far."""
        return [call for call in self.calls if call[0] == name]

    def _excuse(self) -> str:
        return _NO_CONTACT if self.controller == "down" else _TIMED_OUT

    def _unanswered(self, stderr: str, timeout_s: float) -> CommandResult:
        waited_s = 4.0 if self.controller == "down" else min(timeout_s, MESSAGE_TIMEOUT_S)
        self.clock.elapsed_s += waited_s
        if timeout_s < MESSAGE_TIMEOUT_S and self.controller == "hung":
            return CommandResult(None)
        return CommandResult(1, stderr=stderr + "\n")

    def _sbatch(
        self, arguments: list[str], timeout_s: float, environment: Mapping[str, str]
    ) -> CommandResult:
        failed = "sbatch: error: Batch job submission failed: "
        if self.refusal:
            return CommandResult(self.refusal[0], stderr=self.refusal[1])
        if self.controller == "down":
            return self._unanswered(failed + _NO_CONTACT, timeout_s)
        job = self._create(arguments, environment)
        if self.hanging_sbatch:
            self.hanging_sbatch = False
            self.clock.elapsed_s += timeout_s
            return CommandResult(None)
        if self.controller == "hung" or self.ghost_submits:
            self.ghost_submits = max(0, self.ghost_submits - 1)
            return self._unanswered(failed + _TIMED_OUT, timeout_s)
        return CommandResult(0, f"{job.job_id}{self.cluster_suffix}\n", self.site_message)

    def _create(self, arguments: list[str], environment: Mapping[str, str]) -> FakeJob:
        options = _Options(arguments)
        job = FakeJob(
            self._next_id,
            options["--job-name"],
            ["sbatch", *arguments],
            dict(environment),
            submitted_s=self.clock.elapsed_s,
            time_limit_min=int(options["--time"]),
        )
        self.jobs[job.job_id] = job
        self._next_id += 1
        return job

    def _squeue(self, options: "_Options") -> CommandResult:
        ids = [int(job_id) for job_id in options.get("--jobs", "").split(",") if job_id]
        known = [job for job in self.jobs.values() if self._is_known(job)]
        if len(ids) == 1 and ids[0] not in [job.job_id for job in known]:
            return CommandResult(1, stderr=_NO_JOB + "\n")
        chosen = [job for job in known if self._is_chosen(job, ids, options)]
        chosen = [job for job in chosen if job.state not in _FINAL or options.get("--states") == "all"]
        lines = [_long_format(options["--Format"], self._queue_fields(job)) for job in chosen]
        return CommandResult(0, "".join(f"{line}\n" for line in lines))

    def _is_known(self, job: FakeJob) -> bool:
        return not job.forgotten and self.clock.elapsed_s >= job.submitted_s + self.visible_after_s

    def _is_chosen(self, job: FakeJob, ids: list[int], options: "_Options") -> bool:
        names = options.get("--name", job.name).split(",")
        return (not ids or job.job_id in ids) and job.name in names

    def _queue_fields(self, job: FakeJob) -> dict[str, str]:
        elapsed_s = self._elapsed_s(job)
        return {
            "JobID": str(job.job_id),
            "State": job.state,
            "TimeUsed": _squeue_time(elapsed_s),
            "TimeLeft": _squeue_time(job.time_limit_min * 60 - elapsed_s),
            "NodeList": job.nodes,
            "RestartCnt": str(job.restarts),
            "exit_code": str(job.ending[0] << 8 | job.ending[1]),
            "Reason": job.reason,
            "Name": job.name,
        }

    def _elapsed_s(self, job: FakeJob) -> int:
        if job.started_s is None:
            return 0
        end_s = self.clock.elapsed_s if job.ended_s is None else job.ended_s
        return int(end_s - job.started_s)

    def _scontrol(self, options: "_Options") -> CommandResult:
        if options.words[:2] == ["show", "hostnames"]:  # asks no controller
            return CommandResult(0, stdout=options.words[-1] + "\n")
        job = self.jobs.get(int(options.words[-1]))
        if options.words[:2] != ["show", "job"] or job is None or not self._is_known(job):
            return CommandResult(1, stderr=_NO_JOB + "\n")
        values = {
            "job_id": job.job_id,
            "name": job.name,
            "state": job.state,
            "reason": job.reason.replace(" ", "_"),
            "restarts": job.restarts,
            "ending": f"{job.ending[0]}:{job.ending[1]}",
            "run_time": _long_time(self._elapsed_s(job)),
            "nodes": job.nodes or "(null)",
        }
        return CommandResult(0, _SCONTROL_LINE.format(**values) + "\n")

    def _sstat(self, options: "_Options") -> CommandResult:
        """The batch steps in `step_rows`, of jobs that run."""
        lines, errors = [], []
        for word in options["--jobs"].split(","):
            job = self.jobs.get(int(word.split(".")[0]))
            if job is None or job.state != "RUNNING":
                errors.append(f"sstat: error: couldn't get steps for job {word}\n")
            elif word.endswith(".batch") and word in self.step_rows:
                lines.append(f"{word}|{self.step_rows[word]}\n")
        return CommandResult(1 if errors else 0, "".join(lines), "".join(errors))

    def _sacct(self, options: "_Options") -> CommandResult:
        if self.accounting != "up":
            return _ACCOUNTING_FAILURES[self.accounting]
        ids = [int(job_id) for job_id in options.get("--jobs", "").split(",") if job_id]
        rows: list[dict[str, str]] = []
        for job in self.jobs.values():
            if self._is_chosen(job, ids, options):
                rows += self._accounting_rows(job, duplicates="--duplicates" in options.flags)
        columns = options["--format"].split(",")
        lines = [options["--delimiter"].join(row.get(column, "") for column in columns) for row in rows]
        return CommandResult(0, "".join(f"{line}\n" for line in lines))

    def _accounting_rows(self, job: FakeJob, *, duplicates: bool) -> list[dict[str, str]]:
        exit_code, signal = job.ending
        last = {
            "JobIDRaw": str(job.job_id),
            "State": job.state if job.cancelled_by is None else f"CANCELLED by {job.cancelled_by}",
            "ElapsedRaw": str(self._elapsed_s(job)),
            "NodeList": job.nodes or "None assigned",
            # sacct shows what a shell reports as 128 + signal less these 128.
            "ExitCode": f"{exit_code - 128 if exit_code > 128 else exit_code}:{signal}",
            "Reason": "None",
            "JobName": job.name,
        }
        earlier = [last | {"State": state, "ExitCode": "0:0"} for state in job.earlier_runs]
        return [*(earlier if duplicates else []), last]

    def _scancel(self, options: "_Options") -> CommandResult:
        for word in options.words:
            job = self.jobs.get(int(word))
            if job and word in self.hanging_jobs:
                job.state = "COMPLETING"
            elif job and job.state not in _FINAL:
                job.ending = (0, 15) if job.state == "RUNNING" else (0, 0)
                job.state, job.cancelled_by, job.ended_s = "CANCELLED", 1001, self.clock.elapsed_s
        return CommandResult(0)


class _Options(dict[str, str]):
    """`--name=value` options as a dict, `--flag`s and plain words apart."""

    def __init__(self, arguments: Sequence[str]) -> None:
        pairs = [argument.partition("=") for argument in arguments if argument.startswith("--")]
        super().__init__({name: value for name, equals, value in pairs if equals})
        self.flags = [name for name, equals, _ in pairs if not equals]
        self.words = [argument for argument in arguments if not argument.startswith("--")]


_ERROR_PREFIX = {
    "squeue": "slurm_load_jobs error: ",
    "scontrol": "slurm_load_jobs error: ",
    "scancel": "scancel: error: Kill job error on job id 1: ",
}
_ACCOUNTING_FAILURES = {
    "disabled": CommandResult(1, stderr="Slurm accounting storage is disabled\n"),
    "down": CommandResult(
        1,
        stderr="sacct: error: slurm_persist_conn_open_without_init: failed to open persistent connection to "
        "host:localhost:6819: Connection refused\nsacct: error: Sending PersistInit msg: Connection refused\n"
        "sacct: error: Problem talking to the database: Connection refused\n",
    ),
    "missing": CommandResult(127, stderr="sacct: No such file or directory\n"),
}
# `scontrol -o show job` of Slurm 25.11; 22.05 has the same order without SubmitLine.
_SCONTROL_LINE = (
    "JobId={job_id} JobName={name} UserId=alice(1001) GroupId=alice(1001) MCS_label=N/A Priority=4294901758 "
    "Nice=0 Account=p200981 QOS=default JobState={state} Reason={reason} Dependency=(null) Requeue=1 "
    "Restarts={restarts} BatchFlag=1 Reboot=0 ExitCode={ending} RunTime={run_time} TimeLimit=00:30:00 "
    "TimeMin=N/A SubmitTime=2026-11-20T14:46:32 EligibleTime=2026-11-20T14:46:32 "
    "AccrueTime=2026-11-20T14:46:32 StartTime=2026-11-20T15:16:34 EndTime=2026-11-20T15:46:34 Deadline=N/A "
    "SuspendTime=None SecsPreSuspend=0 LastSchedEval=2026-11-20T14:46:37 Scheduler=Main Partition=gpu "
    "AllocNode:Sid=10.77.0.1:2119 ReqNodeList=(null) ExcNodeList=(null) NodeList={nodes} NumNodes=2-2 "
    "NumCPUs=2 NumTasks=2 CPUs/Task=1 Features=(null) Command=(null) "
    "SubmitLine=sbatch --parsable -p gpu NodeList=wrong WorkDir=/home/alice/work StdErr= StdIn=/dev/null "
    "StdOut=/home/alice/work/slurm-{job_id}.out"
)


def _long_format(format_text: str, values: Mapping[str, str]) -> str:
    """squeue --Format: `type[:[.][size][suffix]]`; no size after the colon means unlimited, no colon 20."""
    line = ""
    for token in format_text.split(","):
        name, colon, rest = token.partition(":")
        match = re.match(r"\.?(\d*)", rest)
        size = int(match[1] or 0) if match and colon else 20
        text = values[name]
        line += (text[:size].ljust(size) if size else text) + (rest[match.end() :] if match else "")
    return line


def _long_time(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _squeue_time(seconds: int) -> str:
    """squeue leaves out what is zero in front: 0:07, 12:00, 3:00:00, 1-02:00:00."""
    days, rest = divmod(seconds, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    if days:
        return f"{days}-{hours:02d}:{minutes:02d}:{rest:02d}"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
