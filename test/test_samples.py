"""Samples: columns that belong together, on disk and back."""

import tempfile
import unittest
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from test import fakes  # noqa: F401 - puts src on the path

from aifbench.errors import ResultError
from aifbench.load.samples import Samples
from aifbench.load.workload import NOT_SEEN, OutcomeKind


def samples(*intended_ns: int, worker: int = 0) -> Samples:
    n = len(intended_ns)
    intended = np.array(intended_ns, np.int64)
    return replace(
        Samples.empty(n),
        intended_ns=intended,
        sent_ns=intended + 10,
        finished_ns=intended + 110,
        worker=np.full(n, worker, np.uint16),
    )


class Columns(unittest.TestCase):
    def test_three_latencies(self) -> None:
        some = samples(0, 1000)
        self.assertEqual(some.lag_ns.tolist(), [10, 10])
        self.assertEqual(some.service_ns.tolist(), [100, 100])
        self.assertEqual(some.response_ns.tolist(), [110, 110])

    def test_new_ones_are_unchecked_and_have_no_first_byte(self) -> None:
        some = Samples.empty(2)
        self.assertEqual(len(some), 2)
        self.assertTrue(np.isnan(some.qualities).all())
        self.assertEqual(some.first_byte_ns.tolist(), [NOT_SEEN] * 2)
        self.assertEqual(some.ok.tolist(), [True, True])

    def test_only_one_outcome_is_ok(self) -> None:
        every = replace(
            Samples.empty(len(OutcomeKind)), outcome=np.array([int(kind) for kind in OutcomeKind], np.uint8)
        )
        self.assertEqual(np.flatnonzero(every.ok).tolist(), [OutcomeKind.OK])

    def test_select_keeps_rows_whole(self) -> None:
        some = samples(0, 1, 2, 3)
        self.assertEqual(some.select(some.intended_ns > 1).index.tolist(), [2, 3])
        self.assertEqual(some.select(np.array([3, 0])).finished_ns.tolist(), [113, 110])

    def test_parts_are_joined_in_order_of_the_intended_time(self) -> None:
        joined = Samples.concatenate([samples(0, 20, 40, worker=0), samples(10, 20, 30, worker=1)])
        self.assertEqual(joined.intended_ns.tolist(), [0, 10, 20, 20, 30, 40])
        self.assertEqual(joined.worker.tolist(), [0, 1, 0, 1, 1, 0])

    def test_no_parts_are_no_rows(self) -> None:
        self.assertEqual(len(Samples.concatenate([])), 0)


class Files(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "samples.npz"

    def test_every_column_comes_back_with_its_type(self) -> None:
        some = samples(3, 1, 2)
        some.save(self.path)
        again = Samples.load(self.path)
        for field in fields(Samples):
            before, after = getattr(some, field.name), getattr(again, field.name)
            np.testing.assert_array_equal(after, before)
            if field.name not in ("tokens", "stages"):
                self.assertEqual(after.dtype, before.dtype)
        self.assertEqual([path.name for path in self.path.parent.iterdir()], ["samples.npz"])

    def test_what_is_not_a_samples_file_is_named(self) -> None:
        samples(1, 2).save(self.path)
        whole = self.path.read_bytes()
        for data in (whole[:-30], whole[:100], b"not a zip", b""):
            self.path.write_bytes(data)
            with self.subTest(data[:10]), self.assertRaisesRegex(ResultError, f"samples from {self.path}"):
                Samples.load(self.path)

    def test_a_missing_or_other_file_is_named(self) -> None:
        with self.assertRaisesRegex(ResultError, f"samples from {self.path}"):
            Samples.load(self.path)
        np.savez(self.path, other=np.zeros(3))
        with self.assertRaisesRegex(ResultError, f"samples from {self.path}"):
            Samples.load(self.path)

    def test_a_place_that_cannot_be_written_is_named(self) -> None:
        path = self.path.parent / "missing" / "samples.npz"
        with self.assertRaisesRegex(ResultError, f"cannot write {path}"):
            samples(1).save(path)


if __name__ == "__main__":
    unittest.main()
