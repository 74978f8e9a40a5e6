"""One run as one HTML page: no script, no network, light and dark, fit for paper."""

from collections.abc import Iterable
from html import escape
from pathlib import Path

from aifbench.report import content, numbers, reproduce
from aifbench.report.content import Cell, Table
from aifbench.report.figures import figures
from aifbench.report.level_figures import Figure
from aifbench.report.meanings import meanings
from aifbench.report.server_view import sentences, view_table
from aifbench.results.definitions import SYMBOLS
from aifbench.results.record import Metric, RunRecord, Verdict

_SIGNS = {Verdict.VALID: "✓", Verdict.WARN: "!", Verdict.INVALID: "✕"}


def run_html(record: RunRecord) -> str:
    """The complete document. Everything that comes from outside is escaped."""
    sections = (
        _top(record),
        _section("What was measured", _definitions(content.facts(record))),
        _section("Results", _results(record)),
        _section("Probes", _probes(record)),
        _section("Server and client", _view(record)),
        _section("Figures", "".join(_figure(f) for f in figures(record))),
        _section("Validity", _validity(record)),
        _section("Definitions", _meanings(record)),
        _section("Where it was measured", _provenance(record)),
        _section("Reproduce", _reproduce(record)),
        f"<footer>Run {escape(record.run_id)}. All numbers follow from the stored samples; "
        "metrics.csv and metrics.json beside this page have every one of them with its formula.</footer>",
    )
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    body = "\n".join(filter(None, sections))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(content.title(record))}, run {escape(record.run_id)}</title>"
        f"<style>\n{style}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def _top(record: RunRecord) -> str:
    sentence = escape(content.verdict_sentence(record))
    return (
        f'<header><p class="eyebrow">AI Factory Bench · run <code>{escape(record.run_id)}</code></p>'
        f"<h1>{escape(content.title(record))}</h1>"
        f'<div class="verdict">{_badge(record.verdict)}<span>{sentence}</span></div>'
        f"{_cards(record)}</header>"
    )


def _cards(record: RunRecord) -> str:
    found = content.headline(record)
    if found is None:
        return ""
    measurement, metrics = found
    where = content.label(record, measurement)
    return f'<div class="cards">{"".join(_card(where, metric) for metric in metrics)}</div>'


def _card(where: str, metric: Metric) -> str:
    interval = content.interval_text(metric)
    words = f"95 % interval {interval}" if interval else "no interval"
    return (
        f'<div class="card"><small>{escape(where)}: {escape(content.metric_words(metric))}</small>'
        f"<b>{escape(content.value_text(metric))}<span>{escape(metric.unit)}</span></b>"
        f"<small>{escape(words)}</small>{f'<small>n = {metric.n:,}</small>' if metric.n else ''}</div>"
    )


def _badge(verdict: Verdict) -> str:
    return f'<span class="badge {verdict.value}">{_SIGNS[verdict]} {verdict.value}</span>'


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def _definitions(pairs: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in pairs)
    return f"<dl>{rows}</dl>" if rows else ""


def _results(record: RunRecord) -> str:
    measurements = content.measured(record)
    if not measurements:
        return "<p>Nothing was measured.</p>"
    note = f'<p class="soft">{escape(content.start_words(record))}; '
    note += "95 % intervals in small print describe this run only.</p>"
    listed = _list(numbers.notes(record, measurements))
    return _table(numbers.result_table(record)) + note + listed + _errors(record)


def _list(texts: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<ul class="soft">{items}</ul>' if items else ""


def _probes(record: RunRecord) -> str:
    table = numbers.probe_table(record)
    return f'<p class="soft">{escape(content.PROBE_WORDS)}</p>{_table(table)}' if table.rows else ""


def _view(record: RunRecord) -> str:
    table = view_table(record)
    return (_table(table) if table.rows else "") + _list(sentences(record))


def _meanings(record: RunRecord) -> str:
    table = meanings(record)
    return _table(table, "words") + _definitions(SYMBOLS) if table.rows else ""


def _errors(record: RunRecord) -> str:
    rows = [
        (content.label(record, m), f"{count:,} ×", text)
        for m in content.measured(record)
        for count, text in content.error_texts(m)
    ]
    kinds = "; ".join(
        f"{content.label(record, m)}: "
        + ", ".join(f"{count:,} {name}" for name, count in content.failures(m).items())
        for m in content.measured(record)
        if content.failures(m)
    )
    told = f"<p>Operations that failed: {escape(kinds)}.</p>" if kinds else ""
    texts = "".join(
        f"<tr><th>{escape(where)}</th><td class=num>{times}</td><td>{escape(text)}</td></tr>"
        for where, times, text in rows
    )
    return told + (f'<div class="scroll"><table>{texts}</table></div>' if texts else "")


def _table(table: Table, css: str = "") -> str:
    """Numbers stand on the right; `words` makes all columns text."""
    css = css or ("wide" if len(table.headers) > _WIDE else "")
    number = "" if css == "words" else ' class="num"'
    heads = "".join(
        f'<th scope="col"{number if i else ""}>{_words(h)}</th>' for i, h in enumerate(table.headers)
    )
    rows = "".join(_row(row, number) for row in table.rows)
    kind = f' class="{css}"' if css else ""
    body = f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody>"
    return f'<div class="scroll"><table{kind}>{body}</table></div>'


_WIDE = 6  # columns beyond which print gets smaller


def _row(cells: tuple[Cell, ...], number: str) -> str:
    others = "".join(f"<td{number}>{_words(cell)}</td>" for cell in cells[1:])
    return f'<tr><th scope="row">{_words(cells[0])}</th>{others}</tr>'


def _words(cell: Cell) -> str:
    if cell.verdict and not cell.text:
        return _badge(cell.verdict)
    sign = f'<span class="tone {cell.verdict.value}">{_SIGNS[cell.verdict]}</span> ' if cell.verdict else ""
    return sign + escape(cell.text) + (f"<small>{escape(cell.note)}</small>" if cell.note else "")


def _figure(drawn: Figure) -> str:
    badge = f" {_badge(drawn.verdict)}" if drawn.verdict else ""
    return (
        f"<figure><h3>{escape(drawn.title)}{badge}</h3>{drawn.svg}"
        f"<figcaption>{escape(drawn.caption)}</figcaption></figure>"
    )


def _validity(record: RunRecord) -> str:
    if not any(m.checks for m in content.measured(record)):
        return ""
    return _table(content.check_table(record)) + _findings(record)


def _findings(record: RunRecord) -> str:
    items = "".join(
        f"<li>{_badge(check.verdict)}<span>{escape(where)}: {escape(check.message)}"
        + (f'. <span class="soft">What to do: {escape(check.advice)}.</span>' if check.advice else ".")
        + "</span></li>"
        for where, check in content.findings(record)
    )
    return f'<ul class="findings">{items}</ul>' if items else ""


def _provenance(record: RunRecord) -> str:
    groups = "".join(
        f"<section><h3>{escape(group)}</h3>{_definitions(lines)}</section>"
        for group, lines in content.provenance(record)
    )
    return f'<div class="columns">{groups}</div>' if groups else ""


def _reproduce(record: RunRecord) -> str:
    files = "".join(f"{escape(digest)}  {escape(name)}\n" for name, digest in sorted(record.files.items()))
    hashes = f'<p class="soft">Files of this run (sha256):</p><pre>{files}</pre>' if files else ""
    commands = escape(reproduce.commands(record))
    recipe = escape(content.recipe_text(record))
    typed = f"<pre>{commands}</pre>" if commands else ""
    return f'{typed}<p class="soft">Recipe, as recorded:</p><pre>{recipe}</pre>{hashes}'
