"""What a comparison of runs is made of: sides, rows with their findings, and pairs of sides."""

from dataclasses import dataclass
from enum import IntEnum

from aifbench.results.differences import Difference
from aifbench.results.record import RunRecord
from aifbench.stats.comparison import Change
from aifbench.stats.comparison import Comparison as Finding

FAMILY = (
    "Holm's method adjusts p over the main numbers of one pair, and apart from these over its others: of "
    "pairs without a difference, at most one in twenty is called different in a main number."
)
Key = tuple[str, str, str]  # point of a study (or nothing), phase, stream


class Rank(IntEnum):
    """What a metric is to the reader; each is a family of its own for Holm's correction."""

    PRIMARY = 0
    SECONDARY = 1
    OTHER = 2


@dataclass(frozen=True, slots=True)
class Row:
    """One number on two sides. `finding` has medians, ratio, interval and verdict."""

    key: Key
    metric: str
    unit: str
    rank: Rank
    finding: Finding


@dataclass(frozen=True, slots=True)
class ComparedSide:
    """`judged` are the runs that count; `left_out` those that do not, each with the reason."""

    label: str
    judged: tuple[RunRecord, ...]
    left_out: tuple[tuple[RunRecord, str], ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """One side against the first."""

    base: ComparedSide
    other: ComparedSide
    rows: tuple[Row, ...]

    def of_rank(self, *ranks: Rank) -> list[Row]:
        return [row for row in self.rows if row.rank in ranks]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Sides, the first of them the base; every other side against it; and what to bear in mind."""

    sides: tuple[ComparedSide, ...]
    differences: tuple[Difference, ...]
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]
    by_point: bool = False

    def changes(self, *ranks: Rank) -> set[Change]:
        """Everything that was found among the metrics of these ranks."""
        return {row.finding.change for pair in self.pairs for row in pair.of_rank(*ranks)}


def where(key: Key) -> str:
    """`search`, or `rate=50 mixed ingest`: each word once."""
    return " ".join(dict.fromkeys(part for part in key if part))
