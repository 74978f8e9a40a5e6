"""Run records as a real session leaves them: seeded, so that every test sees the same numbers."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from aifbench.results.record import Check, Measurement, Metric, Role, RunRecord, RunState, Verdict

RUN_ID = "20261120-131455-chroma-a3f9"


def sample_record(**changes: Any) -> RunRecord:
    """A complete WARN run: ingest, search at 200/s, and search at 100/s while ingesting."""
    record = RunRecord(
        run_id=RUN_ID,
        created_utc="2026-11-20T13:14:55Z",
        ended_utc="2026-11-20T13:17:21Z",
        state=RunState.COMPLETE,
        service={
            "kind": "chroma", "name": "chroma", "version": "1.5.9", "authentication": "token",
            "endpoint": {"host": "mel0312", "port": 41873, "scheme": "http", "ports": {}},
            "options": {"nodes": 1, "time": 3600.0, "partition": "cpu"}, "job_id": "4711",
            "scheduler": "slurm", "command": ["sbatch", "start_chroma.sh"], "job_name": "c5d1f",
            "script_sha256": "1c" * 32, "submitted_utc": "2026-11-20T13:13:02Z", "ready_after_s": 21.4,
        },
        recipe={
            "bench": "search", "rate": 200.0, "arrivals": "poisson", "clients": 4, "duration": 60.0,
            "warmup": 5.0, "workers": 2, "seed": 7, "note": "", "vectors": 20000, "dim": 128, "k": 10,
            "trace": None, "via": "http", "facts": {"lid": 14.2, "metric": "l2"},
        },
        provenance=_provenance(),
        measurements=(ingest(), search(), *mixed()),
        owner={"host": "login02", "pid": 4242, "start_ticks": 99, "boot_id": "b", "pid_namespace": "pid:[1]"},
        files={"phases/02-search/samples-search.npz": "9f" * 32, "service/script.sh": "1c" * 32},
    )  # fmt: skip
    return replace(record, **changes)


def ingest() -> Measurement:
    values, series = _simulate(seed=1, seconds=13, rate=22, median_ms=88, spread=0.25)
    metrics = (
        Metric("throughput", 22.31, "ops/s", "higher", 21.6, 23.0, 200),
        Metric("item_rate", 2231.0, "vectors/s", "higher", 2160.0, 2302.0, 28800),
        Metric("error_share", 0.0, "%", "lower", n=200),
        *_latencies("service", values),
        Metric("client_cpu_per_op", 0.41, "ms/op", "lower", n=200),
    )
    checks = (
        *_passed(cpu=41.0),
        Check("DURATION", Verdict.WARN, "measured 12.9 s, under 60 s", 12.9, 60.0, "s", "try --count 100k"),
    )
    return _measurement("ingest", "ingest", "closed, 2 clients", (0.0, 12.9), metrics, checks, values, series)


def search(rate: int = 200, seconds: int = 66) -> Measurement:
    values, series = _simulate(seed=2, seconds=seconds, rate=rate, median_ms=4.2, spread=0.38, stall_at=41)
    metrics = (
        Metric("offered_rate", 200.3, "ops/s", n=11988),
        Metric("throughput", 199.8, "ops/s", "higher", 198.1, 201.6, 11976),
        Metric("recall@10", 0.9868, "", "higher", 0.9859, 0.9877, 11976),
        Metric("error_share", 0.1001, "%", "lower", n=11988),
        *_latencies("response", values),
        *_latencies("service", [value * 0.97 for value in values]),
        Metric("lag_p99", 0.21, "ms", "lower", 0.2, 0.23, 11988),
        Metric("client_cpu_per_op", 0.094, "ms/op", "lower", n=11988),
    )
    checks = (
        *_passed(cpu=9.0),
        Check("ERRORS", Verdict.WARN, "0.1001 % failed, over 0.1 %", 0.1001, 0.1, "%", "read `logs chroma`"),
        Check("DURATION", Verdict.VALID, "measured 60 s", 60.0, 60.0, "s"),
    )
    return replace(
        _measurement(
            "search", "search", "poisson 200/s, seed 7", (5.0, 65.0), metrics, checks, values, series
        ),
        outcomes={"OK": 11976, "TIMEOUT": 2, "SERVER_ERROR": 10},
        errors={
            'HTTP 500: {"error":"InternalError","message":"<Compaction> in progress"}': 10,
            "no complete answer within 30 s": 2,
        },
        parameters={"k": 10, "lid": 14.2},
    )


def mixed() -> tuple[Measurement, Measurement]:
    found, found_series = _simulate(seed=3, seconds=36, rate=100, median_ms=7.9, spread=0.55)
    put, put_series = _simulate(seed=4, seconds=36, rate=18, median_ms=104, spread=0.3)
    searching = (
        Metric("offered_rate", 100.0, "ops/s", n=3000),
        Metric("throughput", 99.9, "ops/s", "higher", 98.8, 101.0, 2998),
        Metric("recall@10", 0.9812, "", "higher", 0.979, 0.983, 2998),
        *_latencies("response", found),
        Metric("lag_p99", 0.34, "ms", "lower", n=3000),
    )
    writing = (
        Metric("throughput", 17.6, "ops/s", "higher", 16.9, 18.3, 540),
        Metric("item_rate", 1760.0, "vectors/s", "higher", 1690.0, 1830.0, 54000),
        *_latencies("service", put),
    )
    short = Check(
        "DURATION", Verdict.WARN, "measured 30 s, under 60 s", 30.0, 60.0, "s", "add --duration 60s"
    )
    window = (5.0, 35.0)
    idle, busy = (*_passed(cpu=12.0), short), (*_passed(cpu=38.0), short)
    return (
        _measurement(
            "mixed", "search", "poisson 100/s, seed 8", window, searching, idle, found, found_series
        ),
        _measurement("mixed", "ingest", "closed, 2 clients", window, writing, busy, put, put_series),
    )


def empty_record() -> RunRecord:
    """A run that failed before it measured anything."""
    return sample_record(
        state=RunState.FAILED, measurements=(), error="chroma's job 4711 ended: OUT_OF_MEMORY"
    )


def bare_measurement() -> Measurement:
    """A measurement without a single number, as left by a phase in which no operation succeeded."""
    nothing = (Metric("throughput", None, "ops/s", "higher", note="no operation succeeded"),)
    failed = (Check("ERRORS", Verdict.INVALID, "all 50 operations failed", 100.0, 1.0, "%", "`logs chroma`"),)
    outcomes, errors = {"CONNECT": 50}, {"connection refused": 50}
    return Measurement(
        "search", "search", "closed, 1 client", "http", 1, (0.0, 10.0), nothing, failed, outcomes, errors
    )


def interrupted_record() -> RunRecord:
    """A shell killed after the first phase."""
    error = "process 4242 on login02 ended before the run did"
    return sample_record(state=RunState.INTERRUPTED, measurements=(ingest(),), error=error, ended_utc="")


def level(
    name: str, arrivals: str, *, load: float, ttft_ms: float = 60.0, within: float = 100.0, n: int = 720,
    role: Role = Role.MEASURE, slo: str = "ttft=200ms,share=99%", more: Sequence[Metric] = (),
    checks: Sequence[Check] = (),
) -> Measurement:  # fmt: skip
    """Streamed answers of 128 tokens, `load` of them per second; `within` percent met the limits."""
    open_loop = "/s" in arrivals
    tail = 3 * ttft_ms if n >= 368 else None
    too_few = "" if tail else f"n = {n} is too small for p99 (needs 368)"
    offered = [Metric("offered_rate", load, "ops/s", n=n, note=f"asked for {load:g} ops/s")]
    sent = [Metric(f"ttft_send_{of}", ttft_ms - 1, "ms", "lower", n=n) for of in ("p50", "mean")]
    metrics = (
        Metric("throughput", load, "ops/s", "higher", load * 0.98, load * 1.02, n),
        *(offered if open_loop else []),
        *_latencies("response" if open_loop else "service", [ttft_ms + 640] * n),
        Metric("output_rate", 128 * load, "tok/s", "higher", 125 * load, 131 * load, n),
        Metric("prompt_rate", 512 * load, "tok/s", "higher", n=n),
        Metric("ttft_p50", ttft_ms, "ms", "lower", ttft_ms * 0.9, ttft_ms * 1.1, n),
        Metric("ttft_p99", tail, "ms", "lower", n=n, note=too_few),
        Metric("ttft_mean", ttft_ms * 1.1, "ms", "lower", n=n),
        *(sent if open_loop else []),
        Metric("tpot_p50", 5.0, "ms", "lower", 4.9, 5.1, n),
        Metric("tpot_p99", 9.0 if tail else None, "ms", "lower", n=n, note=too_few),
        Metric("gap_p99", 12.5, "ms", "lower", n=127 * n),
        Metric("e2e_p99", tail and tail + 640, "ms", "lower", n=n, note=too_few),
        Metric("tokens_per_chunk", 1.0, "tokens", n=n, note="tokens counted by the server's usage"),
        Metric("attainment", within, "%", "higher", max(0.0, within - 0.5), min(100.0, within + 0.1), n),
        Metric("goodput", load * within / 100, "req/s", "higher", n=n, note=f"limits: {slo}"),
        *more,
    )
    measurement = _measurement(
        name, "generate", arrivals, (5.0, 35.0), metrics, checks, [ttft_ms + 640] * n, {}
    )
    return replace(measurement, outcomes={"OK": n}, role=role, parameters={"slo": slo} if slo else {})


def server_metrics() -> tuple[Metric, ...]:
    """The server's own view, and the client's error, as a run adds them to a measurement."""
    note = "interpolated in the server's bucket from 40 to 60 ms"
    return (
        Metric("server_ttft_mean", 58.0, "ms", "lower", n=720),
        Metric("server_queue_mean", 3.25, "ms", "lower", n=720),
        Metric("server_ttft_p50", 52.0, "ms", "lower", 40.0, 60.0, 720, note),
        Metric("server_running_mean", 14.5, "requests", n=30, note="of 30 samples"),
        Metric("kv_cache_max", 61.0, "%", n=30, note="of 30 samples"),
        Metric("server_output_rate", 1590.0, "tok/s", "higher"),
        Metric("outside_ttft", 8.0, "ms", "lower", note="client's TTFT - server's"),
        Metric("preemptions", 0.0, "", "lower"),
        Metric("client_adds_ttft_p50", 0.03, "ms", "lower", n=400),
    )


def server_checks() -> tuple[Check, ...]:
    said = "client TTFT mean 66 ms = server 58 ms (queue 3.25) + 8 ms outside of the engine"
    return (
        Check("SERVER", Verdict.VALID, said, 8.0, 16.5, "ms"),
        Check(
            "LIMIT", Verdict.VALID, "server-limited: the busiest load worker used 9 % of a core", 9, 85, "%"
        ),
        Check("CLIENT", Verdict.VALID, "the client adds at most 0.03 ms to the median TTFT", 0.05, 5, "%"),
    )


def levels_record(count: int = 6, **changes: Any) -> RunRecord:
    """A sweep over closed-loop levels that saturates; the first one is too small for a p99."""
    short = Check(
        "DURATION", Verdict.WARN, "measured for 30 s", 30, 60, "s", "measure for longer: --duration"
    )
    levels = tuple(
        level(
            f"clients-{2**i}", f"closed loop, {2**i} client{'s' if i else ''}", load=min(1.4 * 2**i, 24.0),
            ttft_ms=50.0 if i < 5 else 700.0, within=100.0 if i < 5 else 3.0, n=40 if i == 0 else 720,
            more=server_metrics(), checks=(*server_checks(), short),
        )
        for i in range(count)
    )  # fmt: skip
    probe = level(
        "calibration", f"closed loop, {2 ** (count - 1)} clients", load=24.0, role=Role.PROBE, slo="",
        checks=(Check("DURATION", Verdict.INVALID, "measured for 5 s"),),
    )  # fmt: skip
    recipe = {"bench": "sweep", "concurrency": "1,2,4", "slo": "ttft=200ms,share=99%", "duration": 30.0,
              "given": ["concurrency", "duration", "slo"]}  # fmt: skip
    return sample_record(measurements=(*levels, probe), recipe=recipe, **changes)


def capacity_record(**changes: Any) -> RunRecord:
    """A search that closed in on 46 req/s, and the measurement at its end."""
    tried = ((24.0, 100.0), (48.0, 12.0), (36.0, 100.0), (45.0, 99.8), (47.0, 71.0))
    trials = [
        level(f"trial-{i}", f"constant {rate:g}/s", load=rate, within=share, role=Role.PROBE,
              checks=(Check("RATE", Verdict.INVALID, "80 % of the offered rate was served"),))
        for i, (rate, share) in enumerate(tried, start=1)
    ]  # fmt: skip
    estimate = level("estimate", "closed loop, 16 clients", load=24.0, role=Role.PROBE)
    found = Metric(
        "capacity", 46.0, "req/s", "higher", 45.0, 46.8, 5, "met at 45/s, not at 47/s, in 5 trials"
    )
    closed_in = Check("CAPACITY", Verdict.VALID, "the search closed in on the highest rate that meets it")
    final = level(
        "capacity", "constant 45/s", load=45.0, within=99.8, more=(*server_metrics(), found),
        checks=(*server_checks(), closed_in),
    )  # fmt: skip
    recipe = {"bench": "capacity", "slo": "ttft=200ms,share=99%", "given": ["slo"]}
    return sample_record(measurements=(estimate, *trials, final), recipe=recipe, **changes)


def _measurement(
    phase: str, stream: str, arrivals: str, window_s: tuple[float, float], metrics: Sequence[Metric],
    checks: Sequence[Check], values: Sequence[float], series: dict[str, list[float | None]],
) -> Measurement:  # fmt: skip
    return Measurement(
        phase=phase, stream=stream, arrivals=arrivals, via="http", workers=2, window_s=window_s,
        metrics=tuple(metrics), checks=tuple(checks), outcomes={"OK": len(values)}, series=series,
        latency_quantiles=_quantiles(values), samples_file=f"phases/{phase}/samples-{stream}.npz",
        started_utc="2026-11-20T13:15:02Z",
    )  # fmt: skip


def _passed(cpu: float) -> tuple[Check, ...]:
    return (
        Check("LAG", Verdict.VALID, "generator lag p99 is 0.21 ms", 0.21, 1.0, "ms"),
        Check("RATE", Verdict.VALID, "99.8 % of the offered rate was sent", 99.8, 99.0, "%"),
        Check("STEADY", Verdict.VALID, "steady after 0.8 s", 1.3, 25.0, "%"),
        Check("GENERATOR", Verdict.VALID, f"busiest worker used {cpu:.0f} % of a core", cpu, 80.0, "%"),
    )


def _simulate(
    *, seed: int, seconds: int, rate: int, median_ms: float, spread: float, stall_at: int = -1
) -> tuple[list[float], dict[str, list[float | None]]]:
    """Log-normal latencies per second, slower during the first seconds and after a stall."""
    random_source = random.Random(seed)
    every: list[float] = []
    columns = ("rate", "p50_ms", "p99_ms", "max_ms", "errors", "in_flight")
    series: dict[str, list[float | None]] = {name: [] for name in columns}
    for second in range(seconds):
        slow = 1 + 1.6 * math.exp(-second / 1.5) + (5.0 if second == stall_at else 0.0)
        count = max(1, round(random_source.gauss(rate, math.sqrt(rate) / 2)))
        values = sorted(median_ms * slow * math.exp(random_source.gauss(0, spread)) for _ in range(count))
        every += values if second >= 5 or seconds < 20 else []
        series["rate"].append(count)
        series["p50_ms"].append(round(values[count // 2], 3))
        series["p99_ms"].append(round(values[math.ceil(count * 0.99) - 1], 3) if count >= 150 else None)
        series["max_ms"].append(round(values[-1], 3))
        series["errors"].append(6 if second in (stall_at, stall_at + 1) and stall_at > 0 else 0)
        series["in_flight"].append(round(count * sum(values) / count / 1000, 2))
    return sorted(every), series


def _quantile(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, math.ceil(len(values) * share) - 1)]


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    tails = [10 ** (-step / 12) for step in range(1, 49)]
    shares = [0.01, 0.05, 0.1, *(round(1 - tail, 6) for tail in tails if tail * len(values) >= 1)]
    return {f"{share:g}": round(_quantile(values, share), 4) for share in sorted(shares)}


def _latencies(kind: str, values: Sequence[float]) -> list[Metric]:
    n = len(values)
    metrics = []
    for label, share, minimum in (
        ("p50", 0.5, 6),
        ("p90", 0.9, 36),
        ("p99", 0.99, 368),
        ("p999", 0.999, 3688),
    ):
        if n < minimum:
            note = f"n = {n:,} is too small for p{100 * share:g} (needs {minimum:,})"
            metrics.append(Metric(f"{kind}_{label}", None, "ms", "lower", n=n, note=note))
            continue
        half = 1.96 * math.sqrt(share * (1 - share) / n)
        low, value, high = (_quantile(values, min(1.0, s)) for s in (share - half, share, share + half))
        metrics.append(Metric(f"{kind}_{label}", value, "ms", "lower", low, high, n))
    return [*metrics, Metric(f"{kind}_max", values[-1], "ms", "lower", n=n)]


def _provenance() -> dict[str, Any]:
    return {
        "project": {"aifbench": "0.1.0", "git_commit": "221f279c" * 5, "git_dirty": False},
        "software": {
            "python": "3.11.7", "os": "Rocky Linux 8.10 (Green Obsidian)", "kernel": "4.18.0-553",
            "packages": {"numpy": "2.4.6", "cmd2": "4.3.1", "chromadb": "1.5.9"},
            "packages_sha256": "29a49d91ef58a9972566f4c8c1c1dd75cc23153799d72cb25acf14c163d305bf",
        },
        "machine": {
            "cpu_model": "AMD EPYC 7H12 64-Core Processor", "logical_cpus": 256, "cores": 128, "sockets": 2,
            "memory_bytes": 540_000_000_000, "numa_nodes": 8, "governor": "performance", "host": "mel0313",
        },
        "load": {"load_1min": 0.17, "load_5min": 0.4, "load_15min": 0.24},
        "time": {"time_zone": "CET (UTC+0100)", "monotonic_resolution_s": 1e-09},
        "environment": {"SLURM_JOB_ID": "4712", "LOADEDMODULES": "env/release/2024.1:Python/3.12.3"},
    }  # fmt: skip
