"""What every Markdown document is made of. Text from outside is escaped, so that it stays text."""

import re
from collections.abc import Iterable, Sequence

from aifbench.report.content import Cell, Table
from aifbench.report.guidance import Advice


def guidance(given: Iterable[Advice]) -> str:
    """What to do, the numbers that say so, and what to type."""
    return bullets(
        f"{safe(each.text)} Because: {safe(each.reasons)}."
        + (f" Next: `{each.command}`" if each.command else "")
        for each in given
    )


def section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body.strip() else ""


def pairs(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{safe(name)}: {safe(text)}" for name, text in pairs]


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def table_text(table: Table, *, is_text: bool = False) -> str:
    rules = ["---", *("---" if is_text else "---:" for _ in table.headers[1:])]
    rows = [[_cell(c) for c in table.headers], rules, *([_cell(c) for c in row] for row in table.rows)]
    return "\n".join(_row(row) for row in rows)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    verdict = f"**{cell.verdict.value}**" if cell.verdict else ""
    return " ".join(part for part in (verdict, safe(cell.text), safe(cell.note)) if part)


def fenced(text: str) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"\n\n{fence}\n{text}\n{fence}"


def safe(text: str) -> str:
    """On one line, with what Markdown or HTML would take for itself escaped."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))
