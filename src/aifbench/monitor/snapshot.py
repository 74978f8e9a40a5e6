"""What Prometheus saw of a run, kept with the run: every sample of its services' series in the run's time.

A copy of the data base's blocks would hold two hours of everything that its user runs; this holds the run, as
OpenMetrics text, which any Prometheus takes back:

    gunzip metrics.om.gz && promtool tsdb create-blocks-from openmetrics metrics.om DATA_DIR
"""

import gzip
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from aifbench.results.record import RunRecord
from aifbench.workloads.monitors_control import MonitorsControl, Series

FILE = "prometheus/metrics.om.gz"
# One question's length: what Prometheus must hold at once for it stays small.
_SLICE_S = 300.0
# Before and after the run, so that a rate has something to begin with.
_MARGIN_S = 30.0
_MAX_BYTES = 64 << 20
# A range is closed at both ends in Prometheus 2, open at its beginning in 3: a millisecond less suits both.
_TICK_S = 0.001


@dataclass(frozen=True, slots=True)
class Window:
    """Times in s since 1970."""

    start_s: float
    end_s: float

    def slices(self) -> Iterator["Window"]:
        start_s = self.start_s
        while start_s < self.end_s:
            end_s = min(start_s + _SLICE_S, self.end_s)
            yield Window(start_s, end_s)
            start_s = end_s


def window_of(record: RunRecord) -> Window:
    """The time of a run with a margin. Raises ValueError for a record whose times cannot be read."""
    started = datetime.fromisoformat(record.created_utc).timestamp()
    ended = datetime.fromisoformat(record.ended_utc or record.created_utc).timestamp()
    return Window(started - _MARGIN_S, ended + _MARGIN_S)


def selectors(record: RunRecord) -> list[str]:
    """What belongs to a run: the series of its services' jobs and their exporters, and benchmarks' own."""
    members = record.service.get("members")
    services = list(members.values()) if isinstance(members, dict) else [record.service]
    jobs = sorted({str(service["job_id"]) for service in services if service.get("job_id")})
    found = [f'{{job_id=~"{"|".join(re.escape(job) for job in jobs)}"}}'] if jobs else []
    return [*found, '{job="bench"}']


def open_metrics(found: Iterable[Series]) -> Iterator[str]:
    """One line per sample."""
    for series in found:
        labels = {key: value for key, value in series.labels.items() if key != "__name__"}
        text = ",".join(f'{key}="{_escaped(value)}"' for key, value in sorted(labels.items()))
        name = series.labels["__name__"]
        yield from (f"{name}{{{text}}} {value} {at_s:.3f}\n" for at_s, value in series.samples)


def keep_snapshot(control: MonitorsControl, record: RunRecord, run_dir: Path) -> str:
    """Write FILE into the directory of a run unless it is there; in a line, what came of it.

    Appears complete or not at all. Raises ServiceError when Prometheus does not answer, OSError when the disk
    takes nothing.
    """
    target = run_dir / FILE
    if target.exists():
        return ""
    target.parent.mkdir(exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with gzip.open(partial, "wt", compresslevel=6, encoding="utf-8") as file:
            count, is_whole = _write(control, selectors(record), window_of(record), file, partial)
        if count:
            partial.rename(target)
    finally:
        with suppress(OSError):
            partial.unlink()
        with suppress(OSError):
            target.parent.rmdir()  # only where nothing is in it
    cut = "" if is_whole else f", cut at {_MAX_BYTES >> 20} MiB"
    return f"kept {count:,} samples that Prometheus has of this run{cut}" if count else ""


def _write(
    control: MonitorsControl, asked: Sequence[str], window: Window, file: IO[str], path: Path
) -> tuple[int, bool]:
    """(samples written, whether that is all)."""
    count, is_whole = 0, True
    for part in window.slices():
        if path.stat().st_size > _MAX_BYTES:
            is_whole = False
            break
        range_ms = round((part.end_s - part.start_s - _TICK_S) * 1000)
        for selector in asked:
            found = control.query(f"{selector}[{range_ms}ms]", part.end_s)
            for line in open_metrics(found):
                file.write(line)
                count += 1
    file.write("# EOF\n")
    return count, is_whole


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
