"""What a SQL operation becomes when the server refuses, fails or goes away; and what happens next."""

import struct
import tempfile
import threading
import time
import unittest
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from test.fakes.postgres_server import Answer, Failure, Gone, PostgresServer
from test.fakes.waiting import eventually

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import NotReady, ServiceError, UsageError, WorkloadError
from aifbench.load.arrivals import Closed, to_json
from aifbench.load.assignment import FOREVER_NS, Assignment, StopFlag
from aifbench.load.engine import Engine
from aifbench.load.plan import PhasePlan, StreamPlan
from aifbench.load.poll_loop import PollLoop
from aifbench.load.recorder import Recorder, read_samples
from aifbench.load.samples import Samples
from aifbench.load.workload import OutcomeKind
from aifbench.workloads.sql_control import SqlControl
from aifbench.workloads.sql_points import PointRead
from aifbench.workloads.sql_storm import Storm

TOO_MANY = Failure("53300", "sorry, too many clients already", "FATAL")
BAD_PASSWORD = Failure("28P01", 'password authentication failed for user "bench"', "FATAL")


class SqlCase(unittest.TestCase):
    def setUp(self) -> None:
        self.answers: list[Answer] = []
        self.server = self.enterContext(PostgresServer(self.answer))
        self.endpoint = Endpoint("127.0.0.1", self.server.port)

    def answer(self, _: str, values: Sequence[bytes]) -> Answer:
        return self.answers.pop(0) if self.answers else [struct.unpack("!i", values[0])[0]]

    def opened(self, **options: int) -> PointRead:
        workload = PointRead(1000, **options)  # type: ignore[arg-type]
        self.addCleanup(workload.close)
        workload.open(self.endpoint)
        return workload


class Outcomes(SqlCase):
    def test_a_row_is_an_answer(self) -> None:
        outcome = self.opened().perform(0)
        self.assertEqual((OutcomeKind.OK, 1), (outcome.kind, outcome.items))

    def test_no_row_is_a_wrong_answer(self) -> None:
        self.answers = [[]]
        self.assertEqual(OutcomeKind.WRONG, self.opened().perform(0).kind)

    def test_errors_are_told_apart_and_leave_the_connection_usable(self) -> None:
        told = {
            "40001": (OutcomeKind.SERVER_ERROR, "serialization failure (40001)"),
            "40P01": (OutcomeKind.SERVER_ERROR, "deadlock (40P01)"),
            "53100": (OutcomeKind.SERVER_ERROR, "disk full (53100)"),
            "57014": (OutcomeKind.TIMEOUT, "statement timeout (57014)"),
            "42501": (OutcomeKind.CLIENT_ERROR, "words (42501)"),
            "XX000": (OutcomeKind.SERVER_ERROR, "words (XX000)"),
        }
        workload = self.opened()
        for state, (kind, text) in told.items():
            self.answers = [Failure(state, "words")]
            outcome = workload.perform(0)
            self.assertEqual((kind, text, 0), (outcome.kind, outcome.error, outcome.items))
        self.assertEqual(OutcomeKind.OK, workload.perform(0).kind)
        self.assertEqual(1, self.server.connections)

    def test_a_lost_connection_is_broken_and_the_next_operation_makes_another(self) -> None:
        workload = self.opened()
        for ending in (Gone, Failure("57P01", "terminating connection", "FATAL")):
            self.answers = [ending]
            self.assertEqual(OutcomeKind.BROKEN, workload.perform(0).kind)
            self.assertEqual(OutcomeKind.OK, workload.perform(1).kind)
        self.assertEqual(3, self.server.connections)

    def test_a_refused_reconnection(self) -> None:
        workload = self.opened()
        self.answers = [Gone]
        workload.perform(0)
        for refusal, kind, text in (
            (TOO_MANY, OutcomeKind.THROTTLED, "too many connections (53300)"),
            (BAD_PASSWORD, OutcomeKind.CLIENT_ERROR, "wrong password (28P01)"),
            (Failure("57P03", "the database system is starting up", "FATAL"), OutcomeKind.CONNECT, ""),
        ):
            self.server.refusal = refusal
            outcome = workload.perform(0)
            self.assertEqual(kind, outcome.kind)
            self.assertIn(text, outcome.error)

    def test_a_dead_port(self) -> None:
        storm = Storm()
        storm.open(Endpoint("127.0.0.1", 1))
        outcome = storm.perform(0)
        self.assertEqual((OutcomeKind.CONNECT, "Connection refused"), (outcome.kind, outcome.error))

    def test_the_pool_is_all_there_is(self) -> None:
        workload = self.opened(connections=2)
        for index in range(5):
            workload.perform(index)
        self.assertEqual(2, self.server.connections)

    def test_opening_tells_why_not(self) -> None:
        self.server.refusal = BAD_PASSWORD
        with self.assertRaisesRegex(WorkloadError, "wrong password.*password file"):
            self.opened()
        with self.assertRaises(UsageError):
            self.opened(connections=0)

    def test_preparation_takes_as_long_as_it_does(self) -> None:
        with closing(SqlControl(self.endpoint)):
            self.assertEqual(self.server.settings["statement_timeout"], "0")
        with closing(self.opened()):
            self.assertEqual(self.server.settings["statement_timeout"], "30000")

    def test_control_says_whether_trying_again_may_help(self) -> None:
        self.server.refusal = BAD_PASSWORD
        with self.assertRaises(ServiceError) as caught:
            SqlControl(self.endpoint)
        self.assertNotIsInstance(caught.exception, NotReady)
        self.server.refusal = TOO_MANY
        with self.assertRaises(NotReady):
            SqlControl(self.endpoint)


class Alone(SqlCase):
    """One client by itself, which keeps its connection."""

    def test_it_uses_a_connection_that_was_opened_before(self) -> None:
        workload = self.opened(connections=1)
        client = workload.alone()
        kinds = {client.perform(index).kind for index in range(5)}
        self.assertEqual(({OutcomeKind.OK}, 1), (kinds, self.server.connections))

    def test_what_goes_wrong_is_an_outcome_and_the_next_operation_goes_on(self) -> None:
        client = self.opened().alone()
        for answer, kind, connections in (
            ([], OutcomeKind.WRONG, 1),
            (Failure("40P01", "words"), OutcomeKind.SERVER_ERROR, 1),
            (Gone, OutcomeKind.BROKEN, 1),
            ([1], OutcomeKind.OK, 2),
        ):
            self.answers = [answer]
            self.assertEqual((kind, connections), (client.perform(0).kind, self.server.connections))

    def test_a_server_that_lets_nobody_in_again(self) -> None:
        client = self.opened().alone()
        self.answers, self.server.refusal = [Gone], TOO_MANY
        kinds = [client.perform(index).kind for index in range(2)]
        self.assertEqual([OutcomeKind.BROKEN, OutcomeKind.THROTTLED], kinds)
        self.server.refusal = None
        self.assertEqual(OutcomeKind.OK, client.perform(2).kind)

    def test_closing_the_workload_closes_its_connection(self) -> None:
        workload = self.opened()
        client = workload.alone()
        client.perform(0)
        workload.close()
        workload.close()
        self.assertNotEqual(OutcomeKind.OK, client.perform(1).kind)

    def test_closing_leaves_an_operation_alone_that_is_under_way(self) -> None:
        may_answer = threading.Event()
        self.addCleanup(may_answer.set)

        def answer(*_: object) -> Answer:
            may_answer.wait(10)
            return [1]

        workload = self.opened()
        client = workload.alone()
        self.server.answer = answer
        found: list[OutcomeKind] = []
        thread = threading.Thread(target=lambda: found.append(client.perform(0).kind))
        thread.start()
        eventually(lambda: client.is_busy, "the operation is under way")
        workload.close()
        may_answer.set()
        thread.join(10)
        self.assertEqual([OutcomeKind.OK], found)

    def test_a_closed_loop_of_one_client_is_loaded_so(self) -> None:
        directory = Path(self.enterContext(tempfile.TemporaryDirectory()))
        stream = StreamPlan(
            "point",
            "aifbench.workloads.sql_points:PointRead",
            {"rows": 1000},
            to_json(Closed(1)),
            limit=30,
        )
        self.answers = [[1], Failure("40001", "words"), Gone]
        engine = Engine(PhasePlan("p", (stream,), self.endpoint), stream, 0, directory)
        try:
            engine.prepare()
            report = engine.run(time.perf_counter_ns(), StopFlag())
        finally:
            engine.close()
        self.assertEqual((30, 2, ""), (report.operations, sum(report.errors.values()), report.failure))
        self.assertEqual(2, self.server.connections)


class Polled(SqlCase):
    def run_loop(
        self, workload: PointRead, *, clients: int = 0, due_ms: Sequence[float] = (), count: int = 0
    ) -> Samples:
        directory = self.enterContext(tempfile.TemporaryDirectory())
        start_ns = time.perf_counter_ns()
        due_ns = start_ns + (np.array(due_ms) * 1e6).astype(np.int64) if due_ms else None
        end_ns = start_ns + 2_000_000_000 if due_ms else FOREVER_NS
        part = Assignment(start_ns, end_ns, 10**9, 10**9, 0, 1, clients, due_ns, count or len(due_ms))
        recorder = Recorder(Path(directory), "r", start_ns)
        try:
            PollLoop(workload, recorder, part).run()
        finally:
            recorder.close()
        return read_samples(Path(directory), "r", 0)

    def test_closed(self) -> None:
        samples = self.run_loop(self.opened(connections=3), clients=3, count=50)
        self.assertEqual(list(range(50)), sorted(samples.index.tolist()))
        self.assertTrue(samples.ok.all())
        self.assertEqual(3, self.server.connections)

    def test_open(self) -> None:
        due_ms = [float(n) for n in range(40)]
        for connections in (2, 20):  # few are waited for in another way than many
            with self.subTest(connections=connections):
                self.check_open(connections, due_ms)

    def check_open(self, connections: int, due_ms: Sequence[float]) -> None:
        samples = self.run_loop(self.opened(connections=connections), due_ms=due_ms)
        self.assertEqual(due_ms, [round(ns / 1e6, 3) for ns in sorted(samples.intended_ns.tolist())])
        self.assertTrue(samples.ok.all() and (samples.sent_ns >= samples.intended_ns).all())

    def test_errors_and_lost_connections_are_recorded_and_the_load_goes_on(self) -> None:
        self.answers = [[1], Failure("40001", "words"), Gone, [1]]
        samples = self.run_loop(self.opened(connections=1), clients=1, count=6)
        kinds = [OutcomeKind(kind).name for kind in samples.outcome[np.argsort(samples.index)]]
        self.assertEqual(["OK", "SERVER_ERROR", "BROKEN", "OK", "OK", "OK"], kinds)


if __name__ == "__main__":
    unittest.main()
