"""The same searches of a real Chroma through our HTTP client and through the official SDK.

Equal concurrency (one worker process, CLIENTS clients), the same queries, equal answers. CPU of the worker
per query, twice: while the load runs, and with the reading and scoring of answers, which our client does
afterwards and the SDK on the way.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from test.perf.claims import Line, options, ratios, show

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import NotReady
from aifbench.load.arrivals import Closed, to_json
from aifbench.load.fleet import Fleet, LocalLauncher
from aifbench.load.http import encode_request
from aifbench.load.plan import PhasePlan, Quality, StreamPlan
from aifbench.load.progress import Silent
from aifbench.load.samples import Samples
from aifbench.workloads.chroma_control import ChromaControl, ChromaNamespace
from aifbench.workloads.chroma_http import query_body
from aifbench.workloads.datasets import DatasetSpec, load_dataset
from aifbench.workloads.preparation import prepare_dataset

CLIENTS = 4
K = 10
QUERIES = 2000
QUALITIES = (Quality("recall"), Quality("recall, ties"))
SIDES = {"http": "aifbench.workloads.chroma_http", "sdk": "aifbench.workloads.chroma_sdk"}


@contextmanager
def chroma(directory: Path) -> Iterator[Endpoint]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    program = Path(sys.executable).with_name("chroma")
    command = [program, "run", "--path", directory, "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            endpoint = Endpoint("127.0.0.1", port)
            await_answer(endpoint)
            yield endpoint
        finally:
            server.terminate()


def await_answer(endpoint: Endpoint, timeout_s: float = 30.0) -> None:
    control = ChromaControl(endpoint)
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            control.heartbeat()
            return
        except NotReady:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one phase: milliseconds of the worker's CPU per query, and what came back, by query."""

    load_ms: float
    whole_ms: float
    rate_per_s: float
    samples: Samples


class Meter:
    """CPU time of the worker process from the start of a phase on, its preparation left out."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._before_s: float | None = None

    def watch(self) -> str:
        if self._before_s is None and self._pid is not None:
            self._before_s = cpu_s(self._pid)
        return ""

    def passed_s(self) -> float:
        return 0.0 if self._pid is None or self._before_s is None else cpu_s(self._pid) - self._before_s


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Bench:
    """A collection of clustered vectors, and the two ways to search it."""

    def __init__(self, endpoint: Endpoint, fleet: Fleet, data_dir: Path) -> None:
        spec = DatasetSpec(vectors=10_000, dim=128, queries=500, k=K)
        self._dataset = load_dataset(prepare_dataset(spec, data_dir))
        namespace = ChromaNamespace(ChromaControl(endpoint), "perf")
        self._collection = namespace.create("data", self._dataset.metric).name
        self._endpoint = endpoint
        self._fleet = fleet
        self._pid: int | None = None
        self._run(f"{SIDES['http']}:Ingest", -(-self._dataset.base // 500), {"batch": 500})

    def search(self, side: str, count: int = QUERIES) -> Cost:
        return self._run(f"{SIDES[side]}:Search", count, {"k": K}, QUALITIES)

    def making_ms(self) -> float:
        """CPU per request of what our client does once for each different query."""
        began_s = time.process_time()
        for query in self._dataset.queries:
            encode_request("POST", "/", "host", {}, query_body(query, K, None).encode())
        return (time.process_time() - began_s) * 1e3 / len(self._dataset.queries)

    def _run(
        self, workload: str, count: int, more: Mapping[str, int], qualities: tuple[Quality, ...] = ()
    ) -> Cost:
        params = {"dataset": str(self._dataset.path), "collection": self._collection, **more}
        stream = StreamPlan("s", workload, params, to_json(Closed(CLIENTS)), limit=count, qualities=qualities)
        meter = Meter(self._pid)
        plan = PhasePlan("p", (stream,), self._endpoint)
        outcome = self._fleet.run(plan, Silent(), watch=meter.watch)
        (report,) = outcome.reports(stream)
        samples = outcome.samples(stream)
        assert samples.ok.all() and len(samples) == count, (outcome.problem, report.failure, report.errors)
        self._pid = report.pid
        by_query = samples.select(np.argsort(samples.index))
        per_query_ms = 1e3 / count
        return Cost(
            report.cpu_s * per_query_ms, meter.passed_s() * per_query_ms, count / report.wall_s, by_query
        )


def main(argv: Sequence[str]) -> int:
    repeats = options(str(__doc__)).parse_args(argv).repeats
    load = {side: Line(f"{side}: client CPU per query under load", "ms") for side in SIDES}
    whole = {side: Line(f"{side}: with reading and scoring the answer", "ms") for side in SIDES}
    rate = {side: Line(f"{side}: queries per second, {CLIENTS} clients", "1/s") for side in SIDES}
    same = Line("answers of equal recall", "%", at_least=99.0)
    build = Line("http: making one request, before the load", "ms")
    with (
        tempfile.TemporaryDirectory() as name,
        chroma(Path(name) / "chroma") as endpoint,
        Fleet(Path(name) / "fleet", LocalLauncher(), workers=1) as fleet,
    ):
        bench = Bench(endpoint, fleet, Path(name) / "data")
        for side in SIDES:
            bench.search(side, 200)
        for _ in range(repeats):
            costs = {side: bench.search(side) for side in SIDES}
            for side, cost in costs.items():
                load[side].values.append(cost.load_ms)
                whole[side].values.append(cost.whole_ms)
                rate[side].values.append(cost.rate_per_s)
            ours, theirs = (costs[side].samples.qualities for side in SIDES)
            same.values.append(100 * float(np.mean(ours == theirs)))
            build.values.append(bench.making_ms())
    load_ratio = Line("  ratio http / sdk", "", ratios(load["http"], load["sdk"]), at_most=0.5)
    whole_ratio = Line("  ratio http / sdk", "", ratios(whole["http"], whole["sdk"]), at_most=0.5)
    lines = [*load.values(), load_ratio, *whole.values(), whole_ratio, build, *rate.values(), same]
    return show("Chroma search, k=10 of 10,000 x 128", lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
