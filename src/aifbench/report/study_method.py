"""How a study was made, how to read its numbers, where it ran, and how to make it again."""

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from aifbench.report import facts as run_facts
from aifbench.report.content import Cell, Table, headline, metric_words, with_unit
from aifbench.report.reproduce import address
from aifbench.report.study_axes import recipe_value, short_key
from aifbench.report.study_content import (
    Judged,
    any_measurement,
    is_faultless,
    one_baseline,
    shown_names,
    times,
)
from aifbench.report.study_points import StudyView
from aifbench.results.compared import FAMILY
from aifbench.results.record import RunRecord

_CHANGING = ("load", "time")  # of a machine from one minute to the next
_MOST_VALUES = 6


def facts(study: StudyView) -> list[tuple[str, str]]:
    """The recipe in short, what was varied, and when."""
    runs = [run for point in study.shown for run in point.used]
    common = _common(study, runs) if runs else None
    roles = [*common.service.get("members", ())] if common else []
    wanted = ("service", "started as", "benchmark", "found", *roles)
    shared = run_facts.facts(common) if common else []
    asked = {key: recipe_value(study, key) for key in ("order", "repeats", "seed", "slo", "baseline")}
    options = ", ".join(f"{key} {_plain(value)}" for key, value in asked.items() if value not in (None, ""))
    lines = [
        ("recipe", study.record.recipe_file),
        *((name, text) for name, text in shared if name.partition(":")[0] in wanted),
        *((f"varied: {key}", ", ".join(map(str, values))) for key, values in study.axes.items()),
        ("design", options),
        ("when", run_facts.span(study.record.created_utc, study.record.ended_utc)),
    ]
    return [(name, text) for name, text in lines if text]


def _plain(value: Any) -> str:
    """`clients=4` of a mapping, as points are called."""
    if isinstance(value, Mapping):
        return " ".join(f"{key}={each}" for key, each in value.items())
    return str(value)


def _common(study: StudyView, runs: Sequence[RunRecord]) -> RunRecord:
    """What all runs share: without what was varied or found anew, and without what is of one job only."""
    unwanted = {*(short_key(key) for key in study.axes), *_OF_ONE_JOB}
    recipe = _shared([run.recipe for run in runs], unwanted)
    service = _shared([run.service for run in runs], unwanted)
    if address(runs[0].service.get("endpoint")).startswith("file:"):
        service.pop("authentication", None)
    return replace(runs[0], recipe=recipe, service=service)


def _shared(found: Sequence[Any], unwanted: Collection[str]) -> dict[str, Any]:
    """The entries that are the same in all of these mappings, at any depth."""
    kept: dict[str, Any] = {}
    for key, value in found[0].items():
        values = [each.get(key) for each in found]
        if key in unwanted:
            continue
        if all(isinstance(each, Mapping) for each in values):
            kept[key] = _shared(values, unwanted)
        elif all(each == value for each in values):
            kept[key] = value
    return kept


_OF_ONE_JOB = ("job_id", "ready_after_s", "endpoint")


def reading(study: StudyView) -> list[str]:
    """How to read the table of results."""
    lines = [
        "Each number is the median over the runs of its point, with the interval of that median in brackets "
        "and the noise between runs as CV.",
        times(study) + ".",
    ]
    left_out = sum(point.left_out for point in study.shown)
    if left_out:
        are = "runs of points with better ones are" if left_out > 1 else "run of a point with better ones is"
        lines.append(f"{left_out} INVALID {are} counted, and left out of numbers.")
    if any(point.spread(name) is None for point in study.shown for name in shown_names(study)):
        lines.append("A dash: no run of the point can tell, such as a percentile of too few operations.")
    if is_faultless(study):
        lines.append("No operation of these failed.")
    if any(point.is_invalid for point in study.shown):
        lines.append(
            "Points marked ✕ have only INVALID runs: their numbers are shown, and must not be quoted."
        )
    return lines


def against(judged: Sequence[Judged]) -> str:
    """What the words of the comparison mean here."""
    first = one_baseline(judged)
    name = (first.label or "the first point") if first else "the same point with the baseline's settings"
    threshold = 100 * judged[0].comparison.threshold
    return (
        f"Ratios to {name} with intervals of 95 %. Improved and regressed need an adjusted p below 5 % and a "
        f"change of more than {threshold:g} %; no change means that larger ones are excluded; "
        "undecided is all else."
    )


def method(study: StudyView) -> list[str]:
    """What a reader needs in order to judge the statistics."""
    runs = sorted({len(point.used) for point in study.shown})
    repeats = f"{runs[0]} to {runs[-1]}" if len(runs) > 1 else str(runs[0]) if runs else "no"
    order = recipe_value(study, "order") or "shuffled"
    lines = [
        f"The run is the unit: {repeats} run{'s' * (repeats != '1')} of each point count, made in {order} "
        "order, each one value per metric. Operations inside of a run are not independent and are never "
        "pooled over runs.",
        "Intervals of a median are order statistics: 95 % from 6 runs on; of fewer runs it is their range, "
        "which encloses the median with 50 % (2 runs), 75 % (3), 87.5 % (4) or 93.75 % (5).",
        "CV is the standard deviation between runs divided by their mean.",
        "Points are compared by the exact Mann-Whitney test; ratios are Hodges-Lehmann estimates on "
        f"logarithms with the interval that inverts the test. {FAMILY} The command compare says the same "
        "of two points.",
        "A run that missed a validity check by far is INVALID and its numbers do not count, unless its point "
        "has no others. Failed trials are listed and never repeated in silence.",
    ]
    first = any_measurement(study)
    if first:
        where = f" at {study.shown[0].label}" if study.shown[0].label else ""
        lines.append(f"Load{where}: {run_facts.load_text(first)}.")
    return lines


def provenance(
    study: StudyView,
) -> tuple[list[tuple[str, str]], list[tuple[str, list[tuple[str, str]]]]]:
    """(what was not the same in all runs, what was the same, in groups)."""
    runs = study.runs
    if not runs:
        return [], []
    groups = run_facts.provenance(runs[0])
    values: dict[tuple[str, str], dict[str, None]] = {}
    for run in runs:
        for group, lines in run_facts.provenance(run):
            for name, text in lines:
                values.setdefault((group, name), {})[text] = None
    differing = [
        (f"{group}: {name}", _some(list(found)))
        for (group, name), found in values.items()
        if len(found) > 1 and group not in _CHANGING
    ]
    same = [
        (group, [(name, text) for name, text in lines if len(values[(group, name)]) == 1])
        for group, lines in groups
    ]
    return differing, [(group, lines) for group, lines in same if lines]


def _some(found: Sequence[str]) -> str:
    more = f" and {len(found) - _MOST_VALUES} more" if len(found) > _MOST_VALUES else ""
    return " | ".join(found[:_MOST_VALUES]) + more


def commands(study: StudyView) -> list[str]:
    """What repeats the study from its own copy of the recipe, and what repeats one run of it."""
    recipe = f"results/studies/{study.record.study_id}/recipe.yaml"
    lines = [
        shlex.join(["aifbench", f"run {recipe}"]),
        shlex.join(["aifbench", f"report {study.record.study_id}"]),
    ]
    runs = study.runs
    return [*lines, shlex.join(["aifbench", f"run --again {runs[0].run_id}"])] if runs else lines


def run_table(study: StudyView) -> Table:
    """Every run: point, verdict and its main numbers."""
    labels = {run.run_id: point.label for point in study.points for run in point.runs}
    rows = []
    for run in study.runs:
        found = headline(run)
        numbers = ", ".join(f"{metric_words(m)} {with_unit(m)}" for m in found[1]) if found else "-"
        rows.append(
            (
                Cell(run.run_id, run.created_utc),
                Cell(labels[run.run_id]),
                Cell("", verdict=run.verdict),
                Cell(numbers),
            )
        )
    return Table((Cell("run"), Cell("point"), Cell("verdict"), Cell("numbers")), tuple(rows))
