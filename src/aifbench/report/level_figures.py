"""Figures over loads: latency against throughput, and how a search closed in on a capacity."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from aifbench.report.content import Table, interval_text, label, measured, probes, with_unit
from aifbench.report.svg import Panel, Scale, figure, linear, logarithmic
from aifbench.results.headline import is_open_loop, is_streamed, main_measurement, objective
from aifbench.results.record import Measurement, Metric, RunRecord, Verdict
from aifbench.results.slo import Slo
from aifbench.units import format_number

WIDTH = 880
LEFT, RIGHT = 96.0, 868.0
_FEWEST = 3  # levels that make a curve


@dataclass(frozen=True, slots=True)
class Figure:
    """`verdict` is that of the one measurement shown, if it is one; `data` the numbers that were drawn."""

    title: str
    svg: str
    caption: str
    verdict: Verdict | None = None
    data: Table | None = None


# Latency against throughput.


@dataclass(frozen=True, slots=True)
class _Level:
    name: str
    measurement: Measurement
    output_per_s: float

    def value(self, metric: str) -> float | None:
        return _value(self.measurement.metric(metric))


def levels_figure(record: RunRecord) -> Figure | None:
    """First token and pace of each level over the tokens per second that it gave; None for too few."""
    levels = _levels(record)
    if len(levels) < _FEWEST:
        return None
    x = linear([level.output_per_s for level in levels], LEFT, RIGHT)
    panels = []
    top = 66.0
    strips = [("ttft", "time to first token, TTFT (ms)", 150), ("tpot", "time per token, TPOT (ms)", 110)]
    strips = [strip for strip in strips if any(level.value(f"{strip[0]}_p50") for level in levels)]
    for i, (name, title, height) in enumerate(strips):
        panels.append(_strip(levels, name, title, x, (top, top + height), is_lowest=i == len(strips) - 1))
        top += height + 46
    if not panels:
        return None
    kinds = [("p50", "p50"), *([("p99", "p99")] if _has_p99(levels) else [])]
    limits = objective(levels[0].measurement)
    panels[0].legend([*kinds, *([("limit", "limit")] if limits else [])], 18)
    panels[0].names(
        (level.output_per_s, highest, level.name) for level in levels if (highest := _highest(level))
    )
    caption = _levels_sentence(record, levels)
    title = "Latency against throughput"
    svg = figure(WIDTH, int(panels[-1].y.start_px) + 40, title, caption, panels)
    return Figure(title, svg, caption)


def _levels(record: RunRecord) -> list[_Level]:
    """Levels of the more frequent kind of loop: in open loop TTFT counts from the schedule."""
    found = [m for m in measured(record) if is_streamed(m) and _value(m.metric("output_rate")) is not None]
    opened = [m for m in found if is_open_loop(m)]
    closed = [m for m in found if not is_open_loop(m)]
    chosen = opened if len(opened) > len(closed) else closed
    return [_Level(_level_name(record, m), m, _value(m.metric("output_rate")) or 0.0) for m in chosen]


def _level_name(record: RunRecord, measurement: Measurement) -> str:
    """`16 clients` or `20/s` where the load says so, else the measurement's name."""
    clients = re.search(r"([\d,]+) clients?\b", measurement.arrivals)
    rate = re.search(r"[\d.,]+/s", measurement.arrivals)
    found = clients or rate
    return found[0] if found else label(record, measurement)


def _has_p99(levels: Sequence[_Level]) -> bool:
    return any(level.value(f"{name}_p99") is not None for level in levels for name in ("ttft", "tpot"))


def _highest(level: _Level) -> float | None:
    return level.value("ttft_p99") or level.value("ttft_p50")


def _strip(
    levels: Sequence[_Level], name: str, title: str, x: Scale, edges: tuple[float, float], *, is_lowest: bool
) -> Panel:
    known = {
        percentile: [(level.output_per_s, level.value(f"{name}_{percentile}")) for level in levels]
        for percentile in ("p50", "p99")
    }
    values = [value for points in known.values() for _, value in points if value is not None]
    y = logarithmic(values, edges[1], edges[0])
    panel = Panel(x, y, title, "output tokens per second")
    panel.grid(x_labels=is_lowest)
    limit = _limit_ms(levels[0].measurement, name)
    if limit is not None and y.low <= limit <= y.high:
        panel.line([(x.low, limit), (x.high, limit)], "limit")
    for percentile, points in known.items():
        panel.line(points, percentile)
        panel.marks(points, f"dot-{percentile}")
    return panel


def _limit_ms(measurement: Measurement, name: str) -> float | None:
    slo = objective(measurement)
    return slo.limits_ms.get(name) if slo else None


def _levels_sentence(record: RunRecord, levels: Sequence[_Level]) -> str:
    """What more load bought, and what it cost."""
    first, best = levels[0], max(levels, key=lambda level: level.output_per_s)
    gain = best.output_per_s / first.output_per_s if first.output_per_s else 0.0
    sentence = f"{best.name} gave {format_number(best.output_per_s, 3)} tok/s"
    if best is not first and gain:
        sentence += f", {format_number(gain, 3)} times as much as {first.name}"
        before, after = first.value("ttft_p50"), best.value("ttft_p50")
        if before and after:
            sentence += f"; the median TTFT went from {_ms(before)} to {_ms(after)} ms"
    others = [m for m in measured(record) if is_streamed(m) and m not in [lv.measurement for lv in levels]]
    names = ", ".join(label(record, m) for m in others)
    left = f" Not shown, since its load is of another kind: {names}." if names else ""
    return f"{sentence}.{left}"


def _ms(value: float) -> str:
    return format_number(value, 3)


# The search for a capacity.


@dataclass(frozen=True, slots=True)
class _Step:
    """One rate that was tried: the share of requests within the limits, in percent, and its interval."""

    rate_per_s: float
    percent: float
    low: float
    high: float


def capacity_figure(record: RunRecord) -> Figure | None:
    """Share of requests within the limits over the rate that was asked for; None without a search."""
    final = main_measurement(record)
    capacity = final.metric("capacity") if final else None
    slo = objective(final) if final else None
    if final is None or capacity is None or slo is None:
        return None
    steps = [step for m in probes(record) if is_open_loop(m) and (step := _step(m))]
    end = _step(final)
    if not steps:
        return None
    title, caption = "Search for the capacity", _capacity_sentence(capacity, slo, steps)
    panel = _search_panel(steps, end, 100 * slo.share)
    return Figure(title, figure(WIDTH, 376, title, caption, [panel]), caption)


def _step(measurement: Measurement) -> _Step | None:
    rate, share = asked_rate(measurement), measurement.metric("attainment")
    if rate is None or share is None or share.value is None:
        return None
    low, high = (share.value if edge is None else edge for edge in (share.low, share.high))
    return _Step(rate, share.value, low, high)


def _search_panel(steps: Sequence[_Step], end: _Step | None, required: float) -> Panel:
    every = [*steps, *([end] if end else [])]
    rates = [step.rate_per_s for step in every]
    margin = 0.08 * (max(rates) - min(rates)) or 1.0
    x = Scale(max(0.0, min(rates) - margin), max(rates) + margin, LEFT, RIGHT)
    y = Scale(0.0, 100.0, 336.0, 66.0)
    panel = Panel(x, y, "requests within the limits (%)", "requests per second, asked for")
    if bracket := _bracket(steps, required):
        panel.band(*bracket, "bracket")
    panel.grid()
    panel.line([(x.low, required), (x.high, required)], "limit")
    panel.bars(((step.rate_per_s, step.low, step.high) for step in every), "bar")
    if end:
        panel.marks([(end.rate_per_s, end.percent)], "dot-final")
    for css, is_met in (("dot-met", True), ("dot-missed", False)):
        chosen = [step for step in steps if (step.percent >= required) is is_met]
        panel.marks([(step.rate_per_s, step.percent) for step in chosen], css)
    entries = [("required", "limit"), ("met", "dot-met"), ("missed", "dot-missed")]
    panel.legend([*entries, *([("measured at the end", "dot-final")] if end else [])], 18)
    return panel


def _bracket(steps: Sequence[_Step], required: float) -> tuple[float, float] | None:
    """From the highest rate that met the limits to the lowest above it that did not."""
    met = max((step.rate_per_s for step in steps if step.percent >= required), default=None)
    if met is None:
        return None
    above = (step.rate_per_s for step in steps if step.percent < required and step.rate_per_s > met)
    missed = min(above, default=None)
    return None if missed is None else (met, missed)


def _capacity_sentence(capacity: Metric, slo: Slo, steps: Sequence[_Step]) -> str:
    tried = f"{len(steps)} steps"
    if capacity.value is None:
        return f"{tried} did not settle at which rate requests meet {slo.words}."
    bracket = _bracket(steps, 100 * slo.share)
    shaded = ""
    if bracket:
        low, high = (format_number(rate, 3) for rate in bracket)
        shaded = f"; shaded: from the highest rate that met it, {low}/s, to the next that missed it, {high}/s"
    interval = interval_text(capacity)
    interval = f" {interval}" if interval else ""
    return f"{tried} led to {with_unit(capacity)}{interval} with {slo.words}{shaded}."


def asked_rate(measurement: Measurement) -> float | None:
    """What was asked for: what was offered differs a little, or a lot where a step was given up."""
    text = re.search(r"(\d+(?:\.\d+)?)/s", measurement.arrivals.replace(",", ""))
    return float(text[1]) if text else _value(measurement.metric("offered_rate"))


def _value(metric: Metric | None) -> float | None:
    return metric.value if metric else None
