"""The command that writes reports of runs and studies."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

import cmd2
from cmd2 import Choices, with_argparser

from aifbench.repl import completion
from aifbench.repl.parsers import Parser
from aifbench.repl.topic import Topic

if TYPE_CHECKING:
    from aifbench.repl.shell import Shell

_FORMATS = {
    "html": "one page with figures, which needs nothing else",
    "md": "the same words and numbers as Markdown",
    "csv": "every number as a table",
    "json": "every number for programs",
}


def _runs_or_studies(shell: "Shell") -> Choices:
    """Runs, and studies by their id: `last` is a run here."""
    studies = (study for study in completion.studies(shell) if study.text != "last")
    return Choices([*completion.runs(shell), *studies], is_sorted=True)


def _report_parser() -> Parser:
    parser = Parser(
        "Write reports: of a run beside its record, of a study with all its runs. Every format unless some "
        "are chosen.",
        "report last --html",
    )
    parser.add_argument(
        "refs",
        nargs="*",
        default=["last"],
        metavar="RUN|STUDY",
        help="run or study: its id, a unique part of it, or `last` for the newest run (default)",
        choices_provider=_runs_or_studies,
    )
    for name, words in _FORMATS.items():
        parser.add_argument(f"--{name}", dest="formats", action="append_const", const=name, help=words)
    parser.add_argument("--out", metavar="DIR", help="write there instead", completer=cmd2.Cmd.path_complete)
    return parser


class Reports(Topic):
    DEFAULT_CATEGORY = "Results"

    @with_argparser(_report_parser)
    def do_report(self, args: Namespace) -> None:
        """Write the report of runs and studies."""
        out = Path(args.out).expanduser() if args.out else None
        written = []
        for ref in args.refs:
            paths = self.session.report(ref, formats=args.formats or (), out=out)
            written += paths
            names = [str(paths[0]), *(path.name for path in paths[1:])]
            self._cmd.poutput(f"wrote {', '.join(names[:-1])}{' and ' if names[1:] else ''}{names[-1]}")
        self._cmd.last_result = written
