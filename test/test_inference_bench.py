"""InferenceBenchmark: which phases follow one another, and what the later ones make of the earlier ones."""

import dataclasses
import json
import tempfile
import unittest
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from test.fakes.simulated_load import Done, Server, drive
from test.test_inference_setup import recipe

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import UsageError, WorkloadError
from aifbench.load.progress import Silent
from aifbench.results.record import Role, Verdict
from aifbench.servers.benchmark import BenchmarkContext
from aifbench.servers.inference_bench import InferenceBenchmark
from aifbench.workloads.capabilities import Capabilities

ALL = Capabilities(
    "tiny", chat=True, completions=True, embeddings=True, extra_fields=True, usage_in_stream=True,
    structured_outputs=True,
)  # fmt: skip
NOTES = {
    "answers": 500.0, "ttft_error_p50_ms": 0.2, "ttft_error_p99_ms": 0.9, "gap_error_p50_ms": 0.01,
    "gap_error_p99_ms": 0.3,
}  # fmt: skip


@dataclasses.dataclass
class FakeSetup:
    """What Setup finds out, without a server; `sources` are the prompts that were asked for."""

    options: Mapping[str, Any]
    context: BenchmarkContext
    capabilities: Capabilities = ALL
    is_exact: bool = True
    sources: list[tuple[str, dict[str, Any]]] = dataclasses.field(default_factory=list)

    @property
    def plain(self) -> dict[str, Any]:
        return {"temperature": self.options["temperature"]}

    @property
    def extra(self) -> dict[str, Any]:
        return {**self.plain, "ignore_eos": True}

    @property
    def model(self) -> str:
        return self.capabilities.model

    @property
    def api(self) -> str:
        return "chat" if self.capabilities.chat else ""

    def source(self, name: str = "", **changes: Any) -> str:
        self.sources.append((name, changes))
        return f"/prompts/{name or 'synthetic'}.json"

    def facts(self) -> dict[str, Any]:
        return {"server": self.capabilities.to_json()}


class InferenceCase(unittest.TestCase):
    server = Server(slots=32, notes=NOTES)
    capabilities = ALL

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)

    def bench(self, bench: str, **given: Any) -> list[Done]:
        context = BenchmarkContext(Endpoint("127.0.0.1", 1), self.dir, "run1", Silent())

        def find_out(options: Mapping[str, Any], context: BenchmarkContext) -> Any:
            self.setup = FakeSetup(options, context, self.capabilities)
            return self.setup

        return drive(InferenceBenchmark(bench, recipe(**given), context, find_out=find_out), self.server)

    def named(self, done: list[Done], name: str) -> Done:
        return next(each for each in done if each.name == name)

    def metric(self, done: Done, name: str) -> float:
        found = {metric.name: metric.value for metric in done.found["generate"].metrics}
        value = found[name]
        assert value is not None
        return value


class All(InferenceCase):
    def test_levels_and_then_a_load_that_can_be_carried_all_day(self) -> None:
        done = self.bench("all")
        names = [each.name for each in done]
        self.assertEqual(
            names, ["warm-up", "alone", "clients-4", "clients-16", "clients-64", "steady", "calibration"]
        )
        self.assertFalse(done[0].phase.is_measured)
        steady = self.named(done, "steady").stream.arrivals
        self.assertEqual(steady["kind"], "poisson")
        self.assertAlmostEqual(steady["rate_per_s"], 0.7 * self.server.capacity_per_s, delta=2)
        seconds = sum(each.phase.plan.warmup_s + (each.phase.plan.measure_s or 0) for each in done)
        self.assertTrue(240 <= seconds <= 320, seconds)

    def test_quick_takes_a_minute(self) -> None:
        done = self.bench("all", quick=True)
        self.assertEqual([each.name for each in done][1:], ["alone", "clients-16", "steady", "calibration"])
        seconds = sum(each.phase.plan.warmup_s + (each.phase.plan.measure_s or 0) for each in done)
        self.assertTrue(45 <= seconds <= 60, seconds)

    def test_own_clients_and_duration_replace_the_ladder(self) -> None:
        done = self.bench("all", clients="8", duration="10s", no_calibration=True)
        self.assertEqual([each.name for each in done][1:], ["alone", "clients-8", "steady"])
        self.assertEqual({each.phase.plan.measure_s for each in done[1:]}, {10.0})

    def test_no_two_levels_share_prompts(self) -> None:
        done = self.bench("all", quick=True)
        salts = [each.stream.params["salt"] for each in done]
        self.assertEqual(len(set(salts)), len(salts))
        self.assertTrue(all("run1" in salt for salt in salts[:-1]), salts)

    def test_a_model_that_only_embeds_is_measured_by_embedding(self) -> None:
        self.capabilities = Capabilities("tiny", embeddings=True)
        (embed,) = self.bench("all", no_calibration=True)
        self.assertEqual(embed.stream.workload, "aifbench.workloads.inference:Embed")
        with self.assertRaisesRegex(UsageError, "generates nothing, it embeds"):
            self.bench("generate")

    def test_a_service_that_answers_nothing_is_asked_no_more(self) -> None:
        self.server = Server(fails=lambda phase, _: phase != "warm-up")
        with self.assertRaisesRegex(WorkloadError, "no request of alone succeeded"):
            self.bench("all", quick=True)
        (_, generate) = self.bench("generate", duration="10s")
        self.assertIs(generate.measurement.verdict, Verdict.INVALID)


class TheClientsOwnError(InferenceCase):
    def test_the_heaviest_load_is_repeated_and_the_error_told_with_every_level(self) -> None:
        done = self.bench("all", quick=True)
        calibration = done[-1]
        self.assertEqual(calibration.stream.arrivals, self.named(done, "clients-16").stream.arrivals)
        plan = calibration.stream.params["plan"]
        self.assertEqual(plan["output_tokens"], 128)
        self.assertAlmostEqual(plan["ttft_s"], 0.05, places=3)
        self.assertAlmostEqual(plan["itl_s"], 0.005, places=4)
        self.assertIs(calibration.measurement.role, Role.PROBE)
        self.assertEqual(set(calibration.found), {"alone/generate", "clients-16/generate", "steady/generate"})
        for evidence in calibration.found.values():
            (check,) = evidence.checks
            self.assertIs(check.verdict, Verdict.VALID)
            self.assertIn("adds at most 0.20 ms to the median TTFT", check.message)
            self.assertEqual({m.name: m.value for m in evidence.metrics}["client_adds_ttft_p99"], 0.9)

    def test_an_error_that_matters_is_no_valid_one(self) -> None:
        for error_ms, verdict in ((4.0, Verdict.WARN), (20.0, Verdict.INVALID)):
            self.server = Server(slots=32, notes={**NOTES, "ttft_error_p50_ms": error_ms})
            found = self.bench("generate", duration="10s")[-1].found["generate/generate"]
            self.assertEqual(found.checks[0].verdict, verdict, error_ms)
            self.assertIn("workers", found.checks[0].advice)

    def test_a_calibration_that_found_nothing_tells_nothing(self) -> None:
        for notes in ({}, {**NOTES, "answers": 3.0}):
            self.server = Server(slots=32, notes=notes)
            self.assertEqual(self.bench("generate", duration="10s")[-1].found, {})

    def test_every_benchmark_that_generates_over_http_gets_one(self) -> None:
        for bench in ("average", "conversation", "structured", "sweep"):
            with self.subTest(bench):
                done = self.bench(bench, quick=True)[-1]
                self.assertEqual((done.name, done.stream.chain), ("calibration", 1))
        sdk = self.bench("generate", via="sdk", duration="10s")
        self.assertEqual([each.name for each in sdk], ["warm-up", "generate"])


class Benchmarks(InferenceCase):
    def test_sweeps_over_clients_and_over_rates(self) -> None:
        clients = self.bench("sweep", concurrency="16,1", duration="5s", no_calibration=True)
        self.assertEqual([each.name for each in clients], ["warm-up", "clients-1", "clients-16"])
        rates = self.bench("sweep", rates="20,0.5", arrivals="constant", duration="5s", no_calibration=True)
        self.assertEqual([each.name for each in rates], ["warm-up", "rate-0.5", "rate-20"])
        self.assertEqual(rates[-1].stream.arrivals, {"kind": "constant", "rate_per_s": 20.0})

    def test_an_objective_is_held_against_every_level(self) -> None:
        done = self.bench("generate", slo="ttft=100ms", rate="40", duration="30s", no_calibration=True)[-1]
        self.assertEqual(done.phase.parameters["slo"], "ttft=100ms,share=99%")
        attainment = done.measurement.metric("attainment")
        assert attainment is not None and attainment.value is not None
        self.assertGreater(attainment.value, 50)

    def test_structured_output_is_compared_in_the_order_abba(self) -> None:
        done = self.bench("structured", requests="12", no_calibration=True)
        names = [each.name for each in done]
        self.assertEqual(
            names, ["warm-up", "first-use", "free-1", "constrained-1", "constrained-2", "free-2"]
        )
        self.assertEqual([each.stream.params["constrained"] for each in done[2:]], [False, True, True, False])
        self.assertEqual(len({each.stream.params["cases"] for each in done[2:]}), 1)
        self.assertNotIn("ignore_eos", done[2].stream.params["extra"])
        compared = {m.name: m for m in done[-1].found["constrained-2/generate"].metrics}
        self.assertEqual(compared["ttft_constrained_ratio"].n, 12)
        self.assertAlmostEqual(compared["tpot_constrained_ratio"].value or 0, 1.0)
        first_use = self.metric(self.named(done, "first-use"), "first_use_ttft_extra")
        self.assertAlmostEqual(first_use, 0.0)

    def test_constraints_of_first_use_are_new_ones_in_every_run(self) -> None:
        def constraints(run_tag: str) -> str:
            context = BenchmarkContext(Endpoint("127.0.0.1", 1), self.dir, run_tag, Silent())
            options = recipe(requests="4", no_calibration=True)
            benchmark = InferenceBenchmark("structured", options, context, find_out=FakeSetup)  # type: ignore[arg-type]
            first = drive(benchmark, self.server)[1]
            lines = Path(first.stream.params["cases"]).read_text().splitlines()
            self.assertEqual(lines[::2], lines[1::2])
            return json.dumps([json.loads(line)["constraint"] for line in lines])

        self.assertNotEqual(constraints("run1"), constraints("run2"))

    def test_turns_of_a_conversation_follow_one_another(self) -> None:
        done = self.bench("conversation", turns="3", think="1s", duration="10s", no_calibration=True)[-1]
        self.assertEqual((done.stream.chain, done.stream.think_s), (3, 1.0))
        self.assertEqual(done.stream.params["turns"], 3)
        name, changes = self.setup.sources[0]
        self.assertEqual(
            (name, changes["kind"], changes["prefix_tokens"]), ("conversation", "conversation", 0)
        )
        self.bench("conversation", prefix_tokens="64", duration="10s", no_calibration=True)
        self.assertEqual(self.setup.sources[0][1]["prefix_tokens"], 64)

    def test_embedding_counts_texts(self) -> None:
        (embed,) = self.bench("embed", batch="16", rate="5", duration="10s")
        self.assertEqual((embed.stream.items, embed.stream.params["batch"]), ("texts", 16))
        self.assertEqual(embed.stream.arrivals["kind"], "poisson")

    def test_averages_of_one_prompt_one_at_a_time(self) -> None:
        done = self.bench("average", requests="10", no_calibration=True)[-1]
        self.assertEqual((done.stream.limit, done.stream.arrivals["clients"]), (10, 1))
        self.assertEqual(self.setup.sources[0][1], {"kind": "repeat"})
        mean = done.measurement.metric("ttft_mean")
        assert mean is not None and mean.value is not None
        self.assertAlmostEqual(mean.value, 50.0, places=3)


if __name__ == "__main__":
    unittest.main()
