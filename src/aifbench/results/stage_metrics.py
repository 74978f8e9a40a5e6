"""The numbers of operations that go through several services: how long each stage took, and its share.

An operation's time from t0 is made up of its wait, its stages and the client's own work between them; so the
shares of the mean add up to 100 %.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from aifbench.load.stages import Stages
from aifbench.load.workload import NOT_SEEN
from aifbench.results.metrics import PERCENTILES, metric_of, percentile
from aifbench.results.record import Metric
from aifbench.results.window import Bools, View, latencies_of
from aifbench.stats.intervals import mean

_THREE = PERCENTILES[:3]
_NOTE = "of operations that succeeded"


def stage_metrics(view: View) -> Iterator[Metric]:
    """Nothing for a stream without stages; nothing of a stage that no operation has."""
    if view.samples.stages is None:
        return
    stages = view.samples.stages.select(view.window.rows)
    for column, name in enumerate(stages.names):
        yield from _took(view, name, stages.begin_ns[:, column], stages.end_ns[:, column])
        yield from _first_token(view, name, stages.begin_ns[:, column], stages.end_ns[:, column])
    yield from _shares(view, stages)


def _took(view: View, name: str, begin_ns: NDArray[np.int64], end_ns: NDArray[np.int64]) -> Iterator[Metric]:
    """Where one was under way when its operation was given up, it took longer than that."""
    ended = end_ns != NOT_SEEN
    until_ns = np.where(ended, end_ns, view.times.finished_ns[view.window.rows])
    chosen = (begin_ns != NOT_SEEN) & (view.ok | view.times.waited[view.window.rows])
    yield from _percentiles(name, (until_ns - begin_ns)[chosen], ~ended[chosen])


def _first_token(
    view: View, name: str, begin_ns: NDArray[np.int64], end_ns: NDArray[np.int64]
) -> Iterator[Metric]:
    """From the stage's begin, of the stage that the answer came in."""
    if view.samples.tokens is None:
        return
    first_ns = view.samples.tokens.first_ns[view.window.rows]
    inside = view.ok & (begin_ns != NOT_SEEN) & (first_ns >= begin_ns) & (first_ns <= end_ns)
    if inside.any():
        spans_ns = (first_ns - begin_ns)[inside]
        yield from _percentiles(f"{name}_ttft", spans_ns, np.zeros(len(spans_ns), bool))


def _percentiles(name: str, spans_ns: NDArray[np.int64], waited: Bools) -> Iterator[Metric]:
    latencies = latencies_of(spans_ns, waited)
    for suffix, label, q in _THREE:
        yield percentile(f"{name}_{suffix}", label, q, latencies)
    if not waited.any():
        yield metric_of(f"{name}_mean", "ms", "lower", mean(spans_ns), 1e-6)


def _shares(view: View, stages: Stages) -> Iterator[Metric]:
    """Of the mean time from t0 to the end."""
    ok, rows = view.ok, view.window.rows
    samples = view.samples
    n = int(np.count_nonzero(ok))
    wait_ns = float((samples.sent_ns - samples.intended_ns)[rows][ok].sum()) if view.facts.open_loop else 0.0
    whole_ns = float(view.times.latency_ns[rows][ok].sum())
    if not n or whole_ns <= 0:
        return
    seen = (stages.begin_ns != NOT_SEEN) & (stages.end_ns != NOT_SEEN)
    spent_ns = np.where(seen, stages.end_ns - stages.begin_ns, 0)[ok].sum(axis=0, dtype=np.float64)
    parts = {"wait": wait_ns, **dict(zip(stages.names, spent_ns.tolist(), strict=True))}
    parts["client"] = whole_ns - sum(parts.values())
    for name, part_ns in parts.items():
        yield Metric(f"{name}_share", 100 * part_ns / whole_ns, "%", n=n, note=_NOTE)
