"""Which numbers of a run are shown, and in which tables: results, probes, all of them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aifbench.report.content import (
    MANY,
    Cell,
    Table,
    failures,
    interval_text,
    label,
    latency,
    measured,
    metric_words,
    percentile_label,
    percentiles,
    probes,
    value_text,
    with_unit,
)
from aifbench.report.score_words import TOLD
from aifbench.results.headline import (
    in_requests,
    is_open_loop,
    is_streamed,
    latency_kind,
    measures_itself,
    objective,
    qualities,
    short_name,
    stages,
)
from aifbench.results.record import Measurement, Metric, RunRecord
from aifbench.units import format_number

RATES = {"offered": "offered_rate", "achieved": "throughput", "items": "item_rate"}
STREAM_RATES = {"offered": "offered_rate", "requests": "throughput", "output": "output_rate"}
_TIMES = ("ttft", "ttfot", "tpot", "gap", "e2e")
_MEDIANS = ("ttft", "ttfot", "tpot")
FOUND = {
    "data": "data_rate",
    "bandwidth": "bandwidth",
    "per node": "bandwidth_per_node",
    "first done": "bandwidth_first_done",
    "time": "time",
    "of reference": "reference_share",
    "score": "score",
    "bandwidth mean": "bandwidth_mean",
    "metadata mean": "metadata_mean",
    "accelerators busy": "accelerator_utilisation",
    "first byte p50": "ttfb_p50",
    "first byte p99": "ttfb_p99",
    "goodput": "goodput",
    "within limits": "attainment",
    "capacity": "capacity",
    "TTFT, constrained / free": "ttft_constrained_ratio",
    "TPOT, constrained / free": "tpot_constrained_ratio",
    "E2E, constrained / free": "e2e_constrained_ratio",
    "TTFT, first use less second": "first_use_ttft_extra",
    "throughput kept": "throughput_kept",
    "slowdown p50": "slowdown_p50",
    "slowdown p99": "slowdown_p99",
    "slowdown TTFT p50": "slowdown_ttft_p50",
}
_RARELY_READ = ("mean", "max")  # of a latency, where room is scarce
_TAILS = ("p99", "p90")
_RESULT = "result"

Shown = Mapping[str, Metric]  # by the words of its row


@dataclass(frozen=True, slots=True)
class Line:
    """One quantity of several measurements, or something else that is said of each of them."""

    name: str
    unit: str
    cells: tuple[Cell, ...]


def result_table(record: RunRecord) -> Table:
    """A column per measurement, or a row of many: verdict, rates, latencies, answer quality and errors."""
    measurements = _in_table(record)
    if len(measurements) > MANY:
        return rows_table(record, measurements, _result_lines(measurements))
    return _columns_table(record, measurements)


def narrow_table(record: RunRecord) -> Table:
    """A row per measurement for where room is scarce: without errors where there were none."""
    measurements = _in_table(record)
    lines = _result_lines(measurements)
    lines = [line for line in lines if line.name != "errors" or any(c.text not in "0-" for c in line.cells)]
    return rows_table(record, measurements, lines)


def _in_table(record: RunRecord) -> list[Measurement]:
    """A score over all phases has no quantity in common with them: it is told in sentences."""
    found = measured(record)
    return [m for m in found if not m.metric("score")] or found


def _result_lines(measurements: Sequence[Measurement]) -> list[Line]:
    errors = Line("errors", "", tuple(_error_cell(m) for m in measurements))
    return [
        Line("verdict", "", tuple(Cell("", verdict=m.verdict) for m in measurements)),
        *_lines(measurements),
        *([] if all(map(measures_itself, measurements)) else [errors]),
    ]


def probe_table(record: RunRecord) -> Table:
    """A row per step of a search or calibration: what it was asked, and whether it met the limits."""
    measurements = probes(record)
    met = tuple(_met_cell(m) for m in measurements)
    lines = [*_lines(measurements, qualities_too=False), Line("limits", "", met)]
    wanted = (*RATES, *STREAM_RATES, "TTFT", "TPOT", "within limits", "limits")
    lines = [line for line in lines if line.name.startswith(wanted) and any(c.text for c in line.cells)]
    return rows_table(record, measurements, lines) if measurements else Table((), ())


def _lines(measurements: Sequence[Measurement], *, qualities_too: bool = True) -> list[Line]:
    shown = [
        _shown(m, measurements) | (_qualities(m) if qualities_too and len(measurements) <= MANY else {})
        for m in measurements
    ]
    times = percentiles(measurements, ("response", "service"))
    order = [_RESULT, *STREAM_RATES, *RATES, "data", "bandwidth", *times]
    if len(measurements) > MANY and not any(map(is_streamed, measurements)):  # first columns are seen first
        order = [_RESULT, *STREAM_RATES, *RATES, *FOUND, *times]
    present = dict.fromkeys(name for each in shown for name in each)
    names = [*(name for name in dict.fromkeys(order) if name in present), *present]
    unwanted = _unwanted(shown)
    kept = (name for name in dict.fromkeys(names) if name not in unwanted)
    return [line_of(name, [each.get(name) for each in shown]) for name in kept]


def _unwanted(shown: Sequence[Shown]) -> set[str]:
    """Operations that are told as items; of many measurements also those beside items of every one."""
    is_many = len(shown) > MANY
    twice = [
        "items" in each and "achieved" in each and (is_many or each["items"].value == each["achieved"].value)
        for each in shown
    ]
    told = {"achieved"} if all(twice) and not any("offered" in each for each in shown) else set()
    return told | (set(_RARELY_READ) if is_many else set())


def _shown(measurement: Measurement, all_of_table: Sequence[Measurement]) -> dict[str, Metric]:
    """Of streamed answers the times of tokens; of other operations those of the whole."""
    found = {words: measurement.metric(name) for words, name in _picked(measurement, all_of_table).items()}
    return {
        words: in_requests(metric) if is_streamed(measurement) else metric
        for words, metric in found.items()
        if metric is not None
    }


def _picked(measurement: Measurement, all_of_table: Sequence[Measurement]) -> dict[str, str]:
    """Metric names by the words of their rows, in the order of the rows."""
    if not is_streamed(measurement):
        kind = latency_kind(measurement)
        labels = percentiles(all_of_table, ("response", "service"))
        times = {p: found.name for p in labels if (found := latency(measurement, kind, p))}
        if all(map(measures_itself, all_of_table)):
            return {**_of_program(measurement), **times}
        return {**RATES, **times, **FOUND}
    tail = _tail(all_of_table)
    times = {}
    for name in _TIMES:
        middle = ["p50"] if name in _MEDIANS else []
        times |= {f"{short_name(name)} {p}": f"{name}_{p}" for p in (*middle, tail)}
    return {**STREAM_RATES, **times, **FOUND}


def _of_program(measurement: Measurement) -> dict[str, str]:
    """Whatever its phases do, each has one result, of bytes or of operations; the unit tells which."""
    rate = "bandwidth" if measurement.metric("bandwidth") else "throughput"
    others = {"operations": "throughput"} if rate == "bandwidth" else {}
    return {_RESULT: rate, **others, **FOUND, "bandwidth": "", "first done": f"{rate}_first_done"}


def _tail(measurements: Sequence[Measurement]) -> str:
    """The highest percentile of TTFT that one of these can carry."""
    for tail in _TAILS:
        if any(value_text(m.metric(f"ttft_{tail}")) != "-" for m in measurements):
            return tail
    return _TAILS[0]


def _qualities(measurement: Measurement) -> dict[str, Metric]:
    found = [q for q in qualities(measurement) if q.name not in FOUND.values()]
    return {metric.name: metric for metric in found}


def line_of(name: str, metrics: Sequence[Metric | None]) -> Line:
    """The unit stands beside the line's name where all share it."""
    units = {metric.unit for metric in metrics if metric}
    shared = units.pop() if len(units) == 1 else None
    cells = tuple(_cell(metric, is_unit_shown=shared is None) for metric in metrics)
    return Line(name, shared or "", cells)


def _cell(metric: Metric | None, *, is_unit_shown: bool) -> Cell:
    if metric is None:
        return Cell("")
    return Cell(with_unit(metric) if is_unit_shown else value_text(metric), interval_text(metric))


def _error_cell(measurement: Measurement) -> Cell:
    failed = failures(measurement)
    total = sum(measurement.outcomes.values())
    if not total:
        return Cell("-")
    share = f"{format_number(100 * sum(failed.values()) / total, 2)} % of {total:,}"
    return Cell(f"{sum(failed.values()):,}", share if failed else f"of {total:,}")


def _met_cell(measurement: Measurement) -> Cell:
    """Whether a step of a search met its objective, as far as its interval tells."""
    slo, share = objective(measurement), measurement.metric("attainment")
    if slo is None or share is None or share.value is None or not is_open_loop(measurement):
        return Cell("")
    required = 100 * slo.share
    if share.low is not None and share.low >= required:
        return Cell("met")
    if share.high is not None and share.high < required:
        return Cell("missed")
    return Cell("met" if share.value >= required else "missed", "not surely")


def _columns_table(record: RunRecord, measurements: Sequence[Measurement]) -> Table:
    lines = _result_lines(measurements)
    heads = tuple(Cell(f"{line.name} ({line.unit})" if line.unit else line.name) for line in lines)
    rows = tuple((head, *line.cells) for head, line in zip(heads, lines, strict=True))
    return Table((Cell(""), *(Cell(label(record, m)) for m in measurements)), rows)


def rows_table(record: RunRecord, measurements: Sequence[Measurement], lines: Sequence[Line]) -> Table:
    """The load that a measurement was put under stands below its name."""
    heads = (Cell(""), *(Cell(line.name, line.unit) for line in lines))
    names = [Cell(label(record, m), m.arrivals) for m in measurements]
    return Table(heads, tuple((name, *(line.cells[i] for line in lines)) for i, name in enumerate(names)))


def all_of(measurement: Measurement) -> Table:
    """Every metric of a measurement."""
    rows = [
        (Cell(metric_words(m)), Cell(value_text(m)), Cell(m.unit), Cell(interval_text(m)),
         Cell(f"{m.n:,}" if m.n else ""))
        for m in measurement.metrics
    ]  # fmt: skip
    heads = ("metric", "value", "unit", "95 % interval", "samples")
    return Table(tuple(map(Cell, heads)), tuple(rows))


def is_brief(measurement: Measurement, metric: Metric) -> bool:
    """Whether a metric belongs to what most readers want to see: of streamed answers not every number."""
    if not is_streamed(measurement):
        return not is_extra(metric)
    base = (percentile_label(metric.name) or (metric.name, ""))[0]
    parts = {f"{stage}{end}" for stage in stages(measurement) for end in ("", "_ttft", "_share")}
    known = {*STREAM_RATES.values(), *FOUND.values(), *_TIMES, *_MORE, *(parts and {*parts, *_REST})}
    return base in known or metric in qualities(measurement)


def is_extra(metric: Metric) -> bool:
    """What the server says, and the client of itself: told in a section and in sentences of their own."""
    return metric.name.startswith(_EXTRA)


_EXTRA = (
    "server_", "client_adds_", "ttft_send_", "kv_cache", "outside_", "prefix_hit", "preemptions"
)  # fmt: skip
_MORE = ("tokens_per_chunk", "error_share", "slowdown", "slowdown_ttft", "slowdown_tpot")
_REST = ("wait_share", "client_share")  # what is no stage of an operation that has stages
_TOLD_APART = {"offered_rate", *TOLD}
_TOO_SMALL = re.compile(r"n = [\d,]+ (is too small for .*)")


def notes(record: RunRecord, measurements: Sequence[Measurement]) -> list[str]:
    """What is to be said about single numbers, such as why one is missing; what many share is said once."""
    reasons: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for measurement in measurements:
        for metric in measurement.metrics:
            if metric.note and metric.name not in _TOLD_APART and is_brief(measurement, metric):
                many = _TOO_SMALL.fullmatch(metric.note) if len(measurements) > 1 else None
                where, names = reasons.setdefault(f"n {many[1]}" if many else metric.note, ({}, {}))
                where[label(record, measurement)] = None
                names[metric_words(metric)] = None
    return [
        f"{', '.join(where) + ': ' if len(where) < len(measurements) else ''}{', '.join(names)}: {reason}"
        for reason, (where, names) in reasons.items()
    ]
