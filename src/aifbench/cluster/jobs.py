"""What to run (JobSpec), what a scheduler says of it (JobInfo, JobState), and the Scheduler seam."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol


class JobState(Enum):
    """A job's state as every scheduler here reports it; the words are Slurm's.

    UNKNOWN means that no source could tell: it never means that the job has ended.
    """

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUSPENDED = "SUSPENDED"
    COMPLETING = "COMPLETING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMEOUT = "TIMEOUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    NODE_FAIL = "NODE_FAIL"
    PREEMPTED = "PREEMPTED"
    DEADLINE = "DEADLINE"
    BOOT_FAIL = "BOOT_FAIL"
    UNKNOWN = "UNKNOWN"

    @property
    def is_final(self) -> bool:
        return self in _FINAL

    @property
    def is_waiting(self) -> bool:
        return self is JobState.PENDING


_FINAL = frozenset(
    {
        JobState.COMPLETED,
        JobState.FAILED,
        JobState.CANCELLED,
        JobState.TIMEOUT,
        JobState.OUT_OF_MEMORY,
        JobState.NODE_FAIL,
        JobState.PREEMPTED,
        JobState.DEADLINE,
        JobState.BOOT_FAIL,
    }
)


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One job to submit. Options reach the script through `environment`, never by editing it.

    `name` is unique per submission, so that a job can be found again when its id was never seen.
    `log_path` may hold `%j` for the job id. Empty strings and None mean "the site's default".
    """

    name: str
    script: Path
    log_path: Path
    work_dir: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    nodes: int = 1
    tasks_per_node: int = 1
    cpus_per_task: int | None = None
    gpus_per_node: int | None = None
    memory_mib: int | None = None
    time_limit_s: float = 3600.0
    account: str = ""
    partition: str = ""
    qos: str = ""
    reservation: str = ""
    comment: str = ""
    extra_args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobInfo:
    """What is known of a job now. `nodes` are host names; `restarts` counts requeues.

    `exit_code` is the batch shell's raw code and `signal` what ended it, when known.
    `source` names who said so (squeue, scontrol, sacct, local, none).
    `is_stuck` says that it waits for a reason that will not go by itself. `advice` is text for the user,
    where it is so, where only administrators can help, and where an end has a well-known cause.
    """

    job_id: str
    state: JobState
    name: str = ""
    reason: str = ""
    nodes: tuple[str, ...] = ()
    exit_code: int | None = None
    signal: int | None = None
    restarts: int = 0
    elapsed_s: float | None = None
    time_left_s: float | None = None
    source: str = "none"
    advice: str = ""
    is_stuck: bool = False


@dataclass(frozen=True, slots=True)
class JobUsage:
    """What accounting says of a job so far; None where it does not tell. `max_rss_bytes` is of one task.

    `energy_j` is of its nodes: of the job alone only where it had them to itself.
    """

    job_id: str
    source: str
    max_rss_bytes: int | None = None
    cpu_s: float | None = None
    energy_j: float | None = None


class Scheduler(Protocol):
    """The verbs every scheduler has. Implementations block for one short command at most."""

    @property
    def kind(self) -> str:
        """`slurm` or `local`."""

    @property
    def last_message(self) -> str:
        """What the site told the user at the last accepted submission; mostly nothing."""

    def submit(self, spec: JobSpec) -> str:
        """Start `spec`; the job id. Raises SubmitError with the scheduler's own words."""

    def poll(self, job_ids: Iterable[str]) -> dict[str, JobInfo]:
        """The state of each id, by one call for all. An id nobody knows has state UNKNOWN.

        Raises SchedulerUnavailable when no source answers.
        """

    def cancel(self, job_ids: Sequence[str]) -> None:
        """Ask for the end of these jobs; ids that have ended already are not an error."""

    def find(self, name: str) -> list[JobInfo]:
        """The caller's jobs of that name, ended ones included while the scheduler remembers."""

    def usage(self, job_ids: Sequence[str]) -> list[JobUsage]:
        """What accounting knows of these jobs' use within about two seconds; nothing where there is none."""

    def command_line(self, spec: JobSpec) -> list[str]:
        """What `submit` would run in `spec.environment`, for `--dry-run` and the record; holds no secret."""
