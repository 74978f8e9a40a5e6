"""One worker's part of a stream: which operations, when, and until when."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aifbench.load.arrivals import AnyArrivals, Closed, from_json
from aifbench.load.plan import PhasePlan, StreamPlan

_FOREVER_NS = 2**62


class StopFlag:
    """Set from a signal handler or another thread; read on the hot path as a plain attribute."""

    __slots__ = ("is_set",)

    def __init__(self) -> None:
        self.is_set = False


@dataclass(slots=True)
class Assignment:
    """Times are absolute on this worker's `perf_counter_ns` clock.

    Operation number j of this worker has index `first_index + j * stride`. In open loop `due_ns[j]` says
    when; in closed loop `clients` are kept busy until `end_ns` or until `count` operations.
    """

    start_ns: int
    end_ns: int
    drain_ns: int
    timeout_ns: int
    first_index: int
    stride: int
    clients: int
    due_ns: NDArray[np.int64] | None
    count: int
    scored: bool = False
    stop: StopFlag = field(default_factory=StopFlag)

    def index(self, number: int) -> int:
        return self.first_index + number * self.stride


def assign(
    plan: PhasePlan, stream: StreamPlan, worker: int, start_ns: int, stop: StopFlag | None = None
) -> Assignment:
    """The part of worker number `worker` (from 0, within the stream).

    Open schedules are dealt out like cards, so that the union over the workers is exactly the process
    that was asked for, whatever its distribution.
    """
    arrivals: AnyArrivals = from_json(stream.arrivals)
    duration_s = None if plan.measure_s is None else plan.warmup_s + plan.measure_s
    count = _FOREVER_NS if stream.limit is None else len(range(worker, stream.limit, stream.workers))
    due_ns = None
    if not isinstance(arrivals, Closed):
        horizon_s = duration_s if duration_s is not None else _horizon_s(arrivals, stream)
        offsets = arrivals.offsets_s(horizon_s)[: stream.limit]
        mine = offsets[worker :: stream.workers]
        due_ns = start_ns + np.rint(mine * 1e9).astype(np.int64)
        count = len(due_ns)
    return Assignment(
        start_ns=start_ns,
        end_ns=_FOREVER_NS if duration_s is None else start_ns + round(duration_s * 1e9),
        drain_ns=round(plan.drain_s * 1e9),
        timeout_ns=round(plan.timeout_s * 1e9),
        first_index=worker,
        stride=stream.workers,
        clients=arrivals.share(worker, stream.workers) if isinstance(arrivals, Closed) else 0,
        due_ns=due_ns,
        count=count,
        scored=bool(stream.qualities),
        stop=stop or StopFlag(),
    )


def _horizon_s(arrivals: AnyArrivals, stream: StreamPlan) -> float:
    """Long enough that an open process surely brings `limit` operations."""
    assert stream.limit is not None, "a stream needs a duration or a limit"
    rate_per_s = arrivals.mean_rate_per_s(1.0) or 1.0
    return 2.0 * (stream.limit + 100) / rate_per_s
