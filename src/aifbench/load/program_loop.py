"""Load by an external program: one worker's part of a phase is one run of it, and its log is the operations.

For tools that are the reference in their field. They keep their own time; it is moved to the phase's clock.
"""

import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from aifbench.cluster.endpoint import Endpoint
from aifbench.load.assignment import FOREVER_NS, Assignment
from aifbench.load.recorder import ROW, Recorder
from aifbench.load.workload import NOT_SEEN, TokenTimes

Int64 = NDArray[np.int64]

_POLL_S = 0.05
_KILL_AFTER_S = 5.0
_MAX_OUTPUT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ProgramPart:
    """What one run of the program is to do. `rate_per_s` is None for a closed loop of `clients`.

    `directory` is its own. `duration_s` is None for fixed work of `operations` in all. `started_ns` is when
    it was started, by the wall clock; 0 before that.
    """

    directory: Path
    worker: int
    workers: int
    clients: int
    rate_per_s: float | None
    duration_s: float | None
    operations: int | None
    seed: int
    started_ns: int = 0


@dataclass(frozen=True, slots=True)
class ProgramCommand:
    """`environment` is added to the worker's own, and is where secrets go: never to `argv`."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """Columns of equal length, one row per operation; instants in nanoseconds of the wall clock.

    `failure` says why the run as a whole cannot be used; `errors` are texts with their counts.
    """

    intended_ns: Int64
    sent_ns: Int64
    finished_ns: Int64
    outcome: NDArray[np.uint16]
    items: NDArray[np.uint32] | None = None
    errors: Mapping[str, int] = field(default_factory=dict)
    failure: str = ""

    @classmethod
    def nothing(cls, failure: str) -> "ProgramResult":
        none = np.empty(0, np.int64)
        return cls(none, none, none, np.empty(0, np.uint16), failure=failure)


class ProgramWorkload(Protocol):
    """A program that makes the load itself."""

    is_program: ClassVar[bool]

    def open(self, endpoint: Endpoint) -> None:
        """Prepare everything that must not be timed. Raises WorkloadError."""

    def command(self, part: ProgramPart) -> ProgramCommand:
        """How it is run; called once, before the start."""

    def operations(self, part: ProgramPart, exit_code: int, output: str) -> ProgramResult:
        """What it did, from its log. `output` is the end of what it printed."""

    def close(self) -> None:
        """Give back what `open` took; called once, also after a failure."""


class ProgramLoop:
    """Runs the program once, from the start to its own end, to the stop or to the end of the drain time."""

    limited_by = ""
    overloaded = False
    loop_delay_max_ns = 0
    idle_ns = 0

    def __init__(
        self,
        workload: ProgramWorkload,
        recorder: Recorder,
        assignment: Assignment,
        part: ProgramPart,
        *,
        now_ns: Callable[[], int] = time.perf_counter_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._workload = workload
        self._recorder = recorder
        self._assignment = assignment
        self._part = part
        self._now_ns = now_ns
        self._sleep = sleep
        part.directory.mkdir(parents=True, exist_ok=True)
        self._command = workload.command(part)
        self.times: list[TokenTimes] = []
        self.failure = ""
        self.cpu_s = 0.0  # of the program

    def run(self) -> None:
        self._wait_for_start()
        before_s = _children_cpu_s()
        part = replace(self._part, started_ns=time.time_ns())
        output_path = part.directory / "output"
        with output_path.open("wb") as output:
            process = subprocess.Popen(
                self._command.argv,
                cwd=part.directory,
                env={**os.environ, **self._command.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = self._wait_for_end(process)
            finally:
                _end(process)
        self.cpu_s = _children_cpu_s() - before_s
        result = self._workload.operations(part, code, _tail(output_path))
        for text, count in result.errors.items():
            self._recorder.errors.add(text, count)
        self.failure = result.failure
        self._recorder.add(self._rows(result).tobytes())

    def _wait_for_start(self) -> None:
        part = self._assignment
        while (left_ns := part.start_ns - self._now_ns()) > 0 and not part.stop.is_set:
            self._sleep(min(left_ns / 1e9, _POLL_S))

    def _wait_for_end(self, process: "subprocess.Popen[bytes]") -> int:
        part = self._assignment
        last_ns = FOREVER_NS if part.end_ns == FOREVER_NS else part.end_ns + part.drain_ns
        while True:
            try:
                return process.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                if part.stop.is_set or self._now_ns() > last_ns:
                    _end(process)
                    return process.wait()

    def _rows(self, result: ProgramResult) -> NDArray[np.void]:
        """In the order of the log. Its wall clock is set against ours once: clocks rarely step in a phase."""
        rows = np.zeros(len(result.outcome), ROW)
        offset_ns = self._now_ns() - time.time_ns()
        for name in ("intended_ns", "sent_ns", "finished_ns"):
            column = getattr(result, name)
            rows[name] = np.where(column == NOT_SEEN, NOT_SEEN, column + offset_ns)
        part = self._assignment
        rows["index"] = part.first_index + np.arange(len(rows)) * part.stride
        rows["first_byte_ns"] = NOT_SEEN
        rows["outcome"] = result.outcome
        rows["items"] = 1 if result.items is None else result.items
        rows["qualities"] = np.nan
        return rows


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _MAX_OUTPUT_BYTES))
        return file.read().decode(errors="replace")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM to its whole group, SIGKILL when that does not help; nothing when it has ended."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(_KILL_AFTER_S)
        except subprocess.TimeoutExpired:
            continue
