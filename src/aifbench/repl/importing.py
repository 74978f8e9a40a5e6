"""The command that takes in what was measured elsewhere."""

from argparse import Namespace
from pathlib import Path

import cmd2
from cmd2 import with_argparser

from aifbench.repl.parsers import Parser
from aifbench.repl.topic import Topic
from aifbench.units import parse_count


def _import_parser() -> Parser:
    parser = Parser(
        "Store earlier IO500 runs as runs: from result directories, result files or job logs. They are then "
        "listed, shown, compared and reported like any other, and tagged `imported`.",
        "import ~/io500/results --nodes 4",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="DIR|FILE",
        help="directory with results, also in directories below it; or a file",
        completer=cmd2.Cmd.path_complete,
    )
    parser.add_argument("--nodes", metavar="N", help="nodes that the run used, where its files do not tell")
    parser.add_argument(
        "--ini",
        metavar="FILE",
        help="its configuration, where it is not beside it",
        completer=cmd2.Cmd.path_complete,
    )
    return parser


class Importing(Topic):
    DEFAULT_CATEGORY = "Results"

    @with_argparser(_import_parser)
    def do_import(self, args: Namespace) -> None:
        """Store IO500 runs that were made elsewhere."""
        nodes = parse_count(args.nodes, "--nodes", maximum=1_000_000) if args.nodes else 0
        ini = Path(args.ini).expanduser() if args.ini else None
        run_ids: list[str] = []
        self._cmd.last_result = run_ids
        for path in args.paths:
            for one in self.session.import_io500(Path(path).expanduser(), nodes=nodes, ini=ini):
                run_ids.append(one.run_id)
                done = "imported as" if one.is_new else "was imported already:"
                self._cmd.poutput(f"{one.place} {done} {one.run_id}")
