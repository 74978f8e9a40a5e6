"""A table of a recipe with its place in the file, so that every complaint names file, line and key.

Imports yaml through yaml_text, so import this module where it is used.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from aifbench.errors import UsageError
from aifbench.options import Option, nearest
from aifbench.studies.recipe import Value
from aifbench.studies.yaml_text import Items, Node, Scalar, Table, located

_T = TypeVar("_T")
_FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_SHAPES = {Scalar: "one value", Items: "a list", Table: "keys with values"}


class Fields:
    """One table. `path` is how a message names it: empty for the whole file, else such as `limits`."""

    def __init__(self, file: str, table: Table, path: str = "") -> None:
        self.file = file
        self.path = path
        self._table = table

    def __contains__(self, key: str) -> bool:
        return key in self._table.nodes

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.nodes)

    def node(self, key: str) -> Node:
        return self._table.nodes[key]

    def name_of(self, key: str) -> str:
        return f"`{self.path}.{key}`" if self.path else f"`{key}`"

    def error(self, message: str, hint: str = "", *, key: str = "") -> UsageError:
        """About one key, or the whole table: names the line of either."""
        line = self._table.key_lines.get(key, self._table.line)
        return located(self.file, line, message, hint)

    def require(self, *keys: str) -> None:
        for key in keys:
            if key not in self:
                raise self.error(f"{self.name_of(key)} is missing", f"given here: {', '.join(self)}")

    def allow(self, valid: Iterable[str]) -> None:
        """Raises UsageError for the first key that is not `valid`."""
        valid = list(valid)
        for key in self:
            if key not in valid:
                close = nearest(key, valid)
                raise self.error(
                    f"unknown key {self.name_of(key)}{close}", f"valid: {', '.join(valid)}", key=key
                )

    def refuse(self, keys: Iterable[str], reason: str, hint: str) -> None:
        """Raises UsageError for keys that are known, but cannot be here."""
        for key in keys:
            if key in self:
                raise self.error(f"{self.name_of(key)} {reason}", hint, key=key)

    def text(self, key: str, default: str = "") -> str:
        """The text of a scalar, as typed."""
        return self.scalar(key, self._table.nodes[key]) if key in self else default

    def scalar(self, key: str, node: Node) -> str:
        if not isinstance(node, Scalar):
            raise located(
                self.file,
                node.line,
                f"{self.name_of(key)} is {_SHAPES[type(node)]}, not one value",
                f"give one value; text with commas, colons or braces needs quotes: {key}: 'a,b'",
            )
        if node.is_null:
            raise located(
                self.file, node.line, f"{self.name_of(key)} has no value", "give one, or remove the key"
            )
        return node.text

    def parsed(self, key: str, parse: Callable[[str], _T], default: _T) -> _T:
        """What `parse` makes of a scalar; its UsageError gets the place."""
        return self.checked(key, parse, self._table.nodes[key]) if key in self else default

    def checked(self, key: str, parse: Callable[[str], _T], node: Node) -> _T:
        text = self.scalar(key, node)
        try:
            return parse(text)
        except UsageError as error:
            message = f"{self.name_of(key)}: {error.message}"
            raise located(self.file, node.line, message, error.hint) from None

    def table(self, key: str, path: str = "") -> "Fields":
        """The table below a key; an empty one where the key is missing."""
        node = self._table.nodes.get(key, Table(self._table.line, {}, {}))
        return self.as_table(key, node, path or self.name_of(key).strip("`"))

    def as_table(self, key: str, node: Node, path: str) -> "Fields":
        if not isinstance(node, Table):
            raise located(
                self.file,
                node.line,
                f"{self.name_of(key)} is {_shape(node)}, not keys with values",
                f"write {key}: {{key: value}}, or keys indented below {key}",
            )
        return Fields(self.file, node, path)

    def items(self, key: str) -> tuple[Node, ...]:
        """The nodes of a list that is not empty."""
        node = self._table.nodes[key]
        if not isinstance(node, Items):
            raise located(
                self.file,
                node.line,
                f"{self.name_of(key)} is {_shape(node)}, not a list",
                f"write {key}: [one, two]",
            )
        if not node.nodes:
            raise located(self.file, node.line, f"{self.name_of(key)} is empty", "give values, or remove it")
        return node.nodes

    def option_values(self, options: Mapping[str, Option], whose: str) -> dict[str, Value]:
        """Every key of this table as an option of `options` (by Option.key), its value checked."""
        found: dict[str, Value] = {}
        for key in self:
            canonical = key.replace("-", "_")
            if canonical not in options:
                close = nearest(canonical, options)
                hint = f"valid: {', '.join(options)}" if options else "remove it"
                raise self.error(f"{self.name_of(key)} is no option of {whose}{close}", hint, key=key)
            if canonical in found:
                raise self.error(f"{self.name_of(key)} is given twice", "keep one of them", key=key)
            found[canonical] = self.option_value(key, options[canonical], self._table.nodes[key])
        return found

    def option_value(self, key: str, option: Option, node: Node) -> Value:
        """The text as typed, once the option has accepted it; True or False for a flag."""

        def accepted(text: str) -> Value:
            if not option.flag:
                option.value_of(text)
                return text
            if text.lower() not in _FLAGS:
                raise UsageError(f"{text!r} is neither true nor false", hint="give true or false")
            return _FLAGS[text.lower()]

        return self.checked(key, accepted, node)


def _shape(node: Node) -> str:
    is_nothing = isinstance(node, Scalar) and node.is_null
    return "empty" if is_nothing else _SHAPES[type(node)]
