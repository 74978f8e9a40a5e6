"""PostgresServer: options, the batch script with fake programs, readiness, its log, and its own checks."""

import json
import shutil
import unittest
from pathlib import Path
from typing import Any

from test.fakes.postgres_wire import INT8, TEXT, PostgresWire
from test.fakes.programs import install
from test.fakes.site import SiteCase, announce
from test.fakes.waiting import eventually
from test.test_batch_scripts import SCRIPTS, ServiceCase

from aifbench.cluster import processes
from aifbench.cluster.endpoint import Endpoint
from aifbench.cluster.jobs import JobState
from aifbench.errors import ServiceDied, UsageError
from aifbench.results.record import Verdict
from aifbench.servers.postgres import PostgresServer
from aifbench.servers.postgres_checks import (
    check_agreement,
    check_cached,
    check_connections,
    check_durability,
    check_scale,
)
from aifbench.servers.postgres_log import Storage, read_log, read_storage
from aifbench.servers.postgres_options import parse_settings
from aifbench.servers.status import Stage
from aifbench.workloads.postgres_control import Sizes

GIB = 1 << 30


class Settings(unittest.TestCase):
    def test_blanks_commas_and_quotes(self) -> None:
        self.assertEqual(
            parse_settings("shared_buffers=4GB,max_wal_size=8GB, work_mem=64MB"),
            {"shared_buffers": "4GB", "max_wal_size": "8GB", "work_mem": "64MB"},
        )
        self.assertEqual(
            parse_settings("shared_preload_libraries=pg_stat_statements,auto_explain JIT=off"),
            {"shared_preload_libraries": "pg_stat_statements,auto_explain", "jit": "off"},
        )
        self.assertEqual(
            parse_settings("""log_line_prefix='%m, a=b ' x.y="""), {"log_line_prefix": "%m, a=b ", "x.y": ""}
        )
        self.assertEqual(parse_settings(""), {})

    def test_what_is_no_setting_or_not_to_be_set(self) -> None:
        for text, words in (
            ("shared_buffers", "name=value"),
            ("a=1 b", "name=value"),
            ("=1", "name=value"),
            ("a;b=1", "name=value"),
            ("a='1", "name=value"),
            ("a='x\ny'", "name=value"),
            ("port=5432", "use --port"),
            ("PORT=5432", "use --port"),
            ("fsync=off", "use --fsync"),
            ("data_directory=/tmp", "--storage"),
            ("logging_collector=on", "job's log"),
        ):
            with self.assertRaises(UsageError, msg=text) as caught:
                parse_settings(text)
            self.assertIn(words, caught.exception.hint, text)
        with self.assertRaises(UsageError):
            parse_settings("work_mem=1MB work_mem=2MB")


class PostgresScript(ServiceCase):
    """Runs the batch script with stand-ins for its programs."""

    def setUp(self) -> None:
        super().setUp()
        for name in ("postgres", "initdb"):
            install("postgres_programs", name, self.dir / "pg")
        install("postgres_programs", "pgbouncer", self.dir / "bin")
        # Whoever runs this test, the script believes that it is not root.
        self.program("id", 'echo "${FAKE_UID:-1000}"')
        self.environment |= {
            "PATH": f"{self.dir}/bin:/usr/bin:/bin",
            "AIFBENCH_POSTGRES_BIN": str(self.dir / "pg"),
            "FAKE_POSTGRES_DIR": str(self.tricks),
        }

    def program(self, name: str, code: str) -> None:
        path = self.dir / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{code}\n")
        path.chmod(0o755)

    def start_postgres(self, **environment: str) -> str:
        return self.start("start_postgres.sh", **environment)

    def script(self, fast_rounds: int) -> str:
        """The batch script with that many tenths of a second for a fast shutdown."""
        script = self.dir / "script.sh"
        text = (SCRIPTS / "start_postgres.sh").read_text()
        script.write_text(text.replace("FAST_ROUNDS=20", f"FAST_ROUNDS={fast_rounds}"))
        return str(script)

    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.tricks / "calls").read_text().splitlines()]


class StartPostgres(PostgresScript):
    def test_it_makes_a_cluster_with_a_password_and_serves_it(self) -> None:
        job_id = self.start_postgres(AIFBENCH_POSTGRES_SETTINGS="fsync=off\nlog_line_prefix=%m $(id) ")
        announced = self.announced(job_id)
        self.assertEqual(
            (announced.service, announced.auth, announced.version), ("postgres", "token", "18.4")
        )
        initdb, postgres = self.calls()
        key = (self.dir / "job/secret").read_text()
        pgdata = self.dir / "job/data/pgdata"
        self.assertEqual(initdb["password"], key)
        self.assertIn("--auth=scram-sha-256", initdb["words"])
        self.assertEqual((pgdata / "pg_hba.conf").read_text(), "host all all all scram-sha-256\n")
        self.assertFalse((self.dir / "job/data/password").exists())
        words = postgres["words"]
        self.assertEqual(words[:4], ["-D", str(pgdata), "-p", str(announced.port)])
        for setting in ("listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"):
            self.assertIn(setting, words)
        self.assertEqual(words[-1], "log_line_prefix=%m $(id) ")
        self.assertNotIn(key, self.log(job_id) + json.dumps([initdb["words"], words]))

    def test_stopping_is_a_fast_shutdown_and_leaves_nothing(self) -> None:
        storage = self.dir / "disk"
        storage.mkdir()
        # Whatever else the job has started is not waited for: that would be longer than it is given.
        job_id = self.start(
            self.script(fast_rounds=600),
            AIFBENCH_POSTGRES_STORAGE="local",
            AIFBENCH_LOCAL_DIR=str(storage),
        )
        self.announced(job_id)
        self.assertEqual(len(list(storage.glob("aifbench-postgres.*/pgdata/PG_VERSION"))), 1)
        self.assertFalse((self.dir / "job/data").exists())
        found = read_storage(self.log(job_id))
        assert found is not None
        self.assertEqual((found.asked, Path(found.path).parent), ("local", storage))
        self.scheduler.cancel([job_id])
        self.assertEqual(self.final(job_id).state, JobState.CANCELLED)
        self.assertIn("database system is shut down", self.log(job_id))
        self.assertEqual(list(storage.iterdir()), [])
        mark = f"AIFBENCH_LOCAL_JOB={self.dir}/state/jobs/{job_id}".encode()
        eventually(lambda: not processes.carriers(mark), "every process is gone")

    def test_a_shutdown_that_takes_too_long_becomes_an_immediate_one(self) -> None:
        (self.tricks / "hangs").touch()
        job_id = self.start(self.script(fast_rounds=3))
        self.announced(job_id)
        self.scheduler.cancel([job_id])
        self.final(job_id)
        self.assertIn("database system is shut down", self.log(job_id))

    def test_root_hands_it_to_somebody_else(self) -> None:
        self.program("id", '[ $# -eq 1 ] && [ "$1" = -u ] && echo 0 || echo 65534')
        self.program("chown", f'echo "chown $*" >>{self.tricks}/root')
        self.program("chmod", f'echo "chmod $*" >>{self.tricks}/root; /bin/chmod "$@"')
        self.program(
            "setpriv", f'echo "$*" >>{self.tricks}/root; while [[ $1 == --* ]]; do shift; done; exec "$@"'
        )
        self.announced(self.start_postgres())
        asked = (self.tricks / "root").read_text()
        self.assertIn(f"chown postgres {self.dir}/job/data\n", asked)
        for program in ("initdb", "postgres"):
            self.assertRegex(
                asked, rf"(?m)^--reuid=postgres --regid=65534 --clear-groups {self.dir}/pg/{program} -D"
            )
        # Where it was asked to be is reachable: no folder is opened for that.
        self.assertNotIn("chmod o+x", asked)

    def test_root_that_can_find_no_way_says_so(self) -> None:
        self.program("id", '[ $# -eq 1 ] && [ "$1" = -u ] && echo 0 || echo 65534')
        self.program("chown", "true")
        self.program("chmod", "true")
        self.program("setpriv", "exit 1")
        self.assertIn("user postgres cannot reach", self.failed(self.start_postgres()))

    def test_a_failed_start_ends_the_job(self) -> None:
        (self.tricks / "refuses").write_text('unrecognized configuration parameter "nope"')
        log = self.failed(self.start_postgres())
        self.assertEqual(read_log(log.splitlines()).cause, "this PostgreSQL has no setting nope")

    def test_a_requeued_job_begins_anew(self) -> None:
        left = self.dir / "job/data/pgdata"
        left.mkdir(parents=True)
        (left / "postmaster.pid").touch()
        self.announced(self.start_postgres())
        self.assertFalse((left / "postmaster.pid").exists())

    def test_storage_that_is_none(self) -> None:
        log = self.failed(self.start_postgres(AIFBENCH_POSTGRES_STORAGE="tape"))
        self.assertIn("valid: scratch, local, ram", log)
        log = self.failed(
            self.start_postgres(AIFBENCH_POSTGRES_STORAGE="local", AIFBENCH_LOCAL_DIR="/no/such")
        )
        self.assertIn("cannot make a directory in /no/such", log)

    def test_an_image_is_used_for_both_programs(self) -> None:
        image = self.dir / "images/postgres.sif"
        shutil.copytree(self.dir / "pg", image / "bin")
        install("apptainer", "apptainer", self.dir / "bin")
        self.environment |= {
            "FAKE_APPTAINER_LOG": str(self.dir / "apptainer.log"),
            "APPTAINERENV_FAKE_POSTGRES_DIR": str(self.tricks),
            "HOME": str(self.dir),
        }
        self.assertEqual(self.announced(self.start_postgres()).version, "18.4")
        asked = [json.loads(line) for line in (self.dir / "apptainer.log").read_text().splitlines()]
        self.assertEqual([call["command"][0] for call in asked], ["postgres", "initdb", "postgres"])
        self.assertTrue(all(str(self.dir / "job/data") in call["bind"] for call in asked))


class Plans(SiteCase):
    def environment(self, **options: Any) -> dict[str, str]:
        return dict(PostgresServer.plan(self.shell, options).spec.environment)

    def test_settings_travel_one_a_line(self) -> None:
        values = self.environment(fsync="off", storage="ram", set="shared_buffers=1GB max_connections=20")
        self.assertEqual(values["AIFBENCH_POSTGRES_STORAGE"], "ram")
        self.assertEqual(
            values["AIFBENCH_POSTGRES_SETTINGS"], "max_connections=20\nshared_buffers=1GB\nfsync=off"
        )
        self.assertIn("max_connections=500", self.environment()["AIFBENCH_POSTGRES_SETTINGS"])

    def test_bad_choices_are_refused_before_anything_starts(self) -> None:
        for options in ({"storage": "disk"}, {"fsync": "maybe"}, {"set": "port=1"}, {"nodes": "2"}):
            with self.assertRaises(UsageError, msg=str(options)):
                self.environment(**options)


class Readiness(SiteCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = PostgresServer.start(self.shell, {})
        self.slurm.start(self.server.instance.job_id)

    def status(self) -> tuple[Stage, str]:
        self.clock.sleep(5.0)
        status = self.server.status()
        return status.stage, status.detail

    def serve(self, startup_error: tuple[str, str] | None = None) -> None:
        answers = {
            r"^SELECT 1$": (("one",), INT8, [("1",)]),
            r"^SHOW server_version": (("server_version",), TEXT, [("18.4",)]),
        }
        secret = self.server.secret_path.read_text().strip()
        wire = PostgresWire(answers, password=secret, startup_error=startup_error)
        self.addCleanup(wire.close)
        announce(self.server, Endpoint("127.0.0.1", wire.port), auth="token")

    def test_it_is_ready_when_the_password_opens_it(self) -> None:
        self.assertEqual(self.status(), (Stage.STARTING, "no address yet"))
        self.serve()
        self.assertEqual(self.status(), (Stage.READY, ""))
        self.assertEqual(self.server.instance.version, "18.4")
        told = self.server.describe()
        self.assertEqual((told["authentication"], told["storage"]), ("scram-sha-256", None))
        self.assertEqual(told["endpoint"]["scheme"], "postgresql")
        self.assertNotIn(self.server.secret_path.read_text().strip(), json.dumps(told))

    def test_while_it_recovers_it_is_not(self) -> None:
        self.serve(("57P03", "the database system is starting up"))
        stage, detail = self.status()
        self.assertIs(stage, Stage.STARTING)
        self.assertIn("is starting up", detail)

    def test_where_its_data_lies_is_kept(self) -> None:
        self.server.log_path.write_text("aifbench: storage ram: /dev/shm/x y on tmpfs, 900 MiB free\n")
        self.assertEqual(self.server.storage(), Storage("ram", "/dev/shm/x y", "tmpfs", 900))

    def test_a_failed_start_says_why(self) -> None:
        self.server.log_path.write_text("PANIC:  could not write to file: No space left on device\n")
        self.slurm.end(self.server.instance.job_id, "FAILED", exit_code=1)
        with self.assertRaises(ServiceDied) as caught:
            self.server.check(wait_s=60)
        self.assertIn("its disk is full", caught.exception.message)


class Log(unittest.TestCase):
    def test_causes(self) -> None:
        stamp = "2026-01-01 00:00:00.000 UTC [1] "
        for line, words in (
            ('FATAL:  invalid value for parameter "work_mem": "9PB"', 'setting: "work_mem": "9PB"'),
            ('LOG:  unrecognized configuration parameter "nope" in file "x" line 3', "no setting nope"),
            ('FATAL:  could not access file "vector": No such file or directory', "no library vector"),
            ('FATAL:  could not map anonymous shared memory: Cannot allocate memory', "not enough memory"),
            ('PANIC:  could not write to file "pg_wal/x": No space left on device', "disk is full"),
            ('LOG:  could not bind IPv4 address "10.9.9.9": Cannot assign requested', "10.9.9.9 is no"),
            ('LOG:  server process (PID 9) was terminated by signal 9: Killed', "was killed"),
            ('FATAL:  data directory "/x" has invalid permissions', 'says: data directory "/x" has'),
        ):  # fmt: skip
            self.assertIn(words, read_log([stamp + line]).cause, line)
        for line, words in (
            ('initdb: error: cannot be run as root', "refuses to run as root"),
            ('"root" execution of the PostgreSQL server is not permitted.', "refuses to run as root"),
            ("aifbench: port 5432 is taken; choose another", "port 5432 is taken"),
            ("aifbench: postgres found its port taken 4 times", "took its port"),
        ):  # fmt: skip
            self.assertIn(words, read_log([line]).cause, line)

    def test_what_clients_are_told_is_no_cause(self) -> None:
        for line in (
            'FATAL:  password authentication failed for user "bench"',
            'FATAL:  database "x" does not exist',
            "FATAL:  terminating connection due to administrator command",
            "FATAL:  the database system is starting up",
            "FATAL:  sorry, too many clients already for this role",
            "ERROR:  deadlock detected",
        ):
            self.assertEqual(read_log([line]).cause, "", line)

    def test_progress_is_that_of_the_last_line_that_tells(self) -> None:
        lines = ["aifbench: running /x/postgres", "creating subdirectories ... ok"]
        self.assertEqual(read_log(lines).progress, "making its data directory")
        lines += ["2026 UTC [1] LOG:  starting PostgreSQL 18.4 on x86_64", "something else"]
        self.assertEqual(read_log(lines).progress, "starting")
        self.assertEqual(read_log([]).progress, "")


class Checks(unittest.TestCase):
    def test_scale_below_the_clients(self) -> None:
        found = check_scale(10, 64, writes=True)
        assert found is not None
        self.assertEqual((found.verdict, found.value), (Verdict.WARN, 10 / 64))
        self.assertIn("--scale 64", found.advice)
        enough = check_scale(64, 64, writes=True)
        assert enough is not None
        self.assertIs(enough.verdict, Verdict.VALID)
        self.assertIsNone(check_scale(1, 64, writes=False))

    def test_data_that_fits_into_memory(self) -> None:
        for sizes, verdict, words in (
            (Sizes(GIB // 8, GIB, 8 * GIB), Verdict.WARN, "0.12 times the 1 GiB of buffers"),
            (Sizes(4 * GIB, GIB, 8 * GIB), Verdict.WARN, "0.5 times the 8 GiB of memory"),
            (Sizes(16 * GIB, GIB, 8 * GIB), Verdict.VALID, "2 times the 8 GiB"),
            (Sizes(16 * GIB, GIB, None), Verdict.VALID, "memory is not known"),
        ):
            found = check_cached(sizes)
            self.assertIs(found.verdict, verdict, found.message)
            self.assertIn(words, found.message)

    def test_how_clients_connect_and_what_a_commit_means(self) -> None:
        self.assertIs(check_connections(reconnects=True).verdict, Verdict.WARN)
        self.assertIn("through pgbouncer", check_connections(reconnects=False, pooler="pgbouncer").message)
        disk = Storage("local", "/tmp/x", "ext2/ext3", 1)
        self.assertIs(check_durability({"fsync": "on"}, disk).verdict, Verdict.VALID)
        self.assertIn("fsync is off", check_durability({"fsync": "off"}, disk).message)
        memory = Storage("local", "/tmp/x", "tmpfs", 1)
        self.assertIn("though local storage was asked for", check_durability({}, memory).message)

    def test_a_log_that_disagrees_with_the_summary(self) -> None:
        good = {"processed": 10.0, "logged_processed": 10.0, "latency_mean_ms": 2.0}
        self.assertIs(check_agreement({**good, "logged_latency_mean_ms": 2.0004}).verdict, Verdict.VALID)
        self.assertIs(check_agreement({**good, "logged_latency_mean_ms": 2.1}).verdict, Verdict.INVALID)
        lost = check_agreement({**good, "logged_processed": 9.0})
        self.assertIn("processed 10 printed, 9 logged", lost.message)
        self.assertIs(check_agreement({}).verdict, Verdict.WARN)


if __name__ == "__main__":
    unittest.main()
