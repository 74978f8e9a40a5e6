"""What OpenLIT adds to each operation of a vendor's client (--via sdk --instrument), beside the client alone.

The same operations one after the other, by a worker process of its own each time, because a process that was
instrumented stays so: searches of a real Chroma, and streamed answers of the reference server, which makes
them without delay. Spans are thrown away, or sent to a receiver here that throws them away.
"""

import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from test.perf.chroma_client import chroma
from test.perf.claims import Line, options, show

from aifbench.cluster.endpoint import Endpoint
from aifbench.load.arrivals import Closed, to_json
from aifbench.load.fleet import Fleet, LocalLauncher
from aifbench.load.plan import PhasePlan, StreamPlan
from aifbench.load.progress import Silent
from aifbench.stats.paired import paired_summary
from aifbench.workloads.chroma_control import ChromaControl, ChromaNamespace
from aifbench.workloads.datasets import DatasetSpec, load_dataset
from aifbench.workloads.preparation import prepare_dataset
from aifbench.workloads.prompts import PromptSpec, prepare
from aifbench.workloads.reference_plan import ReferencePlan
from aifbench.workloads.reference_process import ReferenceServer

OPERATIONS = 400
TOKENS = 16
REPEATS = 7
VARIANTS = ("the vendor's client alone", "instrumented", "instrumented, spans sent")


class Side:
    """One kind of operation: its median time in milliseconds, by variant."""

    def __init__(self, name: str, workload: str, endpoint: Endpoint, **params: Any) -> None:
        self.name = name
        self._workload, self._endpoint, self._params = workload, endpoint, params
        self.lines = {variant: Line(f"{name}: {variant}, p50", "ms") for variant in VARIANTS}

    def measure(self, telemetry: Mapping[str, str] | None) -> float:
        more = {} if telemetry is None else {"instrument": telemetry}
        workload = f"aifbench.workloads.{self._workload}"
        stream = StreamPlan("s", workload, {**self._params, **more}, to_json(Closed(1)), limit=OPERATIONS)
        plan = PhasePlan("p", (stream,), self._endpoint)
        with tempfile.TemporaryDirectory() as root, Fleet(Path(root), LocalLauncher(), workers=1) as fleet:
            outcome = fleet.run(plan, Silent(), watch=str)
            samples, (report,) = outcome.samples(stream), outcome.reports(stream)
        assert samples.ok.all() and len(samples) == OPERATIONS, (
            outcome.problem,
            report.failure,
            report.errors,
        )
        return float(np.median(samples.service_ns)) / 1e6

    def compare(self, receiver_url: str) -> None:
        for telemetry, line in zip((None, {}, {"url": receiver_url}), self.lines.values(), strict=True):
            line.values.append(self.measure(telemetry))

    def costs(self) -> str:
        alone, *others = self.lines.values()
        return "".join(f"  {line.what} adds {_added(alone, line)}\n" for line in others)


def _added(alone: Line, other: Line) -> str:
    found = paired_summary(alone.values, other.values)
    added, ratio = found.difference, found.ratio
    assert added is not None and ratio is not None
    interval = "" if added.low is None else f" [{added.low:.2f}, {added.high:.2f}]"
    return f"{added.value:.2f}{interval} ms, {ratio.value:.2f} times as long"


class Sink(BaseHTTPRequestHandler):
    """Takes whatever an OTLP exporter sends, and forgets it."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@contextmanager
def receiver() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def chroma_side(endpoint: Endpoint, folder: Path) -> Side:
    dataset = load_dataset(prepare_dataset(DatasetSpec(vectors=5_000, dim=128, queries=200, k=10), folder))
    collection = ChromaNamespace(ChromaControl(endpoint), "perf").create("data", dataset.metric).name
    params = {"dataset": str(dataset.path), "collection": collection}
    stream = StreamPlan(
        "s", "aifbench.workloads.chroma_http:Ingest", {**params, "batch": 500}, to_json(Closed(1)), limit=10
    )
    with tempfile.TemporaryDirectory() as root, Fleet(Path(root), LocalLauncher(), workers=1) as fleet:
        fleet.run(PhasePlan("p", (stream,), endpoint), Silent(), watch=str)
    return Side("Chroma query", "chroma_sdk:Search", endpoint, **params)


def openai_side(endpoint: Endpoint, folder: Path) -> Side:
    source = prepare(PromptSpec(kind="repeat", text="hi", output_tokens=str(TOKENS)), folder)
    return Side(
        f"streamed answer of {TOKENS} tokens",
        "inference_sdk:Generate",
        endpoint,
        source=str(source),
        model="reference",
    )


def main(argv: Sequence[str]) -> int:
    repeats = options(str(__doc__), REPEATS).parse_args(argv).repeats
    with (
        tempfile.TemporaryDirectory() as name,
        chroma(Path(name) / "chroma") as store,
        ReferenceServer(ReferencePlan(ttft_s=0.0, itl_s=0.0)) as llm,
        receiver() as url,
    ):
        sides = [chroma_side(store, Path(name) / "data"), openai_side(llm.endpoint, Path(name) / "prompts")]
        for _ in range(repeats):
            for side in sides:
                side.compare(url)
    status = show("instrumented clients", [line for side in sides for line in side.lines.values()])
    sys.stdout.write("".join(side.costs() for side in sides))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
