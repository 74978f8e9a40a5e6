"""One run as one HTML page: no script, no network, light and dark, fit for paper."""

from html import escape

from aifbench.report import content, facts, numbers, reproduce
from aifbench.report.figures import figures
from aifbench.report.guidance import advice
from aifbench.report.meanings import meanings, symbols
from aifbench.report.page import (
    advice_html,
    badge,
    bullets,
    card,
    cards,
    definitions,
    document,
    figure_html,
    section,
    table_html,
)
from aifbench.report.resources import resource_sentences, resource_table
from aifbench.report.score_words import score_sentences
from aifbench.report.server_view import sentences, view_table
from aifbench.report.stage_view import NOTE, stage_table
from aifbench.results.record import Metric, RunRecord


def run_html(record: RunRecord) -> str:
    """The complete document. Everything that comes from outside is escaped."""
    sections = (
        _top(record),
        section("What was measured", definitions(facts.facts(record))),
        section("Results", _results(record)),
        section("Where the time goes", _stages(record)),
        section("Probes", _probes(record)),
        section("Server and client", _view(record)),
        section("Machines", _machines(record)),
        section("Figures", "".join(figure_html(f) for f in figures(record))),
        section("Validity", _validity(record)),
        section("Guidance", advice_html(advice(record))),
        section("Every number", _every_number(record)),
        section("Definitions", _meanings(record)),
        section("Where it was measured", _provenance(record)),
        section("Reproduce", _reproduce(record)),
        f"<footer>Run {escape(record.run_id)}. All numbers follow from the stored samples; "
        "metrics.csv and metrics.json beside this page have every one of them with its formula.</footer>",
    )
    return document(f"{content.title(record)}, run {record.run_id}", sections)


def _top(record: RunRecord) -> str:
    sentence = escape(content.verdict_sentence(record))
    return (
        f'<header><p class="eyebrow">AI Factory Bench · run <code>{escape(record.run_id)}</code></p>'
        f"<h1>{escape(content.title(record))}</h1>"
        f'<div class="verdict">{badge(record.verdict)}<span>{sentence}</span></div>'
        f"{_cards(record)}</header>"
    )


def _cards(record: RunRecord) -> str:
    found = content.headline(record)
    if found is None:
        return ""
    measurement, metrics = found
    where = content.label(record, measurement)
    return cards(_card(where, metric) for metric in metrics)


def _card(where: str, metric: Metric) -> str:
    interval = content.interval_text(metric)
    words = f"95 % interval {interval}" if interval else "no interval"
    name, count = f"{where}: {content.metric_words(metric)}", f"n = {metric.n:,}" if metric.n else ""
    return card(name, content.value_text(metric), metric.unit, words, count)


def _results(record: RunRecord) -> str:
    measurements = content.measured(record)
    if not measurements:
        return "<p>Nothing was measured.</p>"
    note = f'<p class="soft">{escape(content.start_words(record))}; '
    note += "95 % intervals in small print describe this run only.</p>"
    listed = bullets([*score_sentences(record), *numbers.notes(record, measurements)])
    return table_html(numbers.result_table(record)) + note + listed + _errors(record)


def _stages(record: RunRecord) -> str:
    table = stage_table(record)
    return f'{table_html(table)}<p class="soft">{escape(NOTE)}</p>' if table.rows else ""


def _every_number(record: RunRecord) -> str:
    """Behind a fold: also what only one service has, such as the counters of its server."""
    return "".join(
        f"<details><summary>{escape(content.label(record, m))}: {len(m.metrics)} numbers</summary>"
        f"{table_html(numbers.all_of(m))}</details>"
        for m in content.measured(record)
        if m.metrics
    )


def _probes(record: RunRecord) -> str:
    table = numbers.probe_table(record)
    return f'<p class="soft">{escape(content.PROBE_WORDS)}</p>{table_html(table)}' if table.rows else ""


def _view(record: RunRecord) -> str:
    table = view_table(record)
    return (table_html(table) if table.rows else "") + bullets(sentences(record))


def _machines(record: RunRecord) -> str:
    table = resource_table(record)
    return (table_html(table) if table.rows else "") + bullets(resource_sentences(record))


def _meanings(record: RunRecord) -> str:
    table = meanings(record)
    css = "words" if len(table.headers) > 2 else "words even"
    return table_html(table, css) + definitions(symbols(table)) if table.rows else ""


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


def _validity(record: RunRecord) -> str:
    if not any(m.checks for m in content.measured(record)):
        return ""
    return table_html(content.check_table(record)) + _findings(record)


def _findings(record: RunRecord) -> str:
    items = "".join(
        f"<li>{badge(check.verdict)}<span>{escape(check.code)}, {escape(where)}: {escape(check.message)}"
        + (f'. <span class="soft">What to do: {escape(check.advice)}.</span>' if check.advice else ".")
        + "</span></li>"
        for where, check in content.findings(record)
    )
    return f'<ul class="findings">{items}</ul>' if items else ""


def _provenance(record: RunRecord) -> str:
    groups = "".join(
        f"<section><h3>{escape(group)}</h3>{definitions(lines)}</section>"
        for group, lines in facts.provenance(record)
    )
    return f'<div class="columns">{groups}</div>' if groups else ""


def _reproduce(record: RunRecord) -> str:
    files = "".join(f"{escape(digest)}  {escape(name)}\n" for name, digest in sorted(record.files.items()))
    hashes = f'<p class="soft">Files of this run (sha256):</p><pre>{files}</pre>' if files else ""
    commands = escape(reproduce.commands(record))
    recipe = escape(facts.recipe_text(record))
    typed = f"<pre>{commands}</pre>" if commands else ""
    return f'{typed}<p class="soft">Recipe, as recorded:</p><pre>{recipe}</pre>{hashes}'
