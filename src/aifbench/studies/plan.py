"""What a recipe amounts to before anything is started: its points, its trials in order, and their cost."""

from dataclasses import dataclass

from aifbench.errors import UsageError
from aifbench.results.study import Point, Trial
from aifbench.studies.estimate import Estimate, estimate
from aifbench.studies.matrix import baselines, points, settings_for
from aifbench.studies.recipe import Catalog, Recipe
from aifbench.studies.schedule import schedule


@dataclass(frozen=True, slots=True)
class Plan:
    """`baselines` has for each point the index of the one it is compared with; see matrix.baselines."""

    recipe: Recipe
    points: tuple[Point, ...]
    trials: tuple[Trial, ...]
    baselines: tuple[int | None, ...]
    estimate: Estimate

    @property
    def is_over_limit(self) -> bool:
        """More node-hours than the recipe's own limit: not to be started unasked."""
        limit = self.recipe.limits.node_hours
        return limit is not None and self.estimate.node_hours > limit


def plan(recipe: Recipe, catalog: Catalog) -> Plan:
    """Raises UsageError for services that cannot be used together as some point asks."""
    found = points(recipe)
    if recipe.together:
        for point in found:
            _check_together(recipe, point, catalog)
    trials = schedule(recipe, found)
    return Plan(recipe, found, trials, baselines(recipe, found), estimate(recipe, found, trials, catalog))


def _check_together(recipe: Recipe, point: Point, catalog: Catalog) -> None:
    asked = settings_for(recipe, point)
    members = {member.role: (member.kind, member.bench, member.options) for member in asked.members}
    try:
        catalog.check_together(members, recipe.together, asked.options)
    except UsageError as error:
        where = f"{recipe.file}, {point.label}" if point.label else recipe.file
        raise UsageError(f"{where}: {error.message}", hint=error.hint) from None
