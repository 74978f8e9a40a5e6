"""What every metric of a report means, and what other tools call it or mean by its name."""

from collections.abc import Mapping

from aifbench.report.content import Cell, Table
from aifbench.report.numbers import FOUND, STREAM_RATES, is_brief, is_extra
from aifbench.results.definitions import (
    TOOLS,
    definition,
    formulas,
    is_from_schedule,
    split_name,
    tool_names,
)
from aifbench.results.headline import short_name
from aifbench.results.record import RunRecord


def meanings(record: RunRecord) -> Table:
    """Formula of every metric shown, what it means, and what other tools call it or mean by its name."""
    rows: dict[tuple[str, str], tuple[Cell, ...]] = {}
    for measurement in record.measurements:
        names = [m.name for m in measurement.metrics if is_brief(measurement, m) or is_extra(m)]
        from_schedule = is_from_schedule(names)
        for base, formula in formulas(names):
            name = next(name for name in names if split_name(name)[0] == base)
            rows.setdefault((base, formula), _meaning(name, formula, from_schedule=from_schedule))
    heads = (Cell("metric"), Cell("formula"), Cell("in other tools"))
    return Table(heads, tuple(rows.values()))


def _meaning(name: str, formula: str, *, from_schedule: bool) -> tuple[Cell, ...]:
    found = definition(name)
    assert found is not None
    loop = "open loop" if from_schedule and found.scheduled is not None else ""
    row = {metric: words for words, metric in (STREAM_RATES | FOUND).items()}.get(name, "")
    shown = f"shown as: {row}" if row and row not in (name, short_name(name)) else ""
    source = f"source: {found.source}" if found.source else ""
    return (
        Cell(short_name(split_name(name)[0]), loop or shown),
        Cell(formula, "; ".join(part for part in (found.words, source) if part)),
        Cell(_elsewhere(tool_names(name, from_schedule=from_schedule), found.differs)),
    )


def _elsewhere(names: Mapping[str, str], differs: Mapping[str, str]) -> str:
    """`a: name. b: name, c: name (what both of these do otherwise)`."""
    groups: dict[str, list[str]] = {}
    for tool in TOOLS:
        if tool in names or tool in differs:
            told = f"{tool}: {names[tool]}" if tool in names else tool
            groups.setdefault(differs.get(tool, ""), []).append(told)
    return ". ".join(
        ", ".join(tools) + (f" (differs: {how})" if how else "") for how, tools in groups.items()
    )
