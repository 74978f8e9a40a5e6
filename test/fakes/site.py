"""A site for tests: this project's scripts, results in a temporary directory, and a Slurm in memory."""

import tempfile
import unittest
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from test.fakes.clock import FakeClock
from test.fakes.slurm import FakeSlurm

from aifbench.cluster.endpoint import Endpoint
from aifbench.cluster.slurm_cli import SlurmCli
from aifbench.cluster.tracker import JobTracker
from aifbench.config import Config
from aifbench.results.store import RunStore
from aifbench.servers.base import Probe, SlurmServer
from aifbench.servers.benchmark import Benchmark, BenchmarkContext
from aifbench.servers.instance import InstanceStore
from aifbench.servers.site import Site

PROJECT = Path(__file__).resolve().parents[2]

# A shell that Slurm itself has told nothing.
SHELL = {"PATH": "/usr/bin:/bin", "HOME": "/home/alice"}


class FakeService(SlurmServer):
    """A service whose answers are looked up by port in `network`; where nothing is, nobody listens."""

    kind = "fake"
    description = "answers as it is told to"
    script = "start_chroma.sh"
    benches = ("all",)
    network: ClassVar[dict[int, Probe]] = {}
    probed: ClassVar[list[Endpoint]] = []

    def probe(self, endpoint: Endpoint) -> Probe:
        self.probed.append(endpoint)
        return self.network.get(endpoint.port, Probe(is_ready=False, detail="connection refused"))

    def benchmark(self, bench: str, options: Mapping[str, Any], context: BenchmarkContext) -> Benchmark:
        raise NotImplementedError


class SiteCase(unittest.TestCase):
    """Every `site()` is another shell on the same results and the same Slurm."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        self.clock = FakeClock()
        self.slurm = FakeSlurm(self.clock)
        self.config = self.make_config()
        self.shell = self.site()
        FakeService.network.clear()
        FakeService.probed.clear()

    def make_config(self, **changes: Any) -> Config:
        values: dict[str, Any] = {
            "project_dir": PROJECT,
            "results_dir": self.dir / "results",
            "scratch_dir": self.dir / "scratch",
            "images_dir": self.dir / "images",
        }
        return Config(**{**values, **changes})

    def scheduler(self) -> SlurmCli:
        return SlurmCli(self.slurm, self.clock, SHELL)

    def site(self) -> Site:
        scheduler = self.scheduler()
        return Site(
            config=self.config,
            scheduler=scheduler,
            tracker=JobTracker(scheduler, self.clock),
            clock=self.clock,
            instances=InstanceStore(self.config.services_dir),
            runs=RunStore(self.config.results_dir, self.clock),
        )

    def start(self, **options: Any) -> FakeService:
        return FakeService.start(self.shell, options)

    def reopen(self, server: SlurmServer) -> FakeService:
        """The same service, as another shell finds it."""
        shell = self.site()
        stored = {found.job_name: found for found in shell.instances.all()}
        return FakeService(shell, stored[server.instance.job_name])

    def run_and_announce(self, server: SlurmServer, port: int = 8000, *, restarts: int = 0) -> None:
        """The job starts and says where it listens; what answers there is in `FakeService.network`."""
        self.slurm.start(server.instance.job_id)
        announce(server, Endpoint("10.3.0.7", port), restarts=restarts)

    def make_ready(self, server: SlurmServer, port: int = 8000) -> None:
        self.run_and_announce(server, port)
        FakeService.network[port] = Probe(is_ready=True, version="1.0")


def announce(server: SlurmServer, endpoint: Endpoint, *, restarts: int = 0, auth: str = "none") -> None:
    """What the batch script of `server` prints to its log."""
    with server.log_path.open("a") as log:
        log.write(block(server.instance.job_id, endpoint, restarts=restarts, auth=auth))


def block(job_id: str, endpoint: Endpoint, *, restarts: int = 0, auth: str = "none") -> str:
    return (
        f"SLURM_JOB_ID: {job_id}\nSLURM_RESTART_COUNT: {restarts}\nIP ADDRESS: {endpoint.host}\n"
        f"PORT: {endpoint.port}\nAUTH: {auth}\nANNOUNCED: fake\n"
    )
