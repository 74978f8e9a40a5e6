"""A comparison as the shell prints it, and as Markdown."""

import textwrap
from collections.abc import Sequence

from tabulate import tabulate

from aifbench.report import comparison as words
from aifbench.report.content import Table
from aifbench.results.compared import FAMILY, Comparison, Rank

_PLAIN = "plain"
_VALUE_CHARS = 36  # of what differs: longer values are wrapped


def comparison_text(found: Comparison, *, everything: bool = False) -> str:
    """Sides, what differs, a table per measurement, and what to bear in mind."""
    names = [words.letter(index) for index in range(len(found.sides))]
    sides = [f"{name}  {words.side_line(side)}" for name, side in zip(names, found.sides, strict=True)]
    blocks = ["\n".join(sides), _differences(found)]
    for name, pair in zip(names[1:], found.pairs, strict=True):
        blocks.append(f"{name} against A: {words.summary(pair)}")
        for heading, table in words.tables(pair, ("A", name), words.ALL if everything else words.SHOWN):
            blocks.append(f"{heading}\n{_indented(_rows(table))}")
    notes = [*words.left_out_notes(found.sides), *found.notes]
    if not everything and any(pair.of_rank(Rank.OTHER) for pair in found.pairs):
        notes.append("--all compares every other metric, too")
    if any(row.finding.p is not None and row.finding.p < 1 for pair in found.pairs for row in pair.rows):
        notes.append(FAMILY)
    return "\n\n".join(filter(None, [*blocks, "\n".join(f"- {note}" for note in notes)]))


def _differences(found: Comparison) -> str:
    if not found.differences:
        return "no difference in configuration or provenance"
    table = words.difference_table(found)
    # Wrapped here: where tabulate wraps, it takes `20,000` for a number and fails to read it.
    rows = [
        [f"{row[0].note}: {row[0].text}", *(textwrap.fill(cell.text, _VALUE_CHARS) for cell in row[1:])]
        for row in table.rows
    ]
    return f"what differs\n{_indented(_aligned([cell.text for cell in table.headers], rows))}"


def _rows(table: Table) -> str:
    headers = [cell.text for cell in table.headers]
    rows = [
        [row[0].text, *(_with_note(cell.text, cell.note) for cell in row[1:]), row[0].note]
        for row in table.rows
    ]
    return _aligned([*headers, ""], rows)


def _with_note(text: str, note: str) -> str:
    return f"{text} ({note})" if note else text


def _aligned(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return str(tabulate(rows, headers=headers, tablefmt=_PLAIN, disable_numparse=True))


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())
