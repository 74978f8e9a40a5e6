"""The histogram against numpy and against HdrHistogram itself."""

import io
import json
import unittest

import numpy as np
from hdrh.histogram import HdrHistogram
from test import fakes  # noqa: F401  (puts src on the path)

from aifbench.errors import ResultError
from aifbench.stats.histogram import Histogram
from aifbench.stats.intervals import quantile_rank

QUANTILES = (0.0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0)


def latencies_ns(n: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(np.log(2e6), 0.8, n).astype(np.int64)


def hdr(values: np.ndarray) -> HdrHistogram:
    histogram = HdrHistogram(1, 3_600_000_000_000, 3)
    for value in values:
        histogram.record_value(int(value))
    return histogram


class QuantilesTest(unittest.TestCase):
    def test_within_a_thousandth_above_the_exact_order_statistic(self) -> None:
        values = latencies_ns(50_000)
        ordered, histogram = np.sort(values), Histogram.of(values)
        for q in QUANTILES:
            exact = ordered[quantile_rank(len(values), q) - 1]
            self.assertGreaterEqual(histogram.quantile(q), exact)
            self.assertLessEqual(histogram.quantile(q), exact * 1.001)

    def test_identical_to_hdrhistogram_at_three_digits(self) -> None:
        values = latencies_ns(10_000)
        ours, theirs = Histogram.of(values), hdr(values)
        for q in (0.5, 0.9, 0.99, 0.999, 0.9999):
            self.assertEqual(theirs.get_value_at_percentile(100 * q), ours.quantile(q))

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
            {**good, "gaps": 3, "counts": 3},
        )
        for data in bad:
            with self.subTest(data), self.assertRaises(ResultError):
                Histogram.from_json(data)


class HgrmTest(unittest.TestCase):
    def test_rows_and_totals_as_hdrhistogram_writes_them(self) -> None:
        values = latencies_ns(3_000)
        out = io.BytesIO()
        hdr(values).output_percentile_distribution(out, 1e6)
        theirs, ours = out.getvalue().decode().splitlines(), Histogram.of(values).to_hgrm().splitlines()
        self.assertEqual(theirs[:-3], ours[:-3])
        self.assertEqual(theirs[-3].split(",")[0], ours[-3].split(",")[0])
        self.assertEqual(theirs[-2].split(",")[0], ours[-2].split(",")[0])

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
