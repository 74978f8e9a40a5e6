"""What a `/metrics` page says: the Prometheus text format (0.0.4 and 1.0.0) and OpenMetrics, text to values.

Lines that are not of the format are counted and left out, so that one bad line costs one value.
"""

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

# What a family adds to its name for its values; `_created` is left out, it says when and not how much.
_SUFFIXES = ("", "_total", "_bucket", "_sum", "_count")

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(,\s*|(?=\}))')
_VALUE = re.compile(r"[+-]?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|Inf|NaN)", re.IGNORECASE)
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n"}


@dataclass(frozen=True, slots=True)
class Series:
    """One line's identity: its name, and its labels in order of their names."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()

    def label(self, name: str) -> str:
        """Empty when there is no such label, which means the same in this format."""
        return next((value for key, value in self.labels if key == name), "")

    def __str__(self) -> str:
        if not self.labels:
            return self.name
        pairs = ",".join(f'{name}="{_escape(value)}"' for name, value in self.labels)
        return f"{self.name}{{{pairs}}}"


@dataclass(frozen=True, slots=True)
class Page:
    """The values of one page, and how many of its lines could not be read. A value may be NaN or infinite."""

    values: dict[Series, float] = field(default_factory=dict)
    bad_lines: int = 0


class NotASeries(ValueError):
    """A text that is no `name{label="value"}`."""


def parse(text: str, families: Collection[str] | None = None) -> Page:
    """All samples, or only those of `families` (named without `_total`, `_bucket`, `_sum`, `_count`).

    A page ends with a line feed; one that does not was cut, and its last line may hold half a number.
    """
    wanted = None if families is None else {name + suffix for name in families for suffix in _SUFFIXES}
    values: dict[Series, float] = {}
    bad_lines = 0
    for line, complete in _lines(text):
        name = _NAME.match(line)
        if wanted is not None and name is not None and name[0] not in wanted:
            continue
        try:
            series, rest = _series(line)
            values[series] = _value(rest, complete=complete)
        except NotASeries:
            bad_lines += 1
    return Page(values, bad_lines)


def _lines(text: str) -> Iterator[tuple[str, bool]]:
    """Lines that should hold a sample, and whether each is complete."""
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        complete = end >= 0
        line = text[start : end if complete else len(text)].strip()
        if line and not line.startswith("#"):
            yield line, complete
        start = end + 1 if complete else len(text)


def _series(line: str) -> tuple[Series, str]:
    """A line's identity, and what follows it."""
    name = _NAME.match(line)
    if name is None:
        raise NotASeries(line)
    at = name.end()
    if not line.startswith("{", at):
        return Series(name[0]), line[at:]
    labels: list[tuple[str, str]] = []
    at += 1
    while not line.startswith("}", at):
        label = _LABEL.match(line, at)
        if label is None:
            raise NotASeries(line)
        labels.append((label[1], _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), label[2])))
        at = label.end()
    return Series(name[0], tuple(sorted(labels))), line[at + 1 :]


def _value(rest: str, *, complete: bool) -> float:
    """The number after a series; a time stamp and an exemplar (`# {...}`) may follow it."""
    words = rest.partition("#")[0].split()
    if not complete or len(words) not in (1, 2) or not _VALUE.fullmatch(words[0]):
        raise NotASeries(rest)
    if len(words) == 2 and not _VALUE.fullmatch(words[1]):
        raise NotASeries(rest)
    return float(words[0])


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def finite(values: dict[Series, float]) -> dict[Series, float]:
    """Without NaN and infinities, by which a server says that it has no value."""
    return {series: value for series, value in values.items() if math.isfinite(value)}
