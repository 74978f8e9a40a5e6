"""Commands that list, show and keep what was measured."""

from argparse import Namespace
from pathlib import Path

import cmd2
from cmd2 import with_argparser

from aifbench.repl import completion, wording
from aifbench.repl.parsers import Parser
from aifbench.repl.progress import terminal_width
from aifbench.repl.topic import Topic
from aifbench.results.query import SORT_KEYS
from aifbench.units import format_size, parse_count


def _results_parser() -> Parser:
    parser = Parser(
        "List runs, newest first, that match every filter.", "results service=chroma since=2d --sort verdict"
    )
    parser.add_argument(
        "filters",
        nargs="*",
        metavar="FILTER",
        help="service=, bench=, verdict=, state=, tag=, study=, since=AGE or DAY, until=, or any word",
        choices_provider=completion.filters,
    )
    parser.add_argument(
        "--sort", default="created", choices=SORT_KEYS, metavar="KEY", help=", ".join(SORT_KEYS)
    )
    parser.add_argument(
        "--stats", action="store_true", help="how steady the main numbers are, by groups of equal runs"
    )
    parser.add_argument("-n", "--limit", default="20", metavar="N", help="how many at most (default 20)")
    return parser


def _add_run(parser: Parser) -> None:
    parser.add_argument(
        "run",
        nargs="?",
        default="last",
        metavar="RUN",
        help="run id, its last four characters, or `last` (default)",
        choices_provider=completion.runs,
    )


def _show_parser() -> Parser:
    parser = Parser("Show the tables and verdicts of a run.", "show last --full")
    _add_run(parser)
    parser.add_argument(
        "--full", action="store_true", help="every metric, check, error and where it was measured"
    )
    return parser


def _save_parser() -> Parser:
    parser = Parser(
        "Pack a run into one zip: record, samples, logs, batch script, report, checksums; no secrets.",
        "save last --out chroma.zip",
    )
    parser.add_argument(
        "ref",
        nargs="?",
        metavar="RUN|SERVICE",
        help="run, or a service for its last run (default: the only service, or the last run)",
        choices_provider=completion.instances_or_runs,
    )
    parser.add_argument(
        "--out", metavar="FILE", help="where to write the zip", completer=cmd2.Cmd.path_complete
    )
    return parser


class Results(Topic):
    DEFAULT_CATEGORY = "Results"

    @with_argparser(_results_parser)
    def do_results(self, args: Namespace) -> None:
        """List runs with verdict and main result."""
        limit = parse_count(args.limit, "--limit", maximum=1_000_000)
        if args.stats:
            self._cmd.last_result = found = self.session.repeats(args.filters)
            self._cmd.poutput(wording.repeats_text(found[:limit]) if found else "no run matches")
            return
        runs = self.session.runs(filters=args.filters, sort=args.sort, limit=limit)
        self._cmd.last_result = runs
        if runs:
            self._cmd.poutput(wording.runs_table(runs, terminal_width(self._cmd.stdout)))
        elif args.filters:
            self._cmd.poutput("no run matches")
        else:
            self._cmd.poutput("nothing has been measured yet; `bench` makes a run")

    @with_argparser(_show_parser)
    def do_show(self, args: Namespace) -> None:
        """Show a run's numbers and verdicts."""
        self._cmd.poutput(self.session.run_text(args.run, full=args.full))

    @with_argparser(_save_parser)
    def do_save(self, args: Namespace) -> None:
        """Pack a run and all its evidence into a zip."""
        names = self.session.instances()
        ref = args.ref or (names[0] if len(names) == 1 else "last")
        path = self.session.save(ref, Path(args.out).expanduser() if args.out else None)
        self._cmd.last_result = path
        size = f" ({format_size(path.stat().st_size)})" if path.exists() else ""
        self._cmd.poutput(f"saved {path}{size}")
