"""PgBouncer before PostgreSQL: the batch script, what a service tells of it, and what a run does with it."""

import json
import os
import signal
import stat
import tempfile
import unittest
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from test import test_postgres_server
from test.fakes.postgres_programs import VERIFIER
from test.fakes.postgres_wire import INT8, TEXT, Answers, PostgresWire
from test.fakes.site import SiteCase, announce
from test.fakes.waiting import eventually
from test.test_postgres_bench import COUNTERS

from aifbench.cluster import processes
from aifbench.cluster.endpoint import Endpoint
from aifbench.cluster.jobs import JobState
from aifbench.errors import ServiceError, UsageError
from aifbench.results.definitions import definition
from aifbench.servers.postgres import PostgresServer
from aifbench.servers.postgres_choices import refuse_stuck
from aifbench.servers.postgres_database import RunDatabase
from aifbench.servers.postgres_log import Pooler, read_log, read_pooler
from aifbench.servers.postgres_metrics import server_metrics
from aifbench.servers.status import Stage
from aifbench.workloads.pgbouncer import PgBouncer
from aifbench.workloads.postgres_control import PostgresControl, direct
from aifbench.workloads.postgres_stats import change, read_snapshot

SESSION = Pooler("1.18.0", "session", 50, 10_000)
TRANSACTION = replace(SESSION, version="1.25.1", mode="transaction")
STATS = (
    ("database", "total_xact_count", "total_query_count", "total_wait_time"),
    TEXT,
    [("pgbouncer", "1", "1", "0"), ("aifb_r", "200", "600", "50000")],
)


class Start(test_postgres_server.PostgresScript):
    def setUp(self) -> None:
        super().setUp()
        self.environment |= {"AIFBENCH_POSTGRES_POOLER": "transaction", "AIFBENCH_POSTGRES_POOL_SIZE": "7"}

    def test_it_answers_in_the_place_of_postgresql_with_the_same_password(self) -> None:
        job_id = self.start_postgres()
        announced = self.announced(job_id)
        self.assertEqual((announced.service, announced.version), ("postgres", "18.4"))
        words = self.calls()[-1]["words"]
        self.assertEqual(words[words.index("-p") + 1], str(announced.ports["postgres"]))
        data = self.dir / "job/data"
        settings = (data / "pgbouncer.ini").read_text().splitlines()
        for line in (
            f"* = host=127.0.0.1 port={announced.ports['postgres']}",
            f"listen_port = {announced.port}",
            "listen_addr = 127.0.0.1",
            "auth_type = scram-sha-256",
            "pool_mode = transaction",
            "default_pool_size = 7",
            "max_prepared_statements = 200",
        ):
            self.assertIn(line, settings)
        users = data / "pgbouncer.users"
        self.assertEqual(users.read_text(), f'"bench" "{VERIFIER}"\n')
        self.assertEqual(stat.S_IMODE(users.stat().st_mode), 0o600)
        key = (self.dir / "job/secret").read_text()
        told = self.log(job_id) + "".join(settings) + json.dumps([call["words"] for call in self.calls()])
        self.assertNotIn(key, told)
        self.assertNotIn(VERIFIER, told)
        found = read_pooler(self.log(job_id))
        assert found is not None
        self.assertEqual((found.version, found.mode, found.connections), ("1.25.1", "transaction", 7))

    def test_both_end_with_the_job(self) -> None:
        (self.dir / "disk").mkdir()
        job_id = self.start(
            self.script(fast_rounds=600),
            AIFBENCH_POSTGRES_STORAGE="local",
            AIFBENCH_LOCAL_DIR=str(self.dir / "disk"),
        )
        self.announced(job_id)
        self.scheduler.cancel([job_id])
        self.assertEqual(self.final(job_id).state, JobState.CANCELLED)
        self.assertIn("database system is shut down", self.log(job_id))
        self.assertEqual(list((self.dir / "disk").iterdir()), [])
        mark = f"AIFBENCH_LOCAL_JOB={self.dir}/state/jobs/{job_id}".encode()
        eventually(lambda: not processes.carriers(mark), "every process is gone")

    def test_the_job_ends_with_either(self) -> None:
        job_id = self.start_postgres()
        self.announced(job_id)
        os.kill(int((self.tricks / "pooler-id").read_text()), signal.SIGKILL)
        self.assertEqual(self.final(job_id).state, JobState.FAILED)
        self.assertIn("database system is shut down", self.log(job_id))
        (self.tricks / "refuses").write_text('unrecognized configuration parameter "nope"')
        job_id = self.start_postgres()
        self.assertEqual(self.final(job_id).state, JobState.FAILED)
        cause = read_log(self.log(job_id).splitlines()).cause
        self.assertEqual(cause, "this PostgreSQL has no setting nope")

    def test_one_that_forgets_prepared_statements_is_refused_for_transactions_only(self) -> None:
        (self.tricks / "pooler").write_text("1.18.0")
        cause = read_log(self.failed(self.start_postgres()).splitlines()).cause
        for words in ("PgBouncer 1.18.0 is installed", "from 1.21 on", "--pooler session"):
            self.assertIn(words, cause)
        self.announced(self.start_postgres(AIFBENCH_POSTGRES_POOLER="session"))
        self.assertNotIn("max_prepared_statements", (self.dir / "job/data/pgbouncer.ini").read_text())

    def test_what_cannot_pool(self) -> None:
        self.program("pgbouncer", "exit 1")
        self.assertIn("cannot run", read_log(self.failed(self.start_postgres()).splitlines()).cause)
        log = self.failed(self.start_postgres(AIFBENCH_POSTGRES_POOLER="statement"))
        self.assertIn("valid: session, transaction", log)

    def test_its_own_last_words_are_the_cause(self) -> None:
        line = "2026-01-01 00:00:00.000 UTC [77] FATAL cannot load config file"
        self.assertEqual(read_log([line]).cause, "PgBouncer says: cannot load config file")


class Service(SiteCase):
    def environment(self, **options: Any) -> dict[str, str]:
        return dict(PostgresServer.plan(self.shell, options).spec.environment)

    def test_how_it_is_asked_for(self) -> None:
        self.assertNotIn("AIFBENCH_POSTGRES_POOLER", self.environment())
        values = self.environment(pooler="session")
        self.assertEqual(
            (values["AIFBENCH_POSTGRES_POOLER"], values["AIFBENCH_POSTGRES_POOL_SIZE"]), ("session", "50")
        )
        for options, words in (
            ({"pooler": "statement"}, "--pooler 'statement' is not known"),
            ({"pool_size": "5"}, "--pool-size is for a pooler"),
            ({"pooler": "session", "pool_size": "500"}, "takes 500"),
            ({"pooler": "session", "set": "max_connections=40"}, "takes 40"),
        ):
            with self.assertRaises(UsageError, msg=str(options)) as caught:
                self.environment(**options)
            self.assertIn(words, caught.exception.message)

    def test_status_and_record_tell_of_it(self) -> None:
        server = PostgresServer.start(self.shell, {"pooler": "session"})
        self.slurm.start(server.instance.job_id)
        answers: Answers = {
            r"^SELECT 1$": (("one",), INT8, [("1",)]),
            r"^SHOW server_version": (("server_version",), TEXT, [("18.4",)]),
        }
        wire = PostgresWire(answers, password=server.secret_path.read_text().strip())
        self.addCleanup(wire.close)
        announce(server, Endpoint("127.0.0.1", wire.port), auth="token")
        with server.log_path.open("a") as log:
            log.write("aifbench: pooler PgBouncer 1.18.0: session, 50 connections, 10000 clients\n")
        self.clock.sleep(5.0)
        status = server.status()
        self.assertIs(status.stage, Stage.READY)
        for told in (status.detail, status.parts):
            self.assertIn("through PgBouncer 1.18.0 (session mode, at most 50 connections)", told)
        self.assertEqual(
            server.describe()["pooler"],
            {"version": "1.18.0", "mode": "session", "connections": 50, "clients": 10_000},
        )


class Run(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.secret = Path(folder.name) / "secret"
        self.secret.write_text("secret")

    def database(self, pooler: Pooler) -> RunDatabase:
        return RunDatabase(Endpoint("h", 6432, "postgresql", {"postgres": 5432}), "r", pooler)

    def test_only_the_load_goes_through_it(self) -> None:
        database = self.database(SESSION)
        self.assertEqual(database.endpoint.url, "postgresql://h:6432/aifb_r")
        self.assertEqual(database.direct_endpoint.url, "postgresql://h:5432/aifb_r")
        self.assertEqual(direct(Endpoint("h", 5433)).port, 5433)

    def test_what_would_remove_its_database_goes_past_it(self) -> None:
        self.assertEqual(
            self.database(SESSION).remedy,
            '`psql -h h -p 5432 -U bench -d postgres -c "DROP DATABASE aifb_r"` removes it',
        )

    def test_how_many_clients_it_takes(self) -> None:
        self.database(SESSION).require_connections(50, are_kept=True)
        self.database(SESSION).require_connections(51, are_kept=False)
        self.database(TRANSACTION).require_connections(10_000, are_kept=True)
        for pooler, clients, words in (
            (SESSION, 51, "the 50 connections of the pool"),
            (TRANSACTION, 10_001, "the 10,000 that the pooler takes"),
        ):
            with self.assertRaises(UsageError) as caught:
                self.database(pooler).require_connections(clients, are_kept=True)
            self.assertIn(words, caught.exception.message)
            self.assertTrue(caught.exception.hint)

    def test_settings_of_a_session_become_those_of_the_runs_database(self) -> None:
        database = self.database(TRANSACTION)
        database.control = mock.Mock()
        database.set_default({"hnsw.ef_search": "100", "default_transaction_isolation": "repeatable read"})
        self.assertEqual(
            [call.args[0].as_string() for call in database.control.execute.call_args_list],
            [
                """ALTER DATABASE "aifb_r" SET "hnsw"."ef_search" = '100'""",
                """ALTER DATABASE "aifb_r" SET "default_transaction_isolation" = 'repeatable read'""",
            ],
        )

    def test_pgbench_is_not_left_to_wait_for_itself(self) -> None:
        options = {"query_mode": "prepared"}
        with self.assertRaises(UsageError) as caught:
            refuse_stuck("tpcb", options, TRANSACTION, 51)
        self.assertIn("--query-mode extended", caught.exception.hint)
        for bench, pooler, mode, clients in (
            ("tpcb", TRANSACTION, "prepared", 50),
            ("tpcb", TRANSACTION, "extended", 51),
            ("tpcb", SESSION, "prepared", 51),
            ("select-only", TRANSACTION, "prepared", 51),
        ):
            refuse_stuck(bench, {"query_mode": mode}, pooler, clients)

    def test_the_console_counts_and_lets_go(self) -> None:
        answers: Answers = {
            r'^RECONNECT "aifb_new"': ("08P01", "no such database: aifb_new"),
            r"^SHOW STATS": STATS,
        }
        wire = PostgresWire(answers)
        self.addCleanup(wire.close)
        with closing(PgBouncer(Endpoint("127.0.0.1", wire.port, secret_file=self.secret))) as console:
            console.release("aifb_r")
            console.release("aifb_new")
            self.assertEqual(
                console.totals("aifb_r"), {"total_xact_count": 200.0, "total_wait_time": 50_000.0}
            )
            self.assertEqual(set(console.totals("aifb_new").values()), {0.0})
        self.assertEqual(wire.queries[0], 'RECONNECT "aifb_r"')

    def test_waiting_for_a_connection_is_told_for_each_transaction(self) -> None:
        rows: dict[str, dict[str, int]] = dict(COUNTERS)
        before = read_snapshot(rows | {"pooler": {"total_xact_count": 100, "total_wait_time": 0}}, 0.0)
        after = read_snapshot(rows | {"pooler": {"total_xact_count": 300, "total_wait_time": 50_000}}, 10.0)
        metrics = {metric.name: metric for metric in server_metrics(change(before, after), 10.0)}
        self.assertEqual((metrics["pooler_wait"].value, metrics["pooler_wait"].n), (0.25, 200))
        self.assertIsNotNone(definition("pooler_wait"))
        without = server_metrics(change(read_snapshot(rows, 0.0), read_snapshot(rows, 10.0)), 10.0)
        self.assertNotIn("pooler_wait", [metric.name for metric in without])

    def test_its_refusals_have_the_words_of_postgresqls(self) -> None:
        for text, words in (
            ("SASL authentication failed", "refuses the password"),
            ("no more connections allowed (max_client_conn)", "no connection left"),
            (
                "server login has been failing, cached error: connect failed",
                "cannot be reached by its pooler",
            ),
        ):
            wire = PostgresWire({}, startup_error=("08P01", text))
            self.addCleanup(wire.close)
            with self.assertRaises(ServiceError) as caught:
                PostgresControl(Endpoint("127.0.0.1", wire.port, secret_file=self.secret))
            self.assertIn(words, caught.exception.message)


if __name__ == "__main__":
    unittest.main()
