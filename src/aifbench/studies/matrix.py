"""The points of a recipe: the product of its axes without what is excluded, and what each point sets."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from aifbench.results.study import Point
from aifbench.studies.recipe import Axis, Member, Recipe, Value

START = "start"
ONLY_POINT = "only"  # label of the point of a recipe without a matrix


@dataclass(frozen=True, slots=True)
class Settings:
    """What one point asks for: the members with their `start` and `options` filled in, and the options of
    the benchmark over several services (empty for one service).
    """

    members: tuple[Member, ...]
    options: Mapping[str, Value]


def combinations(axes: Sequence[Axis]) -> int:
    """The number of points before exclusions, without making them."""
    return math.prod(len(axis.rows) for axis in axes)


def points(recipe: Recipe) -> tuple[Point, ...]:
    """Every point, the last axis fastest; without axes the one point there is."""
    keys = [key for axis in recipe.axes for key in axis.keys]
    rows = product(*(axis.rows for axis in recipe.axes))
    found = (dict(zip(keys, sum(row, ()), strict=True)) for row in rows)
    excluded: dict[tuple[str, ...], set[tuple[Value, ...]]] = {}
    for entry in recipe.exclude:
        excluded.setdefault(tuple(entry), set()).add(tuple(entry.values()))
    return tuple(
        Point(settings, label_of(settings))
        for settings in found
        if not any(tuple(settings[key] for key in keys) in values for keys, values in excluded.items())
    )


def has_row(axis: Axis, wanted: Mapping[str, Value]) -> bool:
    """Whether some row has the values in `wanted` of the keys that are this axis's."""
    return bool(_rows_with(axis, wanted))


def _rows_with(axis: Axis, wanted: Mapping[str, Value]) -> list[dict[str, Value]]:
    own = {key: wanted[key] for key in axis.keys if key in wanted}
    rows = (dict(zip(axis.keys, row, strict=True)) for row in axis.rows)
    return [row for row in rows if own.items() <= row.items()]


def label_of(settings: Mapping[str, Value]) -> str:
    """`rate=50 start.nodes=2`; flags as `name=true`."""
    return " ".join(f"{key}={text_of(value)}" for key, value in settings.items()) or ONLY_POINT


def text_of(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else value


def split_key(key: str, roles: Sequence[str]) -> tuple[str, bool, str]:
    """(role, is server-side, option) of `X`, `start.X`, `ROLE.X` or `ROLE.start.X`."""
    role, dot, rest = key.partition(".")
    if not dot or role not in roles:
        role, rest = "", key
    head, dot, option = rest.partition(".")
    return (role, True, option) if dot and head == START else (role, False, rest)


def settings_for(recipe: Recipe, point: Point) -> Settings:
    """What to start and what to ask of it at `point`: keys are Option.keys, values as written."""
    members = {member.role: member for member in recipe.members}
    options = dict(recipe.options)
    for key, value in point.settings.items():
        role, is_start, option = split_key(key, list(members))
        if role not in members:
            options[option] = value
        elif is_start:
            members[role] = replace(members[role], start={**members[role].start, option: value})
        else:
            members[role] = replace(members[role], options={**members[role].options, option: value})
    return Settings(tuple(members.values()), options)


def baselines(recipe: Recipe, found: Sequence[Point]) -> tuple[int | None, ...]:
    """For each point the index of the one it is compared with: the first point, or with `baseline` the
    point that has the baseline's values and otherwise the same ones; None where that was excluded.

    A key of a zipped axis stands for its whole row.
    """
    if not recipe.baseline:
        return (0,) * len(found)
    index_of = {point.label: index for index, point in enumerate(found)}
    fixed: dict[str, Value] = {}
    for axis in recipe.axes:
        if any(key in recipe.baseline for key in axis.keys):
            fixed.update(_rows_with(axis, recipe.baseline)[0])
    return tuple(index_of.get(label_of({**point.settings, **fixed})) for point in found)
