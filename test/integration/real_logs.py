"""Logs, their shipping and the live view of a real Chroma: loaded by one shell, looked at by another."""

import os
import subprocess
import sys
import unittest
from pathlib import Path

from test.fakes.loki import FakeLoki
from test.integration.dev_slurm import wait_until
from test.integration.story import SMALL, Story

SRC = Path(__file__).resolve().parents[2] / "src"


class RealLogs(Story):
    def test_what_a_service_says_is_seen_shipped_and_kept(self) -> None:
        self.type("start chroma", "check chroma --wait 60s")
        with FakeLoki() as loki:
            shipper = self.ship(loki)
            try:
                program = self.start_program(f"bench chroma search {SMALL} --duration 20s")
                wait_until(lambda: "search  measuring" in self.watched(), "it is measured", 60)
                seen = self.watched()
                self.assertIn(program.wait(120), (0, 3))  # a machine that does other work makes INVALID runs
                program.communicate()
                self.assertIn("no benchmark of it runs now", self.watched())
                self.type("stop chroma")
                log = next(self.results.glob("services/*/job-*.log")).read_text(errors="replace")
                expected = log.splitlines()
                wait_until(lambda: len(loki.lines) >= len(expected), "all lines are shipped", 20)
            finally:
                shipper.terminate()
                self.assertEqual(shipper.wait(10), 0)
        self.assertRegex(seen, r"rate +[1-9][\d.,]*/s")
        self.assertRegex(seen, r"p99 +[\d.,]+ ms")
        self.assertRegex(seen, r"service \S+  CPU \d+ %")
        self.assertEqual(loki.lines, expected)
        ((stream, _),) = loki.streams.items()
        self.assertEqual(dict(stream)["node"], os.uname().nodename)
        self.assertEqual((loki.refusals, loki.duplicates), ([], 0))
        self.assertIn("ANNOUNCED: chroma", self.type("logs chroma --grep ANNOUNCED"))
        events = self.type("events -n 100")
        for event in ("start ", "bench ", "phase ", "run ", "stop "):
            self.assertIn(f"  info   {event}", events)

    def watched(self) -> str:
        return self.type("watch chroma --once")

    def ship(self, loki: FakeLoki) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "aifbench.monitor.shipper", str(self.results / "services"), loki.url]
        return subprocess.Popen(
            [*command, str(self.results / "shipper.json")], env={**os.environ, "PYTHONPATH": str(SRC)}
        )


if __name__ == "__main__":
    unittest.main()
