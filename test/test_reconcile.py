"""The client's numbers beside the server's: what agrees, what differs, and what is said about it."""

import unittest
from collections.abc import Mapping
from dataclasses import replace
from math import inf

from test import fakes  # noqa: F401 - puts src on the path

from aifbench.load.engine_view import Buckets, EngineView, Level
from aifbench.results.reconcile import Totals, account, reconcile, unseen
from aifbench.results.record import Check, Metric, Verdict

VALID, WARN = Verdict.VALID, Verdict.WARN


def buckets(mean_ms: float, n: int = 100) -> Buckets:
    return Buckets((0.04, 0.06, inf), (0, n, n), n * mean_ms / 1000)


VIEW = EngineView(
    engine="vLLM",
    start_s=1000.0,
    end_s=1060.0,
    samples=61,
    idle_edges=True,
    requests=100,
    aborted=0,
    prompt_tokens=25_600,
    output_tokens=12_800,
    preemptions=0,
    prefix_queries=25_600,
    prefix_hits=0,
    running=Level(7.5, 8, 61),
    waiting=Level(0.0, 0, 61),
    kv_cache=Level(0.2, 0.31, 61),
    kv_cache_full=0.0,
    ttft=buckets(52.0),
    queue=buckets(3.1),
    prefill=buckets(47.2),
    e2e=buckets(900.0),
)
TOTALS = Totals(100, 25_600, 12_800)


def client(**values: float | None) -> dict[str, Metric]:
    return {name: Metric(name, value, "") for name, value in values.items()}


class ReconcileTest(unittest.TestCase):
    def only(self, checks: list[Check], code: str) -> Check:
        found = [check for check in checks if check.code == code]
        self.assertEqual(len(found), 1, found)
        self.assertEqual(found[0].verdict is VALID, not found[0].advice, found[0])
        return found[0]

    def check(
        self,
        code: str,
        view: EngineView = VIEW,
        ours: Mapping[str, Metric] | None = None,
        calibration_ms: float | None = None,
    ) -> Check:
        return self.only(reconcile(ours or {}, view, calibration_ms)[1], code)

    def silent(self, code: str, view: EngineView, ours: Mapping[str, Metric] | None = None) -> None:
        checks = reconcile(ours or {}, view)[1]
        self.assertEqual([check for check in checks if check.code == code], [])


class FirstToken(ReconcileTest):
    def test_the_difference_is_named(self) -> None:
        check = self.check("SERVER", ours=client(ttft_mean=58.1), calibration_ms=0.1)
        self.assertEqual(check.verdict, VALID)
        self.assertEqual(
            check.message,
            "client TTFT mean 58.1 ms = server 52 ms (queue 3.1, prefill 47.2, its front end 1.7) + 6.1 ms "
            "outside of the engine (HTTP, network, tokens without text, client <= 0.1 ms, calibrated)",
        )
        self.assertAlmostEqual(check.value or 0, 6.1)

    def test_it_warns_when_both_share_and_time_outside_are_large(self) -> None:
        for ours_ms, verdict in ((61.9, VALID), (69.2, VALID), (69.5, WARN), (500, WARN)):
            self.assertEqual(self.check("SERVER", ours=client(ttft_mean=ours_ms)).verdict, verdict, ours_ms)
        quick = replace(VIEW, ttft=buckets(1.0), queue=None, prefill=None)
        for ours_ms, verdict in ((10.9, VALID), (11.1, WARN)):
            self.assertEqual(self.check("SERVER", quick, client(ttft_mean=ours_ms)).verdict, verdict, ours_ms)

    def test_the_advice_knows_the_calibration(self) -> None:
        ours = client(ttft_mean=500.0)
        self.assertIn("run `calibrate`", self.check("SERVER", ours=ours).advice)
        self.assertIn("client is not the cause", self.check("SERVER", ours=ours, calibration_ms=0.1).advice)
        self.assertIn("load worker", self.check("SERVER", ours=ours, calibration_ms=400.0).advice)

    def test_a_client_that_sees_less_than_the_server_is_not_alone(self) -> None:
        self.assertEqual(self.check("SERVER", ours=client(ttft_mean=47.0)).verdict, VALID)
        check = self.check("SERVER", ours=client(ttft_mean=40.0))
        self.assertEqual(check.verdict, WARN)
        self.assertAlmostEqual(check.limit or 0, -5.2)
        self.assertIn("- 12 ms outside", check.message)
        self.assertIn("nobody else", check.advice)

    def test_an_open_loop_is_compared_from_send(self) -> None:
        ours = client(ttft_mean=900.0, ttft_send_mean=58.1, ttft_send_p50=55.0)
        self.assertIn("mean 58.1 ms", self.check("SERVER", ours=ours).message)
        self.silent("SERVER", VIEW, client(ttft_mean=900.0, ttft_send_p50=55.0))

    def test_parts_that_do_not_add_up_are_not_made_to(self) -> None:
        message = self.check("SERVER", replace(VIEW, queue=buckets(9.0)), client(ttft_mean=58.1)).message
        self.assertIn("(queue 9, prefill 47.2)", message)
        message = self.check("SERVER", replace(VIEW, prefill=None), client(ttft_mean=58.1)).message
        self.assertIn("server 52 ms (queue 3.1) + 6.1 ms", message)

    def test_nothing_is_said_without_both_sides(self) -> None:
        self.silent("SERVER", VIEW)
        self.silent("SERVER", VIEW, client(ttft_mean=None))
        self.silent("SERVER", replace(VIEW, ttft=None), client(ttft_mean=58.1))


class Rate(ReconcileTest):
    def test_rates_agree_within_the_edges_of_the_window(self) -> None:
        for ours, verdict in ((213.3, VALID), (203.0, VALID), (195.0, WARN), (240.0, WARN)):
            self.assertEqual(self.check("SERVER", ours=client(output_rate=ours)).verdict, verdict, ours)
        short = replace(VIEW, samples=7)
        self.assertEqual(self.check("SERVER", short, client(output_rate=195.0)).verdict, VALID)
        self.silent("SERVER", VIEW, client(output_rate=0.0))


class Accounting(ReconcileTest):
    def test_the_same_counts(self) -> None:
        checks = account(TOTALS, VIEW)
        self.assertEqual({check.verdict for check in checks}, {VALID})
        self.assertEqual(checks[2].message, "the server and the client count the same 12,800 output tokens")

    def test_a_difference_is_told_with_both_counts(self) -> None:
        check = account(TOTALS, replace(VIEW, output_tokens=13_312))[2]
        self.assertEqual(check.verdict, WARN)
        self.assertEqual(
            check.message, "the server counts 512 output tokens more than the client, 13,312 and 12,800"
        )
        self.assertAlmostEqual(check.value or 0, 4.0)
        self.assertIn(
            "28 output tokens fewer", account(TOTALS, replace(VIEW, output_tokens=12_772))[2].message
        )
        self.assertEqual(account(TOTALS, replace(VIEW, output_tokens=12_801))[2].verdict, VALID)

    def test_a_client_that_counted_nothing(self) -> None:
        self.assertEqual(account(Totals(0, 0, 0), VIEW)[0].verdict, WARN)

    def test_counts_without_sharp_edges_are_not_compared(self) -> None:
        self.assertEqual(account(TOTALS, replace(VIEW, idle_edges=False)), [])
        self.assertEqual(account(TOTALS, replace(VIEW, restarts=1)), [])
        unknown = replace(VIEW, requests=None, prompt_tokens=None)
        self.assertEqual(len(account(TOTALS, unknown)), 1)


class Memory(ReconcileTest):
    def test_any_preemption_warns(self) -> None:
        self.assertEqual(self.check("PREEMPTIONS").verdict, VALID)
        check = self.check("PREEMPTIONS", replace(VIEW, preemptions=74))
        self.assertEqual((check.verdict, check.value), (WARN, 74))
        self.assertIn("74 times", check.message)
        self.silent("PREEMPTIONS", replace(VIEW, preemptions=None))

    def test_a_cache_that_is_full_for_long_warns(self) -> None:
        for full, verdict in ((0.0, VALID), (0.05, VALID), (0.06, WARN), (1.0, WARN)):
            check = self.check("KVCACHE", replace(VIEW, kv_cache_full=full))
            self.assertEqual(check.verdict, verdict, full)
            self.assertIn("at most 31 %", check.message)
        self.silent("KVCACHE", replace(VIEW, kv_cache=None, kv_cache_full=None))

    def test_hits_of_prompts_that_were_meant_to_be_unique_warn(self) -> None:
        for hits, verdict in ((0, VALID), (256, VALID), (257, WARN), (25_600, WARN)):
            check = self.check("PREFIXHITS", replace(VIEW, prefix_hits=hits))
            self.assertEqual(check.verdict, verdict, hits)
        self.assertIn("--seed", self.check("PREFIXHITS", replace(VIEW, prefix_hits=2560)).advice)
        self.silent("PREFIXHITS", replace(VIEW, prefix_queries=0))

    def test_hits_of_shared_prompts_are_told_without_a_verdict(self) -> None:
        checks = reconcile({}, replace(VIEW, prefix_hits=20_000), unique_prompts=False)[1]
        check = self.only(checks, "PREFIXHITS")
        self.assertEqual(check.verdict, VALID)
        self.assertIn("78.1 %", check.message)


class Server(ReconcileTest):
    def test_a_restart_warns(self) -> None:
        check = self.check("SERVER", replace(VIEW, restarts=1))
        self.assertEqual(check.verdict, WARN)
        self.assertIn("restarted", check.message)

    def test_a_missing_view_is_told_and_no_fault(self) -> None:
        check = unseen("HTTP 404 (60)")
        self.assertEqual((check.code, check.verdict), ("SERVER", VALID))
        self.assertIn("HTTP 404", check.message)


class Metrics(ReconcileTest):
    def metrics(self, view: EngineView = VIEW, **ours: float | None) -> dict[str, Metric]:
        found = reconcile(client(**ours), view)[0]
        self.assertEqual(len({metric.name for metric in found}), len(found))
        return {metric.name: metric for metric in found}

    def test_the_servers_numbers_in_the_units_of_the_client(self) -> None:
        found = self.metrics(ttft_mean=58.1)
        expected = {
            "server_ttft_mean": 52.0,
            "server_queue_mean": 3.1,
            "server_prefill_mean": 47.2,
            "server_e2e_mean": 900.0,
            "server_output_rate": 12_800 / 60,
            "server_prompt_rate": 25_600 / 60,
            "server_requests": 100,
            "server_running_max": 8,
            "kv_cache_mean": 20.0,
            "kv_cache_max": 31.0,
            "preemptions": 0,
            "prefix_hit_share": 0.0,
            "outside_ttft": 6.1,
        }
        for name, value in expected.items():
            self.assertAlmostEqual(found[name].value or 0, value, msg=name)

    def test_a_quantile_carries_the_edges_of_its_bucket(self) -> None:
        median = self.metrics()["server_ttft_p50"]
        self.assertEqual((median.low, median.high, median.n), (40, 60, 100))
        self.assertEqual(median.value, 50)
        self.assertIn("bucket from 40 to 60 ms", median.note)

    def test_a_quantile_in_the_last_bucket_has_no_upper_edge(self) -> None:
        slow = Buckets((0.04, inf), (0, 10), 90.0)
        found = self.metrics(replace(VIEW, ttft=slow))["server_ttft_p99"]
        self.assertEqual((found.value, found.low, found.high), (40, 40, None))
        self.assertIn("above 40 ms", found.note)

    def test_what_the_server_does_not_publish_is_left_out(self) -> None:
        bare = EngineView("llama.cpp", 0, 10, 11, output_tokens=100)
        self.assertEqual(set(self.metrics(bare, ttft_mean=5.0)), {"server_output_rate"})
        self.assertEqual(reconcile(client(ttft_mean=5.0), bare)[1], [])


if __name__ == "__main__":
    unittest.main()
