"""What the load engine itself costs: operations that do nothing, in a real worker process.

Closed loop: operations per second of one worker, beside a bare loop that reads the clock twice around the
same call. Open loop: how late operations are sent, beside a bare loop that sleeps until each is due.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from test.perf.claims import Line, options, show

from aifbench.cluster.endpoint import Endpoint
from aifbench.load.arrivals import AnyArrivals, Closed, Constant, Poisson, to_json
from aifbench.load.fleet import Fleet, LocalLauncher
from aifbench.load.null import Null
from aifbench.load.plan import PhasePlan, StreamPlan
from aifbench.load.progress import Silent
from aifbench.load.samples import Samples

SECONDS = 2.0
RATE_PER_S = 10_000
CLOSED = Closed(1)
OPEN: tuple[tuple[str, Constant | Poisson], ...] = (
    ("constant", Constant(RATE_PER_S)),
    ("poisson", Poisson(RATE_PER_S)),
)


def load(*every: AnyArrivals) -> list[Samples]:
    """One phase per arrival process, on the same worker."""
    plans = []
    for arrivals in every:
        stream = StreamPlan("null", "aifbench.load.null:Null", {}, to_json(arrivals))
        plans.append(PhasePlan("p", (stream,), Endpoint("127.0.0.1", 1), measure_s=SECONDS))
    with tempfile.TemporaryDirectory() as root, Fleet(Path(root), LocalLauncher(), workers=1) as fleet:
        outcomes = [fleet.run(plan, Silent(), watch=str) for plan in plans]
        return [outcome.samples(outcome.plan.streams[0]) for outcome in outcomes]


def bare_rate_per_s() -> float:
    perform, now_ns = Null().perform, time.perf_counter_ns
    end_ns = now_ns() + round(SECONDS * 1e9 / 4)
    count, finished_ns = 0, 0
    while finished_ns < end_ns:
        now_ns()
        perform(count)
        finished_ns = now_ns()
        count += 1
    return count / (SECONDS / 4)


def bare_lag_ms(arrivals: Constant | Poisson) -> float:
    now_ns, sleep = time.perf_counter_ns, time.sleep
    due_ns = (now_ns() + arrivals.offsets_s(SECONDS / 2) * 1e9).astype(np.int64).tolist()
    lags = []
    for due in due_ns:
        left_ns = due - now_ns()
        if left_ns > 0:
            sleep(left_ns / 1e9)
        lags.append(now_ns() - due)
    return p99_ms(np.array(lags))


def p99_ms(values_ns: np.ndarray) -> float:
    return float(np.quantile(values_ns, 0.99)) / 1e6


def main(argv: Sequence[str]) -> int:
    repeats = options(str(__doc__)).parse_args(argv).repeats
    rate = Line("closed loop, one worker", "op/s", at_least=100_000)
    bare = Line("  bare loop: clock, call, clock", "op/s")
    lags = {name: Line(f"lag p99, {name} at {RATE_PER_S:,}/s", "ms", at_most=1.0) for name, _ in OPEN}
    bare_lags = {name: Line("  bare loop: sleep until due", "ms") for name, _ in OPEN}
    for _ in range(repeats):
        closed, *opened = load(CLOSED, *(arrivals for _, arrivals in OPEN))
        rate.values.append(len(closed) / SECONDS)
        bare.values.append(bare_rate_per_s())
        for (name, arrivals), samples in zip(OPEN, opened, strict=True):
            assert len(samples) == len(arrivals.offsets_s(SECONDS))
            lags[name].values.append(p99_ms(samples.lag_ns))
            bare_lags[name].values.append(bare_lag_ms(arrivals))
    pairs = [line for name, _ in OPEN for line in (lags[name], bare_lags[name])]
    return show("null workload", [rate, bare, *pairs])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
