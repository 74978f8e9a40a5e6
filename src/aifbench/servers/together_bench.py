"""Interference: each service's load alone and all of them at once, in rounds, and what it costs each."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import UsageError
from aifbench.load.fleet import PhaseOutcome
from aifbench.load.plan import StreamPlan
from aifbench.results.record import Measurement, Role
from aifbench.servers.base import SlurmServer
from aifbench.servers.benchmark import Benchmark, BenchmarkContext, Evidence, Phase
from aifbench.servers.together_metrics import slowdowns
from aifbench.servers.together_phases import joined, prefixed

ALONE, TOGETHER = "alone", "together"


class InterferenceBenchmark:
    """Loads of several services, each made by its own benchmark; `options` holds their recipes by role.

    Rounds go forth and back (A, B, all, all, B, A), so that what changes with time, such as a machine that
    warms up, meets both sides alike.
    """

    def __init__(
        self,
        services: Mapping[str, SlurmServer],
        endpoints: Mapping[str, Endpoint],
        options: Mapping[str, Any],
        context: BenchmarkContext,
    ) -> None:
        self._options = options
        self._benchmarks: dict[str, Benchmark] = {}
        self._loads: dict[str, Phase] = {}
        self._seen: dict[tuple[str, str], list[Measurement]] = {}
        with ExitStack() as stack:  # what is made before one that cannot be made is given back
            for number, (role, server) in enumerate(services.items()):
                recipe = options["members"][role]
                own = replace(
                    context,
                    endpoint=endpoints[role],
                    run_tag=f"{context.run_tag}{number}",
                    belongings=context.belongings.of(server.own_name),
                )
                benchmark = server.benchmark(recipe["bench"], recipe, own)
                stack.callback(benchmark.close)
                self._benchmarks[role] = benchmark
            self._closing = stack.pop_all()

    @property
    def workers(self) -> int:
        return sum(benchmark.workers for benchmark in self._benchmarks.values())

    def phases(self) -> Iterator[Phase]:
        for role, benchmark in self._benchmarks.items():
            for phase in benchmark.phases():
                if phase.is_measured and phase.plan.measure_s is not None:
                    self._loads[role] = _repeatable(role, phase)
                    break
                yield prefixed(role, phase)
            if role not in self._loads:
                raise UsageError(f"{role} has no load for a time", hint="give another of its benchmarks")
        schedule = _schedule(list(self._loads), self._options["rounds"])
        last = [name for name, roles in schedule if len(roles) > 1][-1]
        for name, roles in schedule:
            yield self._phase(name, roles, last, is_last=name == schedule[-1][0])

    def facts(self) -> dict[str, Any]:
        return {
            "order": [name for name, _ in _schedule(list(self._benchmarks), self._options["rounds"])],
            **{role: benchmark.facts() for role, benchmark in self._benchmarks.items()},
        }

    def close(self) -> None:
        self._closing.close()

    def _phase(self, name: str, roles: list[str], last_together: str, *, is_last: bool) -> Phase:
        loads = {role: _anew(self._loads[role], name) for role in roles}
        phase = joined(name, loads, **self._timing())
        condition = TOGETHER if len(roles) > 1 else ALONE

        def verify(outcome: PhaseOutcome, measured: Mapping[str, Measurement]) -> Mapping[str, Evidence]:
            for stream, measurement in measured.items():
                self._seen.setdefault((condition, stream), []).append(measurement)
            found = dict(phase.verify(outcome, measured))
            if is_last:
                for stream, more in self._slowdowns().items():
                    label = stream if name == last_together else f"{last_together}/{stream}"
                    found[label] = _sum(found.get(label, Evidence()), more)
            return found

        return replace(phase, verify=verify)

    def _timing(self) -> dict[str, Any]:
        """The same for all phases, alone or together: the longest time limits that any of them needs."""
        options, plans = self._options, [load.plan for load in self._loads.values()]
        return {
            "warmup_s": options["warmup"],
            "measure_s": options["duration"],
            "drain_s": options["drain"] or max(plan.drain_s for plan in plans),
            "timeout_s": options["timeout"] or max(plan.timeout_s for plan in plans),
        }

    def _slowdowns(self) -> dict[str, Evidence]:
        streams = [stream for condition, stream in self._seen if condition == TOGETHER]
        return {
            stream: slowdowns(self._seen.get((ALONE, stream), []), self._seen[TOGETHER, stream])
            for stream in streams
        }


def _schedule(roles: list[str], rounds: int) -> list[tuple[str, list[str]]]:
    """Phase names with the roles that are loaded in each."""
    schedule: list[tuple[str, list[str]]] = []
    for number in range(1, rounds + 1):
        one = [(f"{ALONE}-{role}-{number}", [role]) for role in roles]
        one.append((f"{TOGETHER}-{number}", roles))
        schedule += one if number % 2 else reversed(one)
    return schedule


def _repeatable(role: str, phase: Phase) -> Phase:
    """Raises UsageError for a load that another round would not find as it was."""
    if phase.role is Role.PROBE:
        raise UsageError(
            f"{role} searches for a load; beside others a given one is needed",
            hint="give its rate or clients instead of a limit to keep",
        )
    if not all(stream.is_stationary and stream.limit is None for stream in phase.plan.streams):
        raise UsageError(f"the load of {role} changes what it meets", hint="give another of its benchmarks")
    return phase


def _anew(load: Phase, name: str) -> Phase:
    """The same load with contents of its own: what a service has seen before, it may answer from a cache."""
    streams = tuple(_salted(stream, name) for stream in load.plan.streams)
    return replace(load, plan=replace(load.plan, streams=streams))


def _salted(stream: StreamPlan, name: str) -> StreamPlan:
    if "salt" not in stream.params:
        return stream
    return replace(stream, params={**stream.params, "salt": f"{stream.params['salt']}-{name}"})


def _sum(first: Evidence, second: Evidence) -> Evidence:
    return Evidence((*first.checks, *second.checks), (*first.metrics, *second.metrics))
