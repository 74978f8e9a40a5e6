"""JSON to frozen dataclasses by their annotations: every field checked, the wrong one named."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from aifbench.errors import SchemaMismatch


def decode(hint: Any, value: Any, where: str = "record") -> Any:
    """`value` as the type `hint`. Raises SchemaMismatch with the path of the field at fault.

    Knows what records are made of: plain values, enums, dataclasses, `X | None`, tuples, lists, mappings.
    """
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if NoneType in args:
        return None if value is None else decode(args[0], value, where)
    if origin in (tuple, list):
        return _sequence(origin, args, value, where)
    if origin is Mapping:
        return _mapping(args[1], value, where)
    if is_dataclass(hint):
        return _dataclass(hint, value, where)
    return _plain(hint, value, where)


def _plain(hint: Any, value: Any, where: str) -> Any:
    if issubclass(hint, Enum):
        if value in [member.value for member in hint]:
            return hint(value)
    elif isinstance(value, (int, float) if hint is float else hint) and not isinstance(value, bool):
        return value
    raise SchemaMismatch(f"{where} is {_short(value)}, not {hint.__name__}")


def _sequence(origin: type, args: tuple[Any, ...], value: Any, where: str) -> Any:
    fixed = origin is tuple and Ellipsis not in args
    if not isinstance(value, list | tuple) or (fixed and len(value) != len(args)):
        raise SchemaMismatch(
            f"{where} is {_short(value)}, not a list" + (f" of {len(args)}" if fixed else "")
        )
    return origin(decode(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))


def _mapping(item: Any, value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise SchemaMismatch(f"{where} is {_short(value)}, not an object")
    return {key: decode(item, value[key], f"{where}.{key}") for key in value}


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    given = _mapping(Any, value, where)
    hints = _hints(kind)
    for name in given:
        if name not in hints:
            raise SchemaMismatch(f"{where} has the unknown field {name!r}")
    for name in _required(kind):
        if name not in given:
            raise SchemaMismatch(f"{where} has no {name}")
    return kind(**{name: decode(hints[name], item, f"{where}.{name}") for name, item in given.items()})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


@cache
def _required(kind: Any) -> list[str]:
    return [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
