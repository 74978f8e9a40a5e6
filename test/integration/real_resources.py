"""Resource usage of real runs: with one machine for all, and with the nodes of the real Slurm cluster."""

import json
import subprocess
import unittest
from typing import Any

from test.integration.dev_slurm import bring_up, wait_until
from test.integration.story import Story

SEARCH = "--vectors 2k --dim 32 --queries 100 --duration 12s --warmup 1s --clients 2"


class Resources(Story):
    where = ""
    load = ""

    def test_every_run_says_what_its_machines_did(self) -> None:
        self.type(
            f"start chroma {self.where}",
            "check chroma --wait 60s",
            f"bench chroma search {SEARCH} {self.load}",
        )
        shown = self.type("show last --full", "report last")
        self.type("stop chroma")
        resources = self.record()["resources"]
        roles = self.check_nodes(resources)
        self.assertIn("Machines", shown)
        (page,) = self.results.glob("2*/report.html")
        self.assertIn("What the machines did", page.read_text())
        wait_until(lambda: not self.samplers(), "every sampler has ended", 20)
        self.check_roles(roles, resources)

    def check_nodes(self, resources: dict[str, Any]) -> set[tuple[str, ...]]:
        measured = [i for i, span in enumerate(resources["phases"]) if span["is_measured"]]
        self.assertTrue(measured)
        for node in resources["nodes"]:
            self.assertGreater(node["cpus"], 0)
            for i in measured:
                use = node["phases"][i]
                self.assertGreaterEqual(use["covered"], 0.8, resources["notes"])
                self.assertGreater(use["mean"]["cpu_percent"], 0)
                self.assertLessEqual(use["max"]["cpu_percent"], 100)
                self.assertGreater(use["max"]["memory_bytes"], 0)
            self.assertNotIn("gpu_power_w", node["series"])  # absent, never 0
            self.assertIn("gpu", node["missing"])
        return {tuple(node["roles"]) for node in resources["nodes"]}

    def check_roles(self, roles: set[tuple[str, ...]], resources: dict[str, Any]) -> None:
        self.assertEqual(roles, {("server", "client")})
        self.assertIn("server and client share", " ".join(resources["notes"]))
        self.assertEqual(resources["jobs"], [])

    def samplers(self) -> list[str]:
        asked = ["pgrep", "-f", f"aifbench.monitor.sampler {self.results}"]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()


class ResourcesWithoutSlurm(Resources):
    def test_a_sampler_that_is_killed_costs_no_run(self) -> None:
        self.type("start chroma", "check chroma --wait 60s")
        for pid in self.samplers():
            subprocess.run(["kill", "-KILL", pid], check=True)
        self.type(f"bench chroma search {SEARCH}", "stop chroma")
        record = self.record()
        self.assertEqual(record["state"], "COMPLETE")
        (node,) = record["resources"]["nodes"]  # the run began one of its own
        self.assertIn("client", node["roles"])


class ResourcesOnSlurm(Resources):
    scheduler = "slurm"
    where = "--partition gpu --time 10m"
    load = "--workers 2 --client-nodes 2"

    @classmethod
    def setUpClass(cls) -> None:
        bring_up()

    def check_roles(self, roles: set[tuple[str, ...]], resources: dict[str, Any]) -> None:
        # Two nodes make load; that of the service may be one of them.
        self.assertIn(roles, ({("server",), ("client",)}, {("server", "client"), ("client",)}))
        jobs = {job["role"]: job for job in resources["jobs"]}
        self.assertEqual(jobs["server"]["source"], "sstat", json.dumps(jobs))
        self.assertGreater(jobs["server"]["max_rss_bytes"], 10 << 20)
        for node in resources["nodes"]:
            self.assertTrue(any("job_memory_bytes" in use["max"] for use in node["phases"]), node["missing"])


del Resources  # what both share is no test of its own


if __name__ == "__main__":
    unittest.main()
