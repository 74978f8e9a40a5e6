"""The HTTP load loop against a real server: every operation is one row, whatever becomes of it."""

import contextlib
import os
import resource
import socket
import ssl
import tempfile
import threading
import time
import unittest
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from test.fakes import tls
from test.fakes.http import HttpService
from test.fakes.streams import (
    CHUNKED,
    CLOSE,
    HANG,
    LAST_CHUNK,
    StreamService,
    chat,
    chunk,
    chunked,
    until_close,
    with_length,
)
from test.fakes.waiting import eventually

from aifbench.errors import WorkloadError
from aifbench.load.assignment import FOREVER_NS, Assignment
from aifbench.load.connections import Connections
from aifbench.load.http import encode_request
from aifbench.load.recorder import (
    READ,
    Recorder,
    Rows,
    answers_path,
    read_rows,
    read_samples,
    reads_path,
    rows_path,
)
from aifbench.load.samples import Samples
from aifbench.load.tls import client_context
from aifbench.load.wire_loop import WireLoop
from aifbench.load.workload import NOT_SEEN, OutcomeKind

MS = 1_000_000
S = 1_000_000_000

# target: outcome, HTTP status, bytes of the answer
ENDINGS = {
    "/ok": (OutcomeKind.OK, 200, 2),
    "/body/300000": (OutcomeKind.OK, 200, 300_000),
    "/chunked/2500": (OutcomeKind.OK, 200, 2500),
    "/until-end": (OutcomeKind.OK, 200, 9),
    "/close": (OutcomeKind.OK, 200, 3),
    "/status/204": (OutcomeKind.OK, 204, 0),
    "/status/302": (OutcomeKind.PROTOCOL, 302, 2),
    "/status/404": (OutcomeKind.CLIENT_ERROR, 404, 2),
    "/status/429": (OutcomeKind.THROTTLED, 429, 2),
    "/status/500": (OutcomeKind.SERVER_ERROR, 500, 2),
    "/status/503": (OutcomeKind.THROTTLED, 503, 2),
    "/cut": (OutcomeKind.BROKEN, 0, 0),
    "/vanish": (OutcomeKind.BROKEN, 0, 0),
    "/reset": (OutcomeKind.BROKEN, 0, 0),
    "/garbage": (OutcomeKind.PROTOCOL, 0, 0),
}


@dataclass
class Ran:
    """What one loop left: samples with times since its start, raw rows, kept answers, error counts."""

    samples: Samples
    rows: Rows
    answers: bytes
    reads: np.ndarray
    errors: dict[str, int]
    limited_by: str

    @property
    def kinds(self) -> list[OutcomeKind]:
        return [OutcomeKind(kind) for kind in self.samples.outcome]


class LoopCase(unittest.TestCase):
    def setUp(self) -> None:
        self.service = HttpService()
        self.addCleanup(self.service.close)
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.dir = Path(directory.name)

    def loop(
        self,
        request: str | Callable[[int], bytes],
        *,
        clients: int = 1,
        count: int = FOREVER_NS,
        due_ms: Sequence[float] | None = None,
        seconds: float | None = None,
        drain_s: float = 5.0,
        timeout_s: float = 10.0,
        address: tuple[str, int] | None = None,
        chain: int = 1,
        think_s: float = 0.0,
        max_in_flight: int = FOREVER_NS,
        ready: int = 0,
        most: int = 1024,
        tls: ssl.SSLContext | None = None,
        **options: Any,
    ) -> "Ready":
        start_ns = time.perf_counter_ns()
        due_ns = None if due_ms is None else start_ns + np.array([round(ms * MS) for ms in due_ms], np.int64)
        part = Assignment(
            start_ns=start_ns,
            end_ns=FOREVER_NS if seconds is None else start_ns + round(seconds * S),
            drain_ns=round(drain_s * S),
            timeout_ns=round(timeout_s * S),
            first_index=0,
            stride=1,
            clients=0 if due_ms is not None else clients,
            due_ns=due_ns,
            count=count if due_ms is None else len(due_ms),
            chain=chain,
            think_ns=round(think_s * S),
            max_in_flight=max_in_flight,
        )
        get = request if callable(request) else lambda _: encode_request("GET", request, "test")
        connections = Connections(address or self.service.address, tls, clients=part.clients, most=most)
        self.addCleanup(connections.close)
        connections.open_ahead(ready)
        recorder = Recorder(self.dir, "x", start_ns)
        return Ready(WireLoop(connections, get, recorder, part, **options), part, recorder, self.dir)

    def run_loop(self, request: str | Callable[[int], bytes], **options: Any) -> Ran:
        return self.loop(request, **options).run()

    def when(self, condition: Callable[[], bool], act: Callable[[], None]) -> threading.Thread:
        def wait() -> None:
            eventually(condition, "the condition to act on")
            act()

        thread = threading.Thread(target=wait)
        thread.start()
        return thread


class Ready:
    """A loop that has not run yet."""

    def __init__(self, loop: WireLoop, part: Assignment, recorder: Recorder, directory: Path) -> None:
        self.loop = loop
        self.part = part
        self.recorder = recorder
        self._dir = directory

    def run(self) -> Ran:
        try:
            self.loop.run()
        finally:
            self.recorder.close()
        return Ran(
            samples=read_samples(self._dir, "x", 0),
            rows=read_rows(rows_path(self._dir, "x"))[1:],
            answers=answers_path(self._dir, "x").read_bytes(),
            reads=np.fromfile(reads_path(self._dir, "x"), READ),
            errors=self.recorder.errors.counts,
            limited_by=self.loop.limited_by,
        )


class Endings(LoopCase):
    def test_each_ending_is_recorded_as_what_it_is(self) -> None:
        for target, (kind, status, size) in ENDINGS.items():
            with self.subTest(target):
                ran = self.run_loop(target, count=3)
                self.assertEqual(ran.kinds, [kind] * 3)
                self.assertEqual(ran.rows["status"].tolist(), [status] * 3)
                self.assertEqual(ran.samples.bytes_in.tolist(), [size] * 3)
                self.assertEqual(ran.samples.items.tolist(), [int(kind is OutcomeKind.OK)] * 3)
                self.assertEqual(sum(ran.errors.values()), 0 if kind is OutcomeKind.OK else 3)
                self.assertTrue((ran.samples.finished_ns > ran.samples.sent_ns).all())

    def test_all_endings_at_once_keep_rows_and_answers_in_step(self) -> None:
        targets = list(ENDINGS)
        ran = self.run_loop(
            lambda i: encode_request("GET", targets[i % len(targets)], "test"), clients=8, count=150
        )
        self.assertEqual(sorted(ran.samples.index.tolist()), list(range(150)))
        expected = [ENDINGS[targets[i % len(targets)]] for i in ran.samples.index]
        self.assertEqual(ran.kinds, [kind for kind, _, _ in expected])
        ends = np.cumsum(ran.samples.bytes_in)
        self.assertEqual(int(ends[-1]), len(ran.answers))
        bodies = {300_000: b"x" * 300_000, 2: None, 2500: b"x" * 2500, 9: b"all of it", 3: b"bye", 0: b""}
        for row, (kind, _, size) in enumerate(expected):
            body = bodies[size] or (b"" if not size else b"ok" if kind is OutcomeKind.OK else b"no")
            self.assertEqual(ran.answers[ends[row] - size : ends[row]], body)

    def test_a_kept_connection_that_was_just_closed_costs_time_and_no_answer(self) -> None:
        ready = self.loop("/stale", count=6)
        ran = ready.run()
        self.assertEqual((ran.kinds, ran.errors), ([OutcomeKind.OK] * 6, {}))
        self.assertEqual(ready.loop.sent_anew, 5)
        self.assertEqual(ran.samples.index.tolist(), list(range(6)))

    def test_one_that_ends_again_is_broken(self) -> None:
        targets = ("/ok", "/vanish", "/ok")
        ready = self.loop(lambda index: encode_request("GET", targets[index], "test"), count=3)
        ran = ready.run()
        self.assertEqual(ran.kinds, [OutcomeKind.OK, OutcomeKind.BROKEN, OutcomeKind.OK])
        self.assertEqual((ready.loop.sent_anew, sum(ran.errors.values())), (1, 1))

    def test_error_texts_tell_status_and_answer(self) -> None:
        self.assertEqual(self.run_loop("/status/500", count=2).errors, {"HTTP 500 no": 2})
        self.assertEqual(
            self.run_loop("/cut", count=1).errors, {"connection closed before the end of the answer": 1}
        )
        self.assertEqual(self.run_loop("/reset", count=1).errors, {"ECONNRESET": 1})

    def test_bytes_out_are_those_that_the_server_got(self) -> None:
        def request(index: int) -> bytes:
            return encode_request("POST", "/ok", "test", body=b"x" * (1000 * index))

        ran = self.run_loop(request, count=5)
        self.service.close()
        self.assertEqual(ran.samples.bytes_out.tolist(), self.service.request_bytes)
        self.assertEqual(ran.samples.bytes_out.tolist(), [len(request(index)) for index in range(5)])

    def test_a_request_larger_than_the_socket_takes_at_once(self) -> None:
        body = bytes(range(256)) * 40_000
        ran = self.run_loop(lambda _: encode_request("POST", "/slow-reader", "test", body=body), count=2)
        self.service.close()
        self.assertEqual(ran.kinds, [OutcomeKind.OK] * 2)
        self.assertEqual(ran.samples.bytes_out.tolist(), self.service.request_bytes)
        self.assertEqual(self.service.connections, 1)

    def test_an_answer_before_the_end_of_the_request(self) -> None:
        body = b"x" * 20_000_000
        ran = self.run_loop(lambda _: encode_request("POST", "/early", "test", body=body), count=3)
        self.assertEqual(ran.kinds, [OutcomeKind.CLIENT_ERROR] * 3)
        self.assertTrue((ran.samples.bytes_out < len(body)).all())
        self.assertEqual(self.service.connections, 3)

    def test_the_answer_to_head_is_complete_without_a_body(self) -> None:
        ran = self.run_loop(lambda _: encode_request("HEAD", "/body/1000", "test"), count=3, timeout_s=2.0)
        self.assertEqual(ran.kinds, [OutcomeKind.OK] * 3)
        self.assertEqual(ran.samples.bytes_in.tolist(), [0] * 3)

    def test_no_answer_in_time(self) -> None:
        ran = self.run_loop("/hang", clients=2, count=4, timeout_s=0.1)
        self.assertEqual(ran.kinds, [OutcomeKind.TIMEOUT] * 4)
        self.assertTrue((ran.samples.service_ns >= 100 * MS).all())
        self.assertEqual(ran.errors, {"no answer within 0.1 s": 4})
        self.assertEqual(self.service.connections, 4)

    def test_a_timeout_takes_nothing_else_down(self) -> None:
        targets = ["/ok", "/hang", "/ok", "/ok"]
        due_ms = [0, 1, 50, 150]
        ran = self.run_loop(lambda i: encode_request("GET", targets[i], "t"), due_ms=due_ms, timeout_s=0.1)
        by_index = dict(zip(ran.samples.index.tolist(), ran.kinds, strict=True))
        ok, timeout = OutcomeKind.OK, OutcomeKind.TIMEOUT
        self.assertEqual([by_index[i] for i in range(4)], [ok, timeout, ok, ok])

    def test_nobody_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = taken.getsockname()
        ran = self.run_loop("/ok", address=address, seconds=0.2)
        self.assertEqual(set(ran.kinds), {OutcomeKind.CONNECT})
        self.assertEqual(ran.errors, {"ECONNREFUSED": len(ran.samples)})
        self.assertEqual(set(ran.samples.bytes_out.tolist()), {0})
        # A client that was refused pauses for 50 ms.
        self.assertLessEqual(len(ran.samples), 4)
        self.assertTrue((np.diff(ran.samples.intended_ns) >= 50 * MS).all())


class KeptAlive(LoopCase):
    def test_kept_alive_ones_are_used_again(self) -> None:
        self.run_loop("/ok", count=50)
        self.assertEqual(self.service.connections, 1)

    def test_one_that_the_server_ends_is_not(self) -> None:
        ran = self.run_loop("/close", count=5)
        self.assertEqual(ran.kinds, [OutcomeKind.OK] * 5)
        self.assertEqual(self.service.connections, 5)

    def test_one_closed_while_idle_is_replaced(self) -> None:
        ran = self.run_loop("/leave", due_ms=[0, 60, 120])
        self.assertEqual(ran.kinds, [OutcomeKind.OK] * 3)
        self.assertEqual(self.service.connections, 3)

    def test_prepared_ones_are_there_before_the_first_operation(self) -> None:
        ran = self.run_loop("/ok", clients=3, count=30, ready=3)
        self.assertEqual(ran.kinds, [OutcomeKind.OK] * 30)
        self.assertEqual(self.service.connections, 3)

    def test_of_several_addresses_all_go_where_somebody_listens(self) -> None:
        host, port = self.service.address
        every = [*socket.getaddrinfo("127.0.0.9", port), *socket.getaddrinfo(host, port)]
        with mock.patch("socket.getaddrinfo", return_value=every):
            ran = self.run_loop("/close", address=("two.example", port), count=3, ready=1)
        self.assertEqual(ran.kinds, [OutcomeKind.OK] * 3)

    def test_many_connections_do_not_keep_short_waits_from_working(self) -> None:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(2048, limits[1]), limits[1]))
        connections = Connections(self.service.address)
        self.addCleanup(connections.close)
        with contextlib.ExitStack() as taken:
            while taken.enter_context(Path(os.devnull).open()).fileno() < 1024:
                pass
            connections.open_ahead(1)
            self.assertEqual(connections.events(500_000), [])

    def test_more_clients_than_open_files_are_refused_before_the_start(self) -> None:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
        with self.assertRaisesRegex(
            WorkloadError, "150 clients of one load worker .* may have 136; .*--workers"
        ):
            Connections(self.service.address, clients=150)

    def test_preparing_says_where_nobody_listens(self) -> None:
        self.service.close()
        host, port = self.service.address
        with self.assertRaisesRegex(WorkloadError, f"cannot connect to {host}:{port}: .*refused"):
            Connections((host, port)).open_ahead(1)
        with self.assertRaisesRegex(WorkloadError, rf"cannot connect to \[::1\]:{port}"):
            Connections(("::1", port)).open_ahead(1)


class ClosedLoop(LoopCase):
    def test_exactly_as_many_as_clients_are_under_way(self) -> None:
        opener = self.when(lambda: self.service.in_flight == 5, self.service.gate.set)
        ran = self.run_loop("/wait", clients=5, count=500)
        opener.join()
        self.assertEqual(len(ran.samples), 500)
        self.assertEqual(self.service.most_in_flight, 5)

    def test_an_operation_is_intended_when_its_client_became_free(self) -> None:
        ran = self.run_loop("/ok", clients=3, count=60)
        intended_ns = ran.samples.sorted().intended_ns.tolist()
        self.assertEqual(intended_ns[:3], [0, 0, 0])
        self.assertLessEqual(Counter(intended_ns[3:]), Counter(ran.samples.finished_ns.tolist()))

    def test_one_client_works_without_a_break(self) -> None:
        samples = self.run_loop("/ok", count=20).samples
        self.assertEqual(samples.intended_ns[1:].tolist(), samples.finished_ns[:-1].tolist())

    def test_nothing_is_begun_after_the_end(self) -> None:
        ran = self.run_loop("/ok", clients=2, seconds=0.1)
        self.assertGreater(len(ran.samples), 10)
        self.assertTrue((ran.samples.intended_ns < 0.1 * S).all())
        self.assertEqual(set(ran.kinds), {OutcomeKind.OK})
        self.assertEqual(len(ran.samples), len(self.service.targets))

    def test_what_is_under_way_at_the_end_is_waited_for(self) -> None:
        ready = self.loop("/wait", clients=2, seconds=0.05)
        opener = self.when(lambda: time.perf_counter_ns() > ready.part.end_ns, self.service.gate.set)
        ran = ready.run()
        opener.join()
        self.assertEqual(ran.kinds, [OutcomeKind.OK] * 2)

    def test_waiting_for_the_last_answers_costs_no_cpu(self) -> None:
        reads_after_end = 0

        def now_ns() -> int:
            nonlocal reads_after_end
            now_ns = time.perf_counter_ns()
            reads_after_end += now_ns > ready.part.end_ns
            return now_ns

        def request(index: int) -> bytes:
            return encode_request("GET", "/ok" if index else "/hang", "test")

        ready = self.loop(request, clients=2, seconds=0.05, drain_s=0.15, now_ns=now_ns)
        self.assertEqual(ready.run().kinds.count(OutcomeKind.UNFINISHED), 1)
        self.assertLess(reads_after_end, 100)


class OpenLoop(LoopCase):
    def test_operations_are_sent_when_due_though_the_server_stalls(self) -> None:
        due_ms = [5 * number for number in range(40)]
        opened_ns = 0

        def open_gate() -> None:
            nonlocal opened_ns
            opened_ns = time.perf_counter_ns()
            self.service.gate.set()

        opener = self.when(lambda: self.service.in_flight == 40, open_gate)
        ready = self.loop("/wait", due_ms=due_ms)
        samples = ready.run().samples.sorted()
        opener.join()
        self.assertEqual(samples.intended_ns.tolist(), [ms * MS for ms in due_ms])
        self.assertTrue((samples.sent_ns >= samples.intended_ns).all())
        self.assertTrue((samples.sent_ns < opened_ns - ready.part.start_ns).all())
        # The whole stall is in the response time, from the intended instant on.
        stall_ns = opened_ns - ready.part.start_ns - samples.intended_ns
        self.assertTrue((samples.response_ns >= stall_ns).all())

    def test_every_due_operation_is_a_row_when_connections_run_out(self) -> None:
        ran = self.run_loop("/hang", due_ms=range(10), seconds=0.05, drain_s=0.1, most=3)
        self.assertEqual(ran.kinds, [OutcomeKind.UNFINISHED] * 10)
        self.assertEqual(ran.samples.index.tolist(), list(range(10)))
        self.assertEqual(int((ran.samples.sent_ns != NOT_SEEN).sum()), 3)
        self.assertEqual(int((ran.samples.bytes_out > 0).sum()), 3)
        self.assertEqual(set(ran.samples.finished_ns.tolist()), {NOT_SEEN})
        self.assertEqual(ran.limited_by, "all 3 connections were busy")
        self.assertEqual(len(self.service.targets), 3)

    def test_waiting_for_a_connection_is_lag(self) -> None:
        ready = self.loop("/wait", due_ms=[0, 10, 20], seconds=0.1, most=1)
        opener = self.when(lambda: time.perf_counter_ns() > ready.part.end_ns, self.service.gate.set)
        ran = ready.run()
        opener.join()
        self.assertEqual(ran.kinds, [OutcomeKind.OK] * 3)
        self.assertEqual(ran.samples.sent_ns[1:].tolist(), sorted(ran.samples.sent_ns[1:].tolist()))
        self.assertTrue((ran.samples.sent_ns[1:] >= ran.samples.finished_ns[:-1]).all())
        self.assertTrue((ran.samples.lag_ns[1:] >= 80 * MS).all())
        self.assertEqual(ran.limited_by, "all 1 connections were busy")

    def test_a_service_that_keeps_up_limits_nothing(self) -> None:
        self.assertEqual(self.run_loop("/ok", due_ms=range(50)).limited_by, "")

    def test_what_hangs_is_unfinished_after_the_drain_time(self) -> None:
        ran = self.run_loop("/hang", due_ms=[0, 10], seconds=0.02, drain_s=0.05)
        self.assertEqual(ran.kinds, [OutcomeKind.UNFINISHED] * 2)
        self.assertTrue((ran.samples.sent_ns >= 0).all())
        self.assertEqual(ran.answers, b"")

    def test_a_stop_ends_at_once_and_leaves_out_what_was_not_due(self) -> None:
        ready = self.loop("/hang", due_ms=[0, 10, 60_000], timeout_s=60.0)

        def stop() -> None:
            ready.part.stop.is_set = True

        stopper = self.when(lambda: len(self.service.targets) == 2, stop)
        ran = ready.run()
        stopper.join()
        self.assertEqual(ran.kinds, [OutcomeKind.UNFINISHED] * 2)

    def test_an_error_while_making_a_request_loses_no_row(self) -> None:
        def request(index: int) -> bytes:
            return encode_request("GET", ["/ok", "/ok"][index], "t")

        with self.assertRaises(IndexError):
            self.run_loop(request, due_ms=[0, 20, 40])
        samples = read_samples(self.dir, "x", 0)
        self.assertEqual(samples.index.tolist(), [0, 1, 2])
        self.assertEqual(samples.ok.tolist(), [True, True, False])


def numbered(index: int) -> bytes:
    return encode_request("POST", "/", "test", body=b"%d" % index)


class StreamCase(LoopCase):
    def serve(self, answer: Callable[[int, bytes], Iterable[bytes]], **options: Any) -> StreamService:
        service = StreamService(answer, **options)
        self.enterContext(service)
        return service

    def stream(self, answer: Callable[[int, bytes], Iterable[bytes]], **options: Any) -> Ran:
        service = self.serve(answer)
        return self.run_loop(numbered, address=service.address, is_stream=True, **options)


class Streams(StreamCase):
    EVENTS = chat("one", "two", "three")

    def check_reads(self, ran: Ran) -> None:
        """Every byte belongs to a read, and reads to the time between sending and the end."""
        place = 0
        for number, row in enumerate(ran.rows):
            reads = ran.reads[place : place + row["reads"]]
            place += row["reads"]
            self.assertGreater(len(reads), 0)
            self.assertEqual(reads["end"][-1], ran.samples.bytes_in[number])
            self.assertTrue((np.diff(reads["end"]) >= 0).all())
            self.assertTrue((np.diff(reads["at_ns"]) >= 0).all())
            self.assertEqual(reads["at_ns"][0], row["first_byte_ns"])
            self.assertGreater(reads["at_ns"][0], row["sent_ns"])
            if row["finished_ns"] != NOT_SEEN:
                self.assertLessEqual(reads["at_ns"][-1], row["finished_ns"])
        self.assertEqual(place, len(ran.reads))

    def test_streams_end_where_they_end_however_they_come(self) -> None:
        whole = chunked(self.EVENTS)
        all_of_it = b"".join(whole)
        last_event, trailer = whole[-2], b"0\r\nServer-Timing: x\r\n\r\n"
        crlf = [event.replace(b"\n", b"\r\n") for event in self.EVENTS]
        for name, pieces in {
            "an event a piece": whole,
            "all at once": [all_of_it],
            "the end with the last event": [*whole[:-2], last_event + LAST_CHUNK],
            "the last byte alone": [all_of_it[:-1], all_of_it[-1:]],
            "byte by byte": [bytes([byte]) for byte in all_of_it],
            "cut in the last chunk": [all_of_it[:-3], all_of_it[-3:]],
            "a trailer": [*whole[:-1], trailer],
            "a trailer in pieces": [*whole[:-1], trailer[:1], trailer[1:9], trailer[9:]],
            "more zeros": [*whole[:-1], b"000\r\n\r\n"],
            "no events": [CHUNKED, LAST_CHUNK],
            "lines that end as HTTP's do": chunked(crlf),
            "many events a chunk": [CHUNKED, chunk(b"".join(self.EVENTS)), LAST_CHUNK],
            "a length": with_length(self.EVENTS),
            "until the connection ends": [*until_close(self.EVENTS), CLOSE],
        }.items():
            with self.subTest(name):
                ran = self.stream(lambda *_, pieces=pieces: pieces, count=2, timeout_s=2.0)
                self.assertEqual(ran.kinds, [OutcomeKind.OK] * 2)
                self.assertEqual(ran.answers, b"".join(piece for piece in pieces if piece != CLOSE) * 2)
                self.check_reads(ran)

    def test_kept_alive_connections_are_used_again(self) -> None:
        service = self.serve(lambda *_: chunked(self.EVENTS))
        ran = self.run_loop(numbered, address=service.address, is_stream=True, clients=3, count=60)
        self.assertEqual(ran.kinds, [OutcomeKind.OK] * 60)
        self.assertEqual(len(service._peers), 3)
        self.check_reads(ran)

    def test_a_cut_stream_is_kept_as_far_as_it_came(self) -> None:
        part = chunked(self.EVENTS)[:3]
        ran = self.stream(lambda *_: [*part, CLOSE], count=2)
        self.assertEqual(ran.kinds, [OutcomeKind.BROKEN] * 2)
        self.assertEqual(ran.answers, b"".join(part) * 2)
        self.check_reads(ran)

    def test_a_stream_that_hangs_is_kept_as_far_as_it_came(self) -> None:
        part = chunked(self.EVENTS)[:3]
        for options, kind in (
            ({"timeout_s": 0.1, "count": 1}, OutcomeKind.TIMEOUT),
            ({"seconds": 0.05, "drain_s": 0.05}, OutcomeKind.UNFINISHED),
        ):
            ran = self.stream(lambda *_: [*part, HANG], **options)
            self.assertEqual((ran.kinds, ran.answers), ([kind], b"".join(part)))
            self.check_reads(ran)

    def test_more_than_an_answer_is_none(self) -> None:
        ran = self.stream(
            lambda *_: [b"".join(chunked(self.EVENTS)) + b"HTTP/1.1 200 OK\r\n", CLOSE], count=1
        )
        self.assertEqual(ran.kinds, [OutcomeKind.BROKEN])

    def test_chunks_that_do_not_add_up_end_nothing_but_their_operation(self) -> None:
        bad = b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nx\r\n" + LAST_CHUNK
        ran = self.stream(lambda number, _: chunked(self.EVENTS) if number else [bad], count=2)
        self.assertEqual(ran.kinds, [OutcomeKind.SERVER_ERROR, OutcomeKind.OK])

    def test_a_refusal_says_why_and_when_to_come_again(self) -> None:
        refusal = b"HTTP/1.1 429 X\r\nRetry-After: 7\r\nContent-Length: 8\r\n\r\ntoo much"
        ran = self.stream(lambda *_: [refusal], count=2)
        self.assertEqual(ran.kinds, [OutcomeKind.THROTTLED] * 2)
        self.assertEqual(ran.errors, {"HTTP 429 (Retry-After: 7) too much": 2})

    def test_too_many_under_way_end_an_open_loop(self) -> None:
        service = self.serve(lambda *_: [CHUNKED, HANG])
        options: Any = {"address": service.address, "is_stream": True, "max_in_flight": 3}
        ready = self.loop(numbered, due_ms=range(0, 600_000, 10), seconds=600.0, **options)
        ran = ready.run()
        self.assertTrue(ready.loop.overloaded)
        self.assertEqual(set(ran.kinds), {OutcomeKind.UNFINISHED})
        self.assertEqual(int((ran.samples.sent_ns != NOT_SEEN).sum()), 3)
        self.assertTrue(4 <= len(ran.samples) < 100)
        self.assertEqual(ran.limited_by, "")

    def test_as_many_as_allowed_are_no_overload(self) -> None:
        service = self.serve(lambda *_: chunked(self.EVENTS))
        ready = self.loop(
            numbered, due_ms=range(0, 100, 10), address=service.address, is_stream=True, max_in_flight=10
        )
        self.assertEqual(ready.run().kinds, [OutcomeKind.OK] * 10)
        self.assertFalse(ready.loop.overloaded)

    def test_whole_answers_for_those_who_want_their_heads(self) -> None:
        ran = self.run_loop("/body/5", clients=1, count=2, wants_head=True)
        self.assertEqual(ran.answers, 2 * b"HTTP/1.1 200 X\r\nContent-Length: 5\r\n\r\nxxxxx")
        self.assertEqual(ran.samples.bytes_in.tolist(), [5, 5])


class Chains(StreamCase):
    """Four turns to a conversation."""

    def setUp(self) -> None:
        super().setUp()
        self.story: list[tuple[str, int]] = []
        self.ends_after = -1

    def request(self, index: int) -> bytes:
        self.story.append(("request", index))
        return numbered(index)

    def learn(self, index: int, body: bytes) -> bool:
        self.assertEqual(body, b"".join(chat(f"answer {index}")))
        self.story.append(("learn", index))
        return index != self.ends_after

    def converse(self, chains: int, clients: int = 3, fails: int = -1, **options: Any) -> Ran:
        def answer(_: int, body: bytes) -> list[bytes]:
            if int(body) == fails:
                return [b"HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\nno"]
            return chunked(chat(f"answer {int(body)}"))

        service = self.serve(answer)
        options = {"count": chains, "clients": clients, "address": service.address, **options}
        return self.run_loop(self.request, is_stream=True, learn=self.learn, chain=4, **options)

    def test_turns_are_begun_in_order_when_the_one_before_was_answered_and_told(self) -> None:
        ran = self.converse(6)
        self.assertEqual(sorted(ran.samples.index.tolist()), list(range(24)))
        for index in range(24):
            told = self.story.index(("request", index))
            if index % 4:
                self.assertLess(self.story.index(("learn", index - 1)), told)
        # The last answers of conversations are no use to anybody.
        self.assertEqual(sum(what == "learn" for what, _ in self.story), 18)

    def test_a_client_stays_with_its_conversation(self) -> None:
        samples = self.converse(6, think_s=0.02).samples
        at = {index: row for row, index in enumerate(samples.index.tolist())}
        for index in range(24):
            if index % 4:
                before = at[index - 1]
                self.assertEqual(samples.intended_ns[at[index]], samples.finished_ns[before] + 20 * MS)
        self.assertTrue((samples.lag_ns >= 0).all())

    def test_there_is_no_thinking_after_the_last_turn(self) -> None:
        samples = self.converse(2, clients=1, think_s=0.02).samples
        self.assertEqual(samples.intended_ns[4], samples.finished_ns[3])

    def test_a_turn_that_fails_ends_its_conversation(self) -> None:
        ran = self.converse(4, fails=5)
        self.assertEqual(sorted(ran.samples.index.tolist()), [*range(6), *range(8, 16)])
        self.assertEqual(ran.kinds.count(OutcomeKind.SERVER_ERROR), 1)

    def test_so_does_an_answer_that_nothing_can_follow(self) -> None:
        self.ends_after = 9
        ran = self.converse(4)
        self.assertEqual(sorted(ran.samples.index.tolist()), [*range(10), *range(12, 16)])
        self.assertEqual(set(ran.kinds), {OutcomeKind.OK})

    def test_the_end_of_the_time_ends_conversations(self) -> None:
        ran = self.converse(FOREVER_NS, seconds=0.1, think_s=0.04)
        self.assertTrue((ran.samples.intended_ns < 0.1 * S).all())
        self.assertEqual(set(ran.kinds), {OutcomeKind.OK})


class Encrypted(StreamCase):
    def load(self, ca_file: Path | None, ready: int = 0, **options: Any) -> Ran:
        service = self.serve(lambda *_: chunked(chat("secret")), tls=tls.server_context())
        context = client_context("https", ca_file)
        address = service.address
        return self.run_loop(numbered, address=address, is_stream=True, tls=context, ready=ready, **options)

    def test_streams_over_tls(self) -> None:
        for ready in (0, 2):
            ran = self.load(tls.CA_FILE, ready, clients=2, count=20)
            self.assertEqual(ran.kinds, [OutcomeKind.OK] * 20)
            self.assertEqual(ran.answers, b"".join(chunked(chat("secret"))) * 20)

    def test_a_large_answer_in_many_records(self) -> None:
        pieces = with_length([b"x" * 1_000_000])
        service = self.serve(lambda *_: pieces, tls=tls.server_context())
        context = client_context("https", tls.CA_FILE)
        ran = self.run_loop(numbered, address=service.address, is_stream=True, tls=context, count=2)
        self.assertEqual((ran.kinds, len(ran.answers)), ([OutcomeKind.OK] * 2, 2 * len(b"".join(pieces))))

    def test_a_server_that_nobody_vouches_for(self) -> None:
        ran = self.load(None, count=2)
        self.assertEqual(set(ran.kinds), {OutcomeKind.CONNECT})
        (text,) = ran.errors
        self.assertRegex(text, "certificate of 127.0.0.1 is not trusted: .*--ca-file")

    def test_preparing_says_so_too(self) -> None:
        with self.assertRaisesRegex(WorkloadError, "cannot connect to 127.0.0.1:.* is not trusted"):
            self.load(None, 1)


if __name__ == "__main__":
    unittest.main()
