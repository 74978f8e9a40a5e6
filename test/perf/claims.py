"""What every program here shares: repeats, medians, and a table of both sides with their bounds."""

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from test import fakes  # noqa: F401 - puts src on the path

REPEATS = 5


def options(text: str, repeats: int = REPEATS) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--repeats", type=int, default=repeats, help="medians are of this many (%(default)s)")
    return parser


@dataclass(slots=True)
class Line:
    """One quantity: its values, and what its median is claimed to be at most or at least."""

    what: str
    unit: str
    values: list[float] = field(default_factory=list)
    at_most: float | None = None
    at_least: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def holds(self) -> bool:
        over = self.at_most is not None and self.median > self.at_most
        under = self.at_least is not None and self.median < self.at_least
        return not over and not under

    def __str__(self) -> str:
        bound = "" if self.at_most is None else f"  at most {self.at_most:,.6g}"
        bound += "" if self.at_least is None else f"  at least {self.at_least:,.6g}"
        verdict = "" if not bound else "  holds" if self.holds else "  MISSED"
        low, high = min(self.values), max(self.values)
        spread = f"[{low:,.4g} .. {high:,.4g}], n={len(self.values)}"
        return f"  {self.what:<52} {self.median:>12,.4g} {self.unit:<6} {spread}{bound}{verdict}"


def show(title: str, lines: Sequence[Line]) -> int:
    """Print the table; the exit status, 1 when a claim was missed."""
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    sys.stdout.write(f"{title} (medians; {os.cpu_count()} cores, load average {load})\n")
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0 if all(line.holds for line in lines) else 1


def ratios(ours: Line, others: Line) -> list[float]:
    """Of each pair of neighbouring measurements: drift of the machine hits both sides."""
    return [mine / other for mine, other in zip(ours.values, others.values, strict=True)]
