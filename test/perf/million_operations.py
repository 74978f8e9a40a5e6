"""Record and report of a million operations: merge the workers' files, summarise, store, write the report.

Each repeat is a process of its own, over files written in the recorder's own format by four workers. The
other side of the comparison is only reading the same files into memory.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from test.perf.claims import Line, options, show

OPERATIONS = 1_000_000
WORKERS = 4
SECONDS = 100.0
STREAM = "search"


def write_rows(directory: Path, worker: int) -> None:
    """A quarter of the operations: poisson arrivals, log-normal latency, a few errors, recall."""
    from aifbench.load.recorder import ROW, rows_path
    from aifbench.load.rendezvous import rows_name
    from aifbench.load.workload import NOT_SEEN

    n, random = OPERATIONS // WORKERS, np.random.default_rng(worker)
    origin_ns = 7_000_000_000
    rows = np.zeros(n + 1, ROW)
    rows["index"][0], rows["intended_ns"][0] = NOT_SEEN, origin_ns
    some = rows[1:]
    some["index"] = np.arange(n) * WORKERS + worker
    some["intended_ns"] = origin_ns + np.sort(random.uniform(0, SECONDS * 1e9, n)).astype(np.int64)
    some["sent_ns"] = some["intended_ns"] + random.exponential(80_000, n).astype(np.int64)
    some["finished_ns"] = some["sent_ns"] + random.lognormal(15.0, 0.4, n).astype(np.int64)
    some["first_byte_ns"] = some["finished_ns"] - 10_000
    some["outcome"] = np.where(random.uniform(size=n) < 0.0005, 6, 0)
    some["status"], some["items"], some["bytes_out"], some["bytes_in"] = 200, 1, 1500, 400
    some["qualities"] = np.round(random.uniform(0.9, 1.0, (n, 2)), 1)
    some = some[np.argsort(some["finished_ns"])]
    rows[1:] = some
    rows.tofile(rows_path(directory, rows_name(STREAM, worker)))


def write_phase(directory: Path) -> None:
    from aifbench.load.plan import WorkerReport
    from aifbench.load.rendezvous import report_file, write_json

    directory.mkdir()
    for worker in range(WORKERS):
        write_rows(directory, worker)
        report = WorkerReport(
            STREAM, worker, "node1", 100 + worker, OPERATIONS // WORKERS, cpu_s=40.0, wall_s=SECONDS
        )
        write_json(directory / report_file(worker), report.to_json())


def record_and_report(root: Path) -> tuple[float, float, float]:
    """Of what follows the last operation of a run: seconds, peak memory in MB, and how much more that is than
    with the program loaded.
    """
    began_s = time.perf_counter()
    from aifbench.clock import SystemClock
    from aifbench.cluster.endpoint import Endpoint
    from aifbench.load.arrivals import Poisson, to_json
    from aifbench.load.fleet import PhaseOutcome
    from aifbench.load.plan import PhasePlan, Quality, StreamPlan
    from aifbench.report.html import run_html
    from aifbench.report.markdown import run_markdown
    from aifbench.results.store import RunStore
    from aifbench.results.summary import summarise
    from aifbench.servers.benchmark import Phase
    from aifbench.servers.run import stream_facts

    loaded_mb = _peak_mb()
    qualities = (Quality("recall@10", 0.9, 0.5), Quality("recall@10 tie-aware"))
    arrivals = to_json(Poisson(OPERATIONS / SECONDS))
    stream = StreamPlan(STREAM, "m:C", {}, arrivals, workers=WORKERS, qualities=qualities)
    plan = PhasePlan("search", (stream,), Endpoint("node2", 8000), measure_s=SECONDS)
    outcome = PhaseOutcome(root / "phase", plan, 1.7e9, "")
    runs = RunStore(root / "results", SystemClock())
    record = runs.create({"kind": "chroma", "name": "chroma"}, {"bench": "search"})
    samples = outcome.samples(stream)
    samples.save(runs.path(record.run_id) / "samples.npz")
    facts = stream_facts(Phase(plan), stream, "samples.npz", outcome.start_wall_s)
    record = replace(record, measurements=(summarise(samples, facts, outcome.reports(stream)),))
    runs.write(record)
    (root / "report.html").write_text(run_html(record))
    (root / "report.md").write_text(run_markdown(record))
    assert "search" in (root / "report.md").read_text()
    return time.perf_counter() - began_s, _peak_mb(), _peak_mb() - loaded_mb


def only_read(root: Path) -> tuple[float, float]:
    began_s = time.perf_counter()
    tables = [np.fromfile(path, np.int64) for path in (root / "phase").glob("*.rows")]
    assert len(tables) == WORKERS
    return time.perf_counter() - began_s, _peak_mb()


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main(argv: Sequence[str]) -> int:
    repeats = options(str(__doc__)).parse_args(argv).repeats
    took, peak = Line("record and report: time", "s", at_most=5.0), Line("  peak memory", "MB", at_most=300.0)
    grown = Line("  more than when it was loaded", "MB", at_most=100.0)
    read, read_peak = Line("only reading the same files: time", "s"), Line("  peak memory", "MB")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        context = get_context("spawn")
        with context.Pool(1) as pool:
            pool.apply(write_phase, (root / "phase",))
        for _ in range(repeats):
            for work, lines in ((record_and_report, (took, peak, grown)), (only_read, (read, read_peak))):
                with context.Pool(1) as pool:
                    values = pool.apply(work, (root,))
                for line, value in zip(lines, values, strict=False):
                    line.values.append(value)
    return show(f"{OPERATIONS:,} operations of {WORKERS} workers", [took, peak, grown, read, read_peak])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
