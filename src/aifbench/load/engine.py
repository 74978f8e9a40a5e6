"""Engine: one worker's part of one phase: prepare, load and record, interpret, report."""

import gc
import importlib
import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import WorkloadError
from aifbench.load.arrivals import from_json
from aifbench.load.assignment import Assignment, StopFlag, assign
from aifbench.load.call_loop import CallLoop
from aifbench.load.clocksync import Offset
from aifbench.load.connections import Connections
from aifbench.load.interpretation import interpret
from aifbench.load.plan import PhasePlan, StreamPlan, WorkerReport
from aifbench.load.poll_loop import PollLoop
from aifbench.load.program_loop import ProgramLoop, ProgramPart
from aifbench.load.recorder import Recorder, count_rows, read_rows, rows_path, save_stages, save_tokens
from aifbench.load.rendezvous import program_folder, rows_name
from aifbench.load.stages import Stages
from aifbench.load.tls import client_context
from aifbench.load.tokens import Tokens
from aifbench.load.wire_loop import WireLoop
from aifbench.load.workload import TokenTimes

_OPEN_LOOP_CONNECTIONS = 16
_NO_TOKENS = TokenTimes()

AnyLoop = WireLoop | CallLoop | PollLoop | ProgramLoop


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
        self._connections: Connections | None = None

    def prepare(self) -> None:
        """Everything that must not be timed: data, schedule, connections. Raises WorkloadError."""
        self._workload.open(self._endpoint)
        self._part = assign(self._plan, self._stream, self._worker)
        if hasattr(self._workload, "request"):
            self._connections = Connections(*self._target, clients=self._part.clients)
            self._connections.open_ahead(self._part.clients or _OPEN_LOOP_CONNECTIONS)
        if hasattr(self._workload, "prepare"):
            self._workload.prepare(self._part.first_indices())

    def close(self) -> None:
        if self._connections is not None:
            self._connections.close()
        self._workload.close()

    @property
    def _endpoint(self) -> Endpoint:
        return self._plan.endpoint_of(self._stream)

    @property
    def _target(self) -> tuple[tuple[str, int], ssl.SSLContext | None]:
        """The service's address, and its encryption, unless the workload brought an address of its own."""
        if hasattr(self._workload, "address"):
            return self._workload.address, None
        endpoint = self._endpoint
        return (endpoint.host, endpoint.port), client_context(endpoint.scheme, endpoint.ca_file)

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
            cost = _run_measured(loop, start_ns)
        finally:
            recorder.close()
        interpreted = 0
        if isinstance(loop, WireLoop) and not recorder.failure:
            interpreted = interpret(self._directory, self._name, self._workload, recorder.errors)
        elif isinstance(loop, CallLoop) and (loop.tokens or loop.stages):
            self._save_parts(loop, start_ns)
        return self._report(loop, recorder, cost, offset or Offset(), interpreted)

    def _report(
        self, loop: AnyLoop, recorder: Recorder, cost: "_Cost", offset: Offset, interpreted: int
    ) -> WorkerReport:
        return WorkerReport(
            stream=self._stream.name,
            worker=self._worker,
            host=socket.gethostname(),
            pid=os.getpid(),
            operations=count_rows(self._directory, self._name),
            cpu_s=cost.cpu_s,
            wall_s=cost.wall_s,
            loop_delay_max_s=loop.loop_delay_max_ns / 1e9,
            clock_offset_s=offset.offset_s,
            clock_offset_error_s=offset.error_s,
            clock_step_s=cost.clock_step_s,
            errors=recorder.errors.counts,
            interpreted=interpreted,
            limited_by=loop.limited_by,
            failure=recorder.failure or (loop.failure if isinstance(loop, ProgramLoop) else ""),
            overloaded=loop.overloaded,
            sent_anew=loop.sent_anew if isinstance(loop, WireLoop) else 0,
            notes=self._workload.notes() if hasattr(self._workload, "notes") else {},
        )

    def _save_parts(self, loop: CallLoop, start_ns: int) -> None:
        """What blocking clients saw of the inside of their operations, in the order of the rows."""
        indices = read_rows(rows_path(self._directory, self._name))["index"][1:].tolist()
        if any(times.content_ns for times in loop.tokens.values()):
            times = [loop.tokens.get(index, _NO_TOKENS) for index in indices]
            save_tokens(self._directory, self._name, Tokens.of(times, start_ns))
        if loop.stages:
            stages = [loop.stages.get(index, {}) for index in indices]
            save_stages(self._directory, self._name, Stages.of(stages, start_ns))

    def _program_part(self) -> ProgramPart:
        plan, stream, part = self._plan, self._stream, self._part
        arrivals = from_json(stream.arrivals)
        duration_s = None if plan.measure_s is None else plan.warmup_s + plan.measure_s
        rate_per_s = None if duration_s is None else arrivals.mean_rate_per_s(duration_s)
        return ProgramPart(
            directory=program_folder(self._directory, self._name),
            worker=self._worker,
            workers=stream.workers,
            clients=part.clients,
            rate_per_s=None if rate_per_s is None else rate_per_s / stream.workers,
            duration_s=duration_s,
            operations=stream.limit,
            seed=plan.seed + self._worker,
        )

    def _loop(self, recorder: Recorder) -> AnyLoop:
        if getattr(self._workload, "is_program", False):
            return ProgramLoop(self._workload, recorder, self._part, self._program_part())
        if getattr(self._workload, "is_polled", False):
            if self._part.due_ns is None and self._part.clients == 1:
                return CallLoop(self._workload.alone(), recorder, self._part)
            return PollLoop(self._workload, recorder, self._part)
        if self._connections is None:
            return CallLoop(self._workload, recorder, self._part)
        return WireLoop(
            self._connections,
            self._workload.request,
            recorder,
            self._part,
            is_stream=getattr(self._workload, "is_stream", False),
            wants_head=getattr(self._workload, "wants_head", False),
            learn=getattr(self._workload, "learn", None),
            keeps=getattr(self._workload, "keeps", None),
            refusal=getattr(self._workload, "refusal", None),
        )


@dataclass(frozen=True, slots=True)
class _Cost:
    """Of the load itself, waiting awake left out; and how far the wall clock moved against ours meanwhile."""

    cpu_s: float
    wall_s: float
    clock_step_s: float


def _run_measured(loop: AnyLoop, start_ns: int) -> _Cost:
    """Without the collector, whose pauses would be latencies."""
    gc.collect()
    gc.freeze()
    gc.disable()
    step_ns = time.time_ns() - time.perf_counter_ns()
    cpu_s, wall_ns = time.process_time(), time.perf_counter_ns()
    try:
        loop.run()
        cpu_s = max(0.0, time.process_time() - cpu_s - loop.idle_ns / 1e9)
        cpu_s += loop.cpu_s if isinstance(loop, ProgramLoop) else 0.0
        wall_ns = max(0, time.perf_counter_ns() - max(wall_ns, start_ns))
        step_ns = time.time_ns() - time.perf_counter_ns() - step_ns
    finally:
        gc.enable()
        gc.unfreeze()
    return _Cost(cpu_s, wall_ns / 1e9, step_ns / 1e9)


def load_workload(stream: StreamPlan) -> Any:
    """An instance of the class that `stream.workload` names as `module:Class`. Raises WorkloadError."""
    module_name, _, class_name = stream.workload.partition(":")
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
        return cls(**stream.params)
    except (ImportError, AttributeError, TypeError) as error:
        raise WorkloadError(f"cannot build the workload {stream.workload!r}") from error
