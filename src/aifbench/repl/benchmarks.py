"""Commands that measure."""

from argparse import Namespace

from cmd2 import Completions, Statement, with_argparser

from aifbench.errors import UnknownService, UsageError
from aifbench.options import nearest
from aifbench.repl import completion, wording
from aifbench.repl.exit_codes import INVALID_RUN
from aifbench.repl.parsers import Parser, add_options, given, parse, wants_help
from aifbench.repl.topic import Topic, on_interrupt
from aifbench.results.record import RunRecord, Verdict
from aifbench.servers.options import CALIBRATE_OPTIONS


def _quickstart_parser() -> Parser:
    return Parser(
        "The whole path in three minutes: deploy a service, measure it, stop it, keep and show the results.",
        "quickstart",
    )


def _calibrate_parser() -> Parser:
    parser = Parser(
        "Load a built-in server of exactly known timing, on this machine, and tell what the load client adds "
        "to the times it reports. No service is needed.",
        "calibrate --clients 256 --itl 5ms",
    )
    add_options(parser, CALIBRATE_OPTIONS)
    return parser


class Benchmarks(Topic):
    DEFAULT_CATEGORY = "Benchmarks"

    def do_bench(self, statement: Statement) -> None:
        """Load a service and measure it."""
        words = statement.argv[1:]
        if wants_help(words):
            self._help_parser(words).print_help(self._cmd.stdout)
            return
        name, kind, rest = self._aim(words)
        arguments = parse(self._cmd, self._parser(kind, name), rest)
        bench = arguments.workload or self._benches(kind)[0]
        values = given(arguments, self.session.bench_options(kind))
        advice = f"{name} goes on; `stop {name}` ends it"
        with on_interrupt(advice), self.progress() as progress:
            record = self.session.bench(name, bench, values, progress)
        self._cmd.poutput(self.session.run_text(record.run_id))
        if record.verdict is not Verdict.INVALID:
            self._cmd.poutput("  next: report last, or save last")
        self._conclude(record)

    def complete_bench(self, text: str, line: str, begidx: int, endidx: int) -> Completions:
        words = self._cmd.tokens_for_completion(line, begidx, endidx)[0][1:]
        first = words[0] if len(words) > 1 else ""
        kind, alone = self._kind_of(first), self._alone()
        if kind and self.session.bench_names(kind):
            parser, words = self._parser(kind, first), words[1:]
        elif alone and first in self.session.bench_names(self._kind_of(alone)):
            parser = self._parser(self._kind_of(alone), alone)
        else:
            parser = self._first_word_parser()
        return self._cmd.complete_with(parser, text, line, begidx, endidx, words)

    @with_argparser(_calibrate_parser)
    def do_calibrate(self, args: Namespace) -> None:
        """Tell how exact this machine's load client is, against a server of known timing."""
        values = given(args, CALIBRATE_OPTIONS)
        with on_interrupt("nothing is left behind"), self.progress() as progress:
            found = self.session.calibrate(values, progress)
        self._cmd.last_result = found
        self._cmd.poutput(wording.calibration_text(found))
        if not found.is_exact:
            self._cmd.fail(found.verdict)

    @with_argparser(_quickstart_parser)
    def do_quickstart(self, _args: Namespace) -> None:
        """Deploy, measure, stop and save, all in one."""
        advice = "`status` lists what is still running"
        with on_interrupt(advice), self.progress() as progress:
            record, archive = self.session.quickstart(progress)
        self._cmd.poutput(self.session.run_text(record.run_id))
        self._cmd.poutput(f"see {self.session.run_directory(record.run_id) / 'report.html'}")
        self._cmd.poutput(f"saved {archive}")
        self._conclude(record)

    def _aim(self, words: list[str]) -> tuple[str, str, list[str]]:
        """Service, its kind, and the words left. A first word that names no service is a workload."""
        first = words[0] if words and not words[0].startswith("-") else ""
        if kind := self._kind_of(first):
            return first, kind, words[1:]
        workloads = [bench for kind in self.session.kinds() for bench in self.session.bench_names(kind)]
        if first and first not in workloads:
            raise UnknownService(
                f"no service or benchmark is called {first!r}"
                + nearest(first, [*self.session.instances(), *workloads]),
                hint="`status` lists services, `help bench` benchmarks",
            )
        name = self._only_benched()
        return name, self.session.kind_of(name), words

    def _kind_of(self, word: str) -> str:
        """The kind of the service called `word`, or that is `word`; empty when it is neither."""
        try:
            return self.session.kind_of(word)
        except UnknownService:
            return word if word in self.session.kinds() else ""

    def _benches(self, kind: str) -> tuple[str, ...]:
        """Raises UsageError for a kind that is there to be looked at."""
        benches = self.session.bench_names(kind)
        if not benches:
            about = f"{kind} is {self.session.describe(kind)}"
            raise UsageError(f"{kind} has no benchmark", hint=f"{about}; bench another service meanwhile")
        return benches

    def _only_benched(self) -> str:
        """The only running service, not counting those without a benchmark."""
        return self._alone() or self.only_service()

    def _alone(self) -> str:
        """The one running service that has a benchmark; empty when there is none, or another."""
        names = [name for name in self.session.instances() if self.session.bench_names(self._kind_of(name))]
        return names[0] if len(names) == 1 else ""

    def _parser(self, kind: str, name: str) -> Parser:
        benches = self._benches(kind)
        parser = Parser(
            f"Load {name} and measure it. Rates, times and counts take units: 50/s, 2k, 90s, 1.5h.",
            f"bench {name} --rate 50 --duration 30s",
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
        kinds = [kind for kind in self.session.kinds() if self.session.bench_names(kind)]
        parser = Parser(
            "Load a service and measure it. The only running service need not be named. "
            "Each service has its own options: `help bench SERVICE`.",
            f"bench {kinds[0]}",
            "bench",
            listed_as="Workloads",
            listed=[(kind, ", ".join(self.session.bench_names(kind))) for kind in kinds],
        )
        parser.add_argument(
            "name", nargs="?", metavar="SERVICE", help="service", choices_provider=completion.targets
        )
        parser.add_argument(
            "workload", nargs="?", metavar="WORKLOAD", help="what to measure (default: the first)"
        )
        if alone := self._alone():
            add_options(parser, self.session.bench_options(self._kind_of(alone)))
        return parser

    def _help_parser(self, words: list[str]) -> Parser:
        kind = self._kind_of(words[0])
        return self._parser(kind, words[0]) if kind else self._first_word_parser()

    def _conclude(self, record: RunRecord) -> None:
        self._cmd.last_result = record
        if record.verdict is Verdict.INVALID:
            self._cmd.fail(
                f"run {record.run_id} is INVALID; `show {record.run_id} --full` tells why", INVALID_RUN
            )
