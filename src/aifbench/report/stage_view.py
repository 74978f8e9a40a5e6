"""Where the time of an operation of several stages goes."""

from aifbench.report.content import Cell, Table, interval_text, label, latency, measured, value_text
from aifbench.report.study_points import PointView, StudyView
from aifbench.results.headline import short_name, stages
from aifbench.results.record import Measurement, RunRecord
from aifbench.units import format_number

NOTE = "Shares are of the mean time from when an operation was due, or sent, to its end; together 100 %."

_PERCENTILES = ("p50", "p90", "p99")
_BEFORE, _BESIDE = "wait", "client"  # what is no stage, and has a share only


def stage_table(record: RunRecord) -> Table:
    """A row per stage of each measurement: its share, then its own times; empty where nothing has stages."""
    rows = [row for m in measured(record) for row in _rows(record, m)]
    heads = (Cell("stage"), Cell("share", "%"), *(Cell(p, "ms") for p in _PERCENTILES))
    return Table(heads, tuple(rows)) if rows else Table((), ())


def stages_of_points(study: StudyView) -> Table:
    """A row per point: of each stage its share, and the median of its own time below."""
    found = dict.fromkeys(name for point in study.shown for m in point.measurements() for name in _parts(m))
    rows = [
        (Cell(point.label or "the only point"), *(_share_cell(point, name) for name in found))
        for point in study.shown
    ]
    return Table(
        (Cell("point"), *(Cell(short_name(name), "%") for name in found)), tuple(rows if found else ())
    )


def _share_cell(point: PointView, stage: str) -> Cell:
    share, own = point.spread(f"{stage}_share"), point.spread(f"{stage}_p50")
    own_words = f"p50 {format_number(own.median, 3)} {own.metric.unit}" if own else ""
    return Cell(format_number(share.median, 3) if share else "-", own_words)


def _parts(measurement: Measurement) -> list[str]:
    """The stages, and what of the time is none."""
    found = stages(measurement)
    around = (_BEFORE, *found, _BESIDE) if found else ()
    return [name for name in around if measurement.metric(f"{name}_share")]


def _rows(record: RunRecord, measurement: Measurement) -> list[tuple[Cell, ...]]:
    where = label(record, measurement) if len(measured(record)) > 1 else ""
    return [
        (
            Cell(short_name(name), where),
            Cell(value_text(measurement.metric(f"{name}_share"))),
            *_times(measurement, name),
        )
        for name in _parts(measurement)
    ]


def _times(measurement: Measurement, stage: str) -> list[Cell]:
    known = [latency(measurement, stage, percentile) for percentile in _PERCENTILES]
    return [Cell(value_text(metric), interval_text(metric)) if metric else Cell("") for metric in known]
