"""What every metric means: its formula, and what other load tools call the same quantity.

t0 is when a request was sent ("from send"); in open loop, response, TTFT, TTFOT and E2E count from when it
was intended ("from schedule"). t1 and tn are when the first and last piece with content had arrived, te is
the end of the answer, n its tokens and k1 those of its first piece.

Names of other tools are those of their result files, read in their source: vLLM 0.32 `bench serve`, AIPerf
0.13.0, GuideLLM 0.8.1, GenAI-Perf 0.0.16, genai-bench 0.0.5, inference-perf 0.7.0. The last two report
seconds, and so does GuideLLM for whole requests.
"""

import re
from collections.abc import Iterable, Mapping

from aifbench.results.file_definitions import FILE_METRICS, FILE_TOOLS
from aifbench.results.glossary import GLOSSARY, Definition

# The letters of the formulas, for readers.
SYMBOLS = (
    ("t0", "when the request was sent; in open loop, where a formula says so, when it was intended"),
    ("t1, tn", "when its first and its last piece with content had arrived"),
    ("te", "when its answer had ended"),
    ("n, k1", "tokens of the answer, and of its first piece"),
)

TOOLS = ("vllm", "aiperf", "guidellm", "genai-perf", "genai-bench", "inference-perf", *FILE_TOOLS)

_STATISTIC = re.compile(r"(?P<base>.+)_(?P<statistic>p50|p90|p99|p999|mean|max)")
# How each tool spells a statistic; what is missing it does not report.
_PERCENTILES = {name: name for name in ("p50", "p90", "p99")}
_STATISTICS: Mapping[str, Mapping[str, str]] = {
    "vllm": {**_PERCENTILES, "p50": "median", "p999": "p99.9", "mean": "mean"},
    "aiperf": {**_PERCENTILES, "mean": "avg", "max": "max"},
    "guidellm": {
        **{name: f"percentiles.{name}" for name in ("p50", "p90", "p99", "p999")},
        "mean": "mean",
        "max": "max",
    },
    "genai-perf": {**_PERCENTILES, "mean": "avg", "max": "max"},
    "genai-bench": {**_PERCENTILES, "mean": "mean", "max": "max"},
    "inference-perf": {**_PERCENTILES, "p50": "median", "p999": "p99.9", "mean": "mean", "max": "max"},
}


_WHOLE_RUN = "counts from the first start to the last end, ramp-up and drain included"
_LATENCY = "successes.latency"  # inference-perf

_TTFT = Definition(
    "t1 - t0",
    "time to the first piece with content, reasoning included; a piece with only a role is none",
    "ms",
    aliases={
        "vllm": "{stat}_ttft_ms",
        "aiperf": "time_to_first_token.{stat}",
        "guidellm": "time_to_first_token_ms.successful.{stat}",
        "genai-perf": "time_to_first_token.{stat}",
        "genai-bench": "stats.ttft.{stat}",
        "inference-perf": f"{_LATENCY}.time_to_first_token.{{stat}}",
    },
    differs={"vllm": "a first chunk with a role and no content counts as the first token"},
    scheduled={},
)

_DEFINITIONS: Mapping[str, Definition] = {
    "throughput": Definition(
        "good answers finished in the window / length of the window",
        "operations that succeeded, per second",
        "ops/s",
        aliases={
            "vllm": "request_throughput",
            "aiperf": "request_throughput.avg",
            "guidellm": "requests_per_second.successful.mean",
            "genai-perf": "request_throughput.avg",
            "genai-bench": "requests_per_second",
            "inference-perf": "successes.throughput.requests_per_sec",
            "io500": "score (of mdtest-* and find, in thousands)",
            "mdtest": "Mean",
            "fio": "iops",
            "elbencho": "IOPS, last done",
        },
        differs=dict.fromkeys(("vllm", "aiperf", "genai-perf", "genai-bench", "inference-perf"), _WHOLE_RUN),
    ),
    "item_rate": Definition(
        "items of good answers finished in the window / length of the window", "items per second", "items/s"
    ),
    "offered_rate": Definition(
        "operations intended in the window / length of the window", "the load that was due", "ops/s"
    ),
    "sent_rate": Definition("bytes sent / length of the window", "of operations that succeeded", "MB/s"),
    "received_rate": Definition(
        "bytes received / length of the window", "of operations that succeeded", "MB/s"
    ),
    "response": Definition(
        "te - intended start",
        "time of a whole operation from when it was due, open loop",
        "ms",
        source="G. Tene, coordinated omission; MLPerf LoadGen, Server scenario",
        aliases={"guidellm": "request_scheduled_latency.successful.{stat}"},
        differs={"vllm": "e2el_including_client_queue ends with the last chunk that has choices"},
    ),
    "service": Definition(
        "te - t0",
        "time of a whole operation from when it was sent, to the end of the answer",
        "ms",
        aliases={
            "guidellm": "request_latency.successful.{stat}",
            "inference-perf": f"{_LATENCY}.request_latency.{{stat}}",
            "genai-bench": "stats.e2e_latency.{stat}",
        },
    ),
    "lag": Definition(
        "sent - intended start",
        "how late the client sent what was due",
        "ms",
        aliases={
            "guidellm": "request_dispatch_delay.successful.{stat}",
            "inference-perf": "load_summary.schedule_delay.{stat}",
        },
        differs={"aiperf": "replay_sched_lag counts from the request that was least late"},
    ),
    "error_share": Definition(
        "operations that did not succeed / operations of the window",
        "errors inside a stream, cut streams and missing answers included",
        "%",
        aliases={"aiperf": "request_error_rate.avg", "genai-bench": "error_rate"},
        differs={
            "aiperf": "an error event inside a stream with status 200 counts as success",
            "genai-bench": "a share of 1, not a percentage",
        },
    ),
    "client_cpu": Definition(
        "CPU time / wall time of the busiest worker", "share of a core that the load cost", "%"
    ),
    "sent_anew": Definition(
        "requests sent twice", "their kept connection had just been closed by the service, unread", "ops"
    ),
    "client_cpu_per_op": Definition(
        "CPU time of all workers / operations", "what one operation cost the client", "ms/op"
    ),
    "recall": Definition(
        "true nearest neighbours found / k, mean over queries", "how complete the answers of a search are", ""
    ),
    "ttft": _TTFT,
    "ttft_send": Definition(
        "t1 - sent", "TTFT from when the request was sent, open loop", "ms",
        aliases=_TTFT.aliases, differs=_TTFT.differs,
    ),
    "ttfot": Definition(
        "first piece that is no reasoning - t0",
        "time to the first token of the answer proper",
        "ms",
        aliases={
            "aiperf": "time_to_first_output_token.{stat}",
            "guidellm": "time_to_first_output_token_ms.successful.{stat}",
        },
        scheduled={},
    ),
    "gap": Definition(
        "time between neighbouring pieces with content, all answers pooled",
        "what a reader sees as a pause; a piece may hold several tokens",
        "ms",
        aliases={"vllm": "{stat}_itl_ms", "aiperf": "inter_chunk_latency.{stat}"},
        differs={
            "vllm": "chunks without content count too",
            "guidellm": "inter_token_latency_ms is one value an answer: see tpot",
            "genai-perf": "inter_token_latency is one value an answer: see tpot",
            "inference-perf": "inter_token_latency counts tokens of one piece as 0 apart",
        },
    ),
    "tpot": Definition(
        "(tn - t1) / (n - k1)",
        "time per output token after the first piece, one value an answer",
        "ms",
        source="AIPerf with --per-chunk-usage; MLPerf LoadGen for k1 = 1",
        aliases={
            "vllm": "{stat}_tpot_ms",
            "aiperf": "inter_token_latency.{stat}",
            "guidellm": "inter_token_latency_ms.successful.{stat}",
            "genai-perf": "inter_token_latency.{stat}",
            "genai-bench": "stats.tpot.{stat}",
            "inference-perf": f"{_LATENCY}.time_per_output_token.{{stat}}",
        },
        differs={
            "vllm": "divides by n - 1",
            "aiperf": "divides by n - 1 without --per-chunk-usage",
            "guidellm": "divides by n - 1; its time_per_output_token_ms is (tn - t0) / n",
            "genai-perf": "divides by n - 1, n by its own tokenizer",
            "genai-bench": "(te - t1) / (n - 1)",
            "inference-perf": "divides by n - 1",
        },
    ),
    "e2e": Definition(
        "tn - t0",
        "time to the last piece with content",
        "ms",
        aliases={
            "vllm": "{stat}_e2el_ms",
            "aiperf": "request_latency.{stat}",
            "genai-perf": "request_latency.{stat}",
        },
        differs={
            "vllm": "ends with the last chunk that has choices, content or not",
            "guidellm": "request_latency ends with the answer: see service",
            "genai-bench": "e2e_latency ends with the answer: see service",
            "inference-perf": "request_latency ends with the answer: see service",
        },
        scheduled={"vllm": "{stat}_e2el_including_client_queue_ms"},
    ),
    "output_rate": Definition(
        "output tokens of good answers finished in the window / length of the window",
        "tokens by the server's usage, else pieces with content",
        "tok/s",
        aliases={
            "vllm": "output_throughput",
            "aiperf": "output_token_throughput.avg",
            "guidellm": "output_tokens_per_second.successful.mean",
            "genai-perf": "output_token_throughput.avg",
            "genai-bench": "mean_output_throughput_tokens_per_s",
            "inference-perf": "successes.throughput.output_tokens_per_sec",
        },
        differs=dict.fromkeys(("vllm", "aiperf", "genai-perf", "genai-bench", "inference-perf"), _WHOLE_RUN),
    ),
    "prompt_rate": Definition(
        "prompt tokens of good answers finished in the window / length of the window",
        "cached tokens included",
        "tok/s",
        aliases={
            "aiperf": "input_token_throughput.avg",
            "guidellm": "prompt_tokens_per_second.successful.mean",
            "genai-bench": "mean_input_throughput_tokens_per_s",
            "inference-perf": "successes.throughput.input_tokens_per_sec",
        },
        differs={
            "vllm": "total_token_throughput is prompt and output together",
            **dict.fromkeys(("aiperf", "genai-bench", "inference-perf"), _WHOLE_RUN),
        },
    ),
    "output_tokens": Definition(
        "mean of n",
        "tokens of a good answer, reasoning included",
        "tokens",
        aliases={
            "aiperf": "usage_completion_tokens.{stat}",
            "guidellm": "output_token_count.successful.{stat}",
            "genai-bench": "stats.num_output_tokens.{stat}",
        },
        differs={
            "aiperf": "output_sequence_length is by its own tokenizer",
            "genai-perf": "output_sequence_length is by its own tokenizer",
            "inference-perf": "output_len is by its own tokenizer",
        },
    ),
    "prompt_tokens": Definition(
        "mean of the prompt tokens that the server counted",
        "the chat template's tokens included",
        "tokens",
        aliases={
            "aiperf": "usage_prompt_tokens.{stat}",
            "guidellm": "prompt_token_count.successful.{stat}",
            "genai-bench": "stats.num_input_tokens.{stat}",
            "inference-perf": "successes.prompt_tokens.{stat}",
        },
        differs={
            "aiperf": "input_sequence_length is by its own tokenizer",
            "genai-perf": "input_sequence_length is by its own tokenizer",
        },
    ),
    "tokens_per_chunk": Definition(
        "output tokens / pieces with content", "more than 1 when the server sends several at once", "tokens",
        differs={"guidellm": "output_tokens_per_iteration is a mean over requests"},
    ),
    "attainment": Definition(
        "requests that met every limit / requests that were due",
        "a failed request did not meet them",
        "%",
        source="Wilson, JASA 22, 1927 (interval)",
        aliases={"aiperf": "good_request_fraction.avg", "guidellm": "slo_attainment"},
        differs={
            "aiperf": "a share of 1; an answer without TPOT misses the limit",
            "guidellm": "a share of 1; leaves out answers without TPOT",
            "inference-perf": "goodput_percentage is of successful requests only",
        },
    ),
    "goodput": Definition(
        "requests that met every limit / length of the window",
        "useful requests per second",
        "req/s",
        aliases={
            "vllm": "request_goodput",
            "aiperf": "goodput.avg",
            "guidellm": "request_goodput.successful.mean",
            "genai-perf": "request_goodput.avg",
            "inference-perf": "successes.goodput_metrics.request_goodput",
        },
        differs={
            "vllm": "TPOT of a one-token answer is 0, which is good",
            "aiperf": "an answer without TPOT is not good",
            "guidellm": "leaves out answers without TPOT",
        },
    ),
    **GLOSSARY,
    **FILE_METRICS,
}  # fmt: skip


def split_name(metric: str) -> tuple[str, str]:
    """Base name and statistic: (ttft, p99) of `ttft_p99`, (recall, "") of `recall@10`."""
    if metric in _DEFINITIONS:
        return metric, ""
    match = _STATISTIC.fullmatch(metric)
    return (match["base"], match["statistic"]) if match else (metric.partition("@")[0], "")


def definition(metric: str) -> Definition | None:
    """What a metric of a record means, whatever its statistic; None for one that is its own explanation."""
    return _DEFINITIONS.get(split_name(metric)[0])


def tool_names(metric: str, *, from_schedule: bool = False) -> dict[str, str]:
    """Tool to its name for the same quantity, such as vllm to `p99_ttft_ms` for `ttft_p99`.

    `from_schedule`: the metric is of an open loop, where most tools have no such quantity.
    """
    found, (_, statistic) = definition(metric), split_name(metric)
    if found is None:
        return {}
    aliases = found.scheduled if from_schedule and found.scheduled is not None else found.aliases
    names = {}
    for tool, alias in aliases.items():
        spelled = _STATISTICS.get(tool, {}).get(statistic)
        if "{stat}" not in alias:
            names[tool] = alias
        elif spelled is not None:
            names[tool] = alias.format(stat=spelled)
    return names


def is_from_schedule(metrics: Iterable[str]) -> bool:
    """Whether a measurement with these metrics is of an open loop."""
    return any(name == "offered_rate" or name.startswith(("response_", "ttft_send_")) for name in metrics)


def formulas(metrics: Iterable[str]) -> list[tuple[str, str]]:
    """(base name, formula) of a measurement's metrics, each once, in their order."""
    names = list(metrics)
    from_schedule = is_from_schedule(names)
    found: dict[str, str] = {}
    for name in names:
        formula = formula_of(name, from_schedule=from_schedule)
        if formula:
            found.setdefault(split_name(name)[0], formula)
    return list(found.items())


def formula_of(metric: str, *, from_schedule: bool = False) -> str:
    """The formula with t0 spelled out; empty for an unknown metric."""
    found = definition(metric)
    if found is None:
        return ""
    start = "intended start" if from_schedule and found.scheduled is not None else "sent"
    return re.sub(r"\bt0\b", start, found.formula)
