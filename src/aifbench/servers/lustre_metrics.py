"""What reading and writing files adds to the usual numbers: data rates, stragglers, the slowest rank."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from aifbench.load.samples import Samples
from aifbench.results.metrics import metric_of
from aifbench.results.record import Metric
from aifbench.stats.intervals import rate

Int64 = NDArray[np.int64]
_PER_NS_TO_MIB_PER_S = 1e9 / 2**20


def rank_ends(samples: Samples, rank_of: Callable[[Int64], Int64]) -> Int64:
    """When each rank finished its last good operation, in ns since the start; ascending."""
    good = samples.select(samples.ok)
    if not len(good):
        return np.empty(0, np.int64)
    ranks = rank_of(good.index)
    ends = np.zeros(int(ranks.max()) + 1, np.int64)
    np.maximum.at(ends, ranks, good.finished_ns)
    return np.sort(ends[ends > 0])


def transfer_metrics(
    samples: Samples, window_s: tuple[float, float], rank_of: Callable[[Int64], Int64] | None, nodes: int
) -> Iterator[Metric]:
    """bandwidth (all bytes by the time until the last rank was done), per node, at the first rank's end, and
    how much later the last one was.

    `rank_of` is None where ranks have no part of their own, as in random access for a time: then it is a
    data_rate over the window.
    """
    good = samples.select(samples.ok)
    amounts = (good.bytes_in + good.bytes_out).astype(np.int64)
    if not amounts.any():
        return
    ends = np.empty(0, np.int64) if rank_of is None else rank_ends(samples, rank_of)
    start_ns, end_ns = (edge * 1e9 for edge in window_s)
    if len(ends):
        start_ns, end_ns = 0.0, float(ends[-1])
    estimate = rate(good.finished_ns, start_ns, end_ns, amounts=amounts)
    name = "bandwidth" if len(ends) else "data_rate"
    yield metric_of(name, "MiB/s", "higher", estimate, _PER_NS_TO_MIB_PER_S)
    if nodes > 1:
        each = _PER_NS_TO_MIB_PER_S / nodes
        yield metric_of(f"{name}_per_node", "MiB/s", "higher", estimate, each)
    if len(ends):
        yield from _first_and_last(good.finished_ns, amounts, ends)


def _first_and_last(finished_ns: Int64, amounts: Int64, ends: Int64) -> Iterator[Metric]:
    first_ns, last_ns = int(ends[0]), int(ends[-1])
    ranks = len(ends)
    yield Metric("time", last_ns / 1e9, "s", "lower", n=ranks, note="until the last rank was done")
    if ranks > 1:
        done = float(amounts[finished_ns <= first_ns].sum()) / first_ns * _PER_NS_TO_MIB_PER_S
        note = "when the first rank was done: not how long the work takes"
        yield Metric("bandwidth_first_done", done, "MiB/s", "higher", n=ranks, note=note)
        median_ns = float(np.median(ends))
        yield Metric(
            "slowest_rank", last_ns / median_ns, "x", "lower", n=ranks, note="by the median rank's time"
        )
