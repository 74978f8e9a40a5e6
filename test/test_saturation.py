"""The search for a capacity: against queues of known capacity, against noise, and against odd answers."""

import heapq
import math
import random
import unittest
from collections.abc import Callable

import numpy as np
from test import fakes  # noqa: F401  (puts src on the path)

from aifbench.stats.intervals import Estimate, proportion
from aifbench.stats.saturation import (
    Capacity,
    RateSearch,
    State,
    Trial,
    blind_overload,
    in_flight_limit,
)

SLOTS, SERVICE_S, FIRST_TOKEN_S, LIMIT_S = 32, 0.685, 0.05, 0.2
CAPACITY = SLOTS / SERVICE_S  # 46.7 requests per second
REQUIRED = 0.99


def queue_trial(rate: float, seconds: float, rng: random.Random | None = None) -> Trial:
    """A queue with 32 slots, each request 685 ms in one: the first token 50 ms after it got its slot.

    Arrivals are constant, from a random phase on; times are served as they come.
    """
    free = [0.0] * SLOTS
    gap, phase = 1 / rate, rng.random() if rng else 0.0
    good = total = served = 0
    for number in range(int(rate * seconds)):
        arrival = (number + phase) * gap
        begin = max(arrival, heapq.heappop(free))
        heapq.heappush(free, begin + SERVICE_S)
        total += 1
        good += begin + FIRST_TOKEN_S - arrival <= LIMIT_S
        served += 5 < begin + SERVICE_S <= seconds
    return Trial(share(good, total), REQUIRED, served / (seconds - 5), blind=blind_overload(LIMIT_S, seconds))


def share(good: float, total: int) -> Estimate:
    estimate = proportion(good, total)
    assert estimate is not None
    return estimate


def search_capacity(trial: Callable[[float, int], Trial], start: float, **options: float) -> Capacity:
    search = RateSearch(start, **options)  # type: ignore[arg-type]
    while (rate := search.next_rate()) is not None:
        search.tell(rate, trial(rate, search.attempt))
    return search.result


def plain(met: bool, rate: float = 1.0, n: int = 2000) -> Trial:
    return Trial(share(n if met else n // 2, n), REQUIRED, rate)


class KnownQueue(unittest.TestCase):
    def test_finds_the_capacity_within_two_percent_in_at_most_ten_trials(self) -> None:
        for seconds in (20.0, 30.0):
            for start in (4.0, 10.0, 45.0, 46.7, 48.0, 64.0, 300.0):
                rng = random.Random(start)

                def trial(
                    rate: float, attempt: int, seconds: float = seconds, rng: random.Random = rng
                ) -> Trial:
                    return queue_trial(rate, seconds * attempt, rng)

                found = search_capacity(trial, start)
                with self.subTest(start=start, seconds=seconds):
                    self.assertIs(found.state, State.BRACKETED)
                    assert found.met_per_s and found.failed_per_s and found.estimate_per_s
                    assert found.low_per_s and found.high_per_s
                    self.assertLessEqual(found.failed_per_s, found.met_per_s * 1.0201)
                    self.assertLess(abs(found.estimate_per_s / CAPACITY - 1), 0.02)
                    self.assertTrue(found.low_per_s <= CAPACITY <= found.high_per_s)
                    self.assertLessEqual(found.high_per_s, found.low_per_s * 1.04)
                    self.assertLessEqual(len(found.trials), 10)

    def test_a_trial_stopped_early_tells_as_much(self) -> None:
        def trial(rate: float, attempt: int) -> Trial:
            if rate > 1.3 * CAPACITY:
                return Trial(share(0, 50), REQUIRED, 0.98 * CAPACITY, overloaded=True)
            return queue_trial(rate, 30 * attempt)

        found = search_capacity(trial, 8.0)
        assert found.low_per_s and found.high_per_s
        self.assertTrue(found.low_per_s <= CAPACITY <= found.high_per_s)
        self.assertLessEqual(len(found.trials), 10)


class Noise(unittest.TestCase):
    """Requests miss their limits at random, more of them as the rate goes up: 1 % of them at the truth."""

    def search(self, seed: int, softness: float, seconds: float, is_queue: bool) -> tuple[Capacity, float]:
        rng, half = np.random.default_rng(seed), 50.0

        def trial(rate: float, attempt: int) -> Trial:
            meets = 1 / (1 + math.exp(min(700, (rate / half - 1) / softness)))
            n = max(1, int(rng.poisson(rate * seconds * attempt)))
            served = rng.poisson((min(rate, half) if is_queue else rate) * seconds) / seconds
            return Trial(share(int(rng.binomial(n, meets)), n), REQUIRED, served)

        return search_capacity(trial, 4.0), half * (1 - softness * math.log(99))

    def test_the_interval_holds_the_truth(self) -> None:
        for softness, is_queue in ((0.005, True), (0.02, False), (0.05, True)):
            held = 0
            for seed in range(300):
                found, truth = self.search(seed, softness, 30, is_queue)
                held += (found.low_per_s or 0) <= truth <= (found.high_per_s or math.inf)
            with self.subTest(softness=softness, is_queue=is_queue):
                self.assertGreaterEqual(held, 285)

    def test_a_sharp_edge_gives_a_narrow_answer_despite_noise(self) -> None:
        found = [self.search(seed, 0.001, 30, True) for seed in range(50)]
        for capacity, truth in found:
            self.assertLess(abs((capacity.estimate_per_s or 0) / truth - 1), 0.02)
        self.assertLessEqual(np.mean([len(capacity.trials) for capacity, _ in found]), 10)


class BadAnswers(unittest.TestCase):
    def test_a_service_without_limit_ends_at_the_ceiling(self) -> None:
        found = search_capacity(lambda rate, _: plain(True, rate), 10, ceiling_per_s=100)
        self.assertIs(found.state, State.UNBOUNDED)
        self.assertEqual((found.met_per_s, found.failed_per_s, found.high_per_s), (100, None, None))
        self.assertEqual([rate for rate, _ in found.trials], [10, 20, 40, 80, 100])

    def test_a_start_above_the_ceiling_is_the_ceiling(self) -> None:
        found = search_capacity(lambda rate, _: plain(True, rate), 500, ceiling_per_s=100)
        self.assertEqual([rate for rate, _ in found.trials], [100])

    def test_a_service_that_never_meets_the_objective_is_told_as_such(self) -> None:
        for served in (1.0, 0.0):
            found = search_capacity(lambda rate, _, s=served: plain(False, rate * s), 16)
            self.assertIs(found.state, State.NEVER)
            self.assertIsNone(found.estimate_per_s)
            self.assertLessEqual(len(found.trials), 8)

    def test_what_was_served_leads_below_the_floor(self) -> None:
        found = search_capacity(lambda rate, _: plain(rate <= 0.2, min(rate, 0.2)), 50)
        self.assertTrue(found.met_per_s and found.failed_per_s)
        self.assertTrue(found.low_per_s and found.low_per_s <= 0.2 <= (found.high_per_s or 0))
        self.assertLessEqual(len(found.trials), 6)

    def test_running_out_of_trials_leaves_an_honest_bracket(self) -> None:
        found = search_capacity(lambda rate, _: plain(rate <= 37, rate), 1, max_steps=7)
        self.assertIs(found.state, State.UNDECIDED)
        self.assertEqual((found.met_per_s, found.failed_per_s, len(found.trials)), (32, 64, 7))

    def test_one_stall_does_not_halve_the_capacity(self) -> None:
        asked: list[float] = []

        def trial(rate: float, _: int) -> Trial:
            asked.append(rate)
            stalled = rate == 16 and asked.count(16) == 1
            return plain(rate <= 46.7 and not stalled, rate)

        found = search_capacity(trial, 4, max_steps=40)
        self.assertTrue(found.met_per_s and found.met_per_s <= 46.7 <= (found.failed_per_s or 0))
        self.assertIn("trials at 16/s disagreed", found.notes)

    def test_a_failure_below_a_success_is_asked_again_and_told_when_it_stays(self) -> None:
        search = RateSearch(10)
        search.tell(10, plain(False, 10))
        search.tell(20, plain(True, 20))
        self.assertEqual((search.next_rate(), search.attempt), (10, 2))
        search.tell(10, plain(False, 10))
        self.assertIn("10/s failed although 20/s met the objective", search.result.notes)
        self.assertLess(search.next_rate() or 0, 10)
        self.assertIsNone(search.result.high_per_s)

    def test_too_close_to_call_widens_the_interval(self) -> None:
        def trial(rate: float, attempt: int) -> Trial:
            n = 1000 * attempt
            good = n if rate <= 40 else (0.991 * n if rate <= 46.7 else 0.5 * n)
            return Trial(share(good, n), REQUIRED, min(rate, 46.7))

        found = search_capacity(trial, 10)
        self.assertGreater(found.met_per_s or 0, 45)
        self.assertLessEqual(found.low_per_s or 0, 46)
        self.assertTrue(any("too close to call" in note for note in found.notes))
        self.assertIn(2, [[rate for rate, _ in found.trials].count(r) for r, _ in found.trials])

    def test_before_any_trial_nothing_is_known(self) -> None:
        search = RateSearch(10)
        self.assertEqual((search.next_rate(), search.attempt), (10, 1))
        self.assertIs(search.result.state, State.UNDECIDED)
        self.assertEqual((search.result.estimate_per_s, search.result.notes), (None, ()))


class Limits(unittest.TestCase):
    def test_fewest_requests_that_can_decide(self) -> None:
        self.assertTrue(Trial(share(502, 502), 0.99, 1).met)
        self.assertIsNone(Trial(share(501, 501), 0.99, 1).met)

    def test_too_many_in_flight(self) -> None:
        self.assertEqual(in_flight_limit(0.1, 1.0), 16)
        self.assertEqual(in_flight_limit(100, 2.0), 471)
        self.assertGreater(in_flight_limit(100, 2.0, slack=4), in_flight_limit(100, 2.0))

    def test_random_arrivals_that_meet_the_limit_stay_below(self) -> None:
        rng = np.random.default_rng(3)
        for rate in (1.0, 10.0, 300.0):
            most = int(rng.poisson(rate * 0.5, 100_000).max())
            self.assertLess(most, in_flight_limit(rate, 0.5))


if __name__ == "__main__":
    unittest.main()
