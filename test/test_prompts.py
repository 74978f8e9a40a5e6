"""Prompts: as long as they say, never alike where they must not be, and the same in every worker."""

import json
import sys
import tempfile
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from test import fakes  # noqa: F401
from test.fakes.tokenizer import FakeTokenizer, FakeTokenizeRoute

from aifbench.errors import ConfigError, UsageError, WorkloadError
from aifbench.workloads.common_words import COMMON_WORDS
from aifbench.workloads.prompts import (
    FolderTokenizer,
    PromptSource,
    PromptSpec,
    ServerTokenizer,
    Tokenizer,
    load_source,
    prepare,
)
from aifbench.workloads.token_words import MIN_WORDS, find_words, safe_ids

BLOCK_TOKENS = 16  # vLLM's prefix cache knows whole blocks of so many tokens


class InFolder(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def source(self, spec: PromptSpec, tokenizer: Tokenizer | None = None, salt: str = "") -> PromptSource:
        return load_source(prepare(spec, self.folder / "prepared", tokenizer), salt=salt)

    def file(self, *entries: Any) -> str:
        path = self.folder / "prompts.jsonl"
        path.write_text("\n".join(map(json.dumps, entries)), encoding="utf-8")
        return str(path)


class WordLists(unittest.TestCase):
    def assert_exact(self, tokenizer: FakeTokenizer) -> None:
        found = find_words(tokenizer)
        self.assertTrue(found.is_exact, found.note)
        text = [found.starters[-1], *found.words, *found.words]
        self.assertEqual(len(tokenizer.encode(" ".join(text))), len(text) + found.added)

    def test_a_large_vocabulary(self) -> None:
        self.assert_exact(FakeTokenizer(COMMON_WORDS))

    def test_tokens_around_every_text_are_counted(self) -> None:
        tokenizer = FakeTokenizer(COMMON_WORDS, adds=True)
        self.assertEqual(find_words(tokenizer).added, 2)
        self.assert_exact(tokenizer)

    def test_some_words_are_one_token_only_after_a_space(self) -> None:
        tokenizer = FakeTokenizer(COMMON_WORDS, only_after_space=COMMON_WORDS[::2])
        self.assert_exact(tokenizer)
        self.assertTrue(set(find_words(tokenizer).starters) <= set(COMMON_WORDS[1::2]))

    def test_a_tiny_vocabulary_is_found_among_other_candidates(self) -> None:
        tokenizer = FakeTokenizer(["the", "of", "in", "xa", "ba", "cab", "The", "q", "w"])
        found = find_words(tokenizer)
        self.assertEqual(set(found.words), {"the", "of", "in", "xa", "ba", "cab", "The", "q", "w"})
        self.assert_exact(tokenizer)

    def test_words_that_join_with_a_neighbour_are_dropped(self) -> None:
        tokenizer = FakeTokenizer(COMMON_WORDS[:40], joins=[f" {COMMON_WORDS[3]} {COMMON_WORDS[4]}"])
        found = find_words(tokenizer)
        self.assertTrue(found.is_exact)
        self.assertFalse({COMMON_WORDS[3], COMMON_WORDS[4]} <= set(found.words))

    def test_none_can_be_verified_and_that_is_said(self) -> None:
        found = find_words(FakeTokenizer([]))
        self.assertFalse(found.is_exact)
        self.assertIn("length approximate", found.note)
        self.assertGreater(found.tokens_per_word, 3)
        self.assertFalse(find_words(FakeTokenizer(COMMON_WORDS[: MIN_WORDS - 1])).is_exact)

    def test_few_questions_are_asked(self) -> None:
        tokenizer = FakeTokenizer(COMMON_WORDS)
        find_words(tokenizer)
        self.assertLess(tokenizer.calls, 120)

    def test_safe_ids_leave_out_control_tokens(self) -> None:
        # Vocabulary size, and ids of control or image tokens: Llama 3, Qwen 2.5 VL, Phi 3, Mistral, tiny.
        for size, control in ((128256, 128009), (152064, 151655), (32064, 32000), (131072, 999), (4096, 0)):
            low, high = safe_ids(size)
            self.assertTrue(low < high <= size)
            self.assertFalse(low <= control < high, size)


class Synthetic(InFolder):
    def test_lengths_are_exact_with_a_tokenizer(self) -> None:
        for tokenizer in (FakeTokenizer(COMMON_WORDS), FakeTokenizer(COMMON_WORDS, adds=True)):
            source = self.source(PromptSpec(input_tokens="uniform:3:300", output_tokens="50"), tokenizer)
            self.assertIsNone(source.size)
            self.assertTrue(source.describe()["exact"])
            lengths = set()
            for index in range(100):
                prompt = source.prompt(index)
                self.assertEqual(len(tokenizer.encode(prompt.text)), prompt.prompt_tokens)
                self.assertEqual(prompt.output_tokens, 50)
                lengths.add(prompt.prompt_tokens)
            self.assertGreater(len(lengths), 50)
            self.assertEqual(
                self.source(PromptSpec(input_tokens="64"), tokenizer).prompt(5).prompt_tokens, 64
            )

    def test_the_servers_tokenizer_will_do(self) -> None:
        route = FakeTokenizeRoute(FakeTokenizer(COMMON_WORDS))
        source = self.source(PromptSpec(input_tokens="64"), ServerTokenizer(route, "tiny"))
        self.assertEqual(source.prompt(0).prompt_tokens, 64)
        self.assertEqual(route.bodies[0], {"model": "tiny", "prompt": "", "add_special_tokens": True})

    def test_a_server_that_answers_something_else(self) -> None:
        for answer in ({}, {"tokens": None}, {"tokens": ["a"]}):
            with self.assertRaisesRegex(WorkloadError, "without tokens"):
                ServerTokenizer(mock.Mock(return_value=answer)).encode("a")

    def test_without_exact_words_the_length_is_approximate_and_unclaimed(self) -> None:
        tokenizer = FakeTokenizer([])
        source = self.source(PromptSpec(input_tokens="500"), tokenizer)
        prompt = source.prompt(0)
        self.assertIsNone(prompt.prompt_tokens)
        self.assertAlmostEqual(len(tokenizer.encode(prompt.text)), 500, delta=75)
        self.assertIn("length approximate", source.describe()["note"])
        source = self.source(PromptSpec(input_tokens="20"))
        self.assertEqual(len(source.prompt(0).text.split()), 20)
        self.assertIsNone(source.prompt(0).prompt_tokens)
        self.assertIn("no tokenizer", source.describe()["note"])

    def test_token_ids_need_no_tokenizer(self) -> None:
        spec = PromptSpec(input_tokens="100", how="ids", vocabulary=4096)
        prompt = self.source(spec).prompt(3)
        low, high = safe_ids(4096)
        self.assertEqual((len(prompt.token_ids), prompt.prompt_tokens, prompt.text), (100, 100, ""))
        self.assertTrue(all(low <= each < high for each in prompt.token_ids))
        with self.assertRaisesRegex(UsageError, "size of the vocabulary"):
            self.source(replace(spec, vocabulary=None))

    def test_the_vocabulary_of_token_ids_can_come_from_a_tokenizer(self) -> None:
        spec = PromptSpec(input_tokens="100", how="ids")
        known = self.source(spec, FakeTokenizer(COMMON_WORDS, vocabulary=9000))
        self.assertEqual(known.describe()["ids"], [safe_ids(9000)[0], safe_ids(9000)[1] - 1])
        tokenizer = FakeTokenizer(COMMON_WORDS)
        seen = self.source(spec, tokenizer).prompt(0).token_ids
        self.assertLess(max(seen), 300 + 2 * len(COMMON_WORDS))

    def test_no_two_prompts_levels_or_runs_share_a_first_block(self) -> None:
        for how in ("words", "ids"):
            spec = PromptSpec(input_tokens="128", how=how, vocabulary=32000)
            sources = [self.source(replace(spec, salt=run), salt=level) for run in "ab" for level in "12"]
            blocks = {
                (prompt.text.split()[:BLOCK_TOKENS] and " ".join(prompt.text.split()[:BLOCK_TOKENS]))
                or prompt.token_ids[:BLOCK_TOKENS]
                for source in sources
                for prompt in (source.prompt(index) for index in range(500))
            }
            self.assertEqual(len(blocks), 2000)

    def test_prompts_differ_from_the_first_token_on(self) -> None:
        source = self.source(PromptSpec(input_tokens="8"), FakeTokenizer(COMMON_WORDS))
        self.assertGreater(len({source.prompt(index).text.split()[0] for index in range(500)}), 50)

    def test_levels_ask_for_the_same_lengths(self) -> None:
        spec = PromptSpec(input_tokens="uniform:1:1000", output_tokens="uniform:1:1000")
        first, second = self.source(replace(spec, salt="a"), salt="1"), self.source(spec, salt="2")
        for index in range(50):
            a, b = first.prompt(index), second.prompt(index)
            self.assertEqual(len(a.text.split()), len(b.text.split()))
            self.assertEqual(a.output_tokens, b.output_tokens)

    def test_any_prompt_in_any_order_in_any_process(self) -> None:
        path = prepare(PromptSpec(input_tokens="normal:64:16"), self.folder)
        forwards = [load_source(path, salt="x").prompt(index) for index in range(20)]
        other = load_source(path, salt="x")
        self.assertEqual([other.prompt(index) for index in reversed(range(20))], forwards[::-1])

    def test_known_prompt_stays_what_it_was(self) -> None:
        # Results of different versions are compared: the same spec must go on meaning the same prompts.
        source = self.source(PromptSpec(input_tokens="6", salt="run"), salt="level")
        self.assertEqual(source.prompt(7).text, "finish simple case little soil engine")

    def test_shared_prefixes(self) -> None:
        tokenizer = FakeTokenizer(COMMON_WORDS, adds=True)
        for how in ("words", "ids"):
            spec = PromptSpec(
                "prefix",
                "16",
                "8",
                prefixes=3,
                prefix_tokens=40,
                how=how,
                vocabulary=None if how == "words" else 9000,
            )
            prompts = [self.source(spec, tokenizer).prompt(index) for index in range(60)]
            parts = [prompt.token_ids or prompt.text.split() for prompt in prompts]
            words_in_prefix = 40 if how == "ids" else 38
            self.assertEqual(len({tuple(part[:words_in_prefix]) for part in parts}), 3)
            self.assertEqual(len({tuple(part[words_in_prefix:]) for part in parts}), 60)
            self.assertEqual({prompt.prompt_tokens for prompt in prompts}, {56})
            if how == "words":
                self.assertEqual({len(tokenizer.encode(prompt.text)) for prompt in prompts}, {56})
            other = self.source(spec, tokenizer, "level 2").prompt(0)
            start = (other.token_ids or other.text.split())[:BLOCK_TOKENS]
            self.assertNotIn(tuple(start), {tuple(part[:BLOCK_TOKENS]) for part in parts})

    def test_a_description_for_the_record(self) -> None:
        spec = PromptSpec(input_tokens="uniform:100:200", output_tokens="64")
        about = self.source(spec, FakeTokenizer(COMMON_WORDS)).describe()
        self.assertEqual(about, json.loads(json.dumps(about)))
        self.assertEqual((about["kind"], about["how"], about["seed"]), ("synthetic", "words", 1))
        self.assertEqual(about["input"]["lengths"], "uniform:100:200")
        self.assertAlmostEqual(about["input"]["mean"], 150, delta=3)
        self.assertEqual(about["output"]["mean"], 64)


class Repeated(InFolder):
    def test_one_text_for_averages(self) -> None:
        source = self.source(PromptSpec("repeat", text="What is two plus two?", output_tokens="uniform:1:9"))
        prompts = [source.prompt(index) for index in range(50)]
        self.assertEqual(source.size, 1)
        self.assertEqual({prompt.text for prompt in prompts}, {"What is two plus two?"})
        self.assertEqual({prompt.output_tokens for prompt in prompts}, set(range(1, 10)))
        self.assertIsNone(prompts[0].prompt_tokens)

    def test_a_text_is_counted_where_that_is_possible(self) -> None:
        spec = PromptSpec("repeat", text=" ".join(COMMON_WORDS[:9]))
        self.assertEqual(self.source(spec, FakeTokenizer(COMMON_WORDS)).prompt(0).prompt_tokens, 9)

    def test_one_random_prompt(self) -> None:
        source = self.source(PromptSpec("repeat", "32", "4"), FakeTokenizer(COMMON_WORDS))
        self.assertEqual(source.prompt(0), source.prompt(9))
        self.assertEqual(source.prompt(0).prompt_tokens, 32)
        self.assertEqual(source.describe()["input"]["mean"], 32)


class Files(InFolder):
    def test_rows_in_order_and_again(self) -> None:
        path = self.file({"prompt": "A", "output_tokens": 5}, {"prompt": "B"})
        source = self.source(PromptSpec("file", path=path, is_unique=False))
        self.assertEqual(source.size, 2)
        self.assertEqual([source.prompt(index).text for index in range(3)], ["A", "B", "A"])
        self.assertEqual([source.prompt(index).output_tokens for index in range(2)], [5, None])

    def test_lengths_given_by_the_user_count_more_than_the_files(self) -> None:
        path = self.file({"prompt": "A", "output_tokens": 5})
        source = self.source(PromptSpec("file", path=path, output_tokens="7"))
        self.assertEqual(source.prompt(0).output_tokens, 7)

    def test_a_tag_makes_the_beginning_unique_by_index_level_and_run(self) -> None:
        path = self.file({"prompt": "A question"})
        spec = PromptSpec("file", path=path)
        texts = [
            self.source(replace(spec, salt=run), salt=level).prompt(index).text
            for run in ("a", "b")
            for level in ("1", "2")
            for index in range(50)
        ]
        self.assertEqual(len(set(texts)), 200)
        self.assertTrue(all(text.endswith("\nA question") for text in texts))
        messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
        source = self.source(PromptSpec("file", path=self.file({"messages": messages})))
        first, again = source.prompt(0), source.prompt(0)
        self.assertEqual(first, again)
        self.assertRegex(first.messages[0]["content"], r"^(\w+ ){3}\w+\nS$")
        self.assertEqual(first.messages[1], messages[1])

    def test_sharegpt_questions_and_lengths_of_answers(self) -> None:
        conversation = [("human", "able about"), ("gpt", "above account across"), ("human", "more")]
        path = self.file({"conversations": [{"from": who, "value": what} for who, what in conversation]})
        spec = PromptSpec("file", path=path, is_unique=False)
        prompt = self.source(spec, FakeTokenizer(COMMON_WORDS, adds=True)).prompt(0)
        self.assertEqual((prompt.text, prompt.prompt_tokens, prompt.output_tokens), ("able about", 4, 3))
        self.assertIsNone(self.source(spec).prompt(0).output_tokens)

    def test_part_of_a_long_file_and_the_record_says_so(self) -> None:
        path = self.file(*({"prompt": f"number {n}"} for n in range(100)))
        source = self.source(PromptSpec("file", path=path, limit=10, is_unique=False))
        numbers = [int(source.prompt(index).text.split()[1]) for index in range(10)]
        self.assertEqual((source.size, numbers), (10, sorted(set(numbers))))
        self.assertGreater(max(numbers), 10)
        about = source.describe()
        self.assertEqual((about["prompts"], about["in_file"], about["file"]), (10, 100, "prompts.jsonl"))

    def test_text_of_any_script(self) -> None:
        source = self.source(
            PromptSpec("file", path=self.file({"prompt": "Grüße 你好 🙂\nx"}), is_unique=False)
        )
        self.assertEqual(source.prompt(0).text, "Grüße 你好 🙂\nx")

    def test_prepared_files_that_are_gone_or_damaged(self) -> None:
        path = prepare(PromptSpec("file", path=self.file({"prompt": "A"})), self.folder / "p")
        rows = next(path.parent.glob("*.rows"))
        rows.write_bytes(rows.read_bytes()[:-4])
        with self.assertRaisesRegex(WorkloadError, "cut off"):
            load_source(path)
        rows.unlink()
        with self.assertRaisesRegex(WorkloadError, "cannot read the prepared prompts"):
            load_source(path)
        for text in ("", "[]", "{}", '{"schema": "other/1"}'):
            path.write_text(text, encoding="utf-8")
            with self.assertRaises(WorkloadError):
                load_source(path)

    def test_a_missing_file(self) -> None:
        with self.assertRaisesRegex(WorkloadError, "cannot read the prompts"):
            self.source(PromptSpec("file", path=str(self.folder / "none.jsonl")))


class Specs(InFolder):
    def test_json_round_trip(self) -> None:
        spec = PromptSpec("prefix", "uniform:1:9", "7", prefixes=2, prefix_tokens=3, salt="s")
        self.assertEqual(PromptSpec.from_json(json.loads(json.dumps(spec.to_json()))), spec)
        with self.assertRaises(WorkloadError):
            PromptSpec.from_json({"flavour": "sweet"})

    def test_what_makes_no_sense(self) -> None:
        for arguments in (
            {"kind": "poem"},
            {"how": "letters"},
            {"seed": -1},
            {"limit": 0},
            {"vocabulary": 3},
            {"kind": "file"},
            {"path": "x.json"},
            {"text": "hello"},
            {"kind": "prefix", "prefixes": 3},
            {"kind": "prefix", "prefix_tokens": 3},
            {"prefixes": 3, "prefix_tokens": 3},
            {"kind": "conversation", "path": "x.json", "prefix_tokens": 3},
            {"kind": "conversation", "turns": 0},
            {"kind": "conversation", "how": "ids"},
            {"kind": "repeat", "text": "hello", "how": "ids"},
        ):
            with self.subTest(arguments), self.assertRaises(UsageError) as caught:
                PromptSpec(**arguments)  # type: ignore[arg-type]
            self.assertTrue(caught.exception.hint)

    def test_bad_lengths_are_found_before_anything_is_written(self) -> None:
        with self.assertRaisesRegex(UsageError, "--output-tokens"):
            prepare(PromptSpec(output_tokens="uniform:9:1"), self.folder / "p")
        self.assertFalse((self.folder / "p").exists())


@contextmanager
def module(name: str, **members: Any) -> Iterator[None]:
    stand_in = ModuleType(name)
    for key, value in members.items():
        setattr(stand_in, key, value)
    with mock.patch.dict(sys.modules, {name: stand_in}):
        yield


class Folders(InFolder):
    def test_no_package(self) -> None:
        (self.folder / "tokenizer.json").write_text("{}", encoding="utf-8")
        with mock.patch.dict(sys.modules, {"tokenizers": None}), self.assertRaises(ConfigError) as caught:
            FolderTokenizer(self.folder)
        self.assertIn("pip install tokenizers", caught.exception.hint)

    def test_no_tokenizer_in_the_folder(self) -> None:
        for folder in (self.folder, self.folder / "none"):
            auto = mock.Mock()
            auto.from_pretrained.side_effect = OSError("not found")
            with module("transformers", AutoTokenizer=auto), self.assertRaises(ConfigError) as caught:
                FolderTokenizer(folder)
            self.assertIn("tokenizer.json", caught.exception.hint)

    def test_a_folder_with_a_tokenizer_file(self) -> None:
        (self.folder / "tokenizer.json").write_text("{}", encoding="utf-8")
        real = mock.Mock()
        real.encode.return_value.ids = [1, 2]
        real.get_vocab_size.return_value = 99
        with module("tokenizers", Tokenizer=mock.Mock(from_file=mock.Mock(return_value=real))):
            tokenizer = FolderTokenizer(self.folder)
        self.assertEqual((tokenizer.encode("a b"), tokenizer.vocabulary), ([1, 2], 99))
        real.no_truncation.assert_called_once()


if __name__ == "__main__":
    unittest.main()
