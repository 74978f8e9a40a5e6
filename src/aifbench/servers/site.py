"""What a server needs of its surroundings, as one value handed to every server object."""

from dataclasses import dataclass

from aifbench.clock import Clock
from aifbench.cluster.jobs import Scheduler
from aifbench.cluster.tracker import JobTracker
from aifbench.config import Config
from aifbench.results.store import RunStore
from aifbench.servers.instance import InstanceStore


@dataclass(frozen=True, slots=True)
class Site:
    """`inside_allocation` is True where the shell itself runs in a job: load may then be made here."""

    config: Config
    scheduler: Scheduler
    tracker: JobTracker
    clock: Clock
    instances: InstanceStore
    runs: RunStore
    inside_allocation: bool = False
