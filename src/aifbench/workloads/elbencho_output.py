"""What elbencho writes, as numbers: one JSON object a phase (`--jsonfile`), or its printed table.

JSON values are texts, and exact; the table cuts them to whole numbers. `first done` is the rate until the
first thread had no more to do, which flatters; `last done` that of the whole, by which it is judged.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ElbenchoRate:
    """At the end of the first or of the last thread; None where the phase has no such rate."""

    time_s: float | None = None
    bytes_per_s: float | None = None
    operations_per_s: float | None = None
    entries_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class ElbenchoPhase:
    """`name` as printed: MKDIRS, WRITE, STAT, READ, RMFILES, RMDIRS, SYNC, DROPCACHE."""

    name: str
    first: ElbenchoRate
    last: ElbenchoRate
    latency_us: tuple[float, float, float] | None = None  # smallest, mean, largest of one read or write
    threads: int | None = None
    hosts: int | None = None
    is_direct: bool | None = None
    version: str = ""


@dataclass(frozen=True, slots=True)
class ElbenchoRun:
    """`damaged` counts JSON lines that could not be read, as of a run that was killed while writing."""

    phases: tuple[ElbenchoPhase, ...] = ()
    damaged: int = 0
    errors: tuple[str, ...] = ()


def parse_json(text: str) -> ElbenchoRun:
    """Of a `--jsonfile`: several runs append to one."""
    phases, damaged = [], 0
    for line in text.splitlines():
        if not line.strip():
            continue
        try:
            phases.append(_phase_of_json(json.loads(line)))
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
            damaged += 1
    return ElbenchoRun(tuple(phases), damaged)


def parse_text(text: str) -> ElbenchoRun:
    """Of the printed table, or of `--resfile`."""
    return ElbenchoRun(
        tuple(_phase_of_table(name, block) for name, block in _blocks(text)), errors=parse_errors(text)
    )


def parse_errors(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(re.findall(r"(?m)^.*?ERROR: (.+?)\s*$", text)))


_ROW = re.compile(r"^(?P<name>[A-Z]+)?\s+(?P<what>\S.*?)\s*:\s+(?P<first>\S+)\s+(?P<last>\S+)\s*$")
_PART = re.compile(r"([\d.]+)(ms|us|h|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}


def _phase_of_json(data: Mapping[str, Any]) -> ElbenchoPhase:
    config = data.get("config", {})
    latency = data["last_done"].get("latency", {}).get("IO")
    return ElbenchoPhase(
        name=str(data["phase_type"]),
        first=_rate_of_json(data["first_done"]),
        last=_rate_of_json(data["last_done"]),
        latency_us=_latency(latency) if isinstance(latency, dict) else None,
        threads=int(config["threads"]) if "threads" in config else None,
        hosts=int(config["hosts"]) if "hosts" in config else None,
        is_direct=str(config["direct_io"]).lower() in ("1", "true") if "direct_io" in config else None,
        version=str(config.get("version", "")),
    )


def _rate_of_json(data: Mapping[str, Any]) -> ElbenchoRate:
    time_ms = _number(data.get("elapsed_time_ms"))
    return ElbenchoRate(
        time_s=time_ms / 1000 if time_ms is not None else None,
        bytes_per_s=_number(data.get("bytes/s")),
        operations_per_s=_number(data.get("iops")),
        entries_per_s=_number(data.get("entries/s")),
    )


def _latency(data: Mapping[str, Any]) -> tuple[float, float, float] | None:
    smallest, mean, largest = (_number(data.get(key)) for key in ("min_us", "avg_us", "max_us"))
    if smallest is None or mean is None or largest is None:
        return None
    return smallest, mean, largest


def _blocks(text: str) -> Iterator[tuple[str, dict[str, tuple[str, str]]]]:
    """(phase, rows by their label in lower case) for each part of the table."""
    name, rows = "", dict[str, tuple[str, str]]()
    for line in text.splitlines():
        found = _ROW.match(line)
        if found is None:
            continue
        if found["name"]:
            if rows:
                yield name, rows
            name, rows = found["name"], {}
        if name:
            rows[found["what"].lower()] = (found["first"], found["last"])
    if rows:
        yield name, rows


def _phase_of_table(name: str, rows: Mapping[str, tuple[str, str]]) -> ElbenchoPhase:
    first, last = (_rate_of_table(rows, column) for column in (0, 1))
    return ElbenchoPhase(name, first, last)


def _rate_of_table(rows: Mapping[str, tuple[str, str]], column: int) -> ElbenchoRate:
    cells = {what: pair[column] for what, pair in rows.items()}
    throughput = _number(cells.get("throughput mib/s"))
    return ElbenchoRate(
        time_s=_duration_s(cells.get("elapsed time", "")),
        bytes_per_s=throughput * 2**20 if throughput is not None else None,
        operations_per_s=_number(cells.get("iops")),
        entries_per_s=_number(cells.get("files/s") or cells.get("dirs/s")),
    )


def _duration_s(text: str) -> float | None:
    """`2m3.241s`, `850ms`."""
    parts = _PART.findall(text)
    return sum(float(value) * _SECONDS[unit] for value, unit in parts) if parts else None


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None
