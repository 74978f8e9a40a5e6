"""A run as plain text for a terminal: aligned, without colour, about 100 columns wide."""

import textwrap
from collections.abc import Sequence
from dataclasses import replace

from tabulate import tabulate

from aifbench.report import content, facts, numbers
from aifbench.report.content import Cell, Table, interval_text, value_text
from aifbench.report.score_words import score_sentences
from aifbench.report.server_view import statements
from aifbench.results.headline import in_requests, is_streamed, main_measurement, short_name
from aifbench.results.record import Check, Measurement, Metric, RunRecord, Verdict

WIDTH = 98


def run_text(record: RunRecord) -> str:
    """The whole run: what it is, its measurements, the steps of a search, and the verdict."""
    measurements = content.measured(record)
    if len(measurements) > (2 if all(map(is_streamed, measurements)) else content.MANY):
        results = [_many(record, measurements)]
    else:
        results = [_measurement(record, m) for m in measurements]
    parts = [_header(record), *results, _probes(record), _last_line(record)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _header(record: RunRecord) -> str:
    lines = [f"{content.title(record)}   run {record.run_id}"]
    known = facts.brief_facts(record)
    width = max([10, *(len(name) for name, _ in known)])
    lines += [_hanging(f"  {name:<{width}} ", text) for name, text in known]
    return "\n".join(lines)


def _last_line(record: RunRecord) -> str:
    return _hanging(f"{record.verdict.value}   ", content.verdict_sentence(record))


def _measurement(record: RunRecord, measurement: Measurement) -> str:
    """One measurement: how it was loaded, its numbers with intervals, its errors, and what to doubt."""
    notes = numbers.notes(record, [measurement])
    blocks = [
        textwrap.fill(facts.load_text(measurement), WIDTH - 2),
        _number_table(measurement),
        _lines(_latency_table(measurement), *(_hanging("- ", n) for n in notes)),
        _lines(*(_hanging("", sentence) for sentence in statements(measurement))),
        _lines(_error_text(measurement), _check_text(measurement)),
    ]
    heading = f"{content.label(record, measurement)}   {measurement.verdict.value}"
    return _lines(heading, _indented("\n\n".join(block for block in blocks if block)))


def _many(record: RunRecord, measurements: Sequence[Measurement]) -> str:
    """A row per measurement; intervals, and every number, are in the full text and the report."""
    main = main_measurement(record)
    told = statements(main) if main else []
    where = content.label(record, main) if main else ""
    found = [replace(c, message=f"{at}: {c.message}") for at, c in content.findings(record)]
    errors = [
        _hanging(f"{count:>7,} x  ", f"{content.label(record, m)}: {text}")
        for m in measurements
        for count, text in content.error_texts(m, 2)
    ]
    table, left_out = _fitting(numbers.narrow_table(record))
    more = f"not shown: {', '.join(left_out)}; `report` has every number" if left_out else ""
    blocks = [
        _lines(_rows(table), more and f"\n{_hanging('', more)}"),
        _lines(*(_hanging("", sentence) for sentence in score_sentences(record))),
        _lines(*(_hanging("- ", note) for note in numbers.notes(record, measurements))),
        _lines(*(_hanging("", f"{where}: {sentence}") for sentence in told)),
        _lines(*errors),
        _findings(found),
    ]
    return "\n\n".join(block for block in blocks if block)


def _probes(record: RunRecord) -> str:
    table = numbers.probe_table(record)
    return _lines("probes (no part of the verdict)", _indented(_rows(table))) if table.rows else ""


def _fitting(table: Table) -> tuple[Table, list[str]]:
    """The table without the columns that are asked for least, until it fits; and what these are."""
    names = [cell.text for cell in table.headers]
    spared = list(dict.fromkeys([*(name for name in _SPARED if name in names), *reversed(names[_KEPT:])]))
    left_out: list[str] = []
    shown = table
    while spared and max(map(len, _rows(shown).splitlines())) > WIDTH:
        left_out.append(spared.pop(0))
        kept = [i for i, name in enumerate(names) if name not in left_out]
        heads, *rows = (tuple(row[i] for i in kept) for row in (table.headers, *table.rows))
        shown = Table(heads, tuple(rows))
    return shown, [name for name in names if name in left_out]


_KEPT = 3  # columns that are always shown: name, verdict, and one number
_SPARED = ("max", "mean", "p99.99", "p99.9", "p90", "gap p99", "gap p90", "first done", "offered")


def _rows(table: Table) -> str:
    """A row per measurement: headings on as many lines as they have words, the last one its unit."""
    words = [(f"{cell.text} {cell.note}").split() for cell in table.headers]
    height = max(map(len, words))
    heads = [[""] * (height - len(each)) + each for each in words]
    rows = [*zip(*heads, strict=True), *([_word(cell) for cell in row] for row in table.rows)]
    aligned = ("left", *("right" for _ in table.headers[1:]))
    return str(tabulate(rows, tablefmt="plain", disable_numparse=True, colalign=aligned))


def _word(cell: Cell) -> str:
    return cell.text or (cell.verdict.value if cell.verdict else "")


def _number_table(measurement: Measurement) -> str:
    """Every metric that is no latency percentile; of streamed answers those that most readers want."""
    rows = [
        (content.metric_words(m), value_text(m), m.unit, interval_text(m), f"{m.n:,}" if m.n else "")
        for m in _brief(measurement)
        if content.percentile_label(m.name) is None
    ]
    return _table(
        ("", "value", "unit", "95 % interval", "samples"), rows, ("left", "right", "left", "left", "right")
    )


def _brief(measurement: Measurement) -> list[Metric]:
    found = [m for m in measurement.metrics if numbers.is_brief(measurement, m)]
    return [in_requests(m) for m in found] if is_streamed(measurement) else found


def _latency_table(measurement: Measurement) -> str:
    """A row per latency, a column per percentile, and the interval of p99 or the highest that has one."""
    brief = replace(measurement, metrics=tuple(_brief(measurement)))
    columns = content.percentiles([brief])
    found = [(content.percentile_label(m.name), m) for m in brief.metrics]
    kinds = dict.fromkeys((name[0], m.unit) for name, m in found if name is not None)
    rows = []
    for base, unit in kinds:
        metrics = [content.latency(brief, base, column) for column in columns]
        words = short_name(base)
        rows.append(
            (words, *(value_text(m) if m else "" for m in metrics), unit, *_best_interval(columns, metrics))
        )
    aligned = ("left", *("right" for _ in columns), "left", "left")
    return _table(("", *columns, "unit", "95 % interval"), rows, aligned)


def _best_interval(columns: Sequence[str], metrics: Sequence[Metric | None]) -> tuple[str]:
    known = [(c, m) for c, m in zip(columns, metrics, strict=True) if interval_text(m)]
    trusted = [pair for pair in known if pair[0] == "p99"] or known[-1:]
    return (f"{trusted[0][0]} {interval_text(trusted[0][1])}",) if trusted else ("",)


def _error_text(measurement: Measurement) -> str:
    failed = content.failures(measurement)
    if not failed:
        return ""
    total = sum(measurement.outcomes.values())
    kinds = ", ".join(f"{name} {count:,}" for name, count in failed.items())
    lines = [f"errors   {sum(failed.values()):,} of {total:,} operations: {kinds}"]
    lines += [_hanging(f"  {count:>7,} x  ", text) for count, text in content.error_texts(measurement)]
    return "\n".join(lines)


def _check_text(measurement: Measurement) -> str:
    """Checks that failed, each with its advice, and how many held."""
    failed = [check for check in measurement.checks if check.verdict is not Verdict.VALID]
    doubted = {check.code for check in failed}
    held = dict.fromkeys(check.code for check in measurement.checks if check.code not in doubted)
    valid = _hanging(f"{'VALID':<9}", ", ".join(held).lower().replace("_", " ")) if held else ""
    return _lines(_findings(failed), valid)


def _findings(checks: Sequence[Check]) -> str:
    """Verdict and code in columns, then what was seen and what to do."""
    width = max((len(check.code) for check in checks), default=0)
    return "\n".join(
        _hanging(
            f"{check.verdict.value:<9}{check.code:<{width}}  ",
            f"{check.message}; {check.advice}" if check.advice else check.message,
        )
        for check in checks
    )


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]], aligned: Sequence[str]) -> str:
    if not rows:
        return ""
    kept = [i for i in range(len(headers)) if i == 0 or any(row[i] for row in rows)]
    return str(
        tabulate(
            [[row[i] for i in kept] for row in rows],
            headers=[headers[i] for i in kept],
            tablefmt="plain",
            disable_numparse=True,
            colalign=[aligned[i] for i in kept],
        )
    )


def _hanging(start: str, text: str) -> str:
    """`start` and then `text`, wrapped under itself."""
    return textwrap.fill(
        text or "-", WIDTH, initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False
    )


def _lines(*parts: str) -> str:
    return "\n".join(part for part in parts if part)


def _indented(text: str) -> str:
    return textwrap.indent(text, "  ")
