"""Files of prompts: the shapes people have, and the ways they are broken."""

import json
import tempfile
import unittest
from pathlib import Path
from typing import Any

from test import fakes  # noqa: F401

from aifbench.errors import WorkloadError
from aifbench.workloads.prompt_files import FileRow, Turn, parse_prompts, read_prompts


def sharegpt(*conversations: list[tuple[str, str]]) -> str:
    return json.dumps(
        [
            {"id": str(n), "conversations": [{"from": who, "value": what} for who, what in each]}
            for n, each in enumerate(conversations)
        ]
    )


def lines(*entries: Any) -> str:
    return "\n".join(json.dumps(entry) for entry in entries) + "\n"


class Shapes(unittest.TestCase):
    def test_sharegpt(self) -> None:
        found = parse_prompts(
            sharegpt(
                [("human", "Hi"), ("gpt", "Hello"), ("human", "Bye"), ("gpt", "See you")],
                [("system", "Be short"), ("gpt", "left over"), ("human", "Why?")],
            ),
            "f",
        )
        self.assertEqual(found.rows[0].turns, (Turn("Hi", "Hello"), Turn("Bye", "See you")))
        self.assertEqual(found.rows[1], FileRow(system="Be short", turns=(Turn("Why?"),)))
        self.assertEqual(found.skipped, 0)

    def test_conversations_without_a_human_turn_are_skipped_and_counted(self) -> None:
        found = parse_prompts(sharegpt([("gpt", "Hello")], [], [("human", " ")], [("human", "Hi")]), "f")
        self.assertEqual([row.turns for row in found.rows], [(Turn("Hi"),)])
        self.assertEqual(found.skipped, 3)

    def test_json_lines(self) -> None:
        messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
        found = parse_prompts(
            lines(
                {"prompt": "P", "output_tokens": 7},
                {"text": "T", "max_tokens": 8},
                {"messages": messages},
            ),
            "f",
        )
        first, second, third = found.rows
        self.assertEqual((first.text, first.output_tokens), ("P", 7))
        self.assertEqual((second.text, second.output_tokens), ("T", 8))
        self.assertEqual((third.messages, third.output_tokens), (tuple(messages), None))
        self.assertEqual((third.system, third.turns), ("S", (Turn("U"),)))

    def test_an_array_of_prompts_and_line_separators_inside_a_text(self) -> None:
        self.assertEqual(parse_prompts('[{"prompt": "a"}]', "f").rows[0].text, "a")
        self.assertEqual(parse_prompts('{"prompt": "a\u2028b"}\r\n\r\n', "f").rows[0].text, "a\u2028b")

    def test_half_a_surrogate_pair_can_still_be_sent(self) -> None:
        parse_prompts('{"prompt": "a \\ud83d b"}', "f").rows[0].text.encode("utf-8")

    def test_a_byte_order_mark_is_no_text(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "p.jsonl"
            path.write_text('{"prompt": "a"}', encoding="utf-8-sig")
            self.assertEqual(read_prompts(path).rows[0].text, "a")


class BadFiles(unittest.TestCase):
    def test_each_says_where_and_what_would_be_valid(self) -> None:
        for text, words in {
            "": "empty",
            "[]": "empty",
            "hello\n": "line 1 is no JSON",
            '{"prompt": "a"}\n{"prompt": \n': "line 2 is no JSON",
            '[{"prompt": "a"}': "is no JSON",
            "[1]": "entry 1 is no JSON object",
            "7\n": "line 1 is no JSON object",
            '{"question": "a"}': "line 1 has no prompt",
            '{"prompt": 5}': "no text but int",
            '{"prompt": "a", "output_tokens": 0}': "output_tokens is 0",
            '{"prompt": "a", "max_tokens": "many"}': "max_tokens is 'many'",
            '{"messages": "a"}': "no list",
            '{"messages": ["a"]}': "a message is no JSON object",
            '{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}': "no text but list",
            '{"conversations": [{"from": "gpt", "value": "Hello"}]}': "none of the 1 entries",
        }.items():
            with self.subTest(text), self.assertRaises(WorkloadError) as caught:
                parse_prompts(text, "my.json")
            self.assertIn("my.json", caught.exception.message)
            self.assertIn(words, caught.exception.message)
            self.assertTrue(caught.exception.hint)

    def test_missing_unreadable_and_binary(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            binary = Path(folder) / "binary"
            binary.write_bytes(b"\xff\xfe\x00")
            for path in (Path(folder) / "missing", Path(folder), binary):
                with self.subTest(path), self.assertRaisesRegex(WorkloadError, "cannot read the prompts"):
                    read_prompts(path)


if __name__ == "__main__":
    unittest.main()
