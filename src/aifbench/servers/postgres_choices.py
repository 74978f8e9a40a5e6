"""Which of a benchmark's options go together, and which engine makes its load."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aifbench.errors import UsageError, WorkloadError
from aifbench.servers.postgres_log import Pooler
from aifbench.workloads.pgbench import Pgbench

_TIMED = (
    "tpcb", "simple-update", "select-only", "script", "point", "range", "metadata", "analytics", "storm",
    "vector",
)  # fmt: skip
_PGBENCH = ("tpcb", "simple-update", "select-only", "script")
_OPEN = dict.fromkeys(("rate", "trace", "arrivals", "ramp_to", "burstiness"), _TIMED)
_VECTOR = dict.fromkeys(
    (
        "vectors", "dim", "queries", "k", "metric", "filter", "dataset", "recall_target", "index", "m",
        "ef_construction", "ef_search", "lists", "probes",
    ),
    ("vector",),
)  # fmt: skip
USED_BY: Mapping[str, tuple[str, ...]] = {
    **_OPEN,
    **_VECTOR,
    **dict.fromkeys(("engine", "query_mode", "reconnect", "max_tries"), ("all", *_PGBENCH)),
    "latency_limit": _PGBENCH,
    "scale": ("all", *_PGBENCH, "point", "range"),
    "file": ("script",),
    "concurrency": ("all", *_TIMED),
    "slo": _TIMED,
    "precision": _TIMED,
    "methods": ("load",),
    "rows": ("all", "load"),
    "batch": ("all", "load", "vector"),
    "payload": ("all", "load"),
    "skew": ("point", "metadata"),
    "span": ("range",),
    "runs": ("all", "metadata", "analytics"),
    "isolation": ("metadata",),
}
_PGBENCH_ONLY = ("query_mode", "reconnect", "max_tries", "latency_limit")


def choose_engine(
    bench: str, options: Mapping[str, Any], find: Callable[[], Pgbench]
) -> tuple[Pgbench | None, str]:
    """pgbench, or None for our own engine; and what to tell where it had to be ours. Raises BenchError."""
    if bench not in ("all", *_PGBENCH):
        return None, ""
    needs = bench in ("tpcb", "simple-update", "script")
    wanted = options["engine"]
    if wanted == "own":
        if needs:
            raise UsageError(f"{bench} is pgbench's", hint="leave out --engine own, or use point or metadata")
        _refuse_given(options, _PGBENCH_ONLY, "our own engine has no --{}", "leave out --engine own")
        return None, ""
    try:
        found = find()
    except WorkloadError as error:
        if needs or wanted:
            raise
        _refuse_given(options, _PGBENCH_ONLY, "our own engine has no --{}", error.hint)
        return None, f"{error.message}: our own engine makes the load"
    _refuse_given(options, ("trace",), "pgbench cannot play a --{}", "give --rate")
    if options["arrivals"] != "poisson":
        raise UsageError(
            f"pgbench cannot send with {options['arrivals']} arrivals",
            hint="use poisson, or `bench ... point`",
        )
    if options["latency_limit"] and not options["rate"]:
        raise UsageError("--latency-limit needs a rate", hint="give --rate, such as --rate 500")
    return found, ""


def _refuse_given(options: Mapping[str, Any], keys: Sequence[str], message: str, hint: str) -> None:
    for key in keys:
        if key in options["given"]:
            raise UsageError(message.format(key.replace("_", "-")), hint=hint)


def refuse_stuck(bench: str, options: Mapping[str, Any], pooler: Pooler, clients: int) -> None:
    """What pgbench would wait for without end. Raises UsageError.

    While it prepares a statement for one client, others of its thread rest in their transactions, and hold
    the connections that it waits for.
    """
    writes = bench in ("all", "tpcb", "simple-update", "script")
    if not writes or pooler.mode != "transaction" or options["query_mode"] != "prepared":
        return
    if clients > pooler.connections:
        raise UsageError(
            f"pgbench cannot prepare statements for {clients:,} clients with {pooler.connections:,}"
            " connections of the pool: clients in a transaction would hold them all",
            hint=f"give --query-mode extended, or --clients {pooler.connections} or less",
        )


def refuse_misplaced(bench: str, options: Mapping[str, Any]) -> None:
    """Nothing that was asked for is left out in silence. Raises UsageError."""
    for key in options["given"]:
        users = USED_BY.get(key, (bench,))
        if bench not in users:
            name = key.replace("_", "-")
            raise UsageError(f"{bench} does not use --{name}", hint=f"it is for {', '.join(users)}")
    loads = [key for key in ("rate", "trace", "concurrency", "slo") if options[key]]
    if len(loads) > 1:
        raise UsageError(f"--{loads[0]} and --{loads[1]} exclude each other", hint="give one of them")
    if bench == "script" and not options["file"]:
        raise UsageError("script needs SQL files", hint="give --file, such as --file read.sql:9,write.sql:1")
