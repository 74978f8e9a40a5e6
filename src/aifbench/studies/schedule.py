"""The order in which trials are run.

A change of what a service is started with costs a restart, so points that share it form a group, and groups
are gone through one after the other:

- `shuffled`: in every round (repeat) the groups in random order, and in each the points in random order.
- `interleaved`: one round forwards, the next backwards (A B B A ...), which cancels a steady drift; a round
  begins with the services that the last one ended with.
- `sequential`: all repeats of a point one after the other. The fewest restarts, but what drifts meanwhile
  looks like a difference between points.
"""

from collections.abc import Callable, Sequence
from random import Random

from aifbench.results.study import Point, Trial
from aifbench.studies.matrix import settings_for
from aifbench.studies.recipe import Recipe

Group = list[int]


def schedule(recipe: Recipe, points: Sequence[Point]) -> tuple[Trial, ...]:
    """Every repeat of every point, in the order of the recipe; the same for the same recipe and seed."""
    groups = server_groups(recipe, points)
    rounds = range(1, recipe.repeats + 1)
    if recipe.order == "sequential":
        return tuple(Trial(point, repeat) for group in groups for point in group for repeat in rounds)
    arrange = _shuffled(recipe.seed) if recipe.order == "shuffled" else _back_and_forth
    return tuple(Trial(point, repeat) for repeat in rounds for point in arrange(groups, repeat))


def server_groups(recipe: Recipe, points: Sequence[Point]) -> list[Group]:
    """Indices of points by what their services are started with, in order of first appearance."""
    groups: dict[str, Group] = {}
    for index, point in enumerate(points):
        started = [sorted(member.start.items()) for member in settings_for(recipe, point).members]
        groups.setdefault(repr(started), []).append(index)
    return list(groups.values())


def _back_and_forth(groups: Sequence[Group], repeat: int) -> list[int]:
    order = [point for group in groups for point in group]
    return order if repeat % 2 else order[::-1]


def _shuffled(seed: int) -> Callable[[Sequence[Group], int], list[int]]:
    random = Random(seed)

    def in_random_order(groups: Sequence[Group], _repeat: int) -> list[int]:
        drawn = sorted(groups, key=lambda _: random.random())
        return [point for group in drawn for point in sorted(group, key=lambda _: random.random())]

    return in_random_order
