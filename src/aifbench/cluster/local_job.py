"""The supervisor of one local job: a small process that outlives the shell which submitted it.

It starts the job's script in a session of its own, sleeps until the script ends, the time limit
passes or a SIGTERM (a cancel request) arrives, ends everything the job started, and writes what happened. It
adopts the job's orphans (PR_SET_CHILD_SUBREAPER), so that daemons cannot slip away. It
must start fast and sleep for hours at no cost: standard library only, and no polling while the job runs.

Files in the job's directory, each complete or absent:
    job.json      written by submit: what to run
    script        the batch script as submitted
    started.json  the supervisor's identity, written before the script starts
    cancel        exists once somebody asked for the job's end
    ended.json    the final state
"""

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aifbench.cluster import processes

MARK = "AIFBENCH_LOCAL_JOB"

_PR_SET_CHILD_SUBREAPER = 36
_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write `path` so that a reader sees it complete or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(data), encoding="utf-8")
    partial.replace(path)


def read_json(path: Path) -> dict[str, Any] | None:
    """The contents of `path`; None when it does not exist, or a power cut left it without its contents."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return data


def marked(job_dir: Path) -> set[int]:
    """The job's processes found without its supervisor, by their environment."""
    return processes.carriers(f"{MARK}={job_dir}".encode())


def run(job_dir: Path) -> None:
    """Supervise the job to its end. Returns in a detached child only; the caller's process exits at once."""
    job = read_json(job_dir / "job.json")
    assert job is not None
    log = os.open(job["log_path"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    if os.fork():
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    _adopt_orphans()
    write_json(job_dir / "started.json", _identity())
    script = _start_script(job_dir / "script", log)
    # Standard error was the submitter's pipe; closing it tells the submitter that the job runs.
    os.dup2(log, 2)
    os.chdir("/")
    started_s = time.monotonic()
    cause, status = _wait(job_dir, script, started_s + job["time_limit_s"])
    left = processes.end_all(lambda: processes.descendants({os.getpid()}), job["grace_s"])
    status = _reaped(script) if status is None else status
    elapsed_s = time.monotonic() - started_s
    write_json(job_dir / "ended.json", {**_outcome(cause, status, left), "elapsed_s": elapsed_s})


def end(job_dir: Path) -> None:
    """End a job whose supervisor is gone, and write that it was cancelled."""
    job = read_json(job_dir / "job.json")
    assert job is not None
    if os.fork():
        os._exit(0)
    left = processes.end_all(lambda: marked(job_dir), job["grace_s"])
    write_json(job_dir / "ended.json", _outcome("CANCELLED", None, left))


def _adopt_orphans() -> None:
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _identity() -> dict[str, Any]:
    pid = os.getpid()
    return {
        "pid": pid,
        "start_ticks": processes.start_ticks(pid),
        "boot_id": processes.boot_id(),
        "host": os.uname().nodename,
        "monotonic_s": time.monotonic(),
    }


def _start_script(script: Path, log: int) -> int:
    return os.posix_spawnp(
        "bash",
        ["bash", str(script)],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)],
        setsid=True,
        setsigmask=(),
        setsigdef=(*_SIGNALS, signal.SIGPIPE, signal.SIGXFSZ),
    )


def _wait(job_dir: Path, script: int, deadline_s: float) -> tuple[str, int | None]:
    """Sleep until something happens: (what it was, the script's wait status if it ended by itself)."""
    while True:
        if (job_dir / "cancel").exists():
            return "CANCELLED", None
        status = _reaped(script)
        if status is not None:
            return "", status
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            return "TIMEOUT", None
        happened = signal.sigtimedwait((signal.SIGCHLD, signal.SIGTERM), left_s)
        if happened is not None and happened.si_signo == signal.SIGTERM:
            return "CANCELLED", None


def _reaped(script: int) -> int | None:
    """Collect all ended children; the script's wait status when it is among them."""
    script_status = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return script_status
        if pid == 0:
            return script_status
        if pid == script:
            script_status = status


def _outcome(cause: str, status: int | None, left: set[int]) -> dict[str, Any]:
    code = None if status is None else os.waitstatus_to_exitcode(status)
    return {
        "state": cause or ("COMPLETED" if code == 0 else "FAILED"),
        "exit_code": code if code is not None and code >= 0 else None,
        "signal": -code if code is not None and code < 0 else None,
        "left_pids": sorted(left),
    }


def main() -> None:
    verb, job_dir = sys.argv[-2:]
    {"run": run, "end": end}[verb](Path(job_dir))
