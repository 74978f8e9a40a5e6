"""Recipes and plans as text. Values in, text out; layout is decided here and nowhere else."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from aifbench.repl.wording import clock_text, table
from aifbench.units import format_count, format_number

if TYPE_CHECKING:
    from aifbench.studies.plan import Plan
    from aifbench.studies.recipe import Member, Recipe, Value
    from aifbench.studies.recipe_files import RecipeSummary

_MAX_POINTS_SHOWN = 40


def recipes_table(recipes: Sequence["RecipeSummary"]) -> str:
    rows = [
        (
            recipe.name,
            " + ".join(recipe.services),
            f"{recipe.points} x {recipe.repeats}" if recipe.points else "",
            f"not valid: {recipe.problem}" if recipe.problem else recipe.note,
        )
        for recipe in recipes
    ]
    return table(("recipe", "service", "points x repeats", "note"), rows)


def plan_text(plan: "Plan") -> str:
    """What would be run: the services, the points, and at least how much that is."""
    recipe = plan.recipe
    shown = plan.points[:_MAX_POINTS_SHOWN]
    rows = [(str(index), point.label, _baseline(plan, index)) for index, point in enumerate(shown, start=1)]
    more = len(plan.points) - len(shown)
    return "\n".join(
        [
            f"{recipe.name}: {_heading(recipe)}",
            *(_member_line(member) for member in recipe.members),
            "",
            table(("point", "settings", "compared with"), rows),
            *([f"... and {more:,} more"] if more else []),
            "",
            *_totals(plan),
        ]
    )


def _heading(recipe: "Recipe") -> str:
    seed = f", seed {recipe.seed}" if recipe.order == "shuffled" else ""
    what = f"{recipe.together} of {len(recipe.members)} services" if recipe.together else "one service"
    return f"{what}, {recipe.order}{seed}"


def _member_line(member: "Member") -> str:
    role = f"{member.role}: " if member.role else ""
    how = f"attached as {member.attach}" if member.attach else f"start {member.kind}{_given(member.start)}"
    return f"  {role}{how}; bench {member.bench}{_given(member.options)}"


def _given(values: Mapping[str, "Value"]) -> str:
    from aifbench.studies.matrix import text_of

    return "".join(f" {key}={text_of(value)}" for key, value in values.items())


def _baseline(plan: "Plan", index: int) -> str:
    """`index` counts from 1, as people do."""
    baseline = plan.baselines[index - 1]
    if baseline is None:
        return "none: it is excluded"
    return "" if baseline == index - 1 else f"point {baseline + 1}"


def _totals(plan: "Plan") -> list[str]:
    found, limit = plan.estimate, plan.recipe.limits.node_hours
    points = format_count(found.points, "point")
    repeats = format_count(plan.recipe.repeats, "repeat")
    over = f", more than the recipe's limit of {format_number(limit)}" if plan.is_over_limit and limit else ""
    return [
        f"{points} x {repeats} = {format_count(found.trials, 'trial')}",
        f"at least {format_count(found.jobs, 'service job')}, {clock_text(found.load_s)} under load, "
        f"{_hours(found.node_hours)} node-hours{over}",
        "  starting services, preparing data and further phases come on top",
    ]


def _hours(node_hours: float) -> str:
    return format_number(node_hours, 3) if node_hours >= 0.01 or not node_hours else "under 0.01"
