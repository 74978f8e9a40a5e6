"""The comparison of two sides against scipy: p, the interval that inverts the test, Holm, announced power."""

import unittest

import numpy as np
from scipy import stats
from test import fakes  # noqa: F401  (puts src on the path)

from aifbench.stats.power import repeats_for
from aifbench.stats.ranks import attained, holm, rank_sum_p, shift
from aifbench.stats.student import normal_to_student

SIZES = (
    (1, 1),
    (1, 9),
    (3, 3),
    (4, 4),
    (5, 5),
    (5, 8),
    (12, 7),
    (20, 20),
    (50, 50),
    (50, 2),
    (1, 300),
    (120, 4),
)


class MannWhitney(unittest.TestCase):
    def test_exact_without_ties(self) -> None:
        rng = np.random.default_rng(1)
        for n, m in SIZES:
            for move in (0.0, 0.5, 2.0):
                a, b = rng.normal(size=n), rng.normal(move, 1, m)
                theirs = stats.mannwhitneyu(a, b, method="exact").pvalue
                self.assertAlmostEqual(theirs, rank_sum_p(a, b), delta=1e-12, msg=f"{n} and {m}")

    def test_exact_with_ties_is_the_permutation_test(self) -> None:
        rng = np.random.default_rng(2)
        for n, m in ((2, 3), (4, 4), (5, 5), (3, 7), (6, 4)):
            for _ in range(6):
                a, b = rng.integers(0, 4, n).astype(float), rng.integers(0, 5, m).astype(float)
                ranks = stats.rankdata(np.concatenate([a, b]))
                theirs = stats.permutation_test(
                    (ranks[:n], ranks[n:]), lambda x, _: float(np.sum(x)), n_resamples=np.inf
                ).pvalue
                self.assertAlmostEqual(theirs, rank_sum_p(a, b), places=10, msg=f"{a} and {b}")

    def test_approximation_beyond(self) -> None:
        rng = np.random.default_rng(3)
        for n, m in ((51, 50), (90, 200), (30, 200)):
            for a, b in (
                (rng.normal(size=n), rng.normal(0.3, 1, m)),
                (rng.integers(0, 6, n).astype(float), rng.integers(0, 7, m).astype(float)),
            ):
                theirs = stats.mannwhitneyu(a, b, method="asymptotic").pvalue
                self.assertAlmostEqual(theirs, rank_sum_p(a, b), places=9)

    def test_the_approximation_continues_the_exact_p(self) -> None:
        rng = np.random.default_rng(4)
        for _ in range(5):
            a, b = rng.normal(size=51), rng.normal(0.4, 1, 51)
            exact = stats.mannwhitneyu(a, b, method="exact").pvalue
            self.assertAlmostEqual(exact, rank_sum_p(a, b), delta=0.002)


class Interval(unittest.TestCase):
    def test_bounds_are_where_the_exact_test_begins_to_reject(self) -> None:
        rng = np.random.default_rng(5)
        for n, m in ((4, 4), (3, 5), (5, 5), (8, 6), (20, 20), (50, 50), (2, 30)):
            a, b = rng.gamma(2.0, 3.0, n), rng.gamma(2.5, 3.0, m)
            estimate = shift(a, b)
            assert estimate is not None and estimate.low is not None and estimate.high is not None
            for bound, inwards in ((estimate.low, 1e-9), (estimate.high, -1e-9)):
                self.assertGreater(p_value(a, b - bound - inwards), 0.05, (n, m))
                self.assertLessEqual(p_value(a, b - bound + inwards), 0.05, (n, m))

    def test_bounds_of_large_samples(self) -> None:
        rng = np.random.default_rng(6)
        a, b = rng.gamma(2.0, 3.0, 300), rng.gamma(2.5, 3.0, 200)
        estimate = shift(a, b)
        assert estimate is not None and estimate.low is not None and estimate.high is not None
        for bound in (estimate.low, estimate.high):
            p = stats.mannwhitneyu(a, b - bound, method="asymptotic").pvalue
            self.assertAlmostEqual(0.05, p, delta=0.001)


class Adjustment(unittest.TestCase):
    def test_holm_against_its_definition_by_rejections(self) -> None:
        """Step by step: the k-th smallest is rejected while p <= level / (tests - k)."""
        rng = np.random.default_rng(8)
        for tests in (1, 2, 7, 40):
            p_values = rng.beta(0.3, 4, tests).tolist()
            adjusted = holm(p_values)
            for level in rng.uniform(0, 1, 50):
                rejected = set()
                for k, index in enumerate(np.argsort(p_values).tolist()):
                    if p_values[index] > level / (tests - k):
                        break
                    rejected.add(index)
                self.assertEqual(rejected, {i for i, p in enumerate(adjusted) if p <= level})


class Power(unittest.TestCase):
    def test_size_of_the_exact_test(self) -> None:
        for n in (4, 5, 8, 20):
            every = np.unique([p_value(*sides(n, u)) for u in range(n * n + 1)])
            self.assertAlmostEqual(every[every <= 0.05].max(), attained(n, 0.05), places=12)

    def test_student(self) -> None:
        for freedom in (6, 8, 18, 60):
            for z in (1.96, 2.5, 3.0):
                theirs = stats.t.ppf(stats.norm.cdf(z), freedom)
                self.assertAlmostEqual(1, normal_to_student(z, freedom) / theirs, delta=0.01)

    def test_announced_repeats_have_the_power(self) -> None:
        rng = np.random.default_rng(9)
        for alpha in (0.05, 0.005):
            for effect in (0.5, 1, 1.5, 2, 3, 5):
                n = repeats_for(effect, 1, alpha=alpha)
                a, b = rng.normal(size=(1_000, n)), rng.normal(effect, 1, (1_000, n))
                method = "exact" if n <= 50 else "asymptotic"
                share = np.mean(stats.mannwhitneyu(a, b, axis=1, method=method).pvalue < alpha)
                self.assertGreaterEqual(share, 0.78, (alpha, effect, n))  # 0.8 less 1.6 standard errors


def sides(n: int, u: int) -> tuple[np.ndarray, np.ndarray]:
    """n and n distinct values, u of whose pairs have the first side's value above the second's."""
    full, rest = divmod(u, n)
    second = np.arange(n) + 1.0
    first = np.full(n, 0.5)
    first[:full] = n + 1
    if full < n:
        first[full] = rest + 0.5
    return first + np.arange(n) * 1e-3, second


def p_value(a: np.ndarray, b: np.ndarray) -> float:
    return float(stats.mannwhitneyu(a, b, method="exact").pvalue)


if __name__ == "__main__":
    unittest.main()
