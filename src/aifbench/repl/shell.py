"""The shell itself: errors and exit status, help, toolbar and leaving. Commands live in the topics."""

import errno
import os
import signal
import traceback
from argparse import Namespace
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

import cmd2
from cmd2 import Cmd2ArgparseError, Completions, Statement, with_argparser
from cmd2.exceptions import RedirectionError

from aifbench import __version__
from aifbench.errors import BenchError, SchedulerError, UsageError, ended_by
from aifbench.options import nearest
from aifbench.repl import completion, wording
from aifbench.repl.benchmarks import Benchmarks
from aifbench.repl.comparing import Comparing
from aifbench.repl.curating import Curating
from aifbench.repl.exit_codes import FAILURE, INTERRUPTED, SUCCESS, USAGE
from aifbench.repl.hangup import leave_terminal
from aifbench.repl.importing import Importing
from aifbench.repl.monitoring import Monitoring
from aifbench.repl.parsers import Parser
from aifbench.repl.poller import Poller
from aifbench.repl.reports import Reports
from aifbench.repl.results import Results
from aifbench.repl.running import Running
from aifbench.repl.services import Services
from aifbench.repl.studies import Studies
from aifbench.repl.system import System
from aifbench.repl.topic import Interrupted, on_interrupt

if TYPE_CHECKING:
    from aifbench.servers.status import ServiceStatus
    from aifbench.session import Session

TOPICS = (
    Services, Benchmarks, Monitoring, Results, Reports, Comparing, Curating, Importing,
    Studies, Running, System,
)  # fmt: skip

# They work, and are documented by cmd2, but are no part of what a newcomer has to read.
_HIDDEN = ("alias", "edit", "exit", "macro", "run_pyscript", "shell", "shortcuts")
_SETTABLES = ("allow_style", "echo", "errexit", "timing")
_KEEP = ("", "k", "keep")
_EOF = "_eof"  # what cmd2 calls the end of input
_INTRO = f"aifbench {__version__} · `help` lists the commands · `quickstart` goes the whole way once"


def commands_of(topic: type) -> list[str]:
    """The commands of a topic, in the order of definition."""
    return [name.removeprefix("do_") for name in vars(topic) if name.startswith("do_")]


def command_names() -> list[str]:
    """Every command that the program's arguments may begin with."""
    builtin = ("help", "history", "quit", "exit", "run_script", "set")
    return [*builtin, *(name for topic in TOPICS for name in commands_of(topic))]


def _help_parser() -> Parser:
    parser = Parser("List the commands, or explain one.", "help start chroma")
    parser.add_argument(
        "command", nargs="?", metavar="COMMAND", help="command", completer=cmd2.Cmd.complete_help_command
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="SERVICE",
        help="for the options of one service",
        choices_provider=completion.kinds,
    )
    return parser


def _quit_parser() -> Parser:
    return Parser("Leave. Services go on running unless you choose to stop them.", "quit")


class Shell(cmd2.Cmd):
    """One cmd2 application over one Session.

    Interactive on a terminal; otherwise a batch, which ends at the first command that fails, whose
    exit status is that command's, and which tells at its end which services it leaves running.
    """

    DEFAULT_CATEGORY = "Shell"

    def __init__(
        self,
        session: "Session",
        *,
        stdin: TextIO | None = None,
        stdout: TextIO | None = None,
        is_interactive: bool = False,
        tells_left_running: bool = True,
        history_file: Path | None = None,
    ) -> None:
        self.session = session
        self.is_interactive = is_interactive
        self._tells_left_running = tells_left_running and not is_interactive
        self.errexit = True
        self.outcome = SUCCESS  # of the last command
        self._script_failed = False
        self._signal = 0  # that told the program to end
        self._survives_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup
        super().__init__(
            stdin=stdin,
            stdout=stdout,
            allow_cli_args=False,
            allow_clipboard=False,
            command_sets=[topic() for topic in TOPICS],
            enable_bottom_toolbar=is_interactive,
            intro=_INTRO if is_interactive else "",
            persistent_history_file=str(history_file or ""),
            refresh_interval=1.0 if is_interactive else 0.0,
            shortcuts={"?": "help", "@": "run_script", "!": "shell"},
            terminators=(),
        )
        self.prompt = "bench> "
        self.hidden_commands += _HIDDEN
        self.add_settable(
            cmd2.Settable("errexit", bool, "A command that fails ends the script it is in", self)
        )
        for name in [*self.settables]:
            if name not in _SETTABLES:
                self.remove_settable(name)
        if os.environ.get("NO_COLOR"):
            self.allow_style = cmd2.rich_utils.AllowStyle.NEVER
        self._poller = Poller(session, self._alert, is_idle=lambda: self.current_command is None)

    # Errors and exit status: cmd2 itself neither stops at a failure nor reports one.

    def onecmd_plus_hooks(self, line: str, **options: Any) -> bool:
        self.outcome = USAGE if _has_command(line) else SUCCESS  # bad quotes or redirection get no further
        stop = super().onecmd_plus_hooks(line, **options)
        with self.sigint_protection:
            return self._conclude(stop)

    def onecmd(self, statement: Statement | str, *, add_to_history: bool = True) -> bool:
        self.outcome = SUCCESS
        self.last_result = None
        line = str(getattr(statement, "raw", statement))
        if line != _EOF:
            self.session.events.write("info", "command", line=line)
        try:
            stop = super().onecmd(statement, add_to_history=add_to_history)
        except BenchError as error:
            self.fail(str(error), error.exit_code)
            return False
        except Cmd2ArgparseError as error:
            asked_for_help = isinstance(error.__cause__, SystemExit) and not error.__cause__.code
            self.outcome = SUCCESS if asked_for_help else USAGE
            raise
        except KeyboardInterrupt as interrupt:
            with self.sigint_protection:
                advice = str(interrupt) if isinstance(interrupt, Interrupted) else "`status` lists what runs"
                self.fail(advice, INTERRUPTED, "interrupted")
            return False
        if self.last_result is False and self.outcome == SUCCESS:  # how cmd2's own commands report failure
            self.outcome = FAILURE
        return stop

    def termination_signal_handler(self, signum: int, frame: FrameType | None) -> None:
        """SIGTERM and SIGHUP end a command as Ctrl-C does, so that it cleans up, and then the program.

        More of them change nothing: a terminal that closes may send both. Ctrl-C still does.
        """
        if self._signal or (signum == signal.SIGHUP and self._survives_hangup):
            return
        self._signal = signum
        if signum == signal.SIGHUP:
            leave_terminal()
        if self.current_command is None or self.sigint_protection:
            super().termination_signal_handler(signum, frame)
        raise KeyboardInterrupt(ended_by(signum))

    def fail(self, text: str, outcome: int = FAILURE, word: str = "error") -> None:
        """Report a failure in one line, and make it the outcome of the command."""
        self.session.events.write("error", "error", text=text, outcome=outcome)
        self.perror(f"{word}: {text}")
        self.outcome = outcome

    def _conclude(self, stop: bool) -> bool:
        """Whether to leave the script, or the batch, after the command that has just ended."""
        if self._signal:
            self.exit_code = 128 + self._signal
            return True
        if self.outcome != SUCCESS:
            if not self.is_interactive:
                self.exit_code = self.exit_code or self.outcome
            may_end = self.in_script() or not self.is_interactive
            if may_end and (self.errexit or self.outcome == INTERRUPTED):
                self._script_failed = True
                return True
        if self._script_failed and self.is_interactive and not self.in_script():
            self._script_failed = False
            return False
        return stop

    def default(self, statement: Statement) -> bool | None:
        close = nearest(statement.command, self.get_visible_commands())
        raise UsageError(f"unknown command {statement.command!r}{close}", hint="`help` lists the commands")

    def pexcept(self, exception: BaseException, **options: Any) -> None:
        if isinstance(exception, OSError) and exception.errno in (errno.ENOSPC, errno.EDQUOT):
            self.fail(f"cannot write the output: {exception.strerror}")
            return
        super().pexcept(exception, **options)
        self.outcome = FAILURE

    def _redirect_output(self, statement: Statement) -> cmd2.utils.RedirectionSavedState:
        """As cmd2 does it, and what failed is told with its reason."""
        try:
            return super()._redirect_output(statement)
        except RedirectionError as error:
            cause, text = error.__cause__, str(error)
            if isinstance(cause, OSError):
                text = f"cannot write {statement.redirect_to}: {cause.strerror}"
            elif not statement.redirect_to:
                text = f"{statement.redirector} needs a file or a command"
            raise RedirectionError(f"error: {text}") from cause

    def format_exception(self, exception: BaseException) -> str:
        """A plain traceback: whatever is no BenchError is a bug."""
        return (
            "".join(traceback.format_exception(exception)) + "This is a bug in aifbench; please report it.\n"
        )

    # Help and completion

    @with_argparser(_help_parser)
    def do_help(self, args: Namespace) -> None:
        """List the commands, or explain one."""
        if not args.command:
            self.poutput(self._overview())
            return
        command = self.get_command_func(args.command)
        if command is None:
            close = nearest(args.command, self.get_visible_commands())
            raise UsageError(
                f"no command is called {args.command!r}{close}", hint="`help` lists the commands"
            )
        command(self.statement_parser.parse(" ".join([args.command, *args.words, "--help"])))

    def _overview(self) -> str:
        by_category: dict[str, list[str]] = {}
        for topic in TOPICS:
            by_category.setdefault(topic.DEFAULT_CATEGORY, []).extend(commands_of(topic))
        listed = {name for names in by_category.values() for name in names}
        by_category[self.DEFAULT_CATEGORY] += [
            c for c in sorted(self.get_visible_commands()) if c not in listed
        ]
        lines = []
        for category, names in by_category.items():
            lines += [category, *(f"  {name:11} {self._purpose(name)}" for name in names), ""]
        return "\n".join(
            [*lines, "`help COMMAND` explains one; TAB completes; output can be redirected: > FILE, | less"]
        )

    def _purpose(self, command: str) -> str:
        doc = getattr(self.get_command_func(command), "__doc__", None) or ""
        return doc.strip().partition("\n")[0]

    def complete_with(
        self, parser: Parser, text: str, line: str, begidx: int, endidx: int, words: Sequence[str]
    ) -> Completions:
        """Complete the last of `words`, which are those that `parser` would be given."""
        return parser.completer_class(parser, self).complete(text, line, begidx, endidx, words)

    # The terminal: toolbar and news

    def get_bottom_toolbar(self) -> str:
        return f" {wording.toolbar_text(self._poller.statuses, self._poller.trouble)}"

    def preloop(self) -> None:
        for sentence in self.session.left_behind():
            self.perror(sentence, style=None)
        if self.is_interactive:
            self._poller.start()

    def postloop(self) -> None:
        self._poller.stop()
        if self._tells_left_running:
            self._tell_left_running()

    def has_shown(self, statuses: Iterable["ServiceStatus"]) -> None:
        """The user has just read `statuses`, so the toolbar must agree and no alert repeat them."""
        self._poller.has_shown(statuses)

    def _alert(self, text: str) -> None:
        self.add_alert(msg=text)

    # Leaving

    @with_argparser(_quit_parser)
    def do_quit(self, _args: Namespace) -> bool:
        """Leave; services go on running unless you say otherwise."""
        alive = self._alive() if self.is_interactive else []
        if alive and self._wants_end(alive):
            self.session.stop([one.name for one in alive])
            self.poutput("detached" if all(one.is_attached for one in alive) else "stopped")
        return True

    do_exit = do_quit

    def do__eof(self, _: Statement | str) -> bool | None:
        """Ctrl-D, and the end of a batch."""
        if self.is_interactive:
            self.poutput()
        return self.do_quit("")

    def _wants_end(self, alive: "Sequence[_Alive]") -> bool:
        """Ask; keeping is the default, and what the end of input means."""
        for one in alive:
            self.poutput(f"  {one.line}")
        only_attached = all(one.is_attached for one in alive)
        end, state = ("detach", "attached") if only_attached else ("stop", "still running")
        question = f"{_count(alive)} {state}: [k]eep or [{end[0]}]{end[1:]}? "
        try:
            with on_interrupt("not leaving"):
                while (answer := self.read_input(question).strip().lower()) not in (*_KEEP, end, end[0]):
                    self.poutput(f"type keep or {end}")
        except EOFError:
            answer = ""
        if answer in _KEEP:
            self.poutput("kept; the next `aifbench` finds them again")
        return answer not in _KEEP

    def _tell_left_running(self) -> None:
        """What was only attached is not ours to run."""
        alive = [one for one in self._alive() if not one.is_attached]
        for one in alive:
            self.perror(f"left running: {one.line}", style=None)
        if alive:
            self.perror("  `aifbench status` finds them again, `aifbench stop all` ends them", style=None)

    def _alive(self) -> "list[_Alive]":
        """The services that live. Leaving must work without a scheduler too."""
        names = self.session.instances()
        try:
            statuses = self.session.status() if names else []
        except SchedulerError as error:
            return [_Alive(name, f"{name}  {error.message}") for name in names]
        return [
            _Alive(status.name, wording.status_line(status), wording.is_attached(status))
            for status in statuses
            if status.is_alive
        ]


@dataclass(frozen=True, slots=True)
class _Alive:
    """A living service, and a line about it."""

    name: str
    line: str
    is_attached: bool = False


def _has_command(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _count(services: Sized) -> str:
    return "1 service is" if len(services) == 1 else f"{len(services)} services are"
