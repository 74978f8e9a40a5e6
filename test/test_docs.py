"""What the documents say exists: files, links, sections, commands and options."""

import functools
import io
import re
import shlex
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path

from test import fakes  # noqa: F401 - puts src on the path

from aifbench.config import load_config
from aifbench.repl.app import command_lines
from aifbench.repl.shell import Shell, command_names
from aifbench.servers.registry import kinds
from aifbench.session import Session

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = [path for path in ROOT.iterdir() if path.is_dir() and (path.name == ".ci" or path.name[0] != ".")]
FENCED = re.compile(r"^```.*?\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
PROMPT = "bench> "


def documents() -> list[Path]:
    """README.md and every other document of the project, which those in result directories are not."""
    nested = (path for folder in FOLDERS if folder.name != "results" for path in folder.rglob("*.md"))
    return [ROOT / "README.md", *(ROOT / "results").glob("*.md"), *nested]


def without_code(text: str) -> str:
    return INLINE.sub("", FENCED.sub("", text))


def slug(heading: str) -> str:
    """A section's anchor as GitHub and GitLab make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def named_paths(text: str) -> Iterator[str]:
    """Words in code that begin with a top-level directory of the project; <x> and * stand for anything."""
    folders = "|".join(re.escape(path.name) for path in FOLDERS if path.name != "results")
    path = re.compile(rf"(?<![\w./~{{-])(?:\./)?((?:{folders})/[\w./*<>-]*[\w*>/])")
    for code in FENCED.findall(text) + INLINE.findall(FENCED.sub("", text)):
        yield from path.findall(code)


def exists(name: str) -> bool:
    return any(ROOT.glob(re.sub(r"<[^>]*>", "*", name)))


def shell_lines(text: str) -> list[str]:
    """What a document lets one type into the shell: after its prompt, or as arguments of `aifbench`."""
    lines = [line for block in FENCED.findall(text) for line in block.splitlines()]
    typed = [line.removeprefix(PROMPT) for line in lines if line.startswith(PROMPT)]
    for line in lines:
        called = re.search(r"(?:^|&& |; |\$ )aifbench ([^;|>&#]+)", line)
        words = shlex.split(called[1]) if called else []
        if words and not words[0].startswith("-"):
            typed += command_lines(words, command_names())
    return typed


class Documents(unittest.TestCase):
    def test_links_lead_somewhere(self) -> None:
        for document in documents():
            text = document.read_text()
            sections = {slug(heading) for heading in HEADING.findall(FENCED.sub("", text))}
            for link in LINK.findall(without_code(text)):
                file, _, section = link.partition("#")
                with self.subTest(document.name, link=link):
                    if file and "://" not in link:
                        self.assertTrue((document.parent / file).exists(), "no such file")
                    elif section and not file:
                        self.assertIn(section, sections)

    def test_named_files_exist(self) -> None:
        for document in documents():
            for name in named_paths(document.read_text()):
                with self.subTest(document.name):
                    self.assertTrue(exists(name), f"{name} does not exist")


class Commands(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.session = Session(load_config({"AIFBENCH_RESULTS": folder.name, "AIFBENCH_SCHEDULER": "local"}))

    @functools.cache  # noqa: B019 - lives as long as one test
    def help_for(self, *words: str) -> str:
        output = io.StringIO()
        Shell(self.session, stdout=output).onecmd_plus_hooks(shlex.join(["help", *words]))
        return output.getvalue()

    def test_typed_commands_and_options_exist(self) -> None:
        for document in documents():
            for line in shell_lines(document.read_text()):
                words = shlex.split(line, comments=True)
                service = [word for word in words[1:2] if word in kinds()]
                with self.subTest(document.name, line=line):
                    self.assertIn(words[0], command_names())
                    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
                        known = option in self.help_for(words[0], *service)
                        self.assertTrue(known, f"{words[0]} has no option {option}")

    def test_the_two_commands_of_a_newcomer_are_in_the_readme(self) -> None:
        readme = (ROOT / "README.md").read_text()
        self.assertIn("source env.sh && aifbench quickstart", readme)
        self.assertIn("source env.sh && python -m unittest discover test", readme)


if __name__ == "__main__":
    unittest.main()
