"""The SQL workloads' own part: keys, batches, mixes; without a server."""

import struct
import unittest

import numpy as np
from test import fakes  # noqa: F401 - puts src on the path

from aifbench.errors import UsageError
from aifbench.workloads import sql_bulk, sql_metadata
from aifbench.workloads.sql_keys import draw_keys, zipf_ranks


class Keys(unittest.TestCase):
    def test_uniform_keys_reach_every_row_and_no_other(self) -> None:
        self.assertEqual(set(range(7)), set(draw_keys(7, 1000, 1).tolist()))

    def test_keys_are_the_same_in_every_worker(self) -> None:
        self.assertTrue((draw_keys(100, 50, 3, 1.0) == draw_keys(100, 50, 3, 1.0)).all())

    def test_zipf_has_its_probabilities(self) -> None:
        for skew in (0.5, 1.0, 2.0):
            ranks = zipf_ranks(10, skew, 100_000, np.random.default_rng(5))
            expected = np.arange(1, 11) ** -skew / np.sum(np.arange(1, 11) ** -skew)
            self.assertLess(np.abs(np.bincount(ranks, minlength=11)[1:] / 1e5 - expected).max(), 0.006)

    def test_popular_keys_are_scattered_and_in_range(self) -> None:
        keys, counts = np.unique(draw_keys(1000, 20_000, 1, 1.0), return_counts=True)
        first, second = keys[np.argsort(counts)[-2:]]
        self.assertGreater(abs(first - second), 10)
        self.assertTrue(keys.min() >= 0 and keys.max() < 1000)

    def test_bad_input(self) -> None:
        for rows, skew in ((0, 0.0), (10, -1.0), (10, float("nan"))):
            with self.assertRaises(UsageError):
                draw_keys(rows, 1, 1, skew)


class Bulk(unittest.TestCase):
    def test_binary_rows_are_what_copy_reads(self) -> None:
        data = sql_bulk.with_binary_ids(sql_bulk.binary_rows(3, 5, 1), np.array([7, 8, 2**40]))
        size = 2 + 4 + 8 + 4 + 4 + 4 + 8 + 4 + 5
        self.assertEqual(3 * size, len(data))
        columns, id_bytes, number = struct.unpack_from("!hiq", data, 2 * size)
        self.assertEqual((4, 8, 2**40), (columns, id_bytes, number))
        self.assertTrue(data[-5:].isascii())

    def test_text_rows_are_lines_of_four_columns(self) -> None:
        template = sql_bulk.text_rows(2, 9, 1)
        lines = sql_bulk.with_text_ids(template, np.array([0, 123_456_789_012])).decode().splitlines()
        self.assertEqual([0, 123_456_789_012], [int(line.split("\t")[0]) for line in lines])
        for line in lines:
            _, group, value, payload = line.split("\t")
            self.assertTrue(0 <= int(group) < 1000 and 0 <= float(value) <= 1 and len(payload) == 9)

    def test_both_forms_hold_the_same_rows(self) -> None:
        text, binary = sql_bulk.text_rows(4, 8, 2), sql_bulk.binary_rows(4, 8, 2)
        self.assertEqual(text["payload"].tobytes(), binary["payload"].tobytes())
        self.assertEqual([int(group) for group in text["group"]], binary["group"].tolist())

    def test_bad_input(self) -> None:
        for method, batch, payload in (
            ("magic", 1, 1),
            ("copy-text", 0, 1),
            ("multi-row", 20_000, 1),
            ("pipeline", 1, 0),
        ):
            with self.assertRaises(UsageError):
                sql_bulk.check_load(method, batch, payload)


class Metadata(unittest.TestCase):
    def test_kinds_come_in_their_shares_and_are_known_afterwards(self) -> None:
        shares = sql_metadata.shares_of({"insert_run": 1, "latest_runs": 3})
        found = sql_metadata.kinds(np.arange(100_000), shares, 1)
        names = list(sql_metadata.OPERATIONS)
        counts = np.bincount(found, minlength=len(names)) / 1e5
        self.assertEqual(0, counts[names.index("append_metrics")])
        self.assertAlmostEqual(0.75, counts[names.index("latest_runs")], delta=0.01)

    def test_bad_weights_and_levels(self) -> None:
        for weights in ({"nothing": 1.0}, {"insert_run": 0.0}, {"insert_run": -1.0, "latest_runs": 5.0}):
            with self.assertRaises(UsageError):
                sql_metadata.shares_of(weights)
        with self.assertRaises(UsageError):
            sql_metadata.Mix("s", 10, isolation="chaos")


if __name__ == "__main__":
    unittest.main()
