"""Figures of work on files: the result of each phase as bars from zero, and bandwidth over time."""

from collections.abc import Sequence
from dataclasses import dataclass

from aifbench.report.content import Cell, Table, label, measured, value_text, with_unit
from aifbench.report.level_figures import RIGHT, WIDTH, Figure
from aifbench.report.svg import CHAR_PX, Panel, Point, Scale, figure, linear
from aifbench.results.headline import measures_itself
from aifbench.results.record import Measurement, Metric, RunRecord, Verdict
from aifbench.units import format_number

_OF_FILES = "posix"  # how our own load does it
_BANDWIDTHS = ("bandwidth", "data_rate")
_FEWEST = 2  # bars that can be compared
_ROW_PX, _BAR_PX = 24.0, 14.0
_VALUE_PX = 80.0  # kept free for the numbers beside the bars


@dataclass(frozen=True, slots=True)
class Bar:
    """One phase; `first` is what it would be, were it judged by the first process that was done."""

    name: str
    metric: Metric
    first: Metric | None
    verdict: Verdict

    @property
    def value(self) -> float:
        return self.metric.value or 0.0


def phases_figure(record: RunRecord) -> Figure | None:
    """Bandwidths in one panel and rates of operations in another; None where there is little to compare."""
    bars = [bar for m in measured(record) if is_of_files(m) and (bar := _bar(record, m))]
    if len(bars) < _FEWEST:
        return None
    groups: dict[tuple[bool, str], list[Bar]] = {}
    for bar in bars:
        groups.setdefault((not bar.metric.unit.endswith("B/s"), bar.metric.unit), []).append(bar)
    title, caption = "Result of each phase", _sentence([*groups.values()])
    panels, top = [], 40.0
    left = max(len(bar.name) for bar in bars) * CHAR_PX + 16
    for (is_rate, unit), group in sorted(groups.items()):
        words = f"{'operations' if is_rate else 'bandwidth'} ({unit})"
        panels.append(_panel(group, words, left, top))
        top += _ROW_PX * len(group) + 64
    svg = figure(WIDTH, int(top - 18), title, caption, panels)
    return Figure(title, svg, caption, data=_data(bars))


def is_of_files(measurement: Measurement) -> bool:
    """Done on files by our own load, or by a program that has bandwidths and rates to tell of its phases."""
    return measurement.via == _OF_FILES or measures_itself(measurement)


def bytes_per_operation(measurement: Measurement) -> float | None:
    """Of work that is told as a bandwidth; None for other work, and where it is not known."""
    rates = [measurement.metric(name) for name in ("sent_rate", "received_rate")]
    moved = sum(1e6 * (rate.value or 0.0) for rate in rates if rate)
    done = measurement.metric("throughput")
    if not any(measurement.metric(name) for name in _BANDWIDTHS) or measurement.via != _OF_FILES:
        return None
    return moved / done.value if moved and done and done.value else None


def bandwidth_points(rate: Sequence[Point], bytes_each: float) -> list[Point]:
    """MiB/s of a rate in operations per second, each of which moves as much."""
    return [(at, None if value is None else value * bytes_each / 2**20) for at, value in rate]


def _bar(record: RunRecord, measurement: Measurement) -> Bar | None:
    for name in (*_BANDWIDTHS, "throughput"):
        metric = measurement.metric(name)
        if metric and metric.value is not None:
            first = measurement.metric(f"{name}_first_done")
            return Bar(label(record, measurement), metric, first, measurement.verdict)
    return None


def _panel(bars: Sequence[Bar], title: str, left: float, top: float) -> Panel:
    """Names on the left, values on the right; a line across a bar is where the first process was done."""
    values = [metric.value or 0.0 for bar in bars for metric in (bar.metric, bar.first) if metric]
    bottom = top + _ROW_PX * len(bars)
    scale = linear(values, left, RIGHT - _VALUE_PX)
    panel = Panel(scale, Scale(0.0, 1.0, bottom, top), title)
    panel.text(0, top - 14, title, "name")
    _legend(panel, bars)
    for i, bar in enumerate(bars):
        y = top + _ROW_PX * i + (_ROW_PX - _BAR_PX) / 2
        panel.text(left - 8, y + 11, bar.name, "tick end")
        is_doubtful = bar.verdict is Verdict.INVALID
        panel.block(0.0, bar.value, (y, y + _BAR_PX), "block hollow" if is_doubtful else "block")
        if bar.first and bar.first.value is not None:
            panel.stroke(bar.first.value, (y - 3, y + _BAR_PX + 3), "first")
        panel.text(RIGHT, y + 11, value_text(bar.metric), "end")
    panel.x_axis()
    return panel


def _legend(panel: Panel, bars: Sequence[Bar]) -> None:
    entries = []
    if any(bar.first for bar in bars):
        entries.append(("when the first process was done", "first"))
    if any(bar.verdict is Verdict.INVALID for bar in bars):
        entries.append(("INVALID", "hollow-line"))
    panel.legend(entries)


def _sentence(groups: Sequence[Sequence[Bar]]) -> str:
    """The highest and the lowest of each kind, and where waiting for the last process cost most."""
    clauses = []
    for bars in groups:
        high, low = max(bars, key=lambda bar: bar.value), min(bars, key=lambda bar: bar.value)
        clause = f"{high.name} has {with_unit(high.metric)}"
        clauses.append(clause + (f", {low.name} {with_unit(low.metric)}" if low is not high else ""))
    flattered = [
        (bar.first.value / bar.value, bar)
        for bars in groups
        for bar in bars
        if bar.first and bar.first.value is not None and bar.value
    ]
    ratio, bar = max(flattered, key=lambda pair: pair[0], default=(1.0, None))
    if bar and ratio > 1:
        told = format_number(ratio, 3)
        clauses.append(f"when its first process was done, {bar.name} looked {told} times as fast")
    return f"{'; '.join(clauses)}."


def _data(bars: Sequence[Bar]) -> Table:
    heads = ("phase", "result", "unit", "first done", "verdict")
    rows = [
        (
            Cell(bar.name),
            Cell(value_text(bar.metric)),
            Cell(bar.metric.unit),
            Cell(value_text(bar.first) if bar.first else ""),
            Cell(bar.verdict.value),
        )
        for bar in bars
    ]
    return Table(tuple(map(Cell, heads)), tuple(rows))
