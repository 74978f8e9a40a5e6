"""Every rule below, at and beyond its limits, and silent where it does not apply."""

import unittest
from dataclasses import replace

from test import fakes  # noqa: F401  (puts src on the path)

from aifbench.load.plan import Quality
from aifbench.results.record import Check, Verdict
from aifbench.results.validity import Answers, Seen, check, check_duration
from aifbench.stats.intervals import minimum_n

VALID, WARN, INVALID = Verdict.VALID, Verdict.WARN, Verdict.INVALID

OPEN = Seen(
    open_loop=True,
    operations=20_000,
    successes=20_000,
    latencies=20_000,
    duration_s=60.0,
    p50_ms=10.0,
    p99_ms=20.0,
    max_ms=50.0,
    lag_p50_ms=0.1,
    lag_p99_ms=0.2,
    served_share=1.0,
    steady=True,
    cpu_share=0.4,
)
CLOSED = replace(OPEN, open_loop=False, lag_p50_ms=None, lag_p99_ms=None, served_share=None)
FIXED = replace(CLOSED, timed=False, stationary=False, duration_s=20.0)


def found(seen: Seen, code: str) -> list[Check]:
    return [one for one in check(seen) if one.code == code]


class RuleTest(unittest.TestCase):
    def expect(self, verdict: Verdict, seen: Seen, code: str) -> Check:
        """The most severe check of that code."""
        checks = sorted(found(seen, code), key=lambda one: list(Verdict).index(one.verdict))
        self.assertTrue(checks, f"no {code}")
        self.assertEqual(verdict, checks[-1].verdict, checks[-1])
        self.assertEqual(verdict is VALID, not checks[-1].advice, checks[-1])
        self.assertTrue(checks[-1].message)
        return checks[-1]

    def silent(self, seen: Seen, code: str) -> None:
        self.assertEqual([], found(seen, code))


class AllIsWellTest(RuleTest):
    def test_good_runs_are_valid_and_list_what_was_looked_at(self) -> None:
        for seen, codes in (
            (OPEN, {"SUCCESSES", "WORKERS", "ERRORS", "RATE", "LAG", "STEADY", "SAMPLES", "DURATION", "CPU"}),
            (CLOSED, {"SUCCESSES", "WORKERS", "ERRORS", "STEADY", "SAMPLES", "DURATION", "CPU", "OMISSION"}),
            (FIXED, {"SUCCESSES", "WORKERS", "ERRORS", "STEADY", "SAMPLES", "DURATION", "CPU"}),
        ):
            checks = check(seen)
            self.assertEqual({VALID}, {one.verdict for one in checks}, checks)
            self.assertEqual(codes | {"LOOP", "STEP"}, {one.code for one in checks})
            self.assertTrue(all(one.value is not None and one.limit is not None for one in checks))

    def test_nothing_measured_says_only_that(self) -> None:
        checks = check(replace(OPEN, successes=0, p50_ms=None, cpu_share=None))
        self.assertEqual(["SUCCESSES", "WORKERS"], [one.code for one in checks])
        self.assertEqual(INVALID, checks[0].verdict)


class ServiceTest(RuleTest):
    def test_errors(self) -> None:
        for successes, verdict in ((19_980, VALID), (19_979, WARN), (19_800, WARN), (19_799, INVALID)):
            self.expect(verdict, replace(OPEN, successes=successes), "ERRORS")

    def test_rate(self) -> None:
        for share, verdict in ((0.99, VALID), (0.989, WARN), (0.95, WARN), (0.949, INVALID)):
            self.expect(verdict, replace(OPEN, served_share=share), "RATE")
        self.silent(CLOSED, "RATE")

    def test_steady(self) -> None:
        for share, verdict in ((0.25, VALID), (0.26, WARN)):
            self.expect(verdict, replace(OPEN, unsteady_share=share), "STEADY")
        self.expect(WARN, replace(OPEN, steady=False, shift=0.49), "STEADY")
        self.expect(INVALID, replace(OPEN, steady=False, shift=0.51), "STEADY")
        for seen in (replace(FIXED, steady=False), replace(FIXED, unsteady_share=0.3)):
            self.assertIn("this amount of work only", self.expect(WARN, seen, "STEADY").message)
        self.expect(WARN, replace(OPEN, steady=None, latencies=29), "STEADY")

    def test_answers(self) -> None:
        def answered(mean: float | None) -> Seen:
            return replace(OPEN, answers=(Answers(Quality("recall@10", 0.95, 0.9), mean, 500, 20_000),))

        for mean, verdict in ((0.95, VALID), (0.949, WARN), (0.9, WARN), (0.899, INVALID)):
            self.assertIn("500 of 20,000", self.expect(verdict, answered(mean), "ANSWERS").message)
        self.assertIn("none of 20,000", self.expect(WARN, answered(None), "ANSWERS").message)
        self.silent(OPEN, "ANSWERS")

    def test_several_qualities_are_judged_each(self) -> None:
        both = tuple(Answers(Quality(name, 0.9, 0.5), 0.7, 9, 9) for name in ("recall", "order"))
        self.assertEqual([WARN, WARN], [one.verdict for one in found(replace(OPEN, answers=both), "ANSWERS")])


class SampleTest(RuleTest):
    def test_operations(self) -> None:
        firm = 3 * minimum_n(0.99)
        for n, verdict in ((firm, VALID), (firm - 1, WARN), (6, WARN), (5, INVALID)):
            self.expect(verdict, replace(OPEN, latencies=n), "SAMPLES")
        for n, verdict in ((3 * minimum_n(0.5), VALID), (17, WARN), (1, WARN)):
            self.expect(verdict, replace(FIXED, latencies=n), "SAMPLES")

    def test_duration(self) -> None:
        for duration_s, verdict in ((60, VALID), (59.9, WARN), (10, WARN), (9.9, INVALID)):
            self.expect(verdict, replace(OPEN, duration_s=duration_s), "DURATION")
        for duration_s, verdict in ((10, VALID), (9.9, WARN), (1, WARN), (0.9, INVALID)):
            self.expect(verdict, replace(FIXED, duration_s=duration_s), "DURATION")

    def test_too_short_and_too_few_say_what_is_needed(self) -> None:
        short = {c.code: c for c in check(replace(OPEN, duration_s=12.0, latencies=590))}
        self.assertEqual(short["DURATION"].message, "measured for 12 s, less than 60 s")
        self.assertEqual(short["DURATION"].advice, "measure for longer: --duration 60")
        self.assertIn("590 operations carry the percentiles, fewer than 1,104", short["SAMPLES"].message)
        self.assertEqual(check_duration(0.5).message, "measured for 0.5 s, less than 10 s")
        self.assertEqual(check_duration(10).message, "measured for 10 s")


class GeneratorTest(RuleTest):
    def test_lag_in_milliseconds_and_by_the_latency_it_is_part_of(self) -> None:
        slow = replace(OPEN, p50_ms=1_000.0, p99_ms=1_000.0)
        for lag_ms, verdict in ((1.0, VALID), (1.1, WARN), (499, WARN), (501, INVALID)):
            self.expect(verdict, replace(slow, lag_p99_ms=lag_ms), "LAG")
        for lag_ms, verdict in ((0.5, VALID), (0.51, WARN), (2.5, WARN), (2.51, INVALID)):
            self.expect(verdict, replace(OPEN, lag_p50_ms=lag_ms), "LAG")
        self.silent(CLOSED, "LAG")

    def test_a_late_send_in_the_tail_does_not_spoil_the_median(self) -> None:
        self.expect(WARN, replace(OPEN, lag_p99_ms=9.9), "LAG")
        self.expect(INVALID, replace(OPEN, lag_p99_ms=10.1), "LAG")

    def test_cpu(self) -> None:
        for share, verdict in ((0.85, VALID), (0.86, WARN), (1.1, WARN)):
            self.expect(verdict, replace(OPEN, cpu_share=share), "CPU")
        late = replace(OPEN, lag_p50_ms=0.6)
        for share, verdict in ((0.85, VALID), (0.97, WARN), (0.98, INVALID)):
            self.expect(verdict, replace(late, cpu_share=share), "CPU")
        self.silent(replace(OPEN, cpu_share=None), "CPU")

    def test_a_busy_closed_loop_is_client_bound_and_told_what_to_type(self) -> None:
        busy = self.expect(WARN, replace(CLOSED, cpu_share=0.99), "CPU")
        self.assertIn("client-bound", busy.message)
        self.assertIn("--workers 2", busy.advice)

    def test_lost_and_limited_workers(self) -> None:
        lost = self.expect(INVALID, replace(OPEN, workers=4, lost=("worker 2: killed",)), "WORKERS")
        self.assertEqual("3 of 4 load workers finished their part: worker 2: killed", lost.message)
        limited = self.expect(WARN, replace(OPEN, limited=("all busy", "all busy")), "LIMITED")
        self.assertEqual(1, limited.message.count("all busy"))
        self.silent(OPEN, "LIMITED")

    def test_loop_delay_and_clock_step(self) -> None:
        for delay_s, verdict in ((0.1, VALID), (0.11, WARN), (1.1, INVALID)):
            self.expect(verdict, replace(OPEN, loop_delay_s=delay_s), "LOOP")
        for step_s, verdict in ((0.01, VALID), (-0.02, WARN), (-2, INVALID)):
            self.expect(verdict, replace(OPEN, clock_step_s=step_s), "STEP")

    def test_clocks_of_client_nodes(self) -> None:
        two = replace(OPEN, hosts=2, clock_error_s=0.0001)
        for spread_s, verdict in ((0.0009, VALID), (0.0011, WARN), (0.01, WARN), (0.0102, INVALID)):
            self.expect(verdict, replace(two, clock_spread_s=spread_s), "CLOCK")
        unknown = replace(two, clock_spread_s=0.02, clock_error_s=0.05)
        self.assertIn("20 ± 50 ms", self.expect(WARN, unknown, "CLOCK").message)
        self.silent(replace(OPEN, clock_spread_s=0.5), "CLOCK")


class OmissionTest(RuleTest):
    def test_a_stall_that_waiting_clients_did_not_see(self) -> None:
        stalled = replace(CLOSED, latencies=11_600, p50_ms=5.0, p99_ms=5.0, max_ms=2_000.0)
        hidden = self.expect(WARN, stalled, "OMISSION")
        self.assertIn("at a fixed rate it could be 1,400 ms", hidden.message)
        self.assertIn("--rate", hidden.advice)

    def test_a_stall_too_short_to_reach_p99_is_let_pass(self) -> None:
        self.expect(VALID, replace(CLOSED, p99_ms=5.0, max_ms=600.0), "OMISSION")

    def test_only_for_closed_loops_with_a_p99(self) -> None:
        for seen in (OPEN, FIXED, replace(CLOSED, latencies=367), replace(CLOSED, p99_ms=None)):
            self.silent(replace(seen, max_ms=9_000.0), "OMISSION")


if __name__ == "__main__":
    unittest.main()
