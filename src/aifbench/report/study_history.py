"""Figures of a study beside its load: distributions, comparison with the baseline, drift, interference."""

import statistics
from collections.abc import Sequence

from aifbench.report.content import Cell, Table, metric_words
from aifbench.report.figures import draw_tails, tail_curve
from aifbench.report.forest import Ratio, forest
from aifbench.report.level_figures import LEFT, RIGHT, WIDTH, Figure
from aifbench.report.study_content import Judged, one_baseline, rate_name
from aifbench.report.study_plot import number_text
from aifbench.report.study_points import PointView, StudyView, measurement
from aifbench.report.svg import Panel, Scale, figure
from aifbench.results.headline import short_name
from aifbench.results.record import RunRecord
from aifbench.stats.comparison import Change, Comparison, compare

_MOST_CURVES = 6
_FEWEST_RUNS = 8  # from which on a drift is looked for
_CSS = {
    Change.IMPROVED: "better",
    Change.REGRESSED: "worse",
    Change.CHANGED: "p50",
    Change.NO_CHANGE: "same",
    Change.WITHIN_NOISE: "same",
    Change.UNDECIDED: "same",
}


def distribution_figure(study: StudyView) -> Figure | None:
    """Share of operations slower than a latency, one line per point: the median over its runs."""
    curves = [(point, curve) for point in study.shown if len(curve := point_curve(point)) > 1]
    shown = _spread_out(curves, _MOST_CURVES)
    if not shown:
        return None
    named = [(point.label or "all runs", curve) for point, curve in shown]
    left_out = len(curves) - len(shown)
    more = f" {left_out} point{'s' * (left_out > 1)} between these not drawn." if left_out else ""
    caption = _tail_sentence(named) + more
    svg, caption = draw_tails("Latency distribution", named, caption)
    return Figure("Latency distribution", svg, caption, data=_tail_data(named))


def _tail_sentence(named: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> str:
    """The quickest and the slowest at the highest percentile that all of them can tell."""
    for percent, slower in ((99, 0.01), (90, 0.1), (50, 0.5)):
        found = [(name, _latency_at(curve, slower)) for name, curve in named]
        known = [(latency_ms, name) for name, latency_ms in found if latency_ms is not None]
        if len(known) == len(named):
            (least, quickest), (most, slowest) = min(known), max(known)
            if len(named) == 1:
                return f"{percent} % of operations took at most {number_text(least)} ms."
            return (
                f"{percent} % of operations took at most {number_text(least)} ms at {quickest}, and at most "
                f"{number_text(most)} ms at {slowest}."
            )
    return f"The latencies of {len(named)} points."


def _latency_at(curve: Sequence[tuple[float, float]], slower: float) -> float | None:
    return next((ms for ms, share in curve if share <= slower * 1.001), None)


def point_curve(point: PointView) -> list[tuple[float, float]]:
    """(latency in ms, share slower): at each share the median over the runs that can tell it."""
    curves = [tail_curve(m) for m in point.measurements()]
    by_share: dict[float, list[float]] = {}
    for curve in curves:
        for latency_ms, share in curve:
            by_share.setdefault(round(share, 9), []).append(latency_ms)
    whole = {share: found for share, found in by_share.items() if len(found) == len(curves)}
    return [(statistics.median(found), share) for share, found in sorted(whole.items(), reverse=True)]


def _spread_out(
    found: Sequence[tuple[PointView, list[tuple[float, float]]]], most: int
) -> list[tuple[PointView, list[tuple[float, float]]]]:
    """The first, the last, and as many between them as there is room for."""
    if len(found) <= most:
        return list(found)
    return [found[round(i * (len(found) - 1) / (most - 1))] for i in range(most)]


def _tail_data(named: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> Table:
    shares = (0.5, 0.1, 0.01, 0.001)
    heads = (Cell("point"), *(Cell(f"p{100 * (1 - share):g}", "ms") for share in shares))
    rows = []
    for name, curve in named:
        cells = [_latency_at(curve, share) for share in shares]
        rows.append((Cell(name), *(Cell("-" if v is None else number_text(v, 4)) for v in cells)))
    return Table(heads, tuple(rows))


def comparison_figure(judged: Sequence[Judged]) -> Figure | None:
    """Each point against its baseline, metric by metric."""
    first = one_baseline(judged)
    rows = [
        Ratio(
            f"{each.point.label}: {metric_words(each.spread.metric)}", ratio.value, ratio.low, ratio.high,
            each.word, _CSS[each.comparison.change] if each.is_quotable else "max", not each.is_quotable,
        )
        for each in judged
        if (ratio := each.comparison.ratio)
    ]  # fmt: skip
    if not rows:
        return None
    counts = {
        change: sum(each.is_quotable and each.comparison.change is change for each in judged)
        for change in Change
    }
    words = ", ".join(f"{n} {change.value}" for change, n in counts.items() if n)
    unjudged = sum(not each.is_quotable for each in judged)
    words = ", ".join(part for part in (words, f"{unjudged} not judged" if unjudged else "") if part)
    name = first.label if first and first.label else "the baseline"
    caption = f"Of {len(judged)} comparisons with {name}: {words}."
    title = f"Against {name}"
    return forest(title, "ratio to the baseline (log axis)", rows, caption, judged[0].comparison.threshold)


def drift(study: StudyView) -> tuple[list[tuple[RunRecord, float]], Comparison] | None:
    """Each run's work relative to the median of its point in the order made, and late runs against early."""
    name = rate_name(study)
    medians = {point.index: spread.median for point in study.shown if (spread := point.spread(name))}
    found = []
    for point in study.shown:
        for run in point.used if medians.get(point.index) and len(point.used) > 1 else ():
            own = measurement(run, study.main)
            metric = own.metric(name) if own else None
            if metric and metric.value:
                found.append((run, metric.value / medians[point.index]))
    found.sort(key=lambda pair: pair[0].created_utc)
    if len(found) < _FEWEST_RUNS:
        return None
    values = [value for _, value in found]
    half = len(values) // 2
    return found, compare(values[:half], values[-half:], direction="none")


def drift_figure(study: StudyView) -> Figure | None:
    """Work of every run in the order of running, relative to its point: does the machine change meanwhile?"""
    drifted = drift(study)
    if drifted is None:
        return None
    found, compared = drifted
    values = [value for _, value in found]
    x = Scale(0.5, len(found) + 0.5, LEFT, RIGHT)
    reach = max(0.02, *(abs(value - 1) for value in values)) * 1.15
    y = Scale(100 * (1 - reach), 100 * (1 + reach), 246.0, 36.0)
    name = short_name(rate_name(study))
    panel = Panel(x, y, f"{name}, % of the median of its point", "runs in the order they were made")
    panel.grid(y_labels=[(v, f"{v:g}") for v in y.ticks(5)])
    panel.line([(x.low, 100.0), (x.high, 100.0)], "ideal")
    panel.line([(i, 100 * value) for i, value in enumerate(values, start=1)], "same")
    panel.marks([(i, 100 * value) for i, value in enumerate(values, start=1)], "dot-p50")
    title, caption = "Runs in order", _drift_sentence(compared)
    rows = tuple(
        (Cell(str(i)), Cell(f"{100 * value:.1f} %"), Cell(run.created_utc), Cell(run.run_id))
        for i, (run, value) in enumerate(found, start=1)
    )
    table = Table((Cell("run"), Cell("of its point's median"), Cell("when"), Cell("id")), rows)
    return Figure(title, figure(WIDTH, 286, title, caption, [panel]), caption, data=table)


def _drift_sentence(compared: Comparison) -> str:
    ratio = compared.ratio
    if ratio is None:
        return "Early and late runs cannot be compared."
    inside = (
        f" [{number_text(ratio.low)}, {number_text(ratio.high)}]"
        if ratio.low is not None and ratio.high is not None
        else ""
    )
    against = f"the later half against the earlier: ratio {number_text(ratio.value)}{inside}"
    if compared.change is Change.CHANGED:
        return f"The machine or the service changed during the study, {against}."
    if compared.change in (Change.NO_CHANGE, Change.WITHIN_NOISE):
        return f"No drift beyond {100 * compared.margin:.2g} % during the study, {against}."
    return f"Whether it drifted during the study is undecided, {against}."


def interference_figure(study: StudyView) -> Figure | None:
    """How much slower each stream was beside the others, where a benchmark measured that."""
    rows = []
    for point in study.shown:
        keys = dict.fromkeys((m.phase, m.stream) for run in point.used for m in run.measurements)
        for key in keys:
            names = dict.fromkeys(
                metric.name
                for m in point.measurements(key)
                for metric in m.metrics
                if is_slowdown(metric.name)
            )
            for name in names:
                spread = point.spread(name, key)
                if spread and spread.median > 0:
                    label = " ".join(filter(None, (point.label, key[1], short_name(name))))
                    excluded = spread.low is not None and spread.n >= _FIRM_RUNS and spread.low > 1
                    word = "slower" if excluded else ""
                    rows.append(
                        Ratio(label, spread.median, spread.low, spread.high, word,
                              "worse" if excluded else "same", point.is_invalid)
                    )  # fmt: skip
    if not rows:
        return None
    worst = max(rows, key=lambda row: row.value)
    caption = f"The largest slowdown is {number_text(worst.value)} times, of {worst.name}."
    return forest("Interference", "slowdown beside the others (ratio, log axis)", rows, caption)


_FIRM_RUNS = 6  # from which on a median over runs has an interval of 95 %


def is_slowdown(name: str) -> bool:
    return name == "slowdown" or name.startswith("slowdown_") or name.endswith("_slowdown")
