"""What fio writes with `--output-format=json` or `json+`, as numbers. Pure: text in, values out.

Other text may come before the JSON, and after it. Jobs are judged one by one: an error in one of them, and
a job that a signal cut, whose `error` is 0 and which shows only by ending too early. In client/server mode
the last entry sums up all clients, without percentiles; it is not used, the clients' own bins are merged.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aifbench.errors import UsageError
from aifbench.units import parse_duration_s

DIRECTIONS = ("read", "write", "trim")
_ALL_CLIENTS = "All clients"
_CUT_SHARE = 0.95  # a job below this share of the time or the bytes asked was cut


@dataclass(frozen=True, slots=True)
class FioStream:
    """What one job did in one direction. `bins` are completion times: nanoseconds to counts (json+ only)."""

    direction: str
    size_bytes: int
    runtime_s: float
    operations: int
    mean_ns: float
    percentiles_ns: Mapping[float, float] = field(default_factory=dict)
    bins: Mapping[int, int] = field(default_factory=dict)

    @property
    def bytes_per_s(self) -> float:
        return self.size_bytes / self.runtime_s if self.runtime_s else 0.0


@dataclass(frozen=True, slots=True)
class FioJob:
    """One process (or all of one job section, where it groups its report). `error` is an errno, 0 for none.

    `asked_s` and `asked_bytes` are None where that is not what ends the job.
    """

    name: str
    group: int
    host: str
    error: int
    runtime_s: float
    asked_s: float | None
    asked_bytes: int | None
    streams: tuple[FioStream, ...]

    @property
    def is_cut(self) -> bool:
        """It had time left, and bytes left."""
        moved = sum(stream.size_bytes for stream in self.streams)
        has_time_left = self.asked_s is None or self.runtime_s < _CUT_SHARE * self.asked_s
        has_bytes_left = self.asked_bytes is None or moved < _CUT_SHARE * self.asked_bytes
        is_bounded = self.asked_s is not None or self.asked_bytes is not None
        return is_bounded and has_time_left and has_bytes_left

    @property
    def error_text(self) -> str:
        return os.strerror(self.error) if self.error else ""


@dataclass(frozen=True, slots=True)
class FioRun:
    """`messages` are fio's own lines outside the JSON; `signal` is the one that ended it, as it said."""

    version: str = ""
    jobs: tuple[FioJob, ...] = ()
    messages: tuple[str, ...] = ()
    signal: int | None = None

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(job.host for job in self.jobs if job.host))


@dataclass(frozen=True, slots=True)
class FioTotal:
    """Jobs of one group in one direction, together.

    `last_done` is all bytes over the time of the slowest job; `first_done` adds up each job's own rate, as
    if all had gone on to the end. Percentiles are of the merged bins, empty without them.
    """

    group: int
    direction: str
    jobs: int
    last_done_bytes_per_s: float
    first_done_bytes_per_s: float
    operations_per_s: float
    time_s: float
    slowest_share: float  # the slowest job's rate against the mean of all
    percentiles_ns: Mapping[float, float] = field(default_factory=dict)


def parse_fio(text: str) -> FioRun:
    """An output without JSON, or with a JSON that was cut, gives a run without jobs."""
    data, rest = _json_within(text)
    messages = tuple(
        dict.fromkeys(found.strip() for found in re.findall(r"(?m)^(?:<\S+> )?fio: (.+)$", rest))
    )
    signal = re.search(r"terminating on signal (\d+)", rest)
    common = data.get("global options", {})
    entries = [*data.get("jobs", ()), *data.get("client_stats", ())]
    return FioRun(
        version=str(data.get("fio version", "")).removeprefix("fio-"),
        jobs=tuple(_job(entry, common) for entry in entries if entry.get("jobname") != _ALL_CLIENTS),
        messages=messages,
        signal=int(signal[1]) if signal else None,
    )


def totals(run: FioRun) -> tuple[FioTotal, ...]:
    """One for each group and direction with operations."""
    found: dict[tuple[int, str], list[FioStream]] = {}
    for job in run.jobs:
        for stream in job.streams:
            found.setdefault((job.group, stream.direction), []).append(stream)
    return tuple(_total(group, direction, streams) for (group, direction), streams in found.items())


def merged_percentiles(
    streams: Iterable[FioStream], wanted: Iterable[float] = (50.0, 90.0, 99.0, 99.9)
) -> dict[float, float]:
    """Percentile to nanoseconds over the operations of all; empty unless each stream has its bins."""
    counts: Counter[int] = Counter()
    for stream in streams:
        if stream.operations and not stream.bins:
            return {}
        counts.update(stream.bins)
    values = sorted(counts.items())
    return {percent: _at(values, percent * counts.total() / 100) for percent in wanted} if values else {}


def _at(values: list[tuple[int, int]], rank: float) -> float:
    below = 0
    for value, count in values:
        below += count
        if below >= rank:
            return float(value)
    return float(values[-1][0])


def _total(group: int, direction: str, streams: list[FioStream]) -> FioTotal:
    time_s = max(stream.runtime_s for stream in streams)
    rates = [stream.bytes_per_s for stream in streams]
    moved = sum(stream.size_bytes for stream in streams)
    return FioTotal(
        group=group,
        direction=direction,
        jobs=len(streams),
        last_done_bytes_per_s=moved / time_s if time_s else 0.0,
        first_done_bytes_per_s=sum(rates),
        operations_per_s=sum(stream.operations for stream in streams) / time_s if time_s else 0.0,
        time_s=time_s,
        slowest_share=min(rates) * len(rates) / sum(rates) if sum(rates) else 0.0,
        percentiles_ns=merged_percentiles(streams),
    )


def _json_within(text: str) -> tuple[dict[str, Any], str]:
    """The object in `text`, and the text around it; an empty one when there is none, or not all of it."""
    for found in re.finditer(r"(?m)^\{", text):
        try:
            data, end = json.JSONDecoder().raw_decode(text, found.start())
        except json.JSONDecodeError:
            continue
        if isinstance(data, dict) and "fio version" in data:
            return data, text[: found.start()] + "\n" + text[end:]
    return {}, text


def _job(entry: Mapping[str, Any], common: Mapping[str, str]) -> FioJob:
    options = {**common, **entry.get("job options", {})}
    streams = [_stream(direction, entry[direction]) for direction in DIRECTIONS if direction in entry]
    port = entry.get("port")
    return FioJob(
        name=str(entry.get("jobname", "")),
        group=int(entry.get("groupid", 0)),
        host=f"{entry['hostname']}:{port}" if "hostname" in entry else "",
        error=int(entry.get("error", 0)),
        runtime_s=entry.get("job_runtime", 0) / 1000,
        asked_s=_seconds(options.get("runtime")),
        asked_bytes=None if options.keys() & _OTHER_ENDS else _bytes(options.get("size")),
        streams=tuple(stream for stream in streams if stream.operations),
    )


# Options that let a job move another amount than its `size`. `time_based` is not among what fio repeats.
_OTHER_ENDS = {"io_size", "loops", "number_ios", "fill_device", "fill_fs", "zonemode"}
_SIZE = re.compile(r"(\d+)([kmgt]?)(?:i?b)?", re.IGNORECASE)


def _stream(direction: str, data: Mapping[str, Any]) -> FioStream:
    times = data.get("clat_ns", {})
    return FioStream(
        direction=direction,
        size_bytes=int(data["io_bytes"]),
        runtime_s=data["runtime"] / 1000,
        operations=int(data["total_ios"]),
        mean_ns=float(times.get("mean", 0.0)),
        percentiles_ns={float(key): float(value) for key, value in times.get("percentile", {}).items()},
        bins={int(key): int(value) for key, value in times.get("bins", {}).items()},
    )


def _seconds(text: str | None) -> float | None:
    try:
        return parse_duration_s(text) if text else None
    except UsageError:
        return None


def _bytes(text: str | None) -> int | None:
    """fio's `k` is 1024; a percentage is of a size we do not know."""
    found = _SIZE.fullmatch(text or "")
    return int(found[1]) * 1024 ** " kmgt".index(found[2].lower() or " ") if found else None
