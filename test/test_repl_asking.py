"""Options that a person is asked for when `start` is typed without any."""

import unittest
from dataclasses import replace

from test.fakes.session import START_OPTIONS
from test.fakes.shell import ShellCase

from aifbench.options import Option
from aifbench.repl.exit_codes import INTERRUPTED

ASKED = (
    replace(START_OPTIONS[1], asked=True),
    Option("path", "where", default="/scratch", metavar="DIR", asked=True),
    Option("mode", "how", default="fast", choices=("fast", "slow"), asked=True),
    *START_OPTIONS[:1],
)


class Asking(ShellCase):
    def setUp(self) -> None:
        super().setUp()
        self.prompts: list[str] = []
        self.session.start_options = lambda _kind: ASKED  # type: ignore[method-assign]

    def answers(self, *lines: str | BaseException) -> None:
        left = list(lines)

        def read(prompt: str, **_: object) -> str:
            self.prompts.append(prompt)
            line = left.pop(0)
            if isinstance(line, BaseException):
                raise line
            return line

        self.shell = self.make_shell(is_interactive=True)
        self.shell.read_input = read  # type: ignore[method-assign, assignment]

    def started(self) -> dict[str, object]:
        ((_, values),) = self.session.called("start")
        return dict(values)

    def test_each_one_with_its_default(self) -> None:
        self.answers("2", "/data", "slow")
        self.run_line("start chroma")
        self.assertEqual(
            self.prompts,
            [
                "nodes: nodes (default 1): ",
                "path: where (default /scratch): ",
                "mode: how: fast, slow (default fast): ",
            ],
        )
        found = self.started()
        self.assertEqual((found["nodes"], found["path"], found["mode"]), (2, "/data", "slow"))

    def test_an_empty_line_takes_the_default(self) -> None:
        self.answers("", " ", "")
        self.run_line("start chroma")
        found = self.started()
        self.assertEqual((found["nodes"], found["path"], found["mode"]), (1, "/scratch", "fast"))

    def test_what_cannot_be_used_is_asked_for_again(self) -> None:
        self.answers("none", "0", "3", "", "quick", "slow")
        out, _ = self.run_line("start chroma")
        self.assertEqual(len(self.prompts), 6)
        self.assertIn("--nodes '0'", out)
        self.assertIn("valid: fast, slow", out)
        self.assertEqual((self.started()["nodes"], self.started()["mode"]), (3, "slow"))

    def test_ctrl_c_and_the_end_of_input_start_nothing(self) -> None:
        for end in (KeyboardInterrupt(), EOFError()):
            self.answers("2", end)
            self.assert_fails("start chroma", INTERRUPTED, "nothing was started")
        self.assertEqual(self.session.called("start"), [])

    def test_whoever_gives_an_option_is_not_asked(self) -> None:
        for line in ("start chroma --nodes 2", "start chroma --name b"):
            self.answers()
            self.run_line(line)
        self.assertEqual(self.prompts, [])
        self.assertEqual(len(self.session.called("start")), 2)

    def test_a_batch_is_not_asked(self) -> None:
        self.answers()
        self.shell.is_interactive = False
        self.run_line("start chroma")
        self.assertEqual(self.prompts, [])
        self.assertEqual(self.started()["path"], "/scratch")

    def test_services_without_such_options_start_at_once(self) -> None:
        self.session.start_options = lambda _kind: START_OPTIONS  # type: ignore[method-assign]
        self.answers()
        self.run_line("start chroma")
        self.assertEqual(self.prompts, [])


class Completion(ShellCase):
    def test_each_prompt_completes_what_it_asks_for(self) -> None:
        self.session.start_options = lambda _kind: ASKED  # type: ignore[method-assign]
        given: list[dict[str, object]] = []

        def read(_prompt: str, **completion: object) -> str:
            given.append(completion)
            return ""

        self.shell = self.make_shell(is_interactive=True)
        self.shell.read_input = read  # type: ignore[method-assign, assignment]
        self.run_line("start chroma")
        offered = [[key for key, value in each.items() if value] for each in given]
        self.assertEqual(offered, [[], ["completer"], ["choices"]])
        complete = given[1]["completer"]
        assert callable(complete)
        found = complete(self.shell, "/us", "/us", 0, 3)
        self.assertIn("/usr", str(found))


if __name__ == "__main__":
    unittest.main()
