"""A user's session, typed into the real program, with a results directory of its own."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
SMALL = "--vectors 5k --dim 32 --queries 200 --duration 11s --warmup 1s --clients 2"


class Story(unittest.TestCase):
    """A results directory of its own, which every node sees."""

    scheduler = "local"

    def setUp(self) -> None:
        self.results = Path(tempfile.mkdtemp(dir="/var/tmp"))
        self.addCleanup(shutil.rmtree, self.results)
        self.addCleanup(self.clean_up)

    def clean_up(self) -> None:
        self.type("stop all", check=False)

    def start_program(self, *commands: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "AIFBENCH_RESULTS": str(self.results), "AIFBENCH_HOME": str(PROJECT)}
        environment["PYTHONPATH"] = str(PROJECT / "src")
        command = [sys.executable, "-m", "aifbench", "--scheduler", self.scheduler, *commands]
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(
            command, env=environment, cwd=self.results, stdin=subprocess.DEVNULL, text=True, **streams
        )

    def type(self, *commands: str, expect: int = 0, check: bool = True) -> str:
        """What a batch of commands printed; its exit status must be `expect`."""
        program = self.start_program(*commands, "quit")
        output, _ = program.communicate(timeout=300)
        if check:
            self.assertEqual(program.returncode, expect, output)
        return output

    def record(self) -> dict[str, Any]:
        """The newest run."""
        path = max(self.results.glob("2*/record.json"))
        data: dict[str, Any] = json.loads(path.read_text())
        return data

    def jobs(self) -> list[dict[str, Any]]:
        """What is stored of every service, oldest first."""
        found = [json.loads(p.read_text()) for p in self.results.glob("services/*/service.json")]
        return sorted(found, key=lambda service: float(service["submitted_wall_s"]))
