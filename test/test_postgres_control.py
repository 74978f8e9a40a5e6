"""PostgresControl: connecting, what refusals mean, the data base of a run, sizes."""

import tempfile
import unittest
from contextlib import closing
from pathlib import Path

from test.fakes.postgres_wire import INT8, TEXT, Answers, PostgresWire

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import NotReady, ServiceError
from aifbench.workloads.postgres_control import (
    PostgresControl,
    PostgresNamespace,
    Sizes,
)

GIB = 1 << 30
ANSWERS: Answers = {
    r"^SELECT 1$": (("one",), INT8, [("1",)]),
    r"^SHOW server_version": (("server_version",), TEXT, [("18.4 (Debian 18.4-1)",)]),
    r"pg_database_size": (("a", "b"), INT8, [(str(3 * GIB), str(GIB))]),
    r"/proc/meminfo": (("f",), TEXT, [("MemTotal:       16777216 kB\nMemFree: 1 kB\n",)]),
    r"/proc/self/cgroup": (("f",), TEXT, [("0::/slurm/job_7/step_batch\n",)]),
    r"pg_read_file\(\$1": (("f",), TEXT, [("max\n",)]),
    r"pg_available_extensions": (("one",), INT8, [("1",)]),
    r"broken": ("53100", "could not extend file: No space left on device"),
    r"gone": ("57P01", "terminating connection due to administrator command"),
}


class ControlCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.secret = Path(folder.name) / "secret"
        self.secret.write_text("secret")

    def server(
        self, answers: Answers = ANSWERS, startup_error: tuple[str, str] | None = None
    ) -> tuple[PostgresWire, Endpoint]:
        server = PostgresWire(answers, startup_error=startup_error)
        self.addCleanup(server.close)
        return server, Endpoint("127.0.0.1", server.port, secret_file=self.secret)


class Connections(ControlCase):
    def refusal(self, endpoint: Endpoint) -> ServiceError:
        with self.assertRaises(ServiceError) as caught:
            PostgresControl(endpoint, timeout_s=2)
        self.assertNotIn("secret", str(caught.exception))
        return caught.exception

    def test_it_is_ready_when_it_answers_a_query(self) -> None:
        _, endpoint = self.server()
        with closing(PostgresControl(endpoint)) as control:
            control.ready()
            self.assertEqual(control.version(), "18.4")

    def test_a_wrong_password_is_no_reason_to_wait(self) -> None:
        _, endpoint = self.server()
        self.secret.write_text("wrong1")
        error = self.refusal(endpoint)
        self.assertIn("refuses the password", error.message)
        self.assertNotIsInstance(error, NotReady)

    def test_refusals_in_words(self) -> None:
        for code, text, expected, waits in (
            ("57P03", "the database system is starting up", "is starting up", True),
            ("57P03", "the database system is shutting down", "is shutting down", True),
            ("53300", "sorry, too many clients already", "no connection left", False),
            (
                "53300",
                "remaining connection slots are reserved for roles with the SUPERUSER attribute",
                "no connection left",
                False,
            ),
            ("3D000", 'database "x" does not exist', 'database "x" does not exist', False),
        ):
            _, endpoint = self.server(startup_error=(code, text))
            error = self.refusal(endpoint)
            self.assertIn(expected, error.message)
            self.assertEqual(isinstance(error, NotReady), waits, text)

    def test_nobody_listens_there(self) -> None:
        error = self.refusal(Endpoint("127.0.0.1", 1, secret_file=self.secret))
        self.assertIsInstance(error, NotReady)
        self.assertIn("does not listen", error.message)

    def test_errors_of_statements_name_them_without_their_values(self) -> None:
        _, endpoint = self.server()
        with closing(PostgresControl(endpoint)) as control:
            with self.assertRaises(ServiceError) as caught:
                control.execute("INSERT broken VALUES ('private')")
            self.assertIn("answered to INSERT broken: could not extend file", caught.exception.message)
            self.assertNotIn("private", str(caught.exception))
            with self.assertRaises(NotReady):
                control.execute("gone")


class Facts(ControlCase):
    def test_sizes_against_memory(self) -> None:
        _, endpoint = self.server()
        with closing(PostgresControl(endpoint)) as control:
            self.assertEqual(control.sizes(), Sizes(3 * GIB, GIB, 16 * GIB))

    def test_a_jobs_share_of_memory_counts(self) -> None:
        limited = {**ANSWERS, r"pg_read_file\(\$1": (("f",), TEXT, [(f"{4 * GIB}\n",)])}
        _, endpoint = self.server(limited)
        with closing(PostgresControl(endpoint)) as control:
            self.assertEqual(control.memory_bytes(), 4 * GIB)

    def test_who_may_not_read_files_knows_no_memory(self) -> None:
        answers = {r"pg_read_file": ("42501", "permission denied for function pg_read_file")}
        _, endpoint = self.server(answers)
        with closing(PostgresControl(endpoint)) as control:
            self.assertIsNone(control.memory_bytes())


class Namespaces(ControlCase):
    def test_a_run_has_a_data_base_of_its_own_and_drops_no_other(self) -> None:
        server, endpoint = self.server()
        namespace = PostgresNamespace(endpoint, "20260101-a1B2")
        self.assertEqual(namespace.database, "aifb_20260101_a1b2")
        namespace.create(extensions=["vector"])
        namespace.clear()
        changing = [query for query in server.queries if query.split()[0] in ("CREATE", "DROP")]
        self.assertEqual(
            changing,
            [
                'CREATE DATABASE "aifb_20260101_a1b2"',
                'CREATE EXTENSION "vector"',
                'DROP DATABASE IF EXISTS "aifb_20260101_a1b2" WITH (FORCE)',
            ],
        )

    def test_names_that_are_none(self) -> None:
        with self.assertRaises(ServiceError):
            PostgresNamespace(Endpoint("h", 1), 'x"; DROP DATABASE y')

    def test_an_extension_that_is_missing(self) -> None:
        _, endpoint = self.server({r"pg_available_extensions": (("one",), INT8, [])})
        with self.assertRaises(ServiceError) as caught:
            PostgresNamespace(endpoint, "r").create(extensions=["vector"])
        self.assertIn("no extension vector", caught.exception.message)


if __name__ == "__main__":
    unittest.main()
