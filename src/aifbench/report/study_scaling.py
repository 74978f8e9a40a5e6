"""How work grows with clients, workers or nodes: measured, ideal, and by the Universal Scalability Law."""

import math

from aifbench.report.content import Cell, Table, metric_words
from aifbench.report.level_figures import LEFT, RIGHT, WIDTH, Figure
from aifbench.report.study_axes import PARALLEL, Series, series
from aifbench.report.study_content import rate_name
from aifbench.report.study_plot import Mark, draw, entries, has_invalid, marks, number_text, values
from aifbench.report.study_points import StudyView
from aifbench.report.svg import Panel, figure, linear, logarithmic
from aifbench.stats.scaling import Refusal, Scaling, fit

_CURVE_POINTS = 60


def scaling_figures(study: StudyView) -> list[Figure]:
    found = (scaling_figure(study, along) for along in series(study, PARALLEL))
    return [drawn for drawn in found if drawn is not None]


def levels(study: StudyView, along: Series) -> list[Mark]:
    """The work at each number of clients (or nodes ...); INVALID points are no part of a law."""
    return marks(along.at, rate_name(study))


def law(drawn: list[Mark]) -> Scaling | Refusal:
    """Fitted to every run that counts, so that noise between runs widens the intervals."""
    pairs = [(mark.at, value) for mark in drawn if not mark.is_invalid for value in mark.spread.values]
    return fit([n for n, _ in pairs], [rate for _, rate in pairs])


def scaling_figure(study: StudyView, along: Series) -> Figure | None:
    drawn = levels(study, along)
    if len(drawn) < 2 or drawn[0].at <= 0:
        return None
    metric, fitted = drawn[0].spread.metric, law(drawn)
    first, last = drawn[0], drawn[-1]
    x = logarithmic([mark.at for mark in drawn], LEFT, RIGHT)
    y = linear(values(drawn), 376.0, 66.0)
    panel = Panel(x, y, f"{metric_words(metric)} ({metric.unit})", along.axis)
    panel.grid(y_labels=[(v, number_text(v, 4)) for v in y.ticks()], x_at=[mark.at for mark in drawn])
    per_one = first.spread.median / first.at
    end = min(last.at, y.high / per_one) if per_one > 0 else last.at
    panel.line([(n, per_one * n) for n in _steps(first.at, end)], "ideal")
    legend = [("runs and median", "work"), ("ideal", "ideal")]
    if isinstance(fitted, Scaling):
        panel.line([(n, fitted.rate(n)) for n in _steps(first.at, last.at)], "p99")
        legend.insert(1, ("fitted law", "p99"))
    draw(panel, drawn, "work", is_joined=isinstance(fitted, Refusal))
    panel.legend(entries(legend, invalid=has_invalid(drawn)), 18)
    title = f"Scaling over {along.axis}" + (f", {along.others}" if along.others else "")
    caption = f"{_speed_up(drawn, along.axis)} {_law_words(fitted, along.axis, len(drawn))}".strip()
    svg = figure(WIDTH, 416, title, caption, [panel])
    return Figure(title, svg, caption, data=_data(drawn, along.axis))


def _steps(start: float, end: float) -> list[float]:
    """Evenly on a log axis."""
    if end <= start:
        return [start]
    step = math.log(end / start) / _CURVE_POINTS
    return [start * math.exp(i * step) for i in range(_CURVE_POINTS + 1)]


def _speed_up(drawn: list[Mark], axis: str) -> str:
    first, last = drawn[0], drawn[-1]
    gain = last.spread.median / first.spread.median if first.spread.median else 0.0
    efficiency = 100 * gain * first.at / last.at
    return (
        f"{number_text(last.at)} {axis} gave {number_text(gain)} times the work of {number_text(first.at)}: "
        f"an efficiency of {number_text(efficiency)} %."
    )


def _law_words(fitted: Scaling | Refusal, axis: str, levels: int) -> str:
    if isinstance(fitted, Refusal):
        return f"No scalability law was fitted: {fitted.reason}." if levels > 2 else ""
    sigma, kappa = fitted.sigma, fitted.kappa
    told = (
        f"The fitted law has a contention of {number_text(sigma.value)} {_interval(sigma.low, sigma.high)} "
        f"and a crosstalk of {number_text(kappa.value)} {_interval(kappa.low, kappa.high)}"
    )
    if fitted.peak is None or fitted.notes:
        return f"{told}; {'; '.join(fitted.notes)}."
    peak = fitted.peak
    return f"{told}; it peaks at {number_text(peak.value)} {axis} {_interval(peak.low, peak.high)}."


def _interval(low: float | None, high: float | None) -> str:
    if low is None:
        return ""
    return f"[{number_text(low)}, {'∞)' if high is None else number_text(high) + ']'}"


def _data(drawn: list[Mark], axis: str) -> Table:
    first = drawn[0]
    rows = []
    for mark in drawn:
        gain = mark.spread.median / first.spread.median if first.spread.median else 0.0
        share = 100 * gain * first.at / mark.at
        rows.append(
            (Cell(number_text(mark.at, 4)), Cell(number_text(mark.spread.median, 4)), Cell(number_text(gain)),
             Cell(f"{number_text(share)} %"), Cell(str(mark.spread.n)))
        )  # fmt: skip
    unit = first.spread.metric.unit
    heads = (Cell(axis), Cell("work", unit), Cell("speed-up"), Cell("efficiency"), Cell("runs"))
    return Table(heads, tuple(rows))
