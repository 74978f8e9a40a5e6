"""One study as Markdown: the same words and numbers as its page, for wikis and merge requests."""

from aifbench.report import content, study_method
from aifbench.report import study_content as told
from aifbench.report.guidance_study import study_advice
from aifbench.report.markdown_parts import bullets, fenced, guidance, pairs, safe, section, table_text
from aifbench.report.stage_view import stages_of_points
from aifbench.report.study_html import study_figures
from aifbench.report.study_points import StudyView


def study_markdown(study: StudyView) -> str:
    """The complete document; figures are there as their findings."""
    judged = told.comparisons(study)
    differing, groups = study_method.provenance(study)
    shared = [(f"{group}: {name}", text) for group, lines in groups for name, text in lines]
    varied = [(f"differs: {name}", text) for name, text in differing]
    findings = [f"**{safe(drawn.title)}**: {safe(drawn.caption)}" for drawn in study_figures(study, judged)]
    sections = (
        f"# {safe(told.title(study))}\n\nStudy `{study.record.study_id}`",
        f"**{study.verdict.value}**: {safe(told.verdict_sentence(study))}.",
        safe(study.record.note),
        bullets(_headline(study)),
        section("What was measured", bullets(pairs(study_method.facts(study)))),
        section("Results", _results(study)),
        section("Against the baseline", table_text(told.comparison_table(judged)) if judged else ""),
        section("Where the time goes", _rows(stages_of_points(study), is_text=False)),
        section("Other measurements", _rows(told.other_table(study), is_text=False)),
        section("Failed trials", _rows(told.failures(study))),
        section("Findings", bullets(findings)),
        section("Validity", _rows(told.doubts(study))),
        section("Guidance", guidance(study_advice(study))),
        section("Method", bullets(map(safe, study_method.method(study)))),
        section("Where it was measured", bullets(pairs([*varied, *shared]))),
        section(
            "Reproduce",
            fenced("\n".join(study_method.commands(study))) + fenced(study.record.recipe_text),
        ),
    )
    return "\n\n".join(part.strip() for part in sections if part.strip()) + "\n"


def _headline(study: StudyView) -> list[str]:
    found = told.headline(study)
    if found is None:
        return []
    point, spreads = found
    where = f"{safe(point.label)}: " if point.label else ""
    doubt = ", INVALID: must not be quoted" if point.is_invalid else ""
    return [
        f"{where}{safe(content.metric_words(s.metric))} "
        f"**{safe(f'{told.median_text(s)} {s.metric.unit}')}**, {safe(told.interval_words(s))}{doubt}"
        for s in spreads
    ]


def _results(study: StudyView) -> str:
    if not study.shown:
        return "No run has numbers."
    read = bullets(map(safe, study_method.reading(study)))
    return f"{table_text(told.result_table(study))}\n\n{read}"


def _rows(table: content.Table, *, is_text: bool = True) -> str:
    return table_text(table, is_text=is_text) if table.rows else ""
