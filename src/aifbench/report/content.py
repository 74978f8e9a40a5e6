"""What a report of one run says, free of any format: one wording for text, Markdown and HTML."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from aifbench.report.reproduce import NOT_ASKED, address, asked, is_attached
from aifbench.results.headline import (
    headline_metrics,
    is_streamed,
    main_measurement,
    measures_itself,
    short_name,
)
from aifbench.results.record import Check, Measurement, Metric, Role, RunRecord, RunState, Verdict
from aifbench.units import format_duration, format_number, format_size

_PERCENTILE = re.compile(r"(.+)_(p\d+(?:\.\d+)?|max|mean)")
_AFTER_PERCENTILES = {"max": math.inf, "mean": 1000.0}


PROBE_WORDS = (
    "Steps of a search and calibrations are no results: they may fail, and the verdict is not about them."
)


@dataclass(frozen=True, slots=True)
class Cell:
    """A table entry: its text, and an interval or an explanation in smaller print."""

    text: str
    note: str = ""
    verdict: Verdict | None = None


def start_words(record: RunRecord) -> str:
    """From when latencies count."""
    if any(is_streamed(m) for m in measured(record)):
        return "TTFT and E2E count from when a request was due in open loop, else from when it was sent"
    return "Latencies are response times in open loop and service times in closed loop"


@dataclass(frozen=True, slots=True)
class Table:
    """Headers and rows of equal length; the first column names the row."""

    headers: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]


def title(record: RunRecord) -> str:
    """`service: workload`, from whatever of it is known."""
    names = (record.service.get("name") or record.service.get("kind"), record.recipe.get("bench"))
    return ": ".join(str(name) for name in names if name) or record.run_id


def label(record: RunRecord, measurement: Measurement) -> str:
    """The phase, and the stream where it has several: `search`, `mixed / ingest`."""
    streams = [m for m in record.measurements if m.phase == measurement.phase]
    return f"{measurement.phase} / {measurement.stream}" if len(streams) > 1 else measurement.phase


def measured(record: RunRecord) -> list[Measurement]:
    """Those that the verdict is about."""
    return [m for m in record.measurements if m.role is Role.MEASURE]


def probes(record: RunRecord) -> list[Measurement]:
    """Steps of a search and calibrations, which mean nothing alone."""
    return [m for m in record.measurements if m.role is Role.PROBE]


def verdict_sentence(record: RunRecord) -> str:
    """Why the run's verdict is what it is, in one sentence."""
    if record.state is RunState.RUNNING:
        return "still running; what is shown so far must not be quoted"
    if record.state is not RunState.COMPLETE:
        kept = "what was measured before is shown" if record.measurements else "nothing was measured"
        reason = f": {record.error}" if record.error else ""
        return f"the run {_ENDINGS[record.state]}{reason}; {kept}"
    if not measured(record):
        return "nothing was measured"
    found = _not_met(record)
    checked = sum(len(m.checks) for m in measured(record))
    if not found:
        return f"all {checked} checks passed" if checked else "no checks were made"
    where, check = found[0]
    return f"{len(found)} of {checked} checks not met; first of all {where}: {check.message}"


_ENDINGS = {RunState.FAILED: "failed", RunState.INTERRUPTED: "was interrupted"}


def headline(record: RunRecord) -> tuple[Measurement, list[Metric]] | None:
    """The measurement to remember the run by and at most three of its metrics; None when there is nothing."""
    measurement = main_measurement(record)
    metrics = headline_metrics(measurement) if measurement else []
    return (measurement, metrics) if measurement and metrics else None


def findings(record: RunRecord) -> list[tuple[str, Check]]:
    """What to doubt and where, the most severe first. What three measurements or more share is said once."""
    groups: dict[object, list[tuple[str, Check]]] = {}
    for where, check in _not_met(record):
        groups.setdefault((check.verdict, check.code, check.advice), []).append((where, check))
    return [pair for group in groups.values() for pair in ([_said_once(group)] if len(group) > 2 else group)]


def _said_once(group: Sequence[tuple[str, Check]]) -> tuple[str, Check]:
    (where, check), others = group[0], dict.fromkeys(other for other, _ in group[1:])
    others.pop(where, None)
    more = f"; likewise {', '.join(others)}" if others else ""
    return where, replace(check, message=check.message + more)


def _not_met(record: RunRecord) -> list[tuple[str, Check]]:
    """Every check that is not VALID, but of probes: those are made to fail sometimes."""
    found = [
        (label(record, m), c) for m in measured(record) for c in m.checks if c.verdict is not Verdict.VALID
    ]
    return sorted(found, key=lambda pair: pair[1].verdict is Verdict.WARN)


def metric_words(metric: Metric) -> str:
    """The metric's name for people: `response p99.9`, `TTFT p50`, `throughput`."""
    return " ".join(short_name(part) for part in percentile_label(metric.name) or (metric.name,))


def value_text(metric: Metric | None) -> str:
    """The bare number, `-` where there is none, `≥` where it is only a lower limit."""
    if metric is None or metric.value is None:
        return "-"
    return ("≥ " if metric.note.startswith(">=") else "") + format_number(metric.value)


def with_unit(metric: Metric) -> str:
    return f"{value_text(metric)} {metric.unit}".rstrip()


def interval_text(metric: Metric | None) -> str:
    """`[198.1, 201.6]`, `[198.1, ∞)` without an upper limit, or nothing where there is no interval."""
    if metric is None or metric.low is None:
        return ""
    high = "∞)" if metric.high is None else f"{format_number(metric.high)}]"
    return f"[{format_number(metric.low)}, {high}"


def percentile_label(name: str) -> tuple[str, str] | None:
    """(`response`, `p99.9`) of `response_p99.9` or `response_p999`; None when it is no percentile."""
    match = _PERCENTILE.fullmatch(name)
    if match is None:
        return None
    base, digits = match[1], match[2][1:]
    if digits.isdecimal() and len(digits) > 2:
        return base, f"p{digits[:2]}.{digits[2:]}"
    return base, match[2]


def percentile_order(percentile: str) -> float:
    return _AFTER_PERCENTILES.get(percentile) or float(percentile[1:])


def percentiles(measurements: Iterable[Measurement], bases: Sequence[str] = ()) -> list[str]:
    """Which percentiles these measurements tell (of the latencies `bases`, or of any), in rising order."""
    labels = (percentile_label(metric.name) for m in measurements for metric in m.metrics)
    return sorted({p for b, p in filter(None, labels) if not bases or b in bases}, key=percentile_order)


def latency(measurement: Measurement, base: str, percentile: str) -> Metric | None:
    """One percentile of one latency, whichever way its name is written."""
    return next((m for m in measurement.metrics if percentile_label(m.name) == (base, percentile)), None)


def failures(measurement: Measurement) -> dict[str, int]:
    """Counts of operations that did not end OK, by outcome, the most frequent first."""
    bad = [(name, count) for name, count in measurement.outcomes.items() if name != "OK" and count]
    return dict(sorted(bad, key=lambda pair: -pair[1]))


def error_texts(measurement: Measurement, limit: int = 5) -> list[tuple[int, str]]:
    """The most frequent distinct error texts with their counts."""
    texts = sorted(measurement.errors.items(), key=lambda pair: -pair[1])
    return [(count, text) for text, count in texts[:limit]]


def check_table(record: RunRecord) -> Table:
    """Rules by measurements: what each rule saw there."""
    measurements = measured(record)
    codes = dict.fromkeys(check.code for m in measurements for check in m.checks)
    rows = tuple(
        (Cell(_code_words(code)), *(_check_cell(_check(m, code)) for m in measurements)) for code in codes
    )
    return Table((Cell("check"), *(Cell(label(record, m)) for m in measurements)), rows)


def _check(measurement: Measurement, code: str) -> Check | None:
    same = [check for check in measurement.checks if check.code == code]
    return max(same, key=lambda check: list(Verdict).index(check.verdict), default=None)


def _check_cell(check: Check | None) -> Cell:
    if check is None:
        return Cell("")
    if check.value is None:
        return Cell("", verdict=check.verdict)
    limit = f"limit {_quantity(check.limit, check.unit)}" if check.limit is not None else ""
    return Cell(_quantity(check.value, check.unit), limit, check.verdict)


def _quantity(value: float, unit: str) -> str:
    return f"{format_number(value, 3)} {unit}".rstrip()


def _code_words(code: str) -> str:
    return code.replace("_", " ").replace("-", " ").lower()


def facts(record: RunRecord) -> list[tuple[str, str]]:
    """What was measured: service, benchmark, load and time, as labelled lines."""
    lines = [
        ("service", _service(record.service)),
        *((role, _service(_mapping(one))) for role, one in _mapping(record.service.get("members")).items()),
        ("started as", _pairs(_mapping(record.service.get("options")))),
        ("benchmark", _pairs(record.recipe, skip=NOT_ASKED)),
        *_found(_mapping(record.recipe.get("facts"))),
        ("when", when(record)),
        *((label(record, m), load_text(m)) for m in measured(record)),
        *(("note", note) for note in record.notes),
    ]
    return [(name, text) for name, text in lines if text]


def brief_facts(record: RunRecord) -> list[tuple[str, str]]:
    """The same for a reader in a hurry: what was asked for, without defaults and findings."""
    known = _mapping(record.recipe.get("facts"))
    told = {*(name for name, _ in _found(known)), *(label(record, m) for m in record.measurements)}
    lines = dict(facts(record)) | {"benchmark": _pairs(asked(record))}
    return [(name, text) for name, text in lines.items() if text and name not in told]


def _found(known: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was found out about service and data; a line for each group of it."""
    groups = [(f"found: {_words(name)}", _pairs(v)) for name, v in known.items() if isinstance(v, Mapping)]
    loose = {name: value for name, value in known.items() if not isinstance(value, Mapping)}
    return [("found", _pairs(loose)), *groups]


def _service(service: Mapping[str, Any]) -> str:
    """As one says it: kind, version, own name and address, then authentication and job."""
    kind, name = (str(service.get(key) or "") for key in ("kind", "name"))
    own_name = f"({name})" if name != kind and name else ""
    url = address(_mapping(service.get("endpoint")))
    at = f"at {url}" if url else ""
    head = " ".join(filter(None, (kind, str(service.get("version") or ""), own_name, at)))
    rest = {
        key: service[key]
        for key in ("authentication", "scheduler", "job_id", "ready_after_s")
        if key in service
    }
    if is_attached(service):
        return ", ".join(filter(None, (head, _pairs(rest, skip=("scheduler", "ready_after_s")), "attached")))
    return ", ".join(filter(None, (head, _pairs(rest))))


def when(record: RunRecord) -> str:
    """`2026-11-20 13:14:55 to 13:17:21 UTC (02:26)`, or only the beginning."""
    begin, end = _instant(record.created_utc), _instant(record.ended_utc)
    if begin is None:
        return record.created_utc
    text = f"{begin:%Y-%m-%d %H:%M:%S} UTC"
    if end is None or end < begin:
        return text
    until = f"{end:%H:%M:%S}" if end.date() == begin.date() else f"{end:%Y-%m-%d %H:%M:%S}"
    return f"{text[:-4]} to {until} UTC ({format_duration((end - begin).total_seconds())})"


def load_text(measurement: Measurement) -> str:
    """`poisson 200/s, 2 workers by http, measured 5 s to 65 s of the phase`."""
    start_s, end_s = measurement.window_s
    count = measurement.workers
    is_ours = not measures_itself(measurement)  # else its own processes are in `arrivals`
    by = f"{count} worker{'s' if count != 1 else ''} by" if is_ours else "by"
    measured = f"measured {format_number(start_s, 3)} s to {format_number(end_s, 3)} s of the phase"
    return f"{measurement.arrivals}, {by} {measurement.via}, {measured}"


def provenance(record: RunRecord) -> list[tuple[str, list[tuple[str, str]]]]:
    """The facts of machine and software in their groups."""
    groups = ((group, _lines(_mapping(facts))) for group, facts in record.provenance.items())
    loose = [(name, v) for name, v in record.provenance.items() if not isinstance(v, Mapping)]
    found = [(group, lines) for group, lines in groups if lines]
    return [*found, *([("other", _lines(dict(loose)))] if loose else [])]


def recipe_text(record: RunRecord) -> str:
    """The recipe as it was recorded, for reading and copying."""
    return json.dumps(dict(record.recipe), indent=2, default=str)


def _lines(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(_words(name), _text(name, value)) for name, value in values.items()]


def _pairs(values: Mapping[str, Any], skip: Sequence[str] = ()) -> str:
    kept = ((name, v) for name, v in values.items() if name not in skip and v not in (None, "", [], {}))
    return ", ".join(f"{_words(name)} {_text(name, value)}" for name, value in kept)


def _words(name: str) -> str:
    return re.sub(r"_(s|bytes)$", "", name).replace("_", " ")


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _number_text(name, value)
    if isinstance(value, Mapping):
        return _pairs(value)
    if isinstance(value, list | tuple):
        return ", ".join(_text("", item) for item in value)
    return str(value)


def _number_text(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        return format_size(value)
    if name.endswith("_s"):
        return f"{value:g} s"
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _instant(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
