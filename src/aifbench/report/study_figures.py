"""Figures of a study over its load: latency, achieved rate, and what one costs in the other."""

from collections.abc import Sequence

from aifbench.report.content import metric_words
from aifbench.report.level_figures import LEFT, RIGHT, WIDTH, Figure
from aifbench.report.study_axes import PARALLEL, RATES, Series, number_of, series
from aifbench.report.study_content import any_measurement, latency_base, rate_name, tail_name
from aifbench.report.study_plot import Mark, data, draw, entries, has_invalid, marks, number_text, values
from aifbench.report.study_points import PointView, StudyView
from aifbench.report.svg import Panel, figure, linear, logarithmic
from aifbench.results.headline import objective, short_name

_PERCENTILES = ("p50", "p90", "p99")
_SERVED = 0.95  # of what was offered, below which a point is saturated


def load_figures(study: StudyView) -> list[Figure]:
    """Of each series over the offered rate, then the frontier over whatever load was varied."""
    found: list[Figure | None] = []
    rates = series(study, RATES)
    for each in rates:
        found += [load_latency(study, each), achieved(each)]
    found += [frontier(study, each) for each in (*rates, *series(study, PARALLEL)) if len(each.at) >= 3]
    return [drawn for drawn in found if drawn is not None]


def offered(point: PointView) -> float | None:
    """What was offered; what was asked for where no run tells."""
    spread = point.spread("offered_rate")
    if spread:
        return spread.median
    rates = (number_of(value) for key, value in point.settings.items() if key.endswith("rate"))
    return next(rates, None)


def served_share(point: PointView) -> float | None:
    done, asked = point.spread("throughput"), point.spread("offered_rate")
    return done.median / asked.median if done and asked and asked.median > 0 else None


def _named(title: str, along: Series) -> str:
    return f"{title}, {along.others}" if along.others else title


def load_latency(study: StudyView, along: Series) -> Figure | None:
    """Latency percentiles over the offered rate, both on log axes, with the limit where there is one."""
    base, at = latency_base(study), [(offered(point), point) for point in along.points]
    drawn = {p: found for p in _PERCENTILES if len(found := marks(at, f"{base}_{p}")) > 1}
    if not drawn:
        return None
    every = [mark for found in drawn.values() for mark in found]
    x = logarithmic([mark.at for mark in every], LEFT, RIGHT)
    limit_ms = _limit_ms(study, base)
    y = logarithmic([*values(every), *([limit_ms] if limit_ms else [])], 376.0, 66.0)
    name = "time to first token, TTFT" if base == "ttft" else f"{base} time"
    panel = Panel(x, y, f"{name} (ms)", "offered rate (requests per second)")
    panel.grid(y_labels=[(v, number_text(v, 4)) for v in y.ticks()])
    if limit_ms:
        panel.line([(x.low, limit_ms), (x.high, limit_ms)], "limit")
    for percentile, found in drawn.items():
        draw(panel, found, percentile)
    legend = [*((p, p) for p in drawn), *([("limit", "limit")] if limit_ms else [])]
    panel.legend(entries(legend, invalid=has_invalid(every)), 18)
    title, caption = _named("Latency over load", along), _load_sentence(drawn)
    rows = _rows(at)
    table = data("offered rate (1/s)", rows, [f"{base}_{p}" for p in _PERCENTILES])
    return Figure(title, figure(WIDTH, 416, title, caption, [panel]), caption, data=table)


def _rows(at: Sequence[tuple[float | None, PointView]]) -> list[tuple[str, PointView]]:
    return [("-" if x is None else number_text(x, 4), point) for x, point in at]


def _limit_ms(study: StudyView, base: str) -> float | None:
    first = any_measurement(study)
    slo = objective(first) if first else None
    return slo.limits_ms.get("ttft" if base == "ttft" else "e2e") if slo else None


def _load_sentence(drawn: dict[str, list[Mark]]) -> str:
    """What the highest percentile did between the lowest and the highest load."""
    found = list(drawn.values())[-1]
    first, last, name = found[0], found[-1], metric_words(found[0].spread.metric)
    return (
        f"The median of {name} went from {number_text(first.spread.median)} ms at "
        f"{number_text(first.at)}/s to {number_text(last.spread.median)} ms at {number_text(last.at)}/s."
        + (" Rings: runs there are INVALID." if has_invalid(found) else "")
    )


def achieved(along: Series) -> Figure | None:
    """Achieved rate, and goodput where limits were set, over the offered rate; the diagonal is all of it."""
    at = [(offered(point), point) for point in along.points]
    done, useful = marks(at, "throughput"), marks(at, "goodput")
    if len(done) < 2:
        return None
    highest = max(*(mark.at for mark in done), *values(done))
    x, y = linear([highest], LEFT, RIGHT), linear([highest], 376.0, 66.0)
    panel = Panel(x, y, "achieved (requests per second)", "offered rate (requests per second)")
    panel.grid(y_labels=[(v, number_text(v, 4)) for v in y.ticks()])
    panel.line([(0.0, 0.0), (highest, highest)], "ideal")
    draw(panel, done, "work")
    draw(panel, useful, "useful")
    legend = [("achieved", "work"), *([("goodput", "useful")] if useful else []), ("all of it", "ideal")]
    panel.legend(entries(legend, invalid=has_invalid(done)), 18)
    title, caption = _named("Achieved over offered rate", along), _achieved_sentence(done)
    table = data("offered rate (1/s)", _rows(at), ["throughput", "goodput"])
    return Figure(title, figure(WIDTH, 416, title, caption, [panel]), caption, data=table)


def _achieved_sentence(done: Sequence[Mark]) -> str:
    """The highest rate that was served, and the first that was not."""
    shares = [(mark, share) for mark in done if (share := served_share(mark.point)) is not None]
    short = next(((mark, share) for mark, share in shares if share < _SERVED), None)
    most = max(done, key=lambda mark: mark.spread.median)
    if short is None:
        return (
            f"All of these rates were served; the highest, {number_text(most.at)}/s, gave "
            f"{number_text(most.spread.median)}/s."
        )
    mark, share = short
    return (
        f"From {number_text(mark.at)}/s on less was served than offered, there {number_text(100 * share)} %; "
        f"the most that was served is {number_text(most.spread.median)}/s."
    )


def frontier(study: StudyView, along: Series) -> Figure | None:
    """Tail latency over work done, joined in the order of the load, each point with its load beside it."""
    rate, tail = rate_name(study), tail_name(study)
    if not rate or not tail:
        return None
    at = [(s.median if (s := point.spread(rate)) else None, point) for point in along.points]
    drawn = marks(at, tail)
    if len(drawn) < 3:
        return None
    unit = next(s.metric.unit for point in along.points if (s := point.spread(rate)))
    x = linear([mark.at for mark in drawn], LEFT, RIGHT)
    y = logarithmic(values(drawn), 376.0, 66.0)
    metric = drawn[0].spread.metric
    panel = Panel(x, y, f"{metric_words(metric)} ({metric.unit})", f"{short_name(rate)} ({unit})")
    panel.grid(y_labels=[(v, number_text(v, 4)) for v in y.ticks()])
    draw(panel, drawn, "p99")
    load = {point.index: number_text(value, 4) for value, point in along.at}
    panel.names((m.at, max(m.spread.values), load[m.point.index]) for m in drawn)
    panel.legend(entries([(f"by {along.axis}", "p99")], invalid=has_invalid(drawn)), 18)
    title, caption = _named("Latency over throughput", along), _frontier_sentence(drawn, along, unit)
    rows = [(load[point.index], point) for _, point in along.at]
    table = data(along.axis, rows, [rate, tail])
    return Figure(title, figure(WIDTH, 416, title, caption, [panel]), caption, data=table)


def _frontier_sentence(drawn: Sequence[Mark], along: Series, unit: str) -> str:
    load = {point.index: number_text(value, 4) for value, point in along.at}
    most = max(drawn, key=lambda mark: mark.at)
    other = drawn[0] if most is not drawn[0] else drawn[-1]
    words, tail = metric_words(most.spread.metric), most.spread.metric.unit
    return (
        f"The most work, {number_text(most.at)} {unit}, came at {along.axis} {load[most.point.index]} with a "
        f"{words} of {number_text(most.spread.median)} {tail}; at {load[other.point.index]} it was "
        f"{number_text(other.spread.median)} {tail}."
    )
