"""What a report of one run says, free of any format: one wording for text, Markdown and HTML."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from aifbench.results.headline import (
    headline_metrics,
    is_empty,
    is_streamed,
    main_measurement,
    short_name,
)
from aifbench.results.record import Check, Measurement, Metric, Role, RunRecord, RunState, Verdict, worst
from aifbench.units import format_number

_PERCENTILE = re.compile(r"(.+)_(p\d+(?:\.\d+)?|max|mean)")
MANY = 4  # measurements beyond which they are told together, or in a row each
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
        has_numbers = not all(map(is_empty, record.measurements))
        kept = "what was measured before is shown" if has_numbers else "no phase was finished"
        return f"the run {_ending(record)}; {kept}"
    if not measured(record):
        return "nothing was measured"
    found = _not_met(record)
    checked = sum(len(m.checks) for m in measured(record))
    if not found:
        return f"all {checked} checks passed" if checked else "no checks were made"
    where, check = found[0]
    remedy = f" ({check.advice})" if check.advice else ""
    return f"{len(found)} of {checked} checks not met; first of all {where}: {check.message}{remedy}"


def _ending(record: RunRecord) -> str:
    """`failed: the job ended`, `was interrupted by the user`."""
    if record.state is RunState.INTERRUPTED and record.error.startswith("interrupted "):
        return f"was {record.error}"
    return _ENDINGS[record.state] + (f": {record.error}" if record.error else "")


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
    """`[198.1, 201.6]`, `[198.1, ∞)` without an upper limit, `(0, ∞)` where it tells nothing; else empty."""
    if metric is None or metric.low is None:
        return ""
    if metric.high is not None and 0 < _BOUNDLESS * metric.low < metric.high:
        return "(0, ∞)"
    high = "∞)" if metric.high is None else f"{format_number(metric.high)}]"
    return f"[{format_number(metric.low)}, {high}"


_BOUNDLESS = 1e4  # an interval of this ratio between its ends tells nothing


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
    """Rules by measurements: what each rule saw there; of many measurements only from where to where."""
    measurements = measured(record)
    codes = dict.fromkeys(check.code for m in measurements for check in m.checks)
    if len(measurements) > MANY:
        heads = ("check", "held", "lowest", "highest", "limit")
        found = ([check for m in measurements if (check := _check(m, code))] for code in codes)
        return Table(tuple(map(Cell, heads)), tuple(map(_check_range, found)))
    rows = tuple(
        (Cell(_code_words(code)), *(_check_cell(_check(m, code)) for m in measurements)) for code in codes
    )
    return Table((Cell("check"), *(Cell(label(record, m)) for m in measurements)), rows)


def _check(measurement: Measurement, code: str) -> Check | None:
    same = [check for check in measurement.checks if check.code == code]
    return max(same, key=lambda check: list(Verdict).index(check.verdict), default=None)


def _check_range(checks: Sequence[Check]) -> tuple[Cell, ...]:
    """One rule at many measurements: how many held, and between which values."""
    held = sum(check.verdict is Verdict.VALID for check in checks)
    share = Cell(f"{held} of {len(checks)}", verdict=worst([check.verdict for check in checks]))
    units = {check.unit for check in checks if check.value is not None}
    if len(units) != 1:  # nothing was counted, or not the same thing everywhere
        return (Cell(_code_words(checks[0].code)), share, *3 * (Cell(""),))
    unit = units.pop()
    values = [check.value for check in checks if check.value is not None]
    limits = sorted({check.limit for check in checks if check.limit is not None})
    ends = (_quantity(end(values), unit) for end in (min, max))
    limit = " or ".join(_quantity(each, unit) for each in limits)
    return (Cell(_code_words(checks[0].code)), share, *map(Cell, ends), Cell(limit))


def _check_cell(check: Check | None) -> Cell:
    if check is None:
        return Cell("")
    if check.value is None:
        return Cell("", verdict=check.verdict)
    limit = f"limit {_quantity(check.limit, check.unit)}" if check.limit is not None else ""
    return Cell(_quantity(check.value, check.unit), limit, check.verdict)


def _quantity(value: float, unit: str) -> str:
    if unit == "share":
        value, unit = 100 * value, "%"
    return f"{format_number(value, 3)} {unit}".rstrip()


def _code_words(code: str) -> str:
    return code.replace("_", " ").replace("-", " ").lower()
