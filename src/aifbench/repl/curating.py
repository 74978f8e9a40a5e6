"""Commands that say something about runs, delete them, or take them elsewhere."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

import cmd2
from cmd2 import with_argparser

from aifbench.errors import UsageError
from aifbench.repl import completion
from aifbench.repl.parsers import Parser
from aifbench.repl.progress import terminal_width
from aifbench.repl.topic import Topic, on_interrupt
from aifbench.repl.wording import runs_table
from aifbench.units import format_size

if TYPE_CHECKING:
    from aifbench.results.pruning import Pruning

_RUNS_HELP = "run, study, tag=NAME, or other filters joined by commas"


def _runs(parser: Parser) -> None:
    parser.add_argument("runs", metavar="RUNS", help=_RUNS_HELP, choices_provider=completion.runs)


def _tag_parser() -> Parser:
    parser = Parser(
        "Give runs tags, to find and compare them by; `keep` keeps a run from being pruned.",
        "tag last baseline keep",
    )
    _runs(parser)
    parser.add_argument("words", nargs="+", metavar="TAG", help="letters, digits and . _ + -")
    return parser


def _untag_parser() -> Parser:
    parser = Parser("Take tags away from runs.", "untag last baseline")
    _runs(parser)
    parser.add_argument("words", nargs="+", metavar="TAG", help="a tag that they have")
    return parser


def _note_parser() -> Parser:
    parser = Parser("Write a note on runs; without text, take it away.", "note last the disk was full")
    _runs(parser)
    parser.add_argument("text", nargs="*", metavar="TEXT", help="what to remember")
    return parser


def _prune_parser() -> Parser:
    parser = Parser(
        "Delete runs that match every filter. Runs that are RUNNING, tagged `keep`, of a study, or of "
        "somebody else stay. Asks before it deletes; a script has to say --yes.",
        "prune verdict=INVALID until=30d --dry-run",
    )
    parser.add_argument(
        "filters",
        nargs="+",
        metavar="FILTER",
        help="as for `results`; until=30d for those older than 30 days",
        choices_provider=completion.filters,
    )
    parser.add_argument("--dry-run", action="store_true", help="only tell what would be deleted")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--studies", action="store_true", help="runs of studies, too")
    return parser


def _export_parser() -> Parser:
    parser = Parser(
        "Write runs as one CSV table: a row per run and metric, everything about the run in columns. "
        "pandas.read_csv(FILE) reads it.",
        "export chroma-rate rates.csv",
    )
    _runs(parser)
    parser.add_argument("file", metavar="FILE", help="a .csv file", completer=cmd2.Cmd.path_complete)
    return parser


class Curating(Topic):
    DEFAULT_CATEGORY = "Results"

    @with_argparser(_tag_parser)
    def do_tag(self, args: Namespace) -> None:
        """Give runs tags to find them by."""
        self._tell("tagged", self.session.tag(args.runs, args.words))

    @with_argparser(_untag_parser)
    def do_untag(self, args: Namespace) -> None:
        """Take tags away from runs."""
        self._tell("untagged", self.session.tag(args.runs, args.words, remove=True))

    @with_argparser(_note_parser)
    def do_note(self, args: Namespace) -> None:
        """Write a note on runs."""
        self._tell(
            "noted on" if args.text else "no note on", self.session.note(args.runs, " ".join(args.text))
        )

    @with_argparser(_export_parser)
    def do_export(self, args: Namespace) -> None:
        """Write runs as a CSV table."""
        path = Path(args.file).expanduser()
        count = self.session.export(args.runs, path)
        self._cmd.last_result = path
        self._cmd.poutput(f"wrote {path} ({count} run{'s' if count != 1 else ''})")

    @with_argparser(_prune_parser)
    def do_prune(self, args: Namespace) -> None:
        """Delete runs that nobody needs any more."""
        plan = self.session.plan_pruning(args.filters, studies=args.studies)
        self._cmd.last_result = plan
        for run, reason in plan.spared:
            self._cmd.poutput(f"stays: {run.run_id} ({reason})")
        if not plan.doomed:
            self._cmd.poutput("no run to delete")
            return
        self._cmd.poutput(runs_table(plan.doomed, terminal_width(self._cmd.stdout)))
        if args.dry_run:
            self._cmd.poutput(f"would delete {_count(plan)}")
        elif args.yes or self._may_delete(plan):
            gone = self.session.prune(plan, studies=args.studies)
            self._cmd.poutput(f"deleted {len(gone)} run{'s' if len(gone) != 1 else ''}")
        else:
            self._cmd.poutput("deleted nothing")

    def _may_delete(self, plan: "Pruning") -> bool:
        if not self._cmd.is_interactive:
            raise UsageError("nobody is there to be asked", hint="--yes deletes, --dry-run only tells")
        try:
            with on_interrupt("deleted nothing"):
                answer = self._cmd.read_input(f"delete {_count(plan)}? [y]es or [n]o: ")
        except EOFError:
            return False
        return answer.strip().lower() in ("y", "yes")

    def _tell(self, done: str, run_ids: list[str]) -> None:
        self._cmd.last_result = run_ids
        more = f" and {len(run_ids) - 1} more" if len(run_ids) > 1 else ""
        self._cmd.poutput(f"{done} {run_ids[0]}{more}")


def _count(plan: "Pruning") -> str:
    plural = "s" if len(plan.doomed) != 1 else ""
    return f"{len(plan.doomed)} run{plural}, {format_size(plan.size_bytes)}"
