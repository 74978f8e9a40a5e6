"""Calibrate: what the load client of this machine adds to the times it reports, at a load of choice.

No service takes part. The very workers that load services load a built-in server whose every event carries
the instant at which it was sent.
"""

import os
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import FleetError, WorkloadError
from aifbench.load.arrivals import AnyArrivals, Closed, Constant, to_json
from aifbench.load.fleet import Fleet, LocalLauncher, PhaseOutcome
from aifbench.load.plan import PhasePlan, StreamPlan
from aifbench.load.progress import Progress
from aifbench.options import resolve_options
from aifbench.results.summary import StreamFacts, summarise
from aifbench.servers.options import CALIBRATE_OPTIONS
from aifbench.units import format_number
from aifbench.workloads.prompts import PromptSpec, prepare

_NAMES = {"ttft": "TTFT", "gap": "gap"}
_WARMUP_S = 1.0
_DRAIN_S = 30.0
_BUSY_PERCENT = 85
_FLOOR_MS = 0.5  # below this an error is no matter, however short the times
_SHARE = 0.05
_TAIL_FLOOR_MS = 2.0
_TAIL_SHARE = 0.1
_IDLE_PERCENT = 50  # a worker that is late though it has time to spare waits for a core
_EXACT = 0.01  # what "exact to 1 %" needs


@dataclass(frozen=True, slots=True)
class Compared:
    """One quantile: as it was, and what the client reports less that; of the worker that is furthest off."""

    name: str
    true_ms: float
    error_ms: float

    @property
    def reported_ms(self) -> float:
        return self.true_ms + self.error_ms

    @classmethod
    def of(cls, notes: Sequence[Mapping[str, float]], what: str, quantile: str) -> "Compared":
        key = f"{what}_error_{quantile}_ms"
        worst = max((note for note in notes if key in note), key=lambda note: note[key], default={})
        return cls(
            f"{_NAMES[what]} {quantile}", worst.get(f"{what}_true_{quantile}_ms", 0.0), worst.get(key, 0.0)
        )


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was loaded how, at which cost, and how far the client's numbers were from the truth.

    `cpu_percent` is that of the busiest worker, of one core. `way_p99_ms` is from the server's send to the
    client's stamp.
    """

    load: str
    host: str
    workers: int
    answers: int
    errors: int
    tokens_per_s: float
    cpu_percent: float
    cpu_s_per_1k_tokens: float
    ttft_p50: Compared
    ttft_p99: Compared
    gap_p50: Compared
    gap_p99: Compared
    way_p99_ms: float

    @property
    def is_exact(self) -> bool:
        """For medians and tails."""
        return not (self._is_busy or self._is_off or self._has_false_tail or self.errors)

    @property
    def _is_busy(self) -> bool:
        return self.cpu_percent > _BUSY_PERCENT

    @property
    def _is_off(self) -> bool:
        return self.ttft_p50.error_ms > max(_FLOOR_MS, _SHARE * self.ttft_p50.true_ms)

    @property
    def _has_false_tail(self) -> bool:
        return any(
            tail.error_ms > max(_TAIL_FLOOR_MS, _TAIL_SHARE * tail.true_ms)
            for tail in (self.ttft_p99, self.gap_p99)
        )

    @property
    def verdict(self) -> str:
        """One sentence, and what to do when it is no good one."""
        ttft, tail, gap = (
            f"{format_number(max(each.error_ms, 0.0), 2)} ms"
            for each in (self.ttft_p50, self.ttft_p99, self.gap_p99)
        )
        adds = f"the client adds {ttft} to the median TTFT, {tail} to its p99 and {gap} to the gaps' p99"
        more = f"use --workers {2 * self.workers}, on as many idle cores"
        if self.cpu_percent < _IDLE_PERCENT:
            more = "leave a free core to each load worker, and run it again"
        if self.errors:
            return f"no good: {self.errors:,} requests failed, of which none may; lower the load"
        if self._is_busy:
            busy = f"{format_number(self.cpu_percent, 3)} % of a core"
            return f"client-limited: the busiest load worker used {busy}; {more}"
        if self._is_off:
            return f"not exact enough: {adds}; {more}"
        if self._has_false_tail:
            return f"exact for medians, not for tails: {adds}; {more}"
        least_ms = max(self.ttft_p50.error_ms, 0.0) / _EXACT
        least = f"{format_number(max(least_ms, 0.1), 2)} ms"
        return f"exact enough: {adds}; 1 % or less of a TTFT from {least} up"


def calibrate(given: Mapping[str, Any], progress: Progress) -> Calibration:
    """Load the built-in server as `given` by CALIBRATE_OPTIONS. Raises UsageError, FleetError, WorkloadError.

    Everything happens on this machine and in a temporary directory: nothing is left.
    """
    options = resolve_options(CALIBRATE_OPTIONS, given)
    arrivals: AnyArrivals = Constant(options["rate"]) if options["rate"] else Closed(options["clients"])
    workers = options["workers"]
    if isinstance(arrivals, Closed):
        workers = min(workers, arrivals.clients)
    with tempfile.TemporaryDirectory(prefix="aifbench-calibrate-") as name:
        plan = _plan(options, arrivals, workers, Path(name))
        progress.phase("calibrate", f"{arrivals}, {options['duration']:g} s, on {socket.gethostname()}")
        with Fleet(Path(name) / "phases", LocalLauncher(), workers=workers) as fleet:
            outcome = fleet.run(plan, progress, watch=lambda: "")
        if outcome.interrupted:
            raise KeyboardInterrupt(outcome.problem)
        if outcome.problem:
            raise FleetError(outcome.problem)
        return _judge(outcome, arrivals)


def _plan(options: Mapping[str, Any], arrivals: AnyArrivals, workers: int, folder: Path) -> PhasePlan:
    spec = PromptSpec(input_tokens=str(options["input_tokens"]), output_tokens=str(options["output_tokens"]))
    server = {
        "ttft_s": options["ttft"],
        "itl_s": options["itl"],
        "output_tokens": options["output_tokens"],
        "max_model_len": 2 * (options["input_tokens"] + options["output_tokens"]) + 1024,
    }
    stream = StreamPlan(
        "calibrate",
        "aifbench.workloads.calibration:Calibrated",
        {"source": str(prepare(spec, folder)), "plan": server},
        to_json(arrivals),
        workers=workers,
    )
    return PhasePlan(
        "calibrate",
        (stream,),
        Endpoint("127.0.0.1", 0),  # each worker starts a server of its own
        warmup_s=_WARMUP_S,
        measure_s=options["duration"],
        drain_s=_DRAIN_S,
        timeout_s=_DRAIN_S + options["ttft"] + options["itl"] * options["output_tokens"],
    )


def _judge(outcome: PhaseOutcome, arrivals: AnyArrivals) -> Calibration:
    (stream,) = outcome.plan.streams
    reports, samples = outcome.reports(stream), outcome.samples(stream)
    failures = [text for report in reports for text in (report.failure, *report.errors) if text]
    notes = [report.notes for report in reports if report.notes]
    if not notes:
        why = f": {failures[0]}" if failures else ""
        raise WorkloadError(
            f"no request was answered{why}", hint="use a lighter load, or a longer --duration"
        )
    facts = StreamFacts(
        phase=outcome.plan.name,
        stream=stream.name,
        arrivals=str(arrivals),
        open_loop=not isinstance(arrivals, Closed),
        warmup_s=outcome.plan.warmup_s,
        measure_s=outcome.plan.measure_s,
        drain_s=outcome.plan.drain_s,
        timeout_s=outcome.plan.timeout_s,
        workers=stream.workers,
    )
    measured = summarise(samples, facts, reports)
    rate, cpu = measured.metric("output_rate"), measured.metric("client_cpu")
    assert samples.tokens is not None
    tokens = int(samples.tokens.output_tokens.sum())
    return Calibration(
        load=str(arrivals),
        host=f"{socket.gethostname()}, {len(os.sched_getaffinity(0))} cores",
        workers=stream.workers,
        answers=int(samples.ok.sum()),
        errors=int((~samples.ok).sum()),
        tokens_per_s=(rate.value if rate else None) or 0.0,
        cpu_percent=(cpu.value if cpu else None) or 0.0,
        cpu_s_per_1k_tokens=1000 * sum(report.cpu_s for report in reports) / max(tokens, 1),
        ttft_p50=Compared.of(notes, "ttft", "p50"),
        ttft_p99=Compared.of(notes, "ttft", "p99"),
        gap_p50=Compared.of(notes, "gap", "p50"),
        gap_p99=Compared.of(notes, "gap", "p99"),
        way_p99_ms=max(note["way_p99_ms"] for note in notes),
    )
