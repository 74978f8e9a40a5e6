"""One run as Markdown: the same words and numbers as the HTML page, for wikis and merge requests."""

from aifbench.report import content, facts, numbers
from aifbench.report.content import PROBE_WORDS
from aifbench.report.guidance import advice
from aifbench.report.markdown_parts import bullets, fenced, guidance, pairs, safe, section, table_text
from aifbench.report.meanings import meanings, symbols
from aifbench.report.reproduce import commands
from aifbench.report.resources import resource_sentences, resource_table
from aifbench.report.score_words import score_sentences
from aifbench.report.server_view import sentences, view_table
from aifbench.report.stage_view import NOTE, stage_table
from aifbench.results.record import RunRecord


def run_markdown(record: RunRecord) -> str:
    """The complete document. Text from outside is escaped, so that it stays text."""
    sections = (
        f"# {safe(content.title(record))}\n\nRun `{record.run_id}`",
        f"**{record.verdict.value}**: {safe(content.verdict_sentence(record))}.",
        bullets(_headline(record)),
        section("What was measured", bullets(pairs(facts.facts(record)))),
        section("Results", _results(record)),
        section("Where the time goes", _stages(record)),
        section("Probes", _probes(record)),
        section("Server and client", _view(record)),
        section("Machines", _machines(record)),
        section("Validity", _validity(record)),
        section("Guidance", guidance(advice(record))),
        section("Every number", _every_number(record)),
        section("Definitions", _definitions(record)),
        section("Where it was measured", _provenance(record)),
        section("Reproduce", fenced(commands(record)) + fenced(facts.recipe_text(record))),
    )
    return "\n\n".join(section.strip() for section in sections if section.strip()) + "\n"


def _headline(record: RunRecord) -> list[str]:
    found = content.headline(record)
    if found is None:
        return []
    measurement, metrics = found
    where = content.label(record, measurement)
    return [
        f"{safe(where)}: {safe(content.metric_words(m))} **{safe(content.with_unit(m))}**"
        + (f", 95 % interval {safe(content.interval_text(m))}" if content.interval_text(m) else "")
        for m in metrics
    ]


def _results(record: RunRecord) -> str:
    measurements = content.measured(record)
    if not measurements:
        return "Nothing was measured."
    errors = [
        f"{safe(content.label(record, m))}: {count:,} x {safe(text)}"
        for m in measurements
        for count, text in content.error_texts(m)
    ]
    notes = map(safe, [*score_sentences(record), *numbers.notes(record, measurements)])
    told = f"\n\nErrors:\n\n{bullets(errors)}" if errors else ""
    return f"{table_text(numbers.result_table(record))}\n\n{bullets(notes)}{told}"


def _stages(record: RunRecord) -> str:
    table = stage_table(record)
    return f"{table_text(table)}\n\n{NOTE}" if table.rows else ""


def _probes(record: RunRecord) -> str:
    table = numbers.probe_table(record)
    return f"{PROBE_WORDS}\n\n{table_text(table)}" if table.rows else ""


def _view(record: RunRecord) -> str:
    table = view_table(record)
    shown = table_text(table) if table.rows else ""
    told = bullets(safe(sentence) for sentence in sentences(record))
    return f"{shown}\n\n{told}".strip()


def _machines(record: RunRecord) -> str:
    table = resource_table(record)
    shown = table_text(table) if table.rows else ""
    return f"{shown}\n\n{bullets(safe(sentence) for sentence in resource_sentences(record))}".strip()


def _every_number(record: RunRecord) -> str:
    """All metrics of what was measured; those of probes are in metrics.csv."""
    return "\n\n".join(
        f"### {safe(content.label(record, m))}\n\n{table_text(numbers.all_of(m))}"
        for m in content.measured(record)
        if m.metrics
    )


def _definitions(record: RunRecord) -> str:
    table = meanings(record)
    if not table.rows:
        return ""
    letters = bullets(f"{name}: {meaning}" for name, meaning in symbols(table))
    return f"{table_text(table, is_text=True)}\n\n{letters}"


def _validity(record: RunRecord) -> str:
    if not any(m.checks for m in content.measured(record)):
        return ""
    found = [
        f"**{check.verdict.value}** {safe(check.code)}, {safe(where)}: {safe(check.message)}"
        + (f" ({safe(check.advice)})" if check.advice else "")
        for where, check in content.findings(record)
    ]
    return f"{table_text(content.check_table(record))}\n\n{bullets(found)}"


def _provenance(record: RunRecord) -> str:
    lines = [(f"{group}: {name}", text) for group, pairs in facts.provenance(record) for name, text in pairs]
    return bullets(pairs(lines))
