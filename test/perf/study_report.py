"""The report of a study of 200 runs with 100,000 samples each: time, memory, and size of the page.

Records are as full as real ones: four measurements with series of two minutes and all latency quantiles. The
samples files are there, so that a report that read them would show it, and are the same bytes under 200
names. The other side of the comparison is only reading the records.
"""

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from test.fakes.records import sample_record
from test.fakes.studies import rate_study
from test.perf.claims import Line, options, show

RATES, REPEATS, SAMPLES = tuple(range(20, 220, 10)), 10, 100_000


def write_study(results: Path) -> str:
    from aifbench.clock import SystemClock
    from aifbench.results.store import RunStore
    from aifbench.studies.store import StudyStore

    record, runs = rate_study(rates=RATES, repeats=REPEATS, noise=0.02)
    full = sample_record().measurements
    store, studies = RunStore(results, SystemClock()), StudyStore(results / "studies", SystemClock())
    made = studies.create("big", (record.recipe_text, "big.yaml"), record.points, record.trials)
    results.mkdir(parents=True, exist_ok=True)
    samples = results / "samples.npz"
    np.savez(samples, **{name: np.arange(SAMPLES, dtype=np.int64) for name in ("sent_ns", "finished_ns")})
    for run_id, run in runs.items():
        phases = store.path(run_id) / "phases/search"
        phases.mkdir(parents=True)
        os.link(samples, phases / "samples-search.npz")
        (main,) = run.measurements
        fuller = replace(
            main, series={name: values * 2 for name, values in full[1].series.items()},
            latency_quantiles={**full[1].latency_quantiles, **main.latency_quantiles},
            metrics=(*main.metrics, *(m for m in full[1].metrics if main.metric(m.name) is None)),
        )  # fmt: skip
        others = tuple(replace(m, phase=f"{m.phase}-too") for m in full)
        store.write(replace(run, measurements=(fuller, *others)))
    studies.write(replace(record, study_id=made.study_id))
    return made.study_id


def make_report(results: Path, study_id: str) -> tuple[float, float, float]:
    """Seconds, peak memory and size of the page in MB, of all four formats."""
    began_s = time.perf_counter()
    from aifbench.config import load_config
    from aifbench.session import Session

    environ = {"AIFBENCH_RESULTS": str(results), "AIFBENCH_SCHEDULER": "local", "HOME": str(results)}
    session = Session(load_config(environ), environ=environ)
    page, *_ = session.report(study_id)
    assert str(REPEATS) in page.read_text()
    return time.perf_counter() - began_s, _peak_mb(), page.stat().st_size / 1e6


def only_read(results: Path, _: str) -> tuple[float, float, float]:
    began_s = time.perf_counter()
    found = [json.loads(path.read_bytes()) for path in results.glob("*/record.json")]
    assert len(found) >= len(RATES) * REPEATS - 1
    return time.perf_counter() - began_s, _peak_mb(), 0.0


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main(argv: Sequence[str]) -> int:
    repeats = options(str(__doc__), repeats=3).parse_args(argv).repeats
    took, peak = Line("report: time", "s", at_most=10.0), Line("  peak memory", "MB", at_most=500.0)
    size = Line("  study.html", "MB", at_most=5.0)
    read, read_peak = Line("only reading the records: time", "s"), Line("  peak memory", "MB")
    with tempfile.TemporaryDirectory() as name:
        results = Path(name) / "results"
        context = get_context("spawn")
        with context.Pool(1) as pool:
            study_id = pool.apply(write_study, (results,))
        for _ in range(repeats):
            for work, lines in ((make_report, (took, peak, size)), (only_read, (read, read_peak))):
                with context.Pool(1) as pool:
                    values = pool.apply(work, (results, study_id))
                for line, value in zip(lines, values, strict=False):
                    line.values.append(value)
    runs = len(RATES) * REPEATS
    return show(f"a study of {runs} runs with {SAMPLES:,} samples each", [took, peak, size, read, read_peak])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
