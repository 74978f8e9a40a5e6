"""Ratios with their intervals beside a line at 1, one row each: a forest plot."""

from collections.abc import Sequence
from dataclasses import dataclass

from aifbench.report.content import Cell, Table
from aifbench.report.level_figures import RIGHT, WIDTH, Figure
from aifbench.report.svg import CHAR_PX, Panel, Scale, figure
from aifbench.units import format_number

_LEFT, _FAR_LEFT = 200.0, 440.0  # where the axis begins, by the longest name
_GAP_PX = 22.0
_ROW_PX = 26.0
_TOP = 24.0
_MOST_ROWS = 60
_LABEL_CHARS = int((_FAR_LEFT - _GAP_PX) / CHAR_PX)


@dataclass(frozen=True, slots=True)
class Ratio:
    """One row: a ratio with its interval (None without one) and what it is called; `word` is its verdict.

    `css` colours it; `is_doubtful` draws it as a ring. `margin` shades, in this row, the ratios that differ
    from 1 by less.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    word: str
    css: str = "p50"
    is_doubtful: bool = False
    margin: float = 0.0


def forest(title: str, axis: str, rows: Sequence[Ratio], caption: str, indifferent: float = 0.0) -> Figure:
    """`indifferent` shades ratios that differ from 1 by less; beyond 60 rows only the first are drawn."""
    drawn = rows[:_MOST_ROWS]
    bottom = _TOP + _ROW_PX * len(drawn)
    edges = [v for row in drawn for v in (row.value, row.low, row.high) if v is not None and v > 0]
    names_px = CHAR_PX * max((len(row.name) for row in drawn), default=0)
    words_px = CHAR_PX * max((len(row.word) for row in drawn), default=0)
    x = Scale(
        min([1 / 1.1, *edges]) / 1.05,
        max([1.1, *edges]) * 1.05,
        min(max(_LEFT, names_px + _GAP_PX), _FAR_LEFT),
        RIGHT - max(120.0, words_px + 8),
        is_log=True,
    )
    panel = Panel(x, Scale(0, 1, bottom, _TOP), title, axis)
    if indifferent:
        panel.band(1 / (1 + indifferent), 1 + indifferent, "shade")
    panel.parts.append(f'<path class="axis" d="M{x.at(1):.1f} {_TOP - 6:.0f}V{bottom:.0f}"/>')
    panel.x_axis()
    for i, row in enumerate(drawn):
        _row(panel, row, _TOP + (i + 0.5) * _ROW_PX)
    left_out = f" {len(rows) - len(drawn)} more are in the tables." if len(rows) > len(drawn) else ""
    svg = figure(WIDTH, int(bottom) + 44, title, caption, [panel])
    return Figure(title, svg, caption + left_out, data=_data(rows, axis))


def _row(panel: Panel, row: Ratio, y_px: float) -> None:
    panel.text(0, y_px + 4, _cut(row.name), "tick")
    if row.margin:
        low, high = panel.x.at(1 / (1 + row.margin)), panel.x.at(1 + row.margin)
        size = f'x="{low:.1f}" y="{y_px - 9:.1f}" width="{high - low:.1f}" height="18"'
        panel.parts.append(f'<rect class="shade" {size}/>')
    if row.low is not None and row.high is not None:
        low, high = panel.x.at(row.low), panel.x.at(row.high)
        panel.parts.append(f'<path class="line {row.css}" d="M{low:.1f} {y_px:.1f}H{high:.1f}"/>')
    panel.spot(panel.x.at(row.value), y_px, row.css, is_hollow=row.is_doubtful)
    panel.text(RIGHT, y_px + 4, row.word, "tick end")


def _cut(text: str) -> str:
    return text if len(text) <= _LABEL_CHARS else f"{text[: _LABEL_CHARS - 1]}…"


def _data(rows: Sequence[Ratio], axis: str) -> Table:
    heads = (Cell("row"), Cell(axis), Cell("from"), Cell("to"), Cell("word"))
    return Table(
        heads,
        tuple(
            (Cell(r.name), Cell(format_number(r.value)), _number(r.low), _number(r.high), Cell(r.word))
            for r in rows
        ),
    )


def _number(value: float | None) -> Cell:
    return Cell("-" if value is None else format_number(value))
