"""Phases of inference without network or time: a server of known slots and timing, simulated.

Requests wait in order for one of `slots`; then the first token comes after `ttft_s`, each further one
`itl_s` later. What comes of a phase is what its fleet would have left, and is summarised as usual.
"""

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from aifbench.load.arrivals import AnyArrivals, Closed, from_json
from aifbench.load.plan import PhasePlan, StreamPlan, WorkerReport
from aifbench.load.samples import Samples
from aifbench.load.tokens import Tokens
from aifbench.load.workload import NOT_SEEN, Finish, OutcomeKind, TokenCount, TokenTimes
from aifbench.results.record import Measurement
from aifbench.results.summary import summarise
from aifbench.servers.benchmark import Benchmark, Evidence, Phase
from aifbench.servers.run import stream_facts

Request = tuple[float, float, float]  # sent, first token, last token, in seconds


@dataclass(frozen=True)
class Server:
    """`fails` says which operations are answered 500 at once; `stall` for how long a phase begins blocked."""

    slots: int | None = None
    ttft_s: float = 0.05
    itl_s: float = 0.005
    tokens: int = 128
    fails: Callable[[str, int], bool] = lambda _phase, _index: False
    stall: Callable[[str], float] = lambda _phase: 0.0
    notes: Mapping[str, float] | None = None

    @property
    def whole_s(self) -> float:
        return self.ttft_s + (self.tokens - 1) * self.itl_s

    @property
    def capacity_per_s(self) -> float:
        return (self.slots or 0) / self.whole_s


@dataclass
class Outcome:
    """Stands for a PhaseOutcome."""

    plan: Any
    _samples: Samples
    _report: WorkerReport
    start_wall_s: float = 1_800_000_000.0
    problem: str = ""

    def samples(self, _: StreamPlan) -> Samples:
        return self._samples

    def reports(self, stream: StreamPlan) -> list[WorkerReport]:
        return [self._report] * stream.workers


@dataclass(frozen=True)
class Done:
    """A phase that was run, and what was found out about it."""

    phase: Phase
    measurement: Measurement
    found: Mapping[str, Evidence]

    @property
    def name(self) -> str:
        return self.phase.plan.name

    @property
    def stream(self) -> StreamPlan:
        (stream,) = self.phase.plan.streams
        return stream


def drive(benchmark: Benchmark, server: Server) -> list[Done]:
    """Every phase of a benchmark against a simulated server, as BenchRun would do it."""
    done = []
    for phase in benchmark.phases():
        (stream,) = phase.plan.streams
        outcome = simulate(phase, server)
        facts = stream_facts(phase, stream, "", outcome.start_wall_s)
        measurement = summarise(outcome.samples(stream), facts, outcome.reports(stream))
        found = phase.verify(outcome, {stream.name: measurement}) if phase.is_measured else {}  # type: ignore[arg-type]
        done.append(Done(phase, measurement, found))
    return done


def simulate(phase: Phase, server: Server) -> Outcome:
    plan, (stream,) = phase.plan, phase.plan.streams
    arrivals: AnyArrivals = from_json(stream.arrivals)
    overloaded = False
    if isinstance(arrivals, Closed):
        requests = list(_closed(plan, arrivals.clients, stream.limit, server))
    else:
        requests, overloaded = _open(plan, stream.max_in_flight, server)
    samples = _samples(plan.name, requests, server, give_up_s=requests[-1][0] if overloaded else None)
    if stream.workload.endswith(":Embed"):
        samples = replace(samples, tokens=None)
    report = WorkerReport(
        stream.name, 0, "node", 1, len(samples), cpu_s=0.05, wall_s=1.0, overloaded=overloaded,
        notes=(server.notes or {}) if "calibration" in stream.workload else {},
    )  # fmt: skip
    return Outcome(plan, samples, report)


def _slots(phase: str, server: Server) -> list[float]:
    return [server.stall(phase)] * (server.slots or 100_000)


def _serve(slots: list[float], sent_s: float, server: Server) -> Request:
    start_s = max(sent_s, heapq.heappop(slots))
    heapq.heappush(slots, start_s + server.whole_s)
    return sent_s, start_s + server.ttft_s, start_s + server.whole_s


def _end_s(plan: PhasePlan) -> float:
    return plan.warmup_s + plan.measure_s if plan.measure_s is not None else float("inf")


def _closed(plan: PhasePlan, clients: int, limit: int | None, server: Server) -> Iterator[Request]:
    slots, free, end_s = _slots(plan.name, server), [0.0] * clients, _end_s(plan)
    for _ in range(limit or 10**6):
        sent_s = heapq.heappop(free)
        if sent_s >= end_s:
            return
        request = _serve(slots, sent_s, server)
        heapq.heappush(free, request[2])
        yield request


def _open(plan: PhasePlan, most: int | None, server: Server) -> tuple[list[Request], bool]:
    arrivals: AnyArrivals = from_json(plan.streams[0].arrivals)
    assert not isinstance(arrivals, Closed)
    slots, requests, inside = _slots(plan.name, server), [], list[float]()
    for sent_s in arrivals.offsets_s(_end_s(plan)).tolist():
        while inside and inside[0] <= sent_s:
            heapq.heappop(inside)
        if most is not None and len(inside) >= most:
            return requests, True
        requests.append(_serve(slots, sent_s, server))
        heapq.heappush(inside, requests[-1][2])
    return requests, False


def _samples(phase: str, requests: list[Request], server: Server, give_up_s: float | None) -> Samples:
    size = len(requests)
    sent, first, last = (
        np.rint(np.array(column) * 1e9).astype(np.int64) for column in zip(*requests, strict=True)
    )
    cut = np.zeros(size, bool) if give_up_s is None else last > round(give_up_s * 1e9)
    failed = np.array([server.fails(phase, index) for index in range(size)], bool)
    outcome = np.where(
        failed, OutcomeKind.SERVER_ERROR, np.where(cut, OutcomeKind.UNFINISHED, OutcomeKind.OK)
    )
    times = [
        TokenTimes(
            content_ns=(int(first[k]), int(last[k])),
            answer_ns=int(first[k]),
            first_tokens=1,
            prompt_tokens=512,
            output_tokens=server.tokens,
            counted=TokenCount.USAGE,
            finish=Finish.LENGTH,
        )
        if outcome[k] == OutcomeKind.OK
        else TokenTimes()
        for k in range(size)
    ]
    qualities = np.full((size, 2), np.nan, np.float32)
    qualities[outcome == OutcomeKind.OK, 0] = 1.0
    return Samples(
        index=np.arange(size),
        worker=np.zeros(size, np.uint16),
        intended_ns=sent,
        sent_ns=sent,
        first_byte_ns=first,
        finished_ns=np.where(cut, NOT_SEEN, np.where(failed, sent + 1_000_000, last)),
        outcome=outcome.astype(np.uint8),
        items=np.full(size, server.tokens, np.uint32),
        bytes_out=np.full(size, 900),
        bytes_in=np.full(size, 30_000),
        qualities=qualities,
        tokens=Tokens.of(times, 0),
    )
