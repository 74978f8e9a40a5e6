"""What the metrics mean that only we report: the server's own view, a search, the error of the client."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Definition:
    """`aliases` give another tool's name for the same quantity, {stat} standing for mean or percentile.

    `differs` says how a tool's namesake is another quantity, or under which condition an alias stops being
    the same. `scheduled` are the aliases when times count from the schedule; None where that makes no
    difference. `source` is where the definition comes from, empty for our own.
    """

    formula: str
    words: str
    unit: str
    source: str = ""
    aliases: Mapping[str, str] = field(default_factory=dict)
    differs: Mapping[str, str] = field(default_factory=dict)
    scheduled: Mapping[str, str] | None = None


_METRICS = "the server's /metrics"
_SUMS = "growth of the server's sum / growth of its count, over the window"
_SAMPLED = "sampled while the load lasted"


def _timed(words: str) -> Definition:
    return Definition(f"{_SUMS}; percentiles interpolated in its buckets", words, "ms", _METRICS)


def _ratio(of: str) -> Definition:
    formula = f"mean over prompts of {of} constrained / {of} free, each the mean of two rounds"
    return Definition(formula, "what a constraint costs, on the same prompts; 1 is nothing", "")


def _added(what: str, formula: str) -> Definition:
    words = f"what this client adds to {what} at most, under the heaviest load of the run"
    return Definition(formula, words, "ms", "calibration against a server of known timing")


GLOSSARY: Mapping[str, Definition] = {
    "server_ttft": _timed("from the arrival of a request at the server to its first token"),
    "server_queue": _timed("waiting until the engine took the request"),
    "server_prefill": _timed("from being taken to the first token"),
    "server_decode": _timed("from the first token to the last one"),
    "server_inference": _timed("prefill and decode"),
    "server_e2e": _timed("from the arrival of a request at the server to its end"),
    "server_gap": _timed("between tokens, all answers pooled"),
    "server_tpot": _timed("time per output token, one value an answer"),
    "server_running": Definition("requests in the engine's batch", _SAMPLED, "requests", _METRICS),
    "server_waiting": Definition("requests in the engine's queue", _SAMPLED, "requests", _METRICS),
    "server_output_rate": Definition(
        "growth of the server's output tokens / length of the window",
        "tokens made, those of failed requests included", "tok/s", _METRICS,
    ),
    "server_prompt_rate": Definition(
        "growth of the server's prompt tokens / length of the window",
        "tokens taken in, those of failed requests included", "tok/s", _METRICS,
    ),
    "server_requests": Definition(
        "growth of the server's count of ended requests", "in the window", "requests", _METRICS
    ),
    "server_aborted": Definition(
        "growth of the server's count of aborted requests", "in the window", "requests", _METRICS
    ),
    "kv_cache": Definition("share of the KV cache in use", _SAMPLED, "%", _METRICS),
    "preemptions": Definition(
        "growth of the server's count of preempted requests", "its KV cache was too small", "", _METRICS
    ),
    "prefix_hit_share": Definition(
        "prompt tokens found in the server's prefix cache / looked up", "in the window", "%", _METRICS
    ),
    "outside_ttft": Definition(
        "client's mean TTFT from send - server's mean TTFT",
        "network, HTTP server and client: what the engine does not see", "ms", _METRICS,
    ),
    "capacity": Definition(
        "between the highest rate that met the limits and the lowest above it that did not",
        "requests per second that the service sustains; the interval covers what the trials could not tell "
        "apart",
        "req/s",
    ),
    "client_adds_ttft": _added("TTFT", "percentile of TTFT seen - percentile of TTFT that was served"),
    "client_adds_gap": _added("gaps", "percentile of gaps seen - percentile of gaps that were served"),
    "first_use_ttft_extra": Definition(
        "mean of (TTFT of a constraint's first use - TTFT of its second)",
        "what compiling a constraint costs the first request that uses it", "ms",
    ),
    **{f"{name}_constrained_ratio": _ratio(name.upper()) for name in ("ttft", "tpot", "e2e")},
    "exact length": Definition(
        "answers with as many tokens as were asked for / good answers", "whether lengths can be compared", ""
    ),
    "valid": Definition(
        "answers that obey the constraint / good answers", "checked by this client, not by the server", ""
    ),
}  # fmt: skip
