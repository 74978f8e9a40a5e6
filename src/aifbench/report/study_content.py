"""What a report of a study says, free of any format: verdict, headline numbers, tables, comparisons."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from aifbench.errors import ResultError, UsageError
from aifbench.report.content import Cell, Table, measured, metric_words, start_words
from aifbench.report.study_axes import baseline
from aifbench.report.study_points import Key, PointView, Spread, StudyView
from aifbench.results.compared import ComparedSide, Rank
from aifbench.results.comparison import compare_pair
from aifbench.results.headline import is_streamed, latency_kind, qualities
from aifbench.results.record import Measurement, RunState, Verdict
from aifbench.stats.comparison import Change, Comparison
from aifbench.units import format_number

_TAILS = ("p99", "p90", "p50")
_RATES = (
    "offered_rate", "bandwidth", "throughput", "item_rate", "output_rate", "data_rate", "goodput", "capacity"
)  # fmt: skip
_STREAMED = ("ttft_p50", "ttft_p90", "ttft_p99", "tpot_p50", "tpot_p99", "e2e_p99", "attainment")
_WHOLE = ("p50", "p90", "p99")
_LAST = ("error_share",)
_NBSP = "\N{NO-BREAK SPACE}"
_SLOWDOWNS = ("slowdown_p99", "slowdown_p50", "slowdown_ttft_p50", "throughput_kept")


@dataclass(frozen=True, slots=True)
class Judged:
    """One metric of a point against its baseline."""

    point: PointView
    base: PointView
    name: str
    spread: Spread
    comparison: Comparison

    @property
    def is_quotable(self) -> bool:
        return not (self.base.is_invalid or self.point.is_invalid)

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
        return f"{', '.join(parts)}{_mostly(study)}"
    ended = {RunState.RUNNING: "still running; nothing of it must be quoted yet"}
    said = ended.get(record.state, f"the study is {record.state.value}")
    return f"{said}{f': {record.error}' if record.error else ''}; {', '.join(parts)}"


def _mostly(study: StudyView) -> str:
    """Which check the most runs of the worst verdict did not meet, with an example."""
    found = _unmet(study)
    if not found:
        return ""
    worst = max((verdict for verdict, _ in found), key=list(Verdict).index)
    code, where = max(
        ((code, where) for (verdict, code), where in found.items() if verdict is worst),
        key=lambda each: len(each[1]),
    )
    runs = _count(len(where), "run")
    return f"; {worst.value} most often for {_code_words(code)} ({runs}), such as: {where[0][1]}"


def _code_words(code: str) -> str:
    return code.replace("_", " ").lower()


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'s' if n != 1 else ''}"


def rate_name(study: StudyView) -> str:
    """The metric of work done: a capacity that was searched for, bytes of fixed work, items, operations."""
    for name in ("capacity", "bandwidth", "item_rate", "throughput"):
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
    """What a study is told by: slowdowns where there are some, else work, tail latency, answer quality."""
    if beside := [name for name in _SLOWDOWNS if any(point.spread(name) for point in study.shown)]:
        return beside
    first = any_measurement(study)
    quality = [q.name for q in qualities(first)[:1]] if first else []
    if first and is_streamed(first):
        quality = ["attainment"] if first.metric("attainment") else ["output_rate"]
    found = [rate_name(study), tail_name(study), *quality]
    return [name for name in found if name and any(point.spread(name) for point in study.shown)]


def best_point(study: StudyView) -> PointView | None:
    """Of the points to be quoted that with the most work, or the largest slowdown; else the first of all."""
    name = next((name for name in head_names(study) if name in _SLOWDOWNS), rate_name(study))
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
    names = (*_SLOWDOWNS, *_RATES, *times, *(quality.name for quality in qualities(first)[:2]), *_LAST)
    unwanted = {*(_LAST if is_faultless(study) else ()), *_said_as_items(study, study.main)}
    return [
        name
        for name in dict.fromkeys(names)
        if name not in unwanted and any(point.spread(name) for point in study.shown)
    ]


def _said_as_items(study: StudyView, key: Key) -> tuple[str, ...]:
    """Operations where each is an item, and items say the same in better words."""
    pairs = [(point.spread("throughput", key), point.spread("item_rate", key)) for point in study.shown]
    is_same = all(items and done and items.values == done.values for done, items in pairs if items or done)
    return ("throughput",) if is_same and any(items for _, items in pairs) else ()


def is_faultless(study: StudyView) -> bool:
    """Whether no operation failed in the main measurement of any run that counts."""
    found = [spread for point in study.shown if (spread := point.spread(*_LAST))]
    return bool(found) and not any(value for spread in found for value in spread.values)


def result_table(study: StudyView) -> Table:
    """A row per point: how many runs of which verdict, then each metric's median, interval and CV."""
    names = shown_names(study)
    units = {name: _unit(study, name) for name in names}
    heads = (Cell("point"), Cell("runs"), *(Cell(_head(study, name), units[name]) for name in names))
    rows = tuple(
        (_point_cell(point), _runs_cell(point), *(_spread_cell(point, point.spread(name)) for name in names))
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
    counts = [f"{n}{_NBSP}{verdict.value}" for verdict in Verdict if (n := point.verdicts[verdict])]
    counts += [f"{len(point.failed)} failed"] if point.failed else []
    counts += [f"{point.pending} not run"] if point.pending else []
    doubt = Verdict.WARN if set(point.verdicts) != {Verdict.VALID} else Verdict.VALID
    sign = Verdict.INVALID if point.is_invalid else doubt  # not of runs that are left out
    return Cell(str(len(point.used)), ", ".join(counts), sign)


def _spread_cell(point: PointView, spread: Spread | None) -> Cell:
    if spread is None:
        return Cell("-")
    runs = f"{spread.n} of {len(point.used)} runs" if spread.n < len(point.used) else ""
    noise = f"CV{_NBSP}{format_number(100 * spread.cv, 2)}{_NBSP}%" if spread.cv is not None else ""
    return Cell(median_text(spread), " ".join(part for part in (bracket(spread), noise, runs) if part))


def other_table(study: StudyView) -> Table:
    """Measurements beside the main one, such as other streams and phases: a row for each of each point."""
    keys = dict.fromkeys(
        (m.phase, m.stream) for point in study.shown for run in point.used for m in measured(run)
    )
    others = [key for key in keys if key != study.main][:_MOST_OTHERS]
    found = {
        (key, point.index, name): spread
        for key in others
        for point in study.shown
        for name in _OF_OTHERS
        if name not in _said_as_items(study, key) and (spread := point.spread(name, key))
    }
    failed = any(value for (_, _, name), s in found.items() if name in _LAST for value in s.values)
    shown = [name for name in _OF_OTHERS if name not in _LAST or failed]
    metrics = {name: next((s.metric for (*_, n), s in found.items() if n == name), None) for name in shown}
    known = {name: metric for name, metric in metrics.items() if metric}
    rows = []
    for key in others:
        for point in study.shown:
            cells = [found.get((key, point.index, name)) for name in known]
            if any(cells):
                where = Cell(" / ".join(dict.fromkeys(key)), point.label)
                rows.append((where, *(_spread_cell(point, spread) for spread in cells)))
    heads = (Cell(metric_words(metric).replace("_", " "), metric.unit) for metric in known.values())
    return Table((Cell("measurement", "point"), *heads), tuple(rows))


_MOST_OTHERS = 12
_OF_OTHERS = (
    *_SLOWDOWNS,
    "bandwidth",
    "throughput",
    "item_rate",
    "data_rate",
    "response_p99",
    "service_p99",
    *_LAST,
)


def comparisons(study: StudyView) -> list[Judged]:
    """Every other point against its baseline in the primary metrics, as `compare` says; by metric."""
    pairs = [(point, base) for point in study.points if (base := baseline(study, point))]
    found = [each for point, base in pairs for each in _against(point, base)]
    return [
        each for name in dict.fromkeys(each.name for each in found) for each in found if each.name == name
    ]


def _against(point: PointView, base: PointView) -> list[Judged]:
    """Nothing where one of them has no numbers, or none in common."""
    if not (base.used and point.used):
        return []
    with suppress(UsageError, ResultError):
        pair = compare_pair(
            ComparedSide(base.label, base.used, ()), ComparedSide(point.label, point.used, ())
        )
        return [
            Judged(point, base, row.metric, spread, row.finding)
            for row in pair.of_rank(Rank.PRIMARY)
            if (spread := point.spread(row.metric, row.key[1:]))
        ]
    return []


def one_baseline(judged: Sequence[Judged]) -> PointView | None:
    """The point that all are compared with; None where that is not one for all."""
    bases = {each.base.index: each.base for each in judged}
    return next(iter(bases.values())) if len(bases) == 1 else None


def comparison_table(judged: Sequence[Judged]) -> Table:
    """A row per point, a column per primary metric: ratio to the baseline, interval, and the word."""
    metrics = {each.name: each.spread.metric for each in judged}
    words = {name: metric_words(metric).replace("_", " ") for name, metric in metrics.items()}
    heads = (Cell("point"), *(Cell(head, "ratio to the baseline") for head in words.values()))
    several = one_baseline(judged) is None
    rows = []
    for index in dict.fromkeys(each.point.index for each in judged):
        own = {each.name: each for each in judged if each.point.index == index}
        first = next(iter(own.values()))
        point = Cell(first.point.label or "the only point", f"against {first.base.label}" if several else "")
        rows.append((point, *(_judged_cell(own.get(name)) for name in metrics)))
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
    rows = []
    unmet = {(verdict.value, code): where for (verdict, code), where in _unmet(study).items()}
    for (verdict, code), where in sorted(unmet.items()):
        points = list(dict.fromkeys(point.label for point, _ in where))
        at = ", ".join(points[:3]) + (f" and {len(points) - 3} more" if len(points) > 3 else "")
        rows.append(
            (
                Cell(_code_words(code), verdict=Verdict(verdict)),
                Cell(str(len(where))),
                Cell(at),
                Cell(where[0][1]),
            )
        )
    return Table((Cell("check"), Cell("runs"), Cell("at"), Cell("for example")), tuple(rows))


def _unmet(study: StudyView) -> dict[tuple[Verdict, str], list[tuple[PointView, str]]]:
    """Checks that did not hold, by verdict and code: a point and a message for each run."""
    found: dict[tuple[Verdict, str], list[tuple[PointView, str]]] = {}
    for point in study.points:
        for run in point.runs:
            told = {
                (check.verdict, check.code): check.message
                for m in measured(run)
                for check in m.checks
                if check.verdict is not Verdict.VALID
            }
            for key, message in told.items():
                found.setdefault(key, []).append((point, message))
    return found
