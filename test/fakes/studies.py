"""Studies with the records of their runs, seeded: what a report of many runs is tested with."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from test.fakes.records import sample_record

from aifbench.results.record import Check, Measurement, Metric, RunRecord, RunState, Verdict
from aifbench.results.study import Point, StudyRecord, Trial, TrialState

STUDY_ID = "20261120-150000-search-rate-7c1d"
CAPACITY_PER_S = 230.0
_SHARES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999)

Runs = dict[str, RunRecord]


def rate_study(
    rates: Sequence[float] = (50, 100, 150, 200, 300), repeats: int = 6, noise: float = 0.015, **changes: Any
) -> tuple[StudyRecord, Runs]:
    """An open-loop sweep over a service that saturates; one trial of the second point failed."""
    points = [({"rate": rate}, f"rate={rate:g}") for rate in rates]

    def measure(settings: dict[str, Any], source: random.Random) -> Measurement:
        return open_loop(settings["rate"], source, noise)

    return _study("search-rate", points, repeats, measure, failing=1, **changes)


def clients_study(
    clients: Sequence[int] = (1, 2, 4, 8, 16, 32), repeats: int = 5, kappa: float = 0.002, **changes: Any
) -> tuple[StudyRecord, Runs]:
    """A closed-loop sweep that follows the Universal Scalability Law with sigma 0.03."""
    points = [({"clients": n}, f"clients={n}") for n in clients]

    def measure(settings: dict[str, Any], source: random.Random) -> Measurement:
        n = settings["clients"]
        rate = 400 * n / (1 + 0.03 * (n - 1) + kappa * n * (n - 1)) * source.gauss(1, 0.01)
        return closed_loop(n, rate, source)

    return _study("clients", points, repeats, measure, **changes)


@cache
def template() -> RunRecord:
    """A run without measurements, to be filled: making one takes longer than all that a study changes."""
    return sample_record(measurements=())


def open_loop(rate: float, source: random.Random, noise: float = 0.015) -> Measurement:
    """Latencies as of a queue: they grow without bound as the rate comes near to what is served."""
    load = rate / CAPACITY_PER_S
    served = min(rate, CAPACITY_PER_S) * source.gauss(1, noise / 5)
    median_ms = (4 / (1 - load) if load < 0.95 else 4000.0 * load) * source.gauss(1, noise)
    checks = [
        Check("LAG", Verdict.VALID, "99 % of operations were sent within 0.2 ms of their time", 0.2, 1, "ms"),
        Check("DURATION", Verdict.VALID, "measured for 60 s", 60, 60, "s"),
    ]
    if load > 1:
        message = f"{100 / load:.3g} % of the offered rate was served"
        checks.append(Check("RATE", Verdict.INVALID, message, 100 / load, 95, "%", "lower --rate"))
    metrics = (
        Metric("offered_rate", rate * source.gauss(1, 0.002), "ops/s", n=round(60 * rate)),
        Metric("throughput", served, "ops/s", "higher", n=round(60 * served)),
        Metric("recall@10", 0.985 + source.gauss(0, 0.0003), "", "higher", n=1000),
        *_percentiles("response", median_ms, round(60 * rate)),
    )
    return _measurement(f"poisson {rate:g}/s", metrics, checks, median_ms)


def closed_loop(clients: int, rate: float, source: random.Random) -> Measurement:
    median_ms = 1000 * clients / rate * 0.9 * source.gauss(1, 0.01)
    metrics = (
        Metric("throughput", rate, "ops/s", "higher", n=round(60 * rate)),
        *_percentiles("service", median_ms, round(60 * rate)),
        Metric("client_cpu_per_op", 0.05, "ms/op", "lower", n=1000),
    )
    checks = (Check("DURATION", Verdict.VALID, "measured for 60 s", 60, 60, "s"),)
    return _measurement(f"closed loop, {clients} clients", metrics, checks, median_ms)


def _percentiles(kind: str, median_ms: float, n: int) -> list[Metric]:
    return [
        Metric(f"{kind}_{name}", median_ms * factor, "ms", "lower", n=n)
        for name, factor in (("p50", 1.0), ("p90", 1.8), ("p99", 3.2))
    ]


def _measurement(
    arrivals: str, metrics: Sequence[Metric], checks: Sequence[Check], median_ms: float
) -> Measurement:
    quantiles = {f"{q:g}": median_ms * math.exp(0.5 * _normal(q)) for q in _SHARES}
    return Measurement(
        phase="search", stream="search", arrivals=arrivals, via="http", workers=1, window_s=(5.0, 65.0),
        metrics=tuple(metrics), checks=tuple(checks), outcomes={"OK": 1000}, latency_quantiles=quantiles,
    )  # fmt: skip


def _normal(q: float) -> float:
    """Quantiles of the normal distribution, well enough for a picture."""
    t = math.sqrt(-2 * math.log(min(q, 1 - q)))
    z = t - (2.515517 + 0.802853 * t) / (1 + 1.432788 * t + 0.189269 * t * t)
    return z if q > 0.5 else -z


def _study(
    name: str,
    points: Sequence[tuple[dict[str, Any], str]],
    repeats: int,
    measure: Any,
    *,
    failing: int | None = None,
    **changes: Any,
) -> tuple[StudyRecord, Runs]:
    source, runs, trials = random.Random(7), {}, []
    order = [(i, r) for r in range(1, repeats + 1) for i in range(len(points))]
    source.shuffle(order)
    for n, (i, repeat) in enumerate(order):
        settings, label = points[i]
        run_id = f"20261120-{150000 + n:06d}-chroma-{n:04x}"
        if i == failing and repeat == repeats:
            trials.append(Trial(i, repeat, TrialState.FAILED, error="chroma's job 4712 ended: NODE_FAIL"))
            continue
        trials.append(Trial(i, repeat, TrialState.DONE, run_id))
        told = {
            "id": STUDY_ID,
            "name": name,
            "point": i,
            "label": label,
            "settings": settings,
            "repeat": repeat,
        }
        recipe = {**template().recipe, **settings, "study": told, "recipe_text": "study: x\n"}
        runs[run_id] = replace(
            template(), run_id=run_id, created_utc=f"2026-11-20T{15 + n // 60:02d}:{n % 60:02d}:00Z",
            recipe=recipe, measurements=(measure(settings, source),),
        )  # fmt: skip
    axis = next(iter(points[0][0]), "rate")
    values = ", ".join(str(settings.get(axis)) for settings, _ in points)
    text = (
        f"study: {name}\nservice: chroma\nbench: search\nmatrix: {{{axis}: [{values}]}}\nrepeats: {repeats}\n"
    )
    record = StudyRecord(
        study_id=STUDY_ID, name=name, created_utc="2026-11-20T15:00:00Z", ended_utc="2026-11-20T15:40:00Z",
        state=RunState.COMPLETE, recipe_text=text, recipe_file=f"{name}.yaml",
        points=tuple(Point(settings, label) for settings, label in points), trials=tuple(trials),
    )  # fmt: skip
    return replace(record, **changes), runs
