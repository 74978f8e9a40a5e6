"""Public IO500 results to compare with: where a run would stand, and its share of MeluXina's own entry.

`io500_figures.csv` holds figures of the public archive, IO500/submission-data. A job of a few nodes is
compared by bandwidth per node, which its own network bounds, but by the total of metadata rates, because
metadata servers do not grow with their clients.
"""

import csv
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from aifbench.workloads.io500_score import BANDWIDTH_PHASES, SCORED_PHASES, Printed, Score, strict_score
from aifbench.workloads.io500_summary import unit_of

MELUXINA_SUBMISSION = "550"
MELUXINA_NODES = 512

_FILE = Path(__file__).with_name("io500_figures.csv")


@dataclass(frozen=True, slots=True)
class PublicFigure:
    """One published run; a system has as many as it handed in. Figures are kept as printed."""

    submission: str
    year: int
    institution: str
    system: str
    file_system: str
    version: str
    bandwidth: Printed
    metadata: Printed
    total: Printed
    phases: Mapping[str, Printed]

    @property
    def strict(self) -> Score:
        return strict_score({name: printed.value for name, printed in self.phases.items()})


@dataclass(frozen=True, slots=True)
class Standing:
    """`above` of `systems` public systems (the best run of each) have a lower score."""

    above: int
    systems: int

    @property
    def percentile(self) -> float:
        return 100.0 * self.above / self.systems


@dataclass(frozen=True, slots=True)
class Share:
    """One figure against the reference: per node for bandwidth, in total for metadata."""

    name: str
    value: float
    reference: float
    unit: str

    @property
    def share(self) -> float:
        return self.value / self.reference


@cache
def public_figures() -> tuple[PublicFigure, ...]:
    """All of them, in the order of the file."""
    with _FILE.open(encoding="utf-8", newline="") as lines:
        return tuple(_figure(row) for row in csv.DictReader(line for line in lines if line[0] != "#"))


def standing(score: Score) -> Standing:
    """By strict scores on both sides. Systems of unequal size are in it: it says where, not how well."""
    scores = sorted(_best_scores().values())
    return Standing(bisect_left(scores, score.total), len(scores))


def meluxina() -> PublicFigure:
    """The Tier-1 scratch of MeluXina, 2021, by 512 nodes with 12,288 processes."""
    return next(figure for figure in public_figures() if figure.submission == MELUXINA_SUBMISSION)


def shares_of_meluxina(values: Mapping[str, float], nodes: int) -> tuple[Share, ...]:
    """For each scored phase in `values` (GiB/s for ior-*, kIOPS), measured by `nodes` nodes."""
    reference = meluxina().phases
    return tuple(
        Share(name, values[name] / nodes, reference[name].value / MELUXINA_NODES, f"{unit_of(name)} per node")
        if name in BANDWIDTH_PHASES
        else Share(name, values[name], reference[name].value, unit_of(name))
        for name in SCORED_PHASES
        if name in values
    )


@cache
def _best_scores() -> dict[tuple[str, str, str], float]:
    best: dict[tuple[str, str, str], float] = {}
    for figure in public_figures():
        key = (figure.institution, figure.system, figure.file_system)
        best[key] = max(best.get(key, 0.0), figure.strict.total)
    return best


def _figure(row: Mapping[str, str]) -> PublicFigure:
    return PublicFigure(
        submission=row["submission"],
        year=int(row["year"]),
        institution=row["institution"],
        system=row["system"],
        file_system=row["filesystem"],
        version=row["version"],
        bandwidth=Printed.of(row["bw_gib_s"]),
        metadata=Printed.of(row["md_kiops"]),
        total=Printed.of(row["score"]),
        phases={name: Printed.of(row[name]) for name in SCORED_PHASES},
    )
