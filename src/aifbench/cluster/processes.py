"""Linux processes as /proc shows them: who is alive, who descends from whom, who carries a mark.

Standard library only and nothing else from this package: `local_job.py` runs it in an isolated interpreter.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")

_ROUND_S = 0.05
_GIVE_UP_S = 10.0


def boot_id() -> str:
    """A text that differs after every restart of the machine."""
    return (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _stat(pid: int) -> tuple[str, int, int] | None:
    """(state letter, parent, start time in clock ticks since boot), or None when there is no such process."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The command name is in parentheses and may itself hold blanks and parentheses.
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[1]), int(fields[19])


def start_ticks(pid: int) -> int | None:
    """When `pid` started, which with the pid names a process for good; None when it is gone or a zombie."""
    stat = _stat(pid)
    return None if stat is None or stat[0] in "ZX" else stat[2]


def _living() -> dict[int, int]:
    """Every living process: pid to parent pid. Zombies are left out: they do nothing and hold nothing."""
    pids = (int(entry.name) for entry in os.scandir(PROC) if entry.name.isdigit())
    stats = ((pid, _stat(pid)) for pid in pids)
    return {pid: stat[1] for pid, stat in stats if stat is not None and stat[0] not in "ZX"}


def descendants(roots: Iterable[int]) -> set[int]:
    """All living processes below `roots`, without the roots themselves."""
    parents = _living()
    found = set(roots)
    below: set[int] = set()
    while new := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= new
        below |= new
    return below


def carriers(mark: bytes) -> set[int]:
    """Living processes whose start-up environment holds `mark` (`NAME=value`), and all below them."""
    roots = {pid for pid in _living() if pid != os.getpid() and mark in _environment(pid)}
    return roots | (descendants(roots) - {os.getpid()})


def _environment(pid: int) -> list[bytes]:
    try:
        return (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


def end_all(find: Callable[[], set[int]], grace_s: float) -> set[int]:
    """SIGTERM to what `find` finds, SIGKILL to what is left after `grace_s`.

    Returns what survived even that (a process stuck in the kernel, or another user's): normally nothing.
    """
    kill_at_s = time.monotonic() + grace_s
    asked: set[int] = set()
    while (pids := find()) and time.monotonic() < kill_at_s + _GIVE_UP_S:
        if time.monotonic() < kill_at_s:
            send(pids - asked, signal.SIGTERM)
            asked |= pids
        else:
            send(pids, signal.SIGKILL)
        time.sleep(_ROUND_S)
    return pids


def send(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
