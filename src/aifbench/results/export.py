"""Every number of a run, or of many, as flat rows for spreadsheets and other programs."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from aifbench.errors import UsageError
from aifbench.results.definitions import TOOLS, definition, formula_of, is_from_schedule, tool_names
from aifbench.results.files import explained, replace_file
from aifbench.results.query import study_of
from aifbench.results.record import Measurement, Metric, RunRecord
from aifbench.results.tags import Tags

_OWN = (
    "run", "service", "phase", "stream", "role", "arrivals", "metric", "value", "unit", "low", "high", "n",
    "direction", "verdict", "note", "formula",
)  # fmt: skip
COLUMNS = (*_OWN, *TOOLS)


def metric_rows(record: RunRecord) -> Iterator[dict[str, Any]]:
    """One row per metric, keyed by COLUMNS; None where nothing is known. `verdict` is its measurement's.

    A column per tool holds its name for the quantity, and after `differs:` how what it reports is another.
    """
    service = str(record.service.get("name", ""))
    for measurement in record.measurements:
        from_schedule = is_from_schedule(metric.name for metric in measurement.metrics)
        for metric in measurement.metrics:
            yield {
                "run": record.run_id,
                "service": service,
                **_row(measurement, metric),
                "formula": formula_of(metric.name, from_schedule=from_schedule),
                **_tools(metric.name, from_schedule),
            }


def _row(measurement: Measurement, metric: Metric) -> dict[str, Any]:
    return {
        "phase": measurement.phase,
        "stream": measurement.stream,
        "role": measurement.role.value,
        "arrivals": measurement.arrivals,
        "metric": metric.name,
        "value": metric.value,
        "unit": metric.unit,
        "low": metric.low,
        "high": metric.high,
        "n": metric.n,
        "direction": metric.direction,
        "verdict": measurement.verdict.value,
        "note": metric.note,
    }


def _tools(metric: str, from_schedule: bool) -> dict[str, str]:
    names, known = tool_names(metric, from_schedule=from_schedule), definition(metric)
    differs = known.differs if known else {}
    cells = {}
    for tool in TOOLS:
        how = f"differs: {differs[tool]}" if tool in differs else ""
        cells[tool] = "; ".join(part for part in (names.get(tool, ""), how) if part)
    return cells


def metrics_csv(record: RunRecord) -> str:
    """All rows as CSV with a header; empty cells where nothing is known."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(metric_rows(record))
    return text.getvalue()


def metrics_json(record: RunRecord) -> str:
    """All rows as a JSON array of objects."""
    return json.dumps(list(metric_rows(record)), indent=1, ensure_ascii=False) + "\n"


_NOT_ASKED = {"bench", "facts", "given", "note", "study", "again", "recipe_text"}


def runs_csv(runs: Iterable[tuple[RunRecord, Tags]]) -> str:
    """Many runs as one table: a row per run and metric, what is known about the run in columns of their own.

    `start.X` and `bench.X` are options, `point.X` the settings of a study's point. A run that measured
    nothing has one row without a metric, so that it is not overlooked.
    """
    rows = [
        {**_about(record, tags), **values}
        for record, tags in runs
        for values in (*map(_number, metric_rows(record)),) or ({},)
    ]
    columns = dict.fromkeys(name for row in rows for name in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, sorted(columns, key=_column_order), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_runs_csv(runs: Iterable[tuple[RunRecord, Tags]], path: Path) -> None:
    """Raises UsageError for a name that promises another format, ResultError when it cannot be written."""
    if path.suffix.lower() != ".csv":
        raise UsageError(f"{path.name} is no CSV file", hint="give a name that ends in .csv")
    text = runs_csv(runs)
    with explained(f"cannot write {path}", hint="name a file in a directory that you can write to"):
        replace_file(path, text)


def _number(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a metric's row says beyond the run, whose verdict and note are other ones."""
    kept = {name: row[name] for name in _OWN if name not in _OF_THE_RUN}
    return {**kept, "measurement_verdict": row["verdict"], "metric_note": row["note"]}


def _about(record: RunRecord, tags: Tags) -> dict[str, Any]:
    study = study_of(record)
    machine, project = (_mapping(record.provenance.get(name)) for name in ("machine", "project"))
    return {
        "run": record.run_id,
        "created_utc": record.created_utc,
        "state": record.state.value,
        "verdict": record.verdict.value,
        "tags": " ".join(tags.words),
        "note": tags.note or str(record.recipe.get("note") or ""),
        "study": study.get("name"),
        "study_id": study.get("id"),
        "point": study.get("label"),
        "repeat": study.get("repeat"),
        **{f"point.{key}": _cell(value) for key, value in _mapping(study.get("settings")).items()},
        "kind": record.service.get("kind"),
        "service": record.service.get("name"),
        "version": record.service.get("version"),
        "bench": record.recipe.get("bench"),
        "host": machine.get("host"),
        "cpu_model": machine.get("cpu_model"),
        "git_commit": project.get("git_commit"),
        **{f"start.{key}": _cell(value) for key, value in _mapping(record.service.get("options")).items()},
        **{f"bench.{key}": _cell(value) for key, value in record.recipe.items() if key not in _NOT_ASKED},
    }


def _column_order(name: str) -> int:
    """Numbers last, so that what they are about can be read on the left; otherwise as they came."""
    return name in _MEASURED


_OF_THE_RUN = {"run", "service", "verdict", "note", "formula"}
_MEASURED = {*_OWN, "measurement_verdict", "metric_note"} - _OF_THE_RUN


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _cell(value: Any) -> Any:
    """Plain values as they are, others as JSON."""
    return json.dumps(value) if isinstance(value, Mapping | list | tuple) else value
