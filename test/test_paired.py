"""Paired comparison: a published example, brute force, and how often the interval holds the truth."""

import math
import unittest

import numpy as np
from test import fakes  # noqa: F401  (puts src on the path)

from aifbench.stats.paired import hodges_lehmann, interval_rank, paired_summary, walsh_average

# Hollander, Wolfe and Chicken, example 3.1: Hamilton depression scale before and after a tranquilizer.
BEFORE = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
AFTER = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]


def all_averages(values: np.ndarray) -> np.ndarray:
    rows, columns = np.triu_indices(len(values))
    return np.sort((values[rows] + values[columns]) / 2)


class PairedSummaryTest(unittest.TestCase):
    def test_published_example(self) -> None:
        difference = paired_summary(BEFORE, AFTER).difference
        assert difference is not None and difference.low is not None and difference.high is not None
        self.assertAlmostEqual(-0.46, difference.value)
        self.assertAlmostEqual(-0.786, difference.low)
        self.assertAlmostEqual(-0.010, difference.high)

    def test_ratio_turned_over_is_the_inverse(self) -> None:
        slower, faster = paired_summary(BEFORE, AFTER).ratio, paired_summary(AFTER, BEFORE).ratio
        assert slower is not None and faster is not None
        assert slower.low is not None and faster.high is not None
        self.assertAlmostEqual(1, slower.value * faster.value)
        self.assertAlmostEqual(1, slower.low * faster.high)

    def test_a_constant_factor_is_found_exactly(self) -> None:
        ratio = paired_summary([1, 2, 3, 4, 5, 6], [1.5, 3, 4.5, 6, 7.5, 9]).ratio
        assert ratio is not None and ratio.low is not None and ratio.high is not None
        for value in (ratio.low, ratio.value, ratio.high):
            self.assertAlmostEqual(1.5, value)

    def test_pairs_without_a_side_are_left_out_and_counted(self) -> None:
        summary = paired_summary([1, None, 3, math.nan, 5, 6], [2, 2, None, 4, math.inf, 7])
        self.assertEqual((2, 4), (summary.pairs, summary.left_out))
        assert summary.difference is not None
        self.assertEqual(
            (1.0, None, None), tuple(getattr(summary.difference, k) for k in ("value", "low", "high"))
        )

    def test_ratio_needs_positive_sides(self) -> None:
        summary = paired_summary([0, 1, 2], [1, 2, 4])
        assert summary.ratio is not None and summary.difference is not None
        self.assertEqual((2, 3), (summary.ratio.n, summary.difference.n))
        self.assertIsNone(paired_summary([0.0], [1.0]).ratio)

    def test_nothing_to_compare(self) -> None:
        summary = paired_summary([], [])
        self.assertEqual(
            (None, None, 0, 0), (summary.difference, summary.ratio, summary.pairs, summary.left_out)
        )
        with self.assertRaises(ValueError):
            paired_summary([1], [1, 2])

    def test_equal_sides_differ_by_exactly_nothing(self) -> None:
        difference = paired_summary(BEFORE, BEFORE).difference
        assert difference is not None
        self.assertEqual((0, 0, 0), (difference.low, difference.value, difference.high))


class IntervalTest(unittest.TestCase):
    def test_no_interval_below_six(self) -> None:
        self.assertEqual([None, None, 1], [interval_rank(n) for n in (1, 5, 6)])

    def test_ranks_of_the_tables(self) -> None:
        # R: qsignrank(0.025, n)
        self.assertEqual([9, 26, 53, 90, 435], [interval_rank(n) for n in (10, 15, 20, 25, 50)])

    def test_the_approximation_follows_the_exact_ranks(self) -> None:
        exact, beyond = interval_rank(100), interval_rank(101)
        assert exact is not None and beyond is not None
        self.assertTrue(0 <= beyond - exact < 60, (exact, beyond))

    def test_every_rank_is_that_of_all_averages(self) -> None:
        rng = np.random.default_rng(3)
        for values in (rng.normal(size=12), rng.integers(-3, 4, 15).astype(float), rng.lognormal(9, 3, 11)):
            ordered, averages = np.sort(values), all_averages(values)
            found = [walsh_average(ordered, rank) for rank in range(1, len(averages) + 1)]
            np.testing.assert_allclose(found, averages, rtol=1e-12, atol=1e-12)

    def test_holds_the_truth_in_95_of_100_samples(self) -> None:
        rng, held = np.random.default_rng(11), 0
        for _ in range(400):
            estimate = hodges_lehmann(rng.standard_t(3, 20) + 7)
            assert estimate is not None and estimate.low is not None and estimate.high is not None
            held += estimate.low <= 7 <= estimate.high
        self.assertGreaterEqual(held / 400, 0.93)
        self.assertLess(held / 400, 0.99)


if __name__ == "__main__":
    unittest.main()
