"""The vLLM dashboard: what the engine itself tells, by the names of vLLM 0.32, beside what clients see."""

from aifbench.monitor.dashboards_bench import DURATION, ERRORS, RATE, THROUGHPUT, quantile
from aifbench.monitor.dashboards_model import Dashboard, Kind, Needs, Panel, Query, Row, Variable

_ENGINE = '{service=~"$service"}'
_SHARES = (0.5, 0.95, 0.99)
_VLLM = Needs.VLLM


def _rate(metric: str, by: str = "service") -> str:
    return f"sum by ({by}) (rate({metric}{_ENGINE}{RATE}))"


def _mean(histogram: str) -> str:
    return f"{_rate(f'{histogram}_sum')} / ({_rate(f'{histogram}_count')} > 0)"


def _latency(title: str, about: str, histogram: str) -> Panel:
    quantiles = [
        Query(quantile(share, histogram, "service"), f"{{{{service}}}} p{share * 100:g}", _VLLM)
        for share in _SHARES
    ]
    return Panel(title, about, (*quantiles, Query(_mean(histogram), "{{service}} mean", _VLLM)), "s")


def _lengths(title: str, about: str, histogram: str) -> Panel:
    expr = f"sum by (le) (increase({histogram}_bucket{_ENGINE}{RATE}))"
    return Panel(title, about, (Query(expr, "{{le}}", _VLLM),), "short", Kind.HEATMAP)


def _gauge(metric: str, legend: str) -> Query:
    return Query(f"sum by (service) ({metric}{_ENGINE})", f"{{{{service}}}} {legend}", _VLLM)


REQUESTS = Panel(
    "Requests finished",
    "Per second, by why they ended: stop is the model's own end, length the limit that was asked for.",
    (
        Query(
            _rate("vllm:request_success_total", "service, finished_reason"),
            "{{service}} {{finished_reason}}",
            _VLLM,
        ),
    ),
    "reqps",
    stacked=True,
)
TOKENS = Panel(
    "Tokens per second",
    "Of prompts that were read and answers that were written, over all requests.",
    (
        Query(_rate("vllm:prompt_tokens_total"), "{{service}} prompt", _VLLM),
        Query(_rate("vllm:generation_tokens_total"), "{{service}} generated", _VLLM),
    ),
)
STAGES = Panel(
    "Where the time goes",
    "Mean time of a request in the queue, in prefill and in decode, one above the other.",
    tuple(
        Query(_mean(f"vllm:request_{stage}_time_seconds"), f"{{{{service}}}} {stage}", _VLLM)
        for stage in ("queue", "prefill", "decode")
    ),
    "s",
    stacked=True,
)
SCHEDULER = Panel(
    "Requests in the engine",
    "Running in a batch, and waiting for a place in one.",
    (_gauge("vllm:num_requests_running", "running"), _gauge("vllm:num_requests_waiting", "waiting")),
)
KV_CACHE = Panel(
    "KV cache in use",
    "The fullest engine's share; when it is full, requests wait or are preempted.",
    (Query(f"max by (service) (vllm:kv_cache_usage_perc{_ENGINE})", "{{service}}", _VLLM),),
    "percentunit",
    is_share=True,
)
PREEMPTIONS = Panel(
    "Preemptions",
    "Requests per second that lost their place in the KV cache and have to be computed again.",
    (Query(_rate("vllm:num_preemptions_total"), "{{service}}", _VLLM),),
    "ops",
)
PREFIX_HITS = Panel(
    "Prefix cache hits",
    "The share of prompt tokens looked up that were found; nothing is shown while nothing is looked up.",
    (
        Query(
            f"{_rate('vllm:prefix_cache_hits_total')} / ({_rate('vllm:prefix_cache_queries_total')} > 0)",
            "{{service}}",
            _VLLM,
        ),
    ),
    "percentunit",
    is_share=True,
)
BATCH = Panel(
    "Tokens per engine step",
    "Their mean: how well batching fills the processor.",
    (Query(_mean("vllm:iteration_tokens_total"), "{{service}}", _VLLM),),
)
BOTH_SIDES = Panel(
    "Whole request: engine and client",
    "The same 95th percentile from both sides; what the client adds is network, HTTP and its own work.",
    (
        Query(quantile(0.95, "vllm:e2e_request_latency_seconds", "service"), "{{service}} engine", _VLLM),
        Query(quantile(0.95, "bench_request_duration_seconds", "service"), "{{service}} client"),
    ),
    "s",
)

VLLM = Dashboard(
    "vllm",
    "vLLM",
    "Inference: what the engine tells of itself, beside what the benchmark's clients see.",
    (Variable("service", "Service", "vllm:num_requests_running"),),
    (
        Row("What clients see", (THROUGHPUT, ERRORS, DURATION)),
        Row(
            "Latency inside the engine",
            (
                _latency("Time to first token", "From arrival on.", "vllm:time_to_first_token_seconds"),
                _latency("Time between tokens", "Each gap counts once.", "vllm:inter_token_latency_seconds"),
                _latency(
                    "Time per output token",
                    "The mean gap of each request, which counts once.",
                    "vllm:request_time_per_output_token_seconds",
                ),
                _latency("Time in the queue", "Before a batch.", "vllm:request_queue_time_seconds"),
                STAGES,
                BOTH_SIDES,
            ),
        ),
        Row("Throughput", (REQUESTS, TOKENS, BATCH)),
        Row("Saturation and caching", (SCHEDULER, KV_CACHE, PREEMPTIONS, PREFIX_HITS)),
        Row(
            "What is asked",
            (
                _lengths("Prompt lengths", "Tokens per prompt.", "vllm:request_prompt_tokens"),
                _lengths("Answer lengths", "Tokens per answer.", "vllm:request_generation_tokens"),
            ),
        ),
    ),
)
