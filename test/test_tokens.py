"""Token columns: gaps belong to their answers, whatever is selected, joined or stored."""

import resource
import tempfile
import unittest
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
from test import fakes  # noqa: F401 - puts src on the path

from aifbench.load import tokens as tokens_module
from aifbench.load.samples import Samples
from aifbench.load.tokens import Tokens
from aifbench.load.workload import NOT_SEEN, Finish, TokenCount, TokenTimes

MS = 1_000_000
START_NS = 10_000 * MS


def times(*at_ms: float, tokens: int | None = None, **more: object) -> TokenTimes:
    """Of an answer whose pieces came at these instants after the start."""
    content_ns = [START_NS + round(ms * MS) for ms in at_ms]
    output_tokens = len(at_ms) if tokens is None else tokens
    return replace(TokenTimes(content_ns=content_ns, output_tokens=output_tokens), **more)


SOME = [times(), times(10, 12, 15), times(20), times(), times(30, 37), times()]
GAPS = [[], [2, 3], [], [], [7], []]


def of(some: Sequence[TokenTimes] = SOME) -> Tokens:
    return Tokens.of(some, START_NS)


def gaps(tokens: Tokens) -> list[list[float]]:
    return [tokens.gaps_of(np.array([row])).tolist() for row in range(len(tokens))]


class Columns(unittest.TestCase):
    def test_instants_count_from_the_start(self) -> None:
        some = of([times(10, 12, answer_ns=START_NS + 12 * MS), times()])
        self.assertEqual(some.first_ns.tolist(), [10 * MS, NOT_SEEN])
        self.assertEqual(some.answer_ns.tolist(), [12 * MS, NOT_SEEN])
        self.assertEqual(some.last_ns.tolist(), [12 * MS, NOT_SEEN])

    def test_everything_that_is_told_is_kept(self) -> None:
        told = replace(
            times(1, 2),
            first_tokens=3,
            prompt_tokens=512,
            cached_tokens=64,
            output_tokens=9,
            counted=TokenCount.USAGE,
            finish=Finish.LENGTH,
        )
        some = of([told])
        names = (
            "first_tokens",
            "prompt_tokens",
            "cached_tokens",
            "output_tokens",
            "chunks",
            "counted",
            "finish",
        )
        self.assertEqual([int(getattr(some, name)[0]) for name in names], [3, 512, 64, 9, 2, 1, 2])

    def test_each_answer_has_its_gaps_and_none_from_one_to_the_next(self) -> None:
        self.assertEqual(gaps(of()), GAPS)
        self.assertEqual(of().gaps_ms.tolist(), [2, 3, 7])

    def test_gaps_of_several_are_pooled_in_order(self) -> None:
        some = of()
        self.assertEqual(some.gaps_of(slice(None)).tolist(), [2, 3, 7])
        self.assertEqual(some.gaps_of(np.array([4, 1])).tolist(), [7, 2, 3])
        self.assertEqual(some.gaps_of(some.first_ns > 15 * MS).tolist(), [7])
        self.assertEqual(some.gaps_of(np.zeros(6, bool)).tolist(), [])

    def test_no_answers_and_answers_without_anything(self) -> None:
        self.assertEqual(len(of([])), 0)
        self.assertEqual(of([]).gaps_of(slice(None)).tolist(), [])
        self.assertEqual(gaps(Tokens.empty(3)), [[], [], []])
        self.assertEqual(Tokens.empty(2).first_ns.tolist(), [NOT_SEEN] * 2)

    def test_columns_do_not_depend_on_how_many_are_taken_at_a_time(self) -> None:
        whole = of()
        for size in range(1, 9):
            with patch.object(tokens_module, "_BLOCK", size):
                parts = of()
            for field in fields(Tokens):
                np.testing.assert_array_equal(getattr(parts, field.name), getattr(whole, field.name))
                self.assertEqual(getattr(parts, field.name).dtype, getattr(whole, field.name).dtype)

    def test_memory_is_that_of_the_columns(self) -> None:
        """Two million stamps are 80 MB as numbers of Python and 8 MB as gaps."""

        def many() -> Iterator[TokenTimes]:
            stamps = range(2 * 10**9, 2 * 10**9 + 10_000)
            for _ in range(200):
                yield TokenTimes(content_ns=list(stamps))

        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.assertEqual(len(Tokens.of(many(), 0).gaps_ms), 200 * 9_999)
        grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) / 1024
        self.assertLess(grown_mib, 50)


class SelectAndJoin(unittest.TestCase):
    def test_selected_rows_keep_their_gaps(self) -> None:
        order = np.array([4, 0, 1, 2])
        self.assertEqual(gaps(of().select(order)), [GAPS[row] for row in order])
        self.assertEqual(gaps(of().select(order).select(np.array([False, False, True, True]))), [[2, 3], []])

    def test_joined_parts_keep_their_gaps(self) -> None:
        joined = Tokens.concatenate([of(), of([]), of().select(np.array([4, 1])), Tokens.empty(1)])
        self.assertEqual(gaps(joined), [*GAPS, [7], [2, 3], []])

    def test_random_selections(self) -> None:
        chance = np.random.default_rng(1)
        some = [times(*np.cumsum(chance.integers(1, 9, size))) for size in chance.integers(0, 6, 40)]
        expected = [np.diff([ns / MS for ns in one.content_ns]).tolist() for one in some]
        for _ in range(20):
            rows = chance.permutation(40)[: chance.integers(0, 40)]
            self.assertEqual(gaps(of(some).select(rows)), [expected[row] for row in rows])


class WithSamples(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "samples.npz"

    def samples(self, intended_ns: Sequence[int], tokens: Tokens | None) -> Samples:
        return replace(
            Samples.empty(len(intended_ns)), intended_ns=np.array(intended_ns, np.int64), tokens=tokens
        )

    def test_rows_stay_with_their_operations(self) -> None:
        some = self.samples([5, 4, 3, 2, 1, 0], of()).sorted()
        assert some.tokens is not None
        self.assertEqual(gaps(some.tokens), GAPS[::-1])

    def test_workers_with_and_without_tokens(self) -> None:
        joined = Samples.concatenate([self.samples([0, 2, 4, 6, 8, 10], of()), self.samples([1, 11], None)])
        assert joined.tokens is not None
        self.assertEqual(gaps(joined.tokens), [GAPS[0], [], *GAPS[1:], []])
        self.assertIsNone(Samples.concatenate([self.samples([1], None)]).tokens)
        self.assertIsNone(Samples.concatenate([]).tokens)

    def test_disk_and_back(self) -> None:
        self.samples(range(6), of()).save(self.path)
        again = Samples.load(self.path).tokens
        assert again is not None
        for field in fields(Tokens):
            before, after = getattr(of(), field.name), getattr(again, field.name)
            np.testing.assert_array_equal(after, before)
            self.assertEqual(after.dtype, before.dtype)

    def test_files_from_before_there_were_tokens_can_be_read(self) -> None:
        old = self.samples([1, 2], None)
        old.save(self.path)
        with np.load(self.path) as data:
            self.assertFalse([name for name in data if "token" in name])
        again = Samples.load(self.path)
        self.assertEqual((len(again), again.tokens), (2, None))


if __name__ == "__main__":
    unittest.main()
