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


_POSTGRES = "PostgreSQL's pg_stat views"
_USL = "Universal Scalability Law; N. J. Gunther, Guerrilla Capacity Planning, Springer 2007"


def _counted(what: str, words: str, unit: str = "") -> Definition:
    return Definition(
        f"growth of the server's {what} over the phase, warm-up included", words, unit, _POSTGRES
    )


def _share(of: str) -> Definition:
    formula = f"sum of {of} / sum of response times"
    return Definition(formula, "of the mean time from t0 to the end; all shares add up to 100 %", "%")


def _beside(of: str) -> Definition:
    formula = f"geometric mean over the rounds of {of} together / {of} alone"
    words = "what the other services' loads cost this one; 1 is nothing"
    return Definition(formula, words, "x", "Student's interval of the logarithms, a round each")


def _energy(of: str, *, above_idle: bool = False) -> Definition:
    less = " - mean idle power before the run" if above_idle else ""
    words = f"of the service's nodes for one {of}; the metric's note names the counters"
    formula = f"(mean power in the window{less}) / {of}s per second"
    return Definition(formula, words, f"J/{of}", "samples of the nodes' energy counters")


GLOSSARY: Mapping[str, Definition] = {
    **{f"energy_per_{of.replace(' ', '_')}": _energy(of) for of in ("operation", "item", "output token")},
    **{
        f"energy_per_{of.replace(' ', '_')}_above_idle": _energy(of, above_idle=True)
        for of in ("operation", "item", "output token")
    },
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
        "what the service sustains per second; the interval covers what the trials could not tell apart",
        "req/s",
    ),
    "cache_hit_share": Definition(
        "growth of blks_hit / growth of blks_hit + blks_read",
        "of blocks asked for, those in shared buffers; others may still come from the system's cache", "%",
        _POSTGRES,
    ),
    "commits": Definition(
        "growth of xact_commit / length of the phase", "of the run's database, as the server counts them",
        "commits/s", _POSTGRES,
    ),
    "rollbacks": _counted("xact_rollback", "transactions that were given up"),
    "deadlocks": _counted("deadlocks", "transactions in each other's way for ever; one of them fails"),
    "temp_files": _counted("temp_files", "sorts and joins that did not fit into work_mem; absent when none"),
    "temp_data": _counted("temp_bytes", "written to such files", "MB"),
    "checkpoints": _counted("timed and requested checkpoints", "each writes out all changed pages"),
    "checkpoint_write": _counted("checkpoint write_time", "over all checkpoints", "s"),
    "checkpoint_sync": _counted("checkpoint sync_time", "over all checkpoints", "s"),
    "wal_rate": Definition(
        "growth of wal_bytes / length of the phase", "write-ahead log of the whole server", "MB/s", _POSTGRES
    ),
    "wal_per_commit": Definition(
        "growth of wal_bytes / growth of xact_commit", "what a transaction writes besides its data", "kB",
        _POSTGRES,
    ),
    "wal_full_pages": _counted("wal_fpi", "written whole at the first change after a checkpoint", "pages"),
    "pooler_wait": Definition(
        "growth of total_wait_time / growth of total_xact_count (SHOW STATS)",
        "how long a transaction waited in the pooler for a connection to the server, on average", "ms",
        "PgBouncer's console",
    ),
    "scaling_single": Definition(
        "lambda of X(N) = lambda N / (1 + sigma (N - 1) + kappa N (N - 1))",
        "throughput of one client by the fitted law", "ops/s", _USL,
    ),
    "scaling_contention": Definition("sigma of that law", "the share of the work that is serial", "", _USL),
    "scaling_crosstalk": Definition(
        "kappa of that law", "what keeping clients consistent with one another costs", "", _USL
    ),
    "scaling_peak": Definition(
        "sqrt((1 - sigma) / kappa)", "clients beyond which throughput falls", "clients", _USL
    ),
    "index_build": Definition("end - begin of CREATE INDEX", "after all rows were stored", "s"),
    "stored_size": Definition("size of the run's tables with their indexes", "", "MB"),
    "ttfb": Definition(
        "first byte of the answer - t0", "time until the server began to answer", "ms", scheduled={}
    ),
    "data_rate": Definition(
        "bytes of content moved by good operations / length of the window",
        "of objects or files, in either direction, without protocol", "MiB/s",
    ),
    "data_rate_per_node": Definition("data rate / nodes", "what a node of the load got", "MiB/s"),
    "host_balance": Definition(
        "operations per worker on the slowest host of the load / those on the fastest",
        "1 where the service gave as much to every host", "x",
    ),
    "upload": Definition(
        "end of completing it - t0 of its first part",
        "one upload in parts, all of which and its completion succeeded", "ms",
    ),
    "client_adds_ttft": _added("TTFT", "percentile of TTFT seen - percentile of TTFT that was served"),
    "client_adds_gap": _added("gaps", "percentile of gaps seen - percentile of gaps that were served"),
    "first_use_ttft_extra": Definition(
        "mean of (TTFT of a constraint's first use - TTFT of its second)",
        "what compiling a constraint costs the first request that uses it", "ms",
    ),
    **{f"{name}_constrained_ratio": _ratio(name.upper()) for name in ("ttft", "tpot", "e2e")},
    "embed": Definition("end of the stage - its begin", "a question to its vector, over the network", "ms"),
    "retrieve": Definition(
        "end of the stage - its begin", "a vector to the documents nearest to it, over the network", "ms"
    ),
    "generate": Definition(
        "end of the stage - its begin", "question and documents to the end of the answer", "ms"
    ),
    "generate_ttft": Definition(
        "t1 - begin of the stage", "what of TTFT is the generating service's own", "ms"
    ),
    "wait_share": _share("the wait until it was sent"),
    **{f"{name}_share": _share(f"the stage {name}") for name in ("embed", "retrieve", "generate")},
    "client_share": _share("the client's own work between the stages"),
    "slowdown": _beside("response time (open loop) or service time (closed loop)"),
    "slowdown_ttft": _beside("TTFT"),
    "slowdown_tpot": _beside("TPOT"),
    "throughput_kept": _beside("throughput"),
    "exact length": Definition(
        "answers with as many tokens as were asked for / good answers", "whether lengths can be compared", ""
    ),
    "valid": Definition(
        "answers that obey the constraint / good answers", "checked by this client, not by the server", ""
    ),
}  # fmt: skip
