"""From samples of a server's `/metrics` to an EngineView: which engine calls what by which name.

A dialect lists, for each thing, the names it has had, newest first; the first that a server publishes counts.
Sources: vLLM 0.32 `v1/metrics/loggers.py` (and the names its earlier versions had), SGLang
`srt/observability/metrics_collector.py`, llama.cpp `tools/server`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from math import inf

from aifbench.load.engine_view import Buckets, EngineView, Level
from aifbench.workloads.prometheus_text import Series
from aifbench.workloads.snapshots import Snapshot

_FULL = 0.95
_NOT_FINISHED = ("abort", "error")
_ENGINE_LABELS = ("engine", "dp_rank")
_STARTED = "process_start_time_seconds"


@dataclass(frozen=True, slots=True)
class Dialect:
    """An engine's names by what they mean; families without `_total`, empty where it has none.

    `requests` counts ends of requests, told apart by the label `finished_reason` where there is one.
    """

    engine: str
    prefix: str
    requests: tuple[str, ...] = ()
    aborted: tuple[str, ...] = ()
    prompt_tokens: tuple[str, ...] = ()
    output_tokens: tuple[str, ...] = ()
    preemptions: tuple[str, ...] = ()
    prefix_queries: tuple[str, ...] = ()
    prefix_hits: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    kv_cache: tuple[str, ...] = ()
    ttft: tuple[str, ...] = ()
    queue: tuple[str, ...] = ()
    prefill: tuple[str, ...] = ()
    decode: tuple[str, ...] = ()
    inference: tuple[str, ...] = ()
    e2e: tuple[str, ...] = ()
    gap: tuple[str, ...] = ()
    tpot: tuple[str, ...] = ()


VLLM = Dialect(
    engine="vLLM",
    prefix="vllm:",
    requests=("vllm:request_success",),
    aborted=("vllm:request_success",),
    prompt_tokens=("vllm:prompt_tokens",),
    output_tokens=("vllm:generation_tokens",),
    preemptions=("vllm:num_preemptions",),
    prefix_queries=("vllm:prefix_cache_queries", "vllm:gpu_prefix_cache_queries"),
    prefix_hits=("vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits"),
    running=("vllm:num_requests_running",),
    waiting=("vllm:num_requests_waiting",),
    kv_cache=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    ttft=("vllm:time_to_first_token_seconds",),
    queue=("vllm:request_queue_time_seconds",),
    prefill=("vllm:request_prefill_time_seconds",),
    decode=("vllm:request_decode_time_seconds",),
    inference=("vllm:request_inference_time_seconds",),
    e2e=("vllm:e2e_request_latency_seconds",),
    gap=("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
    tpot=("vllm:request_time_per_output_token_seconds",),
)

# SGLang says what it found in its cache, and looks every prompt token up.
SGLANG = Dialect(
    engine="SGLang",
    prefix="sglang:",
    requests=("sglang:num_requests",),
    aborted=("sglang:num_aborted_requests",),
    prompt_tokens=("sglang:prompt_tokens",),
    output_tokens=("sglang:generation_tokens",),
    preemptions=("sglang:num_retracted_requests",),
    prefix_queries=("sglang:prompt_tokens",),
    prefix_hits=("sglang:cached_tokens",),
    running=("sglang:num_running_reqs",),
    waiting=("sglang:num_queue_reqs",),
    kv_cache=("sglang:token_usage",),
    ttft=("sglang:time_to_first_token_seconds",),
    queue=("sglang:queue_time_seconds",),
    e2e=("sglang:e2e_request_latency_seconds",),
    gap=("sglang:inter_token_latency_seconds", "sglang:time_per_output_token_seconds"),
)

LLAMA_CPP = Dialect(
    engine="llama.cpp",
    prefix="llamacpp:",
    prompt_tokens=("llamacpp:prompt_tokens",),
    output_tokens=("llamacpp:tokens_predicted",),
    running=("llamacpp:requests_processing",),
    waiting=("llamacpp:requests_deferred",),
    kv_cache=("llamacpp:kv_cache_usage_ratio",),  # until 2025
)

DIALECTS = (VLLM, SGLANG, LLAMA_CPP)


def families() -> frozenset[str]:
    """All that a scraper should keep, whatever the engine turns out to be."""
    names = {_STARTED}
    for dialect in DIALECTS:
        for part in fields(dialect)[2:]:
            names.update(getattr(dialect, part.name))
    return frozenset(names)


def detect(snapshots: Sequence[Snapshot]) -> Dialect | None:
    """The dialect of the first sample that speaks one."""
    for snapshot in snapshots:
        for dialect in DIALECTS:
            if any(series.name.startswith(dialect.prefix) for series in snapshot.series):
                return dialect
    return None


def view(snapshots: Sequence[Snapshot], start_s: float, end_s: float) -> EngineView | None:
    """What the engine did between the samples nearest to `start_s` and `end_s` (wall clock).

    None when the samples cover less than half of that time, or speak no dialect. Edges move by half a period
    where no sample failed: compare rates and means with a client's, and counts only where `idle_edges` holds.
    """
    dialect = detect(snapshots)
    chosen = _between(snapshots, start_s, end_s)
    if dialect is None or len(chosen) < 2 or chosen[-1].wall_s - chosen[0].wall_s < (end_s - start_s) / 2:
        return None
    rows = [snapshot.values() for snapshot in chosen]
    known = {series for row in rows for series in row}
    window = _Window(rows, known)
    running, waiting = window.summed(dialect.running), window.summed(dialect.waiting)
    kv_cache = window.fullest(dialect.kv_cache)
    return EngineView(
        engine=dialect.engine,
        start_s=chosen[0].wall_s,
        end_s=chosen[-1].wall_s,
        samples=len(chosen),
        engines=window.engines(dialect.running),
        restarts=window.restarts(),
        idle_edges=bool(running) and not any(edge[i] for edge in (running, waiting) if edge for i in (0, -1)),
        requests=window.increase(dialect.requests, _is_finished),
        aborted=window.increase(dialect.aborted, _is_aborted),
        prompt_tokens=window.increase(dialect.prompt_tokens),
        output_tokens=window.increase(dialect.output_tokens),
        preemptions=window.increase(dialect.preemptions),
        prefix_queries=window.increase(dialect.prefix_queries),
        prefix_hits=window.increase(dialect.prefix_hits),
        running=Level.of(running),
        waiting=Level.of(waiting),
        kv_cache=Level.of(kv_cache),
        kv_cache_full=sum(used > _FULL for used in kv_cache) / len(kv_cache) if kv_cache else None,
        ttft=window.buckets(dialect.ttft),
        queue=window.buckets(dialect.queue),
        prefill=window.buckets(dialect.prefill),
        decode=window.buckets(dialect.decode),
        inference=window.buckets(dialect.inference),
        e2e=window.buckets(dialect.e2e),
        gap=window.buckets(dialect.gap),
        tpot=window.buckets(dialect.tpot),
    )


def _between(snapshots: Sequence[Snapshot], start_s: float, end_s: float) -> Sequence[Snapshot]:
    """From the sample nearest to the start to the one nearest to the end."""
    if not snapshots:
        return ()
    places = range(len(snapshots))
    first = min(places, key=lambda i: abs(snapshots[i].wall_s - start_s))
    last = min(places, key=lambda i: abs(snapshots[i].wall_s - end_s))
    return snapshots[first : last + 1]


def _is_finished(series: Series) -> bool:
    return series.label("finished_reason") not in _NOT_FINISHED


def _is_aborted(series: Series) -> bool:
    """A counter of aborted requests alone has no reasons to tell apart."""
    return series.label("finished_reason") in (*_NOT_FINISHED, "")


def _any(_: Series) -> bool:
    return True


class _Window:
    """The samples of a window, asked by the names of a dialect."""

    def __init__(self, rows: Sequence[dict[Series, float]], known: Iterable[Series]) -> None:
        self._rows = rows
        self._named: dict[str, list[Series]] = defaultdict(list)
        for series in known:
            self._named[series.name].append(series)

    def increase(self, names: Sequence[str], keep: Callable[[Series], bool] = _any) -> float | None:
        """How much the counters of the first name that exists grew, over all labels."""
        for name in names:
            found = self._named.get(f"{name}_total", [])
            if found:
                return sum(self._growth(series) for series in found if keep(series))
        return None

    def buckets(self, names: Sequence[str]) -> Buckets | None:
        """The observations that a histogram gained, over all labels; None when that was nothing."""
        for name in names:
            found = self._named.get(f"{name}_bucket", [])
            if found:
                total = sum(self._growth(series) for series in self._named.get(f"{name}_sum", []))
                return _buckets([(_edge(series), self._growth(series)) for series in found], total)
        return None

    def summed(self, names: Sequence[str]) -> list[float]:
        """A gauge in every sample that has it, summed over engines."""
        return [sum(levels) for levels in self._levels(names)]

    def fullest(self, names: Sequence[str]) -> list[float]:
        """A gauge in every sample that has it, of the engine where it is highest."""
        return [max(levels) for levels in self._levels(names)]

    def engines(self, names: Sequence[str]) -> int:
        return max((len(levels) for levels in self._levels(names)), default=1)

    def restarts(self) -> int:
        """Samples in which a counter had less than before, or a process had a later start."""
        return sum(self._restarted(before, after) for before, after in pairwise(self._rows))

    def _restarted(self, before: dict[Series, float], after: dict[Series, float]) -> bool:
        return any(
            value != before[series] if series.name == _STARTED else value < before[series]
            for series, value in after.items()
            if series in before and series.name.endswith((_STARTED, "_total", "_count"))
        )

    def _growth(self, series: Series) -> float:
        """A counter's increase; one that fell began again at 0, and one that appears was 0 before."""
        growth, before = 0.0, self._rows[0].get(series, 0.0)
        for row in self._rows[1:]:
            now = row.get(series)
            if now is not None:
                growth += now - before if now >= before else now
                before = now
        return growth

    def _levels(self, names: Sequence[str]) -> list[list[float]]:
        """Per sample the level of every engine.

        Series of one engine that differ in other labels (tensor-parallel ranks, priorities) tell of the same
        requests, in whole or in part, so the largest is taken.
        """
        found = next((self._named[name] for name in names if name in self._named), [])
        levels = []
        for row in self._rows:
            engines: dict[tuple[str, ...], float] = {}
            for series in found:
                if series in row:
                    engine = tuple(series.label(name) for name in _ENGINE_LABELS)
                    engines[engine] = max(engines.get(engine, -inf), row[series])
            if engines:
                levels.append(list(engines.values()))
        return levels


def _edge(series: Series) -> float:
    """The `le` of a bucket; one that is no number makes the bucket useless, and is put last with the rest."""
    try:
        return float(series.label("le"))
    except ValueError:
        return inf


def _buckets(gained: Iterable[tuple[float, float]], total: float) -> Buckets | None:
    """Counts of equal edges added up; made to ascend, which sums over restarts and cut pages may break."""
    by_edge: dict[float, float] = defaultdict(float)
    for edge, count in gained:
        by_edge[edge] += count
    edges = sorted(by_edge)
    cumulative: list[float] = []
    for edge in edges:
        cumulative.append(max(by_edge[edge], cumulative[-1] if cumulative else 0.0))
    if not edges or edges[-1] != inf or cumulative[-1] <= 0:
        return None
    return Buckets(tuple(edges), tuple(cumulative), total)
