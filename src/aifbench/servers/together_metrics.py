"""What a load loses beside others: numbers of the same load together and alone, as ratios over the rounds."""

from collections.abc import Sequence
from dataclasses import replace

from aifbench.results.headline import latency_kind
from aifbench.results.metrics import metric_of
from aifbench.results.record import Check, Measurement, Metric, Verdict
from aifbench.servers.benchmark import Evidence
from aifbench.stats.rounds import ratio_of_rounds

_PERCENTILES = ("p50", "p99")
_ONE_ROUND = "one round: no interval; give more rounds"


def slowdowns(alone: Sequence[Measurement], together: Sequence[Measurement]) -> Evidence:
    """Of one stream; its measurements are paired in order, those of a round with each other."""
    pairs = list(zip(alone, together, strict=False))
    if not pairs:
        return Evidence()
    kind = latency_kind(together[0])
    metrics = [_ratio("throughput_kept", "throughput", "higher", pairs)]
    for suffix in _PERCENTILES:
        metrics.append(_ratio(f"slowdown_{suffix}", f"{kind}_{suffix}", "lower", pairs))
    for base in ("ttft", "tpot"):
        for suffix in _PERCENTILES:
            if together[0].metric(f"{base}_{suffix}"):
                metrics.append(_ratio(f"slowdown_{base}_{suffix}", f"{base}_{suffix}", "lower", pairs))
    return Evidence(_basis([m for pair in pairs for m in pair]), tuple(metrics))


def _ratio(name: str, of: str, direction: str, pairs: Sequence[tuple[Measurement, Measurement]]) -> Metric:
    first, second = ([_value(pair[side], of) for pair in pairs] for side in (0, 1))
    estimate = ratio_of_rounds(first, second)
    metric = metric_of(name, "x", direction, estimate)
    if estimate is None:
        return replace(metric, note=f"no round has {of} on both sides: a longer duration gives it")
    if estimate.n == 1:
        return replace(metric, note=_ONE_ROUND)
    left_out = len(pairs) - estimate.n
    return replace(metric, note=f"{left_out} of {len(pairs)} rounds have no {of}") if left_out else metric


def _value(measurement: Measurement, name: str) -> float | None:
    """None also for what is only a lower bound: a ratio of bounds means nothing."""
    metric = measurement.metric(name)
    return None if metric is None or metric.note.startswith(">=") else metric.value


def _basis(measurements: Sequence[Measurement]) -> tuple[Check, ...]:
    """Ratios are as good as what they are made of."""
    bad = sum(measurement.verdict is Verdict.INVALID for measurement in measurements)
    message = f"the slowdowns rest on {len(measurements)} measurements, {bad} of them INVALID"
    return (
        Check(
            "BASIS",
            Verdict.WARN if bad else Verdict.VALID,
            message,
            float(bad),
            0.0,
            "measurements",
            "see the checks of those; a lower rate or a longer duration often helps" if bad else "",
        ),
    )
