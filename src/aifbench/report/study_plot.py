"""How medians over runs are drawn: every run as a faint dot, the median as a mark, its interval as a bar."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aifbench.report.content import Cell, Table
from aifbench.report.study_content import bracket, median_text
from aifbench.report.study_points import PointView, Spread
from aifbench.report.svg import Panel
from aifbench.units import format_number


@dataclass(frozen=True, slots=True)
class Mark:
    """One point of a figure: where it stands, what it shows, and whether it may be quoted."""

    at: float
    point: PointView
    spread: Spread

    @property
    def is_invalid(self) -> bool:
        return self.point.is_invalid


def marks(at: Iterable[tuple[float | None, PointView]], name: str) -> list[Mark]:
    """Those of the points that have the metric, in their order."""
    found = ((x, point, point.spread(name)) for x, point in at)
    return [Mark(x, point, spread) for x, point, spread in found if x is not None and spread is not None]


def values(drawn: Sequence[Mark]) -> list[float]:
    """Everything that a scale has to hold."""
    return [value for mark in drawn for value in mark.spread.values]


def draw(panel: Panel, drawn: Sequence[Mark], css: str, *, is_joined: bool = True) -> None:
    """Runs, intervals and medians; joined only along an ordered parameter, which is up to the caller."""
    panel.dots(((mark.at, value) for mark in drawn for value in mark.spread.values), css)
    if is_joined:
        panel.line([(mark.at, mark.spread.median) for mark in drawn], css)
    bars = ((m.at, m.spread.low, m.spread.high) for m in drawn)
    panel.bars(((x, low, high) for x, low, high in bars if low is not None and high is not None), css)
    for mark in drawn:
        x, y = panel.x.at(mark.at), panel.y.at(mark.spread.median)
        panel.spot(x, y, css, is_hollow=mark.is_invalid)


def has_invalid(drawn: Iterable[Mark]) -> bool:
    return any(mark.is_invalid for mark in drawn)


def entries(named: Sequence[tuple[str, str]], *, invalid: bool) -> list[tuple[str, str]]:
    """A legend: each line by its name, and the ring where one was drawn."""
    return [*named, *([("INVALID", "ring max")] if invalid else [])]


def data(axis: str, rows: Sequence[tuple[str, PointView]], names: Sequence[str]) -> Table:
    """The medians with intervals that were drawn, a row per point; `rows` have the axis' value as text."""
    spreads = {name: [point.spread(name) for _, point in rows] for name in names}
    kept = {name: found for name, found in spreads.items() if any(found)}
    units = {name: next(s.metric.unit for s in found if s) for name, found in kept.items()}
    heads = (Cell(axis), *(Cell(name, units[name]) for name in kept), Cell("runs"))
    made = tuple(
        (Cell(text), *(_cell(found[i]) for found in kept.values()), Cell(str(len(point.used))))
        for i, (text, point) in enumerate(rows)
    )
    return Table(heads, made)


def _cell(spread: Spread | None) -> Cell:
    return Cell("-") if spread is None else Cell(median_text(spread), bracket(spread))


def number_text(value: float, digits: int = 3) -> str:
    return format_number(value, digits)
