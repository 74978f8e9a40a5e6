"""Intervals: by exact arithmetic, published values, and how often they hold the truth."""

import math
import unittest
from fractions import Fraction
from itertools import accumulate
from statistics import NormalDist

import numpy as np
from test import fakes  # noqa: F401  (puts src on the path)

from aifbench.stats import intervals
from aifbench.stats.intervals import minimum_n, quantile_interval_ranks


class QuantileRanksTest(unittest.TestCase):
    def test_minimal_sample_sizes(self) -> None:
        expected = {0.5: 6, 0.9: 36, 0.95: 72, 0.99: 368, 0.999: 3688, 0.1: 36}
        self.assertEqual(expected, {q: minimum_n(q) for q in expected})
        for q, n in expected.items():
            self.assertIsNone(quantile_interval_ranks(n - 1, q))
            low, high = quantile_interval_ranks(n, q) or (0, 0)
            self.assertTrue(1 <= low < high <= n)

    def test_ranks_are_the_exact_binomial_ones(self) -> None:
        for n in (6, 7, 36, 37, 100, 368, 369, 999):
            for q in (Fraction(1, 10), Fraction(1, 2), Fraction(9, 10), Fraction(99, 100)):
                if n >= minimum_n(float(q)):
                    self.assertEqual(exact_ranks(n, q), quantile_interval_ranks(n, float(q)), (n, q))

    def test_ranks_of_large_samples(self) -> None:
        # scipy 1.17's binom.ppf(0.025, n, q) and binom.ppf(0.975, n, q) + 1
        expected = {
            (12_345, 0.9): (11_045, 11_176),
            (10**6, 0.5): (499_020, 500_981),
            (10**6, 0.99): (989_805, 990_196),
            (10**8, 0.001): (99_381, 100_621),
            (10**8, 0.9999): (99_989_804, 99_990_197),
        }
        self.assertEqual(expected, {(n, q): quantile_interval_ranks(n, q) for n, q in expected})

    def test_sample_quantile_is_the_smallest_value_with_enough_below(self) -> None:
        values = np.sort(np.random.default_rng(5).random(1_000))
        for q in (0.001, 0.07, 0.5, 0.9, 0.99, 0.999, 1.0):
            place = intervals.quantile_rank(len(values), q) - 1
            self.assertEqual(np.quantile(values, q, method="inverted_cdf"), values[place])

    def test_highest_quantile_is_where_the_sample_gives_out(self) -> None:
        for n in (6, 36, 368, 100_000):
            q = intervals.highest_quantile(n)
            self.assertGreaterEqual(n, minimum_n(q - 1e-9))
            self.assertLess(n, minimum_n(q + 1e-6 * (1 - q)))
        self.assertEqual(0, intervals.highest_quantile(0))


class QuantileTest(unittest.TestCase):
    def test_holds_the_true_quantile_in_95_of_100_samples(self) -> None:
        rng, truth = np.random.default_rng(7), math.exp(0.8 * NormalDist().inv_cdf(0.9))
        held = 0
        for _ in range(1_000):
            estimate = intervals.quantile(np.sort(rng.lognormal(0, 0.8, 200)), 0.9)
            held += estimate.low <= truth <= estimate.high
        self.assertTrue(935 <= held <= 985, held)

    def test_none_where_the_sample_cannot_carry_it(self) -> None:
        self.assertIsNone(intervals.quantile(np.arange(367), 0.99))
        self.assertIsNone(intervals.quantile(np.arange(0), 0.5))
        estimate = intervals.quantile(np.arange(1, 369), 0.99)
        self.assertEqual((365, 368, 368), (estimate.value, estimate.high, estimate.n))


class ProportionTest(unittest.TestCase):
    def test_published_intervals(self) -> None:
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        published = {
            (81, 263): (0.2553, 0.3662),
            (15, 148): (0.0624, 0.1605),
            (0, 20): (0.0000, 0.1611),
            (1, 29): (0.0061, 0.1718),
        }
        for (successes, n), interval in published.items():
            ours = intervals.proportion(successes, n)
            self.assertEqual(interval, (round(ours.low, 4), round(ours.high, 4)))

    def test_holds_its_share_and_is_the_mirror_image_of_the_others(self) -> None:
        for successes, n in ((0, 10), (1, 10), (5, 10), (10, 10), (3, 1_000), (999, 1_000)):
            ours, others = intervals.proportion(successes, n), intervals.proportion(n - successes, n)
            self.assertEqual((successes / n, n), (ours.value, ours.n))
            self.assertTrue(0 <= ours.low <= ours.value <= ours.high <= 1)
            np.testing.assert_allclose((ours.low, ours.high), (1 - others.high, 1 - others.low), atol=1e-12)

    def test_nothing_says_nothing(self) -> None:
        self.assertIsNone(intervals.proportion(0, 0))


class MeanTest(unittest.TestCase):
    def test_batch_means_hold_the_truth_also_for_correlated_values(self) -> None:
        rng, held_batches, held_naive = np.random.default_rng(11), 0, 0
        for _ in range(300):
            values = 10 + autoregressive(rng, 4_000, 0.9)
            estimate = intervals.mean(values)
            held_batches += estimate.low <= 10 <= estimate.high
            held_naive += abs(values.mean() - 10) <= 1.96 * values.std() / np.sqrt(len(values))
        self.assertTrue(265 <= held_batches <= 300, held_batches)
        self.assertLess(held_naive, 150)

    def test_value_without_interval_when_few(self) -> None:
        estimate = intervals.mean(np.arange(99))
        self.assertEqual((49, None, None, 99), (estimate.value, estimate.low, estimate.high, estimate.n))
        self.assertIsNone(intervals.mean(np.array([])))

    def test_uneven_batches_lose_nothing(self) -> None:
        values = np.r_[np.zeros(100), 1.0]
        estimate = intervals.mean(values)
        self.assertAlmostEqual(1 / 101, estimate.value)
        self.assertLess(estimate.low, estimate.value)


class SharesTest(unittest.TestCase):
    def test_all_right_does_not_claim_certainty(self) -> None:
        estimate = intervals.mean_of_shares(np.ones(200, np.float32))
        self.assertEqual(1, estimate.value)
        self.assertEqual(1, estimate.high)
        self.assertAlmostEqual(0.981, estimate.low, places=3)

    def test_stays_within_0_and_1(self) -> None:
        values = np.ones(200, np.float32)
        values[::50] = 0.9
        estimate = intervals.mean_of_shares(values)
        self.assertLessEqual(estimate.high, 1)
        self.assertLess(estimate.low, 0.998)

    def test_few_values_take_the_wide_interval_and_none_has_none(self) -> None:
        few = intervals.mean_of_shares(np.full(20, 0.5))
        self.assertLess(few.low, 0.31)
        self.assertIsNone(intervals.mean_of_shares(np.array([], np.float32)))


class RateTest(unittest.TestCase):
    def test_holds_the_true_rate_of_a_poisson_process(self) -> None:
        rng, held = np.random.default_rng(13), 0
        for _ in range(500):
            estimate = intervals.rate(rng.uniform(0, 60, rng.poisson(3_000)), 0, 60)
            held += estimate.low <= 50 <= estimate.high
        self.assertTrue(458 <= held <= 490, held)

    def test_counts_from_start_exclusive_to_end_inclusive(self) -> None:
        estimate = intervals.rate(np.arange(0, 11), 0, 10)
        self.assertEqual((1.0, 10, None), (estimate.value, estimate.n, estimate.low))

    def test_amounts_weigh_events(self) -> None:
        times, amounts = np.linspace(0.05, 10, 200), np.full(200, 32, np.uint32)
        estimate = intervals.rate(times, 0, 10, amounts=amounts)
        self.assertAlmostEqual(640, estimate.value)
        self.assertAlmostEqual(640, estimate.low, delta=1)

    def test_empty_window_and_no_events(self) -> None:
        self.assertIsNone(intervals.rate(np.array([1, 2]), 5, 5))
        self.assertEqual(0, intervals.rate(np.array([]), 0, 5).value)


def exact_ranks(n: int, q: Fraction) -> tuple[int, int]:
    """The 2.5 % and 97.5 % points of binomial(n, q) in whole numbers, the upper one as the rank above it."""
    yes, no = q.numerator, q.denominator - q.numerator
    ways = accumulate(math.comb(n, k) * yes**k * no ** (n - k) for k in range(n + 1))
    up_to = [40 * way for way in ways]
    one = q.denominator**n
    low = next(k for k, way in enumerate(up_to) if way >= one)
    high = next(k for k, way in enumerate(up_to) if way >= 39 * one)
    return low, high + 1


def autoregressive(rng: np.random.Generator, n: int, phi: float) -> np.ndarray:
    noise, values = rng.normal(0, 1, n), np.empty(n)
    values[0] = noise[0]
    for i in range(1, n):
        values[i] = phi * values[i - 1] + noise[i]
    return values


if __name__ == "__main__":
    unittest.main()
