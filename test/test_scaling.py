"""The scaling law: what it finds, and when it says nothing. Against scipy and simulations: oracle_scaling."""

import unittest

import numpy as np
from test import fakes  # noqa: F401 - puts src on the path

from aifbench.stats.scaling import Refusal, Scaling, fit

LEVELS = [1, 2, 4, 8, 16, 32, 64]


def rates(sigma: float, kappa: float, noise: float = 0.0, seed: int = 1) -> list[float]:
    n = np.array(LEVELS, np.float64)
    clean = 1000 * n / (1 + sigma * (n - 1) + kappa * n * (n - 1))
    return (clean * np.exp(np.random.default_rng(seed).normal(0, noise, len(n)))).tolist()


class Law(unittest.TestCase):
    def fitted(self, sigma: float, kappa: float, noise: float = 0.0) -> Scaling:
        law = fit(LEVELS, rates(sigma, kappa, noise))
        assert isinstance(law, Scaling)
        return law

    def test_an_exact_law_is_found(self) -> None:
        law = self.fitted(0.05, 0.001)
        self.assertAlmostEqual(1000, law.rate_of_one.value, places=3)
        self.assertAlmostEqual(0.05, law.sigma.value, places=7)
        self.assertAlmostEqual(0.001, law.kappa.value, places=8)
        assert law.peak is not None
        self.assertAlmostEqual((0.95 / 0.001) ** 0.5, law.peak.value, places=3)
        self.assertEqual((), law.notes)

    def test_speed_up_efficiency_and_knee(self) -> None:
        law = self.fitted(0.1, 0.0)
        self.assertAlmostEqual(1.0, law.efficiency(1))
        self.assertAlmostEqual(11 / 2, law.speed_up(11), places=4)
        self.assertAlmostEqual(10, law.knee or 0, places=3)

    def test_intervals_enclose_the_estimates(self) -> None:
        law = self.fitted(0.05, 0.001, 0.02)
        for estimate in (law.rate_of_one, law.sigma, law.kappa, law.peak):
            assert estimate is not None and estimate.low is not None and estimate.high is not None
            self.assertTrue(estimate.low < estimate.value < estimate.high)

    def test_without_a_bend_there_is_no_peak(self) -> None:
        law = self.fitted(0.05, 0.0, 0.02)
        self.assertTrue(law.peak is None or law.peak.high is None)
        self.assertIn("peak", law.notes[0])

    def test_a_peak_beyond_the_levels_is_called_extrapolated(self) -> None:
        self.assertIn("extrapolated", self.fitted(0.02, 1e-4).notes[0])

    def test_more_than_linear_growth_gives_no_negative_parameters(self) -> None:
        law = fit([1, 2, 4, 8], [100.0, 220.0, 450.0, 900.0])
        assert isinstance(law, Scaling)
        self.assertEqual((0.0, 0.0), (law.sigma.value, law.kappa.value))

    def test_throughput_that_falls_from_the_first_client_on_peaks_there(self) -> None:
        law = fit([1, 2, 4, 8], [8, 4, 2, 1])
        assert isinstance(law, Scaling) and law.peak is not None
        assert law.peak.low is not None and law.peak.high is not None
        self.assertEqual(law.peak.value, 1.0)
        self.assertTrue(1.0 <= law.peak.low <= law.peak.value <= law.peak.high)

    def test_refusals(self) -> None:
        for clients, values, why in (
            ([1, 2, 4], [1.0, 2.0, 3.0], "4 are needed"),
            ([1, 1, 2, 2, 4], [1.0, 1.0, 2.0, 2.0, 4.0], "4 are needed"),
            ([1, 2, 4, 8], [5.0, 50.0, 3.0, 80.0], "explains"),
            ([1, 2, 4, 8], [5.0, 0.0, 3.0, 80.0], "above 0"),
            ([0, 2, 4, 8], [5.0, 6.0, 7.0, 8.0], "at least one client"),
            ([1, 2, 4, 8], [5.0, float("nan"), 7.0, 8.0], "above 0"),
        ):
            refused = fit(clients, values)
            assert isinstance(refused, Refusal), refused
            self.assertIn(why, refused.reason)


if __name__ == "__main__":
    unittest.main()
