"""The command that holds runs against runs."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

import cmd2
from cmd2 import with_argparser

from aifbench.errors import ConfigError, UsageError
from aifbench.options import nearest
from aifbench.repl import completion
from aifbench.repl.exit_codes import FAILURE
from aifbench.repl.parsers import Parser
from aifbench.repl.topic import Topic

if TYPE_CHECKING:
    from aifbench.results.compared import Comparison

_FAIL_ON = ("regression", "change", "undecided")


def _compare_parser() -> Parser:
    parser = Parser(
        "Compare runs: what differs in how they were made, then every main number with its ratio to the "
        "first side, 95 % interval and verdict. A side is a run, tag=NAME or other filters joined by commas "
        "(service=KIND,since=2d), a period (2026-11-01..2026-11-10), a study or a point of it "
        "(STUDY:rate=50, STUDY:2), a zip made by `save`, a run's directory, or a record.json. One study "
        "alone: its points, each against the first.",
        "compare tag=before tag=after --fail-on regression --html compared.html",
    )
    parser.add_argument(
        "sides",
        nargs="+",
        metavar="SIDE",
        help="two or more, the base first",
        choices_provider=completion.runs,
    )
    parser.add_argument("--all", action="store_true", help="every metric that both sides have, too")
    parser.add_argument("--with-invalid", action="store_true", help="judge INVALID runs like the others")
    parser.add_argument(
        "--verify", action="store_true", help="hold the files of stored runs against their checksums"
    )
    parser.add_argument(
        "--fail-on",
        metavar="WHAT",
        help="exit with 1 when there is a `regression`, any `change`, or an `undecided` main number; "
        "several joined by commas",
    )
    for kind, words in (
        ("html", "a page with figures"),
        ("md", "Markdown"),
        ("csv", "every compared number"),
    ):
        parser.add_argument(
            f"--{kind}", metavar="FILE", help=f"write {words} to FILE", completer=cmd2.Cmd.path_complete
        )
    return parser


class Comparing(Topic):
    DEFAULT_CATEGORY = "Results"

    @with_argparser(_compare_parser)
    def do_compare(self, args: Namespace) -> None:
        """Compare runs, tags, points of studies, periods or files from elsewhere."""
        from aifbench.report.comparison_text import comparison_text

        reasons = _reasons(args.fail_on)
        found = self.session.compare(args.sides, with_invalid=args.with_invalid, verified=args.verify)
        self._cmd.last_result = found
        self._cmd.poutput(comparison_text(found, everything=args.all))
        for kind in ("html", "md", "csv"):
            if target := getattr(args, kind):
                self._cmd.poutput(f"wrote {_write(found, kind, Path(target).expanduser())}")
        if met := _met(found, reasons):
            self._cmd.fail(f"--fail-on {met}: met", FAILURE)


def _reasons(text: str | None) -> list[str]:
    reasons = [word.strip() for word in (text or "").split(",") if word.strip()]
    for word in reasons:
        if word not in _FAIL_ON:
            raise UsageError(
                f"--fail-on {word!r} is not known{nearest(word, _FAIL_ON)}",
                hint=f"valid: {', '.join(_FAIL_ON)}",
            )
    return reasons


def _met(found: "Comparison", reasons: list[str]) -> str:
    """The first of the reasons to fail that is there; what `--all` adds does not count."""
    from aifbench.results.compared import Rank
    from aifbench.stats.comparison import Change

    changes = found.changes(Rank.PRIMARY, Rank.SECONDARY)
    is_met = {
        "regression": Change.REGRESSED in changes,
        "change": bool(changes & {Change.REGRESSED, Change.IMPROVED, Change.CHANGED}),
        "undecided": Change.UNDECIDED in found.changes(Rank.PRIMARY),
    }
    return next((reason for reason in reasons if is_met[reason]), "")


def _write(found: "Comparison", kind: str, target: Path) -> Path:
    from aifbench.report import comparison_csv, comparison_html

    written = {
        "html": comparison_html.comparison_html,
        "md": comparison_html.comparison_markdown,
        "csv": comparison_csv.comparison_csv,
    }[kind](found)
    try:
        target.write_text(written, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {target}: {error.strerror}", hint="give another file") from error
    return target
