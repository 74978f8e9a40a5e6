"""S3 operations over HTTP: what is sent, and what answers mean, against a server that checks signatures."""

import http.client
import tempfile
import unittest
from pathlib import Path
from typing import Any

from test.fakes.s3_server import FakeS3, Faults

from aifbench.errors import WorkloadError
from aifbench.load.workload import OutcomeKind
from aifbench.workloads import s3_http, s3_mixed
from aifbench.workloads.s3_objects import ObjectSet
from aifbench.workloads.sigv4 import FRESH_S

OBJECTS = {"sizes": "2KiB:50,90KiB:50", "seed": 5, "prefix": "data-"}
COUNT = 12
WEIGHTS = {"get": 45, "head": 30, "put": 15, "delete": 10}


def sent(request: s3_http.Request) -> bytes:
    return request if isinstance(request, bytes) else b"".join(request)


def wants_head(workload: Any) -> bool:
    return bool(getattr(workload, "wants_head", False))


class S3Case(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.s3 = FakeS3(Path(folder.name), {"b": {}})
        self.enterContext(self.s3)
        self.connection = http.client.HTTPConnection("127.0.0.1", self.s3.endpoint.port, timeout=5)
        self.connection.connect()
        self.addCleanup(self.connection.close)
        self.objects = ObjectSet.from_json(OBJECTS)

    def store(self, count: int = COUNT) -> None:
        self.s3.buckets["b"] |= {self.objects.key(n): self.objects.body(n) for n in range(count)}

    def open(self, kind: str, count: int = COUNT, **params: Any) -> Any:
        module = s3_mixed if kind == "Mixed" else s3_http
        workload = getattr(module, kind)(bucket="b", objects=OBJECTS, count=count, **params)
        workload.open(self.s3.endpoint)
        return workload

    def exchange(self, workload: Any, index: int) -> tuple[int, bytes]:
        data = sent(workload.request(index))
        self.connection.sock.sendall(data)
        response = http.client.HTTPResponse(self.connection.sock, method=data.split(b" ", 1)[0].decode())
        response.begin()
        head = "".join(f"{name}: {value}\r\n" for name, value in response.getheaders())
        whole = f"HTTP/1.1 {response.status} X\r\n{head}\r\n".encode() if wants_head(workload) else b""
        return response.status, whole + response.read()

    def perform(self, workload: Any, index: int) -> Any:
        status, body = self.exchange(workload, index)
        self.assertLess(status, 300, body)
        return workload.interpret(index, status, body)


class Operations(S3Case):
    def test_what_is_put_is_there_and_can_be_read(self) -> None:
        for payload in ("signed", "unsigned", "auto"):
            put = self.open("Put", payload=payload)
            self.s3.buckets["b"].clear()
            for index in range(COUNT):
                self.assertEqual(self.perform(put, index).kind, OutcomeKind.OK)
            stored = {self.objects.number(key): body for key, body in self.s3.buckets["b"].items()}
            self.assertEqual(stored, {n: self.objects.body(n) for n in range(COUNT)})
        get = self.open("Get")
        self.assertEqual({self.perform(get, index).kind for index in range(2 * COUNT)}, {OutcomeKind.OK})

    def test_large_bodies_are_not_copied(self) -> None:
        put = self.open("Put")
        requests = [put.request(index) for index in range(COUNT)]
        self.assertEqual({type(request) for request in requests}, {bytes, tuple})
        for request in requests:
            if isinstance(request, tuple):
                self.assertIsInstance(request[-1], memoryview)

    def test_reads_visit_every_object_once_a_round(self) -> None:
        self.store()
        get = self.open("Get")
        for index in range(COUNT):
            self.exchange(get, index)
        self.assertEqual(len(set(self.s3.requests)), COUNT)

    def test_ranges(self) -> None:
        self.store()
        read = self.open("RangeGet", range_bytes=1000)
        for index in range(3 * COUNT):
            self.assertEqual(self.perform(read, index).kind, OutcomeKind.OK)
            self.assertLessEqual(read.size(index), 1000)
        self.s3.ignores_ranges = True
        self.assertIn("range was ignored", self.perform(read, 0).error)

    def test_a_range_that_is_all_of_an_object_may_be_answered_as_such(self) -> None:
        self.store()
        self.s3.ignores_ranges = True
        read = self.open("RangeGet", range_bytes=2**20)
        self.assertEqual(self.perform(read, 0).kind, OutcomeKind.OK)

    def test_head_and_delete(self) -> None:
        self.store()
        head = self.open("Head")
        self.assertEqual(self.perform(head, 3).kind, OutcomeKind.OK)
        outcome = head.interpret(3, 200, b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")
        self.assertEqual(outcome.kind, OutcomeKind.WRONG)
        delete = self.open("Delete")
        for index in range(COUNT):
            self.assertEqual(self.perform(delete, index).kind, OutcomeKind.OK)
        self.assertEqual(self.s3.buckets["b"], {})

    def test_listings_are_compared_key_by_key(self) -> None:
        self.store()
        listing = self.open("List", page=5)
        self.assertEqual({self.perform(listing, index).kind for index in range(COUNT)}, {OutcomeKind.OK})
        self.s3.faults = Faults("GET", hide=1)
        outcome = self.perform(listing, 0)
        self.assertEqual((outcome.kind, outcome.error), (OutcomeKind.WRONG, "a listing lacks 1 of 5 keys"))
        self.s3.faults = Faults()
        self.s3.buckets["b"]["data-00/aliens"] = b""
        outcomes = [self.perform(listing, index) for index in range(COUNT)]
        self.assertIn(OutcomeKind.WRONG, {outcome.kind for outcome in outcomes})

    def upload(self) -> Any:
        objects = ObjectSet("5000", 1, "up-", is_flat=True)
        self.s3.uploads["u0"] = ("b", objects.key(0), {})
        upload = s3_http.Upload("b", objects.to_json(), ["u0"], parts=3, part_bytes=2000)
        upload.open(self.s3.endpoint)
        return upload

    def test_an_upload_in_parts(self) -> None:
        upload, objects = self.upload(), ObjectSet("5000", 1, "up-", is_flat=True)
        upload.prepare(iter(range(4)))
        for index in range(4):
            status, answer = self.exchange(upload, index)
            self.assertEqual(upload.interpret(index, status, answer).kind, OutcomeKind.OK)
            if index < 3:
                self.assertTrue(upload.learn(index, answer))
        self.assertEqual(self.s3.buckets["b"][objects.key(0)], objects.body(0))
        self.assertEqual([upload.size(i) for i in range(4)], [2000, 2000, 1000, 0])
        self.assertEqual([upload.operation(i)[0] for i in range(5)], [*["part"] * 3, "complete", "part"])

    def test_a_part_that_the_server_gives_no_name_ends_its_upload(self) -> None:
        upload, nameless = self.upload(), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        self.assertFalse(upload.learn(0, nameless))
        self.assertIn("without ETag", upload.interpret(0, 200, nameless).error)

    def test_a_completion_that_fails_with_200_is_no_success(self) -> None:
        error = b"<Error><Code>InternalError</Code><Message>x</Message></Error>"
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(error)
        outcome = self.upload().interpret(3, 200, head + error)
        self.assertEqual((outcome.kind, outcome.error), (OutcomeKind.PROTOCOL, "InternalError: x"))


class Mixing(S3Case):
    def test_shares_are_kept_and_all_operations_work(self) -> None:
        self.store()
        doomed = ObjectSet.from_json({**OBJECTS, "prefix": "doomed-"})
        self.s3.buckets["b"] |= {doomed.key(n): b"" for n in range(5)}
        mixed = self.open("Mixed", weights=WEIGHTS, most_new=1000, doomed=5)
        names = [mixed.operation(index)[0] for index in range(200)]
        self.assertEqual({name: names.count(name) // 2 for name in WEIGHTS}, WEIGHTS)
        self.assertEqual({self.perform(mixed, index).kind for index in range(200)}, {OutcomeKind.OK})
        keys = list(self.s3.buckets["b"])
        self.assertEqual(sum(key.startswith("new-") for key in keys), 30 - 15)
        self.assertFalse(any(key.startswith("doomed-") for key in keys))
        self.assertEqual(sum(key.startswith("data-") for key in keys), COUNT)

    def test_writes_leave_no_more_than_was_allowed(self) -> None:
        mixed = self.open("Mixed", weights={"put": 1}, most_new=3)
        for index in range(10):
            self.perform(mixed, index)
        self.assertEqual(len(self.s3.buckets["b"]), 3)

    def test_weights_that_cannot_be(self) -> None:
        for weights in ({}, {"get": 0}, {"get": -1, "put": 2}, {"fly": 1}):
            with self.assertRaises(WorkloadError):
                self.open("Mixed", weights=weights, most_new=1)


class BadAnswers(S3Case):
    def outcome(self, kind: str = "Get", index: int = 0, **faults: Any) -> Any:
        self.store()
        self.s3.faults = Faults("GET", **faults)
        return self.perform(self.open(kind), index)

    def test_another_length_or_content_is_wrong(self) -> None:
        self.assertIn("bytes instead of", self.outcome(shorten=1).error)
        outcome = self.outcome(corrupt=True)
        self.assertEqual((outcome.kind, outcome.error[:11]), (OutcomeKind.WRONG, "the content"))

    def test_refusals_become_one_line(self) -> None:
        get = self.open("Get")
        self.s3.faults = Faults("GET", code="SlowDown")
        status, body = self.exchange(get, 0)
        self.assertEqual((status, get.refusal(status, body)), (503, "HTTP 503 SlowDown: so it was asked for"))
        self.assertEqual(get.refusal(502, b"<html>bad gateway"), "HTTP 502")

    def test_what_is_no_listing(self) -> None:
        listing = self.open("List")
        self.assertEqual(listing.interpret(0, 200, b"<html>").kind, OutcomeKind.PROTOCOL)

    def test_a_few_large_answers_are_kept_and_all_small_ones(self) -> None:
        small = [s3_http.is_sampled(i, 4096) for i in range(100)]
        large = [s3_http.is_sampled(i, 2**20) for i in range(6400)]
        self.assertTrue(all(small))
        self.assertTrue(50 < sum(large) < 150, sum(large))
        self.assertFalse(any(s3_http.is_sampled(i, 5 * 10**9) for i in range(1000)))


class Signing(S3Case):
    def test_the_skew_of_a_clock_is_refused_with_advice(self) -> None:
        self.s3.clock_ahead_s = 1000
        get = self.open("Get")
        status, body = self.exchange(get, 0)
        self.assertIn(
            "RequestTimeTooSkewed: the clocks of client and server differ", get.refusal(status, body)
        )

    def test_requests_made_ahead_are_signed_again_when_they_are_too_old(self) -> None:
        now_s = 1_000_000.0
        dates: list[str] = []

        def make(number: int, date: str) -> bytes:
            dates.append(date)
            return f"{number} {date}".encode()

        requests = s3_http.SignedRequests(make, wall_s=lambda: now_s, monotonic_s=lambda: now_s)
        requests.prepare(iter([0, 1, 2, 0, 1]))
        self.assertEqual(len(dates), 3)
        first = requests[0]
        now_s += FRESH_S - 1
        self.assertEqual((requests[0], len(dates)), (first, 3))
        now_s += 2
        self.assertNotEqual(requests[0], first)
        self.assertEqual((requests[0], len(dates)), (requests[0], 4))
        requests[7]
        self.assertEqual(len(dates), 5)

    def test_an_endless_list_of_operations_is_prepared_in_part(self) -> None:
        put = self.open("Put", count=2**31)
        put.prepare(iter(range(300)))
        put.request(10**6)

    def test_a_path_prefix_is_part_of_what_is_signed(self) -> None:
        from dataclasses import replace

        get = s3_http.Get("b", OBJECTS, COUNT)
        get.open(replace(self.s3.endpoint, prefix="/some/prefix", host="::1"))
        self.assertRegex(
            sent(get.request(0)), rb"^GET /some/prefix/b/data-\w\w/\d+ HTTP/1.1\r\nhost: \[::1\]:\d+\r\n"
        )


if __name__ == "__main__":
    unittest.main()
