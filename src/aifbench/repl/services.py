"""Commands that deploy services and look after them."""

import re
import time
from argparse import Namespace
from typing import TYPE_CHECKING

from cmd2 import Choices, Completions, Statement, with_argparser

from aifbench.errors import UsageError
from aifbench.options import nearest
from aifbench.repl import completion, wording
from aifbench.repl.asking import ask
from aifbench.repl.parsers import Parser, add_options, given, parse, wants_help
from aifbench.repl.topic import Topic, on_interrupt
from aifbench.servers.log import Wanted
from aifbench.servers.status import Stage
from aifbench.units import parse_count, parse_duration_s

if TYPE_CHECKING:
    from aifbench.repl.shell import Shell

DEFAULT_WAIT = "10m"
# Of cluster.log_lines, which is not imported for the prompt.
_LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")


def _check_parser() -> Parser:
    parser = Parser(
        "Tell whether a service answers. With --wait, watch it until it does, or until its job ends.",
        "check chroma --wait 2m",
    )
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="service", choices_provider=completion.instances
    )
    parser.add_argument(
        "--wait",
        nargs="?",
        const=DEFAULT_WAIT,
        metavar="TIME",
        help=f"wait so long for it to be ready, such as 90s ({DEFAULT_WAIT} when no time is given)",
    )
    return parser


def _status_parser() -> Parser:
    return Parser("List all services with state, job, nodes, time left and address.", "status")


def _logs_parser() -> Parser:
    parser = Parser(
        "Show the last lines of a service's logs. Of several nodes, each line is told where it is from.",
        "logs vllm --level warn --since 10m",
    )
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="service", choices_provider=completion.instances
    )
    parser.add_argument("-n", "--lines", default="50", metavar="N", help="how many lines (default 50)")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on with new lines until the service ends or Ctrl-C"
    )
    parser.add_argument(
        "--level",
        metavar="LEVEL",
        help=f"only lines at least so grave: {', '.join(_LOG_LEVELS)}",
        choices=_LOG_LEVELS,
    )
    parser.add_argument("--since", metavar="TIME", help="only lines of the last so long, such as 10m")
    parser.add_argument("--grep", metavar="RE", help="only lines with this regular expression in them")
    return parser


def _wanted_lines(args: Namespace) -> Wanted:
    """Raises UsageError for a time or an expression that is none."""
    from aifbench.cluster.log_lines import Level

    try:
        pattern = re.compile(args.grep) if args.grep else None
    except re.error as error:
        raise UsageError(
            f"--grep {args.grep!r} is no regular expression: {error}", hint="put \\ before ( [ { * + ? ."
        ) from None
    since_s = time.time() - parse_duration_s(args.since, "--since") if args.since else None
    return Wanted(Level[args.level.upper()] if args.level else None, since_s, pattern)


def _stop_parser() -> Parser:
    parser = Parser(
        "End services: their jobs, and all they started; attached ones are only forgotten. Results stay.",
        "stop chroma",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="services, or `all`",
        choices_provider=completion.instances_or_all,
    )
    return parser


def _attachable_kinds(shell: "Shell") -> Choices:
    return Choices.from_values(shell.session.attachable_kinds(), is_sorted=True)


class Services(Topic):
    DEFAULT_CATEGORY = "Services"

    def do_start(self, statement: Statement) -> None:
        """Deploy a service as a job."""
        words = statement.argv[1:]
        if not words or words[0].startswith("-"):
            if not wants_help(words):
                raise UsageError("start: no service given", hint=f"valid: {', '.join(self.session.kinds())}")
            self._any_start_parser().print_help(self._cmd.stdout)
            return
        kind = words[0]
        if kind not in (kinds := self.session.kinds()):
            raise UsageError(
                f"start: unknown service {kind!r}" + nearest(kind, kinds), hint=f"valid: {', '.join(kinds)}"
            )
        arguments = parse(self._cmd, self._start_parser(kind), words[1:])
        options = self.session.start_options(kind)
        values = given(arguments, options)
        if not words[1:] and self._cmd.is_interactive and not self._cmd.in_script():
            values = ask(self._cmd, [option for option in options if option.asked])
        if arguments.dry_run:
            self._cmd.poutput(self.session.dry_run(kind, values))
            return
        with on_interrupt("the job may have been submitted; `status` lists what runs"):
            status = self.session.start(kind, values)
        self._cmd.has_shown([status])
        self._cmd.last_result = status
        self._cmd.poutput(wording.with_advice(f"submitted {wording.status_line(status)}", status))
        self._cmd.poutput(f"  next: check {status.name} --wait")

    def complete_start(self, text: str, line: str, begidx: int, endidx: int) -> Completions:
        words = self._cmd.tokens_for_completion(line, begidx, endidx)[0][1:]
        if len(words) > 1 and words[0] in self.session.kinds():
            return self._cmd.complete_with(
                self._start_parser(words[0]), text, line, begidx, endidx, words[1:]
            )
        return self._cmd.complete_with(self._any_start_parser(), text, line, begidx, endidx, words)

    def _start_parser(self, kind: str) -> Parser:
        parser = Parser(
            f"Deploy {kind}: {self.session.describe(kind)}", f"start {kind} --time 2h", f"start {kind}"
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="show the job that would be submitted, and stop"
        )
        add_options(parser, self.session.start_options(kind))
        return parser

    def _any_start_parser(self) -> Parser:
        kinds = self.session.kinds()
        parser = Parser(
            "Deploy a service as a job. Each service has its own options: `help start SERVICE`.",
            f"start {kinds[0]} --name b",
            "start",
            listed_as="Services",
            listed=[(kind, self.session.describe(kind)) for kind in kinds],
        )
        parser.add_argument(
            "kind", metavar="SERVICE", help="what to deploy", choices_provider=completion.kinds
        )
        return parser

    def do_attach(self, statement: Statement) -> None:
        """Use a service that somebody else started."""
        words = statement.argv[1:]
        if not words or words[0].startswith("-"):
            if not wants_help(words):
                raise UsageError("attach: no kind of service given", hint="such as `attach vllm URL`")
            self._any_attach_parser().print_help(self._cmd.stdout)
            return
        kind = words[0]
        if kind not in (kinds := self.session.attachable_kinds()):
            raise UsageError(
                f"attach: {kind!r} cannot be attached" + nearest(kind, kinds),
                hint=f"valid: {', '.join(kinds) or 'none yet'}",
            )
        arguments = parse(self._cmd, self._attach_parser(kind), words[1:])
        values = given(arguments, self.session.attach_options(kind))
        status = self.session.attach(kind, arguments.url, values)
        self._cmd.has_shown([status])
        self._cmd.last_result = status
        self._cmd.poutput(wording.attached_text(status))
        self._cmd.poutput(f"  next: bench {status.name}")

    def complete_attach(self, text: str, line: str, begidx: int, endidx: int) -> Completions:
        words = self._cmd.tokens_for_completion(line, begidx, endidx)[0][1:]
        if len(words) > 1 and words[0] in self.session.attachable_kinds():
            parser, words = self._attach_parser(words[0]), words[1:]
        else:
            parser = self._any_attach_parser()
        return self._cmd.complete_with(parser, text, line, begidx, endidx, words)

    def _attach_parser(self, kind: str) -> Parser:
        options = self.session.attach_options(kind)
        key = next(option.name for option in options if option.name.endswith("key-file"))
        parser = Parser(
            f"Use a {kind} that somebody else started. It is benchmarked, and never stopped.",
            f"attach {kind} https://host/some/prefix --{key} ~/.keys/host",
            f"attach {kind}",
        )
        parser.add_argument("url", metavar="URL", help="its address, http or https")
        add_options(parser, options)
        return parser

    def _any_attach_parser(self) -> Parser:
        parser = Parser(
            "Use a service that somebody else started, by its address; see `help attach SERVICE`.",
            "attach vllm http://node7:8000 --name theirs",
            "attach",
        )
        listed = ", ".join(self.session.attachable_kinds()) or "none yet"
        parser.add_argument(
            "kind", metavar="SERVICE", help=f"kind: {listed}", choices_provider=_attachable_kinds
        )
        return parser

    @with_argparser(_check_parser)
    def do_check(self, args: Namespace) -> None:
        """Tell whether a service is ready, or wait until it is."""
        wait_s = parse_duration_s(args.wait, "--wait") if args.wait is not None else 0.0
        name = args.name or self.only_service()
        advice = f"{name} goes on by itself; look again with `check {name} --wait`"
        with on_interrupt(advice), self.live_line() as line:
            status = self.session.check(
                name,
                wait_s=wait_s,
                progress=lambda now: line.show(wording.status_line(now), (now.stage, now.detail)),
            )
        self._cmd.has_shown([status])
        self._cmd.last_result = status
        self._cmd.poutput(wording.ready_text(status))
        if status.stage is Stage.READY and self.session.bench_names(status.kind):
            self._cmd.poutput(f"  next: bench {name}")

    @with_argparser(_status_parser)
    def do_status(self, _args: Namespace) -> None:
        """List services with state, job and address."""
        statuses = self.session.status()
        self._cmd.has_shown(statuses)
        self._cmd.last_result = statuses
        if statuses:
            self._cmd.poutput(wording.status_table(statuses))
        else:
            self._cmd.poutput(f"no services; deploy one, such as `start {self.session.kinds()[0]}`")

    @with_argparser(_logs_parser)
    def do_logs(self, args: Namespace) -> None:
        """Show or follow the log of a service."""
        lines = parse_count(args.lines, "--lines", maximum=1_000_000)
        wanted = _wanted_lines(args)
        name = args.name or self.only_service()
        if not args.follow:
            nothing = "nothing in the log yet" if wanted.is_all else "no such line in the log"
            self._cmd.poutput("\n".join(self.session.logs(name, lines=lines, wanted=wanted)) or nothing)
            return
        with on_interrupt(f"{name} goes on"):
            for text in self.session.follow(name, wanted=wanted):
                self._cmd.poutput(text)

    @with_argparser(_stop_parser)
    def do_stop(self, args: Namespace) -> None:
        """End one service, several, or all."""
        names = args.names or [self.only_service()]
        with on_interrupt("what was asked to end will end; `status` tells"):
            statuses = self.session.stop(names)
        self._cmd.has_shown(statuses)
        self._cmd.last_result = statuses
        for status in statuses:
            self._cmd.poutput(wording.stopped_text(status))
        if not statuses:
            self._cmd.poutput("nothing was running")
