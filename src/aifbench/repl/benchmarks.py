"""Commands that measure."""

from argparse import Namespace

from cmd2 import Completions, Statement, with_argparser

from aifbench.errors import UnknownService
from aifbench.options import nearest
from aifbench.repl import completion
from aifbench.repl.exit_codes import INVALID_RUN
from aifbench.repl.parsers import Parser, add_options, given, parse, wants_help
from aifbench.repl.topic import Topic, on_interrupt
from aifbench.results.record import RunRecord, Verdict


def _quickstart_parser() -> Parser:
    return Parser(
        "The whole path in three minutes: deploy a service, measure it, stop it, keep and show the results.",
        "quickstart",
    )


class Benchmarks(Topic):
    DEFAULT_CATEGORY = "Benchmarks"

    def do_bench(self, statement: Statement) -> None:
        """Load a service and measure it."""
        words = statement.argv[1:]
        if wants_help(words):
            parse(self._cmd, self._help_parser(words), ["--help"])
        name, kind, rest = self._aim(words)
        arguments = parse(self._cmd, self._parser(kind, name), rest)
        bench = arguments.workload or self.session.bench_names(kind)[0]
        values = given(arguments, self.session.bench_options(kind))
        advice = f"what was measured is kept (`show last`); {name} goes on, `stop {name}` ends it"
        with on_interrupt(advice), self.progress() as progress:
            record = self.session.bench(name, bench, values, progress)
        self._show(record)

    def complete_bench(self, text: str, line: str, begidx: int, endidx: int) -> Completions:
        words = self._cmd.tokens_for_completion(line, begidx, endidx)[0][1:]
        kinds = self._kinds()
        if len(words) > 1 and words[0] in kinds:
            parser, words = self._parser(kinds[words[0]], words[0]), words[1:]
        else:
            parser = self._first_word_parser()
        return self._cmd.complete_with(parser, text, line, begidx, endidx, words)

    @with_argparser(_quickstart_parser)
    def do_quickstart(self, _args: Namespace) -> None:
        """Deploy, measure, stop and save, all in one."""
        advice = "`status` lists what is still running, `stop all` ends it"
        with on_interrupt(advice), self.progress() as progress:
            record, archive = self.session.quickstart(progress)
        self._show(record)
        self._cmd.poutput(f"saved {archive}")

    def _aim(self, words: list[str]) -> tuple[str, str, list[str]]:
        """Service, its kind, and the words left. A first word that names no service is a workload."""
        kinds = {status.name: status.kind for status in self.session.status()}
        known = {kind: kind for kind in self.session.kinds()} | kinds
        first = words[0] if words and not words[0].startswith("-") else ""
        if first in known:
            return first, known[first], words[1:]
        if first and not any(first in self.session.bench_names(kind) for kind in known.values()):
            raise UnknownService(
                f"no service or benchmark is called {first!r}" + nearest(first, self._first_words(known)),
                hint="`status` lists services, `help bench` benchmarks",
            )
        name = self.only_service()
        return name, known[name], words

    def _kinds(self) -> dict[str, str]:
        """Kind by name of a service or kind, as far as known without asking the scheduler."""
        known = {status.name: status.kind for status in self.session.cached_status()}
        return {kind: kind for kind in self.session.kinds()} | known

    def _first_words(self, known: dict[str, str]) -> list[str]:
        return [*known, *(bench for kind in set(known.values()) for bench in self.session.bench_names(kind))]

    def _parser(self, kind: str, name: str) -> Parser:
        benches = self.session.bench_names(kind)
        parser = Parser(
            f"Load {name} and measure it. Rates, times and counts take units: 50/s, 2k, 90s, 1.5h.",
            f"bench {name} {benches[-1]} --duration 30s",
            f"bench {name}",
        )
        parser.add_argument(
            "workload",
            nargs="?",
            metavar="WORKLOAD",
            choices=benches,
            help=f"{', '.join(benches)} (default {benches[0]})",
        )
        add_options(parser, self.session.bench_options(kind))
        return parser

    def _first_word_parser(self) -> Parser:
        """For the word after `bench`: a service, or, when there is only one, its workloads and options."""
        kinds = self.session.kinds()
        listed = "; ".join(f"{kind}: {', '.join(self.session.bench_names(kind))}" for kind in kinds)
        parser = Parser(
            "Load a service and measure it. The only running service need not be named. "
            "Each service has its own options: `help bench SERVICE`.",
            f"bench {kinds[0]}",
            "bench",
        )
        parser.add_argument(
            "name", nargs="?", metavar="SERVICE", help="service", choices_provider=completion.targets
        )
        parser.add_argument("workload", nargs="?", metavar="WORKLOAD", help=listed)
        if len(self.session.instances()) == 1:
            kind = self._kinds().get(self.session.instances()[0], kinds[0])
            add_options(parser, self.session.bench_options(kind))
        return parser

    def _help_parser(self, words: list[str]) -> Parser:
        kinds = self._kinds()
        return self._parser(kinds[words[0]], words[0]) if words[0] in kinds else self._first_word_parser()

    def _show(self, record: RunRecord) -> None:
        self._cmd.last_result = record
        self._cmd.poutput(self.session.run_text(record.run_id))
        if record.verdict is Verdict.INVALID:
            self._cmd.fail(
                f"run {record.run_id} is INVALID; `show {record.run_id} --full` tells why", INVALID_RUN
            )
