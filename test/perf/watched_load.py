"""What it costs a benchmark to be watched: throughput with its metrics served and scraped, and without.

The pair is repeated, first one way and then the other. Watched means all of it: the page of bench_* metrics,
a Prometheus that reads it every second as the monitors' does, and a node exporter that is read every 5 s. The
null workload is the worst that can be, hundreds of thousands of rows a second; the reference server is what a
load looks like. The claim: less than 2 % is lost.
"""

import json
import math
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from test.perf.claims import Line, options, show

from aifbench.cluster.endpoint import Endpoint
from aifbench.load.arrivals import Closed, to_json
from aifbench.load.fleet import Fleet, LocalLauncher
from aifbench.load.plan import PhasePlan, StreamPlan
from aifbench.load.progress import Progress, Silent
from aifbench.monitor.bench_export import exported
from aifbench.stats.paired import paired_summary
from aifbench.workloads.prompts import PromptSpec, prepare
from aifbench.workloads.reference_plan import ReferencePlan
from aifbench.workloads.reference_process import ReferenceServer

SECONDS = 4.0
REPEATS = 12
MOST_LOST_PERCENT = 2.0
HERE = "127.0.0.1"


def free_port() -> int:
    with socket.create_server((HERE, 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def process(*command: str) -> Iterator[None]:
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=quiet, stderr=quiet) as running:
        try:
            yield
        finally:
            running.terminate()


class Watching:
    """Prometheus with a node exporter; `on` is the context of one benchmark that they watch."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._targets = folder / "targets"
        self._targets.mkdir()
        node, port = f"{HERE}:{free_port()}", free_port()
        config = folder / "prometheus.yml"
        bench = {"files": [f"{self._targets}/*.json"], "refresh_interval": "1s"}
        jobs = [
            {
                "job_name": "bench",
                "scrape_interval": "1s",
                "scrape_timeout": "1s",
                "file_sd_configs": [bench],
            },
            {"job_name": "node", "scrape_interval": "5s", "static_configs": [{"targets": [node]}]},
        ]
        config.write_text(json.dumps({"scrape_configs": jobs}))
        stack.enter_context(process(find("prometheus-node-exporter"), f"--web.listen-address={node}"))
        stack.enter_context(
            process(
                find("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={HERE}:{port}",
            )
        )
        time.sleep(2.0)

    @contextmanager
    def on(self) -> Iterator[Progress]:
        with exported(Silent(), service="s", kind="null", targets_dir=self._targets) as progress:
            progress.phase("run", "r")
            yield progress

    @contextmanager
    def off(self) -> Iterator[Progress]:
        yield Silent()


def find(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise SystemExit(f"no {program}: apt-get install prometheus prometheus-node-exporter")
    return found


def throughput(plan: PhasePlan, progress: Progress) -> float:
    with tempfile.TemporaryDirectory() as root, Fleet(Path(root), LocalLauncher(), workers=1) as fleet:
        outcome = fleet.run(plan, progress, watch=str)
        return int(outcome.samples(plan.streams[0]).ok.sum()) / SECONDS


def plans(endpoint: Endpoint, folder: Path) -> dict[str, PhasePlan]:
    source = prepare(PromptSpec(kind="repeat", text="hi", output_tokens="16"), folder)
    generate = {"source": str(source), "model": "reference"}
    streams = {
        "null workload": StreamPlan("s", "aifbench.load.null:Null", {}, to_json(Closed(1))),
        "answers of the reference server": StreamPlan(
            "s", "aifbench.workloads.inference:Generate", generate, to_json(Closed(16))
        ),
    }
    return {name: PhasePlan("p", (s,), endpoint, measure_s=SECONDS) for name, s in streams.items()}


def main(argv: Sequence[str]) -> int:
    repeats = options(str(__doc__), REPEATS).parse_args(argv).repeats
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(ReferenceServer(ReferencePlan(ttft_s=0.02, itl_s=0.001)))
        watching = Watching(folder, stack)
        lines = []
        for name, plan in plans(server.endpoint, folder / "prompts").items():
            sides = {"off": Line(f"{name}: not watched", "op/s"), "on": Line(f"{name}: watched", "op/s")}
            for number in range(repeats):
                for side in ("off", "on") if number % 2 else ("on", "off"):
                    with getattr(watching, side)() as progress:
                        sides[side].values.append(throughput(plan, progress))
            lines += [*sides.values(), lost(sides["off"].values, sides["on"].values)]
    return show("watched and not", lines)


def lost(off: Sequence[float], on: Sequence[float]) -> Line:
    """The share lost; its spread is the 95 % interval of the paired ratio, not the range of single pairs."""
    ratio = paired_summary(off, on).ratio
    assert ratio is not None
    bounds = [bound if bound is not None else math.nan for bound in (ratio.high, ratio.value, ratio.low)]
    values = [100 * (1 - bound) for bound in bounds]
    return Line("  lost, with its 95 % interval", "%", values, at_most=MOST_LOST_PERCENT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
