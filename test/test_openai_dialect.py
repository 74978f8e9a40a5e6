"""What OpenAI-compatible servers say in their streams, and what is asked of them."""

import json
import unittest
from pathlib import Path
from typing import Any

from test.fakes.streams import DONE, ROLE, chat, delta, event, usage, usage_event

from aifbench.errors import WorkloadError
from aifbench.load.http import split_response
from aifbench.load.workload import Finish
from aifbench.workloads.openai_dialect import (
    ChatDialect,
    CompletionDialect,
    Reading,
    error_text,
    read_embeddings,
)
from aifbench.workloads.sse import events

DATA = Path(__file__).parent / "data"
STOP = delta(finish="stop", content="")


def read(*pieces: bytes) -> Reading:
    return ChatDialect("m").read_stream(events(b"".join(pieces)))


def captured(name: str) -> bytes:
    return split_response((DATA / f"vllm_stream_0.32_{name}.http").read_bytes())[1]


class Content(unittest.TestCase):
    def test_a_complete_answer(self) -> None:
        pieces = chat("one ", "two", prompt_tokens=9)
        reading = read(*pieces)
        first, second = len(pieces[0] + pieces[1]), len(b"".join(pieces[:3]))
        self.assertEqual(reading.content_ends, [first, second])
        self.assertEqual((reading.text, reading.finish), ("one two", Finish.LENGTH))
        self.assertEqual((reading.prompt_tokens, reading.output_tokens), (9, 2))
        self.assertTrue(reading.is_done)
        self.assertEqual((reading.error, reading.fault), ("", ""))

    def test_the_role_and_empty_deltas_are_no_content(self) -> None:
        reading = read(ROLE, delta(content=""), delta(content=None), delta(), STOP, DONE)
        self.assertEqual((reading.content_ends, reading.text), ([], ""))

    def test_text_that_comes_with_the_role_is_content(self) -> None:
        self.assertEqual(len(read(delta(role="assistant", content="hi")).content_ends), 1)

    def test_reasoning_is_content_and_no_answer(self) -> None:
        for name in ("reasoning", "reasoning_content"):
            reading = read(
                ROLE, delta(**{name: "hm"}), delta(**{name: "so"}), delta(content="yes"), STOP, DONE
            )
            self.assertEqual((len(reading.content_ends), reading.answer_at), (3, 2))
            self.assertEqual(reading.text, "yes")

    def test_nothing_but_reasoning_has_no_answer(self) -> None:
        reading = read(ROLE, delta(reasoning="hm"), delta(finish="length", content=""), DONE)
        self.assertEqual((len(reading.content_ends), reading.answer_at), (1, None))

    def test_the_call_of_a_tool_is_an_answer_from_its_name_on(self) -> None:
        reading = read(
            ROLE,
            delta(tool_calls=[{"index": 0, "id": "1", "function": {"name": "weather"}}]),
            delta(tool_calls=[{"index": 0, "function": {"arguments": '{"city":'}}]),
            delta(tool_calls=[{"index": 0, "function": {"arguments": '"Ulm"}'}}]),
            delta(tool_calls=[]),
            delta(finish="tool_calls"),
            DONE,
        )
        self.assertEqual((len(reading.content_ends), reading.answer_at), (3, 0))
        self.assertEqual(reading.finish, Finish.OTHER)
        self.assertIn('{"city":"Ulm"}', reading.text)

    def test_finish_may_come_with_text_and_without_done(self) -> None:
        reading = read(ROLE, delta(content="x"), delta(finish="stop", content="y"))
        self.assertEqual((reading.text, reading.finish, reading.is_done), ("xy", Finish.STOP, False))

    def test_nothing_after_done_counts(self) -> None:
        self.assertEqual(read(delta(content="x"), DONE, delta(content="y")).text, "x")

    def test_plain_completions(self) -> None:
        pieces = [
            event({"choices": [{"index": 0, "text": text, "finish_reason": None}]}) for text in ("a", "", "b")
        ]
        reading = CompletionDialect("m").read_stream(events(b"".join(pieces)))
        self.assertEqual((reading.text, len(reading.content_ends), reading.answer_at), ("ab", 2, 0))


class Counts(unittest.TestCase):
    def test_no_usage_is_not_known(self) -> None:
        reading = read(ROLE, delta(content="x"), STOP, DONE)
        self.assertEqual(
            (reading.prompt_tokens, reading.output_tokens, reading.cached_tokens, reading.first_tokens),
            (None, None, None, None),
        )

    def test_continuous_usage_tells_the_tokens_of_the_first_piece(self) -> None:
        reading = read(
            delta(usage(5, 0), role="assistant", content=""),
            delta(usage(5, 3), content="abc"),
            delta(usage(5, 7), content="defg"),
            delta(usage(5, 8), finish="stop", content=""),
            DONE,
        )
        self.assertEqual((reading.first_tokens, reading.output_tokens), (3, 8))

    def test_token_ids_tell_it_too(self) -> None:
        piece = {"choices": [{"index": 0, "delta": {"content": "x"}, "token_ids": [4, 5]}]}
        self.assertEqual(read(ROLE, event(piece)).first_tokens, 2)

    def test_cached_tokens(self) -> None:
        for details, expected in (({"cached_tokens": 64}, 64), ({"cached_tokens": 0}, 0), ({}, None)):
            reading = read(usage_event(99, 1, prompt_tokens_details=details))
            self.assertEqual(reading.cached_tokens, expected)
        self.assertIsNone(read(usage_event(99, 1, prompt_tokens_details=None)).cached_tokens)

    def test_numbers_that_cannot_be_counts_are_not_taken_for_any(self) -> None:
        for value in (-1, 2**40, 1.5, "7", True, None):
            reading = read(delta(content="x"), event({"choices": [], "usage": {"completion_tokens": value}}))
            self.assertIsNone(reading.output_tokens, value)
            self.assertEqual(reading.fault, "")


class Failures(unittest.TestCase):
    def test_an_error_event_ends_the_reading_and_is_quoted(self) -> None:
        errors: list[Any] = [
            {"message": "engine\n died", "code": 500},
            "engine died",
            {"message": "engine died"},
        ]
        for error in errors:
            reading = read(ROLE, delta(content="x"), event({"error": error}), delta(content="y"), DONE)
            self.assertEqual((reading.error, reading.text), ("engine died", "x"))

    def test_what_cannot_be_read_keeps_what_came_before(self) -> None:
        for bad in (b"{", b"[1]", b"7", b"null", b'{"choices": 7}', b'{"choices": ["x"]}', b"\xff", b"{} {}"):
            reading = read(ROLE, delta(content="x"), b"data: " + bad + b"\n\n", delta(content="y"))
            with self.subTest(bad):
                self.assertIn("cannot be read", reading.fault)
                self.assertEqual((reading.text, len(reading.content_ends)), ("x", 1))

    def test_blanks_around_an_event_do_no_harm(self) -> None:
        self.assertEqual(read(b'data:  {"choices": [{"delta": {"content": "x"}}]} \n\ndata:\n\n').text, "x")

    def test_error_texts_are_one_short_line(self) -> None:
        self.assertEqual(error_text({"message": "a\n  b"}), "a b")
        self.assertEqual(error_text(None), "None")
        self.assertEqual(len(error_text("x" * 1000)), 200)


class CapturedFromVllm(unittest.TestCase):
    def test_completions(self) -> None:
        reading = CompletionDialect("tiny").read_stream(events(captured("completions")))
        # Two of its tokens had no text of their own.
        self.assertEqual((reading.text, len(reading.content_ends)), ("." * 6, 6))
        self.assertEqual((reading.output_tokens, reading.finish), (8, Finish.LENGTH))

    def test_tokens_that_are_no_text_are_counted_and_seen_nowhere(self) -> None:
        reading = ChatDialect("tiny").read_stream(events(captured("without_text")))
        self.assertEqual((reading.content_ends, reading.prompt_tokens, reading.output_tokens), ([], 12, 8))
        self.assertEqual((reading.finish, reading.is_done), (Finish.LENGTH, True))

    def test_continuous_usage(self) -> None:
        reading = ChatDialect("tiny").read_stream(events(captured("continuous")))
        self.assertEqual((reading.prompt_tokens, reading.output_tokens, reading.fault), (12, 8, ""))


class Requests(unittest.TestCase):
    def body(self, dialect: Any, prompt: Any, tokens: int | None = 7, **more: Any) -> Any:
        return json.loads(dialect.body(prompt, tokens, more))

    def test_a_chat(self) -> None:
        dialect = ChatDialect("m", {"ignore_eos": True})
        self.assertEqual(
            self.body(dialect, dialect.text_prompt("hi")),
            {
                "model": "m", "temperature": 0, "stream": True, "stream_options": {"include_usage": True},
                "ignore_eos": True, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 7,
            },
        )  # fmt: skip

    def test_none_takes_a_field_out_and_no_limit_is_none(self) -> None:
        dialect = CompletionDialect("m", {"stream_options": None, "temperature": 0.5})
        body = self.body(dialect, dialect.ids_prompt([1, 2]), None, seed=3)
        self.assertEqual(
            body, {"model": "m", "temperature": 0.5, "stream": True, "prompt": [1, 2], "seed": 3}
        )

    def test_token_ids_are_nothing_for_chat(self) -> None:
        with self.assertRaisesRegex(WorkloadError, "chat takes no token ids"):
            ChatDialect("m").ids_prompt([1])


class Embeddings(unittest.TestCase):
    def test_vectors_and_tokens(self) -> None:
        answer = {"data": [{"embedding": [0.5]}, {"embedding": "AAAA"}], "usage": {"prompt_tokens": 9}}
        self.assertEqual(read_embeddings(json.dumps(answer).encode()), (2, 9))

    def test_anything_else_is_refused(self) -> None:
        for body in (b"", b"[]", b"{}", b'{"data": [{}]}', b'{"data": 7}', b'{"error": {}}'):
            with self.subTest(body), self.assertRaises(ValueError):
                read_embeddings(body)


if __name__ == "__main__":
    unittest.main()
