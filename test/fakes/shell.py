"""A shell over a FakeSession, as tests drive it: one line in, its output and outcome back."""

import io
import tempfile
import unittest
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from test.fakes.session import FakeSession

from aifbench.repl.app import main
from aifbench.repl.shell import Shell


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class ShellCase(unittest.TestCase):
    """`run_line` gives what one typed line prints, on stdout and on stderr."""

    def setUp(self) -> None:
        self.session = FakeSession()
        self.shell = self.make_shell()

    def make_shell(self, typed: str = "", *, is_interactive: bool = False) -> Shell:
        return Shell(
            self.session, stdin=io.StringIO(typed), stdout=io.StringIO(), is_interactive=is_interactive
        )

    def run_line(self, line: str) -> tuple[str, str]:
        self.shell.stdout.truncate(0)
        self.shell.stdout.seek(0)
        with redirect_stderr(io.StringIO()) as stderr:
            self.stopped = self.shell.onecmd_plus_hooks(line)
        return self.shell.stdout.getvalue(), stderr.getvalue()

    def assert_fails(self, line: str, outcome: int, *words: str) -> None:
        out, error = self.run_line(line)
        self.assertEqual(self.shell.outcome, outcome, (line, out, error))
        for word in words:
            self.assertIn(word, error, line)
        self.assertNotIn("Traceback", error)
        self.assertLessEqual(len(error.strip().splitlines()), 1, error)


def run_main(session: FakeSession, argv: list[str], typed: str = "") -> tuple[int, str, str]:
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as error:
        try:
            code = main(argv, session_factory=lambda _: session, stdin=io.StringIO(typed))
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    return code, out.getvalue(), error.getvalue()


@contextmanager
def script(text: str) -> Iterator[Path]:
    """A file of commands, for the time of a `with`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "script.txt"
        path.write_text(text, encoding="utf-8")
        yield path
