"""A study for other programs: its numbers as one table, and what its report says as JSON."""

import json
from typing import Any

from aifbench.report import study_content as told
from aifbench.report.guidance_study import study_advice
from aifbench.report.study_content import Judged
from aifbench.report.study_html import study_figures
from aifbench.report.study_points import PointView, Spread, StudyView
from aifbench.results.export import runs_csv
from aifbench.results.tags import Tags


def study_csv(study: StudyView) -> str:
    """A row per run and metric, the settings of its point as columns; see results.export."""
    return runs_csv((run, Tags()) for run in study.runs)


def study_json(study: StudyView) -> str:
    """What the report says, for programs: points with medians, comparisons, findings, advice."""
    judged = told.comparisons(study)
    names = told.shown_names(study)
    data = {
        "study": study.record.study_id,
        "name": study.record.name,
        "verdict": study.verdict.value,
        "sentence": told.verdict_sentence(study),
        "points": [_point(point, names) for point in study.points],
        "comparisons": [_judged(each) for each in judged],
        "findings": {drawn.title: drawn.caption for drawn in study_figures(study, judged)},
        "guidance": [
            {"code": each.code, "text": each.text, "because": each.reasons, "command": each.command}
            for each in study_advice(study)
        ],
    }
    return json.dumps(data, indent=1, ensure_ascii=False, default=str) + "\n"


def _point(point: PointView, names: list[str]) -> dict[str, Any]:
    spreads = {name: spread for name in names if (spread := point.spread(name))}
    return {
        "label": point.label,
        "settings": dict(point.settings),
        "runs": [run.run_id for run in point.runs],
        "counted": len(point.used),
        "quotable": not point.is_invalid,
        "verdicts": {verdict.value: n for verdict, n in point.verdicts.items()},
        "failed": [trial.error for trial in point.failed],
        "metrics": {name: _spread(spread) for name, spread in spreads.items()},
    }


def _spread(spread: Spread) -> dict[str, Any]:
    return {
        "median": spread.median, "low": spread.low, "high": spread.high, "confidence": spread.confidence,
        "cv": spread.cv, "n": spread.n, "unit": spread.metric.unit, "direction": spread.metric.direction,
    }  # fmt: skip


def _judged(each: Judged) -> dict[str, Any]:
    ratio = each.comparison.ratio
    return {
        "point": each.point.label, "baseline": each.base.label, "metric": each.name, "word": each.word,
        "ratio": ratio and ratio.value, "low": ratio and ratio.low, "high": ratio and ratio.high,
        "p": each.comparison.p, "repeats_needed": each.comparison.repeats_needed,
    }  # fmt: skip
