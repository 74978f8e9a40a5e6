"""Figures of a comparison: every ratio with its interval, and the latencies of the sides over each other."""

from collections.abc import Sequence
from statistics import median

from aifbench.report.comparison import DIRECTIONS, SHOWN, full_name, letter, summary, verdict_text
from aifbench.report.content import Cell, Table
from aifbench.report.figures import draw_tails, tail_curve
from aifbench.report.forest import Ratio, forest
from aifbench.report.level_figures import Figure
from aifbench.results.compared import ComparedSide, Comparison, Key, Pair, Row, where
from aifbench.results.selection import point_of
from aifbench.stats.comparison import Change
from aifbench.units import format_number

Curve = list[tuple[float, float]]  # (latency in ms, share of operations slower)

_MAX_CURVES = 4  # measurements whose latencies are drawn
_MAX_SIDES = 6  # lines that can be told apart
_NAME_CHARS = 44  # that a forest plot has room for
_CSS = {Change.IMPROVED: "better", Change.REGRESSED: "worse"}


def comparison_figures(found: Comparison) -> list[Figure]:
    """A forest plot per pair, then the distributions of the measurements that are compared first."""
    forests = [_forest(pair, letter(i)) for i, pair in enumerate(found.pairs, start=1)]
    keys = dict.fromkeys(row.key for pair in found.pairs for row in pair.of_rank(*SHOWN))
    curves = [_latencies(found, key) for key in [*keys][:_MAX_CURVES]]
    return [drawn for drawn in (*forests, *curves) if drawn is not None]


def _forest(pair: Pair, name: str) -> Figure | None:
    """Ratios to the base on a log axis; shaded is what counts as no change of each metric."""
    rows = [ratio for row in pair.of_rank(*SHOWN) if (ratio := _ratio(row))]
    if not rows:
        return None
    caption = f"{name} against A: {summary(pair)}. Shaded: the margin within which nothing has changed."
    return forest(f"{name} against A", f"ratio {name} / A, with 95 % interval", rows, caption)


def _ratio(row: Row) -> Ratio | None:
    ratio = row.finding.ratio
    if ratio is None:
        return None
    name = ", ".join(filter(None, (full_name(row), DIRECTIONS.get(row.finding.direction))))
    return Ratio(
        name if len(name) <= _NAME_CHARS else full_name(row),
        ratio.value, ratio.low, ratio.high, verdict_text(row),
        css=_CSS.get(row.finding.change, "same"),
        is_doubtful=row.finding.change is Change.UNDECIDED,
        margin=row.finding.margin,
    )  # fmt: skip


def _latencies(found: Comparison, key: Key) -> Figure | None:
    """Share of operations slower than a latency: of each side the median over its runs."""
    sides = list(enumerate(found.sides))[:_MAX_SIDES]
    curves = {letter(i): _middle(_curves(side, key, by_point=found.by_point)) for i, side in sides}
    named = [(name, curve) for name, curve in curves.items() if len(curve) > 1]
    if len(named) < 2:
        return None
    title = f"Latencies of {where(key)}"
    svg, caption = draw_tails(title, named)
    return Figure(title, svg, f"{caption} Lines are medians over the runs of a side.", data=_data(named))


def _curves(side: ComparedSide, key: Key, *, by_point: bool) -> list[Curve]:
    point, phase, stream = key
    chosen = [record for record in side.judged if not by_point or point_of(record) == point]
    measured = (m for record in chosen for m in record.measurements if (m.phase, m.stream) == (phase, stream))
    return [curve for curve in map(tail_curve, measured) if len(curve) > 1]


def _middle(curves: Sequence[Curve]) -> Curve:
    """The median latency over runs at every share that all of them have."""
    tables = [{round(share, 9): value for value, share in curve} for curve in curves]
    common = set(tables[0]).intersection(*tables[1:]) if tables else set()
    return [(median(table[share] for table in tables), share) for share in sorted(common, reverse=True)]


def _data(named: Sequence[tuple[str, Curve]]) -> Table:
    tables = {name: {share: value for value, share in curve} for name, curve in named}
    shares = sorted(set().union(*tables.values()), reverse=True)
    headers = tuple(Cell(text) for text in ("operations slower", *(f"{name} (ms)" for name in tables)))
    rows = tuple(
        (
            Cell(f"{format_number(100 * share, 3)} %"),
            *(Cell(format_number(table[share]) if share in table else "-") for table in tables.values()),
        )
        for share in shares
    )
    return Table(headers, rows)
