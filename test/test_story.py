"""The whole way once with real processes: the real batch script under the local scheduler, and real load."""

import os
import socket
import unittest
import unittest.mock
import zipfile
from pathlib import Path

from test.fakes.programs import install_module
from test.fakes.site import SiteCase
from test.fakes.waiting import eventually

from aifbench.cluster import processes
from aifbench.cluster.local import LocalProcess
from aifbench.errors import ServiceDied
from aifbench.load.progress import Silent
from aifbench.results.record import RunState
from aifbench.servers.status import Stage
from aifbench.session import Session

TINY = {
    "vectors": "150",
    "dim": "8",
    "queries": "20",
    "duration": "250ms",
    "warmup": "50ms",
    "drain": "500ms",
}


class Story(SiteCase):
    def setUp(self) -> None:
        super().setUp()
        venv = self.dir / "venv"
        install_module("chroma", "chroma", venv / "bin")
        environ = {"AIFBENCH_VENV": str(venv), "AIFBENCH_INTERFACE": "", "AIFBENCH_BIND": ""}
        self.enterContext(unittest.mock.patch.dict(os.environ, environ))
        self.session = self.open()
        self.addCleanup(lambda: self.session.stop(["all"]))

    def open(self) -> Session:
        """Another shell on a machine without Slurm."""
        scheduler = LocalProcess(self.config.services_dir / ".local", grace_s=1.0)
        return Session(self.config, scheduler=scheduler, environ={})

    def carriers(self) -> set[int]:
        """Processes that belong to any of our jobs."""
        jobs = (self.config.services_dir / ".local/jobs").glob("[0-9]*")
        return {pid for job in jobs for pid in processes.carriers(f"AIFBENCH_LOCAL_JOB={job}".encode())}

    def test_from_start_to_nothing_left(self) -> None:
        self.session.start("chroma", {"time": "5m"})
        later = self.open()
        status = later.check("chroma", wait_s=20.0)
        self.assertEqual(status.stage, Stage.READY)
        self.assertLess(status.ready_after_s or 99.0, 20.0)
        record = later.bench("chroma", "search", TINY, Silent())
        self.assertEqual((record.state, len(record.measurements)), (RunState.COMPLETE, 1))
        archive = later.save("chroma")
        secret = self.session.server("chroma").secret_path.read_text().strip()
        data = list(self.config.scratch_dir.iterdir())
        self.assertEqual(len(data), 1)
        self.assertTrue((data[0] / "chroma.sqlite3").exists())

        self.assertEqual(self.session.stop(["all"])[0].stage, Stage.ENDED)
        eventually(lambda: not self.carriers(), "all its processes end")
        self.assertEqual(list(self.config.scratch_dir.iterdir()), [])
        self.assertEqual([status.stage for status in later.status()], [Stage.ENDED])
        self.assert_kept(archive, record.run_id)
        self.assert_hidden(secret, archive)

    def assert_kept(self, archive: Path, run_id: str) -> None:
        with zipfile.ZipFile(archive) as zipped:
            names = {name.removeprefix(f"{run_id}/") for name in zipped.namelist()}
        expected = {"record.json", "report.html", "report.md", "service/job.log", "service/script.sh"}
        self.assertLessEqual(expected, names)

    def assert_hidden(self, secret: str, archive: Path) -> None:
        with zipfile.ZipFile(archive) as zipped:
            contents = [zipped.read(name) for name in zipped.namelist()]
        files = [
            path for path in self.config.results_dir.rglob("*") if path.is_file() and path.name != "secret"
        ]
        self.assertFalse([path for path in files if secret.encode() in path.read_bytes()])
        self.assertFalse([content for content in contents if secret.encode() in content])

    def test_a_port_that_is_taken_is_told_with_the_scripts_own_words(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as squatter:
            port = squatter.getsockname()[1]
            self.session.start("chroma", {"port": str(port)})
            with self.assertRaises(ServiceDied) as caught:
                self.session.check("chroma", wait_s=20.0)
        self.assertIn("ended: FAILED, exit code 1", caught.exception.message)
        self.assertIn(f"| aifbench: port {port} is taken", caught.exception.hint)
        self.assertEqual(self.session.instances(), [])


if __name__ == "__main__":
    unittest.main()
