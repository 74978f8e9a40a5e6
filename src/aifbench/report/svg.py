"""Inline SVG charts without a dependency: scales, panels and figures.

Colours and fonts come from the page's style sheet through class names, so that a figure follows
the page's light or dark theme. Every figure has a title and a description for screen readers.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

from aifbench.units import format_number

Point = tuple[float, float | None]

_MOST_DOTS = 600
_WIDE = 3.0  # between the ends of a log scale; below, even steps are as good and there are enough of them
LEGEND_ROW_PX = 20.0
CHAR_PX = 7.0  # mean advance of 12 px sans-serif text, for placing legends


@dataclass(frozen=True, slots=True)
class Scale:
    """Values in [low, high] to pixels from start to end, linear or logarithmic; outside is clamped."""

    low: float
    high: float
    start_px: float
    end_px: float
    is_log: bool = False

    def at(self, value: float) -> float:
        low, high, here = (self._bent(v) for v in (self.low, self.high, value))
        share = (here - low) / (high - low) if high > low else 0.5
        return self.start_px + min(1.0, max(0.0, share)) * (self.end_px - self.start_px)

    def _bent(self, value: float) -> float:
        return math.log10(max(value, self.low)) if self.is_log else value

    def ticks(self, count: int = 5) -> list[float]:
        """Round values within the scale: about `count` of them, or those of each decade on a log scale."""
        is_wide = self.is_log and self.high > _WIDE * self.low
        return _log_ticks(self.low, self.high) if is_wide else _linear_ticks(self.low, self.high, count)


def linear(values: Iterable[float], start_px: float, end_px: float) -> Scale:
    """From zero to a little above the highest value."""
    high = max([v for v in values if math.isfinite(v)], default=0.0)
    return Scale(0.0, high * 1.08 if high > 0 else 1.0, start_px, end_px)


def logarithmic(values: Iterable[float], start_px: float, end_px: float) -> Scale:
    """Around the positive values, with at least a factor of four between the ends."""
    positive = [v for v in values if math.isfinite(v) and v > 0] or [1.0]
    low, high = min(positive) / 1.15, max(positive) * 1.15
    widen = max(1.0, math.sqrt(4 * low / high))
    return Scale(low / widen, high * widen, start_px, end_px, is_log=True)


def _linear_ticks(low: float, high: float, count: int) -> list[float]:
    if not high > low:
        return [low]
    rough = (high - low) / max(1, count)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(s * magnitude for s in (1, 2, 5, 10) if s * magnitude >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    span = math.log10(high / low)
    steps = next(steps for limit, steps in _LOG_STEPS if span <= limit)
    return [s * 10.0**d for d in decades for s in steps if low <= s * 10.0**d <= high]


_LOG_STEPS: tuple[tuple[float, tuple[float, ...]], ...] = (
    (0.9, (1, 1.5, 2, 3, 5, 7)),
    (2.5, (1, 2, 5)),
    (4, (1, 3)),
    (math.inf, (1,)),
)


@dataclass(slots=True)
class Panel:
    """A plot area: two scales and what is drawn between them. Titles name the quantity and its unit."""

    x: Scale
    y: Scale
    title: str
    x_title: str = ""
    parts: list[str] = field(default_factory=list)

    def grid(
        self,
        *,
        x_labels: bool = True,
        y_labels: Sequence[tuple[float, str]] | None = None,
        x_at: Sequence[float] = (),
    ) -> None:
        """Horizontal lines with the y values, x values below, and the panel's title above."""
        left, right = self.x.start_px, self.x.end_px
        for value, text in y_labels or [(v, format_number(v)) for v in self.y.ticks(4)]:
            y = _px(self.y.at(value))
            self.parts.append(f'<path class="grid" d="M{_px(left)} {y}H{_px(right)}"/>')
            self.text(left - 8, self.y.at(value) + 4, text, "tick end")
        if x_labels:
            self.x_axis(x_at)
        self.text(0, self.y.end_px - 12, self.title, "name")

    def x_axis(self, at: Sequence[float] = ()) -> None:
        """Values below the panel, round ones or those of `at`, and the name of the quantity."""
        bottom, free_px = self.y.start_px, -math.inf
        for value in sorted(at) or self.x.ticks(8):
            x, text = self.x.at(value), format_number(value)
            self.parts.append(f'<path class="axis" d="M{_px(x)} {_px(bottom)}v4"/>')
            half_px = len(text) * CHAR_PX / 2
            if x - half_px > free_px:
                self.text(x, bottom + 17, text, "tick mid")
                free_px = x + half_px
        self.text(self.x.end_px, bottom + 34, self.x_title, "tick end")

    def line(self, points: Iterable[Point], css: str) -> None:
        """A line through the points, broken where y is None."""
        path = _path([(self.x.at(x), None if y is None else self.y.at(y)) for x, y in points])
        if path:
            self.parts.append(f'<path class="line {css}" d="{path}"/>')

    def marks(self, points: Iterable[Point], css: str) -> None:
        """A dot at each point, as one path of round caps."""
        dots = "".join(f"M{_px(self.x.at(x))} {_px(self.y.at(y))}h0" for x, y in points if y is not None)
        if dots:
            self.parts.append(f'<path class="mark {css}" d="{dots}"/>')

    def dots(self, points: Iterable[tuple[float, float]], css: str) -> None:
        """A faint dot for each run, as one path; at most some hundreds, so that a figure stays small."""
        every = list(points)
        step = max(1, math.ceil(len(every) / _MOST_DOTS))
        dots = "".join(f"M{_px(self.x.at(x))} {_px(self.y.at(y))}h0" for x, y in every[::step])
        if dots:
            self.parts.append(f'<path class="run {css}" d="{dots}"/>')

    def spot(self, x_px: float, y_px: float, css: str, *, is_hollow: bool = False) -> None:
        """A mark at a place in pixels; a ring where the number is not to be quoted."""
        if is_hollow:
            ring = f'class="ring {css}" cx="{_px(x_px)}" cy="{_px(y_px)}" r="4"'
            self.parts.append(f"<circle {ring}/>")
        else:
            self.parts.append(f'<path class="mark {css}" d="M{_px(x_px)} {_px(y_px)}h0"/>')

    def band(self, begin: float, end: float, css: str) -> None:
        """The stretch of x from `begin` to `end`, shaded over the panel's height."""
        left, right = self.x.at(begin), self.x.at(end)
        height = self.y.start_px - self.y.end_px
        if right > left:
            self.parts.append(
                f'<rect class="{css}" x="{_px(left)}" y="{_px(self.y.end_px)}"'
                f' width="{_px(right - left)}" height="{_px(height)}"/>'
            )

    def block(self, begin: float, end: float, rows_px: tuple[float, float], css: str) -> None:
        """A lying bar from one x to another, between two heights in pixels."""
        left, right, (top, bottom) = self.x.at(begin), self.x.at(end), rows_px
        size = f'width="{_px(max(right - left, 0.5))}" height="{_px(bottom - top)}"'
        self.parts.append(f'<rect class="{css}" x="{_px(left)}" y="{_px(top)}" {size} rx="2"/>')

    def stroke(self, at: float, rows_px: tuple[float, float], css: str) -> None:
        """An upright line at x, between two heights in pixels."""
        top, bottom = rows_px
        self.parts.append(f'<path class="line {css}" d="M{_px(self.x.at(at))} {_px(top)}V{_px(bottom)}"/>')

    def bars(self, bars: Iterable[tuple[float, float, float]], css: str) -> None:
        """An upright bar at each x from one y to another, such as an interval."""
        path = "".join(
            f"M{_px(self.x.at(x))} {_px(self.y.at(low))}V{_px(self.y.at(high))}" for x, low, high in bars
        )
        if path:
            self.parts.append(f'<path class="line {css}" d="{path}"/>')

    def names(self, names: Iterable[tuple[float, float, str]], css: str = "tick mid halo") -> None:
        """A word above each point; one that would lie on the word before it is left out."""
        ends: dict[int, float] = {}
        for x, y, text in sorted(names):
            half, at, height = len(text) * CHAR_PX / 2, self.x.at(x), self.y.at(y) - 9
            row = round(height / 12)
            if at - half > max(ends.get(row + step, -math.inf) for step in (-1, 0, 1)):
                self.text(at, height, text, css)
                ends[row] = at + half

    def text(self, x_px: float, y_px: float, text: str, css: str) -> None:
        self.parts.append(f'<text class="{css}" x="{_px(x_px)}" y="{_px(y_px)}">{escape(text)}</text>')

    def legend(self, entries: Sequence[tuple[str, str]], y_px: float | None = None) -> None:
        """(text, css) pairs in one row that ends at the panel's right edge, by default beside its title."""
        y = self.y.end_px - 12 if y_px is None else y_px
        x = self.x.end_px
        for text, css in reversed(entries):
            x -= len(text) * CHAR_PX
            self._entry(x, y, text, css)
            x -= 46

    def legend_rows(self, entries: Sequence[tuple[str, str]], y_px: float) -> None:
        """(text, css) pairs below one another, the longest of which ends at the panel's right edge."""
        x = self.x.end_px - max(len(text) for text, _ in entries) * CHAR_PX
        for i, (text, css) in enumerate(entries):
            self._entry(x, y_px + LEGEND_ROW_PX * i, text, css)

    def _entry(self, x_px: float, y_px: float, text: str, css: str) -> None:
        """The sample of a line, dot or ring, and its name from `x_px` on."""
        self.text(x_px, y_px, text, "tick")
        if css.startswith("ring"):
            self.spot(x_px - 14, y_px - 4, css.removeprefix("ring").strip(), is_hollow=True)
            return
        kind, sample = ("mark", "m13 0h0") if css.startswith("dot") else ("line", "h20")
        self.parts.append(f'<path class="{kind} {css}" d="M{_px(x_px - 27)} {_px(y_px - 4)}{sample}"/>')


def figure(width_px: int, height_px: int, title: str, description: str, panels: Iterable[Panel]) -> str:
    """The whole SVG element. It scales to its container and never asks the network for anything."""
    body = "".join(part for panel in panels for part in panel.parts)
    return (
        f'<svg viewBox="0 0 {width_px} {height_px}" role="img" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{body}</svg>"
    )


def thinned(points: Sequence[Point], limit: int = 500) -> list[Point]:
    """About `limit` points that look the same: of each stretch the lowest and the highest, in order."""
    if len(points) <= limit:
        return list(points)
    size = math.ceil(2 * len(points) / limit)
    kept: list[Point] = []
    for start in range(0, len(points), size):
        known = [p for p in points[start : start + size] if p[1] is not None]
        ends = {min(known, key=_height), max(known, key=_height)} if known else {points[start]}
        kept += sorted(ends, key=lambda point: point[0])
    return kept


def _height(point: Point) -> float:
    return point[1] if point[1] is not None else 0.0


def _path(points: Sequence[Point]) -> str:
    commands = []
    is_drawing = False
    for x, y in points:
        if y is None:
            is_drawing = False
        elif is_drawing:
            commands.append(f"L{_px(x)} {_px(y)}")
        else:
            commands.append(f"M{_px(x)} {_px(y)}h0")  # a lone point shows as its round cap
            is_drawing = True
    return "".join(commands)


def _px(value: float) -> str:
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text
