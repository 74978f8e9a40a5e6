"""Generation through the `openai` package: the same answers mean the same as over plain HTTP."""

import tempfile
import unittest
from collections.abc import Iterable
from pathlib import Path

from test.fakes.streams import (
    CLOSE,
    DONE,
    ROLE,
    StreamService,
    chat,
    chunked,
    delta,
    event,
    with_length,
)

from aifbench.cluster.endpoint import Endpoint
from aifbench.load.workload import Outcome, OutcomeKind, TokenCount
from aifbench.workloads.inference_sdk import Generate
from aifbench.workloads.prompts import PromptSpec, prepare


class Sdk(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        source = prepare(PromptSpec(kind="repeat", text="hi", output_tokens="2"), Path(directory.name))
        self.workload = Generate(str(source), "m", exact=True)
        self.addCleanup(self.workload.close)

    def perform(self, pieces: Iterable[bytes]) -> Outcome:
        with StreamService(lambda *_: pieces) as service:
            self.workload.open(Endpoint(*service.address))
            outcome = self.workload.perform(0)
            self.workload.close()
            return outcome

    def test_a_complete_answer(self) -> None:
        outcome = self.perform(chunked(chat("a", "b", prompt_tokens=9)))
        self.assertEqual((outcome.kind, outcome.items, outcome.qualities), (OutcomeKind.OK, 2, (1.0,)))
        tokens = outcome.tokens
        assert tokens is not None
        self.assertEqual(
            (len(tokens.content_ns), tokens.prompt_tokens, tokens.counted), (2, 9, TokenCount.USAGE)
        )
        self.assertEqual((tokens.answer_ns, outcome.first_byte_ns), (tokens.first_ns, tokens.first_ns))

    def test_what_came_before_a_failure_keeps_its_times(self) -> None:
        begun = [ROLE, delta(content="a")]
        for pieces, kind in (
            ([*chunked(begun)[:-1], CLOSE], OutcomeKind.BROKEN),
            (chunked(begun), OutcomeKind.BROKEN),
            (chunked([*begun, event({"error": {"message": "died"}}), DONE]), OutcomeKind.SERVER_ERROR),
        ):
            outcome = self.perform(pieces)
            self.assertEqual(outcome.kind, kind, outcome.error)
            assert outcome.tokens is not None
            self.assertEqual(len(outcome.tokens.content_ns), 1)
            self.assertTrue(outcome.error)

    def test_other_failures(self) -> None:
        empty = delta(finish="stop", content="")
        for pieces, kind in (
            ([b"HTTP/1.1 429 X\r\nContent-Length: 2\r\n\r\nno"], OutcomeKind.THROTTLED),
            ([b"HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\nno"], OutcomeKind.SERVER_ERROR),
            ([b"HTTP/1.1 400 X\r\nContent-Length: 2\r\n\r\nno"], OutcomeKind.CLIENT_ERROR),
            ([CLOSE], OutcomeKind.BROKEN),
            (with_length([ROLE, empty, DONE]), OutcomeKind.WRONG),
        ):
            outcome = self.perform(pieces)
            self.assertEqual(outcome.kind, kind, outcome.error)
            self.assertTrue(outcome.error)

    def test_nobody_listens(self) -> None:
        with StreamService(lambda *_: []) as service:
            address = service.address
        self.workload.open(Endpoint(*address))
        self.assertEqual(self.workload.perform(0).kind, OutcomeKind.CONNECT)


if __name__ == "__main__":
    unittest.main()
