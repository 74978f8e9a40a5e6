"""One worker's part of a stream: which operations, when, and until when."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aifbench.load.arrivals import AnyArrivals, Closed, from_json
from aifbench.load.plan import PhasePlan, StreamPlan

FOREVER_NS = 2**62


class StopFlag:
    """Set from a signal handler or another thread; read on the hot path as a plain attribute."""

    __slots__ = ("is_set",)

    def __init__(self) -> None:
        self.is_set = False


@dataclass(slots=True)
class Assignment:
    """Times are absolute on this worker's `perf_counter_ns` clock.

    Operation number j of this worker has index `first_index + j * stride`. In open loop `due_ns[j]` says
    when; in closed loop `clients` are kept busy until `end_ns` or until `count` operations. With a `chain` a
    client does that many operations of consecutive index: then the above counts chains.
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
    chain: int = 1
    think_ns: int = 0
    max_in_flight: int = FOREVER_NS
    stop: StopFlag = field(default_factory=StopFlag)

    def index(self, number: int) -> int:
        return self.first_index + number * self.stride

    def first_indices(self) -> Iterator[int]:
        """The operations in the order in which they are begun."""
        for number in range(self.count):
            first = self.index(number) * self.chain
            yield from range(first, first + self.chain)

    def begin_at(self, start_ns: int) -> None:
        """Move every instant, so that the part begins then."""
        shift_ns = start_ns - self.start_ns
        self.start_ns = start_ns
        if self.end_ns != FOREVER_NS:
            self.end_ns += shift_ns
        if self.due_ns is not None:
            self.due_ns += shift_ns


def assign(plan: PhasePlan, stream: StreamPlan, worker: int, start_ns: int = 0) -> Assignment:
    """The part of worker number `worker` (from 0, within the stream).

    Operations are dealt out like cards: so the union of all workers' open schedules is exactly the process
    that was asked for, whatever its distribution. Closed loop leaves out workers without a client.
    """
    arrivals: AnyArrivals = from_json(stream.arrivals)
    end_ns = FOREVER_NS
    if plan.measure_s is not None:
        end_ns = start_ns + round((plan.warmup_s + plan.measure_s) * 1e9)
    workers, clients, due_ns = stream.workers, 0, None
    if isinstance(arrivals, Closed):
        workers, clients = min(workers, arrivals.clients), arrivals.share(worker, workers)
        count = FOREVER_NS if stream.limit is None else -(-stream.limit // stream.chain)
    else:
        assert end_ns != FOREVER_NS, "an open arrival process needs a duration"
        offsets_s = arrivals.offsets_s((end_ns - start_ns) / 1e9)[: stream.limit]
        due_ns = start_ns + np.rint(offsets_s[worker::workers] * 1e9).astype(np.int64)
        count = len(offsets_s)
    return Assignment(
        start_ns=start_ns,
        end_ns=end_ns,
        drain_ns=round(plan.drain_s * 1e9),
        timeout_ns=round(plan.timeout_s * 1e9),
        first_index=worker,
        stride=workers,
        clients=clients,
        due_ns=due_ns,
        count=len(range(worker, count, workers)) if worker < workers else 0,
        chain=stream.chain,
        think_ns=round(stream.think_s * 1e9),
        max_in_flight=FOREVER_NS if stream.max_in_flight is None else -(-stream.max_in_flight // workers),
    )
