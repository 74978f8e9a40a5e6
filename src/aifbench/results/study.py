"""StudyRecord: an experiment of many runs, as plain JSON; the numbers are in the runs' own records.

Light to import (no numpy, no yaml).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from aifbench.errors import SchemaMismatch
from aifbench.results.decode import decode
from aifbench.results.record import RunState

SCHEMA = "aifbench.study/1"


class TrialState(Enum):
    """PENDING trials are what `--resume` still has to do; FAILED ones are kept as failed."""

    PENDING = "PENDING"
    DONE = "DONE"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Point:
    """One combination of the matrix: `settings` by key as written in the recipe (`rate`, `start.nodes`).

    `label` is what people read: `rate=50 start.nodes=2`.
    """

    settings: Mapping[str, Any]
    label: str


@dataclass(frozen=True, slots=True)
class Trial:
    """One repeat of one point: `point` is its index in the study's points, `repeat` counts from 1."""

    point: int
    repeat: int
    state: TrialState = TrialState.PENDING
    run_id: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A study: the verbatim recipe, its points, and its trials in the order they are run.

    `baselines` has for each point the index of the one it is compared with, None where that is not measured;
    without any (records from before there were some) it is the first point.

    `owner` is that of the writing shell, as in RunRecord. Every run of it has in its own recipe, under
    `study`: {"id", "name", "point", "label", "settings", "repeat"}, and the recipe's text under
    `recipe_text`.
    """

    study_id: str
    name: str
    created_utc: str
    state: RunState
    recipe_text: str
    recipe_file: str
    points: tuple[Point, ...]
    trials: tuple[Trial, ...]
    note: str = ""
    error: str = ""
    ended_utc: str = ""
    owner: Mapping[str, Any] = field(default_factory=dict)
    baselines: tuple[int | None, ...] = ()

    def baseline_of(self, point: int) -> int | None:
        """The index of the point that `point` is compared with."""
        return self.baselines[point] if self.baselines else 0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self, dict_factory=_plain), "schema": SCHEMA}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "StudyRecord":
        """Raises SchemaMismatch for another schema version, or naming the field that is missing or wrong."""
        schema = data.get("schema") if isinstance(data, Mapping) else None
        if schema != SCHEMA:
            raise SchemaMismatch(
                f"study schema is {schema!r}, this version reads {SCHEMA!r}",
                hint="open it with the aifbench version that wrote it",
            )
        record = decode(cls, {key: value for key, value in data.items() if key != "schema"})
        assert isinstance(record, cls)
        return record


def _plain(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value.value if isinstance(value, Enum) else value for key, value in pairs}
