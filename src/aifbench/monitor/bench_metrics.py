"""What a benchmark tells while it runs, as `bench_*` metrics: sums over rows that its workers wrote anyway.

For watching only: durations are in buckets, and answers not checked yet. The run's record is exact.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aifbench.load.progress import LoadStatus, Progress, StreamStatus
from aifbench.load.recorder import Rows
from aifbench.load.workload import NOT_SEEN, OutcomeKind
from aifbench.monitor.exposition import Family, Labels, Sample, buckets, page

# Six a decade: a quantile read from them is off by a quarter at most.
DURATION_BOUNDS_S = (
    *(step * 10.0**power for power in range(-4, 2) for step in (1, 1.5, 2, 3, 5, 7)),
    100.0,
)  # fmt: skip


@dataclass(slots=True)
class _Stream:
    """The sums of one stream over the whole run, and what it did at the last look."""

    # With a zero from the beginning on: whoever computes rates would miss what came before the first value.
    outcomes: dict[str, float] = field(default_factory=lambda: defaultdict(float, {"ok": 0.0}))
    durations: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(DURATION_BOUNDS_S) + 1))
    duration_s: float = 0.0
    sent_bytes: float = 0.0
    received_bytes: float = 0.0
    offered_per_s: float | None = None
    in_flight: float = 0.0
    lag_s: float | None = None

    def add(self, news: StreamStatus, passed_s: float) -> None:
        rows = news.rows
        # Of very many operations only the newest were read: those stand for all.
        weight = news.operations / len(rows) if len(rows) else 0.0
        for kind, count in enumerate(np.bincount(rows["outcome"], minlength=len(OutcomeKind))):
            if count:
                self.outcomes[outcome_name(kind)] += weight * float(count)
        ended = rows[rows["finished_ns"] != NOT_SEEN]
        good_s = _response_s(ended[ended["outcome"] == OutcomeKind.OK])
        places = np.searchsorted(DURATION_BOUNDS_S, good_s)
        self.durations += weight * np.bincount(places, minlength=len(self.durations))
        self.duration_s += weight * float(good_s.sum())
        self.sent_bytes += weight * float(rows["bytes_out"].sum())
        self.received_bytes += weight * float(rows["bytes_in"].sum())
        self.offered_per_s = news.offered_per_s
        busy_s = float((ended["finished_ns"] - ended["sent_ns"]).sum()) / 1e9
        self.in_flight = weight * busy_s / passed_s if passed_s > 0 else 0.0
        self.lag_s = None if news.offered_per_s is None else _largest_lag_s(rows)

    def rest(self) -> None:
        """Nothing goes on here any more: what it has summed up stays."""
        self.offered_per_s, self.in_flight, self.lag_s = None, 0.0, None


def _outcomes(labels: Labels, stream: _Stream) -> list[Sample]:
    return [("", {**labels, "outcome": outcome}, count) for outcome, count in stream.outcomes.items()]


def _durations(labels: Labels, stream: _Stream) -> list[Sample]:
    return buckets(labels, DURATION_BOUNDS_S, stream.durations.tolist(), stream.duration_s)


def _transferred(labels: Labels, stream: _Stream) -> list[Sample]:
    return [
        ("", {**labels, "direction": direction}, count)
        for direction, count in (("sent", stream.sent_bytes), ("received", stream.received_bytes))
    ]


def _known(labels: Labels, value: float | None) -> list[Sample]:
    return [] if value is None else [("", labels, value)]


# Name, kind, help, and the samples of one stream with its labels.
_OF_A_STREAM: Sequence[tuple[str, str, str, Callable[[Labels, _Stream], list[Sample]]]] = (
    (
        "bench_requests_total",
        "counter",
        "Operations that ended, by how; answers have not been checked yet.",
        _outcomes,
    ),
    (
        "bench_request_duration_seconds",
        "histogram",
        "Response times of good operations, from when they were due.",
        _durations,
    ),
    (
        "bench_transferred_bytes_total",
        "counter",
        "Bytes sent to and received from the service, where the client sees them.",
        _transferred,
    ),
    (
        "bench_offered_rate",
        "gauge",
        "Operations per second that are planned (mean of the phase); none in closed loop.",
        lambda labels, stream: _known(labels, stream.offered_per_s),
    ),
    (
        "bench_inflight",
        "gauge",
        "Mean number of operations under way, by Little's law from those that ended last.",
        lambda labels, stream: _known(labels, stream.in_flight),
    ),
    (
        "bench_schedule_lag_seconds",
        "gauge",
        "Longest time that an operation of late was sent after it was due; open loop only.",
        lambda labels, stream: _known(labels, stream.lag_s),
    ),
)


class BenchMetrics:
    """The metrics of one run of one service (or several); written by one thread, read by others."""

    def __init__(self, service: str) -> None:
        self._service = {"service": service}
        self._lock = threading.Lock()
        self._streams: dict[str, _Stream] = {}
        self._info: Labels = {}
        self._phase: tuple[str, str] | None = None

    def begin(self, run: str, experiment: str, commit: str) -> None:
        """The run has an id now; `experiment` is its study, and empty without one."""
        with self._lock:
            self._info = {**self._service, "run": run, "experiment": experiment, "commit": commit}

    def prepare(self, phase: str) -> None:
        """A step has begun in which there is no load yet."""
        with self._lock:
            self._phase = (phase, "prepare")
            for stream in self._streams.values():
                stream.rest()

    def update(self, status: LoadStatus) -> None:
        with self._lock:
            self._phase = (status.phase, stage_of(status))
            for news in status.streams:
                self._streams.setdefault(news.name, _Stream()).add(news, status.passed_s)

    def text(self) -> str:
        """The page that a scrape gets."""
        with self._lock:
            return page(self._families())

    def _families(self) -> list[Family]:
        phase, stage = self._phase or ("", "")
        current = {**self._service, "phase": phase, "stage": stage}
        streams = [({**self._service, "workload": name}, s) for name, s in self._streams.items()]
        return [
            Family(
                "bench_run_info",
                "gauge",
                "The run under way; always 1.",
                [("", self._info, 1.0)] if self._info else [],
            ),
            Family(
                "bench_phase",
                "gauge",
                "The step of the run under way, and how far it is; always 1.",
                [("", current, 1.0)] if self._phase else [],
            ),
            *(
                Family(name, kind, told, [sample for stream in streams for sample in samples_of(*stream)])
                for name, kind, told, samples_of in _OF_A_STREAM
            ),
        ]


class MeasuredProgress:
    """A Progress that passes everything on to `inner`, and keeps `metrics` current.

    `on_run(run_id)` is called once the run has an id.
    """

    def __init__(self, inner: Progress, metrics: BenchMetrics, on_run: Callable[[str], None]) -> None:
        self._inner = inner
        self._metrics = metrics
        self._on_run = on_run

    def phase(self, name: str, detail: str) -> None:
        if name == "run":
            self._on_run(detail)
        else:
            self._metrics.prepare(name)
        self._inner.phase(name, detail)

    def update(self, status: LoadStatus) -> None:
        self._metrics.update(status)
        self._inner.update(status)

    def note(self, text: str) -> None:
        self._inner.note(text)


def stage_of(status: LoadStatus) -> str:
    """`work` for a phase that ends after a number of operations, else warmup, measure or cooldown."""
    if status.planned_s is None:
        return "work"
    if status.elapsed_s < status.warmup_s:
        return "warmup"
    return "measure" if status.elapsed_s < status.planned_s else "cooldown"


def outcome_name(kind: int) -> str:
    return OutcomeKind(kind).name.lower()


def _response_s(rows: Rows) -> NDArray[np.float64]:
    spans: NDArray[np.float64] = (rows["finished_ns"] - rows["intended_ns"]) / 1e9
    return spans


def _largest_lag_s(rows: Rows) -> float | None:
    sent = rows[rows["sent_ns"] != NOT_SEEN]
    return float((sent["sent_ns"] - sent["intended_ns"]).max()) / 1e9 if len(sent) else None
