"""The rules that look at one run: RULES at each measurement of it, LEVEL_RULES at all of them together."""

import math
from collections.abc import Callable, Iterator

from aifbench.report.content import failures, measured
from aifbench.report.guidance import Advice, again, doubted, number, seen, value
from aifbench.results.headline import is_open_loop, latency_kind
from aifbench.results.record import Check, Measurement, RunRecord
from aifbench.units import format_number

_IDLE_PERCENT = 50.0  # a worker late below this share of a core waits for a core, not for its own work
_CLIENT_SHARE = 0.2  # of the median latency that the client's own CPU time may be
_QUEUE_SHARE = 0.5  # of TTFT
_LEAST_QUEUE_MS = 1.0
_BELOW = 0.8  # of what was served: a rate that leaves room
_FIRM = 1104.0  # operations that carry a firm p99: three times those of which it can be told at all
_LEAST_WARMUP_S = 5.0
_ROOM = 1.1  # more than the samples that are missing, since rates scatter


def client_limited(record: RunRecord, m: Measurement) -> Iterator[Advice]:
    """The load generator was late, busy or could not follow."""
    found = [check for code in ("LAG", "CPU", "LIMIT", "LIMITED") if (check := doubted(m, code))]
    if not found:
        return
    cpu = number(m, "client_cpu")
    because = seen(record, m, *found, cpu)
    if cpu is not None and cpu.value is not None and cpu.value < _IDLE_PERCENT:
        nodes = int(record.recipe.get("client_nodes") or 0) + 1
        command = again(record, client_nodes=nodes) if record.service.get("scheduler") == "slurm" else ""
        text = (
            "The client was late though it had time to spare: leave it free cores, or load from other nodes."
        )
    else:
        command = again(record, workers=2 * m.workers)
        text = "The load generator sets part of these numbers: spread the load over more processes."
    yield Advice("client", text, because, command)


def preempted(record: RunRecord, m: Measurement) -> Iterator[Advice]:
    """Requests were thrown out of the server's memory and began anew."""
    metric = number(m, "preemptions")
    if metric and (metric.value or 0) > 0:
        yield Advice(
            "preemptions",
            "The server interrupted requests for want of cache memory, and did their work twice: allow fewer "
            "at a time, ask for shorter answers, or give it more memory for the cache.",
            seen(record, m, metric, number(m, "kv_cache_max")),
        )


def prefix_hits(record: RunRecord, m: Measurement) -> Iterator[Advice]:
    """Prompts that were not meant to repeat did."""
    if check := doubted(m, "PREFIXHITS"):
        seed = record.recipe.get("seed")
        command = again(record, seed=seed + 1) if isinstance(seed, int) else ""
        text = "Part of the prompts came from the server's cache, so that it looks faster: use new prompts."
        yield Advice("prefix-hits", text, seen(record, m, check, number(m, "prefix_hit_share")), command)


def queueing(record: RunRecord, m: Measurement) -> Iterator[Advice]:
    """Most of the time to the first token is waiting."""
    queue, whole = number(m, "server_queue_mean"), number(m, "server_ttft_mean")
    queue_ms, whole_ms = value(queue), value(whole)
    share = queue_ms / whole_ms if whole_ms else 0.0
    if share > _QUEUE_SHARE and queue_ms >= _LEAST_QUEUE_MS:
        yield Advice(
            "queue",
            f"{100 * share:.0f} % of the time to the first token is waiting in the server's queue: more "
            "replicas or a lower rate shorten it, a faster network or client does not.",
            seen(record, m, queue, whole, number(m, "server_waiting_mean")),
        )


def recall(record: RunRecord, m: Measurement) -> Iterator[Advice]:
    """Answers are less complete than asked for."""
    check = doubted(m, "ANSWERS")
    if check is None or check.limit is None or "recall" not in check.message:
        return
    breadth = next((k for k in ("ef_search", "probes") if isinstance(record.recipe.get(k), int)), "")
    command = again(record, **{breadth: 2 * record.recipe[breadth]}) if breadth else ""
    text = (
        f"Recall is below {format_number(check.limit)}: search the index more broadly, and compare speeds "
        "only at equal recall."
    )
    yield Advice("recall", text, seen(record, m, check), command)


def cached(record: RunRecord, m: Measurement) -> Iterator[Advice]:
    """Reads were answered from memory; the check's value is data by memory."""
    check = doubted(m, "CACHED")
    if check is None or not check.value or check.limit is None:
        return
    scale = record.recipe.get("scale")
    needed = math.ceil(scale * check.limit / check.value * _ROOM) if isinstance(scale, int) else 0
    command = again(record, scale=needed) if needed else ""
    text = "The data fit into memory: this is the speed of memory. Use more data to measure the disk"
    text += f": --scale {needed:,} makes it large enough." if command else "."
    yield Advice("cached", text, seen(record, m, check, number(m, "cache_hit_share")), command)


def contended(record: RunRecord, m: Measurement) -> Iterator[Advice]:
    """Clients wait for each other's rows; the check's value is scale by clients."""
    check, scale = doubted(m, "SCALE"), record.recipe.get("scale")
    if check is None or not check.value or not isinstance(scale, int):
        return
    clients = math.ceil(round(scale / check.value, 6))
    text = "Clients wait for each other's locks, since there are fewer rows to update than clients."
    yield Advice("contention", text, seen(record, m, check), again(record, scale=clients))


def unsteady(record: RunRecord, m: Measurement) -> Iterator[Advice]:
    """The service was still changing while it was measured."""
    check, warmup_s = doubted(m, "STEADY"), record.recipe.get("warmup")
    if check is None or "--warmup" not in check.advice or not isinstance(warmup_s, int | float):
        return
    length_s = m.window_s[1] - m.window_s[0]
    longer_s = _round_up_s(
        max(2 * warmup_s, _LEAST_WARMUP_S, warmup_s + length_s * (check.value or 0.0) / 100)
    )
    text = "The service had not settled when the measurement began: warm up for longer."
    yield Advice("warm-up", text, seen(record, m, check), again(record, warmup=longer_s))


def too_few(record: RunRecord, m: Measurement) -> Iterator[Advice]:
    """Too few operations for the tail, or for any verdict."""
    check, length_s = doubted(m, "SAMPLES"), m.window_s[1] - m.window_s[0]
    if check is None or not check.value or length_s <= 0 or not _is_timed(check):
        return
    needed = max(check.limit or 0.0, _FIRM)
    wanted_s = _round_up_s(_ROOM * needed / (check.value / length_s))
    text = (
        f"{needed:,.0f} operations carry a firm p99 and there were {check.value:,.0f}: at this rate that "
        f"takes {wanted_s:,} s."
    )
    yield Advice("samples", text, seen(record, m, check), again(record, duration=wanted_s))


def _is_timed(check: Check) -> bool:
    """Whether time is what there is too little of; of fixed work there can be more, not longer."""
    return "--duration" in check.advice


def short(record: RunRecord, m: Measurement) -> Iterator[Advice]:
    """Enough operations in too little time say nothing about what happens once a minute."""
    check = doubted(m, "DURATION")
    if check is None or not _is_timed(check) or doubted(m, "SAMPLES"):
        return
    text = (
        "A minute shows what seconds cannot, such as compaction or collection of garbage: measure for longer."
    )
    yield Advice("duration", text, seen(record, m, check), again(record, duration=60))


def overloaded(record: RunRecord, m: Measurement) -> Iterator[Advice]:
    """More was offered than served."""
    check, served = doubted(m, "RATE"), number(m, "throughput")
    if check is None or not value(served) or not is_open_loop(m):
        return
    rate = float(f"{_BELOW * value(served):.2g}")
    text = (
        "More was asked for than the service gives: its queue grew, and latencies say how long the test was. "
        f"Measure latency at {100 * _BELOW:.0f} % of what was served."
    )
    because = seen(record, m, check, number(m, "offered_rate"), served)
    yield Advice("overload", text, because, again(record, rate=rate) if record.recipe.get("rate") else "")


def failing(record: RunRecord, m: Measurement) -> Iterator[Advice]:
    """Operations failed; throttling is told apart."""
    check, failed = doubted(m, "ERRORS"), failures(m)
    if check is None or not failed:
        return
    kind, count = next(iter(failed.items()))
    rate = record.recipe.get("rate")
    command = again(record, rate=float(f"{rate / 2:.3g}")) if isinstance(rate, int | float) else ""
    if kind == "THROTTLED":
        text = f"The service asked for less {count:,} times: lower the rate, or raise its limits."
    else:
        command = command if kind in ("TIMEOUT", "UNFINISHED") else ""
        text = f"Most failures are {kind} ({count:,}): see the errors of this run before its latencies."
    yield Advice(f"errors-{kind}", text, seen(record, m, check), command)


def omission(record: RunRecord, m: Measurement) -> Iterator[Advice]:
    """A closed loop that hid a stall."""
    check, served = doubted(m, "OMISSION"), number(m, "throughput")
    if check is None or not value(served) or "rate" not in record.recipe:
        return
    rate = float(f"{_BELOW * value(served):.2g}")
    text = (
        "Clients that wait send nothing during a stall, so this p99 hides it (coordinated omission): measure "
        "at a fixed rate."
    )
    yield Advice("omission", text, seen(record, m, check, served), again(record, rate=rate))


def client_cost(record: RunRecord, m: Measurement) -> Iterator[Advice]:
    """The client's own work is a large part of what it measures."""
    cost, median = number(m, "client_cpu_per_op"), number(m, f"{latency_kind(m)}_p50")
    if not value(median) or value(cost) < _CLIENT_SHARE * value(median):
        return
    if record.recipe.get("via") == "sdk":
        text = "The vendor's client is a large part of what an operation takes: the lean client costs less."
        command = again(record, via="http")
    else:
        text = "The client's own CPU time is a large part of the latency: compare with caution."
        command = ""
    yield Advice("client-cost", text, seen(record, m, cost, median), command)


def durability(record: RunRecord, m: Measurement) -> Iterator[Advice]:
    """Commits were answered before they were safe."""
    metric = number(m, "commits", "throughput")
    if metric and any(c.code == "DURABLE" and c.verdict.value != "VALID" for c in m.checks):
        text = (
            "Commits do not wait for a disk: this is a rate without durability. Start the service with its "
            "durable settings, on storage that is no memory, before quoting it."
        )
        yield Advice("durability", text, seen(record, m, metric))


def object_sizes(record: RunRecord, m: Measurement) -> Iterator[Advice]:
    """Whether the number of operations or their bytes set the pace, from median latencies by size."""
    kind = latency_kind(m)
    by_size = [
        (size, metric)
        for metric in m.metrics
        if metric.name.startswith(f"{kind}_p50 [<=") and metric.value and (size := _size_bytes(metric.name))
    ]
    if len(by_size) < 2:
        return
    (small, first), (large, last) = min(by_size, key=_first), max(by_size, key=_first)
    growth = (last.value or 0.0) / (first.value or math.inf)
    if large / small < 4:
        return
    if growth < _FLAT:
        text = (
            f"Objects up to {large / small:,.0f} times as large take {format_number(growth, 2)} times as "
            "long: the number of operations limits, not their bytes. Larger objects give more bandwidth."
        )
        yield Advice("operation-bound", text, seen(record, m, first, last))
    elif growth > large / small / 2:
        text = (
            f"Objects {large / small:,.0f} times as large take {format_number(growth, 2)} times as long: "
            "bytes limit, not the number of operations. More clients give more only while bandwidth is free."
        )
        yield Advice("bandwidth-bound", text, seen(record, m, first, last))


_FLAT = 1.25
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def _first(pair: tuple[float, object]) -> float:
    return pair[0]


def _size_bytes(name: str) -> float:
    """4096 of `service_p50 [<=4 KiB]`; 0 where it is no size."""
    amount, _, unit = name.partition("[<=")[2].rstrip("]").partition(" ")
    return float(amount) * _UNITS[unit] if amount.isdecimal() and unit in _UNITS else 0.0


def _round_up_s(seconds: float) -> int:
    """To whole tens above 20, so that people remember it."""
    return math.ceil(seconds / 10) * 10 if seconds > 20 else math.ceil(seconds)


RULES: tuple[Callable[[RunRecord, Measurement], Iterator[Advice]], ...] = (
    failing, client_limited, overloaded, omission, unsteady, too_few, short, recall, queueing, preempted,
    prefix_hits, cached, contended, durability, client_cost, object_sizes,
)  # fmt: skip


def cache_full(record: RunRecord) -> Iterator[Advice]:
    """The KV cache, by levels of load: from which rate on it was full."""
    levels = [(rate, m) for m in measured(record) if (rate := value(number(m, "throughput")))]
    full = sorted(((rate, m) for rate, m in levels if doubted(m, "KVCACHE")), key=_first)
    if not full:
        return
    rate, first = full[0]
    free = [other for other, m in levels if m.metric("kv_cache_max") and not doubted(m, "KVCACHE")]
    begins = f" from {format_number(rate, 3)} req/s on" if any(other < rate for other in free) else ""
    if any(other > rate for other in free):
        begins = ""  # not in order of load: something else fills it
    yield Advice(
        "kv-cache",
        f"The KV cache was full{begins}: more accelerator memory per replica, more replicas, shorter "
        "contexts or fewer requests at a time.",
        seen(record, first, doubted(first, "KVCACHE"), number(first, "kv_cache_max"),
             number(first, "throughput")),
    )  # fmt: skip


def scaling_law(record: RunRecord) -> Iterator[Advice]:
    """What the fitted law of scalability says, where a benchmark fitted one."""
    for m in measured(record):
        peak = number(m, "scaling_peak")
        contention, crosstalk = number(m, "scaling_contention"), number(m, "scaling_crosstalk")
        if peak is None or peak.value is None or peak.high is None or "extrapolated" in peak.note:
            continue
        text = f"Throughput peaks near {format_number(peak.value, 2)} clients: more than that lower it."
        yield Advice("scaling-peak", text, seen(record, m, peak, contention, crosstalk))


LEVEL_RULES: tuple[Callable[[RunRecord], Iterator[Advice]], ...] = (cache_full, scaling_law)
