"""What varies in a recipe: `matrix`, `zip`, `exclude` and `baseline` as axes and rows.

Imports yaml through fields, so import this module where it is used.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from aifbench.options import Option, nearest
from aifbench.studies.fields import Fields
from aifbench.studies.matrix import has_row, text_of
from aifbench.studies.recipe import Axis, Value


@dataclass(frozen=True, slots=True)
class Scopes:
    """The options that a key may name, by Option.key, below each prefix: "", `start`, `ROLE`, `ROLE.start`.

    `fixed` are the keys that the recipe gives one value for all points.
    """

    options: Mapping[str, Mapping[str, Option]]
    fixed: Collection[str]

    def find(self, fields: Fields, key: str) -> tuple[str, Option]:
        """The key with underscores, and its option. Raises UsageError naming the nearest."""
        prefix, dot, name = key.rpartition(".")
        name = name.replace("-", "_")
        option = self.options.get(prefix, {}).get(name)
        if option is None:
            message = f"{fields.name_of(key)} names no option{self._nearest(key, name)}"
            raise fields.error(message, self._valid(prefix), key=key)
        return f"{prefix}{dot}{name}", option

    def _nearest(self, key: str, name: str) -> str:
        """The same name below another prefix rather than a similar one."""
        keys = [joined(prefix, own) for prefix, table in self.options.items() for own in table]
        same = [each for each in keys if each.rpartition(".")[2] == name]
        return nearest(key, same) or nearest(same[0] if same else key, keys)

    def _valid(self, prefix: str) -> str:
        own = [joined(prefix, name) for name in self.options.get(prefix, {})]
        others = [
            joined(other, "OPTION") for other, table in self.options.items() if table and other != prefix
        ]
        return f"valid: {', '.join((*own, *others))}"


class AxisReader:
    """Reads the axes of one recipe, and what refers to them. Raises UsageError with the place."""

    def __init__(self, root: Fields, scopes: Scopes) -> None:
        self._root = root
        self._scopes = scopes
        self._options: dict[str, Option] = {}  # of each key that varies
        self.axes = (*self._product(), *self._zipped())

    def exclude(self) -> tuple[Mapping[str, Value], ...]:
        if "exclude" not in self._root:
            return ()
        nodes = self._root.items("exclude")
        entries = [self._root.as_table("exclude", node, "exclude") for node in nodes]
        return tuple(self._selection(entry, "matches no point") for entry in entries)

    def baseline(self) -> Mapping[str, Value]:
        if "baseline" not in self._root:
            return {}
        return self._selection(self._root.table("baseline"), "is no point")

    def _product(self) -> list[Axis]:
        columns = self._columns("matrix")
        return [Axis((key,), tuple((value,) for value in values)) for key, values in columns.items()]

    def _zipped(self) -> list[Axis]:
        columns = self._columns("zip")
        if len({len(values) for values in columns.values()}) > 1:
            lengths = ", ".join(f"{key} has {len(values)}" for key, values in columns.items())
            message = f"the lists of `zip` differ in length: {lengths}"
            raise self._root.error(message, "give each the same number of values", key="zip")
        rows = tuple(zip(*columns.values(), strict=True))
        return [Axis(tuple(columns), rows)] if rows else []

    def _columns(self, name: str) -> dict[str, list[Value]]:
        """The values of each key of `matrix` or `zip`."""
        if name not in self._root:
            return {}
        fields = self._root.table(name)
        if not list(fields):
            hint = f"write {name}: {{OPTION: [one, two]}}, or remove it"
            raise self._root.error(f"`{name}` is empty", hint, key=name)
        columns = {}
        for key in fields:
            canonical, option = self._scopes.find(fields, key)
            if canonical in self._scopes.fixed or canonical in self._options:
                message = f"{fields.name_of(key)} is given elsewhere too"
                hint = "a key belongs to one of start, options, slo, matrix and zip"
                raise fields.error(message, hint, key=key)
            values = [fields.option_value(key, option, node) for node in fields.items(key)]
            if name == "matrix":
                _refuse_repeated(fields, key, option, values)
            self._options[canonical] = option
            columns[canonical] = values
        return columns

    def _selection(self, fields: Fields, failure: str) -> Mapping[str, Value]:
        """Keys that vary with values they have, in the axes' own spelling, that occur together."""
        wanted = {}
        for key in fields:
            canonical, _ = self._scopes.find(fields, key)
            if canonical not in self._options:
                close = nearest(canonical, self._options)
                hint = f"what varies: {', '.join(self._options) or 'nothing'}"
                raise fields.error(f"{fields.name_of(key)} does not vary{close}", hint, key=key)
            wanted[canonical] = self._on_axis(fields, key, canonical)
        if not wanted or not all(has_row(axis, wanted) for axis in self.axes):
            pairs = ", ".join(f"{key}: {text_of(value)}" for key, value in wanted.items())
            raise fields.error(f"`{fields.path}` {{{pairs}}} {failure}", "name values that occur together")
        return wanted

    def _on_axis(self, fields: Fields, key: str, canonical: str) -> Value:
        option = self._options[canonical]
        axis = next(axis for axis in self.axes if canonical in axis.keys)
        column = [row[axis.keys.index(canonical)] for row in axis.rows]
        given = fields.option_value(key, option, fields.node(key))
        for value in column:
            if _meaning(option, value) == _meaning(option, given):
                return value
        hint = f"it is one of {', '.join(dict.fromkeys(map(text_of, column)))}"
        message = f"{fields.name_of(key)} never has the value {text_of(given)}"
        raise fields.error(message, hint, key=key)


def _refuse_repeated(fields: Fields, key: str, option: Option, values: Sequence[Value]) -> None:
    seen: dict[str, Value] = {}
    for value in values:
        meaning = _meaning(option, value)
        if meaning in seen:
            same = " and ".join(dict.fromkeys((text_of(seen[meaning]), text_of(value))))
            message = f"{fields.name_of(key)} has the same value twice: {same}"
            raise fields.error(message, "`repeats` measures a point again", key=key)
        seen[meaning] = value


def _meaning(option: Option, value: Value) -> str:
    """The same for `50` and `50/s`."""
    return repr(option.value_of(value))


def joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
