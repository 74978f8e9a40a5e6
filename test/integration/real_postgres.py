"""The whole story with a real PostgreSQL and its own pgbench: without Slurm, and on two nodes of it."""

import json
import os
import signal
import subprocess
import zipfile
from contextlib import closing
from typing import Any

import numpy as np
from test.integration.dev_slurm import ENDED, bring_up, output_of, state_of, wait_until
from test.integration.story import Story

from aifbench.cluster.endpoint import Endpoint
from aifbench.workloads.postgres_control import PostgresControl

SHORT = "--duration 6s --warmup 1s"


class PostgresWithoutSlurm(Story):
    spread = "--workers 2"
    start = "start postgres"
    address = "postgresql://127.0.0.1:"
    hosts = 1

    def setUp(self) -> None:
        super().setUp()
        # PostgreSQL does not run as root, and whom it runs as has to reach its data.
        self.results.chmod(0o711)

    def test_from_start_to_zip(self) -> None:
        output = self.type(self.start, "check postgres --wait 60s")
        self.assertIn(f"postgres is ready at {self.address}", output)
        self.check_pgbench()
        self.check_own_engine()
        self.check_load()
        self.check_refusals()
        self.check_databases_are_gone()
        self.check_zip()
        self.check_that_a_killed_server_is_noticed()
        self.type("stop postgres")
        self.check_nothing_is_left()

    def bench(self, words: str) -> dict[str, Any]:
        """The record of a benchmark, which a busy machine may make INVALID but never incomplete."""
        program = self.start_program(f"bench postgres {words}", "quit")
        output, _ = program.communicate(timeout=120)
        record = self.record()
        self.assertEqual(record["state"], "COMPLETE", output)
        return record

    def checks(self, measurement: dict[str, Any]) -> dict[str, str]:
        return {check["code"]: check["verdict"] for check in measurement["checks"]}

    def check_pgbench(self) -> None:
        """Two of them, one on each node: what their logs hold is what they say, in one set of samples."""
        record = self.bench(f"tpcb {SHORT} --scale 4 --clients 4 {self.spread}")
        (tpcb,) = record["measurements"]
        checks = self.checks(tpcb)
        self.assertEqual(
            {checks[code] for code in ("PGBENCH", "COUNT", "SCALE", "ERRORS")}, {"VALID"}, checks
        )
        self.assertIn("pgbench", tpcb["parameters"]["engine"])
        run = self.results / record["run_id"]
        reports = [json.loads(path.read_text()) for path in run.glob("phases/phase-01/report-*.json")]
        self.assertEqual(len(reports), 2)
        self.assertEqual(len({report["host"] for report in reports}), self.hosts)
        with np.load(run / tpcb["samples_file"]) as samples:
            self.assertEqual(
                len(samples["intended_ns"]), sum(report["notes"]["processed"] for report in reports)
            )
            self.assertEqual(set(samples["worker"].tolist()), {0, 1})
        self.assertEqual(list(run.rglob("transactions.*")), [])
        facts = record["recipe"]["facts"]
        self.assertEqual(facts["settings"]["fsync"], "on")
        self.assertTrue(facts["storage"]["file_system"])

    def check_own_engine(self) -> None:
        record = self.bench(f"point {SHORT} --scale 1 --rate 500 {self.spread}")
        (point,) = record["measurements"]
        metrics = {metric["name"]: metric["value"] for metric in point["metrics"]}
        self.assertEqual(metrics["error_share"], 0)
        self.assertGreater(metrics["throughput"], 450)
        self.assertGreater(metrics["commits"], 400)
        self.assertGreater(metrics["cache_hit_share"], 50)

    def check_load(self) -> None:
        record = self.bench("load --rows 50k --batch 500")
        self.assertEqual(len(record["measurements"]), 3)
        for measurement in record["measurements"]:
            self.assertEqual(self.checks(measurement)["COUNT"], "VALID", measurement["phase"])

    def check_refusals(self) -> None:
        self.assertIn(
            "connections that the server has left", self.type("bench postgres point --clients 600", expect=2)
        )
        self.assertIn("no SQL file", self.type("bench postgres script --file /nowhere.sql", expect=2))

    def check_databases_are_gone(self) -> None:
        with closing(PostgresControl(Endpoint.from_json(self.jobs()[0]["endpoint"]))) as control:
            self.assertEqual(control.rows("SELECT datname FROM pg_database WHERE datname LIKE 'aifb%'"), [])

    def check_zip(self) -> None:
        self.type("save last")
        (archive,) = self.results.glob("*.zip")
        (secret,) = (path.read_bytes().strip() for path in self.results.glob("services/*/secret"))
        with zipfile.ZipFile(archive) as stored:
            everything = b"".join(stored.read(name) for name in stored.namelist())
        self.assertIn(b"postgres", everything)
        for path in self.results.rglob("*"):
            if path.is_file() and path.name != "secret" and os.access(path, os.R_OK):
                self.assertNotIn(secret, path.read_bytes(), str(path))
        self.assertNotIn(secret, everything)

    def check_that_a_killed_server_is_noticed(self) -> None:
        program = self.start_program("bench postgres select-only --duration 60s --scale 1", "quit")
        self.addCleanup(program.kill)
        self.await_load()
        self.kill_server()
        output, _ = program.communicate(timeout=60)
        self.assertNotEqual(program.returncode, 0, output)
        self.assertRegex(output, "is gone|gives no answer any more")
        self.assertEqual(self.record()["verdict"], "INVALID")

    def await_load(self) -> None:
        wait_until(
            lambda: any(self.results.glob("2*/phases/phase-01/select-only-0.program/transactions.*")),
            "load",
            60,
        )

    def kill_server(self) -> None:
        os.kill(int(self.servers("--oldest")[0]), signal.SIGKILL)

    def servers(self, *options: str) -> list[str]:
        """PostgreSQL's processes of this test; the oldest is the one that the others come from."""
        done = subprocess.run(
            ["pgrep", *options, "-f", f"postgres -D {self.results}"],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.split()

    def check_nothing_is_left(self) -> None:
        self.assertEqual(self.servers(), [])
        self.assertEqual(list((self.results / "scratch").iterdir()), [])


class PostgresBehindAPooler(Story):
    def setUp(self) -> None:
        super().setUp()
        self.results.chmod(0o711)

    def test_load_goes_through_it_and_the_record_says_so(self) -> None:
        output = self.type("start postgres --pooler session --pool-size 40", "check postgres --wait 60s")
        self.assertRegex(output, r"through PgBouncer [0-9.]+ \(session mode, at most 40 connections\)")
        for words in ("storm --clients 4", "point --scale 1 --clients 4"):
            program = self.start_program(f"bench postgres {words} --duration 3s --warmup 1s", "quit")
            output, _ = program.communicate(timeout=60)
            record = self.record()
            self.assertEqual(record["state"], "COMPLETE", output)
            (measurement,) = record["measurements"]
            metrics = {metric["name"]: metric["value"] for metric in measurement["metrics"]}
            self.assertEqual(metrics["error_share"], 0, output)
            self.assertGreaterEqual(metrics["pooler_wait"], 0)
            self.assertGreater(metrics["commits"], 1)
            self.assertIn("session mode", measurement["parameters"]["pooler"])
            self.assertEqual(record["recipe"]["facts"]["pooler"]["connections"], 40)
        refused = self.type("bench postgres point --clients 41", expect=2)
        self.assertIn("the 40 connections of the pool", refused)
        self.type("stop postgres")
        done = subprocess.run(
            ["pgrep", "-f", f"(postgres|pgbouncer).*{self.results}"], capture_output=True, check=False
        )
        self.assertEqual(done.stdout, b"")
        self.assertEqual(list((self.results / "scratch").iterdir()), [])


class PostgresOnSlurm(PostgresWithoutSlurm):
    scheduler = "slurm"
    spread = "--workers 2 --client-nodes 2"
    start = "start postgres --partition gpu --time 10m"
    address = "postgresql://10.77.0."
    hosts = 2

    @classmethod
    def setUpClass(cls) -> None:
        bring_up()

    def check_nothing_is_left(self) -> None:
        super().check_nothing_is_left()
        self.assertIn(state_of(self.jobs()[0]["job_id"]), ENDED)
        self.assertEqual(output_of("squeue", "--noheader", "--states=running,pending"), "")
