"""JSON to frozen dataclasses by their annotations: every field checked, the wrong one named.

Each annotation becomes a reader once, so that listing a thousand records stays quick.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from aifbench.errors import SchemaMismatch

Reader = Callable[[Any], Any]
_LARGEST = 1e100  # JSON as Python reads it has NaN, Infinity and integers of a thousand digits


def decode(hint: Any, value: Any, where: str = "record") -> Any:
    """`value` as the type `hint`. Raises SchemaMismatch with the path of the field at fault.

    Knows what records are made of: plain values, enums, dataclasses, `X | None` of plain values, tuples,
    lists, mappings and Any.
    """
    try:
        return _reader(hint)(value)
    except _Wrong as wrong:
        raise SchemaMismatch(f"{where}{wrong.path} {wrong.words}") from None


class _Wrong(Exception):
    """What is wrong, and where: the path grows on the way out."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words
        self.path = ""

    def inside(self, step: str) -> "_Wrong":
        self.path = step + self.path
        return self


@cache
def _reader(hint: Any) -> Reader:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return lambda value: value
    if origin in (tuple, list):
        return _sequence_reader(origin, args)
    if origin is Mapping:
        return _mapping_reader(_reader(args[1]))
    if is_dataclass(hint):
        return _dataclass_reader(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _enum_reader(hint)
    return _plain_reader(args or (hint,))


def _plain_reader(kinds: tuple[type, ...]) -> Reader:
    allowed = {*kinds, int} if float in kinds else {*kinds}
    name = next(kind.__name__ for kind in kinds if kind is not NoneType)

    def read(value: Any) -> Any:
        if type(value) in allowed:
            return value
        raise _Wrong(f"is {_short(value)}, not {name}")

    def read_number(value: Any) -> Any:
        if type(value) in allowed:
            if value is None or -_LARGEST <= value <= _LARGEST:
                return value
            raise _Wrong(f"is {_short(value)}, which nobody can have measured")
        raise _Wrong(f"is {_short(value)}, not {name}")

    return read_number if int in allowed else read


def _enum_reader(kind: type[Enum]) -> Reader:
    members = {member.value: member for member in kind}

    def read(value: Any) -> Any:
        if isinstance(value, str) and value in members:
            return members[value]
        raise _Wrong(f"is {_short(value)}, not one of {', '.join(members)}")

    return read


def _sequence_reader(origin: type, args: tuple[Any, ...]) -> Reader:
    item = _reader(args[0])
    length = len(args) if origin is tuple and Ellipsis not in args else None

    def read(value: Any) -> Any:
        if not isinstance(value, list | tuple) or length not in (None, len(value)):
            raise _Wrong(f"is {_short(value)}, not a list" + (f" of {length}" if length else ""))
        done: list[Any] = []
        try:
            for element in value:
                done.append(item(element))
        except _Wrong as wrong:
            raise wrong.inside(f"[{len(done)}]") from None
        return done if origin is list else tuple(done)

    return read


def _mapping_reader(item: Reader) -> Reader:
    def read(value: Any) -> dict[str, Any]:
        done = {}
        for key, element in _object(value).items():
            try:
                done[key] = item(element)
            except _Wrong as wrong:
                raise wrong.inside(f".{key}") from None
        return done

    return read


def _dataclass_reader(kind: Any) -> Reader:
    hints = get_type_hints(kind)
    readers = {field.name: _reader(hints[field.name]) for field in fields(kind)}
    required = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]

    def read(value: Any) -> Any:
        given = _object(value)
        for name in given:
            if name not in readers:
                raise _Wrong(f"has the unknown field {name!r}")
        for name in required:
            if name not in given:
                raise _Wrong(f"has no {name}")
        done = {}
        for name, element in given.items():
            try:
                done[name] = readers[name](element)
            except _Wrong as wrong:
                raise wrong.inside(f".{name}") from None
        return kind(**done)

    return read


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _Wrong(f"is {_short(value)}, not an object")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
