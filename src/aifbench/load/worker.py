"""A load worker process: `python -m aifbench.load.worker ROOT [INDEX]`.

Waits in ROOT for phases (see rendezvous), takes part in those that have a place for it, and ends when told
to, when its coordinator disappears, or on SIGTERM. INDEX defaults to SLURM_PROCID.
"""

import contextlib
import ctypes
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aifbench.errors import BenchError, WorkloadError
from aifbench.load import rendezvous as rv
from aifbench.load.assignment import StopFlag
from aifbench.load.clocksync import Offset, TimeServer, boot_id, measure_offset
from aifbench.load.engine import Engine
from aifbench.load.plan import PhasePlan, StreamPlan, WorkerReport

_POLL_S = 0.02
_PR_SET_TIMERSLACK = 29

# The coordinator touches `alive` about once a second; a shared file system may show that late.
COORDINATOR_LOST_S = 30.0


class _Abandoned(Exception):
    """Nobody is left to work for, or to prepare for."""


class Worker:
    """One process of the fleet, number `index` over all streams of a phase."""

    def __init__(self, root: Path, index: int) -> None:
        self._root = root
        self._index = index
        self._stop = StopFlag()
        self._ended = False
        self._is_preparing = False
        self._alive_mtime_ns = 0
        self._alive_seen_s = time.monotonic()
        self._parent = os.getppid()
        self._time_server: TimeServer | None = None

    def terminate(self, *_: object) -> None:
        """End the phase under way at once, and take part in no more."""
        self._ended = True
        self._stop.is_set = True
        if self._is_preparing:  # may take long, and leaves nothing worth keeping
            raise _Abandoned

    def run(self) -> None:
        number = 0
        while not self._ended:
            directory = rv.phase_dir(self._root, number)
            plan = self._await(directory / rv.PLAN, end=self._root / rv.END)
            if plan is None:
                break
            placed = place(PhasePlan.from_json(plan), self._index)
            if placed is not None:
                self._take_part(PhasePlan.from_json(plan), *placed, directory)
            number += 1

    def _take_part(self, plan: PhasePlan, stream: StreamPlan, worker: int, directory: Path) -> None:
        try:
            report = self._run_phase(plan, stream, worker, directory)
        except (BenchError, OSError, MemoryError) as error:
            report = _failed_report(stream, worker, str(error) or type(error).__name__)
        # A job that is cancelled or reaches its time limit ends so: what is reported is not all of it.
        report = replace(report, terminated=self._ended)
        rv.write_json(directory / rv.report_file(self._index), report.to_json())

    def _run_phase(self, plan: PhasePlan, stream: StreamPlan, worker: int, directory: Path) -> WorkerReport:
        engine = Engine(plan, stream, worker, directory)
        try:
            self._prepare(engine)
            rv.write_json(directory / rv.ready_file(self._index), self._introduce())
            start = self._await(directory / rv.START, end=self._root / rv.STOP)
            if start is None:
                raise WorkloadError("stopped before the start")
            offset = self._offset_to(start)
            start_ns = to_monotonic_ns(float(start["start_wall_s"]) + offset.offset_s)
            self._stop.is_set = self._ended
            return engine.run(start_ns, self._stop, offset=offset, on_tick=self._tick)
        finally:
            engine.close()

    def _prepare(self, engine: Engine) -> None:
        self._is_preparing = True
        try:
            engine.prepare()
        finally:
            self._is_preparing = False

    def _introduce(self) -> dict[str, Any]:
        if self._index == 0 and self._time_server is None and "SLURM_PROCID" in os.environ:
            self._time_server = TimeServer()
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "boot_id": boot_id(),
            "time_port": self._time_server.port if self._time_server else 0,
        }

    def _offset_to(self, start: Mapping[str, Any]) -> Offset:
        """The offset to worker 0's clock, which every start time is told in."""
        if start["boot_id"] == boot_id() or not start["time_port"]:
            return Offset()
        return measure_offset(str(start["host"]), int(start["time_port"]))

    def _await(self, path: Path, *, end: Path) -> dict[str, Any] | None:
        """The JSON that appears at `path`; None when `end` appears first, or on SIGTERM."""
        while not self._ended:
            data = rv.read_json(path)
            if data is not None:
                return data
            if end.exists():
                return None
            self._check_coordinator()
            time.sleep(_POLL_S)
        return None

    def _tick(self) -> None:
        """Called four times a second from the recorder's thread while the load runs."""
        if (self._root / rv.STOP).exists():
            self._stop.is_set = True
        try:
            self._check_coordinator()
        except _Abandoned:
            self.terminate()

    def _check_coordinator(self) -> None:
        if os.getppid() != self._parent:
            raise _Abandoned
        now_s = time.monotonic()
        try:
            mtime_ns = (self._root / rv.ALIVE).stat().st_mtime_ns
        except OSError:
            mtime_ns = self._alive_mtime_ns
        if mtime_ns != self._alive_mtime_ns:
            self._alive_mtime_ns, self._alive_seen_s = mtime_ns, now_s
        elif now_s - self._alive_seen_s > COORDINATOR_LOST_S:
            raise _Abandoned


def place(plan: PhasePlan, index: int) -> tuple[StreamPlan, int] | None:
    """The stream that worker `index` belongs to and its number there; None when the phase needs fewer."""
    for stream in plan.streams:
        if index < stream.workers:
            return stream, index
        index -= stream.workers
    return None


def to_monotonic_ns(wall_s: float) -> int:
    """The `perf_counter_ns` value at a wall-clock instant, by this machine's clocks as they are now."""
    return time.perf_counter_ns() + round((wall_s - time.time()) * 1e9)


def _failed_report(stream: StreamPlan, worker: int, failure: str) -> WorkerReport:
    return WorkerReport(
        stream=stream.name,
        worker=worker,
        host=socket.gethostname(),
        pid=os.getpid(),
        operations=0,
        cpu_s=0.0,
        wall_s=0.0,
        failure=failure,
    )


def _wake_on_time() -> None:
    """Ask Linux not to bundle this process's wake-ups, which by default makes each up to 50 µs late."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)


def main(argv: list[str]) -> int:
    root = Path(argv[0])
    index = int(argv[1]) if len(argv) > 1 else int(os.environ.get("SLURM_PROCID", "0"))
    worker = Worker(root, index)
    _wake_on_time()
    os.environ["NO_PROXY"] = "*"  # a site's web proxy is for the outside, not for compute nodes
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))  # a connection each
    signal.signal(signal.SIGTERM, worker.terminate)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the coordinator's to handle
    try:
        worker.run()
    except _Abandoned:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
