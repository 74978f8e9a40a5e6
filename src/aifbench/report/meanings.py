"""What every metric of a report means, and what other tools call it or mean by its name."""

import re
from collections.abc import Mapping, Sequence

from aifbench.report.content import Cell, Table
from aifbench.report.files_figures import is_of_files
from aifbench.report.numbers import FOUND, RATES, STREAM_RATES, is_brief, is_extra
from aifbench.results.definitions import (
    SYMBOLS,
    TOOLS,
    definition,
    formulas,
    is_from_schedule,
    split_name,
    tool_names,
)
from aifbench.results.file_definitions import FILE_TOOLS
from aifbench.results.headline import is_streamed, short_name
from aifbench.results.record import Measurement, RunRecord


def meanings(record: RunRecord) -> Table:
    """Formula of every metric shown, what it means, and what other tools of that trade call it."""
    rows: dict[tuple[str, str], tuple[Cell, ...]] = {}
    for measurement in record.measurements:
        names = [m.name for m in measurement.metrics if is_brief(measurement, m) or is_extra(m)]
        from_schedule = is_from_schedule(names)
        for base, formula in formulas(names):
            name = next(name for name in names if split_name(name)[0] == base)
            row = _meaning(name, formula, measurement, from_schedule=from_schedule)
            rows.setdefault((base, formula), row)
    heads = (Cell("metric"), Cell("formula"), Cell("in other tools"))
    if not any(row[-1].text for row in rows.values()):
        return Table(heads[:-1], tuple(row[:-1] for row in rows.values()))
    return Table(heads, tuple(rows.values()))


def symbols(table: Table) -> list[tuple[str, str]]:
    """The letters that formulas of this table use."""
    used = {word for row in table.rows for word in re.findall(r"\w+", row[1].text)}
    return [(names, meaning) for names, meaning in SYMBOLS if used & set(names.split(", "))]


def _meaning(name: str, formula: str, measurement: Measurement, *, from_schedule: bool) -> tuple[Cell, ...]:
    found = definition(name)
    assert found is not None
    loop = "open loop" if from_schedule and found.scheduled is not None else ""
    rates = STREAM_RATES if is_streamed(measurement) else RATES
    row = {metric: words for words, metric in (rates | FOUND).items()}.get(name, "")
    shown = f"shown as: {row}" if row and row not in (name, short_name(name)) else ""
    source = f"source: {found.source}" if found.source else ""
    return (
        Cell(short_name(split_name(name)[0]), loop or shown),
        Cell(formula, "; ".join(part for part in (found.words, source) if part)),
        Cell(_elsewhere(tool_names(name, from_schedule=from_schedule), found.differs, _tools(measurement))),
    )


def _tools(measurement: Measurement) -> Sequence[str]:
    """Those that measure the same kind of thing: a client of language models has nothing to say of files."""
    if is_streamed(measurement):
        return [tool for tool in TOOLS if tool not in FILE_TOOLS]
    return FILE_TOOLS if is_of_files(measurement) else ()


def _elsewhere(names: Mapping[str, str], differs: Mapping[str, str], tools: Sequence[str]) -> str:
    """`a: name. b: name, c: name (what both of these do otherwise)`."""
    groups: dict[str, list[str]] = {}
    for tool in tools:
        if tool in names or tool in differs:
            told = f"{tool}: {names[tool]}" if tool in names else tool
            groups.setdefault(differs.get(tool, ""), []).append(told)
    return ". ".join(
        ", ".join(tools) + (f" (differs: {how})" if how else "") for how, tools in groups.items()
    )
