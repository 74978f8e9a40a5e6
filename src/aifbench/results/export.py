"""Every number of a run as flat rows, for spreadsheets and other programs."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from aifbench.results.definitions import TOOLS, definition, formula_of, is_from_schedule, tool_names
from aifbench.results.record import Measurement, Metric, RunRecord

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
