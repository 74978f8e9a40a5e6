"""YAML as nodes with lines, and every file that is none."""

import tempfile
import time
import unittest
from pathlib import Path

from test import fakes  # noqa: F401 - puts src on the path

from aifbench.errors import UsageError
from aifbench.studies.yaml_text import MAX_NODES, MAX_SIZE_BYTES, Items, Scalar, Table, parse_yaml, read_text


class Nodes(unittest.TestCase):
    def parse(self, text: str) -> Table:
        node = parse_yaml(text, "r.yaml")
        assert isinstance(node, Table)
        return node

    def text(self, yaml: str) -> str:
        node = self.parse(f"key: {yaml}").nodes["key"]
        assert isinstance(node, Scalar)
        return node.text

    def test_text_stays_as_typed(self) -> None:
        for typed in ("no", "1:30", "007", "1e3", "0x10", "2026-11-20", "1_000", "1.10", "NULL-ish"):
            self.assertEqual(self.text(typed), typed)
        self.assertEqual((self.text("'off'"), self.text('"a: b"'), self.text("''")), ("off", "a: b", ""))

    def test_nothing_differs_from_empty_quotes_and_from_a_quoted_null(self) -> None:
        table = self.parse("a:\nb: ~\nc: null\nd: ''\ne: 'null'\n")
        nulls = {key: node.is_null for key, node in table.nodes.items() if isinstance(node, Scalar)}
        self.assertEqual(nulls, {"a": True, "b": True, "c": True, "d": False, "e": False})

    def test_lines_are_those_of_the_file(self) -> None:
        table = self.parse("# first\na: 1\nb:\n  - x\n  - y\n")
        items = table.nodes["b"]
        assert isinstance(items, Items)
        self.assertEqual((table.key_lines, [node.line for node in items.nodes]), ({"a": 2, "b": 3}, [4, 5]))

    def test_an_alias_is_what_it_stands_for(self) -> None:
        table = self.parse("a: &x [1, 2]\nb: *x")
        self.assertEqual(table.nodes["a"], table.nodes["b"])


class NoYaml(unittest.TestCase):
    def assert_refused(self, text: str, *words: str) -> None:
        start = time.monotonic()
        with self.assertRaises(UsageError) as caught:
            parse_yaml(text, "r.yaml")
        for word in ("r.yaml", *words):
            self.assertIn(word, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))
        self.assertLess(time.monotonic() - start, 5.0)

    def test_broken_text_names_the_line(self) -> None:
        self.assert_refused("a: 1\nb: [1, 2\nc: 3\n", "line 3", "not YAML")
        self.assert_refused("a: 1\n b: 2\n", "line 2")
        self.assert_refused("a: 'x\n", "line 2")
        self.assert_refused("a: b: c\n", "line 1", "need quotes")
        self.assert_refused("a: 1\n\tb: 2\n", "line 2", "spaces, not with tabs")
        self.assert_refused("a: *nowhere\n", "line 1", "nowhere")
        self.assert_refused("a: 1\nb: \x00\n", "line 2", "character")
        self.assert_refused("a: 1\n---\nb: 2\n", "line 2", "one recipe a file")

    def test_an_empty_file(self) -> None:
        for text in ("", "\n\n", "# only a remark\n"):
            self.assert_refused(text, "is empty", "recipe new")

    def test_keys(self) -> None:
        self.assert_refused("a: 1\nb: 2\na: 3\n", "line 3", "`a` is given twice, first in line 1")
        self.assert_refused("x:\n  {a: 1, a: 2}\n", "line 2", "twice")
        self.assert_refused("? [a, b]\n: 1\n", "line 1", "a key must be a word")
        self.assert_refused("a: 1\n{b: 1}: 2\n", "line 2", "a key must be a word")
        self.assert_refused("a: 1\n'': 2\n", "line 2", "a key must be a word")
        self.assert_refused("a: &x {b: 1}\nc:\n  <<: *x\n", "line 3", "`<<` is not supported")

    def test_nothing_is_constructed(self) -> None:
        self.assert_refused(
            "a: !!python/object/apply:os.system [echo]\n", "line 1", "python", "not supported"
        )
        self.assert_refused("a: 1\nb: !secret x\n", "line 2", "!secret")

    def test_bombs_end_early(self) -> None:
        laughs = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        laughs += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
        self.assert_refused("\n".join(laughs), "more than 10,000 values")
        self.assert_refused("a: &a [*a]", "levels")
        self.assert_refused("[" * 100_000, "levels")
        self.assert_refused("{a: " * 5_000, "levels")
        self.assert_refused(f"a: [{'1,' * (3 * MAX_NODES)}]", "more than 10,000 values")


class Files(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "r.yaml"

    def assert_refused(self, content: bytes, words: str) -> None:
        self.path.write_bytes(content)
        with self.assertRaisesRegex(UsageError, words):
            read_text(self.path)

    def test_size_and_encoding(self) -> None:
        self.assert_refused(b"#" * (MAX_SIZE_BYTES + 1), "larger than 1 MiB")
        self.assert_refused(b"a: 1\nnote: \xff\n", "line 2: this is not UTF-8")
        self.assert_refused(Path("/bin/sh").read_bytes()[:1000], "not UTF-8")
        self.path.write_bytes(b"\xef\xbb\xbfnote: \xc3\xa9\r\n")
        self.assertEqual(read_text(self.path), "note: é\r\n")

    def test_what_cannot_be_read(self) -> None:
        for path in (self.path, self.path.parent):
            with self.assertRaisesRegex(UsageError, "cannot read"):
                read_text(path)


if __name__ == "__main__":
    unittest.main()
