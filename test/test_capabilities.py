"""Capabilities: servers that differ as real ones do, and what is told of each."""

import json
import unittest
from dataclasses import replace

from test.fakes.openai_server import CHAT, COMPLETIONS, EMBEDDINGS, GENERATING, FakeOpenAI

from aifbench.errors import NotReady, ServiceError
from aifbench.workloads.capabilities import (
    Capabilities,
    guess_software,
    obeys_object,
    probe_capabilities,
    stream_events,
)

BARE = frozenset({"/v1/models", CHAT, COMPLETIONS})
EVERYTHING = Capabilities(
    model="tiny",
    served=("tiny",),
    max_model_len=2048,
    software="vLLM",
    version="0.32.0",
    chat=True,
    completions=True,
    token_prompts=True,
    usage_in_stream=True,
    continuous_usage=True,
    extra_fields=True,
    structured_outputs=True,
    json_schema=True,
    tokenize=True,
    metrics=True,
    health=True,
)


def probe(fake: FakeOpenAI, model: str = "", timeout_s: float = 5.0) -> Capabilities:
    with fake:
        return probe_capabilities(fake.endpoint(), model, timeout_s=timeout_s)


class Kinds(unittest.TestCase):
    def test_vllm(self) -> None:
        self.assertEqual(probe(FakeOpenAI()), EVERYTHING)

    def test_each_probe_is_one_tiny_request(self) -> None:
        fake = FakeOpenAI()
        probe(fake)
        generating = [body for _, path, body in fake.asked if path in (CHAT, COMPLETIONS)]
        self.assertLessEqual(len(generating), 8)
        self.assertLessEqual(max(body["max_tokens"] for body in generating), 32)

    def test_one_without_usage_in_streams_and_without_anything_beside_the_api(self) -> None:
        """As the Python server of llama.cpp."""
        fake = FakeOpenAI(
            paths=BARE, owned_by="me", max_model_len=None, usage_in_stream=False, structured=False,
            takes_token_ids=False,
        )  # fmt: skip
        found = probe(fake)
        self.assertEqual(
            found,
            Capabilities("tiny", ("tiny",), chat=True, completions=True, extra_fields=True),
        )
        self.assertIn("counted as chunks", "\n".join(found.explain()))

    def test_one_that_refuses_what_it_does_not_know_and_lists_no_models(self) -> None:
        """As `transformers serve`."""
        fake = FakeOpenAI(
            paths=(GENERATING - {COMPLETIONS, "/metrics", "/tokenize", "/version"}),
            status={"/v1/models": (500, "Internal Server Error")},
            refuses=frozenset({"ignore_eos", "structured_outputs", "stream_options"}),
        )
        found = probe(fake, "tiny")
        self.assertEqual((found.chat, found.completions, found.health), (True, False, True))
        self.assertEqual((found.usage_in_stream, found.extra_fields), (False, False))
        self.assertEqual((found.structured_outputs, found.json_schema), (False, True))
        self.assertIn("output lengths are the model's choice", "\n".join(found.explain()))

    def test_one_that_embeds_only(self) -> None:
        found = probe(FakeOpenAI(paths=frozenset({"/v1/models", EMBEDDINGS})))
        self.assertEqual((found.embeddings, found.chat, found.completions), (True, False, False))
        self.assertEqual(len(found.explain()), 2, "what a generating server lacks is no lack here")

    def test_completions_alone(self) -> None:
        found = probe(FakeOpenAI(paths=GENERATING - {CHAT}))
        self.assertEqual(found, replace(EVERYTHING, chat=False))

    def test_usage_at_the_end_only(self) -> None:
        found = probe(FakeOpenAI(continuous_usage=False))
        self.assertEqual((found.usage_in_stream, found.continuous_usage), (True, False))

    def test_what_is_taken_and_ignored_is_not_believed(self) -> None:
        found = probe(FakeOpenAI(structured=False, takes_token_ids=False))
        self.assertEqual((found.structured_outputs, found.json_schema, found.token_prompts), (False,) * 3)

    def test_json_that_drowns_in_blanks_is_obedience(self) -> None:
        self.assertTrue(probe(FakeOpenAI(json_blanks=5)).json_schema)


class Refusals(unittest.TestCase):
    def test_what_generates_nothing_says_why(self) -> None:
        dead = {CHAT: (500, '{"error": {"message": "EngineDeadError"}}')}
        with self.assertRaisesRegex(ServiceError, "tiny generates nothing: 500 to /v1/chat.*EngineDeadError"):
            probe(FakeOpenAI(status=dead, paths=frozenset({"/v1/models"})))

    def test_wrong_endpoints_models_and_keys_are_told_as_such(self) -> None:
        with self.assertRaisesRegex(ServiceError, "is no OpenAI-compatible server"):
            probe(FakeOpenAI(paths=frozenset()))
        with self.assertRaisesRegex(ServiceError, "serves no model 'x'; it serves: tiny"):
            probe(FakeOpenAI(), "x")
        with self.assertRaisesRegex(ServiceError, "wants an API key"):
            probe(FakeOpenAI(key="k"))
        with FakeOpenAI() as fake:
            endpoint = fake.endpoint()
        with self.assertRaises(NotReady):
            probe_capabilities(endpoint)

    def test_a_probe_without_an_answer_is_a_no_that_is_told(self) -> None:
        found = probe(FakeOpenAI(delay_s={"/metrics": 30.0}), timeout_s=0.3)
        self.assertEqual((found.metrics, found.unanswered), (False, ("metrics",)))
        self.assertIn("no answer in time to: metrics", found.explain())
        self.assertTrue(found.structured_outputs, "those after it were asked")


class Texts(unittest.TestCase):
    def test_explained_in_full(self) -> None:
        self.assertEqual(
            EVERYTHING.explain(),
            [
                "vLLM 0.32.0 serves tiny, up to 2,048 tokens",
                "offers chat, completions, prompts of token ids, structured_outputs,"
                " response_format json_schema, /tokenize, /metrics, /health",
            ],
        )
        self.assertIn("a server of unknown make serves m", Capabilities("m").explain())

    def test_stored_as_json(self) -> None:
        self.assertEqual(json.loads(json.dumps(EVERYTHING.to_json()))["usage_in_stream"], True)

    def test_software_by_its_signatures(self) -> None:
        for owner, metrics, expected in (
            ("vllm", "", "vLLM"),
            ("LlamaCPP", "", "llama.cpp"),
            ("somebody", "# TYPE x\nsglang:num_running_reqs 1", "SGLang"),
            ("somebody", "# HELP tgi_x mentions vllm:\ntgi_queue_size 0", "TGI"),
            ("openai", "process_cpu_seconds_total 1", ""),
        ):
            self.assertEqual(guess_software(owner, metrics), expected)

    def test_obedience_of_json(self) -> None:
        expected = {"colour": "red"}
        for text in ('{"colour": "red"}', '{\n "colour"\n\n', '{"colour":"r', ' {"colour": "red"}\n'):
            self.assertTrue(obeys_object(text, expected), text)
        for text in ("", "{", '{"', '{"col', "Sure! {", '{"colour": "blue"}', '{"colour": "red"} and more'):
            self.assertFalse(obeys_object(text, expected), text)

    def test_torn_streams(self) -> None:
        self.assertEqual(
            stream_events('data: {"a": 1}\n\ndata:{"b": 2}\r\n: ping\ndata: {"c'), [{"a": 1}, {"b": 2}]
        )
        self.assertEqual(stream_events("<html>"), [])


if __name__ == "__main__":
    unittest.main()
