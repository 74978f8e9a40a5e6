"""The histogram against numpy, and against what HdrHistogram answered to the same values."""

import json
import unittest

import numpy as np
from test import fakes  # noqa: F401  (puts src on the path)

from aifbench.errors import ResultError
from aifbench.stats.histogram import Histogram
from aifbench.stats.intervals import quantile_rank

QUANTILES = (0.0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0)


def latencies_ns(n: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(np.log(2e6), 0.8, n).astype(np.int64)


# The rows are those of HdrHistogram (hdrhistogram 0.10.8, 3 digits) for the ten values in HgrmTest.
HGRM = """\
       Value     Percentile TotalCount 1/(1-Percentile)

       0.002 0.000000000000          1           1.00
       0.002 0.100000000000          1           1.11
       0.400 0.190000000000          2           1.23
       1.000 0.271000000000          4           1.37
       1.000 0.343900000000          4           1.52
       1.200 0.409510000000          5           1.69
       1.200 0.468559000000          5           1.88
       2.001 0.521703100000          8           2.09
       2.001 0.569532790000          8           2.32
       2.001 0.612579511000          8           2.58
       2.001 0.651321559900          8           2.87
       2.001 0.686189403910          8           3.19
       2.001 0.717570463519          8           3.54
       2.001 0.745813417167          8           3.93
       2.001 0.771232075450          8           4.37
       2.001 0.794108867905          8           4.86
       2.501 0.814697981115          9           5.40
       2.501 0.833228183003          9           6.00
       2.501 0.849905364703          9           6.66
       2.501 0.864914828233          9           7.40
       2.501 0.878423345409          9           8.23
       2.501 0.890581010868          9           9.14
       3.000 0.901522909782         10          10.15
       3.000 1.000000000000         10
#[Mean    =        1.510, StdDeviation   =        0.897]
#[Max     =        3.000, TotalCount     =           10]
#[Buckets =            7, SubBuckets     =         2048]
"""


class QuantilesTest(unittest.TestCase):
    def test_within_a_thousandth_above_the_exact_order_statistic(self) -> None:
        values = latencies_ns(50_000)
        ordered, histogram = np.sort(values), Histogram.of(values)
        for q in QUANTILES:
            exact = ordered[quantile_rank(len(values), q) - 1]
            self.assertGreaterEqual(histogram.quantile(q), exact)
            self.assertLessEqual(histogram.quantile(q), exact * 1.001)

    def test_bucket_edges_are_those_of_hdrhistogram_at_three_digits(self) -> None:
        edges = {
            2_047: 2_047,
            2_048: 2_049,
            4_095: 4_095,
            4_096: 4_099,
            1_000_000: 1_000_447,
            123_456_789: 123_469_823,
            3_599_999_999_999: 3_601_330_077_695,
        }
        found = {value: Histogram.of(np.array([value])).quantile(0.5) for value in edges}
        self.assertEqual(edges, found)

    def test_error_is_bounded_at_every_magnitude(self) -> None:
        edges = [v for bit in range(63) for v in (2**bit - 1, 2**bit, 2**bit + 1) if v < 2**63]
        for value in edges:
            found = Histogram.of(np.array([value])).quantile(0.5)
            self.assertGreaterEqual(found, float(value))
            self.assertLessEqual(found, value * 1.001)

    def test_small_values_are_exact(self) -> None:
        for value in (0, 1, 1023, 1024, 2047):
            self.assertEqual(value, Histogram.of(np.array([value])).quantile(0.5))

    def test_empty_has_no_quantile_and_negative_is_refused(self) -> None:
        self.assertIsNone(Histogram.of(np.array([])).quantile(0.5))
        with self.assertRaisesRegex(ValueError, "-5"):
            Histogram.of(np.array([1, -5]))


class MergeTest(unittest.TestCase):
    def test_sum_of_parts_is_the_whole(self) -> None:
        values = latencies_ns(9_000)
        whole = Histogram.of(values)
        parts = Histogram.of(values[:100]) + Histogram.of(values[100:5_000]) + Histogram.of(values[5_000:])
        self.assertEqual(whole.to_json(), parts.to_json())
        self.assertEqual(9_000, parts.total)

    def test_adding_nothing_changes_nothing(self) -> None:
        some, none = Histogram.of(latencies_ns(50)), Histogram.of(np.array([]))
        self.assertEqual(some.to_json(), (some + none).to_json())
        self.assertEqual(some.to_json(), (none + some).to_json())


class JsonTest(unittest.TestCase):
    def test_round_trip_through_text(self) -> None:
        histogram = Histogram.of(latencies_ns(5_000))
        again = Histogram.from_json(json.loads(json.dumps(histogram.to_json())))
        self.assertEqual([histogram.quantile(q) for q in QUANTILES], [again.quantile(q) for q in QUANTILES])
        self.assertEqual(0, Histogram.from_json(Histogram.of(np.array([])).to_json()).total)

    def test_anything_else_is_refused(self) -> None:
        good = Histogram.of(np.array([5, 5, 900, 70_000])).to_json()
        bad = (
            {},
            {**good, "schema": "log-linear/12"},
            {**good, "counts": good["counts"][:-1]},
            {**good, "counts": [1, -1, 1]},
            {**good, "gaps": [5, 0, 9]},
            {**good, "gaps": [-5, 3, 9]},
            {**good, "gaps": ["a", 2, 3]},
            {**good, "gaps": [2**70, 1, 1]},
            {**good, "gaps": [10**9, 1, 1]},
            {**good, "gaps": [2**62, 2**62, 1]},
            {**good, "gaps": 3, "counts": 3},
        )
        for data in bad:
            with self.subTest(data), self.assertRaises(ResultError):
                Histogram.from_json(data)


class HgrmTest(unittest.TestCase):
    def test_whole_text_of_a_few_values(self) -> None:
        values_us = np.array([1.5, 400, 1_000, 1_000, 1_200, 2_000, 2_000, 2_000, 2_500, 3_000])
        self.assertEqual(HGRM, Histogram.of(1_000 * values_us).to_hgrm())

    def test_deviation_is_in_the_same_unit_as_the_mean(self) -> None:
        footer = Histogram.of(np.array([1_000_000, 3_000_000])).to_hgrm().splitlines()[-3]
        self.assertRegex(footer, r"Mean    = +2\.00\d, StdDeviation   = +1\.00\d")

    def test_one_value_and_none(self) -> None:
        lines = Histogram.of(np.array([1_500])).to_hgrm(unit_ns=1e3).splitlines()
        self.assertEqual(["1.500", "0.000000000000", "1", "1.00"], lines[2].split())
        self.assertEqual(["1.500", "1.000000000000", "1"], lines[3].split())
        self.assertIn("TotalCount     =            0", Histogram.of(np.array([])).to_hgrm())


if __name__ == "__main__":
    unittest.main()
