"""RAG: stages of an operation kept and told, what each stage can do wrong, one run through all services."""

import socket
import tempfile
import threading
import unittest
import unittest.mock
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from test.fakes.chroma import FakeChroma, Faults
from test.fakes.clock import FastClock
from test.fakes.openai_server import CHAT, EMBEDDINGS, FakeOpenAI
from test.fakes.site import SiteCase, announce
from test.test_run import INSIDE_A_JOB, Script

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import BenchError, ServiceError, UsageError, WorkloadError
from aifbench.load.samples import Samples
from aifbench.load.stages import Stages
from aifbench.load.tokens import Tokens
from aifbench.load.workload import NOT_SEEN, OutcomeKind, TokenTimes
from aifbench.results.definitions import definition
from aifbench.results.record import Measurement, RunRecord, RunState
from aifbench.results.summary import StreamFacts, summarise
from aifbench.session import Session
from aifbench.workloads.rag_http import KeptService
from aifbench.workloads.rag_texts import document, prompt, question

EMBEDDING = frozenset({"/v1/models", EMBEDDINGS, "/health", "/version"})
STORE = {"vectors": "60", "dim": "8", "queries": "10", "k": "3"}
QUICK = {"rate": "30/s", "duration": "500ms", "warmup": "50ms", "drain": "2s", "timeout": "1s"}


class StageColumns(unittest.TestCase):
    def test_of_operations_that_had_different_ones(self) -> None:
        found = Stages.of([{"a": (15, 20)}, {}, {"a": (30, 31), "b": (31, NOT_SEEN)}], origin_ns=10)
        self.assertEqual(found.names, ("a", "b"))
        self.assertEqual(found.begin_ns.tolist(), [[5, -1], [-1, -1], [20, 21]])
        self.assertEqual(found.end_ns.tolist(), [[10, -1], [-1, -1], [21, -1]])

    def test_parts_are_joined_by_name(self) -> None:
        first, second = Stages.of([{"a": (1, 2)}], 0), Stages.of([{"b": (3, 4), "a": (5, 6)}], 0)
        whole = Stages.concatenate([first, Stages.empty(1), second])
        self.assertEqual(whole.names, ("a", "b"))
        self.assertEqual(whole.end_ns.tolist(), [[2, -1], [-1, -1], [6, 4]])

    def test_they_stay_with_their_operations_in_files_and_selections(self) -> None:
        samples = replace(Samples.empty(3), stages=Stages.of([{"a": (n, n + 1)} for n in range(3)], 0))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "s.npz"
            samples.save(path)
            again = Samples.load(path).select(np.array([2, 0]))
        assert again.stages
        self.assertEqual((again.stages.names, again.stages.begin_ns.tolist()), (("a",), [[2], [0]]))
        mixed = Samples.concatenate([samples, Samples.empty(1)])
        assert mixed.stages
        self.assertEqual(len(mixed.stages), 4)


def served(count: int = 400) -> Samples:
    """Due every 10 ms, sent 1 ms late; 2 ms to look up, 6 ms to answer, 0.5 ms of our own after each."""
    ms = 1_000_000
    due = np.arange(count, dtype=np.int64) * 10 * ms
    spans = [
        {"look": (t + ms, t + 3 * ms), "answer": (t + 3 * ms + ms // 2, t + 9 * ms + ms // 2)} for t in due
    ]
    times = [TokenTimes((int(t) + 5 * ms, int(t) + 9 * ms), output_tokens=2, first_tokens=1) for t in due]
    return replace(
        Samples.empty(count),
        intended_ns=due,
        sent_ns=due + ms,
        finished_ns=due + 10 * ms,
        stages=Stages.of(spans, 0),
        tokens=Tokens.of(times, 0),
    )


FACTS = StreamFacts("rag", "rag", "constant 100/s", open_loop=True, measure_s=4.0)


class StageMetrics(unittest.TestCase):
    def summary(self, samples: Samples, facts: StreamFacts = FACTS) -> Measurement:
        return summarise(samples, facts, [])

    def value(self, measurement: Measurement, name: str) -> float | None:
        metric = measurement.metric(name)
        return metric.value if metric else None

    def test_planted_times_are_found_and_shares_add_up(self) -> None:
        found = self.summary(served())
        for name, expected in (
            ("look_p50", 2.0),
            ("look_p99", 2.0),
            ("answer_p50", 6.0),
            ("answer_ttft_p50", 1.5),
            ("ttft_p50", 5.0),
            ("wait_share", 10.0),
            ("look_share", 20.0),
            ("answer_share", 60.0),
            ("client_share", 10.0),
        ):
            self.assertAlmostEqual(self.value(found, name) or 0, expected, msg=name)
        self.assertIsNone(found.metric("look_ttft_p50"))
        shares = [
            m.value or 0 for m in found.metrics if m.name.endswith("_share") and m.name != "error_share"
        ]
        self.assertAlmostEqual(sum(shares), 100)

    def test_in_closed_loop_nothing_waits(self) -> None:
        found = self.summary(served(), replace(FACTS, open_loop=False))
        self.assertEqual(self.value(found, "wait_share"), 0)
        self.assertAlmostEqual(self.value(found, "client_share") or 0, 100 / 9)

    def test_a_stage_that_was_given_up_is_a_lower_bound(self) -> None:
        samples = served()
        assert samples.stages
        slow = np.arange(len(samples)) % 10 == 0
        samples.stages.end_ns[slow, 1] = NOT_SEEN
        samples.outcome[slow] = OutcomeKind.TIMEOUT
        samples.finished_ns[slow] += 500_000_000
        found = self.summary(samples)
        self.assertAlmostEqual(self.value(found, "look_p99") or 0, 2.0)
        tail = found.metric("answer_p99")
        assert tail and tail.value
        self.assertGreater(tail.value, 500)
        self.assertTrue(tail.note.startswith(">="))
        self.assertIsNone(found.metric("answer_mean"))

    def test_without_stages_nothing_is_said_of_them(self) -> None:
        found = self.summary(replace(served(), stages=None))
        self.assertFalse([m.name for m in found.metrics if "share" in m.name and m.name != "error_share"])


class Texts(unittest.TestCase):
    def test_are_a_function_of_seed_and_number(self) -> None:
        self.assertEqual(document(1, 5, 40), document(1, 5, 40))
        self.assertEqual(len(document(1, 5, 40).split()), 40)
        self.assertEqual(len({document(seed, n, 20) for seed in (1, 2) for n in range(50)}), 100)

    def test_a_question_is_about_words_of_a_document(self) -> None:
        about = question(1, 7, 30, 20).removeprefix("Which text speaks of ").removesuffix("?")
        self.assertTrue(any(about in document(1, n, 30) for n in range(20)))
        self.assertIn("?", question(1, 0, 1, 1))

    def test_no_two_prompts_begin_alike(self) -> None:
        first, second = (prompt(f"x-{n}", ["text"], "why?") for n in (1, 2))
        self.assertNotEqual(first[:12], second[:12])
        self.assertIn("[1] text", first)


class Peer:
    """Answers connections one after the other with what a test says; counts them."""

    def __init__(self, *conversations: Callable[[socket.socket], None]) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(5)
        self.connections = 0
        self._thread = threading.Thread(target=self._serve, args=(conversations,), daemon=True)
        self._thread.start()

    def _serve(self, conversations: tuple[Callable[[socket.socket], None], ...]) -> None:
        for conversation in conversations:
            connection, _ = self._socket.accept()
            self.connections += 1
            with connection:
                conversation(connection)

    def service(self, timeout_s: float = 5.0) -> KeptService:
        return KeptService(Endpoint("127.0.0.1", self._socket.getsockname()[1]), {}, timeout_s)

    def close(self) -> None:
        self._socket.close()
        self._thread.join(5)


def answer_once(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def answer_twice(connection: socket.socket) -> None:
    answer_once(connection)
    answer_once(connection)


class KeptConnections(unittest.TestCase):
    def peer(self, *conversations: Callable[[socket.socket], None]) -> Peer:
        peer = Peer(*conversations)
        self.addCleanup(peer.close)
        return peer

    def test_one_connection_serves_many_requests(self) -> None:
        peer = self.peer(answer_twice)
        with closing(peer.service()) as service:
            for _ in range(2):
                done = service.post("/x", b"{}")
                self.assertEqual((done.error, done.status, done.answer.body), (None, 200, b"ok"))
                self.assertLess(done.began_ns, done.ended_ns)
                self.assertEqual(done.answer.read_ns[-1], done.ended_ns)
        self.assertEqual(peer.connections, 1)

    def test_a_connection_that_was_closed_meanwhile_is_replaced(self) -> None:
        peer = self.peer(answer_once, answer_once)
        with closing(peer.service()) as service:
            self.assertIsNone(service.post("/x", b"{}").error)
            peer._thread.join(0.2)
            self.assertIsNone(service.post("/x", b"{}").error)
        self.assertEqual(peer.connections, 2)

    def test_what_came_before_a_cut_is_kept(self) -> None:
        def cut(connection: socket.socket) -> None:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf")

        done = self.peer(cut).service().post("/x", b"{}")
        self.assertIsInstance(done.error, ConnectionResetError)
        self.assertEqual((done.status, done.answer.body), (200, b"half"))

    def test_no_answer_in_time_and_what_is_no_http(self) -> None:
        held = threading.Event()
        self.addCleanup(held.set)
        silent = self.peer(lambda _: held.wait(5) and None)
        self.assertIsInstance(silent.service(0.05).post("/x", b"{}").error, TimeoutError)
        held.set()

        def babble(connection: socket.socket) -> None:
            connection.recv(65536)
            connection.sendall(b"SMTP ready\r\n")

        self.assertIn("not an HTTP", str(self.peer(babble).service().post("/x", b"{}").error))

    def test_nobody_there(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            gone = KeptService(Endpoint("127.0.0.1", sock.getsockname()[1]), {}, 1.0)
        self.assertIsInstance(gone.post("/x", b"{}").error, ConnectionRefusedError)
        with self.assertRaises(WorkloadError):
            gone.connect(1)


class RagCase(SiteCase):
    """A ready Chroma that Slurm runs; a language model and an embedding model that somebody else runs."""

    def setUp(self) -> None:
        super().setUp()
        self.session = Session(
            self.config, scheduler=self.scheduler(), clock=FastClock(), environ=INSIDE_A_JOB
        )
        self.chroma = FakeChroma()
        self.enterContext(self.chroma)
        self.session.start("chroma", {"name": "store"})
        self.slurm.start("1")
        announce(self.session.server("store"), self.chroma.endpoint)
        self.llm = self.serve("llm")

    def serve(self, name: str, **manners: Any) -> FakeOpenAI:
        fake = FakeOpenAI(**manners)
        self.enterContext(fake)
        self.session.attach("vllm", fake.url, {"name": name})
        return fake

    def bench(
        self, roles: tuple[str, ...] = ("llm", "store"), given: dict[str, Any] | None = None, **changes: Any
    ) -> RunRecord:
        members = {
            "llm": ("llm", "generate", {"output_tokens": "8", **changes.get("llm", {})}),
            "store": ("store", "search", {**STORE, **changes.get("store", {})}),
            "embed": ("embed", "embed", changes.get("embed", {})),
        }
        chosen = {role: members[role] for role in roles}
        return self.session.bench_together(chosen, "rag", {**QUICK, **(given or {})}, Script())

    def values(self, record: RunRecord) -> dict[str, float | None]:
        (measurement,) = record.measurements
        return {metric.name: metric.value for metric in measurement.metrics}

    def assert_nothing_left(self) -> None:
        self.assertEqual(self.chroma.collections, {})
        self.assertEqual(list((self.config.results_dir / "datasets").glob("rag-*")), [])


class Runs(RagCase):
    def test_all_stages_in_one_record(self) -> None:
        embed = self.serve("embed", paths=EMBEDDING, models=("tiny-embed",))
        record = self.bench(("llm", "store", "embed"), store={"dim": None})
        self.assertEqual(record.state, RunState.COMPLETE)
        (measurement,) = record.measurements
        self.assertEqual((measurement.phase, measurement.errors), ("rag", {}))
        values = self.values(record)
        self.assertEqual((values["recall@3"], values["exact length"]), (1, 1))
        for name in ("embed_p50", "retrieve_p50", "generate_p50", "generate_ttft_p50", "ttft_p50", "e2e_p50"):
            self.assertIn(name, values)
            found = definition(name)
            assert found, name
        stages = ("wait", "embed", "retrieve", "generate", "client")
        shares = [values[f"{name}_share"] or 0 for name in stages]
        self.assertAlmostEqual(sum(shares), 100)
        self.assertTrue(all(share > 0 for share in shares[1:]))
        self.assertTrue(all(definition(f"{name}_share") for name in stages))
        samples = Samples.load(self.config.results_dir / record.run_id / measurement.samples_file)
        assert samples.stages and samples.tokens
        self.assertEqual(samples.stages.names, ("embed", "retrieve", "generate"))
        self.assertTrue((samples.stages.end_ns[:, :2] <= samples.stages.begin_ns[:, 1:]).all())
        self.assertTrue((samples.tokens.first_ns >= samples.stages.begin_ns[:, 2]).all())
        self.assertEqual(record.recipe["facts"]["dataset"]["dim"], 3)
        self.assertEqual(record.service["name"], "llm+store+embed")
        self.assertIn(EMBEDDINGS, {path for _, path, _ in embed.asked})
        self.what_the_model_was_asked()
        self.assert_nothing_left()
        text = self.session.run_text(record.run_id)
        for words in ("retrieve", "generate share", "client share", "recall@3"):
            self.assertIn(words, text)

    def what_the_model_was_asked(self) -> None:
        """Retrieved documents, and no prompt twice."""
        texts = [
            body["messages"][0]["content"]
            for _, path, body in self.llm.asked
            if path == CHAT and body["messages"][0]["content"].startswith("Request ")
        ]
        self.assertEqual(len(texts), len(set(texts)))
        stored = {document(1, number, 60) for number in range(60)}
        cited = [line.split("] ", 1)[1] for line in texts[-1].split("\n\n") if line.startswith("[")]
        self.assertEqual(len(cited), 3)
        self.assertLessEqual(set(cited), stored)

    def test_without_an_embedding_service_there_is_no_such_stage(self) -> None:
        record = self.bench(given={"seed": "3"}, llm={"seed": "3"}, store={"seed": "3"})
        values = self.values(record)
        self.assertEqual(values["recall@3"], 1)
        self.assertFalse([name for name in values if name.startswith("embed")])
        self.assertIn("made before", record.recipe["facts"]["embed"])
        self.assertEqual(record.measurements[0].parameters["embedded"], "beforehand")

    def test_what_goes_wrong_is_told_by_its_stage(self) -> None:
        def break_store() -> None:
            self.chroma.faults = Faults("/query$", status=500)

        members = {
            "llm": ("llm", "generate", {"output_tokens": "8"}),
            "store": ("store", "search", STORE),
        }
        record = self.session.bench_together(members, "rag", QUICK, Script(phases={"rag": break_store}))
        (measurement,) = record.measurements
        self.assertEqual(set(measurement.outcomes), {"SERVER_ERROR"})
        self.assertIn("retrieve: HTTP 500", next(iter(measurement.errors)))
        self.assert_nothing_left()

    def test_a_model_that_hangs_is_a_timeout_of_its_stage(self) -> None:
        def hang() -> None:
            self.llm.delay_s[CHAT] = 30.0

        members = {
            "llm": ("llm", "generate", {"output_tokens": "8"}),
            "store": ("store", "search", STORE),
        }
        given = {**QUICK, "timeout": "200ms", "rate": "10/s"}
        record = self.session.bench_together(members, "rag", given, Script(phases={"rag": hang}))
        (measurement,) = record.measurements
        self.assertEqual(set(measurement.outcomes), {"TIMEOUT"})
        self.assertIn("generate: ", next(iter(measurement.errors)))


class Refusals(RagCase):
    def refused(self, kind: type[BenchError], words: str, **changes: Any) -> None:
        with self.assertRaises(kind) as caught:
            self.bench(**changes)
        self.assertIn(words, f"{caught.exception.message} {caught.exception.hint}")
        self.assert_nothing_left()

    def test_what_means_nothing_in_a_chain(self) -> None:
        self.serve("embed", paths=EMBEDDING, models=("tiny-embed",))
        everyone = ("llm", "store", "embed")
        for words, changes in (
            ("rag does not use input_tokens of llm", {"llm": {"input_tokens": "64"}}),
            ("rag does not use rate of store", {"store": {"rate": "5/s"}}),
            ("dim of store: the embedding model decides", {"roles": everyone}),
            ("such as 128", {"llm": {"output_tokens": "uniform:1:9"}}),
            ("--slo", {"given": {"slo": "ttft"}}),
            ("rag has one seed, 1; store has 2", {"store": {"seed": "2"}}),
        ):
            with self.subTest(words):
                self.refused(UsageError, words, **changes)

    def test_documents_that_do_not_fit_the_model(self) -> None:
        self.llm.max_model_len = 40
        with unittest.mock.patch.object(self.llm, "_prompt_tokens", return_value=5):
            self.refused(UsageError, "lower document-words", llm={"output_tokens": "39"})

    def test_an_embedding_service_that_embeds_nothing(self) -> None:
        self.serve("embed")
        self.refused(UsageError, "embeds nothing", roles=("llm", "store", "embed"), store={"dim": None})

    def test_documents_that_get_lost(self) -> None:
        self.chroma.faults = Faults("/add$", lose_every=7)
        self.refused(ServiceError, "of 60 documents were stored")


if __name__ == "__main__":
    unittest.main()
