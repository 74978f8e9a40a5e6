"""What an inference benchmark refuses before its first request: each with the reason, and with what helps."""

import tempfile
import unittest
from pathlib import Path
from typing import Any

from test.fakes.openai_server import EMBEDDINGS, GENERATING, FakeOpenAI

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import BenchError, UsageError
from aifbench.load.progress import Silent
from aifbench.options import resolve_options
from aifbench.servers.benchmark import BenchmarkContext
from aifbench.servers.inference_bench import InferenceBenchmark
from aifbench.servers.inference_options import BENCH_OPTIONS
from aifbench.servers.inference_setup import Setup
from aifbench.servers.options import LOAD_OPTIONS, with_own
from aifbench.workloads.prompts import load_source


def recipe(**given: Any) -> dict[str, Any]:
    options = resolve_options(with_own(LOAD_OPTIONS, BENCH_OPTIONS), given)
    return {**options, "given": sorted(given)}


class SetupCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)

    def context(self, endpoint: Endpoint) -> BenchmarkContext:
        return BenchmarkContext(endpoint, self.dir, "run1", Silent())

    def first_phase(self, server: FakeOpenAI, bench: str, **given: Any) -> None:
        next(InferenceBenchmark(bench, recipe(**given), self.context(server.endpoint())).phases())

    def assert_refused(self, pattern: str, server: FakeOpenAI, bench: str = "generate", **given: Any) -> None:
        with server, self.assertRaisesRegex(BenchError, pattern):
            self.first_phase(server, bench, **given)
        self.assertFalse([asked for asked in server.asked if (asked[2] or {}).get("max_tokens") == 128])


class Refusals(SetupCase):
    def test_a_context_that_is_too_short(self) -> None:
        pattern = r"prompt of 5\d\d .*answer of 128 .*more than the 300 of tiny.*--input-tokens"
        self.assert_refused(pattern, FakeOpenAI(max_model_len=300))

    def test_prompts_that_cannot_be_read(self) -> None:
        empty = self.dir / "empty.jsonl"
        empty.touch()
        self.assert_refused("no/such.jsonl", FakeOpenAI(), prompts="no/such.jsonl")
        self.assert_refused("empty.jsonl", FakeOpenAI(), prompts=str(empty))
        self.assert_refused("no/such", FakeOpenAI(), tokenizer="no/such")
        self.assert_refused("--input-tokens.*'many'", FakeOpenAI(), input_tokens="many")

    def test_an_api_that_is_not_there(self) -> None:
        only_chat = GENERATING - {"/v1/completions"}
        self.assert_refused(
            "offers no completions; it offers chat", FakeOpenAI(paths=only_chat), api="completions"
        )
        self.assert_refused("--ids needs completions", FakeOpenAI(), ids=True, api="chat")
        self.assert_refused("--ids needs completions", FakeOpenAI(takes_token_ids=False), ids=True)

    def test_benchmarks_that_the_server_cannot_do(self) -> None:
        self.assert_refused("no embeddings for tiny", FakeOpenAI(), "embed")
        only_completions = FakeOpenAI(paths=GENERATING - {"/v1/chat/completions"})
        self.assert_refused("conversations need chat", only_completions, "conversation")
        embedding = FakeOpenAI(paths=GENERATING - {"/v1/chat/completions", "/v1/completions"} | {EMBEDDINGS})
        self.assert_refused("tiny generates nothing, it embeds", embedding, "generate")

    def test_a_server_that_takes_constraints_and_ignores_them(self) -> None:
        self.assert_refused("does not obey json constraints", FakeOpenAI(structured=False), "structured")

    def test_the_wrong_model_key_or_server(self) -> None:
        self.assert_refused("'tinny'.*tiny", FakeOpenAI(), model="tinny")
        self.assert_refused("401|key", FakeOpenAI(key="k"))
        page = FakeOpenAI(status={"/v1/models": (200, "<html>Welcome to nginx!</html>")})
        self.assert_refused("no OpenAI|not .*OpenAI|OpenAI", page)


class Contradictions(SetupCase):
    """Refused before the server is even asked."""

    def assert_refused_at_once(self, pattern: str, bench: str, **given: Any) -> None:
        with self.assertRaisesRegex(UsageError, pattern):
            InferenceBenchmark(bench, recipe(**given), self.context(Endpoint("127.0.0.1", 1)))

    def test_options_that_contradict_or_are_for_another_benchmark(self) -> None:
        self.assert_refused_at_once("exclude each other", "sweep", rates="1,2", concurrency="1,2")
        self.assert_refused_at_once("closed loop.*--clients", "conversation", rate="5")
        self.assert_refused_at_once("capacity needs limits.*--slo", "capacity")
        self.assert_refused_at_once("steady rate", "capacity", slo="ttft=1s", arrivals="ramp")
        self.assert_refused_at_once("generate does not use --rates; it is for sweep", "generate", rates="1,2")
        self.assert_refused_at_once("all does not use --rate;", "all", rate="5")
        self.assert_refused_at_once("embed does not use --turns", "embed", turns="5")
        self.assert_refused_at_once("gamma needs rates", "sweep", arrivals="gamma")
        self.assert_refused_at_once("needs a rate", "generate", arrivals="gamma")

    def test_text_that_is_no_objective_and_no_list(self) -> None:
        for name, text in (("slo", "quick"), ("slo", "ttft=5"), ("rates", "1,,2"), ("concurrency", "1.5")):
            with self.subTest(name, text=text), self.assertRaisesRegex(UsageError, name):
                recipe(**{name: text})


class Recipes(unittest.TestCase):
    def test_what_a_recipe_keeps_can_be_typed_again(self) -> None:
        once = recipe(slo="tpot=.05s, ttft=500ms", concurrency="16, 1,4,4", rates="2k,0.5,30/m")
        self.assertEqual((once["concurrency"], once["rates"]), ("1,4,16", "0.5,2000"))
        again = recipe(**{name: once[name] for name in ("slo", "concurrency", "rates")})
        self.assertEqual({**once, "given": ()}, {**again, "given": ()})
        self.assertEqual(recipe(slo="MLPerf:llama3.1-8b")["slo"], "mlperf:llama3.1-8b")

    def test_options_of_inference_replace_the_general_ones(self) -> None:
        options = with_own(LOAD_OPTIONS, BENCH_OPTIONS)
        self.assertEqual(len({option.key for option in options}), len(options))
        self.assertEqual(recipe()["timeout"], 300.0)


class Found(SetupCase):
    def test_what_is_sent_follows_from_what_the_server_takes(self) -> None:
        with FakeOpenAI() as server:
            setup = Setup(recipe(), self.context(server.endpoint()))
            self.assertEqual((setup.api, setup.extra["ignore_eos"], setup.is_exact), ("chat", True, True))
            self.assertEqual(load_source(Path(setup.source())).prompt(0).output_tokens, 128)
            self.assertIn("synthetic", setup.facts()["prompts"])
            early = Setup(recipe(stop_early=True), self.context(server.endpoint()))
            self.assertFalse(early.is_exact)
            self.assertNotIn("ignore_eos", early.extra)
        plain = FakeOpenAI(refuses=frozenset({"ignore_eos", "min_tokens"}), usage_in_stream=False)
        with plain as server:
            setup = Setup(recipe(), self.context(server.endpoint()))
            self.assertFalse(setup.is_exact)
            self.assertNotIn("ignore_eos", setup.extra)
            self.assertIsNone(setup.extra["stream_options"])

    def test_a_file_says_how_long_answers_are_unless_that_was_asked(self) -> None:
        path = self.dir / "p.jsonl"
        path.write_text('{"prompt": "Say it.", "output_tokens": 7}\n')
        with FakeOpenAI() as server:
            for given, expected in (({}, 7), ({"output_tokens": "9"}, 9)):
                setup = Setup(recipe(prompts=str(path), **given), self.context(server.endpoint()))
                prompt = load_source(Path(setup.source())).prompt(0)
                self.assertIn("Say it.", prompt.text)
                self.assertEqual(prompt.output_tokens, expected)


if __name__ == "__main__":
    unittest.main()
