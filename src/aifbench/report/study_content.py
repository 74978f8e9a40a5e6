"""What a report of a study says, free of any format: verdict, headline numbers, tables, comparisons."""

from collections.abc import Sequence
from dataclasses import dataclass

from aifbench.report.content import Cell, Table, metric_words, start_words
from aifbench.report.study_axes import baseline
from aifbench.report.study_points import PointView, Spread, StudyView
from aifbench.results.headline import is_streamed, latency_kind, qualities
from aifbench.results.record import Measurement, RunState, Verdict
from aifbench.stats.comparison import Change, Comparison, adjust, compare
from aifbench.units import format_number

_TAILS = ("p99", "p90", "p50")
_RATES = ("offered_rate", "throughput", "item_rate", "output_rate", "data_rate", "goodput", "capacity")
_STREAMED = ("ttft_p50", "ttft_p90", "ttft_p99", "tpot_p50", "tpot_p99", "e2e_p99", "attainment")
_WHOLE = ("p50", "p90", "p99")
_LAST = ("error_share",)


@dataclass(frozen=True, slots=True)
class Judged:
    """One metric of a point against the baseline."""

    point: PointView
    name: str
    spread: Spread
    comparison: Comparison
    is_quotable: bool

    @property
    def word(self) -> str:
        """Improved, regressed, no change ...; a side that is INVALID is not judged."""
        return self.comparison.change.value if self.is_quotable else "not judged: INVALID"


def title(study: StudyView) -> str:
    return f"Study {study.record.name}"


def any_measurement(study: StudyView) -> Measurement | None:
    return next((m for point in study.shown for m in point.measurements()), None)


def times(study: StudyView) -> str:
    """From when latencies count."""
    first = next((point.used[0] for point in study.shown), None)
    return start_words(first) if first else ""


def verdict_sentence(study: StudyView) -> str:
    """How many runs at how many points, and what is wrong with which."""
    runs, record = study.runs, study.record
    parts = [f"{_count(len(runs), 'run')} at {_count(len(study.points), 'point')}"]
    parts += [
        f"{sum(run.verdict is verdict for run in runs)} {verdict.value}"
        for verdict in Verdict
        if any(run.verdict is verdict for run in runs)
    ]
    parts += [f"{_count(len(study.failed), 'trial')} failed"] if study.failed else []
    parts += [f"{study.pending} not run"] if study.pending else []
    parts += [f"{_count(len(study.missing), 'record')} unreadable"] if study.missing else []
    if record.state is RunState.COMPLETE:
        return ", ".join(parts)
    ended = {RunState.RUNNING: "still running; nothing of it must be quoted yet"}
    said = ended.get(record.state, f"the study is {record.state.value}")
    return f"{said}{f': {record.error}' if record.error else ''}; {', '.join(parts)}"


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'s' if n != 1 else ''}"


def rate_name(study: StudyView) -> str:
    """The metric of work done: a capacity that was searched for, items, or operations."""
    for name in ("capacity", "item_rate", "throughput"):
        if any(point.spread(name) for point in study.shown):
            return name
    return ""


def tail_name(study: StudyView) -> str:
    """The highest percentile of the main latency that every point can tell, else that most can."""
    base = latency_base(study)
    if not base:
        return ""
    names = [f"{base}_{tail}" for tail in _TAILS]
    known = {name: sum(point.spread(name) is not None for point in study.shown) for name in names}
    return max(names, key=lambda name: known[name]) if any(known.values()) else ""


def latency_base(study: StudyView) -> str:
    first = any_measurement(study)
    if first is None:
        return ""
    return "ttft" if is_streamed(first) else latency_kind(first)


def head_names(study: StudyView) -> list[str]:
    """What a study is told by: work, tail latency, answer quality where there is one."""
    first = any_measurement(study)
    quality = [q.name for q in qualities(first)[:1]] if first else []
    found = [rate_name(study), tail_name(study), *quality]
    return [name for name in found if name and any(point.spread(name) for point in study.shown)]


def best_point(study: StudyView) -> PointView | None:
    """Of the points to be quoted that with the most work; of none, the first with numbers."""
    name = rate_name(study)
    quotable = [point for point in study.shown if not point.is_invalid and point.spread(name)]
    if not quotable:
        return study.shown[0] if study.shown else None

    def median(point: PointView) -> float:
        spread = point.spread(name)
        return spread.median if spread else 0.0

    return max(quotable, key=median)


def headline(study: StudyView) -> tuple[PointView, list[Spread]] | None:
    """The best point and at most three numbers of it; None without numbers."""
    point = best_point(study)
    if point is None:
        return None
    found = [spread for name in head_names(study) if (spread := point.spread(name))]
    return (point, found[:3]) if found else None


def interval_words(spread: Spread) -> str:
    """`95 % over 6 runs [198, 202]`; of fewer runs the confidence that their range has."""
    if spread.low is None or spread.high is None:
        return "one run: no interval"
    confidence = format_number(100 * spread.confidence, 3)
    return f"{confidence} % interval {bracket(spread)} over {spread.n} runs"


def bracket(spread: Spread) -> str:
    if spread.low is None or spread.high is None:
        return ""
    return f"[{format_number(spread.low)}, {format_number(spread.high)}]"


def median_text(spread: Spread) -> str:
    sign = "≥ " if spread.metric.note.startswith(">=") else ""
    return sign + format_number(spread.median)


def shown_names(study: StudyView) -> list[str]:
    """The metrics of the result table, in its order; only those that a point has."""
    first = any_measurement(study)
    if first is None:
        return []
    kind = latency_kind(first)
    times = _STREAMED if is_streamed(first) else tuple(f"{kind}_{p}" for p in _WHOLE)
    names = (*_RATES, *times, *(quality.name for quality in qualities(first)[:2]), *_LAST)
    return [name for name in dict.fromkeys(names) if any(point.spread(name) for point in study.shown)]


def result_table(study: StudyView) -> Table:
    """A row per point: how many runs of which verdict, then each metric's median, interval and CV."""
    names = shown_names(study)
    units = {name: _unit(study, name) for name in names}
    heads = (Cell("point"), Cell("runs"), *(Cell(_head(study, name), units[name]) for name in names))
    rows = tuple(
        (_point_cell(point), _runs_cell(point), *(_spread_cell(point.spread(name)) for name in names))
        for point in study.points
    )
    return Table(heads, rows)


def _unit(study: StudyView, name: str) -> str:
    return next((s.metric.unit for point in study.shown if (s := point.spread(name))), "")


def _head(study: StudyView, name: str) -> str:
    metric = next(s.metric for point in study.shown if (s := point.spread(name)))
    return metric_words(metric).replace("_", " ")


def _point_cell(point: PointView) -> Cell:
    return Cell(point.label or "the only point")


def _runs_cell(point: PointView) -> Cell:
    """How many runs count, and what became of the others."""
    counts = [f"{n} {verdict.value}" for verdict in Verdict if (n := point.verdicts[verdict])]
    counts += [f"{len(point.failed)} failed"] if point.failed else []
    counts += [f"{point.pending} not run"] if point.pending else []
    worst = max(point.verdicts, key=list(Verdict).index, default=Verdict.INVALID)
    return Cell(str(len(point.used)), ", ".join(counts), worst)


def _spread_cell(spread: Spread | None) -> Cell:
    if spread is None:
        return Cell("-")
    noise = (
        f"CV\N{NO-BREAK SPACE}{format_number(100 * spread.cv, 2)}\N{NO-BREAK SPACE}%"
        if spread.cv is not None
        else ""
    )
    return Cell(median_text(spread), " ".join(part for part in (bracket(spread), noise) if part))


def other_tables(study: StudyView) -> list[tuple[str, Table]]:
    """Measurements beside the main one, such as other streams and phases: work and tail latency of each."""
    keys = dict.fromkeys(
        (m.phase, m.stream) for point in study.shown for run in point.used for m in run.measurements
    )
    found = []
    for key in list(keys)[:_MOST_OTHERS]:
        names = [
            name
            for name in ("throughput", "item_rate", "response_p99", "service_p99", "slowdown", "error_share")
            if any(point.spread(name, key) for point in study.points)
        ]
        if key == study.main or not names:
            continue
        rows = tuple(
            (_point_cell(point), *(_spread_cell(point.spread(name, key)) for name in names))
            for point in study.points
        )
        heads = [Cell("point")]
        for name in names:
            spread = next(s for point in study.points if (s := point.spread(name, key)))
            heads.append(Cell(metric_words(spread.metric).replace("_", " "), spread.metric.unit))
        found.append((" / ".join(dict.fromkeys(key)), Table(tuple(heads), rows)))
    return found


_MOST_OTHERS = 12


def comparisons(study: StudyView) -> list[Judged]:
    """Every other point against the baseline in the headline metrics, adjusted within each metric (Holm).

    Within each, since few repeats have few p: 5 and 5 runs can show nothing in a family of more than 6.
    """
    first = baseline(study)
    found = [_against(study, first, name) for name in head_names(study)] if first else []
    return [each for family in found for each in family]


def _against(study: StudyView, first: PointView, name: str) -> list[Judged]:
    before = first.spread(name)
    others = [
        (point, after) for point in study.points if point is not first and (after := point.spread(name))
    ]
    if before is None:
        return []
    direction = before.metric.direction
    compared = adjust([compare(before.values, after.values, direction=direction) for _, after in others])
    return [
        Judged(point, name, after, each, not (first.is_invalid or point.is_invalid))
        for (point, after), each in zip(others, compared, strict=True)
    ]


def comparison_table(study: StudyView, judged: Sequence[Judged]) -> Table:
    """A row per point, a column per headline metric: ratio to the baseline, interval, and the word."""
    names = list(dict.fromkeys(each.name for each in judged))
    points = {each.point.index: each.point for each in judged}
    heads = (Cell("point"), *(Cell(_head(study, name), "ratio to the baseline") for name in names))
    rows = []
    for index, point in points.items():
        own = {each.name: each for each in judged if each.point.index == index}
        rows.append((_point_cell(point), *(_judged_cell(own.get(name)) for name in names)))
    return Table(heads, tuple(rows))


def _judged_cell(judged: Judged | None) -> Cell:
    if judged is None:
        return Cell("-")
    words = judged.word
    change, needed = judged.comparison.change, judged.comparison.repeats_needed
    if judged.is_quotable and change is Change.NO_CHANGE:
        words += f" beyond ±{format_number(100 * judged.comparison.margin, 2)} %"
    if judged.is_quotable and change is Change.UNDECIDED and needed:
        words += f": {needed} repeats needed"
    return Cell(ratio_text(judged), words)


def ratio_text(judged: Judged) -> str:
    """`1.42 [1.31, 1.53]`; the difference where there is no ratio, such as against 0."""
    ratio, difference = judged.comparison.ratio, judged.comparison.difference
    found, sign = (ratio, "") if ratio else (difference, "+" if difference and difference.value > 0 else "")
    if found is None:
        return "-"
    unit = f" {judged.spread.metric.unit}" if ratio is None else ""
    inside = (
        f" [{format_number(found.low, 3)}, {format_number(found.high, 3)}]"
        if found.low is not None and found.high is not None
        else ""
    )
    return f"{sign}{format_number(found.value, 3)}{unit}{inside}"


def failures(study: StudyView) -> Table:
    """Trials that failed and records that cannot be read, with why."""
    rows = [
        (Cell(point.label, f"repeat {trial.repeat}"), Cell(trial.error or "no reason was recorded"),
         Cell(trial.run_id))
        for point, trial in study.failed
    ]  # fmt: skip
    rows += [(Cell(run_id), Cell(problem), Cell(run_id)) for run_id, problem in study.missing.items()]
    return Table((Cell("trial"), Cell("why"), Cell("run")), tuple(rows))


def doubts(study: StudyView) -> Table:
    """What was not VALID: each kind of check with how many runs it concerns, where first, and its message."""
    found: dict[tuple[str, str], list[tuple[PointView, str]]] = {}
    for point in study.points:
        for run in point.runs:
            told = {}
            for m in run.measurements:
                for check in m.checks:
                    if check.verdict is not Verdict.VALID and m.role.value == "measure":
                        told[(check.verdict.value, check.code)] = check.message
            for key, message in told.items():
                found.setdefault(key, []).append((point, message))
    rows = []
    for (verdict, code), where in sorted(found.items()):
        points = list(dict.fromkeys(point.label for point, _ in where))
        at = ", ".join(points[:3]) + (f" and {len(points) - 3} more" if len(points) > 3 else "")
        rows.append(
            (Cell(code.replace("_", " ").lower(), verdict=Verdict(verdict)), Cell(str(len(where))), Cell(at),
             Cell(where[0][1]))
        )  # fmt: skip
    return Table((Cell("check"), Cell("runs"), Cell("at"), Cell("for example")), tuple(rows))
