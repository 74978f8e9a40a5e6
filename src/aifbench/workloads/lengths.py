"""How long prompts and answers are, in tokens: a distribution, or the lengths of a trace in its order."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

from aifbench.errors import UsageError
from aifbench.units import parse_count, parse_number
from aifbench.workloads.draws import share
from aifbench.workloads.length_traces import MAX_TOKENS, read_trace

_BELOW_ONE = 1.0 - 2.0**-53

Column = Literal["input", "output"]

_FORMS = "512, uniform:100:800, normal:512:128, lognormal:512:0.5, trace:FILE"


class Lengths(ABC):
    """Token counts of at least 1. `str` gives the text that `parse` takes."""

    @abstractmethod
    def at(self, quantile: float) -> int:
        """The length at a quantile in (0, 1)."""

    def draw(self, index: int, key: bytes) -> int:
        """The length of prompt `index`; a pure function. Another key gives independent lengths."""
        return self.at(share(key, index))

    def to_json(self) -> dict[str, Any]:
        return {"text": str(self)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Lengths":
        """The inverse of `to_json`; reads no file."""
        if "values" in data:
            return Trace(data["text"].partition(":")[2], tuple(data["values"]))
        return Lengths.parse(data["text"], "length")

    @staticmethod
    def parse(text: str, option: str, column: Column = "input") -> "Lengths":
        """From `512`, or one of the forms `uniform:LOW:HIGH`, `normal:MEAN:SD`, `lognormal:MEDIAN:SIGMA`
        (both with an optional `:LOW:HIGH` that cuts the distribution off) and `trace:FILE`, of which `column`
        is taken. Raises UsageError naming `option` and the value.
        """
        kind, colon, rest = text.strip().partition(":")
        if kind == "trace" and rest:
            return Trace(rest, tuple(read_trace(rest, option)[column]))
        if not colon:
            return Fixed(_count(kind, option))
        arguments = rest.split(":")
        makers = {"uniform": _uniform, "normal": _normal, "lognormal": _log_normal}
        if kind not in makers:
            raise UsageError(f"{option} {text!r} is no known distribution", hint=f"give one like {_FORMS}")
        try:
            return makers[kind](arguments, option)
        except _WrongNumber:
            raise UsageError(
                f"{option} {text!r} has {len(arguments)} parameters", hint=f"give one like {_FORMS}"
            ) from None


@dataclass(frozen=True, slots=True)
class Fixed(Lengths):
    tokens: int

    def __str__(self) -> str:
        return str(self.tokens)

    def at(self, quantile: float) -> int:  # noqa: ARG002
        return self.tokens

    def draw(self, index: int, key: bytes) -> int:  # noqa: ARG002
        return self.tokens


@dataclass(frozen=True, slots=True)
class Uniform(Lengths):
    """Every length from `low` to `high`, both included, alike."""

    low: int
    high: int

    def __str__(self) -> str:
        return f"uniform:{self.low}:{self.high}"

    def at(self, quantile: float) -> int:
        return self.low + int(quantile * (self.high - self.low + 1))


@dataclass(frozen=True, slots=True)
class Normal(Lengths):
    """Normal, cut off (not clamped) outside [low - 1/2, high + 1/2], then rounded.

    With `is_log` the logarithm is normal: `centre` is the median and `spread` the sigma of the logarithm.
    """

    centre: float
    spread: float
    low: int = 1
    high: int = MAX_TOKENS
    is_log: bool = False

    def __str__(self) -> str:
        text = f"{'lognormal' if self.is_log else 'normal'}:{self.centre:.12g}:{self.spread:.12g}"
        return text if (self.low, self.high) == (1, MAX_TOKENS) else f"{text}:{self.low}:{self.high}"

    def cut(self) -> tuple[float, float]:
        """The probabilities of the untruncated distribution at the two ends."""
        distribution = self._distribution()
        return distribution.cdf(self._scale(self.low - 0.5)), distribution.cdf(self._scale(self.high + 0.5))

    def at(self, quantile: float) -> int:
        first, last = self.cut()
        value = self._distribution().inv_cdf(min(first + quantile * (last - first), _BELOW_ONE))
        tokens = math.exp(value) if self.is_log else value
        return min(max(round(tokens), self.low), self.high)

    def _distribution(self) -> NormalDist:
        return NormalDist(self._scale(self.centre), self.spread)

    def _scale(self, tokens: float) -> float:
        return math.log(tokens) if self.is_log else tokens


@dataclass(frozen=True, slots=True)
class Trace(Lengths):
    """The lengths of a file in its order, from the start again after the last.

    Input and output of one trace stay paired, because both are looked up by the prompt's index.
    """

    path: str
    values: tuple[int, ...]

    def __str__(self) -> str:
        return f"trace:{self.path}"

    def at(self, quantile: float) -> int:
        return sorted(self.values)[int(quantile * len(self.values))]

    def draw(self, index: int, key: bytes) -> int:  # noqa: ARG002
        return self.values[index % len(self.values)]

    def to_json(self) -> dict[str, Any]:
        return {"text": str(self), "values": list(self.values)}


class _WrongNumber(Exception):
    """A distribution has more or fewer parameters than it takes."""


def _count(text: str, option: str) -> int:
    return parse_count(text, option, minimum=1, maximum=MAX_TOKENS)


def _uniform(arguments: Sequence[str], option: str) -> Lengths:
    if len(arguments) != 2:
        raise _WrongNumber
    return Uniform(*_bounds(arguments, option))


def _bounds(arguments: Sequence[str], option: str) -> tuple[int, int]:
    low, high = (_count(argument, option) for argument in arguments)
    if low > high:
        raise UsageError(f"{option} goes from {low} to {high}", hint="give the smaller length first")
    return low, high


def _normal(arguments: Sequence[str], option: str) -> Lengths:
    return _bell(arguments, option, is_log=False)


def _log_normal(arguments: Sequence[str], option: str) -> Lengths:
    return _bell(arguments, option, is_log=True)


def _bell(arguments: Sequence[str], option: str, *, is_log: bool) -> Lengths:
    if len(arguments) not in (2, 4):
        raise _WrongNumber
    centre = parse_number(arguments[0], option, minimum=1, maximum=MAX_TOKENS)
    spread = parse_number(arguments[1], option, minimum=1e-6, maximum=5 if is_log else MAX_TOKENS)
    low, high = _bounds(arguments[2:], option) if len(arguments) == 4 else (1, MAX_TOKENS)
    lengths = Normal(centre, spread, low, high, is_log)
    first, last = lengths.cut()
    if last - first < 1e-3:
        raise UsageError(
            f"{option} {lengths} is cut off almost everywhere",
            hint=f"{low} to {high} should hold some of the distribution around {centre:g}",
        )
    return lengths
