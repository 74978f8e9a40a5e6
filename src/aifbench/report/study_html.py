"""One study as one HTML page, in the order of reading: verdict, numbers, figures, doubts, advice, how."""

from collections.abc import Sequence
from html import escape

from aifbench.report import content, study_method
from aifbench.report import study_content as told
from aifbench.report.guidance import Advice
from aifbench.report.guidance_study import study_advice
from aifbench.report.level_figures import Figure
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
from aifbench.report.stage_view import NOTE, stages_of_points
from aifbench.report.study_figures import load_figures
from aifbench.report.study_history import (
    comparison_figure,
    distribution_figure,
    drift_figure,
    interference_figure,
)
from aifbench.report.study_points import StudyView
from aifbench.report.study_scaling import scaling_figures


def study_html(study: StudyView) -> str:
    """The complete document. Everything that comes from outside is escaped."""
    judged = told.comparisons(study)
    sections = (
        _top(study),
        section("What was measured", definitions(study_method.facts(study))),
        section("Results", _results(study)),
        section("Against the baseline", _against(judged)),
        section("Where the time goes", _stages(study)),
        section("Other measurements", _table(told.other_table(study))),
        section("Failed trials", _table(told.failures(study), "words")),
        section("Figures", "".join(map(figure_html, study_figures(study, judged)))),
        section("Validity", _table(told.doubts(study), "words")),
        section("Guidance", _guidance(study_advice(study))),
        section("Method", bullets(study_method.method(study))),
        section("Where it was measured", _provenance(study)),
        section("Reproduce", _reproduce(study)),
        f"<footer>Study {escape(study.record.study_id)}. All numbers follow from the records of its runs; "
        "study.csv beside this page has a row for each number of each run.</footer>",
    )
    return document(f"{told.title(study)}, {study.record.study_id}", sections)


def study_figures(study: StudyView, judged: Sequence[told.Judged]) -> list[Figure]:
    """Those that apply, in the order of reading."""
    found = [
        *load_figures(study), *scaling_figures(study), distribution_figure(study),
        comparison_figure(judged), interference_figure(study), drift_figure(study),
    ]  # fmt: skip
    return [drawn for drawn in found if drawn is not None]


def _top(study: StudyView) -> str:
    note = f'<p class="soft">{escape(study.record.note)}</p>' if study.record.note else ""
    study_id, sentence = escape(study.record.study_id), escape(told.verdict_sentence(study))
    return (
        f'<header><p class="eyebrow">AI Factory Bench · study <code>{study_id}</code></p>'
        f"<h1>{escape(told.title(study))}</h1>"
        f'<div class="verdict">{badge(study.verdict)}<span>{sentence}</span></div>'
        f"{note}{_cards(study)}</header>"
    )


def _cards(study: StudyView) -> str:
    found = told.headline(study)
    if found is None:
        return ""
    point, spreads = found
    where = f"{point.label}: " if point.label else ""
    doubt = "INVALID: must not be quoted" if point.is_invalid else ""
    return cards(
        card(
            f"{where}{content.metric_words(spread.metric)}",
            told.median_text(spread),
            spread.metric.unit,
            told.interval_words(spread),
            doubt,
        )
        for spread in spreads
    )


def _results(study: StudyView) -> str:
    if not study.shown:
        return "<p>No run has numbers.</p>"
    return table_html(told.result_table(study), "wide") + bullets(study_method.reading(study))


def _against(judged: Sequence[told.Judged]) -> str:
    if not judged:
        return ""
    note = f'<p class="soft">{escape(study_method.against(judged))}</p>'
    return table_html(told.comparison_table(judged)) + note


def _stages(study: StudyView) -> str:
    table = stages_of_points(study)
    return f'{table_html(table)}<p class="soft">{escape(NOTE)}</p>' if table.rows else ""


def _table(table: content.Table, css: str = "") -> str:
    return table_html(table, css) if table.rows else ""


def _guidance(given: Sequence[Advice]) -> str:
    return advice_html(given) or "<p>The numbers support no advice.</p>"


def _provenance(study: StudyView) -> str:
    differing, groups = study_method.provenance(study)
    varied = f"<h3>Not the same in all runs</h3>{definitions(differing)}" if differing else ""
    shared = "".join(
        f"<section><h3>{escape(group)}</h3>{definitions(lines)}</section>" for group, lines in groups
    )
    return varied + (f'<div class="columns">{shared}</div>' if shared else "")


def _reproduce(study: StudyView) -> str:
    commands = escape("\n".join(study_method.commands(study)))
    runs = table_html(study_method.run_table(study))
    return (
        f'<pre>{commands}</pre><p class="soft">The recipe, verbatim:</p>'
        f"<pre>{escape(study.record.recipe_text)}</pre>"
        f"<details><summary>All {len(study.runs)} runs, in the order they were made</summary>{runs}</details>"
    )
