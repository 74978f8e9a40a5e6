"""What a server did in a window, from pages of a real one and from those of others."""

import unittest
from array import array
from math import inf
from pathlib import Path

from test import fakes  # noqa: F401 - puts src on the path

from aifbench.load.engine_view import Bracket, Buckets, EngineView, Level
from aifbench.workloads.engine_metrics import families, view
from aifbench.workloads.prometheus_text import finite, parse
from aifbench.workloads.snapshots import Snapshot

DATA = Path(__file__).resolve().parent / "data"


def read(name: str) -> str:
    return (DATA / f"vllm_metrics_0.32_{name}.txt").read_text()


def snapshots(*texts: str) -> list[Snapshot]:
    """One second apart, the first at 100 s."""
    pages = [finite(parse(text, families()).values) for text in texts]
    return [
        Snapshot(100.0 + i, float(i), tuple(page), array("d", page.values())) for i, page in enumerate(pages)
    ]


def seen(*texts: str) -> EngineView:
    found = view(snapshots(*texts), 100.0, 99.0 + len(texts))
    assert found is not None
    return found


class Vllm(unittest.TestCase):
    """64 requests of 32 tokens, then 32 of 16 that share a beginning; the client counted the same."""

    def test_counts_are_those_of_the_client(self) -> None:
        found = seen(read("before"), read("after"))
        self.assertEqual(found.engine, "vLLM")
        self.assertEqual((found.requests, found.aborted), (64, 0))
        self.assertEqual((found.prompt_tokens, found.output_tokens), (10446, 2048))
        self.assertEqual(found.output_rate, 2048)
        self.assertTrue(found.idle_edges)
        self.assertEqual((found.restarts, found.engines, found.preemptions), (0, 1, 0))

    def test_times_are_means_of_the_window_and_not_of_the_servers_life(self) -> None:
        found = seen(read("before"), read("after"))
        self.assertAlmostEqual(found.ttft.mean or 0, (1.696307897567749 - 0.3161759376525879) / 64)
        for buckets in (
            found.ttft,
            found.queue,
            found.prefill,
            found.decode,
            found.inference,
            found.e2e,
            found.tpot,
        ):
            self.assertEqual(buckets.count, 64)
        self.assertEqual(found.gap.count, 2048 - 64)
        spent = [part.mean for part in (found.queue, found.prefill, found.decode)]
        self.assertAlmostEqual(sum(spent), found.queue.mean + found.inference.mean)
        self.assertLess(sum(spent), found.e2e.mean)

    def test_a_quantile_is_known_to_its_bucket(self) -> None:
        found = seen(read("before"), read("after")).ttft.quantile(0.5)
        self.assertEqual((found.low, found.high), (0.02, 0.04))
        self.assertTrue(found.low < found.value < found.high)

    def test_prefix_hits_are_those_of_the_window(self) -> None:
        self.assertEqual(seen(read("before"), read("after")).prefix_hit_share, 0)
        shared = seen(read("after"), read("shared"))
        self.assertAlmostEqual(shared.prefix_hit_share or 0, 3968 / 12919)
        self.assertEqual(seen(read("before"), read("after"), read("shared")).prompt_tokens, 10446 + 12919)

    def test_preemptions_of_a_cache_that_is_too_small(self) -> None:
        found = seen(read("full_before"), read("full_after"))
        self.assertEqual((found.preemptions, found.requests, found.output_tokens), (74, 296, 59200))

    def test_levels_are_those_of_the_samples(self) -> None:
        kv = 'vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} '
        running = 'vllm:num_requests_running{engine="0",model_name="tiny"} '
        text = read("after")
        busy = text.replace(f"{kv}0.0", f"{kv}0.96").replace(f"{running}0.0", f"{running}9.0")
        self.assertNotEqual(busy, text)
        found = seen(text, busy, busy, text)
        self.assertEqual(found.kv_cache, Level(0.48, 0.96, 4))
        self.assertEqual(found.kv_cache_full, 0.5)
        self.assertEqual(found.running, Level(4.5, 9, 4))
        self.assertTrue(found.idle_edges)
        self.assertFalse(seen(text, busy).idle_edges)

    def test_several_engines_are_summed_and_the_fullest_cache_counts(self) -> None:
        def two(text: str, used: str) -> str:
            other = text.replace('engine="0"', 'engine="1"')
            kv = 'vllm:kv_cache_usage_perc{engine="1",model_name="tiny"} '
            return text + other.replace(f"{kv}0.0", f"{kv}{used}")

        found = seen(two(read("before"), "0.5"), two(read("after"), "0.75"))
        self.assertEqual((found.engines, found.requests, found.output_tokens), (2, 128, 4096))
        self.assertEqual(found.ttft.count, 128)
        self.assertEqual(found.kv_cache.highest, 0.75)

    def test_the_names_of_earlier_versions(self) -> None:
        old = {
            "vllm:kv_cache_usage_perc": "vllm:gpu_cache_usage_perc",
            "vllm:inter_token_latency_seconds": "vllm:time_per_output_token_seconds",
            "vllm:prefix_cache": "vllm:gpu_prefix_cache",
        }

        def renamed(text: str) -> str:
            for new, name in old.items():
                text = text.replace(new, name)
            return text

        self.assertEqual(
            seen(renamed(read("before")), renamed(read("after"))), seen(read("before"), read("after"))
        )

    def test_of_two_names_for_the_same_the_newer_counts(self) -> None:
        old = "vllm:gpu_cache_usage_perc 0.9\n"
        self.assertEqual(seen(read("before") + old, read("after") + old).kv_cache.highest, 0)


class BadDays(unittest.TestCase):
    def test_a_restart_is_told_and_costs_only_what_no_sample_saw(self) -> None:
        found = seen(read("before"), read("after"), read("full_before"), read("full_after"))
        self.assertEqual(found.restarts, 1)
        self.assertEqual(found.output_tokens, 2048 + 59200)
        self.assertEqual(found.requests, 64 + 296)
        self.assertEqual(found.ttft.count, 64 + 296)

    def test_a_restart_that_no_counter_shows(self) -> None:
        later = read("after").replace(
            "process_start_time_seconds 1.79519877528e+09", "process_start_time_seconds 1.8e+09"
        )
        self.assertEqual(seen(read("before"), later).restarts, 1)

    def test_a_sample_without_a_series_changes_no_count(self) -> None:
        poor = (
            "\n".join(line for line in read("after").splitlines() if "generation_tokens" not in line) + "\n"
        )
        found = seen(read("before"), poor, read("after"))
        self.assertEqual((found.output_tokens, found.restarts), (2048, 0))

    def test_what_is_not_published_is_none(self) -> None:
        found = seen("vllm:generation_tokens_total 1\n", "vllm:generation_tokens_total 5\n")
        self.assertEqual(found.output_tokens, 4)
        for part in (found.requests, found.ttft, found.kv_cache, found.preemptions, found.prefix_hit_share):
            self.assertIsNone(part)
        self.assertFalse(found.idle_edges)

    def test_an_idle_window_has_no_times_and_no_hit_share(self) -> None:
        found = seen(read("after"), read("after"))
        self.assertEqual((found.requests, found.output_tokens), (0, 0))
        self.assertIsNone(found.ttft)
        self.assertIsNone(found.prefix_hit_share)

    def test_a_histogram_without_its_last_bucket_is_not_used(self) -> None:
        for text in (
            'vllm:e2e_request_latency_seconds_bucket{le="1"} %d\n',
            'vllm:e2e_request_latency_seconds_bucket{le="x"} %d\n',
        ):
            found = seen(text % 0, text % 7)
            self.assertTrue(found.e2e is None or found.e2e.edges == (inf,))

    def test_there_is_no_view_of_nothing(self) -> None:
        self.assertIsNone(view([], 0, 1))
        self.assertIsNone(view(snapshots(read("before")), 100, 100))
        self.assertIsNone(view(snapshots(read("before"), read("after")), 100, 103))
        self.assertIsNotNone(view(snapshots(read("before"), read("after")), 100, 102))
        self.assertIsNone(
            view(snapshots("process_start_time_seconds 1\n", "process_start_time_seconds 1\n"), 0, 1000)
        )

    def test_the_samples_nearest_to_the_edges_are_taken(self) -> None:
        texts = [f"vllm:generation_tokens_total {10 * i}\n" for i in range(10)]
        found = view(snapshots(*texts), 102.4, 106.6)
        self.assertEqual((found.start_s, found.end_s, found.samples), (102, 107, 6))
        self.assertEqual(found.output_rate, 10)


class OtherEngines(unittest.TestCase):
    def test_llama_cpp(self) -> None:
        page = (
            "# TYPE llamacpp:prompt_tokens_total counter\nllamacpp:prompt_tokens_total {0}\n"
            "llamacpp:tokens_predicted_total {1}\nllamacpp:predicted_tokens_seconds nan\n"
            "llamacpp:requests_processing {2}\nllamacpp:requests_deferred {3}\n"
        )
        found = seen(page.format(100, 10, 0, 0), page.format(300, 110, 4, 46), page.format(300, 210, 0, 0))
        self.assertEqual((found.engine, found.prompt_tokens, found.output_tokens), ("llama.cpp", 200, 200))
        self.assertEqual((found.running.highest, found.waiting.highest), (4, 46))
        self.assertIsNone(found.kv_cache)
        self.assertIsNone(found.requests)
        self.assertTrue(found.idle_edges)

    def test_sglang_repeats_its_levels_per_rank_and_priority(self) -> None:
        page = (
            'sglang:num_running_reqs{{dp_rank="0",tp_rank="0"}} 3\n'
            'sglang:num_running_reqs{{dp_rank="0",tp_rank="1"}} 3\n'
            'sglang:num_running_reqs{{dp_rank="1",tp_rank="0",priority=""}} 5\n'
            'sglang:num_running_reqs{{dp_rank="1",tp_rank="0",priority="1"}} 2\n'
            'sglang:token_usage{{dp_rank="0"}} 0.5\nsglang:token_usage{{dp_rank="1"}} 0.7\n'
            'sglang:prompt_tokens_total{{is_streaming="true"}} {0}\n'
            'sglang:prompt_tokens_total{{is_streaming="false"}} 7\n'
            'sglang:cached_tokens_total{{cache_source="device"}} {1}\nsglang:num_retracted_requests_total 2\n'
            "sglang:num_requests_total {2}\nsglang:num_aborted_requests_total {3}\n"
        )
        found = seen(page.format(1000, 0, 10, 0), page.format(2000, 250, 30, 1))
        self.assertEqual((found.engine, found.engines), ("SGLang", 2))
        self.assertEqual(found.running, Level(8, 8, 2))
        self.assertEqual(found.kv_cache.highest, 0.7)
        self.assertEqual((found.prompt_tokens, found.prefix_hit_share), (1000, 0.25))
        self.assertEqual((found.requests, found.aborted, found.preemptions), (20, 1, 0))


class BucketsTest(unittest.TestCase):
    BUCKETS = Buckets((0.1, 0.2, inf), (2.0, 6.0, 8.0), 1.4)

    def test_mean_and_quantiles(self) -> None:
        self.assertAlmostEqual(self.BUCKETS.mean or 0, 0.175)
        self.assertEqual(self.BUCKETS.quantile(0.25), Bracket(0.1, 0.0, 0.1))
        middle = self.BUCKETS.quantile(0.5)
        self.assertAlmostEqual(middle.value, 0.15)
        self.assertEqual((middle.low, middle.high), (0.1, 0.2))

    def test_beyond_the_last_edge_only_the_edge_is_known(self) -> None:
        self.assertEqual(self.BUCKETS.quantile(0.99), Bracket(0.2, 0.2, inf))

    def test_empty_buckets_are_passed_over(self) -> None:
        self.assertEqual(Buckets((1, 2, 3, inf), (0, 0, 4, 4), 10).quantile(0.0).low, 2)
        self.assertIsNone(Buckets((1, inf), (0, 0), 0).quantile(0.5))
        self.assertIsNone(Buckets((), (), 0).mean)


if __name__ == "__main__":
    unittest.main()
