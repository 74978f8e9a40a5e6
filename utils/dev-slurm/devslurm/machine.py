"""Running commands, keeping daemons by pid file, waiting, and telling what is being done."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from devslurm.cluster import ROOT, DevSlurmError


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print `name` and, when the block is done, how long it took."""
    started_s = time.monotonic()
    yield
    say(f"{name:<58} {time.monotonic() - started_s:5.1f} s")


def run(*argv: str, stdin: str | None = None, timeout_s: float = 60) -> str:
    """What the command printed. Raises DevSlurmError with its own words when it fails."""
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except FileNotFoundError:
        raise DevSlurmError(f"{argv[0]}: no such command here") from None
    except subprocess.TimeoutExpired:
        raise DevSlurmError(f"{' '.join(argv)}: no answer in {timeout_s:g} s") from None
    if done.returncode:
        raise DevSlurmError(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def succeeds(*argv: str) -> bool:
    try:
        run(*argv)
    except DevSlurmError:
        return False
    return True


def wait_for(what: str, condition: Callable[[], bool], timeout_s: float = 15) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise DevSlurmError(f"{what}: not after {timeout_s:g} s; logs are in {ROOT / 'log'}")
        time.sleep(0.03)


def process_state(pid: int) -> str:
    """The state letter of /proc/PID/stat, or "" for a process that is gone or a zombie."""
    try:
        letter = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if letter in "ZX" else letter


def _pid_file(name: str) -> Path:
    return ROOT / "pid" / name


def keep_pid(name: str, pid: int) -> None:
    _pid_file(name).write_text(f"{pid}\n")


def pid_of(name: str) -> int | None:
    """The pid of a process of ours that runs, be it stopped (SIGSTOP)."""
    try:
        pid = int(_pid_file(name).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return pid if process_state(pid) else None


def kept_names() -> list[str]:
    """Names of everything ever started, alive or not."""
    return sorted(path.name for path in (ROOT / "pid").glob("*"))


def start(name: str, *argv: str, environ: dict[str, str] | None = None, user: str | None = None) -> None:
    """Start a daemon (that stays in the foreground) in its own session; its output goes to log/NAME.out.

    `user` also names the group, as is usual for Debian's system users.
    """
    with (ROOT / "log" / f"{name}.out").open("ab") as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=os.environ | (environ or {}),
            user=user,
            group=user,
            extra_groups=[] if user else None,
            start_new_session=True,
        )
    keep_pid(name, process.pid)


def send(name: str, number: signal.Signals) -> None:
    pid = pid_of(name)
    if pid is None:
        raise DevSlurmError(f"{name} does not run")
    os.kill(pid, number)


def stop(name: str, number: signal.Signals = signal.SIGTERM) -> None:
    """End a process of ours and wait until it is gone; nothing happens when it does not run."""
    pid = pid_of(name)
    if pid is None:
        return
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        os.kill(pid, signal.SIGCONT)
    wait_for(f"{name} ends", lambda: not process_state(pid))
