"""A little of PromQL: which metrics an expression is about, and Grafana's variables in it. Pure."""

import re
from collections.abc import Mapping

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_LABELS = re.compile(r"\{[^{}]*\}")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)")
_RANGE = re.compile(r"\[[^\[\]]*\]")
_NAME = re.compile(r"(?<![\w:$.])[a-zA-Z_:][\w:]*(?!\s*\()(?![\w:])")
_WORDS = {
    "and",
    "or",
    "unless",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "bool",
    "offset",
}
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")

# What Grafana fills in by itself.
BUILT_IN = {"__rate_interval", "__interval", "__range", "__auto", "__all"}


def metric_names(expr: str) -> list[str]:
    """The metrics that an expression names, in order, each once."""
    bare = _STRING.sub('""', expr)
    for part in (_LABELS, _RANGE, _GROUPING):
        bare = part.sub(" ", bare)
    return list(dict.fromkeys(name for name in _NAME.findall(bare) if name not in _WORDS))


def variables(text: str) -> set[str]:
    """The names of all `$name` and `${name}` in a text."""
    return set(_VARIABLE.findall(text))


def filled(expr: str, values: Mapping[str, str]) -> str:
    """The expression with each variable replaced by its value. Raises KeyError for one that has none."""
    return _VARIABLE.sub(lambda found: values[found[1]], expr)
