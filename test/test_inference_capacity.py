"""The search for capacity against servers whose capacity is known, without waiting for them."""

import unittest
from typing import Any
from unittest import mock

from test.fakes.simulated_load import Done, Server
from test.test_inference_bench import NOTES, InferenceCase

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import WorkloadError
from aifbench.results.record import Check, Metric, Role, Verdict
from aifbench.servers import inference_idle
from aifbench.servers.inference_idle import await_idle, requests_inside


class CapacityCase(InferenceCase):
    def setUp(self) -> None:
        super().setUp()
        self.pauses = self.enterContext(mock.patch("aifbench.servers.inference_phases.await_idle"))

    def capacity(self, **given: Any) -> tuple[list[Done], Metric, Check]:
        done = self.bench("capacity", **{"slo": "ttft=200ms", "no_calibration": True, **given})
        evidence = done[-1].found["generate"]
        check = next(check for check in evidence.checks if check.code == "CAPACITY")
        return done, next(metric for metric in evidence.metrics if metric.name == "capacity"), check


class Found(CapacityCase):
    def test_the_capacity_of_32_slots_is_found_within_two_percent(self) -> None:
        done, metric, check = self.capacity(arrivals="constant", precision="0.02")
        assert metric.value is not None and metric.low is not None and metric.high is not None
        self.assertAlmostEqual(metric.value / self.server.capacity_per_s, 1.0, delta=0.02)
        self.assertLessEqual(metric.low, self.server.capacity_per_s)
        self.assertGreaterEqual(metric.high, 0.995 * self.server.capacity_per_s)
        self.assertIs(check.verdict, Verdict.VALID)
        self.assertIn("TTFT <= 200 ms for 99 % of requests", check.message)
        self.assertLessEqual(self.seconds(done), 360)

    def test_with_random_arrivals_in_less_than_six_minutes(self) -> None:
        for slots in (8, 32, 200):
            self.server = Server(slots=slots, notes=NOTES)
            done, metric, _ = self.capacity()
            assert metric.value is not None
            self.assertTrue(0.5 < metric.value / self.server.capacity_per_s < 1.01, (slots, metric))
            self.assertLessEqual(self.seconds(done), 360, slots)

    def seconds(self, done: list[Done]) -> float:
        """As planned; overloaded trials end earlier."""
        return sum(each.phase.plan.warmup_s + (each.phase.plan.measure_s or 0.0) for each in done)

    def test_only_the_last_load_counts_for_the_verdict(self) -> None:
        done, _, _ = self.capacity(arrivals="constant")
        roles = [each.measurement.role for each in done[1:]]
        self.assertEqual((set(roles[:-1]), roles[-1]), ({Role.PROBE}, Role.MEASURE))
        self.assertEqual(done[-1].measurement.verdict, Verdict.VALID)

    def test_a_rate_that_does_not_hold_is_told(self) -> None:
        """A stall in the last, longest load fills a queue that a nearly full server never empties."""
        self.server = Server(slots=32, stall=lambda phase: 1.0 if phase == "capacity" else 0.0)
        _, metric, check = self.capacity(arrivals="constant")
        self.assertIs(check.verdict, Verdict.WARN)
        self.assertRegex(check.message, r"at constant 4\d\S*/s .* for 60 s only \d")
        self.assertIsNotNone(metric.value)

    def test_an_overloaded_server_is_left_to_recover(self) -> None:
        self.capacity(arrivals="constant", clients="24")
        self.assertGreater(self.pauses.call_count, 0)
        self.pauses.reset_mock()
        self.capacity(slo="ttft=20ms", arrivals="constant", clients="1")  # missed, and never overloaded
        self.assertEqual(self.pauses.call_count, 0)


class NotFound(CapacityCase):
    def test_limits_that_no_rate_meets(self) -> None:
        _, metric, check = self.capacity(slo="ttft=20ms", arrivals="constant")
        self.assertIs(check.verdict, Verdict.INVALID)
        self.assertRegex(check.message, r"even \d\S*/s missed TTFT <= 20 ms")
        self.assertIsNone(metric.value)

    def test_trials_that_fail_altogether(self) -> None:
        self.server = Server(slots=32, fails=lambda phase, _: phase.startswith(("trial", "capacity")))
        done, _, check = self.capacity(arrivals="constant")
        self.assertIs(check.verdict, Verdict.INVALID)
        self.assertIs(done[-1].measurement.verdict, Verdict.INVALID)

    def test_a_server_that_answers_nothing_has_no_capacity(self) -> None:
        self.server = Server(fails=lambda phase, _: phase != "warm-up")
        with self.assertRaisesRegex(WorkloadError, "no request succeeded"):
            self.capacity()


class Idle(unittest.TestCase):
    def test_engines_say_how_much_they_have_to_do(self) -> None:
        page = 'vllm:num_requests_running{engine="0"} 3.0\nvllm:num_requests_waiting{engine="0"} 4.0\n'
        self.assertEqual(requests_inside(page), 7)
        self.assertEqual(requests_inside("llamacpp:requests_processing 0\nllamacpp:requests_deferred 0\n"), 0)
        self.assertIsNone(requests_inside("process_cpu_seconds_total 1.5\n"))

    def wait(self, *pages: str, has_metrics: bool = True) -> tuple[bool, list[float]]:
        pauses: list[float] = []
        control = mock.Mock()
        control.metrics_text.side_effect = [*pages, *[pages[-1] if pages else ""] * 1000]
        with mock.patch.object(inference_idle, "OpenAIControl", return_value=control):
            idle = await_idle(
                Endpoint("127.0.0.1", 1),
                has_metrics=has_metrics,
                sleep=pauses.append,
                monotonic_s=lambda: sum(pauses),
            )
        return idle, pauses

    def test_it_waits_until_nothing_is_under_way(self) -> None:
        busy, idle = "vllm:num_requests_running 2\n", "vllm:num_requests_running 0\n"
        self.assertEqual(self.wait(busy, busy, idle), (True, [0.25, 0.25]))

    def test_not_for_ever(self) -> None:
        idle, pauses = self.wait("vllm:num_requests_running 2\n")
        self.assertFalse(idle)
        self.assertAlmostEqual(sum(pauses), 60.0)

    def test_a_server_that_does_not_tell_gets_a_moment(self) -> None:
        self.assertEqual(self.wait(has_metrics=False), (False, [3.0]))
        self.assertEqual(self.wait("up 1\n"), (False, [3.0]))


if __name__ == "__main__":
    unittest.main()
