"""One run as Markdown: the same words and numbers as the HTML page, for wikis and merge requests."""

import re
from collections.abc import Iterable, Sequence

from aifbench.report import content, numbers
from aifbench.report.content import PROBE_WORDS, Cell, Table
from aifbench.report.meanings import meanings
from aifbench.report.reproduce import commands
from aifbench.report.server_view import sentences, view_table
from aifbench.results.definitions import SYMBOLS
from aifbench.results.record import RunRecord


def run_markdown(record: RunRecord) -> str:
    """The complete document. Text from outside is escaped, so that it stays text."""
    sections = (
        f"# {_safe(content.title(record))}\n\nRun `{record.run_id}`",
        f"**{record.verdict.value}**: {_safe(content.verdict_sentence(record))}.",
        _bullets(_headline(record)),
        _section("What was measured", _bullets(_pairs(content.facts(record)))),
        _section("Results", _results(record)),
        _section("Probes", _probes(record)),
        _section("Server and client", _view(record)),
        _section("Validity", _validity(record)),
        _section("Every number", _every_number(record)),
        _section("Definitions", _definitions(record)),
        _section("Where it was measured", _provenance(record)),
        _section("Reproduce", _fenced(commands(record)) + _fenced(content.recipe_text(record))),
    )
    return "\n\n".join(section.strip() for section in sections if section.strip()) + "\n"


def _headline(record: RunRecord) -> list[str]:
    found = content.headline(record)
    if found is None:
        return []
    measurement, metrics = found
    where = content.label(record, measurement)
    return [
        f"{_safe(where)}: {_safe(content.metric_words(m))} **{_safe(content.with_unit(m))}**"
        + (f", 95 % interval {_safe(content.interval_text(m))}" if content.interval_text(m) else "")
        for m in metrics
    ]


def _results(record: RunRecord) -> str:
    measurements = content.measured(record)
    if not measurements:
        return "Nothing was measured."
    errors = [
        f"{_safe(content.label(record, m))}: {count:,} x {_safe(text)}"
        for m in measurements
        for count, text in content.error_texts(m)
    ]
    notes = map(_safe, numbers.notes(record, measurements))
    told = f"\n\nErrors:\n\n{_bullets(errors)}" if errors else ""
    return f"{_table(numbers.result_table(record))}\n\n{_bullets(notes)}{told}"


def _probes(record: RunRecord) -> str:
    table = numbers.probe_table(record)
    return f"{PROBE_WORDS}\n\n{_table(table)}" if table.rows else ""


def _view(record: RunRecord) -> str:
    table = view_table(record)
    shown = _table(table) if table.rows else ""
    told = _bullets(_safe(sentence) for sentence in sentences(record))
    return f"{shown}\n\n{told}".strip()


def _every_number(record: RunRecord) -> str:
    """All metrics of what was measured; those of probes are in metrics.csv."""
    return "\n\n".join(
        f"### {_safe(content.label(record, m))}\n\n{_table(numbers.all_of(m))}"
        for m in content.measured(record)
        if m.metrics
    )


def _definitions(record: RunRecord) -> str:
    table = meanings(record)
    if not table.rows:
        return ""
    letters = _bullets(f"{name}: {meaning}" for name, meaning in SYMBOLS)
    return f"{_table(table, is_text=True)}\n\n{letters}"


def _validity(record: RunRecord) -> str:
    if not any(m.checks for m in content.measured(record)):
        return ""
    found = [
        f"**{check.verdict.value}** {_safe(where)}: {_safe(check.message)}"
        + (f" ({_safe(check.advice)})" if check.advice else "")
        for where, check in content.findings(record)
    ]
    return f"{_table(content.check_table(record))}\n\n{_bullets(found)}"


def _provenance(record: RunRecord) -> str:
    lines = [
        (f"{group}: {name}", text) for group, pairs in content.provenance(record) for name, text in pairs
    ]
    return _bullets(_pairs(lines))


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body.strip() else ""


def _pairs(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{_safe(name)}: {_safe(text)}" for name, text in pairs]


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(table: Table, *, is_text: bool = False) -> str:
    rules = ["---", *("---" if is_text else "---:" for _ in table.headers[1:])]
    rows = [[_cell(c) for c in table.headers], rules, *([_cell(c) for c in row] for row in table.rows)]
    return "\n".join(_row(row) for row in rows)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    verdict = f"**{cell.verdict.value}**" if cell.verdict else ""
    return " ".join(part for part in (verdict, _safe(cell.text), _safe(cell.note)) if part)


def _fenced(text: str) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"\n\n{fence}\n{text}\n{fence}"


def _safe(text: str) -> str:
    """On one line, with what Markdown or HTML would take for itself escaped."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))
