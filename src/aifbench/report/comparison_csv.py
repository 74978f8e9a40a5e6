"""Every compared number as CSV, one row per pair of sides and metric."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from aifbench.results.compared import Comparison, Pair, Row
from aifbench.stats.intervals import Estimate

COLUMNS = (
    "base", "other", "point", "phase", "stream", "metric", "unit", "direction", "rank", "verdict",
    "base_median", "base_runs", "base_cv", "other_median", "other_runs", "other_cv",
    "ratio", "ratio_low", "ratio_high", "difference", "difference_low", "difference_high",
    "p", "p_adjusted", "margin", "repeats_needed",
)  # fmt: skip


def comparison_csv(found: Comparison) -> str:
    """All metrics, also those that are not shown; empty cells where nothing is known."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(values for pair in found.pairs for row in pair.rows for values in _row(pair, row))
    return text.getvalue()


def _row(pair: Pair, row: Row) -> Iterator[dict[str, Any]]:
    finding = row.finding
    yield {
        "base": pair.base.label,
        "other": pair.other.label,
        **dict(zip(("point", "phase", "stream"), row.key, strict=True)),
        "metric": row.metric,
        "unit": row.unit,
        "direction": finding.direction,
        "rank": row.rank.name.lower(),
        "verdict": finding.change.value,
        "base_median": finding.a.median,
        "base_runs": finding.a.n,
        "base_cv": finding.a.cv,
        "other_median": finding.b.median,
        "other_runs": finding.b.n,
        "other_cv": finding.b.cv,
        **_estimate("ratio", finding.ratio),
        **_estimate("difference", finding.difference),
        "p": finding.raw_p,
        "p_adjusted": finding.p,
        "margin": finding.margin,
        "repeats_needed": finding.repeats_needed,
    }


def _estimate(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    if estimate is None:
        return {}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
