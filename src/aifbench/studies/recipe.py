"""Recipes: an experiment as a YAML file; as values here. Reading one checks every key and value in it.

Light to import: yaml is loaded when a recipe is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from aifbench.options import Option

ORDERS = ("shuffled", "interleaved", "sequential")
TOGETHER = ("interference", "rag")
DEFAULT_REPEATS = 5
DEFAULT_TRIALS = 1000
MAX_TRIALS = 10_000

# As written in the file, for the option itself to parse; True or False for a flag.
Value = str | bool


class Catalog(Protocol):
    """What can be started and asked for; Session is one."""

    def kinds(self) -> list[str]: ...

    def start_options(self, kind: str) -> tuple[Option, ...]: ...

    def runs_and_ends(self, kind: str) -> bool:
        """Whether its job ends before it is measured, and its `nodes` are those that make the load."""
        ...

    def bench_names(self, kind: str) -> tuple[str, ...]: ...

    def bench_options(self, kind: str) -> tuple[Option, ...]: ...

    def together_options(self, together: str) -> tuple[Option, ...]:
        """Of a benchmark over several services, one of TOGETHER."""
        ...

    def check_together(
        self,
        members: Mapping[str, tuple[str, str, Mapping[str, Any]]],
        together: str,
        given: Mapping[str, Any],
    ) -> None:
        """Raises UsageError where members, (kind, bench, options) by role, cannot be used together."""
        ...


@dataclass(frozen=True, slots=True)
class Member:
    """One service of a study. `role` is empty where it is the only one; `attach` names one that runs
    already, which is then neither started nor stopped. Keys of `start` and `options` are `Option.key`s.
    """

    role: str
    kind: str
    start: Mapping[str, Value]
    bench: str
    options: Mapping[str, Value]
    attach: str = ""


@dataclass(frozen=True, slots=True)
class Axis:
    """What varies: each row has one value for each key. Several keys move together (`zip`)."""

    keys: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """Above `trials` a recipe is refused; above `node_hours` (None: no limit) it is not started unasked."""

    node_hours: float | None = None
    trials: int = DEFAULT_TRIALS


@dataclass(frozen=True, slots=True)
class Recipe:
    """A valid recipe. Keys of axes, `exclude` and `baseline` are `X` (an option of the benchmark),
    `start.X`, and with several services `ROLE.X` and `ROLE.start.X`; X is an `Option.key`.

    `options` are those of the benchmark over several services (`together`), else empty; `slo` is in the
    options already where it applies. `text` is the file verbatim.
    """

    name: str
    members: tuple[Member, ...]
    text: str
    file: str
    note: str = ""
    together: str = ""
    options: Mapping[str, Value] = field(default_factory=dict)
    axes: tuple[Axis, ...] = ()
    exclude: tuple[Mapping[str, Value], ...] = ()
    baseline: Mapping[str, Value] = field(default_factory=dict)
    repeats: int = DEFAULT_REPEATS
    order: str = ORDERS[0]
    seed: int = 1
    slo: str = ""
    limits: Limits = Limits()


def load_recipe(path: Path, catalog: Catalog) -> Recipe:
    """The recipe in a file. Raises UsageError with file, line, key and what is allowed."""
    from aifbench.studies.recipe_reader import read_recipe
    from aifbench.studies.yaml_text import read_text

    return read_recipe(read_text(path), str(path), catalog)
