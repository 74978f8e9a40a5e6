"""Vector workloads against a Chroma that speaks the real JSON, and misbehaves when told to."""

import gc
import json
import socket
import tempfile
import threading
import unittest
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from test.fakes.chroma import FakeChroma

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import BenchError, NotReady, ServiceError, WorkloadError
from aifbench.load.http import ResponseReader
from aifbench.load.workload import Outcome, OutcomeKind
from aifbench.workloads import chroma_http, chroma_sdk
from aifbench.workloads.chroma_control import ChromaControl, ChromaNamespace
from aifbench.workloads.datasets import Dataset, DatasetSpec, Filter, load_dataset
from aifbench.workloads.preparation import prepare_dataset
from aifbench.workloads.vectors import AnswerScorer, Batches, PreparedRequests

OK = OutcomeKind.OK


def exchange(endpoint: Endpoint, request: bytes) -> tuple[int, bytes]:
    """One request on its own connection; (0, nothing) if it ends without an answer."""
    reader = ResponseReader()
    with socket.create_connection((endpoint.host, endpoint.port), timeout=5) as connection:
        connection.sendall(request)
        while data := connection.recv(65536):
            if reader.feed(data):
                return reader.status, reader.body
    return 0, b""


class WithData(unittest.TestCase):
    """A data set of 300 vectors, 240 of them base, prepared once for all tests."""

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.directory = Path(folder.name)
        cls.path = cls.prepare()
        cls.data = load_dataset(cls.path)

    @classmethod
    def prepare(cls, **spec: Any) -> Path:
        small = {"vectors": 300, "dim": 8, "queries": 12, "k": 5, "base": 240}
        return prepare_dataset(DatasetSpec(**{**small, **spec}), cls.directory)


class Scoring(WithData):
    def exact(self, query: int, rows: np.ndarray) -> list[int]:
        near = ((self.data.vectors[rows] - self.data.queries[query]) ** 2).sum(axis=1)
        return rows[np.argsort(near, kind="stable")][:5].tolist()

    def test_base_answers_score_as_plain_recall(self) -> None:
        scorer = AnswerScorer(self.data, 5)
        for query in range(12):
            truth = self.data.neighbors[query].tolist()
            far = [row for row in range(240) if row not in truth][:2]
            self.assertEqual(scorer.score(query, truth), (1.0, 1.0))
            self.assertEqual(scorer.score(query, truth[:3] + far), (0.6, 0.6))

    def test_exact_answers_while_inserting_score_one_whatever_is_visible(self) -> None:
        scorer = AnswerScorer(self.data, 5)
        random = np.random.default_rng(1)
        mixed = 0
        for query in range(12):
            for visible in (0, 1, 10, 60):
                inserted = 240 + random.permutation(60)[:visible]
                answer = self.exact(query, np.concatenate([np.arange(240), inserted]))
                mixed += max(answer) >= 240
                self.assertEqual(scorer.score(query, answer), (1.0, 1.0))
        self.assertGreater(mixed, 5)

    def test_score_while_inserting_is_never_below_the_true_recall(self) -> None:
        scorer = AnswerScorer(self.data, 5)
        random = np.random.default_rng(2)
        for query in range(12):
            truth = set(self.exact(query, np.arange(300)))
            for _ in range(20):
                answer = random.permutation(300)[:5].tolist()
                self.assertGreaterEqual(scorer.score(query, answer)[0], len(truth & set(answer)) / 5)

    def test_far_inserted_vectors_and_missed_base_vectors_cost(self) -> None:
        scorer = AnswerScorer(self.data, 5)
        near = ((self.data.vectors[240:] - self.data.queries[0]) ** 2).sum(axis=1)
        farthest = 240 + int(near.argmax())
        truth = self.data.neighbors[0].tolist()
        self.assertEqual(scorer.score(0, [*truth[:4], farthest]), (0.8, 0.8))
        closest = 240 + int(near.argmin())
        others = [row for row in range(240) if row not in truth][:4]
        self.assertLessEqual(scorer.score(0, [closest, *others])[0], 0.2)

    def test_equally_near_vectors_are_right_only_when_tie_aware(self) -> None:
        vectors = np.array([[0, 0], [1, 0], [0, 1], [3, 3]], np.float32)
        data = Dataset(
            Path(), "ties", "l2", vectors, np.zeros((1, 2), np.float32), np.array([[0, 1]]),
            np.array([[0.0, 1.0]]), 4, 1.0, "", None,
        )  # fmt: skip
        scorer = AnswerScorer(data, 2)
        self.assertEqual(scorer.score(0, [0, 2]), (0.5, 1.0))
        self.assertEqual(scorer.score(0, [0, 3]), (0.5, 0.5))

    def test_answers_that_cannot_be_right_are_wrong(self) -> None:
        scorer = AnswerScorer(self.data, 5)
        truth = [str(row) for row in self.data.neighbors[0]]
        self.assertEqual(scorer.check(0, truth), Outcome(qualities=(1.0, 1.0)))
        for ids, text in (
            (truth[:4], "4 neighbours instead of 5"),
            ([], "0 neighbours"),
            ([*truth, "1"], "6 neighbours"),
            ([*truth[:4], truth[0]], "twice"),
            ([*truth[:4], "300"], "never stored"),
            ([*truth[:4], "-1"], "never stored"),
            ([*truth[:4], "x"], "never stored"),
            ([*truth[:4], None], "never stored"),
        ):
            outcome = scorer.check(0, ids)
            with self.subTest(text):
                self.assertEqual(outcome.kind, OutcomeKind.WRONG)
                self.assertIn(text, outcome.error)

    def test_k_is_limited_by_the_ground_truth(self) -> None:
        for k in (0, 6):
            with self.assertRaises(WorkloadError):
                AnswerScorer(self.data, k)


class Preparing(unittest.TestCase):
    def test_batches_cover_every_row_once(self) -> None:
        for first, last, size in ((0, 10, 3), (5, 6, 100), (2, 12, 5)):
            batches = Batches(first, last, size)
            rows = [row for index in range(len(batches)) for row in batches.rows(index)]
            self.assertEqual(rows, list(range(first, last)))

    def test_batches_beyond_the_data_are_refused(self) -> None:
        for index in (-1, 4):
            with self.assertRaises(WorkloadError) as caught:
                Batches(0, 10, 3).rows(index)
            self.assertIn("used up after 4 batches", str(caught.exception))
        for first, last, size in ((0, 0, 1), (0, 5, 0), (-1, 5, 1), (5, 4, 1)):
            with self.assertRaises(WorkloadError):
                Batches(first, last, size)

    def test_requests_are_prepared_within_the_limit_and_then_on_demand(self) -> None:
        encoded: list[int] = []

        def encode(index: int) -> bytes:
            encoded.append(index)
            return b"%04d" % index

        requests = PreparedRequests(encode, 10, limit_bytes=10)
        self.assertEqual(encoded, [0, 1, 2])
        self.assertEqual([requests[i] for i in (2, 3, 9, 3)], [b"0002", b"0003", b"0009", b"0003"])
        self.assertEqual(encoded, [0, 1, 2, 3, 9, 3])

    def test_vectors_survive_their_text(self) -> None:
        random = np.random.default_rng(3)
        vector = (random.standard_normal(500) * 10.0 ** random.integers(-30, 30, 500)).astype(np.float32)
        text = json.loads(chroma_http.vector_json(vector))
        np.testing.assert_array_equal(np.array(text, np.float32), vector)


class WithChroma(WithData):
    def setUp(self) -> None:
        self.chroma = self.enterContext(FakeChroma())
        self.control = ChromaControl(self.chroma.endpoint)
        self.addCleanup(self.control.close)
        self.namespace = ChromaNamespace(self.control, "r1")

    def make(self, path: Path | None = None, *, filled: bool = True, attributes: bool = False) -> str:
        """A collection holding the base vectors of the data set at `path`."""
        data = load_dataset(path or self.path)
        name = self.namespace.create(f"c{len(self.chroma.collections)}", data.metric).name
        if filled:
            self.run_all(
                chroma_http.Ingest(str(data.path), name, batch=100, last=data.base, attributes=attributes), 3
            )
        return name

    def run_all(self, workload: Any, count: int) -> list[Outcome]:
        """Operations 0 .. count-1, on the wire or by the blocking client."""
        workload.open(self.chroma.endpoint)
        self.addCleanup(workload.close)
        if hasattr(workload, "perform"):
            return [workload.perform(index) for index in range(count)]
        outcomes = []
        for index in range(count):
            status, body = exchange(self.chroma.endpoint, workload.request(index))
            self.assertIn(status, (200, 201), body)
            outcomes.append(workload.interpret(index, status, body))
        return outcomes


class Control(WithChroma):
    def test_server_facts(self) -> None:
        self.control.heartbeat()
        self.assertEqual(self.control.version(), "1.0.0")
        limits = self.control.limits()
        self.assertEqual((limits.max_batch_size, limits.base64), (5461, True))

    def test_a_new_collection_tells_its_effective_index(self) -> None:
        made = self.namespace.create("a", "cosine", index={"ef_search": 50}, metadata={"run": "r1"})
        self.assertEqual((made.name, made.metric, made.metadata), ("aifb_r1_a", "cosine", {"run": "r1"}))
        self.assertEqual((made.index["ef_search"], made.index["ef_construction"]), (50, 100))
        self.assertEqual(self.control.collection("aifb_r1_a"), made)
        self.assertEqual(self.control.count(made), 0)

    def test_ignored_index_settings_are_noticed(self) -> None:
        self.chroma.index_settings_ignored = True
        with self.assertRaises(ServiceError) as caught:
            self.namespace.create("a", "l2", index={"ef_search": 7})
        self.assertIn("ignored the index settings {'ef_search': 7}", str(caught.exception))

    def test_only_collections_of_the_run_are_deleted(self) -> None:
        others = ChromaNamespace(self.control, "r12")
        others.create("x", "l2")
        for number in range(3):
            self.namespace.create(f"n{number}", "l2")
        self.assertEqual(self.namespace.clear(), 3)
        self.assertEqual([c.name for c in self.control.collections()], ["aifb_r12_x"])
        with self.assertRaises(ServiceError) as caught:
            self.namespace.delete("aifb_r12_x")
        self.assertIn("does not belong to this run", str(caught.exception))

    def test_lists_longer_than_a_page(self) -> None:
        for number in range(205):
            self.namespace.create(f"n{number}", "l2")
        self.assertEqual(len(self.namespace.names()), 205)

    def test_the_server_s_own_words_are_passed_on(self) -> None:
        self.namespace.create("a", "l2")
        for call, text in (
            (
                lambda: self.namespace.create("a", "l2"),
                "409 to POST /collections: Collection [aifb_r1_a] already",
            ),
            (lambda: self.control.collection("none"), "Collection [none] does not exist"),
            (lambda: self.namespace.create("a" * 600, "l2"), "3-512 characters"),
        ):
            with self.subTest(text), self.assertRaises(ServiceError) as caught:
                call()
            self.assertIn(text, str(caught.exception))

    def test_a_dead_a_hung_and_a_foreign_server(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        with self.assertRaises(NotReady):
            ChromaControl(Endpoint("127.0.0.1", port)).heartbeat()
        self.chroma.faults.where = "heartbeat"
        self.chroma.faults.hang = True
        with self.assertRaises(NotReady) as caught:
            ChromaControl(self.chroma.endpoint, timeout_s=0.2).heartbeat()
        self.assertIn("no answer", str(caught.exception))
        self.chroma.faults.hang = False
        self.chroma.faults.garbage = True
        with self.assertRaises(ServiceError) as foreign:
            self.control.heartbeat()
        self.assertIn("not JSON", str(foreign.exception))


class Authenticated(WithData):
    def test_the_secret_opens_and_its_absence_is_named(self) -> None:
        secret = self.directory / "secret"
        secret.write_text("s3cret\n", encoding="ascii")
        with FakeChroma(token="s3cret", secret_file=secret) as chroma:
            control = ChromaControl(chroma.endpoint)
            self.addCleanup(control.close)
            name = ChromaNamespace(control, "r").create("a", "l2").name
            ingest = chroma_http.Ingest(str(self.path), name, batch=300)
            ingest.open(chroma.endpoint)
            self.assertEqual(exchange(chroma.endpoint, ingest.request(0))[0], 201)
            stranger = ChromaControl(Endpoint("127.0.0.1", chroma.endpoint.port))
            self.addCleanup(stranger.close)
            with self.assertRaises(ServiceError) as caught:
                stranger.version()
            self.assertIn("refused the credentials", str(caught.exception))


class Http(WithChroma):
    def test_ingest_stores_every_vector_exactly_in_either_encoding(self) -> None:
        for base64 in (True, False, None):
            name = self.make(filled=False)
            outcomes = self.run_all(chroma_http.Ingest(str(self.path), name, batch=70, base64=base64), 5)
            self.assertEqual([(o.kind, o.items) for o in outcomes], [(OK, 70)] * 4 + [(OK, 20)])
            stored = self.chroma.named(name).vectors
            self.assertEqual(self.control.count(self.control.collection(name)), 300)
            for row in range(300):
                np.testing.assert_array_equal(stored[str(row)], self.data.vectors[row])

    def test_the_encoding_follows_the_server(self) -> None:
        for able in (True, False):
            self.chroma.base64 = able
            ingest = chroma_http.Ingest(str(self.path), self.make(filled=False), batch=2)
            ingest.open(self.chroma.endpoint)
            body = json.loads(ingest.request(0).partition(b"\r\n\r\n")[2])
            self.assertIsInstance(body["embeddings"][0], str if able else list)

    def test_ingest_refuses_what_cannot_work_before_the_load(self) -> None:
        self.chroma.max_batch_size = 100
        name = self.make(filled=False)
        for params, text in (
            ({"batch": 101}, "at most 100"),
            ({"last": 301}, "rows up to 301 of 300"),
            ({"first": 300}, "no work"),
            ({"collection": "none"}, "[none] does not exist"),
            ({"dataset": "/nowhere"}, "/nowhere"),
        ):
            ingest = chroma_http.Ingest(**{"dataset": str(self.path), "collection": name, **params})
            with self.subTest(text), self.assertRaises(BenchError) as caught:
                ingest.open(self.chroma.endpoint)
            self.assertIn(text, str(caught.exception))

    def test_lost_vectors_show_in_the_count(self) -> None:
        self.chroma.faults.lose_every = 10
        name = self.make()
        self.assertEqual(self.control.count(self.control.collection(name)), 216)

    def test_search_by_every_metric_has_recall_one(self) -> None:
        for metric in ("l2", "cosine", "ip"):
            path = self.prepare(metric=metric)
            outcomes = self.run_all(chroma_http.Search(str(path), self.make(path), k=5), 13)
            self.assertEqual({(o.kind, o.items) for o in outcomes}, {(OK, 1)})
            self.assertEqual({o.qualities for o in outcomes}, {(1.0, 1.0)})

    def test_search_with_a_filter(self) -> None:
        path = self.prepare(filter=Filter("bucket", 10))
        name = self.make(path, attributes=True)
        outcomes = self.run_all(chroma_http.Search(str(path), name, k=5), 12)
        self.assertEqual({(o.kind, o.qualities) for o in outcomes}, {(OK, (1.0, 1.0))})
        unfiltered = load_dataset(path)
        wrong = AnswerScorer(unfiltered, 5).check(0, ["10", "1", "2", "3", "4"])
        self.assertEqual(wrong.error, "a vector that the filter excludes")

    def test_search_while_ingesting(self) -> None:
        name = self.make()
        search = chroma_http.Search(str(self.path), name, k=5)
        ingest = chroma_http.Ingest(str(self.path), name, batch=10, first=240)
        search.open(self.chroma.endpoint)
        ingest.open(self.chroma.endpoint)
        for index in range(6):
            exchange(self.chroma.endpoint, ingest.request(index))
            for query in range(12):
                answer = exchange(self.chroma.endpoint, search.request(query))
                self.assertEqual(search.interpret(query, *answer).qualities, (1.0, 1.0))

    def test_wrong_neighbors_have_no_recall_and_few_are_wrong(self) -> None:
        name = self.make()
        self.chroma.faults.wrong_neighbors = True
        for outcome in self.run_all(chroma_http.Search(str(self.path), name, k=5), 12):
            self.assertEqual((outcome.kind, outcome.qualities), (OK, (0.0, 0.0)))
        self.chroma.faults.short_answers = True
        (outcome,) = self.run_all(chroma_http.Search(str(self.path), name, k=5), 1)
        self.assertEqual((outcome.kind, outcome.error), (OutcomeKind.WRONG, "4 neighbours instead of 5"))

    def test_dropped_connections_and_statuses_reach_the_engine(self) -> None:
        search = chroma_http.Search(str(self.path), self.make(), k=5)
        search.open(self.chroma.endpoint)
        self.chroma.faults.drop = True
        self.assertEqual(exchange(self.chroma.endpoint, search.request(0)), (0, b""))
        self.chroma.faults.drop, self.chroma.faults.status = False, 500
        self.assertEqual(exchange(self.chroma.endpoint, search.request(0))[0], 500)

    def test_unexpected_answers_break_the_protocol(self) -> None:
        name = self.make()
        workloads = (
            chroma_http.Search(str(self.path), name, k=5),
            chroma_http.Ingest(str(self.path), name),
            chroma_http.Create("aifb_r1_x"),
            chroma_http.Delete(str(self.path), name),
        )
        bodies = (b"", b"<html>", b"[]", b"null", b"7", b"\xff")
        for workload in workloads:
            workload.open(self.chroma.endpoint)
            for body in bodies:
                with self.subTest(workload=workload, body=body):
                    outcome = workload.interpret(0, 200, body)
                    self.assertEqual(outcome.kind, OutcomeKind.PROTOCOL)
        for body in (b'{"ids":[]}', b'{"ids":[[],[]]}', b'{"ids":5}', b'{"ids":["12345"]}', b'{"ids":null}'):
            with self.subTest(body):
                self.assertEqual(workloads[0].interpret(0, 200, body).kind, OutcomeKind.PROTOCOL)

    def test_create_and_clear(self) -> None:
        outcomes = self.run_all(chroma_http.Create(self.namespace.name("new"), "cosine"), 4)
        self.assertEqual({o.kind for o in outcomes}, {OK})
        self.assertEqual(self.control.collection("aifb_r1_new_3").metric, "cosine")
        self.assertEqual(self.namespace.clear(), 4)
        other = chroma_http.Create("aifb_r1_new").interpret(0, 200, b'{"name":"aifb_r1_new_1"}')
        self.assertEqual(other.kind, OutcomeKind.WRONG)

    def test_delete(self) -> None:
        name = self.make()
        outcomes = self.run_all(chroma_http.Delete(str(self.path), name, batch=100, last=240), 3)
        self.assertEqual([(o.kind, o.items) for o in outcomes], [(OK, 100), (OK, 100), (OK, 40)])
        self.assertEqual(self.control.count(self.control.collection(name)), 0)
        delete = chroma_http.Delete(str(self.path), name, batch=100)
        delete.open(self.chroma.endpoint)
        self.assertEqual(delete.interpret(0, 200, b'{"deleted":99}').kind, OutcomeKind.WRONG)
        self.assertEqual(delete.interpret(0, 200, b"{}").items, 100)

    def test_requests_beyond_the_data(self) -> None:
        name = self.make()
        search = chroma_http.Search(str(self.path), name, k=5)
        ingest = chroma_http.Ingest(str(self.path), name, batch=300)
        search.open(self.chroma.endpoint)
        ingest.open(self.chroma.endpoint)
        self.assertEqual(search.request(25), search.request(1))
        with self.assertRaises(WorkloadError):
            ingest.request(1)


class Sdk(WithChroma):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        # The SDK leaves its connections to the garbage collector, also after close().
        cls.enterClassContext(warnings.catch_warnings())
        warnings.simplefilter("ignore", ResourceWarning)
        cls.addClassCleanup(gc.collect)

    def test_answers_equal_those_by_http(self) -> None:
        path = self.prepare(filter=Filter("bucket", 30))
        name = self.make(path, filled=False)
        outcomes = self.run_all(chroma_sdk.Ingest(str(path), name, batch=80, attributes=True), 4)
        self.assertEqual([(o.kind, o.items) for o in outcomes], [(OK, 80)] * 3 + [(OK, 60)])
        np.testing.assert_array_equal(self.chroma.named(name).vectors["299"], self.data.vectors[299])
        results = [
            self.run_all(module.Search(str(path), name, k=5), 12) for module in (chroma_http, chroma_sdk)
        ]
        self.assertEqual(results[0], results[1])
        self.assertEqual({o.kind for o in results[0]}, {OK})

    def test_failures_have_their_kind(self) -> None:
        search = chroma_sdk.Search(str(self.path), self.make(), k=5)
        self.run_all(search, 1)
        for status, kind in (
            (500, OutcomeKind.SERVER_ERROR),
            (502, OutcomeKind.SERVER_ERROR),
            (503, OutcomeKind.THROTTLED),
            (422, OutcomeKind.CLIENT_ERROR),
        ):
            self.chroma.faults.status = status
            with self.subTest(status):
                outcome = search.perform(0)
                self.assertEqual(outcome.kind, kind)
                self.assertIn("planted", outcome.error)
        self.chroma.faults.drop = True
        self.assertEqual(search.perform(0).kind, OutcomeKind.BROKEN)

    def test_used_from_several_threads(self) -> None:
        search = chroma_sdk.Search(str(self.path), self.make(), k=5)
        self.run_all(search, 1)
        outcomes: list[Outcome] = []
        threads = [
            threading.Thread(target=lambda: outcomes.extend(search.perform(i) for i in range(12)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual({o.qualities for o in outcomes}, {(1.0, 1.0)})
        self.assertEqual(len(outcomes), 48)

    def test_a_missing_collection_is_explained_before_the_load(self) -> None:
        with self.assertRaises(ServiceError) as caught:
            chroma_sdk.Search(str(self.path), "aifb_none", k=5).open(self.chroma.endpoint)
        self.assertIn("[aifb_none] does not exist", str(caught.exception))

    def test_close_without_open(self) -> None:
        chroma_sdk.Search(str(self.path), "x").close()
        chroma_sdk.Ingest(str(self.path), "x").close()


if __name__ == "__main__":
    unittest.main()
