"""What a study will cost at least: service jobs, time under load, node-hours."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aifbench.options import resolve_options
from aifbench.results.study import Point, Trial
from aifbench.studies.matrix import Settings, settings_for
from aifbench.studies.recipe import Catalog, Member, Recipe, Value


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of the trials given. All of it is "at least": a trial counts with one phase of warm-up and measured
    time (of interference, with all of them), and with 0 where the benchmark decides these. Many have more
    phases, and starting services, preparing data and draining come on top; a service whose job has too little
    time left is started anew.
    """

    points: int
    trials: int
    jobs: int
    load_s: float
    node_hours: float


@dataclass(frozen=True, slots=True)
class _Cost:
    """Of one trial of a point."""

    load_s: float
    nodes: int


def estimate(recipe: Recipe, points: Sequence[Point], trials: Sequence[Trial], catalog: Catalog) -> Estimate:
    """The cost of `trials` in their order: a service is started anew when its start options change."""
    settings = [settings_for(recipe, point) for point in points]
    costs = [_cost(recipe, each, catalog) for each in settings]
    return Estimate(
        points=len(points),
        trials=len(trials),
        jobs=_jobs(settings[trial.point] for trial in trials),
        load_s=sum(costs[trial.point].load_s for trial in trials),
        node_hours=sum(costs[trial.point].load_s * costs[trial.point].nodes for trial in trials) / 3600,
    )


def _jobs(settings: Iterable[Settings]) -> int:
    jobs = 0
    running: dict[str, Mapping[str, Value]] = {}
    for each in settings:
        for member in each.members:
            if not member.attach and running.get(member.role) != member.start:
                running[member.role] = member.start
                jobs += 1
    return jobs


def _cost(recipe: Recipe, settings: Settings, catalog: Catalog) -> _Cost:
    """There is one client job, also for several services, and a job has a node at least."""
    asked = _asked(recipe, settings, catalog)
    duration_s = asked.get("duration") or 0.0
    ours = [member for member in settings.members if not member.attach]
    service_nodes = sum(_nodes(member, catalog) for member in ours if not catalog.runs_and_ends(member.kind))
    # What was chosen at the start holds for a benchmark of that service alone.
    alone = [] if recipe.together else [member for member in ours if catalog.runs_and_ends(member.kind)]
    client_nodes = asked.get("client_nodes") or max((_nodes(member, catalog) for member in alone), default=1)
    # Interference measures each load alone and all together, in rounds.
    phases = asked["rounds"] * (len(settings.members) + 1) if "rounds" in asked else 1
    return _Cost(
        load_s=phases * (duration_s and duration_s + (asked.get("warmup") or 0.0)),
        nodes=service_nodes + client_nodes,
    )


def _nodes(member: Member, catalog: Catalog) -> int:
    """What its start options ask for, or their default."""
    nodes = resolve_options(catalog.start_options(member.kind), member.start)["nodes"]
    assert isinstance(nodes, int)
    return nodes


def _asked(recipe: Recipe, settings: Settings, catalog: Catalog) -> dict[str, Any]:
    """Options with defaults of the benchmark that is run: that of several services, or that of the one."""
    if recipe.together:
        return resolve_options(catalog.together_options(recipe.together), settings.options)
    (member,) = settings.members
    return resolve_options(catalog.bench_options(member.kind), member.options)
