"""The scaling law against scipy's curve_fit, and its intervals against simulated studies."""

import unittest

import numpy as np
from scipy import stats
from scipy.optimize import curve_fit
from test import fakes  # noqa: F401  (puts src on the path)

from aifbench.stats.scaling import Scaling, fit
from aifbench.stats.student import student_t

LEVELS = np.array([1, 2, 4, 8, 12, 16, 24, 32, 48, 64], np.float64)
STUDIES = 300
TRUTHS = ((0.02, 5e-4), (0.1, 1e-4), (0.05, 0.0), (0.0, 1e-3))


def log_law(n: np.ndarray, log_rate: float, sigma: float, kappa: float) -> np.ndarray:
    return log_rate + np.log(n) - np.log1p(sigma * (n - 1) + kappa * n * (n - 1))


def study(sigma: float, kappa: float, noise: float, rng: np.random.Generator, repeats: int = 2):
    clients = np.repeat(LEVELS, repeats)
    rates = np.exp(log_law(clients, np.log(1000), sigma, kappa) + rng.normal(0, noise, len(clients)))
    return clients, rates


class ScalingOracle(unittest.TestCase):
    def test_the_fit_is_scipys(self) -> None:
        rng = np.random.default_rng(5)
        for sigma, kappa in TRUTHS:
            for _ in range(10):
                clients, rates = study(sigma, kappa, 0.03, rng)
                ours = fit(clients.tolist(), rates.tolist())
                assert isinstance(ours, Scaling)
                theirs, _ = curve_fit(
                    log_law, clients, np.log(rates), p0=(np.log(rates[0]), 0.03, 1e-4),
                    bounds=((-np.inf, 0, 0), np.inf), x_scale=(1, 1e-2, 1e-4),
                    xtol=1e-14, ftol=1e-14, gtol=1e-14,
                )  # fmt: skip
                self.assertAlmostEqual(ours.rate_of_one.value / np.exp(theirs[0]), 1, places=4)
                self.assertAlmostEqual(ours.sigma.value, theirs[1], delta=2e-5)
                self.assertAlmostEqual(ours.kappa.value, theirs[2], delta=2e-6)

    def test_intervals_hold_the_truth_as_often_as_they_say(self) -> None:
        for sigma, kappa in TRUTHS:
            rng = np.random.default_rng(7)
            held = np.zeros(4)
            for _ in range(STUDIES):
                law = fit(*(values.tolist() for values in study(sigma, kappa, 0.03, rng)))
                assert isinstance(law, Scaling)
                peak = np.sqrt((1 - sigma) / kappa) if kappa else np.inf
                pairs = ((law.rate_of_one, 1000), (law.sigma, sigma), (law.kappa, kappa), (law.peak, peak))
                held += [estimate is None or covers(estimate, truth) for estimate, truth in pairs]
            shares = held / STUDIES
            with self.subTest(sigma=sigma, kappa=kappa, shares=shares.tolist()):
                self.assertGreaterEqual(shares.min(), 0.93)

    def test_student_t(self) -> None:
        for freedom in (1, 5, 10, 11, 20, 100, 10_000):
            self.assertAlmostEqual(student_t(freedom), stats.t.ppf(0.975, freedom), delta=5e-4)


def covers(estimate, truth: float) -> bool:
    return estimate.low <= truth and (estimate.high is None or truth <= estimate.high)


if __name__ == "__main__":
    unittest.main()
