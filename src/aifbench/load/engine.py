"""Engine: one worker's part of one phase: prepare, load and record, interpret, report."""

import gc
import importlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from aifbench.errors import WorkloadError
from aifbench.load.assignment import Assignment, StopFlag, assign
from aifbench.load.call_loop import CallLoop, outcome_of
from aifbench.load.clocksync import Offset
from aifbench.load.plan import PhasePlan, StreamPlan, WorkerReport
from aifbench.load.recorder import ErrorTally, Recorder, answers_path, count_rows, read_rows, rows_path
from aifbench.load.rendezvous import rows_name
from aifbench.load.wire_loop import WireLoop, open_sockets
from aifbench.load.workload import Outcome, OutcomeKind

# Beyond this many answers a worker interprets an evenly spread part; the rest count as unchecked.
MAX_INTERPRETED = 200_000

_OPEN_LOOP_CONNECTIONS = 16


class Engine:
    """Builds the stream's workload, and runs worker number `worker` (within the stream) of it once."""

    def __init__(self, plan: PhasePlan, stream: StreamPlan, worker: int, directory: Path) -> None:
        self._plan = plan
        self._stream = stream
        self._worker = worker
        self._directory = directory
        self._name = rows_name(stream.name, worker)
        self._workload: Any = load_workload(stream)
        self._part: Assignment
        self._sockets: list[socket.socket] = []

    def prepare(self) -> None:
        """Everything that must not be timed: data, schedule, connections. Raises WorkloadError."""
        self._workload.open(self._plan.endpoint)
        self._part = assign(self._plan, self._stream, self._worker)
        if self._speaks_http:
            self._sockets = open_sockets(self._address, self._part.clients or _OPEN_LOOP_CONNECTIONS)

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._workload.close()

    @property
    def _speaks_http(self) -> bool:
        return hasattr(self._workload, "request")

    @property
    def _address(self) -> tuple[str, int]:
        return self._plan.endpoint.host, self._plan.endpoint.port

    def run(
        self,
        start_ns: int,
        stop: StopFlag,
        *,
        offset: Offset | None = None,
        on_tick: Callable[[], None] = lambda: None,
    ) -> WorkerReport:
        """Load from `start_ns` (perf_counter_ns); returns when all samples are on disk and interpreted."""
        self._part.begin_at(start_ns)
        self._part.stop = stop

        def tick() -> None:
            stop.is_set = stop.is_set or bool(recorder.failure)
            on_tick()

        recorder = Recorder(self._directory, self._name, start_ns, on_tick=tick)
        try:
            loop = self._loop(recorder)
        except BaseException:
            recorder.close()
            raise
        gc.collect()
        gc.freeze()
        gc.disable()
        step_ns = time.time_ns() - time.perf_counter_ns()
        cpu_s, wall_ns = time.process_time(), time.perf_counter_ns()
        try:
            loop.run()
        finally:
            cpu_s = max(0.0, time.process_time() - cpu_s - loop.idle_ns / 1e9)
            wall_ns = max(0, time.perf_counter_ns() - max(wall_ns, start_ns))
            step_ns = time.time_ns() - time.perf_counter_ns() - step_ns
            gc.enable()
            gc.unfreeze()
            recorder.close()
        interpreted = 0
        if isinstance(loop, WireLoop) and not recorder.failure:
            interpreted = interpret(self._directory, self._name, self._workload.interpret, recorder.errors)
        offset = offset or Offset()
        return WorkerReport(
            stream=self._stream.name,
            worker=self._worker,
            host=socket.gethostname(),
            pid=os.getpid(),
            operations=count_rows(self._directory, self._name),
            cpu_s=cpu_s,
            wall_s=wall_ns / 1e9,
            loop_delay_max_s=loop.loop_delay_max_ns / 1e9,
            clock_offset_s=offset.offset_s,
            clock_offset_error_s=offset.error_s,
            clock_step_s=step_ns / 1e9,
            errors=recorder.errors.counts,
            interpreted=interpreted,
            limited_by=loop.limited_by,
            failure=recorder.failure,
        )

    def _loop(self, recorder: Recorder) -> WireLoop | CallLoop:
        if not self._speaks_http:
            return CallLoop(self._workload, recorder, self._part)
        loop = WireLoop(self._address, self._workload.request, recorder, self._part)
        sockets, self._sockets = self._sockets, []
        loop.use(sockets)
        return loop


def interpret(
    directory: Path,
    name: str,
    meaning: Callable[[int, int, bytes], Outcome],
    errors: ErrorTally,
    *,
    limit: int = MAX_INTERPRETED,
) -> int:
    """Read kept answers of good status; correct outcomes, items and qualities. How many were read.

    `meaning` takes index, status and body. Of more than `limit` answers an evenly spread part is read.
    """
    path = rows_path(directory, name)
    whole = read_rows(path)
    rows = whole[1:]
    ends = np.cumsum(rows["bytes_in"]).tolist()
    good = np.flatnonzero(rows["outcome"] == OutcomeKind.OK)
    chosen = good[:: max(1, -(-len(good) // limit))].tolist()
    answers = answers_path(directory, name)
    with answers.open("rb") as file:
        for number in chosen:
            row = rows[number]
            size = int(row["bytes_in"])
            file.seek(ends[number] - size)
            outcome = _try(meaning, int(row["index"]), int(row["status"]), file.read(size))
            row["outcome"], row["items"] = outcome.kind, outcome.items
            row["qualities"][: len(outcome.qualities)] = outcome.qualities
            if outcome.error:
                errors.add(outcome.error)
    partial = path.with_suffix(".part")
    whole.tofile(partial)
    partial.replace(path)
    answers.unlink()
    return len(chosen)


def _try(meaning: Callable[[int, int, bytes], Outcome], index: int, status: int, body: bytes) -> Outcome:
    try:
        return meaning(index, status, body)
    except Exception as error:  # an answer nobody thought of must not cost the other ones
        return outcome_of(error)


def load_workload(stream: StreamPlan) -> Any:
    """An instance of the class that `stream.workload` names as `module:Class`. Raises WorkloadError."""
    module_name, _, class_name = stream.workload.partition(":")
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
        return cls(**stream.params)
    except (ImportError, AttributeError, TypeError) as error:
        raise WorkloadError(f"cannot build the workload {stream.workload!r}") from error
