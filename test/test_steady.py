"""Steady state: transients are cut, drifts are refused, stalls stay in."""

import unittest

import numpy as np
from test import fakes  # noqa: F401  (puts src on the path)

from aifbench.stats.steady import MIN_BATCHES, mser, settle


def noise(n: int, seed: int = 1, sigma: float = 0.2) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(np.log(5), sigma, n)


def batch_means(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, 5).mean(axis=1)


class MserTest(unittest.TestCase):
    def test_exponential_transient_is_cut_after_about_four_time_constants(self) -> None:
        series = batch_means(noise(2_000) + 20 * np.exp(-np.arange(2_000) / 80))
        self.assertTrue(3 * 80 <= 5 * mser(series) <= 6 * 80, mser(series))

    def test_drift_never_settles(self) -> None:
        series = batch_means(noise(2_000, sigma=0.05) * (1 + np.arange(2_000) / 2_000))
        self.assertGreaterEqual(mser(series), len(series) / 2)

    def test_same_as_the_formula(self) -> None:
        series = noise(60) + np.r_[np.full(7, 9.0), np.zeros(53)]
        tails = [series[d:] for d in range(len(series) - 5 + 1)]
        scores = [((tail - tail.mean()) ** 2).sum() / len(tail) ** 2 for tail in tails]
        self.assertEqual(int(np.argmin(scores)), mser(series))

    def test_constant_and_short_series_are_not_cut(self) -> None:
        self.assertEqual(0, mser(np.full(500, 0.1)))
        self.assertEqual(0, mser(np.array([9, 1, 1, 1, 1])))


class SettleTest(unittest.TestCase):
    def test_noise_is_steady_and_hardly_cut(self) -> None:
        for n in (150, 2_000, 50_000):
            results = [settle(noise(n, seed)) for seed in range(20)]
            self.assertGreaterEqual(sum(result.steady is True for result in results), 18, n)
            self.assertLess(np.median([result.cut for result in results]), 0.02 * n)

    def test_transient_is_cut(self) -> None:
        for n in (2_000, 50_000):
            time_constant = 0.04 * n
            result = settle(noise(n) + 20 * np.exp(-np.arange(n) / time_constant))
            self.assertTrue(result.steady)
            self.assertTrue(2 * time_constant < result.cut < 8 * time_constant, result)

    def test_drift_is_not_steady_and_not_cut(self) -> None:
        result = settle(noise(3_000) * (1 + np.arange(3_000) / 3_000))
        self.assertEqual((False, 0), (result.steady, result.cut))

    def test_a_late_change_of_level_is_not_steady(self) -> None:
        for at in (0.5, 0.9):
            values = noise(6_000)
            values[int(at * 6_000) :] *= 1.5
            self.assertIs(False, settle(values).steady)
            self.assertAlmostEqual(1 / 3, settle(values).shift, delta=0.05)

    def test_a_stall_is_not_a_transient(self) -> None:
        for at in (600, 1_800, 3_000, 4_800):
            for values in (noise(6_000), np.full(6_000, 5.0)):
                values[at : at + 200] += np.linspace(2_000, 0, 200)
                result = settle(values)
                self.assertTrue(result.steady)
                self.assertLess(result.cut, 60)

    def test_a_drift_too_small_to_matter_is_let_pass(self) -> None:
        slight = np.random.default_rng(2).normal(100, 0.1, 20_000) + np.linspace(0, 3, 20_000)
        self.assertIs(True, settle(slight).steady)
        self.assertIs(False, settle(slight + np.linspace(0, 30, 20_000)).steady)

    def test_too_short_to_judge(self) -> None:
        for n in (0, 1, MIN_BATCHES - 1):
            self.assertEqual((None, 0), (settle(np.ones(n)).steady, settle(np.ones(n)).cut))
        self.assertIs(True, settle(np.ones(MIN_BATCHES)).steady)

    def test_single_values_are_judged_when_there_are_few(self) -> None:
        result = settle(np.r_[np.full(6, 50.0), noise(60)])
        self.assertEqual(66, result.batches)
        self.assertTrue(6 <= result.cut < 20, result)


if __name__ == "__main__":
    unittest.main()
