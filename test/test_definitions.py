"""Definitions: every metric has one, and names of other tools are the ones they really use."""

import unittest

from test import fakes  # noqa: F401  (puts src on the path)
from test.fakes.records import sample_record

from aifbench.results.definitions import TOOLS, definition, formula_of, formulas, split_name, tool_names

INFERENCE = (
    "ttft_p50", "ttft_mean", "ttft_send_p99", "ttfot_p90", "gap_p99", "tpot_p50", "e2e_p99", "output_rate",
    "prompt_rate", "tokens_per_chunk", "output_tokens_mean", "prompt_tokens_mean", "goodput", "attainment",
    "server_ttft_p99", "server_queue_mean", "server_running_max", "server_output_rate", "server_aborted",
    "kv_cache_mean", "kv_cache_max", "preemptions", "prefix_hit_share", "outside_ttft", "capacity",
    "client_adds_ttft_p50", "client_adds_gap_p99", "first_use_ttft_extra", "ttft_constrained_ratio",
    "tpot_constrained_ratio", "e2e_constrained_ratio", "exact length", "valid",
)  # fmt: skip


class Definitions(unittest.TestCase):
    def test_every_metric_of_a_record_and_of_inference_is_defined(self) -> None:
        names = [metric.name for each in sample_record().measurements for metric in each.metrics]
        for name in (*names, *INFERENCE):
            found = definition(name)
            with self.subTest(name):
                assert found
                self.assertTrue(found.formula and found.words)
                self.assertLessEqual({*found.aliases, *found.differs}, set(TOOLS))

    def test_unknown_metrics_have_none(self) -> None:
        for name in ("", "p99", "ttft_p98", "ttft_", "_p99", "unheard_of_p99"):
            self.assertIsNone(definition(name), name)
            self.assertEqual((tool_names(name), formula_of(name)), ({}, ""))

    def test_names_split_into_base_and_statistic(self) -> None:
        self.assertEqual(split_name("ttft_send_p99"), ("ttft_send", "p99"))
        self.assertEqual(split_name("response_p999"), ("response", "p999"))
        self.assertEqual(split_name("client_cpu_per_op"), ("client_cpu_per_op", ""))
        self.assertEqual(split_name("recall@10"), ("recall", ""))

    def test_names_of_other_tools(self) -> None:
        self.assertEqual(tool_names("ttft_p99")["vllm"], "p99_ttft_ms")
        self.assertEqual(tool_names("gap_p50")["vllm"], "median_itl_ms")
        self.assertEqual(tool_names("tpot_mean")["aiperf"], "inter_token_latency.avg")
        self.assertEqual(tool_names("gap_p99")["aiperf"], "inter_chunk_latency.p99")
        self.assertEqual(
            tool_names("tpot_p99")["guidellm"], "inter_token_latency_ms.successful.percentiles.p99"
        )
        self.assertEqual(
            tool_names("ttft_p50")["inference-perf"], "successes.latency.time_to_first_token.median"
        )
        self.assertEqual(tool_names("goodput")["genai-perf"], "request_goodput.avg")
        self.assertEqual(tool_names("ttft_p90")["genai-bench"], "stats.ttft.p90")

    def test_a_statistic_that_a_tool_does_not_report_has_no_name(self) -> None:
        self.assertNotIn("aiperf", tool_names("ttft_p999"))
        self.assertEqual(tool_names("ttft_p999")["vllm"], "p99.9_ttft_ms")

    def test_namesakes_that_are_something_else_are_no_aliases(self) -> None:
        gap = definition("gap_p50")
        assert gap
        self.assertNotIn("guidellm", tool_names("gap_p50"))
        self.assertIn("one value an answer", gap.differs["guidellm"])
        tpot = definition("tpot_p50")
        assert tpot
        self.assertIn("(tn - t0) / n", tpot.differs["guidellm"])

    def test_from_the_schedule_hardly_any_tool_measures(self) -> None:
        self.assertEqual(tool_names("ttft_p99", from_schedule=True), {})
        self.assertEqual(tool_names("ttft_send_p99", from_schedule=True)["vllm"], "p99_ttft_ms")
        self.assertEqual(
            tool_names("e2e_p99", from_schedule=True), {"vllm": "p99_e2el_including_client_queue_ms"}
        )

    def test_formulas_once_each_with_the_start_that_counts(self) -> None:
        closed = formulas(["ttft_p50", "ttft_p99", "tpot_p50", "what_is_this"])
        self.assertEqual(closed, [("ttft", "t1 - sent"), ("tpot", "(tn - t1) / (n - k1)")])
        opened = dict(formulas(["offered_rate", "ttft_p50", "ttft_send_p50", "e2e_p50"]))
        self.assertEqual(opened["ttft"], "t1 - intended start")
        self.assertEqual(opened["ttft_send"], "t1 - sent")
        self.assertEqual(opened["e2e"], "tn - intended start")


if __name__ == "__main__":
    unittest.main()
