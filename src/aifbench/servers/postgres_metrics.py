"""What PostgreSQL's measurements say beyond the usual: the server's own counters, and how it scales."""

from collections.abc import Sequence

from aifbench.results.record import Metric
from aifbench.stats.intervals import Estimate
from aifbench.stats.scaling import Refusal, fit
from aifbench.units import format_number
from aifbench.workloads.postgres_stats import Change


def server_metrics(change: Change | None, lasted_s: float) -> tuple[Metric, ...]:
    """Of a whole phase that `lasted_s`, warm-up included; nothing when the counters cannot be compared."""
    if change is None or lasted_s <= 0:
        return ()
    hits, wal = change.cache_hit_share, change.wal_bytes
    checkpoints = change.checkpoints_timed + change.checkpoints_requested
    requested = change.checkpoints_requested
    asked = f"{requested:.0f} of them because WAL had filled up or somebody asked" if requested else ""
    found = [
        Metric("commits", change.commits / lasted_s, "commits/s"),
        Metric("rollbacks", change.rollbacks, ""),
        Metric("deadlocks", change.deadlocks, ""),
        Metric("checkpoints", checkpoints, "", note=asked),
    ]
    if checkpoints:
        found.append(Metric("checkpoint_write", change.checkpoint_write_s, "s"))
        found.append(Metric("checkpoint_sync", change.checkpoint_sync_s, "s"))
    if change.temp_files:
        found.append(Metric("temp_files", change.temp_files, ""))
        found.append(Metric("temp_data", change.temp_bytes / 1e6, "MB"))
    if hits is not None:
        found.insert(0, Metric("cache_hit_share", 100 * hits, "%", "higher"))
    if wal is not None:
        found.append(Metric("wal_rate", wal / lasted_s / 1e6, "MB/s"))
        per_commit = change.wal_bytes_per_commit
        found.append(Metric("wal_per_commit", None if per_commit is None else per_commit / 1e3, "kB"))
    if change.wal_full_pages is not None:
        found.append(Metric("wal_full_pages", change.wal_full_pages, "pages"))
    if change.pooled and change.pooler_wait_s is not None:
        wait_ms = 1e3 * change.pooler_wait_s / change.pooled
        found.append(Metric("pooler_wait", wait_ms, "ms", "lower", n=round(change.pooled)))
    return tuple(metric for metric in found if metric.value is not None)


def scaling_metrics(levels: Sequence[tuple[int, float]]) -> tuple[Metric, ...]:
    """The Universal Scalability Law through (clients, throughput); why not, when it does not fit."""
    law = fit([clients for clients, _ in levels], [rate for _, rate in levels])
    if isinstance(law, Refusal):
        return (Metric("scaling_peak", None, "clients", note=f"no scaling law was fitted: {law.reason}"),)
    note = "; ".join((f"the law explains {format_number(100 * law.r2, 3)} % of the differences", *law.notes))
    metrics = [
        _of("scaling_single", law.rate_of_one, "ops/s", "higher"),
        _of("scaling_contention", law.sigma, "", "lower"),
        _of("scaling_crosstalk", law.kappa, "", "lower"),
    ]
    if law.peak is None:
        metrics.insert(0, Metric("scaling_peak", None, "clients", n=len(levels), note=note))
    else:
        metrics.insert(0, _of("scaling_peak", law.peak, "clients", "none", note))
    return tuple(metrics)


def _of(name: str, estimate: Estimate, unit: str, direction: str, note: str = "") -> Metric:
    return Metric(name, estimate.value, unit, direction, estimate.low, estimate.high, estimate.n, note)
