"""A server that stalls once: what open and closed loop make of it, and what arithmetic says.

Every request takes 5 ms; those that arrive within the 2 s of the stall are answered when it is over. So
at 100/s for T seconds the open-loop p99 is 2 s - 1 % of T, while a closed loop of one client sees one
slow request among thousands: its p99 stays at 5 ms.
"""

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from test.fakes.http import HttpService
from test.perf.claims import Line, options, show

from aifbench.cluster.endpoint import Endpoint
from aifbench.load.arrivals import AnyArrivals, Closed, Constant, Offsets, to_json
from aifbench.load.fleet import START_LEAD_S, Fleet, LocalLauncher
from aifbench.load.plan import PhasePlan, StreamPlan
from aifbench.load.progress import Silent
from aifbench.load.samples import Samples
from aifbench.stats.intervals import quantile_rank

RATE = Constant(100)
SERVICE_S = 0.005
STALL_S = 2.0
WORKLOAD = "test.fakes.workloads:Numbered"


class Server:
    """An HttpService in a process of its own, so that nothing but its work slows it down."""

    def __init__(self) -> None:
        self._pipe, end = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(end,))
        process.start()
        self.address: tuple[str, int] = self._pipe.recv()
        self._process = process

    def stall(self) -> None:
        self._pipe.send(STALL_S)

    def close(self) -> None:
        self._pipe.send(None)
        self._process.join()


def serve(pipe: Connection) -> None:
    with HttpService() as service:
        pipe.send(service.address)
        while (stall_s := pipe.recv()) is not None:
            service.stall_until_s = time.monotonic() + stall_s


class Plan:
    """One stall, when a third of the phase is over."""

    def __init__(self, server: Server, seconds: float) -> None:
        self._server = server
        self._planned_s = time.monotonic() + START_LEAD_S + seconds / 3
        self.began_wall_s = 0.0

    def watch(self) -> str:
        if not self.began_wall_s and time.monotonic() >= self._planned_s:
            self._server.stall()
            self.began_wall_s = time.time()
        return ""


def load(fleet: Fleet, server: Server, arrivals: AnyArrivals, seconds: float) -> tuple[Samples, float]:
    """The samples, and when the stall began, in seconds since the start."""
    stream = StreamPlan("s", WORKLOAD, {"target": f"/work/{SERVICE_S * 1000:.0f}"}, to_json(arrivals))
    phase = PhasePlan("p", (stream,), Endpoint(*server.address), measure_s=seconds)
    plan = Plan(server, seconds)
    outcome = fleet.run(phase, Silent(), watch=plan.watch)
    samples = outcome.samples(stream)
    assert (samples.finished_ns > 0).all(), "every request was answered"
    return samples, plan.began_wall_s - outcome.start_wall_s


def oracle_s(due_s: Offsets, begin_s: float) -> float:
    end_s = begin_s + STALL_S
    caught = (due_s >= begin_s) & (due_s < end_s)
    return p99(np.where(caught, np.maximum(end_s - due_s, SERVICE_S), SERVICE_S))


def p99(values: np.ndarray) -> float:
    return float(np.sort(values)[quantile_rank(len(values), 0.99) - 1])


def main(argv: Sequence[str]) -> int:
    parser = options(str(__doc__))
    parser.add_argument("--seconds", type=float, default=10.0, help="of each phase (%(default)s)")
    given = parser.parse_args(argv)
    measured = Line("open loop, 100/s: p99 of the response", "ms")
    expected = Line("  by arithmetic", "ms")
    off = Line("  difference of the two", "%", at_most=1.0)
    closed = Line("closed loop, one client: p99", "ms")
    slowest = Line("  its slowest request", "ms")
    server = Server()
    try:
        for _ in range(given.repeats):
            with (
                tempfile.TemporaryDirectory() as root,
                Fleet(Path(root), LocalLauncher(), workers=1) as fleet,
            ):
                samples, began_s = load(fleet, server, RATE, given.seconds)
                one_client, _ = load(fleet, server, Closed(1), given.seconds)
            measured.values.append(p99(samples.response_ns) / 1e6)
            expected.values.append(oracle_s(RATE.offsets_s(given.seconds), began_s) * 1e3)
            off.values.append(abs(measured.values[-1] / expected.values[-1] - 1) * 100)
            closed.values.append(p99(one_client.response_ns) / 1e6)
            slowest.values.append(float(one_client.response_ns.max()) / 1e6)
    finally:
        server.close()
    return show(
        f"a stall of {STALL_S:g} s within {given.seconds:g} s", [measured, expected, off, closed, slowest]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
