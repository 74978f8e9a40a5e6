"""The command line: one sub-command per thing that can happen to a cluster."""

import argparse
import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from devslurm import bad_days, life
from devslurm.cluster import SLURM_CONF, DevSlurmError
from devslurm.install import install

NEEDS_ROOT = (
    "dev-slurm needs root: it makes namespaces, a network bridge and system daemons. "
    "Use sudo on a throw-away machine, or a container: docker run -it --privileged debian:12"
)

PLAIN_COMMANDS: dict[str, tuple[Callable[[], None], str]] = {
    "install": (install, "install Debian's packages; no daemon starts"),
    "status": (life.status, "daemons and nodes; fails when no cluster is up"),
    "down": (life.down, "remove every trace of the cluster"),
    "heal": (bad_days.heal, "end every bad day below"),
    "hang": (bad_days.hang, "the controller stops answering"),
    "unhang": (bad_days.unhang, "the controller answers again"),
    "stop-controller": (bad_days.stop_controller, "the controller is gone"),
    "start-controller": (bad_days.start_controller, "the controller is back"),
    "no-accounting": (bad_days.no_accounting, "slurmdbd is gone: sacct fails"),
    "accounting": (bad_days.accounting, "slurmdbd is back"),
    "oom": (bad_days.oom, "submit a job that dies of memory; prints its id"),
    "remember": (bad_days.remember, "undo forget"),
    "strict": (bad_days.strict, "refuse jobs without --account or --time"),
    "lenient": (bad_days.lenient, "undo strict"),
}
NODE_COMMANDS: dict[str, tuple[Callable[[str], None], str]] = {
    "crash": (bad_days.crash, "power cut of a node; Slurm notices in 16 to 20 s"),
    "revive": (bad_days.revive, "boot a crashed node"),
    "drain": (bad_days.drain, "give a node no further jobs"),
    "undrain": (bad_days.undrain, "undo drain"),
}


Action = Callable[[argparse.Namespace], None]


def _without_arguments(function: Callable[[], None]) -> Action:
    return lambda _: function()


def _with_node(function: Callable[[str], None]) -> Action:
    return lambda args: function(args.node)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dev-slurm", description="A real Slurm cluster on one Debian machine."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, call: Action, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(call=call)
        return command

    _add_up(add("up", _up, "bring the cluster up"))
    for name, (plain, text) in PLAIN_COMMANDS.items():
        add(name, _without_arguments(plain), text)
    for name, (on_node, text) in NODE_COMMANDS.items():
        add(name, _with_node(on_node), text).add_argument("node")
    expire = add("expire", lambda args: bad_days.expire(args.job), "a job reaches its time limit within 35 s")
    expire.add_argument("job")
    forget = add("forget", lambda args: bad_days.forget(args.seconds), "forget finished jobs soon")
    forget.add_argument("seconds", type=int, nargs="?", default=2)
    _add_late_logs(add("late-logs", _late_logs, "a node's files reach the others late"))
    shell = add("shell", lambda args: life.run_on_node(args.node, args.command), "run a command on a node")
    shell.add_argument("node")
    shell.add_argument("command", nargs=argparse.REMAINDER)
    return parser


def _add_up(command: argparse.ArgumentParser) -> None:
    command.add_argument("--nodes", type=int, default=4, help="how many nodes (4); the last two have GPUs")
    command.add_argument("--no-accounting", action="store_true", help="without slurmdbd, accounts and QOS")
    command.add_argument("--private-tmp", action="store_true", help="a /tmp of its own for every node")


def _add_late_logs(command: argparse.ArgumentParser) -> None:
    command.add_argument("node")
    command.add_argument("seconds", help="how late, or off")
    command.add_argument("directory", nargs="?", help="the shared directory to be late in")


def _up(args: argparse.Namespace) -> None:
    life.up(node_count=args.nodes, accounting=not args.no_accounting, private_tmp=args.private_tmp)


def _late_logs(args: argparse.Namespace) -> None:
    bad_days.late_logs(args.node, args.seconds, args.directory)


def main(argv: Sequence[str]) -> int:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `dev-slurm status | head` ends without a traceback
    args = _parser().parse_args(argv)
    if os.geteuid() != 0:
        return _fail(NEEDS_ROOT)
    os.umask(0o022)  # Slurm's own users must be able to read what root writes
    os.environ["SLURM_CONF"] = str(SLURM_CONF)
    try:
        with _one_command_at_a_time():
            args.call(args)
    except DevSlurmError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted; if the cluster is half up now: dev-slurm up, or dev-slurm down")
    return 0


@contextmanager
def _one_command_at_a_time() -> Iterator[None]:
    """Hold a lock on this directory; a program that replaces us (`shell`) does not inherit it."""
    directory = os.open(Path(__file__).parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _fail(reason: str) -> int:
    sys.stderr.write(f"dev-slurm: {reason}\n")
    return 1
