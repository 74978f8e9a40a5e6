"""The figures of one run with captions that say what they show."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aifbench.report.content import MANY, label, measured
from aifbench.report.files_figures import bandwidth_points, bytes_per_operation, phases_figure
from aifbench.report.level_figures import LEFT, RIGHT, WIDTH, Figure, capacity_figure, levels_figure
from aifbench.report.resource_figure import resource_figure
from aifbench.report.svg import LEGEND_ROW_PX, Panel, Point, Scale, figure, linear, logarithmic, thinned
from aifbench.results.headline import is_streamed, latency_kind, main_measurement
from aifbench.results.record import Measurement, RunRecord
from aifbench.units import format_number


def figures(record: RunRecord) -> list[Figure]:
    """Whatever the record can show: what was found, latency distribution, then measurements over time.

    Of many measurements only some are drawn over time: the lowest, the highest and the main one.
    """
    shown = _few(record)
    found = [capacity_figure(record), levels_figure(record), phases_figure(record)]
    found.append(latency_figure(record, shown))
    found += [time_figure(m, label(record, m)) for m in shown]
    found += [resource_figure(record)]
    return [f for f in found if f is not None]


def _few(record: RunRecord) -> list[Measurement]:
    found = measured(record)
    if len(found) <= MANY:
        return found
    return [m for m in found if m in (found[0], main_measurement(record), found[-1])]


def latency_figure(record: RunRecord, measurements: Sequence[Measurement]) -> Figure | None:
    """Share of operations slower than a latency, log-log, one line per measurement."""
    curves = [(m, tail_curve(m)) for m in measurements]
    curves = [(m, curve) for m, curve in curves if len(curve) > 1]
    if not curves:
        return None
    named = [(f"{label(record, m)} ({_whole(m)})", curve) for m, curve in curves]
    caption = " ".join(filter(None, (_tail_sentence(label(record, m), c) for m, c in curves)))
    title = "Latency distribution"
    return Figure(title, draw_tails(title, named, caption)[0], caption)


def draw_tails(
    title: str, named: Sequence[tuple[str, Sequence[tuple[float, float]]]], caption: str = ""
) -> tuple[str, str]:
    """The drawing of curves of (latency in ms, share slower), log-log, and a caption that tells of each."""
    caption = caption or " ".join(filter(None, (_tail_sentence(name, curve) for name, curve in named)))
    rows_px = LEGEND_ROW_PX * (len(named) - 1) if sum(len(name) for name, _ in named) > _LEGEND_CHARS else 0.0
    top, bottom = 66.0 + rows_px, 366.0 + rows_px
    x = logarithmic([point[0] for _, curve in named for point in curve], LEFT, RIGHT)
    lowest = min(share for _, curve in named for _, share in curve)
    panel = Panel(
        x, Scale(lowest, 1.0, bottom, top, is_log=True), "share of operations slower", "latency (ms)"
    )
    panel.grid(y_labels=_share_labels(lowest))
    legend = [(name, f"c{i % 6 + 1}") for i, (name, _) in enumerate(named)]
    for (_, css), (_, curve) in zip(legend, named, strict=True):
        panel.line(list(curve), css)
    if rows_px:
        panel.legend_rows(legend, 18)
    else:
        panel.legend(legend, 18)
    return figure(WIDTH, int(bottom) + 40, title, caption, [panel]), caption


def _whole(measurement: Measurement) -> str:
    """What the time of a whole operation is called."""
    return "E2E" if is_streamed(measurement) else latency_kind(measurement)


_LEGEND_CHARS = 60  # that one row holds beside its samples


def tail_curve(measurement: Measurement) -> list[tuple[float, float]]:
    """(latency in ms, share slower) in rising order, up to the highest percentile the sample can carry."""
    shares = _shares(measurement.latency_quantiles)
    n = max((m.n for m in measurement.metrics if m.name.startswith(latency_kind(measurement))), default=0)
    return [(value, 1 - share) for share, value in shares if value > 0 and _is_reliable(share, n)]


def _shares(quantiles: Mapping[str, float]) -> list[tuple[float, float]]:
    found = []
    for text, value in quantiles.items():
        try:
            share = float(text)
        except ValueError:
            continue
        if 0 <= share < 1 and math.isfinite(value):
            found.append((share, value))
    return sorted(found)


def _is_reliable(share: float, n: int) -> bool:
    """Whether a two-sided 95 % order-statistic interval exists: all n below it has a chance under 2.5 %."""
    return n == 0 or share <= 0 or n * math.log(share) <= math.log(0.025)


def _share_labels(lowest: float) -> list[tuple[float, str]]:
    return [(share, text) for share, text in _SHARES if share >= lowest * 0.999]


_SHARES = (
    (1.0, "100 %"),
    (0.5, "50 % (p50)"),
    (0.1, "10 % (p90)"),
    (0.01, "1 % (p99)"),
    (0.001, "0.1 % (p99.9)"),
    (1e-4, "p99.99"),
    (1e-5, "p99.999"),
)


def _tail_sentence(name: str, curve: Sequence[tuple[float, float]]) -> str:
    reached = [(share, value) for value, share in curve]
    for percent, slower in ((99.0, 0.01), (90.0, 0.1), (50.0, 0.5)):
        values = [value for share, value in reached if share <= slower * 1.001]
        if values:
            latency = f"{format_number(values[0], 3)} ms"
            return f"{percent:g} % of {name} operations took at most {latency}."
    return ""


def time_figure(measurement: Measurement, name: str) -> Figure | None:
    """Rate, latency and in-flight operations over time in aligned strips; unmeasured time is shaded."""
    series = {name: _points(measurement, name) for name in measurement.series}
    known = [points for points in series.values() if len(points) > 1]
    if not known:
        return None
    if bytes_each := bytes_per_operation(measurement):
        series["bandwidth"] = bandwidth_points(series.pop("rate", ()), bytes_each)
    end_s = max(points[-1][0] for points in known) + measurement.series_step_s / 2
    x = Scale(0.0, max(end_s, measurement.window_s[1]), LEFT, RIGHT)
    panels = _strips(x, series, measurement.window_s, _whole(measurement))
    bottom = panels[-1].y.start_px
    caption = f"{name}: {_time_sentence(measurement, series)}"
    title = f"{name} over time"
    svg = figure(WIDTH, int(bottom) + 40, title, caption, panels)
    return Figure(title, svg, caption, measurement.verdict)


def _points(measurement: Measurement, name: str) -> list[Point]:
    step_s = measurement.series_step_s
    return [((row + 0.5) * step_s, value) for row, value in enumerate(measurement.series[name])]


def _strips(
    x: Scale, series: Mapping[str, list[Point]], window_s: tuple[float, float], latency: str
) -> list[Panel]:
    wanted = (
        (_bandwidth_strip, 80, ("bandwidth",)),
        (_rate_strip, 80, ("rate",)),
        (_latency_strip, 120, _LATENCIES),
        (_flight_strip, 80, _COUNTS),
    )
    kinds = [
        (draw, height) for draw, height, names in wanted if any(_values(series.get(n, ())) for n in names)
    ]
    if not any(value > 1 for value in _values(series.get("in_flight", ()))) and not any(
        _values(series.get("errors", ()))
    ):
        kinds = [kind for kind in kinds if kind[0] is not _flight_strip]  # one client: 0 or 1 says nothing
    panels: list[Panel] = []
    top = 30.0
    for draw, height in kinds:
        is_lowest = len(panels) == len(kinds) - 1
        panel = draw(Frame(x, top, top + height, window_s, latency, is_lowest=is_lowest), series)
        panels.append(panel)
        top += height + 40
    return panels


_LATENCIES = ("p50_ms", "p99_ms", "max_ms")
_COUNTS = ("in_flight", "errors")


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a strip lies and what part of its time was measured."""

    x: Scale
    top: float
    bottom: float
    window_s: tuple[float, float]
    latency: str
    is_lowest: bool

    def panel(self, y: Scale, title: str) -> Panel:
        """An empty strip: unmeasured time shaded, grid drawn, only the lowest one with a time axis."""
        panel = Panel(self.x, y, title, "seconds since the start of the phase")
        panel.band(self.x.low, self.window_s[0], "shade")
        panel.band(self.window_s[1], self.x.high, "shade")
        panel.grid(x_labels=self.is_lowest)
        return panel


def _bandwidth_strip(frame: Frame, series: Mapping[str, list[Point]]) -> Panel:
    y = linear(_values(series["bandwidth"]), frame.bottom, frame.top)
    panel = frame.panel(y, "bandwidth (MiB/s)")
    panel.line(thinned(series["bandwidth"]), "rate")
    return panel


def _rate_strip(frame: Frame, series: Mapping[str, list[Point]]) -> Panel:
    y = linear(_values(series["rate"]), frame.bottom, frame.top)
    panel = frame.panel(y, "completed operations (1/s)")
    panel.line(thinned(series["rate"]), "rate")
    return panel


def _latency_strip(frame: Frame, series: Mapping[str, list[Point]]) -> Panel:
    found = {name.removesuffix("_ms"): series[name] for name in _LATENCIES if _values(series.get(name, ()))}
    values = [value for points in found.values() for value in _values(points)]
    panel = frame.panel(logarithmic(values, frame.bottom, frame.top), f"{frame.latency} time (ms)")
    for name, points in found.items():
        panel.line(thinned(points), name)
    panel.legend([(name, name) for name in found])
    return panel


def _flight_strip(frame: Frame, series: Mapping[str, list[Point]]) -> Panel:
    flying, failed = (series.get(name, []) for name in _COUNTS)
    bad = [(at, count) for at, count in thinned(failed) if count]
    y = linear([*_values(flying), *_values(bad)], frame.bottom, frame.top)
    panel = frame.panel(y, "operations in flight" + (", errors per step" if bad else ""))
    panel.line(thinned(flying), "flight")
    if bad:
        panel.marks(bad, "dot-error")
        panel.legend([("in flight", "flight"), ("errors", "dot-error")])
    return panel


def _time_sentence(measurement: Measurement, series: Mapping[str, list[Point]]) -> str:
    start_s, end_s = measurement.window_s
    inside = {
        name: _values([p for p in points if start_s <= p[0] <= end_s]) for name, points in series.items()
    }
    clauses = []
    for name, unit in (("rate", "operations per second"), ("bandwidth", "MiB/s")):
        if inside.get(name):
            low, high = (format_number(edge(inside[name]), 3) for edge in (min, max))
            clauses.append(f"between {low} and {high} {unit}")
    worst = next(((words, max(inside[name])) for name, words in _WORST if inside.get(name)), None)
    if worst:
        clauses.append(f"{worst[0]} {format_number(worst[1], 3)} ms")
    errors = sum(inside.get("errors", ()))
    clauses.append(f"{format_number(errors)} errors" if errors else "no errors")
    shaded = " Shaded: not measured." if start_s > 0 else ""
    return f"{', '.join(clauses)}.{shaded}"


_WORST = (("p99_ms", "at worst a p99 of"), ("max_ms", "the slowest operation took"))


def _values(points: Sequence[Point]) -> list[float]:
    return [value for _, value in points if value is not None and math.isfinite(value)]
