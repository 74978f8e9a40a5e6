"""The numbers of a measurement, each with unit, direction, sample count and interval.

Rates count what finished inside the window, by its length. A percentile whose interval does not exist has
no value, and says how many operations it needs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifbench.load.plan import WorkerReport
from aifbench.results.record import Metric
from aifbench.results.window import Latencies, View
from aifbench.stats.intervals import (
    Estimate,
    mean,
    mean_of_shares,
    minimum_n,
    proportion,
    quantile,
    quantile_interval_ranks,
    quantile_rank,
    rate,
)

# Name in metrics, name for people, quantile.
PERCENTILES = (("p50", "p50", 0.5), ("p90", "p90", 0.9), ("p99", "p99", 0.99), ("p999", "p99.9", 0.999))
_WAITED = "operations without an answer count with the time they had waited"


def rates(view: View) -> Iterator[Metric]:
    """throughput, item_rate, offered_rate (open loop), sent_rate and received_rate."""
    samples, facts, window = view.samples, view.facts, view.window

    def per_second(name: str, unit: str, amounts: NDArray[Any] | None = None, scale: float = 1.0) -> Metric:
        finished_ns = view.times.finished_ns
        estimate = rate(finished_ns, window.start_ns, window.end_ns, amounts=amounts, where=samples.ok)
        return metric_of(name, unit, "higher", estimate, 1e9 * scale)

    yield per_second("throughput", "ops/s")
    if facts.items:
        yield per_second("item_rate", f"{facts.items}/s", samples.items)
    if facts.open_loop and window.length_s > 0:
        offered = view.operations
        asked = facts.offered_rate_per_s
        note = "" if asked is None else f"asked for {asked:g} ops/s"
        yield Metric("offered_rate", offered / window.length_s, "ops/s", n=offered, note=note)
    for name, column in (("sent_rate", samples.bytes_out), ("received_rate", samples.bytes_in)):
        if column.any():
            yield per_second(name, "MB/s", column, 1e-6)


def latencies(view: View) -> Iterator[Metric]:
    """p50, p90, p99, p999, max and mean in milliseconds, as `response_...` or `service_...`."""
    kind, latencies = "response" if view.facts.open_loop else "service", view.latencies
    for suffix, label, q in PERCENTILES:
        yield percentile(f"{kind}_{suffix}", label, q, latencies)
    n, largest_ns = len(latencies), latencies.at_ns(1)
    largest = None if largest_ns is None else Estimate(largest_ns, None, None, n)
    average = mean(latencies.in_time_ns)
    for name, estimate in ((f"{kind}_max", largest), (f"{kind}_mean", average)):
        metric = metric_of(name, "ms", "lower", estimate, 1e-6)
        yield metric if latencies.answered == n else at_least(metric)


def percentile(name: str, label: str, q: float, latencies: Latencies) -> Metric:
    """In milliseconds, with its interval; without a value when the sample is too small for one."""
    n = len(latencies)
    estimate, ranks = quantile(latencies.ordered_ns, q), quantile_interval_ranks(n, q)
    metric = metric_of(name, "ms", "lower", estimate, 1e-6)
    if ranks is None:
        return replace(metric, n=n, note=_too_few(n, label, q))
    if quantile_rank(n, q) > latencies.answered:
        return at_least(metric)
    if ranks[1] > latencies.answered:
        return replace(metric, high=None, note=f"no upper limit: {_WAITED}")
    return metric


def at_least(metric: Metric) -> Metric:
    return replace(metric, high=None, note=f">= value: {_WAITED}")


def _too_few(n: int, label: str, q: float) -> str:
    return f"n = {n:,} is too small for {label} (needs {minimum_n(q):,})"


def lag(view: View) -> Metric:
    """lag_p99 in milliseconds: how late operations were sent."""
    ordered = np.sort(view.times.lag_ns[view.window.rows])
    estimate = quantile(ordered, 0.99)
    metric = metric_of("lag_p99", "ms", "lower", estimate, 1e-6)
    return metric if estimate else replace(metric, n=len(ordered), note=_too_few(len(ordered), "p99", 0.99))


def error_share(view: View) -> Metric:
    """Operations of the window that did not succeed, in percent."""
    failed = view.operations - int(np.count_nonzero(view.ok))
    return metric_of("error_share", "%", "lower", proportion(failed, view.operations), 100)


def qualities(view: View) -> Iterator[Metric]:
    """The mean of every declared quality over the checked answers of the window."""
    answers, ok = view.samples.qualities[view.window.rows], view.ok
    for column, quality in enumerate(view.facts.qualities):
        checked = answers[:, column][ok]
        estimate = mean_of_shares(checked[~np.isnan(checked)])
        metric = metric_of(quality.name, "", "higher", estimate)
        yield metric if estimate else replace(metric, note="no answer was checked")


def client(reports: Sequence[WorkerReport]) -> Iterator[Metric]:
    """What the load itself cost: CPU time per operation, and of the busiest worker in percent of a core."""
    operations = sum(report.operations for report in reports)
    if operations:
        per_op_ms = 1000 * sum(report.cpu_s for report in reports) / operations
        yield Metric("client_cpu_per_op", per_op_ms, "ms/op", "lower", n=operations)
    sent_anew = sum(report.sent_anew for report in reports)
    if sent_anew:
        yield Metric("sent_anew", sent_anew, "ops", "lower", n=operations)
    busiest = cpu_share(reports)
    if busiest is not None:
        yield Metric("client_cpu", 100 * busiest, "%", "lower", n=len(reports))


def cpu_share(reports: Sequence[WorkerReport]) -> float | None:
    """CPU time by wall time of the busiest worker."""
    return max((report.cpu_s / report.wall_s for report in reports if report.wall_s > 0), default=None)


def metric_of(name: str, unit: str, direction: str, estimate: Estimate | None, scale: float = 1.0) -> Metric:
    if estimate is None:
        return Metric(name, None, unit, direction, note="nothing was measured")
    low, high = (None if edge is None else edge * scale for edge in (estimate.low, estimate.high))
    return Metric(name, estimate.value * scale, unit, direction, low, high, estimate.n)
