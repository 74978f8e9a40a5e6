"""What every part of a session works with: configuration, scheduler, and the stores below them."""

import os
from collections.abc import Mapping

from aifbench.clock import Clock, SystemClock
from aifbench.cluster.jobs import Scheduler
from aifbench.cluster.tracker import JobTracker
from aifbench.config import Config, load_config
from aifbench.errors import ConfigError
from aifbench.eventlog import EventLog
from aifbench.results.store import RunStore
from aifbench.servers.instance import InstanceStore
from aifbench.servers.site import Site
from aifbench.servers.status import ServiceStatus


class SessionCore:
    """The common ground of the parts of Session."""

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
        self.events = EventLog(
            self.config.events_dir,
            clock,
            level=self.config.events_level,
            keep_s=self.config.events_keep_s,
            secret_files=lambda: self.config.services_dir.glob("*/secret"),
        )

    @property
    def scheduler_kind(self) -> str:
        """`slurm` or `local`."""
        return self._site.scheduler.kind


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
