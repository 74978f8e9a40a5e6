"""From samples to a Measurement: a pure function, so that a stored run can be summarised again.

`window` says which operations count, `metrics` makes the numbers, `series` the curves and `validity` the
verdicts.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from aifbench.load.plan import WorkerReport
from aifbench.load.samples import Samples
from aifbench.load.workload import OutcomeKind
from aifbench.results import metrics
from aifbench.results.record import Measurement, Metric
from aifbench.results.series import quantile_curve, time_series
from aifbench.results.stage_metrics import stage_metrics
from aifbench.results.token_metrics import token_metrics
from aifbench.results.validity import Answers, Seen, check
from aifbench.results.window import StreamFacts, View
from aifbench.stats.intervals import quantile_rank

__all__ = ["StreamFacts", "summarise"]

_MAX_ERROR_TEXTS = 20


def summarise(samples: Samples, facts: StreamFacts, reports: Sequence[WorkerReport]) -> Measurement:
    """Every number, curve and verdict of one stream of one phase; `reports` may hold other streams' too."""
    reports = [report for report in reports if report.stream == facts.stream]
    view = View.of(samples, facts)
    window = view.window
    numbers = _metrics(view, reports)
    series, step_s = time_series(samples, view.times, window.end_ns)
    return Measurement(
        phase=facts.phase,
        stream=facts.stream,
        arrivals=facts.arrivals,
        via=facts.via,
        workers=facts.workers,
        window_s=(window.start_ns / 1e9, window.end_ns / 1e9),
        metrics=numbers,
        checks=check(_seen(view, reports, numbers)),
        outcomes=_outcomes(view),
        errors=_error_texts(reports),
        series=series,
        series_step_s=step_s,
        latency_quantiles=quantile_curve(view.latencies),
        parameters=facts.parameters,
        role=facts.role,
        samples_file=facts.samples_file,
        started_utc=facts.started_utc,
    )


def _metrics(view: View, reports: Sequence[WorkerReport]) -> tuple[Metric, ...]:
    return (
        *metrics.rates(view),
        *metrics.latencies(view),
        *([metrics.lag(view)] if view.facts.open_loop else []),
        metrics.error_share(view),
        *metrics.qualities(view),
        *token_metrics(view),
        *stage_metrics(view),
        *metrics.client(reports),
    )


def _seen(view: View, reports: Sequence[WorkerReport], numbers: tuple[Metric, ...]) -> Seen:
    facts, window, latencies = view.facts, view.window, view.latencies
    offsets_s = [report.clock_offset_s for report in reports] or [0.0]
    successes = int(np.count_nonzero(view.ok))
    by_name = {metric.name: metric for metric in numbers}
    return Seen(
        open_loop=facts.open_loop,
        timed=facts.measure_s is not None,
        stationary=facts.can_settle,
        workers=facts.workers,
        operations=view.operations,
        successes=successes,
        latencies=len(latencies),
        duration_s=window.duration_s,
        p50_ms=_ms(latencies.at_ns(0.5)),
        p99_ms=_ms(latencies.at_ns(0.99)),
        max_ms=_ms(latencies.at_ns(1)),
        lag_p50_ms=_lag_ms(view, 0.5) if facts.open_loop else None,
        lag_p99_ms=_lag_ms(view, 0.99) if facts.open_loop else None,
        served_share=_served_share(view),
        steady=window.steady,
        unsteady_share=window.unsteady_share,
        shift=window.shift,
        cpu_share=metrics.cpu_share(reports),
        loop_delay_s=max((report.loop_delay_max_s for report in reports), default=0.0),
        hosts=len({report.host for report in reports}),
        clock_spread_s=max(offsets_s) - min(offsets_s),
        clock_error_s=max((report.clock_offset_error_s for report in reports), default=0.0),
        clock_step_s=max((abs(report.clock_step_s) for report in reports), default=0.0),
        lost=_lost(facts, reports),
        limited=tuple(report.limited_by for report in reports if report.limited_by),
        answers=tuple(
            Answers(quality, by_name[quality.name].value, by_name[quality.name].n, successes)
            for quality in facts.qualities
        ),
    )


def _ms(value_ns: int | None) -> float | None:
    return None if value_ns is None else value_ns / 1e6


def _lag_ms(view: View, q: float) -> float | None:
    lags_ns = view.times.lag_ns[view.window.rows]
    if not len(lags_ns):
        return None
    place = quantile_rank(len(lags_ns), q) - 1
    return float(np.partition(lags_ns, place)[place]) / 1e6


def _served_share(view: View) -> float | None:
    """Successes by operations offered, over windows of equal length, the former one median latency later.

    Without that shift a service that keeps up would seem not to, as nothing can finish before it was served.
    What is in flight at either end is a matter of chance: its counting noise, two standard deviations of a
    Poisson number, is granted.
    """
    window, offered, median_ns = view.window, view.operations, view.latencies.at_ns(0.5)
    if not view.facts.open_loop or not offered or median_ns is None or not window.length_s:
        return None
    finished_ns = view.finished_ok_ns()
    start_ns, end_ns = window.start_ns + median_ns, window.end_ns + median_ns
    served = int(np.count_nonzero((finished_ns > start_ns) & (finished_ns <= end_ns)))
    in_flight = offered / window.length_s * median_ns / 1e9
    return min(1.0, (served + 1 + 2 * math.sqrt(in_flight)) / offered)


def _lost(facts: StreamFacts, reports: Sequence[WorkerReport]) -> tuple[str, ...]:
    failures = [f"worker {report.worker}: {report.failure}" for report in reports if report.failure]
    silent = facts.workers - len(reports)
    return (*failures, *(["a worker sent no report"] * silent))


def _outcomes(view: View) -> dict[str, int]:
    counts = np.bincount(view.samples.outcome[view.window.rows])
    return {OutcomeKind(kind).name: int(count) for kind, count in enumerate(counts) if count}


def _error_texts(reports: Sequence[WorkerReport]) -> dict[str, int]:
    texts: Counter[str] = Counter()
    for report in reports:
        texts.update(report.errors)
    return dict(texts.most_common(_MAX_ERROR_TEXTS))
