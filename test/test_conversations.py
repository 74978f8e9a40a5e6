"""Conversations: every turn carries what was said before, with the answers that were really given."""

import json
import tempfile
import unittest
from pathlib import Path

from test import fakes  # noqa: F401
from test.fakes.tokenizer import FakeTokenizer

from aifbench.errors import WorkloadError
from aifbench.workloads.common_words import COMMON_WORDS
from aifbench.workloads.conversations import (
    Conversation,
    FileConversations,
    SyntheticConversations,
)
from aifbench.workloads.prompts import Prompt, PromptSpec, Tokenizer, load_source, prepare


class Requests(unittest.TestCase):
    def test_answers_are_filled_in(self) -> None:
        turns = (Prompt("Q1", prompt_tokens=2, output_tokens=5), Prompt("Q2", output_tokens=6))
        conversation = Conversation("S", turns)
        first = conversation.request(())
        self.assertEqual([m["content"] for m in first.messages], ["S", "Q1"])
        self.assertEqual((first.output_tokens, first.prompt_tokens), (5, None))
        second = conversation.request(["A1"])
        self.assertEqual(
            [(m["role"], m["content"]) for m in second.messages],
            [("system", "S"), ("user", "Q1"), ("assistant", "A1"), ("user", "Q2")],
        )
        self.assertEqual(second.output_tokens, 6)
        with self.assertRaises(WorkloadError):
            conversation.request(["A1", "A2"])

    def test_no_system_text(self) -> None:
        request = Conversation("", (Prompt("Q1", prompt_tokens=2),)).request(())
        self.assertEqual(request.messages, ({"role": "user", "content": "Q1"},))
        self.assertEqual(request.prompt_tokens, 2)


class Sources(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def synthetic(
        self, salt: str = "", tokenizer: Tokenizer | None = None, **more: int
    ) -> SyntheticConversations:
        spec = PromptSpec("conversation", "uniform:5:50", "9", **more)  # type: ignore[arg-type]
        source = load_source(prepare(spec, self.folder, tokenizer), salt=salt)
        assert isinstance(source, SyntheticConversations)
        return source

    def from_file(self, *, is_unique: bool = True, turns: int = 0, salt: str = "") -> FileConversations:
        said = [("human", "Hi"), ("gpt", "Hello"), ("human", "Bye"), ("gpt", "")]
        entry = {"conversations": [{"from": who, "value": what} for who, what in said]}
        path = self.folder / "talk.json"
        path.write_text(json.dumps([entry, {"conversations": []}]), encoding="utf-8")
        spec = PromptSpec("conversation", path=str(path), turns=turns, is_unique=is_unique)
        source = load_source(prepare(spec, self.folder), salt=salt)
        assert isinstance(source, FileConversations)
        return source

    def test_every_message_has_its_length(self) -> None:
        tokenizer = FakeTokenizer(COMMON_WORDS, adds=True)
        source = self.synthetic(tokenizer=tokenizer, turns=4, prefix_tokens=30)
        conversation = source.conversation(2)
        self.assertEqual(len(conversation.system.split()), 30)
        self.assertEqual(len(conversation.turns), 4)
        for turn in conversation.turns:
            self.assertEqual(len(tokenizer.encode(turn.text)) - 2, turn.prompt_tokens)
            self.assertEqual(turn.output_tokens, 9)
        self.assertEqual(source.prompt(2), conversation.request(()))

    def test_nobody_shares_a_turn_and_only_a_pool_shares_system_texts(self) -> None:
        source = self.synthetic(turns=3, prefix_tokens=20, prefixes=2)
        conversations = [source.conversation(index) for index in range(40)]
        self.assertEqual(len({each.system for each in conversations}), 2)
        self.assertEqual(len({turn.text for each in conversations for turn in each.turns}), 120)
        own = self.synthetic(turns=3, prefix_tokens=20)
        self.assertEqual(len({own.conversation(index).system for index in range(40)}), 40)
        other = self.synthetic(turns=3, prefix_tokens=20, prefixes=2, salt="level 2")
        self.assertNotIn(other.conversation(0).system, {each.system for each in conversations})

    def test_a_file_without_changes(self) -> None:
        source = self.from_file(is_unique=False)
        self.assertEqual(source.size, 1)
        self.assertEqual([turn.text for turn in source.conversation(5).turns], ["Hi", "Bye"])
        self.assertEqual(len(self.from_file(turns=1).conversation(0).turns), 1)
        self.assertEqual(source.describe()["skipped"], 1)

    def test_a_file_made_unique(self) -> None:
        openings = {
            self.from_file(salt=salt).prompt(index).messages[0]["content"]
            for salt in "ab"
            for index in range(20)
        }
        self.assertEqual(len(openings), 40)
        self.assertEqual(self.from_file().conversation(0).turns[1].text, "Bye")

    def test_descriptions_are_json(self) -> None:
        for source in (self.synthetic(), self.from_file()):
            about = source.describe()
            self.assertEqual(json.loads(json.dumps(about)), about)
            self.assertEqual(about["kind"], "conversation")


if __name__ == "__main__":
    unittest.main()
