"""The command line: which session, and commands from where. Light: cmd2 is imported only for a shell."""

import argparse
import gc
import io
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from aifbench import __version__
from aifbench.config import SCHEDULERS, Config, load_config
from aifbench.errors import BenchError, UsageError
from aifbench.repl.exit_codes import FAILURE, INTERRUPTED

if TYPE_CHECKING:
    from aifbench.repl.shell import Shell
    from aifbench.session import Session

SessionFactory = Callable[[Config], "Session"]

_DESCRIPTION = "Deploy the services of an AI factory, load them honestly, and explain what they sustain."
_EPILOG = """\
without a COMMAND on a terminal: an interactive shell, where `help` lists the commands
with COMMANDs, or commands on standard input: a batch, which ends at the first that fails

  aifbench quickstart
  aifbench "start chroma" "check chroma --wait 2m" "bench chroma" "stop chroma"
  aifbench results verdict=VALID --sort service

exit status: 0 done, 1 failed, 2 wrong usage or set-up, 3 a run is INVALID, 130 interrupted,
             143 ended by SIGTERM
"""


def main(
    argv: Sequence[str] | None = None,
    *,
    session_factory: SessionFactory | None = None,
    stdin: TextIO | None = None,
) -> int:
    """Run the program; its exit status. A single command may be given unquoted."""
    arguments = _parser().parse_args(argv)
    try:
        with _without_collecting():
            session = (session_factory or _real_session)(_config(arguments))
            shell = _shell(session, arguments.command, stdin or sys.stdin)
        return shell.cmdloop()
    except BenchError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except OSError as error:  # such as standard output on a full disk
        sys.stderr.write(f"error: {error}\n")
        return FAILURE
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aifbench",
        usage="aifbench [-h] [--version] [--scheduler KIND] [--results DIR] [COMMAND ...]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"aifbench {__version__}")
    parser.add_argument(
        "--scheduler", choices=SCHEDULERS, help="how to run jobs (default: auto, what this machine has)"
    )
    parser.add_argument("--results", metavar="DIR", help="where runs and services are kept")
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="COMMAND", help="commands, each one argument"
    )
    return parser


def _config(arguments: argparse.Namespace) -> Config:
    chosen = {"AIFBENCH_SCHEDULER": arguments.scheduler, "AIFBENCH_RESULTS": arguments.results}
    return load_config({**os.environ, **{name: value for name, value in chosen.items() if value}})


def _real_session(config: Config) -> "Session":
    from aifbench.session import Session

    return Session(config)


@contextmanager
def _without_collecting() -> Iterator[None]:
    """What start-up makes stays; to look for garbage in it would take a twelfth of the time to the prompt."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _shell(session: "Session", words: Sequence[str], stdin: TextIO) -> "Shell":
    from aifbench.repl.shell import Shell, command_names

    lines = command_lines(words, command_names())
    is_interactive = not lines and stdin.isatty() and sys.stdout.isatty()
    return Shell(
        session,
        stdin=io.StringIO("\n".join(lines) + "\n") if lines else stdin,
        is_interactive=is_interactive,
        tells_left_running=len(lines) != 1,
        history_file=_history_file(os.environ) if is_interactive else None,
    )


def command_lines(words: Sequence[str], known: Sequence[str]) -> list[str]:
    """The commands in the program's arguments.

    Each argument is one command, unless only the first is: `results verdict=VALID` is one command
    in two arguments, `status quit` is two, and `help start` asks for help. Raises UsageError for an
    option between several commands.
    """
    if not words:
        return []
    is_command = [word.partition(" ")[0] in known for word in words]
    is_one = words[0] in known and (words[0] == "help" or not any(is_command[1:]))
    loose = next((word for word in words if word.startswith("-")), "")
    if words[0] in known and loose and not is_one:
        raise UsageError(
            f"{loose} stands between several commands",
            hint='quote each command with its options: aifbench status "results --limit 5"',
        )
    return [shlex.join(words)] if is_one else list(words)


def _history_file(environ: "os._Environ[str]") -> Path | None:
    """Where the typed commands are kept; None when that cannot be written, which is no error."""
    state_dir = Path(environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "aifbench"
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return state_dir / "history" if os.access(state_dir, os.W_OK) else None
