"""What IOR prints, as numbers: its tables of versions 3.0 to 4.1, and its JSON. Pure: text in, values out.

Columns are found by their headings, which differ between versions. A run that came to its end says
`Finished`; one that was cut shows the rows of the iterations it completed.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class IorStonewall:
    """The state when time was called: bytes moved by all, from the mean of each task."""

    time_s: float
    min_gib: float
    mean_gib: float


@dataclass(frozen=True, slots=True)
class IorRow:
    """One iteration of one access (`write`, `read`): MiB/s over `total_s`, to the end of the last task."""

    access: str
    bandwidth_mib_s: float
    total_s: float | None = None
    iops: float | None = None
    iteration: int = 0
    stonewall: IorStonewall | None = None


@dataclass(frozen=True, slots=True)
class IorRun:
    """The last run in a text. `warnings` and `errors` are its own lines, without repeats."""

    version: str = ""
    tasks: int | None = None
    nodes: int | None = None
    rows: tuple[IorRow, ...] = ()
    repeats: int | None = None
    is_shared: bool | None = None
    stonewall_s: int | None = None
    has_wear_out: bool = False
    is_finished: bool = False
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()

    def of(self, access: str) -> tuple[IorRow, ...]:
        return tuple(row for row in self.rows if row.access == access)

    def stonewall_rate(self, row: IorRow) -> float | None:
        """MiB/s when time was called; None where that was not reached or not told."""
        wall = row.stonewall
        if wall is None or not wall.time_s or not self.tasks:
            return None
        return wall.mean_gib * 1024 * self.tasks / wall.time_s


def parse_ior(text: str) -> IorRun:
    """Text or JSON, whichever it is; JSON that was cut gives a run without rows, not finished."""
    begin = text.find("{")
    if begin >= 0 and '"tests"' in text[begin:] and not text[:begin].strip():
        return _of_json(text[begin:])
    return _of_text(_last_run(text))


_HEADER = re.compile(r"IOR-(\S+?):? MPI Coordinated Test")
_STONEWALL = re.compile(
    r"stonewalling pairs accessed min: .*? min data: ([\d.]+) GiB mean data: ([\d.]+) GiB time: ([\d.]+)s"
)
_ACCESSES = ("write", "read")


def _last_run(text: str) -> str:
    headers = list(_HEADER.finditer(text))
    return text[headers[-1].start() :] if headers else text


def _of_text(text: str) -> IorRun:
    settings = dict(
        re.findall(r"(?m)^[ \t]*(?:\d+: )?[ \t]*([a-zA-Z][\w ]*?)[ \t]*[:=][ \t]+(\S.*?)[ \t\r]*$", text)
    )
    header = _HEADER.search(text)
    rows = tuple(_rows(text))
    return IorRun(
        version=header[1] if header else "",
        tasks=_whole(settings.get("tasks") or settings.get("clients")),
        nodes=_whole(settings.get("nodes")),
        rows=rows,
        repeats=_whole(settings.get("repetitions")),
        is_shared=settings["access"].startswith("single") if "access" in settings else None,
        stonewall_s=_whole(settings.get("stonewallingTime")) or _old_stonewall(text),
        has_wear_out=settings.get("stoneWallingWearOut") == "1" or "with phase out" in text,
        is_finished=re.search(r"(?m)^(?:\s*\d+: )?Finished\s*:", text) is not None,
        warnings=_lines(r"(?m)^.*?WARNING: (.+?)\s*$", text),
        errors=_lines(r"(?m)^.*?(?:ior ERROR: |ERROR: )(.+?)\s*$", text),
    )


def _rows(text: str) -> Iterator[IorRow]:
    """The rows of the results table, by its headings; `remove` and summary rows are not among them."""
    columns: list[str] = []
    wall: IorStonewall | None = None
    for line in text.splitlines():
        words = re.sub(r"^\s*\d+:\s", "", line).split()
        if not words:
            continue
        if words[0] == "access" and any(word.startswith("bw(") for word in words):
            columns = words
        elif words[0] == "Operation" or line.startswith(("Summary of all tests", "Max Write", "Max Read")):
            columns = []
        elif found := _STONEWALL.search(line):
            wall = IorStonewall(float(found[3]), float(found[1]), float(found[2]))
        elif columns and words[0] in _ACCESSES and (row := _row(columns, words)):
            yield replace(row, stonewall=wall)
            wall = None


def _row(columns: list[str], words: list[str]) -> IorRow | None:
    """None for a row that was cut."""
    if len(words) < len(columns):
        return None
    cells = dict(zip(columns, words, strict=False))
    bandwidth = _number(cells[next(name for name in columns if name.startswith("bw("))])
    if bandwidth is None:
        return None
    return IorRow(
        access=words[0],
        bandwidth_mib_s=bandwidth,
        total_s=_number(cells.get("total(s)")),
        iops=_number(cells.get("IOPS")),
        iteration=_whole(cells.get("iter")) or 0,
    )


def _of_json(text: str) -> IorRun:
    """As `-O summaryFormat=JSON` writes it: `tests[].Results[]`, one entry for each row."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        return IorRun(errors=(f"its JSON is cut or damaged: {error.msg}, line {error.lineno}",))
    tests = [test for test in data.get("tests", ()) if isinstance(test, dict)]
    test = tests[-1] if tests else {}
    parameters, options = test.get("Parameters", {}), test.get("Options", {})
    results = test.get("Results") or options.get("Results") or ()
    return IorRun(
        version=str(data.get("Version", "")).removeprefix("IOR-"),
        tasks=_whole(options.get("tasks")) or _first(data.get("summary"), "numTasks"),
        nodes=_whole(options.get("nodes")) or _whole(parameters.get("nodes")),
        rows=tuple(row for entry in results if (row := _row_of_json(entry)) is not None),
        repeats=_whole(parameters.get("repetitions")) or _whole(options.get("repetitions")),
        is_shared=str(options.get("access", "single")).startswith("single"),
        stonewall_s=_whole(parameters.get("deadlineForStonewall")) or None,
        has_wear_out=parameters.get("stoneWallingWearOut") in (1, "1", True),
        is_finished="Finished" in data or "finished" in data,
    )


def _row_of_json(entry: Mapping[str, Any]) -> IorRow | None:
    bandwidth = _number(entry.get("bwMiB"))
    if entry.get("access") not in _ACCESSES or bandwidth is None:
        return None
    return IorRow(
        access=str(entry["access"]),
        bandwidth_mib_s=bandwidth,
        total_s=_number(entry.get("totalTime")),
        iops=_number(entry.get("iops")),
        iteration=_whole(entry.get("iter")) or 0,
    )


def _first(entries: object, key: str) -> int | None:
    return _whole(entries[0].get(key)) if isinstance(entries, list) and entries else None


def _old_stonewall(text: str) -> int | None:
    found = re.search(r"Using stonewalling = (\d+) second", text)
    return int(found[1]) if found else None


def _lines(pattern: str, text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(re.findall(pattern, text)))


def _whole(value: object) -> int | None:
    found = re.match(r"\s*(\d+)", str(value)) if value is not None else None
    return int(found[1]) if found else None


def _number(value: object) -> float | None:
    """None for `-`, `NA`, and what is no finite number."""
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if number - number == 0 else None
