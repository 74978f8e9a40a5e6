"""The client's numbers beside the server's own, and the difference named.

Means are held against means, which are exact on both sides; a server's quantiles are known to a bucket only
and are shown as that. Pure, and light to import (no numpy).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from aifbench.load.engine_view import Buckets, EngineView, Level
from aifbench.results.record import Check, Metric, Verdict
from aifbench.units import format_number

_OUTSIDE_SHARE, _OUTSIDE_MS = 0.25, 10.0
_TOO_FAST_SHARE, _TOO_FAST_MS = 0.10, 5.0
_RATE_PERCENT = 5.0
_TOKENS_PERCENT = 0.5
_FULL_PERCENT = 5.0
_HITS_PERCENT = 1.0

_OTHERS = (
    "make sure that nobody else uses the server, and that the client's counts come from the server's usage"
)


@dataclass(frozen=True, slots=True)
class Totals:
    """What the client counted over a whole load, from before its first request to after its last answer."""

    requests: int
    prompt_tokens: int
    output_tokens: int


def reconcile(
    client: Mapping[str, Metric],
    view: EngineView,
    calibration_ms: float | None = None,
    *,
    unique_prompts: bool = True,
) -> tuple[list[Metric], list[Check]]:
    """The server's numbers over the client's window as metrics, and what they say about the client's.

    `client` holds metrics by name: `ttft_send_mean` (open loop) or `ttft_mean` (closed), and `output_rate`.
    `calibration_ms` is what this client is known to add at most, None when it was not calibrated.
    `unique_prompts` says that no prompt was meant to share its beginning with another.
    """
    outside_ms = _outside_ms(client, view)
    metrics = [*_times(view), *_levels(view), *_counts(view)]
    if outside_ms is not None:
        metrics.append(
            Metric("outside_ttft", outside_ms, "ms", "lower", note=f"client's TTFT - {view.engine}'s")
        )
    checks = [*_restarts(view), *_first_token(view, outside_ms, calibration_ms)]
    checks += [*_rate(client, view), *_preemptions(view), *_kv_cache(view)]
    checks += _prefix_hits(view, unique_prompts=unique_prompts)
    return metrics, checks


def account(client: Totals, view: EngineView) -> list[Check]:
    """Requests and tokens of a whole load, one by one. Nothing when the server was not idle at both ends.

    `view` must span the load: counts of a part of it have no sharp edges.
    """
    if not view.idle_edges or view.restarts:
        return []
    pairs = (
        ("requests", client.requests, view.requests),
        ("prompt tokens", client.prompt_tokens, view.prompt_tokens),
        ("output tokens", client.output_tokens, view.output_tokens),
    )
    return [_compared(name, ours, theirs) for name, ours, theirs in pairs if theirs is not None]


def unseen(reason: str) -> Check:
    """Says that there is no server's view, and why; no fault of the measurement."""
    return Check("SERVER", Verdict.VALID, f"the server's own view is missing: {reason}")


# The server's numbers.


def _times(view: EngineView) -> Iterator[Metric]:
    times = (
        ("ttft", view.ttft),
        ("queue", view.queue),
        ("prefill", view.prefill),
        ("decode", view.decode),
        ("inference", view.inference),
        ("e2e", view.e2e),
        ("gap", view.gap),
        ("tpot", view.tpot),
    )
    for name, buckets in times:
        if buckets is not None:
            yield Metric(f"server_{name}_mean", _mean_ms(buckets), "ms", "lower", n=round(buckets.count))
    if view.ttft is not None:
        yield _quantile("server_ttft_p50", view.ttft, 0.5)
        yield _quantile("server_ttft_p99", view.ttft, 0.99)


def _quantile(name: str, buckets: Buckets, q: float) -> Metric:
    found = buckets.quantile(q)
    metric = Metric(name, None, "ms", "lower", n=round(buckets.count), note="nothing was measured")
    if found is None:
        return metric
    low, value = 1000 * found.low, 1000 * found.value
    if found.high == float("inf"):
        note = f"the server's last bucket: above {format_number(low)} ms"
        return replace(metric, value=value, low=low, note=note)
    high = 1000 * found.high
    note = f"interpolated in the server's bucket from {format_number(low)} to {format_number(high)} ms"
    return replace(metric, value=value, low=low, high=high, note=note)


def _levels(view: EngineView) -> Iterator[Metric]:
    levels: tuple[tuple[str, Level | None, float, str], ...] = (
        ("server_running", view.running, 1, "requests"),
        ("server_waiting", view.waiting, 1, "requests"),
        ("kv_cache", view.kv_cache, 100, "%"),
    )
    for name, level, scale, unit in levels:
        if level is not None:
            note = f"of {level.samples:,} samples"
            yield Metric(f"{name}_mean", scale * level.mean, unit, n=level.samples, note=note)
            yield Metric(f"{name}_max", scale * level.highest, unit, n=level.samples, note=note)


def _counts(view: EngineView) -> Iterator[Metric]:
    rates = (
        ("server_output_rate", view.output_rate, "tok/s"),
        ("server_prompt_rate", view.prompt_rate, "tok/s"),
    )
    for name, rate, unit in rates:
        if rate is not None:
            yield Metric(name, rate, unit, "higher")
    if view.requests is not None:
        yield Metric("server_requests", view.requests, "requests")
    if view.aborted is not None:
        yield Metric("server_aborted", view.aborted, "requests", "lower")
    if view.preemptions is not None:
        yield Metric("preemptions", view.preemptions, "", "lower")
    if view.prefix_hit_share is not None:
        note = f"of {view.prefix_queries:,.0f} prompt tokens looked up"
        yield Metric("prefix_hit_share", 100 * view.prefix_hit_share, "%", note=note)


# What they say.


def _restarts(view: EngineView) -> Iterator[Check]:
    if view.restarts:
        yield Check(
            "SERVER",
            Verdict.WARN,
            f"the server's counters went back {view.restarts:,} times: it was restarted, "
            "or several servers answer at one address",
            view.restarts,
            0,
            "times",
            "see `logs` of the service; measure one server at a time",
        )


def _first_token(view: EngineView, outside_ms: float | None, calibration_ms: float | None) -> Iterator[Check]:
    server_ms = _mean_ms(view.ttft)
    if outside_ms is None or server_ms is None:
        return
    client_ms = server_ms + outside_ms
    too_long_ms = max(_OUTSIDE_MS, _OUTSIDE_SHARE * client_ms)
    too_fast_ms = -max(_TOO_FAST_MS, _TOO_FAST_SHARE * server_ms)
    verdict, limit_ms, advice = Verdict.VALID, too_long_ms, ""
    if outside_ms > too_long_ms:
        verdict, advice = Verdict.WARN, _outside_advice(outside_ms, calibration_ms)
    elif outside_ms < too_fast_ms:
        verdict, limit_ms, advice = Verdict.WARN, too_fast_ms, _OTHERS
    yield Check("SERVER", verdict, _sum(view, client_ms, calibration_ms), outside_ms, limit_ms, "ms", advice)


def _sum(view: EngineView, client_ms: float, calibration_ms: float | None) -> str:
    """`client TTFT mean 58 ms = server 52 ms (queue 3, prefill 47, other 2) + 6 ms outside of the engine`."""
    server_ms = _mean_ms(view.ttft) or 0.0
    named = [(name, _mean_ms(part)) for name, part in (("queue", view.queue), ("prefill", view.prefill))]
    parts = [(name, ms) for name, ms in named if ms is not None]
    if len(parts) == 2:
        # Those two are of requests that ended in the window and the TTFT of those that began: the rest may
        # come out below 0 when that matters, and is then left out.
        rest_ms = server_ms - sum(ms for _, ms in parts)
        parts += [("its front end", rest_ms)] if rest_ms >= 0 else []
    inner = f" ({', '.join(f'{name} {_ms(ms)}' for name, ms in parts)})" if parts else ""
    outside_ms = client_ms - server_ms
    sign = "+" if outside_ms >= 0 else "-"
    added = "" if calibration_ms is None else f" <= {_ms(calibration_ms)} ms, calibrated"
    return (
        f"client TTFT mean {_ms(client_ms)} ms = server {_ms(server_ms)} ms{inner} "
        f"{sign} {_ms(abs(outside_ms))} ms outside of the engine "
        f"(HTTP, network, tokens without text, client{added})"
    )


def _outside_advice(outside_ms: float, calibration_ms: float | None) -> str:
    if calibration_ms is None:
        return (
            "run `calibrate` to know the client's part; look for a busy HTTP front end or a proxy on the way"
        )
    if calibration_ms > outside_ms / 2:
        return "leave a free core to each load worker, or make the load on other nodes: --client-nodes"
    return "the client is not the cause: look for a busy HTTP front end of the server, or a proxy on the way"


def _outside_ms(client: Mapping[str, Metric], view: EngineView) -> float | None:
    """The client's mean TTFT less the server's; from send, since from schedule holds the generator's lag."""
    open_loop = any(name.startswith("ttft_send_") for name in client)
    metric = client.get("ttft_send_mean" if open_loop else "ttft_mean")
    server_ms = _mean_ms(view.ttft)
    if metric is None or metric.value is None or server_ms is None:
        return None
    return metric.value - server_ms


def _rate(client: Mapping[str, Metric], view: EngineView) -> Iterator[Check]:
    metric, theirs = client.get("output_rate"), view.output_rate
    if metric is None or not metric.value or theirs is None:
        return
    percent = 100 * (theirs - metric.value) / metric.value
    limit = _RATE_PERCENT + 100 / (view.samples - 1)  # each edge may be off by half a period
    verdict = Verdict.WARN if abs(percent) > limit else Verdict.VALID
    message = (
        f"the server made {format_number(theirs)} tok/s and the client received {format_number(metric.value)}"
    )
    yield Check("SERVER", verdict, message, percent, limit, "%", _OTHERS if verdict is Verdict.WARN else "")


def _compared(name: str, ours: float, theirs: float) -> Check:
    difference = theirs - ours
    if not difference:
        message = f"the server and the client count the same {ours:,.0f} {name}"
        return Check("SERVER", Verdict.VALID, message, 0, _TOKENS_PERCENT, "%")
    percent = 100 * abs(difference) / max(ours, 1)
    more = "more" if difference > 0 else "fewer"
    message = (
        f"the server counts {abs(difference):,.0f} {name} {more} than the client, "
        f"{theirs:,.0f} and {ours:,.0f}"
    )
    verdict = Verdict.WARN if percent > _TOKENS_PERCENT else Verdict.VALID
    advice = _OTHERS if verdict is Verdict.WARN else ""
    return Check("SERVER", verdict, message, percent, _TOKENS_PERCENT, "%", advice)


def _preemptions(view: EngineView) -> Iterator[Check]:
    if view.preemptions is None:
        return
    verdict = Verdict.WARN if view.preemptions > 0 else Verdict.VALID
    message = f"the server interrupted requests {view.preemptions:,.0f} times for want of KV-cache memory"
    if not view.preemptions:
        message = "the server interrupted no request"
    yield Check(
        "PREEMPTIONS", verdict, message, view.preemptions, 0, "times", _SMALLER if view.preemptions else ""
    )


def _kv_cache(view: EngineView) -> Iterator[Check]:
    if view.kv_cache_full is None or view.kv_cache is None:
        return
    percent = 100 * view.kv_cache_full
    verdict = Verdict.WARN if percent > _FULL_PERCENT else Verdict.VALID
    highest = format_number(100 * view.kv_cache.highest, 3)
    message = (
        f"the KV cache was over 95 % full for {format_number(percent, 3)} % of the time, at most {highest} %"
    )
    yield Check(
        "KVCACHE", verdict, message, percent, _FULL_PERCENT, "%", _SMALLER if verdict is Verdict.WARN else ""
    )


def _prefix_hits(view: EngineView, *, unique_prompts: bool) -> Iterator[Check]:
    if view.prefix_hit_share is None:
        return
    percent = 100 * view.prefix_hit_share
    message = f"{format_number(percent, 3)} % of the prompt tokens came from the server's prefix cache"
    if not unique_prompts:
        yield Check(
            "PREFIXHITS", Verdict.VALID, f"{message}, as prompts that share beginnings may", percent, unit="%"
        )
        return
    verdict, advice = Verdict.VALID, ""
    if percent > _HITS_PERCENT:
        verdict = Verdict.WARN
        message += " although no prompt was meant to repeat: TTFT and throughput look better than they are"
        advice = (
            "use new prompts for each run and level (another --seed), or start the server without its cache"
        )
    yield Check("PREFIXHITS", verdict, message, percent, _HITS_PERCENT, "%", advice)


_SMALLER = (
    "lower --concurrency or --rate, ask for shorter answers, or give the server more memory for its KV cache"
)


def _mean_ms(buckets: Buckets | None) -> float | None:
    return None if buckets is None or buckets.mean is None else 1000 * buckets.mean


def _ms(value: float) -> str:
    return format_number(round(value, 2), 3)
