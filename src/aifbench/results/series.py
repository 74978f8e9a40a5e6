"""Curves for figures: what happened second by second, and how latencies are distributed."""

import math
from typing import Any

import numpy as np

from aifbench.load.samples import Int64, Samples
from aifbench.results.window import Bools, Latencies, Times
from aifbench.stats.intervals import highest_quantile, minimum_n, quantile_rank

MAX_POINTS = 600
_CURVE_POINTS = 60
_BLOCK = 65_536  # operations looked at together, to take little memory

Column = list[float | None]


def step_of(duration_s: float) -> float:
    """Width of a row: 0.1 s below ten seconds, else whole seconds that give at most 600 rows."""
    return 0.1 if duration_s < 10 else float(math.ceil(duration_s / MAX_POINTS))


def time_series(samples: Samples, times: Times, end_ns: int) -> tuple[dict[str, Column], float]:
    """Columns from the phase's start to `end_ns`, or the last event after it, and the seconds of one row.

    `rate` counts successes and `errors` the others, in the row of their end; `in_flight` is the number sent
    and not finished at the row's end; `p50_ms`, `p99_ms` and `max_ms` are those of the operations intended in
    the row, None where they are too few. An incomplete last row is left out.
    """
    if not len(samples):
        return {}, 1.0
    end_s = max(end_ns, int(samples.sent_ns.max()), int(samples.finished_ns.max())) / 1e9
    step_s = step_of(end_s)
    rows = max(1, math.floor(end_s / step_s + 1e-9))
    step_ns = step_s * 1e9
    good, bad = _ends(times.finished_ns, samples.ok, round(step_ns), rows)
    edges = (np.arange(1, rows + 1) * step_ns).astype(np.int64)
    columns: dict[str, Column] = {
        "rate": (good / step_s).round(3).tolist(),
        "errors": bad.tolist(),
        "in_flight": _in_flight(samples.sent_ns, times.finished_ns, edges).tolist(),
    }
    return columns | _latency_columns(samples.intended_ns, times.latency_ns, times.has_latency, edges), step_s


def _ends(finished_ns: Int64, ok: Bools, step_ns: int, rows: int) -> tuple[Int64, Int64]:
    """Successes and failures in the row of their end; failures after the last row count in it."""
    good, bad = np.zeros((2, rows), np.int64)
    for first in range(0, len(ok), _BLOCK):
        block = slice(first, first + _BLOCK)
        ends_ns, is_good = finished_ns[block], ok[block]
        row = np.clip(ends_ns // step_ns, 0, rows - 1)
        good += np.bincount(row[is_good & (ends_ns <= rows * step_ns)], minlength=rows)
        bad += np.bincount(row[~is_good], minlength=rows)
    return good, bad


def _in_flight(sent_ns: Int64, finished_ns: Int64, edges_ns: Int64) -> Int64:
    was_sent = sent_ns >= 0
    if not was_sent.all():
        sent_ns, finished_ns = sent_ns[was_sent], finished_ns[was_sent]
    sent = np.searchsorted(np.sort(sent_ns), edges_ns, side="right")
    return sent - np.searchsorted(np.sort(finished_ns), edges_ns, side="right")


def _latency_columns(
    intended_ns: Int64, latency_ns: Int64, chosen: Bools, edges_ns: Int64
) -> dict[str, Column]:
    latency_ns = latency_ns[chosen]
    places = np.searchsorted(intended_ns[chosen], edges_ns)
    columns: dict[str, Column] = {"p50_ms": [], "p99_ms": [], "max_ms": []}
    for part in np.split(latency_ns, places)[:-1]:
        ordered = np.sort(part)
        columns["p50_ms"].append(_quantile_ms(ordered, 0.5))
        columns["p99_ms"].append(_quantile_ms(ordered, 0.99))
        columns["max_ms"].append(_ms(ordered[-1]) if len(ordered) else None)
    return columns


def _quantile_ms(ordered: Int64, q: float) -> float | None:
    n = len(ordered)
    return _ms(ordered[quantile_rank(n, q) - 1]) if n >= minimum_n(q) else None


def _ms(value_ns: Any) -> float:
    return round(float(value_ns) / 1e6, 6)


def quantile_curve(latencies: Latencies) -> dict[str, float]:
    """Quantile (as text) to milliseconds, evenly along log(1 - q), up to the last reliable one.

    It ends where the operations without an answer begin.
    """
    n = len(latencies)
    if n < minimum_n(0.5):
        return {}
    last = min(highest_quantile(n), latencies.answered / n)
    spaced = 1 - np.geomspace(1, max(1 - last, 0.1 / n), _CURVE_POINTS)
    wanted = {round(float(q), 7) for q in spaced} | {q for q in (0.5, 0.9, 0.99, 0.999) if q <= last}
    places = {q: quantile_rank(n, q) - 1 for q in sorted(wanted)}
    return {f"{q:.7g}": _ms(latencies.ordered_ns[at]) for q, at in places.items() if at < latencies.answered}
