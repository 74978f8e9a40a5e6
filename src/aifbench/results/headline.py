"""The three numbers of a run that people quote: how much, how slow at the tail, how good the answers."""

from aifbench.results.record import Measurement, Metric, RunRecord
from aifbench.units import format_number

_TAILS = ("p99", "p90", "p50")


def latency_kind(measurement: Measurement) -> str:
    """`response` (from the intended time, open loop) or `service` (from sending, closed loop)."""
    named = any(metric.name.startswith("response_") for metric in measurement.metrics)
    return "response" if named else "service"


def qualities(measurement: Measurement) -> list[Metric]:
    """The shares without a unit that are better when higher, such as a recall: how good the answers were."""
    return [metric for metric in measurement.metrics if not metric.unit and metric.direction == "higher"]


def tail_latency(measurement: Measurement) -> Metric | None:
    """The highest of the usual percentiles that the sample can carry."""
    kind = latency_kind(measurement)
    found = (measurement.metric(f"{kind}_{tail}") for tail in _TAILS)
    return next((metric for metric in found if metric and metric.value is not None), None)


def work_rate(measurement: Measurement) -> Metric | None:
    """Items per second where items differ from operations, otherwise operations per second."""
    found = (measurement.metric(name) for name in ("item_rate", "throughput"))
    return next((metric for metric in found if metric and metric.value is not None), None)


def main_measurement(record: RunRecord) -> Measurement | None:
    """The measurement a run is remembered by: the first whose answers were checked, else the first."""
    checked = (m for m in record.measurements if any(q.value is not None for q in qualities(m)))
    return next(checked, record.measurements[0] if record.measurements else None)


def headline_metrics(measurement: Measurement) -> list[Metric]:
    """At most three: work rate, tail latency, first quality; only those that have a value."""
    quality = next((q for q in qualities(measurement) if q.value is not None), None)
    return [m for m in (work_rate(measurement), tail_latency(measurement), quality) if m is not None]


def headline_text(record: RunRecord) -> str:
    """`search: 412 ops/s, response p99 12.3 ms, recall@10 0.98`, or nothing."""
    measurement = main_measurement(record)
    if measurement is None:
        return ""
    numbers = ", ".join(_quote(metric) for metric in headline_metrics(measurement))
    return f"{measurement.stream}: {numbers}" if numbers else ""


def _quote(metric: Metric) -> str:
    digits = 3 if metric.unit else 4  # a share close to 1 must not read as 1
    value = format_number(metric.value if metric.value is not None else float("nan"), digits)
    if metric.name in ("throughput", "item_rate"):
        return f"{value} {metric.unit}".rstrip()
    return f"{metric.name.replace('_', ' ')} {value} {metric.unit}".rstrip()
