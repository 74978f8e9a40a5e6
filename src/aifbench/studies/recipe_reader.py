"""YAML text to a Recipe: every key known, every value accepted by the option it is for.

Imports yaml through yaml_text, so import this module where it is used.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from aifbench.errors import UsageError
from aifbench.options import Option, nearest
from aifbench.studies.axes import AxisReader, Scopes, joined
from aifbench.studies.fields import Fields
from aifbench.studies.matrix import START, baselines, combinations, points
from aifbench.studies.recipe import (
    DEFAULT_REPEATS,
    DEFAULT_TRIALS,
    MAX_TRIALS,
    ORDERS,
    TOGETHER,
    Catalog,
    Limits,
    Member,
    Recipe,
    Value,
)
from aifbench.studies.yaml_text import Table, located, parse_yaml
from aifbench.units import parse_count, parse_number

_SERVICE = ("service", "start", "attach", "bench", "options")
_SEVERAL = ("services", "together", "options")
_STUDY = ("study", "note")
_PLAN = ("matrix", "zip", "exclude", "repeats", "order", "seed", "slo", "baseline", "limits")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_ROLE = re.compile(r"[a-z][a-z0-9_-]{0,30}")
_NAME_RULE = "give a lower-case letter, then up to 39 letters, digits or hyphens"
_ROLE_RULE = "give a lower-case letter, then up to 30 letters, digits, - or _; not start"
_MAX_REPEATS = 1000


def read_recipe(text: str, file: str, catalog: Catalog) -> Recipe:
    """Raises UsageError with file, line, key, what is allowed and the nearest spelling."""
    root = parse_yaml(text, file)
    if not isinstance(root, Table):
        message = "a recipe is keys with values, such as `service: chroma`"
        raise located(file, root.line, message, "`recipe new NAME` writes one to begin with")
    fields = Fields(file, root)
    parts = _several(fields, catalog) if "services" in fields else _single(fields, catalog)
    reader = AxisReader(fields, _scopes(parts, catalog))
    recipe = Recipe(
        name=fields.parsed("study", _name, ""),
        note=fields.text("note").strip(),
        members=parts.members,
        together=parts.together,
        options=parts.options,
        axes=reader.axes,
        exclude=reader.exclude(),
        baseline=reader.baseline(),
        repeats=fields.parsed("repeats", _count("repeats", 1, _MAX_REPEATS), DEFAULT_REPEATS),
        order=fields.parsed("order", partial(_one_of, ORDERS), ORDERS[0]),
        seed=fields.parsed("seed", _count("seed", 0, 2**32 - 1), 1),
        slo=fields.text("slo"),
        limits=_limits(fields.table("limits")),
        text=text,
        file=file,
    )
    _check_size(fields, recipe)
    return recipe


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the two forms of a recipe differ in: see Recipe."""

    members: tuple[Member, ...]
    together: str = ""
    options: Mapping[str, Value] = field(default_factory=dict)


def _single(fields: Fields, catalog: Catalog) -> _Parts:
    fields.refuse(("together",), "is for several services", "remove it, or give `services`")
    fields.allow((*_STUDY, *_SERVICE, "services", *_PLAN))
    fields.require("study", "service")
    member = _member(fields, "", catalog)
    options = _by_key(catalog.bench_options(member.kind))
    return _Parts((replace(member, options=_with_slo(fields, options, member.options, member.kind)),))


def _several(fields: Fields, catalog: Catalog) -> _Parts:
    of_one = [key for key in _SERVICE if key not in _SEVERAL]
    fields.refuse(of_one, "is of one service", "give it below `services`, with that service")
    fields.allow((*_STUDY, *_SEVERAL, *_PLAN))
    fields.require("study", "together")
    together = fields.parsed("together", partial(_one_of, TOGETHER), "")
    services = fields.table("services")
    if len(list(services)) < 2:
        hint = "name two or more; for one give `service: KIND` instead"
        raise fields.error("`services` is for several services", hint, key="services")
    members = tuple(_named_member(services, role, catalog) for role in services)
    options = _by_key(catalog.together_options(together))
    given = fields.table("options").option_values(options, f"`{together}`")
    return _Parts(members, together, _with_slo(fields, options, given, together))


def _named_member(services: Fields, role: str, catalog: Catalog) -> Member:
    if not _ROLE.fullmatch(role) or role == START:
        raise services.error(f"{services.name_of(role)} cannot be a name", _ROLE_RULE, key=role)
    fields = services.table(role)
    fields.allow(_SERVICE)
    fields.require("service", "bench")  # the first benchmark is `all`, which is no load for a time
    return _member(fields, role, catalog)


def _member(fields: Fields, role: str, catalog: Catalog) -> Member:
    kinds = [kind for kind in catalog.kinds() if catalog.bench_names(kind)]
    kind = fields.parsed("service", partial(_one_of, kinds), "")
    if "attach" in fields and "start" in fields:
        message = "`attach` uses a service that runs already, `start` is for a new one"
        raise fields.error(message, "remove one of them", key="attach")
    bench_options = _by_key(catalog.bench_options(kind))
    benches = catalog.bench_names(kind)
    return Member(
        role=role,
        kind=kind,
        start=fields.table("start").option_values(
            _start_options(catalog, kind), f"`start {kind}` in a recipe"
        ),
        attach=fields.parsed("attach", _by_key(catalog.start_options(kind))["name"].parse, ""),
        bench=fields.parsed("bench", partial(_one_of, benches), benches[0]),
        options=fields.table("options").option_values(bench_options, f"`bench {kind}`"),
    )


def _with_slo(
    fields: Fields, options: Mapping[str, Option], given: Mapping[str, Value], whose: str
) -> Mapping[str, Value]:
    """`given`, and the recipe's `slo` as the option of that name."""
    if "slo" not in fields:
        return given
    if "slo" not in options:
        raise fields.error(f"{whose} takes no `slo`", "remove it", key="slo")
    if "slo" in given:
        raise fields.error("`slo` is among the options too", "keep one of them", key="slo")
    return {**given, "slo": fields.option_value("slo", options["slo"], fields.node("slo"))}


def _scopes(parts: _Parts, catalog: Catalog) -> Scopes:
    """What a key of the matrix may name; an attached service cannot be started in another way."""
    options: dict[str, Mapping[str, Option]] = {}
    fixed = list(parts.options)
    if parts.together:
        options[""] = _by_key(catalog.together_options(parts.together))
    for member in parts.members:
        start = joined(member.role, START)
        options[member.role] = _by_key(catalog.bench_options(member.kind))
        options[start] = {} if member.attach else _start_options(catalog, member.kind)
        fixed += [joined(member.role, key) for key in member.options]
        fixed += [joined(start, key) for key in member.start]
    return Scopes(options, fixed)


def _start_options(catalog: Catalog, kind: str) -> dict[str, Option]:
    """All but the name: a study names its services itself."""
    return {key: option for key, option in _by_key(catalog.start_options(kind)).items() if key != "name"}


def _limits(fields: Fields) -> Limits:
    fields.allow(("node_hours", "trials"))
    node_hours = partial(parse_number, what="node_hours", minimum=0, maximum=1e6)
    return Limits(
        node_hours=fields.parsed("node_hours", node_hours, None),
        trials=fields.parsed("trials", _count("trials", 1, MAX_TRIALS), DEFAULT_TRIALS),
    )


def _check_size(fields: Fields, recipe: Recipe) -> None:
    """Counts first: a matrix of millions is refused before it is made."""
    count = combinations(recipe.axes)
    if count > MAX_TRIALS:
        raise _too_many(fields, recipe, count, " before exclusions" if recipe.exclude else "")
    found = points(recipe)
    if not found:
        raise fields.error("`exclude` leaves no point", "exclude less", key="exclude")
    if len(found) * recipe.repeats > recipe.limits.trials:
        raise _too_many(fields, recipe, len(found))
    if not any(index is not None for index in baselines(recipe, found)):
        raise fields.error("`baseline` is excluded", "choose a point that is measured", key="baseline")


def _too_many(fields: Fields, recipe: Recipe, count: int, remark: str = "") -> UsageError:
    trials = count * recipe.repeats
    what = f"{count:,} points{remark} x {recipe.repeats} repeats are {trials:,} trials"
    hint = "take fewer values or repeats, or exclude points"
    if trials <= MAX_TRIALS:
        hint += f"; `limits: {{trials: {trials}}}` allows them"
    key = "matrix" if "matrix" in fields else "zip" if "zip" in fields else "repeats"
    return fields.error(f"{what}, and the limit is {recipe.limits.trials:,}", hint, key=key)


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise UsageError(f"{text!r} cannot be a name", hint=_NAME_RULE)
    return text


def _one_of(valid: Sequence[str], text: str) -> str:
    if text not in valid:
        raise UsageError(f"{text!r} is not known{nearest(text, valid)}", hint=f"valid: {', '.join(valid)}")
    return text


def _count(what: str, minimum: int, maximum: int) -> Callable[[str], int]:
    return partial(parse_count, what=what, minimum=minimum, maximum=maximum)


def _by_key(options: Iterable[Option]) -> dict[str, Option]:
    return {option.key: option for option in options}
