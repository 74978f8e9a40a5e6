"""The numbers of streamed answers: first token, time per token, gaps, end to end, and tokens per second.

t0 is when a request was intended in open loop ("from schedule") and when it was sent in closed loop ("from
send"); t1 and tn are when its first and last piece with content had arrived, n its tokens and k1 those of the
first piece. Formulas are in `definitions`.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from aifbench.load.tokens import Tokens
from aifbench.load.workload import NOT_SEEN, TokenCount
from aifbench.results.metrics import PERCENTILES, metric_of, percentile
from aifbench.results.record import Metric
from aifbench.results.slo import Slo, goodput
from aifbench.results.window import Bools, View, latencies_of
from aifbench.stats.intervals import mean, rate

_THREE = PERCENTILES[:3]


def token_metrics(view: View) -> Iterator[Metric]:
    """Nothing for a stream without tokens."""
    if view.samples.tokens is None:
        return
    tokens = view.samples.tokens.select(view.window.rows)
    yield from _rates(view)
    yield from _first_token(view, tokens)
    yield from _per_token(view, tokens)
    yield from _end_to_end(view, tokens)
    yield from _sizes(view, tokens)
    if view.facts.slo is not None:
        yield from _goodput(view, view.facts.slo)


def tpot_ms(tokens: Tokens) -> NDArray[np.float64]:
    """(tn - t1) / (n - k1) of each answer; NaN for one of a single piece."""
    later = tokens.output_tokens.astype(np.int64) - tokens.first_tokens.astype(np.int64)
    spans_ms = (tokens.last_ns - tokens.first_ns) / 1e6
    seen = (tokens.first_ns != NOT_SEEN) & (later > 0)
    return np.where(seen, spans_ms / np.maximum(later, 1), np.nan)


def _start_ns(view: View) -> NDArray[np.int64]:
    samples = view.samples
    return (samples.intended_ns if view.facts.open_loop else samples.sent_ns)[view.window.rows]


def _rates(view: View) -> Iterator[Metric]:
    tokens, window = view.samples.tokens, view.window
    assert tokens is not None
    ok, finished_ns = view.samples.ok, view.finished_ok_ns()
    for name, column in (("output_rate", tokens.output_tokens), ("prompt_rate", tokens.prompt_tokens)):
        estimate = rate(finished_ns, window.start_ns, window.end_ns, amounts=column[ok])
        yield metric_of(name, "tok/s", "higher", estimate, 1e9)


def _first_token(view: View, tokens: Tokens) -> Iterator[Metric]:
    rows = view.window.rows
    yield from _until(view, "ttft", tokens.first_ns, _start_ns(view))
    if view.facts.open_loop:
        # What was never sent has no time from then; it counts in that from its schedule.
        sent_ns = view.samples.sent_ns[rows]
        yield from _until(view, "ttft_send", tokens.first_ns, sent_ns, sent_ns != NOT_SEEN)
    if np.any((tokens.answer_ns != tokens.first_ns) & (tokens.answer_ns != NOT_SEEN)):
        yield from _until(view, "ttfot", tokens.answer_ns, _start_ns(view))


def _end_to_end(view: View, tokens: Tokens) -> Iterator[Metric]:
    done_ns = np.where(view.ok, tokens.last_ns, NOT_SEEN)
    yield from _until(view, "e2e", done_ns, _start_ns(view))


def _until(
    view: View,
    name: str,
    instants_ns: NDArray[np.int64],
    start_ns: NDArray[np.int64],
    among: Bools | None = None,
) -> Iterator[Metric]:
    """Percentiles and mean of the time to an instant; requests that still wait for it are lower bounds."""
    rows = view.window.rows
    seen, waited = instants_ns != NOT_SEEN, view.times.waited[rows]
    chosen = (view.ok & seen) | waited
    if among is not None:
        chosen &= among
    spans_ns = np.where(seen, instants_ns, view.times.finished_ns[rows]) - start_ns
    latencies = latencies_of(spans_ns[chosen], ~seen[chosen])
    for suffix, label, q in _THREE:
        yield percentile(f"{name}_{suffix}", label, q, latencies)
    average = metric_of(f"{name}_mean", "ms", "lower", mean(latencies.in_time_ns), 1e-6)
    bounded = latencies.answered < len(latencies)
    yield replace(average, high=None, note=">= value: some never came") if bounded else average


def _per_token(view: View, tokens: Tokens) -> Iterator[Metric]:
    per_token_ms = tpot_ms(tokens)[view.ok]
    known_ns = (per_token_ms[~np.isnan(per_token_ms)] * 1e6).astype(np.int64)
    latencies = latencies_of(known_ns, np.zeros(len(known_ns), bool))
    for suffix, label, q in _THREE:
        yield percentile(f"tpot_{suffix}", label, q, latencies)
    yield metric_of("tpot_mean", "ms", "lower", mean(known_ns), 1e-6)
    gaps_ms = tokens.gaps_of(view.ok)
    for suffix, _, q in _THREE:
        value = float(np.quantile(gaps_ms, q, method="inverted_cdf")) if len(gaps_ms) else None
        # Gaps of one answer depend on each other: no interval that assumes otherwise.
        yield Metric(f"gap_{suffix}", value, "ms", "lower", n=len(gaps_ms))


def _sizes(view: View, tokens: Tokens) -> Iterator[Metric]:
    counts = {
        "output_tokens_mean": tokens.output_tokens[view.ok],
        "prompt_tokens_mean": tokens.prompt_tokens[view.ok],
    }
    for name, column in counts.items():
        yield metric_of(name, "tokens", "none", mean(column.astype(np.float64)))
    chunks, total = int(tokens.chunks[view.ok].sum()), int(counts["output_tokens_mean"].sum())
    counted = tokens.counted[view.ok]
    by = "the server's usage" if np.all(counted == TokenCount.USAGE) else "pieces with content"
    value = total / chunks if chunks else None
    yield Metric("tokens_per_chunk", value, "tokens", n=chunks, note=f"tokens counted by {by}")


def _goodput(view: View, slo: Slo) -> Iterator[Metric]:
    """Requests that meet every limit: by all that were due in the window, and per second of it."""
    met = slo_met(view, slo)
    window = view.window
    share = slo.attainment(int(met[window.rows].sum()), view.operations)
    yield metric_of("attainment", "%", "higher", share, 100)
    per_s = goodput(met, view.times.finished_ns, window.start_ns, window.end_ns)
    yield replace(metric_of("goodput", "req/s", "higher", per_s), note=f"limits: {slo}")


def slo_met(view: View, slo: Slo) -> Bools:
    """Which requests of the whole phase met the limits, all of them counted from t0."""
    samples, tokens = view.samples, view.samples.tokens
    assert tokens is not None
    start_ns = samples.intended_ns if view.facts.open_loop else samples.sent_ns
    ok = samples.ok & (tokens.first_ns != NOT_SEEN)
    return slo.met(
        ttft_ms=np.where(ok, (tokens.first_ns - start_ns) / 1e6, np.nan),
        tpot_ms=tpot_ms(tokens),
        e2e_ms=np.where(ok, (tokens.last_ns - start_ns) / 1e6, np.nan),
        ok=ok,
    )
