"""Who writes a run, and whether that process still lives: told by its start, never by its number alone."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HEARTBEAT_LIMIT_S = 60.0
_PROC = Path("/proc")


def current_owner(proc: Path = _PROC) -> dict[str, Any]:
    """This process, so that another one can tell later whether it still runs."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "start_ticks": _start_ticks(os.getpid(), proc),
        "boot_id": _boot_id(proc),
        "pid_namespace": _pid_namespace(proc),
    }


def is_owner_alive(owner: Mapping[str, Any], heartbeat_age_s: float | None, proc: Path = _PROC) -> bool:
    """Whether the process in `owner` still runs.

    On this machine the kernel knows. For another host or PID namespace the run's heartbeat decides:
    alive while it is younger than HEARTBEAT_LIMIT_S. An empty owner is nobody.
    """
    if not owner:
        return False
    here = current_owner(proc)
    same_view = all(owner.get(key) == here[key] for key in ("host", "pid_namespace"))
    if not same_view or here["start_ticks"] is None:
        return heartbeat_age_s is not None and heartbeat_age_s <= HEARTBEAT_LIMIT_S
    if owner.get("boot_id") != here["boot_id"]:
        return False
    ticks = _start_ticks(owner.get("pid"), proc)
    return ticks is not None and ticks == owner.get("start_ticks")


def parse_start_ticks(stat: str) -> int | None:
    """Field 22 of /proc/PID/stat. The command in parentheses may itself hold spaces and parentheses."""
    fields = stat.rpartition(")")[2].split()
    state_dead = not fields or fields[0] in "ZX"
    return None if state_dead or len(fields) < 20 else int(fields[19])


def _start_ticks(pid: object, proc: Path) -> int | None:
    try:
        return parse_start_ticks((proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError):
        return None


def _boot_id(proc: Path) -> str:
    try:
        return (proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _pid_namespace(proc: Path) -> str:
    try:
        return str((proc / "self/ns/pid").readlink())
    except OSError:
        return ""
