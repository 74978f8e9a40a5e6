"""What mdtest prints, as numbers: versions 1.9 to 4.1. Pure: text in, values out.

Its table was headed `SUMMARY:`, later `SUMMARY rate:` and `SUMMARY rate (in ops/sec):`; rows had a colon
after the operation. With `-P` a table of times follows, whose unit the program itself has labelled
`ops/sec` in some versions; it holds seconds there, and is not read.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MdtestRow:
    """Operations per second over the iterations; `operation` in lower case, such as `file creation`."""

    operation: str
    max_per_s: float
    min_per_s: float
    mean_per_s: float
    stddev_per_s: float


@dataclass(frozen=True, slots=True)
class MdtestRun:
    """The last run in a text. `rows` leaves out operations that were not run, which it prints as 0.

    `stonewall_items` are the least and the most that a process had done when time was called; with wear-out
    each went on to the most.
    """

    version: str = ""
    tasks: int | None = None
    nodes: int | None = None
    iterations: int | None = None
    rows: tuple[MdtestRow, ...] = ()
    stonewall_items: tuple[int, int] | None = None
    is_finished: bool = False
    errors: tuple[str, ...] = ()

    def row(self, operation: str) -> MdtestRow | None:
        return next((row for row in self.rows if row.operation == operation), None)


_HEADER = re.compile(r"mdtest-(\S+) was launched with (\d+) total task\(s\) on (\d+) node")
_RATES = re.compile(r"SUMMARY(?: rate)?(?: \(in ops/sec\))?: \(of (\d+) iterations\)")
_ROW = re.compile(
    r"^(?:\s*\d+: )?\s+(?P<name>(?:File|Directory|Tree) \w+)\s*:?\s+(?P<cells>(?:[-+\d.einfa]+\s*){4,})$"
)
_STONEWALL = re.compile(r"Continue stonewall hit min: (\d+) max: (\d+)")


def parse_mdtest(text: str) -> MdtestRun:
    headers = list(_HEADER.finditer(text))
    if headers:
        text = text[headers[-1].start() :]
    rates = list(_RATES.finditer(text))
    wall = _STONEWALL.search(text)
    return MdtestRun(
        version=headers[-1][1] if headers else "",
        tasks=int(headers[-1][2]) if headers else None,
        nodes=int(headers[-1][3]) if headers else None,
        iterations=int(rates[-1][1]) if rates else None,
        rows=tuple(_rows(text[rates[-1].end() :])) if rates else (),
        stonewall_items=(int(wall[1]), int(wall[2])) if wall else None,
        is_finished="-- finished at" in text,
        errors=tuple(dict.fromkeys(re.findall(r"(?m)^.*?ERROR: (.+?)\s*$", text))),
    )


def _rows(text: str) -> Iterator[MdtestRow]:
    """Up to the table of times; of a table with figures of each rank, the last four columns."""
    for line in text.partition("SUMMARY")[0].splitlines():
        found = _ROW.match(line)
        cells = [float(cell) for cell in found["cells"].split()[-4:]] if found else []
        if found and cells[0] > 0:
            yield MdtestRow(found["name"].lower(), *cells)
