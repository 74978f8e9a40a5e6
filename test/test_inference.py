"""Inference workloads: they send what they were told, and a conversation goes on from what was said."""

import json
import tempfile
import unittest
from pathlib import Path
from typing import Any

from test.fakes.streams import DONE, ROLE, chat, delta, event, usage_event

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import BenchError, WorkloadError
from aifbench.load.http import encode_request
from aifbench.load.workload import Finish, OutcomeKind, StreamedAnswer, TokenCount
from aifbench.workloads.inference import Constrained, Converse, Embed, Generate, token_times
from aifbench.workloads.openai_dialect import ChatDialect, Reading
from aifbench.workloads.prompts import PromptSpec, load_source, prepare
from aifbench.workloads.sse import events
from aifbench.workloads.structured import Constraint, Kind

SECRET = "sk-0123456789"


def split(request: bytes) -> tuple[str, Any]:
    head, _, body = request.partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % len(body) in head
    return head.decode(), json.loads(body)


class InferenceCase(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.dir = Path(directory.name)
        self.endpoint = Endpoint("node7", 8000)

    def source(self, **spec: Any) -> str:
        return str(prepare(PromptSpec(**{"input_tokens": "6", "output_tokens": "4", **spec}), self.dir))

    def opened(self, workload: Any) -> Any:
        workload.open(self.endpoint)
        return workload


class Requests(InferenceCase):
    def test_a_request_asks_for_the_prompt_of_its_number(self) -> None:
        source = self.source()
        workload = self.opened(Generate(source, "m", extra={"ignore_eos": True}))
        for index in (0, 1, 999):
            head, body = split(workload.request(index))
            self.assertTrue(head.startswith("POST /v1/chat/completions HTTP/1.1\r\nHost: node7:8000\r\n"))
            self.assertEqual(
                body["messages"],
                [{"role": "user", "content": load_source(Path(source)).prompt(index).text}],
            )
            self.assertEqual((body["max_tokens"], body["ignore_eos"], body["stream"]), (4, True, True))

    def test_prepared_requests_are_those_made_on_the_way(self) -> None:
        for workload_of in (
            lambda: Generate(self.source(), "m", api="completions", salt="a"),
            lambda: Embed(self.source(), "m", batch=2),
        ):
            prepared, other = self.opened(workload_of()), self.opened(workload_of())
            prepared.prepare([3, 1, 4])
            for index in (4, 1, 5, 3, 3):
                self.assertEqual(prepared.request(index), other.request(index))

    def test_what_was_sent_is_not_kept(self) -> None:
        workload = self.opened(Generate(self.source(), "m"))
        workload.prepare(range(100_000_000))
        kept = workload._requests._kept
        self.assertLessEqual(len(kept), 4096)
        for index in list(kept):
            workload.request(index)
        self.assertEqual(len(kept), 0)

    def test_salts_tell_phases_apart(self) -> None:
        source = self.source()
        bodies = [split(self.opened(Generate(source, "m", salt=salt)).request(0))[1] for salt in ("a", "b")]
        self.assertNotEqual(bodies[0]["messages"], bodies[1]["messages"])

    def test_token_ids(self) -> None:
        source = self.source(how="ids", vocabulary=1000)
        _, body = split(self.opened(Generate(source, "m", api="completions")).request(0))
        self.assertEqual(len(body["prompt"]), 6)
        with self.assertRaisesRegex(WorkloadError, "chat takes no token ids"):
            self.opened(Generate(source, "m")).request(0)

    def test_the_path_follows_the_prefix(self) -> None:
        self.endpoint = Endpoint("gate", 443, "https", prefix="/llm")
        head, _ = split(self.opened(Generate(self.source(), "m", api="completions")).request(0))
        self.assertTrue(head.startswith("POST /llm/v1/completions HTTP/1.1\r\nHost: gate\r\n"), head)

    def test_texts_of_every_language_are_sent_as_they_are(self) -> None:
        text = "\u4f60\u597d \U0001f600 \u00e4"
        _, body = split(self.opened(Generate(self.source(kind="repeat", text=text), "m")).request(0))
        self.assertEqual(body["messages"][0]["content"], text)

    def test_an_embedding_request_has_a_batch_of_texts_of_its_own(self) -> None:
        workload = self.opened(Embed(self.source(), "m", batch=3))
        texts = [split(workload.request(index))[1]["input"] for index in (0, 1)]
        self.assertEqual([len(some) for some in texts], [3, 3])
        self.assertEqual(len({*texts[0], *texts[1]}), 6)


class Secrets(InferenceCase):
    def keyed(self, text: str) -> Endpoint:
        path = self.dir / "key"
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        return Endpoint("node7", 8000, secret_file=path)

    def test_the_key_is_sent_with_every_request(self) -> None:
        self.endpoint = self.keyed(SECRET + "\n")
        for workload in (Generate(self.source(), "m"), Embed(self.source(), "m")):
            head, _ = split(self.opened(workload).request(0))
            self.assertIn(f"\r\nAuthorization: Bearer {SECRET}\r\n", head + "\r\n")

    def test_no_error_tells_a_key(self) -> None:
        for text in (f"{SECRET} {SECRET}", f"{SECRET}\n{SECRET}", f"{SECRET}\u00e4", f"{SECRET}\r\nEvil: 1"):
            self.endpoint = self.keyed(text)
            with self.subTest(text), self.assertRaises(BenchError) as caught:
                self.opened(Generate(self.source(), "m"))
            error: BaseException | None = caught.exception
            while error is not None:
                self.assertNotIn("0123", f"{error!r} {error}")
                error = error.__cause__
        for value in (f"{SECRET}\r\nEvil: 1", f"{SECRET}\u20ac"):
            with self.assertRaises(WorkloadError) as refused:
                encode_request("GET", "/", "h", {"Authorization": value})
            self.assertNotIn("0123", f"{refused.exception!r} {refused.exception}")


class Answers(InferenceCase):
    def test_nothing_is_judged_that_was_not_asked_for(self) -> None:
        reading = Reading(content_ends=[1, 2], output_tokens=2, finish=Finish.STOP)
        for exact, output_tokens, qualities in (
            (False, "4", ()),
            (True, "", ()),
            (True, "2", (1.0,)),
            (True, "3", (0.0,)),
        ):
            workload = self.opened(Generate(self.source(output_tokens=output_tokens), "m", exact=exact))
            outcome = workload.judge(0, reading)
            self.assertEqual((outcome.kind, outcome.items, outcome.qualities), (OutcomeKind.OK, 2, qualities))

    def test_a_server_that_counts_no_tokens_is_not_believed(self) -> None:
        body = b"".join([delta(content="one"), delta(content="two", finish="stop"), usage_event(0, 0), DONE])
        reading = ChatDialect("m").read_stream(events(body))
        times = token_times(reading, [7, 9])
        self.assertEqual((times.output_tokens, times.first_tokens, times.counted), (2, 1, TokenCount.CHUNKS))
        self.assertEqual(Generate("source", "m", exact=True).judge(0, reading).qualities, ())

    def test_embeddings(self) -> None:
        workload = self.opened(Embed(self.source(), "m", batch=2))
        for vectors, kind in ((2, OutcomeKind.OK), (1, OutcomeKind.WRONG), (0, OutcomeKind.WRONG)):
            body = json.dumps({"data": [{"embedding": [0.1]}] * vectors}).encode()
            self.assertEqual(workload.interpret(0, 200, body).kind, kind)
        self.assertEqual(workload.interpret(0, 200, b"<html>").kind, OutcomeKind.WRONG)


class ConstrainedAnswers(InferenceCase):
    def workload(self, **options: Any) -> Constrained:
        cases = self.dir / "cases.jsonl"
        choice = Constraint(Kind.CHOICE, ("yes", "no"))
        cases.write_text(json.dumps({"prompt": "Is it?", "constraint": choice.to_json()}) + "\n")
        workload: Constrained = self.opened(Constrained(str(cases), "m", output_tokens=8, **options))
        return workload

    def test_the_constraint_is_sent_or_left_out_for_comparison(self) -> None:
        plain, bound = (split(self.workload(constrained=on).request(5))[1] for on in (False, True))
        self.assertEqual(plain, {name: bound[name] for name in plain})
        self.assertNotEqual(plain, bound)

    def test_answers_are_judged_unless_cut_by_the_limit(self) -> None:
        workload = self.workload()
        for text, finish, qualities in (
            ("yes", Finish.STOP, (1.0,)),
            ("maybe", Finish.STOP, (0.0,)),
            ("y", Finish.LENGTH, ()),
        ):
            reading = Reading(content_ends=[1], texts=[text], finish=finish)
            self.assertEqual(workload.judge(0, reading).qualities, qualities, text)

    def test_a_missing_file_of_cases_is_named(self) -> None:
        with self.assertRaisesRegex(WorkloadError, "cannot read .*missing"):
            self.opened(Constrained("missing", "m", output_tokens=8))


class Conversations(InferenceCase):
    def converse(self, turns: int = 3) -> Converse:
        source = self.source(kind="conversation", turns=turns)
        workload: Converse = self.opened(Converse(source, "m", turns=turns, exact=True))
        return workload

    def said(self, workload: Converse, index: int) -> list[tuple[str, str]]:
        messages = split(workload.request(index))[1]["messages"]
        return [(message["role"], message["content"]) for message in messages]

    def answer(self, *words: str) -> bytes:
        return b"".join(chat(*words))

    def test_each_turn_has_everything_that_was_really_said_before(self) -> None:
        workload = self.converse()
        first = self.said(workload, 3)
        self.assertTrue(workload.learn(3, self.answer("o", "ne")))
        second = self.said(workload, 4)
        self.assertTrue(workload.learn(4, self.answer("two")))
        third = self.said(workload, 5)
        self.assertEqual(second[:-1], [*first, ("assistant", "one")])
        self.assertEqual(third[:-1], [*second, ("assistant", "two")])
        self.assertEqual({role for role, _ in (first[-1], second[-1], third[-1])}, {"user"})
        self.assertEqual(len({text for _, text in (first[-1], second[-1], third[-1])}), 3)

    def test_conversations_under_way_at_once_do_not_mix(self) -> None:
        workload = self.converse(turns=2)
        self.said(workload, 0), self.said(workload, 2)
        workload.learn(2, self.answer("from two"))
        workload.learn(0, self.answer("from zero"))
        self.assertIn(("assistant", "from zero"), self.said(workload, 1))
        self.assertIn(("assistant", "from two"), self.said(workload, 3))

    def test_reasoning_is_not_said(self) -> None:
        workload = self.converse(turns=2)
        self.said(workload, 0)
        workload.learn(0, b"".join([ROLE, delta(reasoning="hm"), *chat("yes")[1:]]))
        self.assertIn(("assistant", "yes"), self.said(workload, 1))

    def test_what_is_no_answer_ends_the_conversation(self) -> None:
        for body in (
            b"<html>",
            b"data: [1]\n\n",
            event({"error": "died"}),
            ROLE + DONE,
            delta(content="x"),
            b"",
        ):
            workload = self.converse()
            self.said(workload, 0)
            self.assertFalse(workload.learn(0, body), body)

    def test_answers_are_forgotten_with_their_conversation(self) -> None:
        workload = self.converse()
        for number in range(10):
            for turn in range(3):
                self.said(workload, 3 * number + turn)
                if turn < 2:
                    workload.learn(3 * number + turn, self.answer("x"))
            self.said(workload, 3 * number)
            workload.learn(3 * number, self.answer("x"))
            workload.learn(3 * number + 1, b"")
        self.assertEqual(workload._answers, {})

    def test_each_turn_is_judged_by_its_own_length(self) -> None:
        workload = self.converse()
        body = self.answer("a", "b", "c", "d")
        answer = StreamedAnswer(body, b"", [(0, 0)], [len(body)], [7])
        outcome, times = workload.interpret_stream(4, 200, answer)
        self.assertEqual((outcome.kind, outcome.qualities), (OutcomeKind.OK, (1.0,)))
        self.assertEqual(list(times.content_ns), [7] * 4)


if __name__ == "__main__":
    unittest.main()
