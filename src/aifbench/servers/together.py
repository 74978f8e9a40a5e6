"""Several services loaded at once in one run: what may be asked, and the group that a run loads.

`interference` measures each service's load alone and beside the others; `rag` is one load that goes through
all of them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from aifbench.errors import UsageError
from aifbench.options import Option, count_option, duration_option, nearest, rate_option, resolve_options
from aifbench.servers.base import SlurmServer
from aifbench.servers.benchmark import Benchmark, BenchmarkContext
from aifbench.servers.inference_options import BENCH_OPTIONS as INFERENCE_OPTIONS
from aifbench.servers.options import LOAD_OPTIONS

_ROLE = re.compile(r"[a-z][a-z0-9_-]{0,30}")
# Of the whole, and therefore asked for once.
_SHARED = ("duration", "warmup", "client_nodes", "note")


def _options(keys: tuple[str, ...]) -> tuple[Option, ...]:
    known = {option.key: option for option in (*INFERENCE_OPTIONS, *LOAD_OPTIONS)}
    return tuple(known[key] for key in keys)


_INTERFERENCE_OPTIONS = (
    count_option("rounds", "how often each load is measured alone, and all together", 2, maximum=100),
    *_options(_SHARED),
    duration_option("drain", "how long to wait for unfinished operations (default: the longest of theirs)"),
    duration_option("timeout", "time limit of one operation (default: the longest of theirs)"),
)
_RAG_OPTIONS = (
    rate_option("rate", "questions per second", 1.0),
    *_options(("arrivals", "burstiness", "ramp_to", *_SHARED, "workers", "seed", "slo")),
    duration_option("drain", "how long to wait for unfinished answers at the end", 60.0),
    duration_option("timeout", "time limit of each stage", 300.0),
    count_option("document-words", "words of each stored document", 60, maximum=10_000),
)
_OPTIONS = {"interference": _INTERFERENCE_OPTIONS, "rag": _RAG_OPTIONS}

# By the roles of `rag`: its benchmark, and which of that one's options mean something in a chain.
_RAG_ROLES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "llm": ("generate", ("model", "api", "output_tokens", "stop_early", "temperature")),
    "store": (
        "search",
        (
            "vectors", "dim", "queries", "k", "batch", "metric", "recall_target",
            "ef_search", "ef_construction", "max_neighbors",
        ),
    ),
    "embed": ("embed", ("model",)),
}  # fmt: skip
_RAG_STORES = ("chroma",)


@dataclass(frozen=True, slots=True)
class Member:
    """One of the services: its kind, its benchmark, and what was asked of that.

    `name` is the instance's; empty where only the question is whether these can be used together.
    """

    server: type[SlurmServer]
    bench: str
    given: Mapping[str, Any]
    name: str = ""


def together_options(together: str) -> tuple[Option, ...]:
    """The options of one way to use several services. Raises UsageError, naming the ways."""
    if together not in _OPTIONS:
        raise UsageError(
            f"services are not used together as {together!r}{nearest(together, _OPTIONS)}",
            hint=f"valid: {', '.join(_OPTIONS)}",
        )
    return _OPTIONS[together]


def resolve_together(
    members: Mapping[str, Member], together: str, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The full recipe, those of the members in it by role, defaults filled in. Raises UsageError."""
    options = resolve_options(together_options(together), given)
    for role in members:
        if not _ROLE.fullmatch(role):
            raise UsageError(f"a role cannot be called {role!r}", hint="give a name such as llm or store")
    if together == "rag":
        _check_rag(members, options["seed"])
    else:
        _check_interference(members)
    return {
        "bench": together,
        **options,
        "given": sorted(key for key, value in given.items() if value is not None),
        "members": {role: _member_recipe(role, member, options) for role, member in members.items()},
    }


def _member_recipe(role: str, member: Member, options: Mapping[str, Any]) -> dict[str, Any]:
    from aifbench.servers.run import resolve_bench

    recipe = resolve_bench(member.server, member.bench, member.given)
    for key in _SHARED:
        if key in recipe["given"]:
            raise UsageError(
                f"{key} of {role}: it is of all services together", hint=f"give {key} beside `together`"
            )
    shared = {key: options[key] for key in ("duration", "warmup")}
    return {"service": member.name, **recipe, **shared}


def _check_interference(members: Mapping[str, Member]) -> None:
    if len(members) < 2:
        raise UsageError("interference needs at least two services", hint="name another one")
    for role, member in members.items():
        server = member.server
        # What is no benchmark at all is refused with its own words later.
        if member.bench in server.benches and member.bench not in server.steady_benches:
            raise UsageError(
                f"{member.bench} of {role} cannot be repeated beside other loads: it is no single load for a"
                " time, or changes what it meets",
                hint=f"of {server.kind} these can: {', '.join(server.steady_benches) or 'none'}",
            )


def _check_rag(members: Mapping[str, Member], seed: int) -> None:
    missing = [role for role in ("llm", "store") if role not in members]
    unknown = [role for role in members if role not in _RAG_ROLES]
    if missing or unknown:
        wrong = f"has no {missing[0]}" if missing else f"knows no {unknown[0]!r}"
        raise UsageError(
            f"rag {wrong}", hint="its services are llm, store and, if questions are embedded, embed"
        )
    for role, member in members.items():
        bench, used = _RAG_ROLES[role]
        if member.bench != bench or bench not in member.server.benches:
            raise UsageError(
                f"{role} of rag cannot be {member.bench} of {member.server.kind}", hint=f"it has to {bench}"
            )
        if role == "store" and member.server.kind not in _RAG_STORES:
            raise UsageError(
                f"rag cannot retrieve from {member.server.kind}", hint=f"valid: {', '.join(_RAG_STORES)}"
            )
        for key, value in member.given.items():
            if key == "seed" and value is not None and str(value) != str(seed):
                raise UsageError(
                    f"rag has one seed, {seed}; {role} has {value}", hint="give it beside `together`"
                )
            if value is not None and key not in (*used, *_SHARED, "seed"):
                raise UsageError(f"rag does not use {key} of {role}", hint=f"it uses {', '.join(used)}")


class ServerGroup:
    """Several ready services as one target of a run, by role."""

    def __init__(self, services: Mapping[str, SlurmServer]) -> None:
        self.services = services

    @property
    def name(self) -> str:
        return "+".join(self.services)

    def describe(self) -> dict[str, Any]:
        members = {role: server.describe() for role, server in self.services.items()}
        return {"kind": "together", "name": self.name, "members": members}

    def benchmark(self, bench: str, options: Mapping[str, Any], context: BenchmarkContext) -> Benchmark:
        endpoints = {role: server.ready_endpoint() for role, server in self.services.items()}
        if bench == "rag":
            from aifbench.servers.rag import RagBenchmark

            own = replace(context, belongings=context.belongings.of(self.services["store"].own_name))
            return RagBenchmark(endpoints, options, own)
        from aifbench.servers.together_bench import InterferenceBenchmark

        return InterferenceBenchmark(self.services, endpoints, options, context)
