"""The paired interval against scipy: a shift just inside it is not rejected, one just outside is."""

import unittest

import numpy as np
from scipy import stats
from test import fakes  # noqa: F401  (puts src on the path)

from aifbench.stats.paired import hodges_lehmann


class SignedRankTest(unittest.TestCase):
    def test_bounds_are_where_the_exact_test_begins_to_reject(self) -> None:
        rng = np.random.default_rng(23)
        for n in (6, 7, 9, 15, 30, 50, 80):
            values = rng.gamma(2.0, 3.0, n)
            estimate = hodges_lehmann(values)
            assert estimate is not None and estimate.low is not None and estimate.high is not None
            for bound, inwards in ((estimate.low, 1e-9), (estimate.high, -1e-9)):
                self.assertGreater(p_value(values - bound - inwards), 0.05, n)
                self.assertLessEqual(p_value(values - bound + inwards), 0.05, n)

    def test_large_samples(self) -> None:
        values = np.random.default_rng(29).gamma(2.0, 3.0, 2_000)
        estimate = hodges_lehmann(values)
        assert estimate is not None and estimate.low is not None and estimate.high is not None
        for bound in (estimate.low, estimate.high):
            p = stats.wilcoxon(values - bound, method="approx", correction=False).pvalue
            self.assertAlmostEqual(0.05, p, delta=0.001)

    def test_estimate_is_the_median_of_all_averages(self) -> None:
        values = np.random.default_rng(31).normal(5, 2, 301)
        rows, columns = np.triu_indices(len(values))
        estimate = hodges_lehmann(values)
        assert estimate is not None
        self.assertAlmostEqual(
            float(np.median((values[rows] + values[columns]) / 2)), estimate.value, places=9
        )


def p_value(values: np.ndarray) -> float:
    return float(stats.wilcoxon(values, method="exact").pvalue)


if __name__ == "__main__":
    unittest.main()
