"""The few numbers of a run that people quote: how much, how slow at the tail, how good the answers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from aifbench.errors import UsageError
from aifbench.results.record import Measurement, Metric, Role, RunRecord
from aifbench.results.slo import Slo, parse_slo
from aifbench.units import format_number

_TAILS = ("p99", "p90", "p50")
_RATIOS = ("tpot_constrained_ratio", "ttft_constrained_ratio")
_SLOWDOWN = "slowdown_p50"


def latency_kind(measurement: Measurement) -> str:
    """`response` (from the intended time, open loop) or `service` (from sending, closed loop)."""
    named = any(metric.name.startswith("response_") for metric in measurement.metrics)
    return "response" if named else "service"


def is_open_loop(measurement: Measurement) -> bool:
    return measurement.metric("offered_rate") is not None or latency_kind(measurement) == "response"


def is_streamed(measurement: Measurement) -> bool:
    """Whether answers came token by token."""
    return measurement.metric("output_rate") is not None


def measures_itself(measurement: Measurement) -> bool:
    """Whether the numbers are those of a program that ran its own load: we saw no operation of it."""
    known = any(measurement.metric(name) for name in ("bandwidth", "throughput", "score"))
    return known and not measurement.outcomes and not is_empty(measurement)


def is_empty(measurement: Measurement) -> bool:
    """Whether the phase ended before an operation of its measured part: what is 0 then was not measured."""
    return bool(measurement.samples_file) and not measurement.outcomes


def objective(measurement: Measurement) -> Slo | None:
    """The limits that requests were held against."""
    text = measurement.parameters.get("slo")
    try:
        return parse_slo(str(text)) if text else None
    except UsageError:
        return None


def in_requests(metric: Metric) -> Metric:
    """What an inference service does per second are requests, not operations."""
    return replace(metric, unit=metric.unit.replace("ops/s", "req/s"))


def qualities(measurement: Measurement) -> list[Metric]:
    """The shares without a unit that are better when higher, such as a recall: how good the answers were."""
    return [metric for metric in measurement.metrics if not metric.unit and metric.direction == "higher"]


def tail(measurement: Measurement, latency: str) -> Metric | None:
    """The highest of the usual percentiles of a latency that the sample can carry."""
    return _first_known(measurement, *(f"{latency}_{percentile}" for percentile in _TAILS))


def tail_latency(measurement: Measurement) -> Metric | None:
    return tail(measurement, latency_kind(measurement))


def stages(measurement: Measurement) -> list[str]:
    """The names of the parts that its operations consist of."""
    shares = (m.name.removesuffix("_share") for m in measurement.metrics if m.name.endswith("_share"))
    return [name for name in shares if measurement.metric(f"{name}_p50")]


def work_rate(measurement: Measurement) -> Metric | None:
    """Bytes per second of fixed work, items per second where they differ from operations, else operations."""
    return _first_known(measurement, "bandwidth", "item_rate", "throughput")


def main_measurement(record: RunRecord) -> Measurement | None:
    """The measurement a run is remembered by; probes only where there is nothing else.

    What the run was made for comes first: a capacity, a comparison, of loads beside one another the one that
    lost most. Of streamed answers it is the load that a
    service can be asked to carry (open loop after closed levels), else the best one of the levels. Otherwise
    it is the first whose answers were checked; else, where levels of the same work were measured, that work
    in open loop or at its best level; else the first.
    """
    measured = [m for m in record.measurements if m.role is Role.MEASURE] or list(record.measurements)
    for name in ("capacity", "score", *_RATIOS):
        if found := next((m for m in measured if m.metric(name)), None):
            return found
    if beside := [m for m in measured if m.metric(_SLOWDOWN)]:
        return max(beside, key=_slowdown)
    streamed = [m for m in measured if is_streamed(m)]
    if streamed:
        opened = [m for m in streamed if is_open_loop(m)]
        return max(opened or streamed, key=_useful_rate)
    checked = (m for m in measured if any(q.value is not None for q in qualities(m)))
    return next(checked, None) or _best_level(measured) or (measured[0] if measured else None)


def _best_level(measured: Sequence[Measurement]) -> Measurement | None:
    """Of the stream that was measured most often, in several phases; None where each was measured once."""
    counts = Counter(m.stream for m in measured)
    stream, count = next(iter(counts.most_common(1)), ("", 0))
    if count < 2:
        return None
    levels = [m for m in measured if m.stream == stream]
    return max([m for m in levels if is_open_loop(m)] or levels, key=_useful_rate)


def _slowdown(measurement: Measurement) -> float:
    found = _first_known(measurement, _SLOWDOWN)
    return found.value or 0.0 if found else 0.0


def _useful_rate(measurement: Measurement) -> float:
    best = _first_known(measurement, "goodput", "throughput")
    return best.value or 0.0 if best else 0.0


def headline_metrics(measurement: Measurement) -> list[Metric]:
    """At most four, only those that have a value.

    Of a capacity search what was found; of streamed answers requests, tokens, first token and pace; otherwise
    work rate, tail latency and first quality.
    """
    ratios = _known(measurement, *_RATIOS)
    if capacity := _first_known(measurement, "capacity"):
        found = [capacity, *_known(measurement, "attainment", "output_rate"), tail(measurement, "ttft")]
    elif measurement.metric("score"):
        found = [*_known(measurement, "score", "bandwidth_mean", "metadata_mean")]
    elif ratios:
        found = [*ratios, *qualities(measurement)[:1]]
    elif measurement.metric(_SLOWDOWN):
        kept = _first_known(measurement, "throughput_kept")
        found = [tail(measurement, "slowdown"), tail(measurement, "slowdown_ttft"), kept]
    elif is_streamed(measurement):
        rates = _known(measurement, "throughput", "output_rate")
        found = [*map(in_requests, rates), tail(measurement, "ttft"), tail(measurement, "tpot")]
    else:
        quality = next((q for q in qualities(measurement) if q.value is not None), None)
        found = [work_rate(measurement), tail_latency(measurement), quality]
    return [metric for metric in found if metric is not None]


def headline_text(record: RunRecord) -> str:
    """`search: 412 ops/s, response p99 12.3 ms, recall@10 0.98`, or nothing."""
    measurement = main_measurement(record)
    if measurement is None:
        return ""
    if capacity := _first_known(measurement, "capacity"):
        return _capacity_text(capacity, objective(measurement))
    numbers = ", ".join(_quote(metric) for metric in headline_metrics(measurement))
    if is_empty(measurement):
        numbers = "nothing was measured"
    is_known_by_phase = is_streamed(measurement) and not measurement.metric(_SLOWDOWN)
    where = measurement.phase if is_known_by_phase else measurement.stream
    return f"{where}: {numbers}" if numbers else ""


def _capacity_text(capacity: Metric, slo: Slo | None) -> str:
    """`capacity 45.9 req/s [45, 46.8] at TTFT <= 200 ms for 99 % of requests`."""
    interval = ""
    if capacity.low is not None and capacity.high is not None:
        interval = f" [{format_number(capacity.low, 3)}, {format_number(capacity.high, 3)}]"
    at = f" at {slo.words}" if slo else ""
    return f"capacity {format_number(capacity.value or 0.0, 3)} {capacity.unit}{interval}{at}"


def _known(measurement: Measurement, *names: str) -> list[Metric]:
    found = (measurement.metric(name) for name in names)
    return [metric for metric in found if metric and metric.value is not None]


def _first_known(measurement: Measurement, *names: str) -> Metric | None:
    return next(iter(_known(measurement, *names)), None)


def short_name(metric: str) -> str:
    """`server TTFT p50` of `server_ttft_p50`."""
    return " ".join(_ABBREVIATIONS.get(word, word) for word in metric.split("_"))


_ABBREVIATIONS = {word.lower(): word for word in ("TTFT", "TTFOT", "TPOT", "TTFB", "E2E", "KV", "CPU", "WAL")}


def _quote(metric: Metric) -> str:
    digits = 3 if metric.unit else 4  # a share close to 1 must not read as 1
    value = format_number(metric.value if metric.value is not None else float("nan"), digits)
    if metric.name in ("throughput", "item_rate", "output_rate"):
        return f"{value} {metric.unit}".rstrip()
    if metric.name in _RATIOS:
        return f"{short_name(metric.name.partition('_')[0])} {value} times that of free answers"
    return f"{short_name(metric.name)} {value} {metric.unit}".rstrip()
