"""What a comparison says, free of any format: one wording for text, Markdown and HTML."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from aifbench.report.content import Cell, Table, percentile_label
from aifbench.results.compared import FAMILY, ComparedSide, Comparison, Pair, Rank, Row, where
from aifbench.results.headline import short_name
from aifbench.results.record import RunState, Verdict
from aifbench.stats.comparison import Change
from aifbench.stats.intervals import Estimate
from aifbench.units import format_number

SHOWN = (Rank.PRIMARY, Rank.SECONDARY)
ALL = (*SHOWN, Rank.OTHER)
MANY_REPEATS = 1000  # beyond this, to name a number of repeats would be a joke

TONES = {Change.IMPROVED: Verdict.VALID, Change.REGRESSED: Verdict.INVALID, Change.UNDECIDED: Verdict.WARN}
DIRECTIONS = {"higher": "higher is better", "lower": "lower is better"}

METHOD = (
    "The unit is the run: each side is the set of its runs, one value per run, compared unpaired. The "
    "ratio is the Hodges-Lehmann estimate on logarithms with its 95 % interval; p is of the exact two-"
    f"sided Mann-Whitney test. {FAMILY} A change counts from 2 % on; 'no change' "
    "excludes everything beyond the margin it names, which is 2 % or twice the scatter between repeats. The "
    "absolute values are medians over runs."
)


def letter(index: int) -> str:
    """A, B, ... Z, A1, B1, ...: what a side is called in a table."""
    return chr(ord("A") + index % 26) + (str(index // 26) if index >= 26 else "")


def title(comparison: Comparison) -> str:
    base, *others = (side.label for side in comparison.sides)
    return f"{', '.join(others)} against {base}"


def metric_name(row: Row) -> str:
    """`response p99.9`, `throughput`."""
    return " ".join(short_name(part) for part in percentile_label(row.metric) or (row.metric,))


def full_name(row: Row) -> str:
    return f"{where(row.key)}: {metric_name(row)}"


def side_line(side: ComparedSide) -> str:
    """`tag=base, 5 runs (4 VALID, 1 WARN), 1 left out`."""
    counts = Counter(record.verdict.value for record in side.judged)
    verdicts = ", ".join(f"{counts[v.value]} {v.value}" for v in Verdict if counts[v.value])
    runs = f"{len(side.judged)} run{'s' if len(side.judged) != 1 else ''}"
    left = f", {len(side.left_out)} left out" if side.left_out else ""
    return f"{side.label}, {runs} ({verdicts}){left}"


def summary(pair: Pair) -> str:
    """What was found in the metrics that are shown by default, the worst first."""
    rows = pair.of_rank(*SHOWN)
    parts = []
    for change in (Change.REGRESSED, Change.IMPROVED, Change.CHANGED):
        found = [f"{full_name(row)} {ratio_text(row)}" for row in rows if row.finding.change is change]
        if found:
            parts.append(f"{change.value}: {', '.join(found)}")
    rest = Counter(row.finding.change for row in rows)
    for change in (Change.NO_CHANGE, Change.WITHIN_NOISE, Change.UNDECIDED):
        if rest[change]:
            parts.append(f"{change.value}: {rest[change]} of {len(rows)}")
    return "; ".join(parts)


def ratio_text(row: Row) -> str:
    """`1.42x [1.31, 1.53]`; for numbers that may be 0, the difference in their unit."""
    finding = row.finding
    if finding.ratio is not None:
        return _with_interval(finding.ratio, _ratio_digits(finding.ratio.value), "x")
    if finding.difference is None:
        return "-"
    sign = "+" if finding.difference.value > 0 else ""
    return sign + _with_interval(finding.difference, lambda v: format_number(v, 3), f" {row.unit}".rstrip())


def _with_interval(estimate: Estimate, written: Callable[[float], str], unit: str) -> str:
    value = f"{written(estimate.value)}{unit}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} [{written(estimate.low)}, {written(estimate.high)}]"


def _ratio_digits(ratio: float) -> Callable[[float], str]:
    """Two decimals, three near 1, where two would hide the change."""
    if 0.9 < ratio < 1.1:
        return lambda value: f"{value:.3f}"
    return lambda value: f"{value:.2f}" if 0.1 <= value < 10 else format_number(value, 3)


def verdict_text(row: Row) -> str:
    """The verdict, with the margin or the number of repeats that belongs to it."""
    finding = row.finding
    if finding.change is Change.NO_CHANGE:
        return f"no change beyond ±{format_number(100 * finding.margin, 2)} %"
    if finding.change is Change.WITHIN_NOISE:
        return f"within noise: less than {format_number(100 * finding.threshold, 2)} %"
    if finding.change is Change.UNDECIDED and finding.repeats_needed is not None:
        more = finding.repeats_needed - min(finding.a.n, finding.b.n)
        if more > MANY_REPEATS:
            return "undecided: too small a difference for any number of repeats"
        return f"undecided: {more:,} more repeat{'s' if more != 1 else ''} per side"
    return str(finding.change.value)


def p_text(row: Row) -> str:
    p = row.finding.p
    if p is None:
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {format_number(p, 2)}"


def median_text(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{format_number(value)} {unit}".rstrip()


def runs_behind(n: int, left_out: int) -> str:
    """How many runs a median is of, where some of them had no value."""
    return f"{n} of {n + left_out} runs" if left_out else ""


def tables(pair: Pair, names: tuple[str, str], ranks: Sequence[Rank]) -> list[tuple[str, Table]]:
    """A heading and a table per measurement, in the order of the pair; `names` are those of the two sides."""
    by_key: dict[str, list[Row]] = {}
    for row in pair.of_rank(*ranks):
        by_key.setdefault(where(row.key), []).append(row)
    headers = tuple(Cell(text) for text in ("metric", *names, f"{names[1]} / {names[0]}", "verdict"))
    return [(key, Table(headers, tuple(map(_cells, rows)))) for key, rows in by_key.items()]


def _cells(row: Row) -> tuple[Cell, ...]:
    a, b = row.finding.a, row.finding.b
    return (
        Cell(metric_name(row), DIRECTIONS.get(row.finding.direction, "")),
        Cell(median_text(a.median, row.unit), runs_behind(a.n, a.left_out)),
        Cell(median_text(b.median, row.unit), runs_behind(b.n, b.left_out)),
        Cell(ratio_text(row)),
        Cell(verdict_text(row), p_text(row), TONES.get(row.finding.change)),
    )


def difference_table(comparison: Comparison) -> Table:
    """Only what differs, one row each, side by side."""
    names = [letter(index) for index in range(len(comparison.sides))]
    rows = tuple(
        (Cell(found.name, found.group), *(Cell(value) for value in found.values))
        for found in comparison.differences
    )
    return Table(tuple(Cell(text) for text in ("", *names)), rows)


def run_table(comparison: Comparison) -> Table:
    """Every run of every side, and why it does not count where it does not."""
    rows = []
    for index, side in enumerate(comparison.sides):
        found = [*((record, "") for record in side.judged), *side.left_out]
        for record, reason in found:
            verdict = None if record.state is RunState.RUNNING else record.verdict
            told = f"left out: {reason}" if reason else ""
            rows.append(
                (
                    Cell(letter(index)),
                    Cell(record.run_id),
                    Cell(record.created_utc),
                    Cell("", verdict=verdict),
                    Cell(told),
                )
            )
    return Table(tuple(Cell(text) for text in ("side", "run", "created", "verdict", "")), tuple(rows))


def left_out_notes(sides: Iterable[ComparedSide]) -> list[str]:
    return [
        f"{record.run_id} of {side.label} does not count: {reason}"
        for side in sides
        for record, reason in side.left_out
    ]
