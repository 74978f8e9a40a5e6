"""Samples of a server's metrics, in memory and as a file of JSON lines.

A line of series whenever they change, and a line of numbers for every sample.
"""

import json
from array import array
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from aifbench.workloads.prometheus_text import Series


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One page: when it was asked for (half-way to its answer, both clocks), and the finite values it held.

    `series` is shared between snapshots that hold the same ones.
    """

    wall_s: float
    perf_s: float
    series: tuple[Series, ...]
    numbers: "array[float]"

    def values(self) -> dict[Series, float]:
        return dict(zip(self.series, self.numbers, strict=True))


class Journal:
    """Writes samples to `path`, or nowhere. A file that cannot be written is told once, and given up."""

    def __init__(self, path: Path | None, tell: Callable[[str], None]) -> None:
        self._path = path
        self._tell = tell
        self._file: IO[str] | None = None
        self._series: tuple[Series, ...] = ()

    def __enter__(self) -> Self:
        if self._path is not None:
            try:
                self._file = self._path.open("w", encoding="utf-8")
            except OSError as error:
                self._give_up(error)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()

    def write(self, snapshot: Snapshot) -> None:
        if self._file is None:
            return
        try:
            if snapshot.series != self._series:
                self._series = snapshot.series
                self._write({"series": [str(series) for series in self._series]})
            numbers = [int(value) if value.is_integer() else value for value in snapshot.numbers]
            times = {"wall_s": round(snapshot.wall_s, 6), "perf_s": round(snapshot.perf_s, 6)}
            self._write({**times, "values": numbers})
            self._file.flush()
        except OSError as error:
            self._give_up(error)

    def _write(self, line: Mapping[str, object]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")

    def _give_up(self, error: OSError) -> None:
        self._tell(f"cannot write the samples: {error.strerror}")
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()
