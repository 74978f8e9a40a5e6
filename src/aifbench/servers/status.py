"""What a user wants to know of a deployed service, in one value."""

from dataclasses import dataclass
from enum import Enum

from aifbench.cluster.endpoint import Endpoint
from aifbench.cluster.jobs import JobInfo


class Stage(Enum):
    """Where a service is in its life, as a person would say it."""

    QUEUED = "QUEUED"  # its job waits for resources
    STARTING = "STARTING"  # its job runs, it does not answer yet
    READY = "READY"  # it answered its probe
    SILENT = "SILENT"  # it was ready, and does not answer now
    ENDED = "ENDED"  # stopped by the user, or finished
    FAILED = "FAILED"  # its job ended by itself
    UNKNOWN = "UNKNOWN"  # the scheduler cannot tell


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service now. `detail` says what it is doing or why not; `advice` what to do about it.

    `ready_after_s` is the time from submission to the first successful probe. `parts` is what a ready service
    of several programs says of each.
    """

    name: str
    kind: str
    stage: Stage
    job: JobInfo
    endpoint: Endpoint | None = None
    detail: str = ""
    advice: str = ""
    ready_after_s: float | None = None
    parts: str = ""

    @property
    def is_alive(self) -> bool:
        return self.stage not in (Stage.ENDED, Stage.FAILED)
