"""Intervals against scipy."""

import unittest

import numpy as np
from scipy import stats
from test import fakes  # noqa: F401  (puts src on the path)

from aifbench.stats import intervals
from aifbench.stats.intervals import minimum_n, quantile_interval_ranks


class QuantileRanksTest(unittest.TestCase):
    def test_ranks_are_the_exact_binomial_ones(self) -> None:
        for n in (6, 7, 36, 100, 368, 999, 3_688, 12_345, 10**6, 10**8):
            for q in (0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999):
                if n >= minimum_n(q):
                    exact = (stats.binom.ppf(0.025, n, q), stats.binom.ppf(0.975, n, q) + 1)
                    self.assertEqual(exact, quantile_interval_ranks(n, q), (n, q))


class ProportionTest(unittest.TestCase):
    def test_same_as_scipy(self) -> None:
        for successes, n in ((0, 10), (1, 10), (5, 10), (10, 10), (3, 1_000), (999, 1_000)):
            exact = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
            ours = intervals.proportion(successes, n)
            np.testing.assert_allclose((exact.low, exact.high), (ours.low, ours.high), atol=1e-6)
            self.assertTrue(ours.low <= ours.value <= ours.high)


if __name__ == "__main__":
    unittest.main()
