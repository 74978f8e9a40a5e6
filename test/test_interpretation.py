"""From kept bytes to outcomes and token times: however the stream was framed, cut or broken."""

import random
import tempfile
import unittest
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from test.fakes.streams import (
    CHUNKED,
    DONE,
    LAST_CHUNK,
    ROLE,
    chat,
    chunk,
    chunked,
    cut,
    delta,
    event,
    until_close,
    usage_event,
    with_length,
)

from aifbench.cluster.endpoint import Endpoint
from aifbench.load.interpretation import interpret
from aifbench.load.recorder import (
    UNCHECKED,
    ErrorTally,
    Recorder,
    answers_path,
    pack_row,
    read_samples,
    reads_path,
    unfinished_row,
)
from aifbench.load.samples import Samples
from aifbench.load.tokens import Tokens
from aifbench.load.workload import NOT_SEEN, OutcomeKind, TokenCount
from aifbench.workloads.inference import Generate
from aifbench.workloads.prompts import PromptSpec, prepare

MS = 1_000_000
OK = OutcomeKind.OK


class StreamCase(unittest.TestCase):
    """Answers of Generate, asked for four tokens each; read number j is stamped 10 * j ms after the start."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.dir = Path(directory.name)
        source = prepare(PromptSpec(kind="repeat", text="hi", output_tokens="4"), self.dir)
        self.workload = Generate(str(source), "m", exact=True)
        self.workload.open(Endpoint("127.0.0.1", 1))
        self.recorder = Recorder(self.dir, "x", 0)
        self.count = 0

    def add(self, reads: Sequence[bytes], kind: OutcomeKind = OK, status: int = 200) -> None:
        raw, stamps, place = b"".join(reads), [], 0
        for number, piece in enumerate(reads):
            place += len(piece)
            stamps += [number * 10 * MS, place]
        finished_ns = NOT_SEEN if kind is OutcomeKind.UNFINISHED else 10_000 * MS
        self.recorder.add_reads(array("q", stamps).tobytes())
        self.recorder.add_answer(raw)
        self.recorder.add(
            pack_row(
                self.count, 0, 0, 0, finished_ns, kind, status, int(kind is OK), 1, len(raw), UNCHECKED,
                UNCHECKED, len(raw), len(reads),
            )
        )  # fmt: skip
        self.count += 1

    def read(self) -> tuple[Samples, Tokens]:
        self.recorder.close()
        self.errors = ErrorTally()
        self.interpreted = interpret(self.dir, "x", self.workload, self.errors)
        samples = read_samples(self.dir, "x", 0)
        assert samples.tokens is not None
        return samples, samples.tokens

    def read_one(self, reads: Sequence[bytes], kind: OutcomeKind = OK) -> tuple[OutcomeKind, Tokens]:
        self.add(reads, kind)
        samples, tokens = self.read()
        return OutcomeKind(samples.outcome[0]), tokens


class WholeAnswers(StreamCase):
    def test_times_counts_and_judgement(self) -> None:
        self.add(chunked(chat("a", "b", "c", "d", prompt_tokens=9)))
        samples, tokens = self.read()
        self.assertEqual((samples.outcome[0], samples.items[0]), (OK, 4))
        self.assertEqual(samples.qualities[0, 0], 1.0)
        # Read 0 is the head, read 1 the role.
        self.assertEqual(
            (tokens.first_ns[0], tokens.answer_ns[0], tokens.last_ns[0]), (20 * MS, 20 * MS, 50 * MS)
        )
        self.assertEqual(tokens.gaps_ms.tolist(), [10, 10, 10])
        self.assertEqual((tokens.prompt_tokens[0], tokens.output_tokens[0], tokens.counted[0]), (9, 4, 1))
        self.assertEqual(self.errors.counts, {})

    def test_nothing_is_left_behind(self) -> None:
        self.read_one(chunked(chat("a")))
        self.assertFalse(answers_path(self.dir, "x").exists())
        self.assertFalse(reads_path(self.dir, "x").exists())
        self.assertEqual(self.interpreted, 1)

    def test_the_way_of_framing_makes_no_difference(self) -> None:
        for framing in (chunked, with_length, until_close):
            self.add(framing(chat("a", "b", "c", "d")))
        samples, tokens = self.read()
        self.assertEqual(samples.outcome.tolist(), [OK] * 3, self.errors.counts)
        self.assertEqual(tokens.first_ns.tolist(), [20 * MS] * 3)
        self.assertEqual(tokens.last_ns.tolist(), [50 * MS] * 3)

    def test_random_cuts_change_times_and_nothing_else(self) -> None:
        raw = b"".join(chunked(chat("a", "b", "c", "d")))
        for seed in range(50):
            self.add(cut(raw, random.Random(seed), 30))
        self.add([bytes([byte]) for byte in raw])
        samples, tokens = self.read()
        self.assertEqual(set(samples.outcome.tolist()), {OK})
        self.assertEqual(set(tokens.chunks.tolist()), {4})
        self.assertTrue((tokens.last_ns >= tokens.first_ns).all())
        self.assertTrue((tokens.gaps_ms >= 0).all())
        place = raw.index(b'"d"')
        place = raw.index(b"\n\n", place) + 2
        self.assertEqual(tokens.last_ns[-1], (place - 1) * 10 * MS)

    def test_all_in_one_read_came_at_once(self) -> None:
        _, tokens = self.read_one([b"".join(chunked(chat("a", "b", "c", "d")))])
        self.assertEqual((tokens.first_ns[0], tokens.last_ns[0]), (0, 0))
        self.assertEqual(tokens.gaps_ms.tolist(), [0, 0, 0])

    def test_trailers_and_extensions_of_chunks(self) -> None:
        pieces = [
            CHUNKED,
            *(chunk(part).replace(b"\r\n", b";x=1\r\n", 1) for part in chat("a")),
            b"0\r\nA: b\r\n\r\n",
        ]
        self.assertEqual(self.read_one(pieces)[0], OK)

    def test_four_tokens_a_piece(self) -> None:
        reads = chunked(chat("w" * 4, "x" * 4, "y" * 4, "z" * 4, tokens=16))
        _, tokens = self.read_one(reads)
        self.assertEqual((tokens.chunks[0], tokens.output_tokens[0], tokens.first_tokens[0]), (4, 16, 4))
        # 30 ms for 12 tokens after the first piece.
        later = int(tokens.output_tokens[0]) - int(tokens.first_tokens[0])
        self.assertEqual((tokens.last_ns[0] - tokens.first_ns[0]) / later, 2.5 * MS)

    def test_no_usage_counts_pieces_and_says_so(self) -> None:
        pieces = [ROLE, delta(content="a"), delta(content="b"), delta(finish="stop", content=""), DONE]
        self.add(chunked(pieces))
        samples, tokens = self.read()
        self.assertEqual((tokens.output_tokens[0], tokens.counted[0]), (2, TokenCount.CHUNKS))
        # Whether the length is as asked cannot be known.
        self.assertTrue(np.isnan(samples.qualities[0, 0]))

    def test_a_wrong_length_is_a_matter_of_quality(self) -> None:
        self.add(chunked(chat("a", "b")))
        samples, _ = self.read()
        self.assertEqual((samples.outcome[0], samples.qualities[0, 0]), (OK, 0.0))

    def test_reasoning_comes_before_the_answer(self) -> None:
        pieces = [ROLE, delta(reasoning="a"), delta(reasoning="b"), delta(content="c"), *chat("d")[1:]]
        _, tokens = self.read_one(chunked(pieces))
        self.assertEqual((tokens.first_ns[0], tokens.answer_ns[0]), (20 * MS, 40 * MS))

    def test_finish_without_done_is_an_end(self) -> None:
        self.assertEqual(self.read_one(chunked(chat("a")[:-1]))[0], OK)

    def test_cached_tokens(self) -> None:
        told = usage_event(99, 1, prompt_tokens_details={"cached_tokens": 64})
        _, tokens = self.read_one(chunked([*chat("a")[:-2], told, DONE]))
        self.assertEqual((tokens.prompt_tokens[0], tokens.cached_tokens[0]), (99, 64))

    def test_every_stream_is_read_however_many_they_are(self) -> None:
        for _ in range(10):
            self.add(chunked(chat("a", "b")))
        self.recorder.close()
        interpret(self.dir, "x", self.workload, ErrorTally(), limit=3)
        tokens = read_samples(self.dir, "x", 0).tokens
        assert tokens is not None
        self.assertEqual(int(tokens.output_tokens.sum()), 20)


class BadAnswers(StreamCase):
    def test_an_error_in_a_stream_of_status_200(self) -> None:
        pieces = [ROLE, delta(content="a"), event({"error": {"message": "engine died"}}), DONE]
        kind, tokens = self.read_one(chunked(pieces))
        self.assertEqual(kind, OutcomeKind.SERVER_ERROR)
        self.assertEqual(self.errors.counts, {"error in the stream: engine died": 1})
        self.assertEqual(tokens.first_ns[0], 20 * MS)

    def test_no_content_is_wrong(self) -> None:
        kind, tokens = self.read_one(chunked(chat()))
        self.assertEqual((kind, tokens.first_ns[0]), (OutcomeKind.WRONG, NOT_SEEN))

    def test_no_body_at_all_is_no_answer(self) -> None:
        for framing in (chunked, with_length, until_close):
            self.add(framing([]))
        samples, _ = self.read()
        self.assertEqual(samples.outcome.tolist(), [OutcomeKind.BROKEN] * 3)
        self.assertEqual(self.errors.counts, {"the stream ended without a finish reason": 3})

    def test_an_end_without_finish_is_a_break_though_http_is_satisfied(self) -> None:
        kind, tokens = self.read_one(chunked([ROLE, delta(content="a")]))
        self.assertEqual((kind, tokens.first_ns[0]), (OutcomeKind.BROKEN, 20 * MS))

    def test_no_json(self) -> None:
        kind, tokens = self.read_one(chunked([ROLE, delta(content="a"), b"data: <html>\n\n", DONE]))
        self.assertEqual((kind, tokens.first_ns[0]), (OutcomeKind.PROTOCOL, 20 * MS))
        self.assertEqual(self.errors.counts, {"an event that cannot be read: b'<html>'": 1})

    def test_no_stream(self) -> None:
        kind, _ = self.read_one(with_length([b'{"choices": []}']))
        self.assertEqual(kind, OutcomeKind.BROKEN)

    def test_chunks_that_do_not_add_up(self) -> None:
        self.add([CHUNKED, b"zz\r\ndata: x\n\n\r\n", LAST_CHUNK])
        self.add([CHUNKED, b"5\r\ndata: x\n\n\r\n", LAST_CHUNK])
        self.add([CHUNKED, b"ff\r\ndata: x\n\n\r\n", LAST_CHUNK])
        samples, tokens = self.read()
        self.assertEqual(samples.outcome.tolist(), [OutcomeKind.PROTOCOL] * 3)
        self.assertEqual(len(self.errors.counts), 3)
        self.assertEqual(tokens.first_ns.tolist(), [NOT_SEEN] * 3)

    def test_other_statuses_keep_what_was_made_of_them(self) -> None:
        self.add(with_length([b"no"]), OutcomeKind.THROTTLED, 429)
        self.add([b"HTTP/1.1 429 Slow\r\nContent-Length: 2\r\n\r\n", b"no"], OutcomeKind.THROTTLED, 429)
        samples, tokens = self.read()
        self.assertEqual(samples.outcome.tolist(), [OutcomeKind.THROTTLED] * 2)
        self.assertEqual(tokens.first_ns[1], NOT_SEEN)

    def test_a_judge_that_fails_costs_one_answer(self) -> None:
        class Picky(Generate):
            def qualities(self, index: int, reading: object) -> tuple[float, ...]:  # noqa: ARG002
                if index == 1:
                    raise KeyError("not thought of")
                return ()

        source = next(self.dir.glob("prompts-*.json"))
        self.workload = Picky(str(source), "m")
        for _ in range(3):
            self.add(chunked(chat("a")))
        samples, tokens = self.read()
        self.assertEqual(samples.outcome.tolist(), [OK, OutcomeKind.HARNESS, OK])
        self.assertEqual(tokens.chunks.tolist(), [1, 0, 1])


class CutAnswers(StreamCase):
    def test_wherever_a_stream_is_cut_the_times_of_what_came_are_kept(self) -> None:
        reads = chunked(chat("a", "b", "c", "d"))
        whole = b"".join(reads)
        ends = list(np.cumsum([len(piece) for piece in reads]))
        kinds = (OutcomeKind.BROKEN, OutcomeKind.TIMEOUT, OutcomeKind.UNFINISHED)
        places = range(0, len(whole) - 1, 7)
        for place in places:
            pieces = [
                whole[a:b]
                for a, b in zip([0, *ends], [min(end, place) for end in ends], strict=False)
                if a < b
            ]
            self.add(pieces, kinds[place % 3], 0)
        samples, tokens = self.read()
        self.assertEqual(samples.outcome.tolist(), [kinds[place % 3] for place in places])
        self.assertEqual(set(samples.items.tolist()), {0})
        for row, place in enumerate(places):
            # Events 2 to 5 have content; the blank line that ends each is all that has to be there of it.
            seen = sum(place >= end for end in ends[2:6])
            self.assertGreaterEqual(int(tokens.chunks[row]), seen)
            self.assertLessEqual(int(tokens.chunks[row]), seen + 1)
            self.assertEqual(tokens.first_ns[row], 20 * MS if tokens.chunks[row] else NOT_SEEN)
        self.assertEqual(self.errors.counts, {})

    def test_events_of_a_chunk_that_is_not_complete_have_come(self) -> None:
        pieces = [delta(content="a"), delta(content="b"), delta(content="c")]
        data = chunk(b"".join(pieces))
        self.add([CHUNKED, data[: len(pieces[0]) + 20], data[len(pieces[0]) + 20 : -20]], OutcomeKind.BROKEN)
        _, tokens = self.read()
        self.assertEqual((tokens.first_ns[0], tokens.last_ns[0], tokens.chunks[0]), (10 * MS, 20 * MS, 2))

    def test_a_cut_json_is_left_out(self) -> None:
        lines = [ROLE, delta(content="a"), b'data: {"choices": [{"del']
        self.assertEqual(self.read_one(until_close(lines), OutcomeKind.BROKEN)[1].chunks[0], 1)

    def test_operations_that_were_never_sent_have_a_row(self) -> None:
        self.add(chunked(chat("a")))
        self.recorder.add(unfinished_row(1, 0, NOT_SEEN))
        self.add(chunked(chat("b", "c")))
        samples, tokens = self.read()
        self.assertEqual(samples.outcome.tolist(), [OK, OutcomeKind.UNFINISHED, OK])
        self.assertEqual(tokens.chunks.tolist(), [1, 0, 2])
        self.assertEqual(self.interpreted, 2)

    def test_a_worker_that_was_killed_leaves_answers_without_rows(self) -> None:
        self.add(chunked(chat("a")))
        self.recorder.add_answer(b"HTTP/1.1 200 OK\r\n")
        self.recorder.add_reads(array("q", [1, 2]).tobytes())
        _, tokens = self.read()
        self.assertEqual(tokens.chunks.tolist(), [1])

    def test_no_operations_at_all(self) -> None:
        self.recorder.close()
        self.assertEqual(interpret(self.dir, "x", self.workload, ErrorTally()), 0)
        self.assertEqual(len(read_samples(self.dir, "x", 0)), 0)


if __name__ == "__main__":
    unittest.main()
