"""The whole story with the real Chroma, as a user types it: on the real Slurm cluster and without it."""

import json
import re
import subprocess
import unittest
import zipfile
from pathlib import Path

from test.integration.dev_slurm import ENDED, bring_up, output_of, state_of, wait_until
from test.integration.story import SMALL, Story


class ChromaWithoutSlurm(Story):
    def test_from_start_to_zip(self) -> None:
        output = self.type(
            "start chroma",
            "check chroma --wait 60s",
            f"bench chroma search {SMALL}",
            "results",
            "show last",
            "save last",
            "stop chroma",
        )
        self.assertIn("chroma is ready at http://127.0.0.1:", output)
        self.check_record(hosts=1)
        self.check_zip()
        self.assertEqual(list((self.results / "scratch").iterdir()), [])

    def check_record(self, *, hosts: int) -> None:
        record = self.record()
        self.assertEqual(record["state"], "COMPLETE")
        self.assertIn(record["verdict"], ("VALID", "WARN"))
        (search,) = record["measurements"]
        metrics = {metric["name"]: metric for metric in search["metrics"]}
        self.assertGreater(metrics["recall@10"]["value"], 0.9)
        self.assertGreater(metrics["throughput"]["low"], 10)
        self.assertEqual(metrics["error_share"]["value"], 0)
        self.assertEqual(len(self.worker_hosts()), hosts)

    def worker_hosts(self) -> set[str]:
        reports = self.results.glob("2*/phases/phase-*/report-*.json")
        return {json.loads(report.read_text())["host"] for report in reports}

    def check_zip(self) -> None:
        (archive,) = self.results.glob("*.zip")
        secrets = [path.read_bytes().strip() for path in self.results.glob("services/*/secret")]
        with zipfile.ZipFile(archive) as stored:
            names = {Path(name).name for name in stored.namelist()}
            everything = b"".join(stored.read(name) for name in stored.namelist())
        wanted = {"record.json", "report.html", "report.md", "job.log", "script.sh", "sha256sum.txt"}
        self.assertLessEqual(wanted, names)
        self.assertTrue(secrets)
        for secret in secrets:
            self.assertNotIn(secret, everything)

    def test_two_at_once_and_another_shell_finds_them(self) -> None:
        self.type("start chroma", "start chroma --name b", "check chroma --wait 60s", "check b --wait 60s")
        listed = self.type("status")
        self.assertEqual(
            len([line for line in listed.splitlines() if "READY" in line and "http://" in line]), 2
        )
        urls = {service["endpoint"]["port"] for service in self.jobs()}
        self.assertEqual(len(urls), 2)
        self.assertIn("exists already", self.type("start chroma", expect=2))
        self.type("stop all")
        self.assertNotIn("READY", self.type("status"))

    def test_a_shell_killed_in_mid_bench_loses_nothing_measured(self) -> None:
        self.type("start chroma", "check chroma --wait 60s")
        program = self.start_program(f"bench chroma all {SMALL} --duration 2m")
        wait_until(lambda: bool(self.samples("ingest")), "ingest is measured", 120)
        wait_until(lambda: any(self.results.glob("2*/phases/phase-01/*.rows")), "the search has begun", 60)
        program.kill()
        program.communicate()
        listed = self.type("results")
        self.assertIn("INTERRUPTED", listed)
        self.assertIn("ingest", self.type("show last", expect=0))
        self.assertTrue(self.samples("ingest"))
        wait_until(lambda: not self.workers(), "the load workers have ended", 60)
        self.assertIn("READY", self.type("status"))

    def samples(self, stream: str) -> list[Path]:
        return list(self.results.glob(f"2*/phases/*/samples-{stream}.npz"))

    def workers(self) -> str:
        done = subprocess.run(
            ["pgrep", "-f", f"aifbench.load.worker {self.results}"],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout


class ChromaOnSlurm(ChromaWithoutSlurm):
    scheduler = "slurm"

    @classmethod
    def setUpClass(cls) -> None:
        bring_up()

    def test_from_start_to_zip(self) -> None:
        output = self.type(
            "start chroma --partition gpu --time 10m",
            "check chroma --wait 60s",
            f"bench chroma search {SMALL} --workers 2 --client-nodes 2",
            "show last",
            "save last",
            "stop chroma",
        )
        self.assertIn("chroma is ready at http://10.77.0.", output)
        self.check_record(hosts=2)
        self.check_zip()
        self.assertIn(state_of(self.jobs()[0]["job_id"]), ENDED)
        self.assertEqual(output_of("squeue", "--noheader", "--states=running,pending"), "")

    def workers(self) -> str:
        return "".join(re.findall("aifb-load.*", output_of("squeue", "--noheader", "--format=%j")))

    def test_refusals_come_in_slurms_own_words(self) -> None:
        for option, words in (
            ("--partition nowhere", "invalid partition"),
            ("--account nobody", "Invalid account"),
            ("--qos golden", "Invalid qos"),
        ):
            self.assertIn(words, self.type(f"start chroma {option}", expect=1))
        self.assertEqual(self.jobs(), [])

    def test_a_job_that_can_never_run_is_told_at_once(self) -> None:
        output = self.type("start chroma --partition short --time 10m", "check chroma --wait 5m", expect=1)
        self.assertIn("it will never start", output)


def load_tests(loader: unittest.TestLoader, tests: unittest.TestSuite, _: object) -> unittest.TestSuite:
    """Without Slurm first: what fails there fails everywhere."""
    del tests
    cases = (ChromaWithoutSlurm, ChromaOnSlurm)
    return unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in cases)
