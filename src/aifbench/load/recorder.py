"""Recorder: one worker's operations, appended to files while the load runs.

The hot path appends one packed row to a list. A thread writes the rows to disk twice a second, so a
worker that is killed loses at most that much. Times are absolute `time.perf_counter_ns` values; a first
row, which is no operation, holds the worker's value at the common start: the file explains itself.
"""

import struct
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aifbench.load.samples import NOT_SEEN, Samples

# index, intended, sent, first byte, finished, outcome, status, items, bytes out, bytes in
_ROW = struct.Struct("=10q")
pack_row = _ROW.pack
ROW_BYTES = _ROW.size
_COLUMNS = 10

# A live display wants a sample of the last second, not all of it.
MAX_NEW_ROWS = 50_000

FLUSH_INTERVAL_S = 0.5

# Distinct error texts kept per worker; a service that invents a new text each time must not fill memory.
MAX_ERROR_TEXTS = 50
OTHER_ERRORS = "(other errors)"


class ErrorTally:
    """Counts of distinct error texts, bounded in number and in length."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def add(self, text: str, count: int = 1) -> None:
        key = " ".join(text.split())[:200]
        if key not in self.counts and len(self.counts) >= MAX_ERROR_TEXTS:
            key = OTHER_ERRORS
        self.counts[key] = self.counts.get(key, 0) + count


class Recorder:
    """Rows, qualities and raw answers of one worker, on their way to `directory`.

    `add` takes `pack_row(...)` bytes. With `keep_answers`, `answers` takes one body per row in the
    same order, of exactly the length that the row gives as bytes in.
    """

    def __init__(
        self, directory: Path, name: str, origin_ns: int, *, on_tick: Callable[[], None] | None = None
    ) -> None:
        self._rows: list[bytes] = [pack_row(NOT_SEEN, origin_ns, 0, 0, 0, 0, 0, 0, 0, 0)]
        self._answers: list[bytes] = []
        self._qualities: list[bytes] = []
        self.add = self._rows.append
        self.add_answer = self._answers.append
        self.add_quality = self._qualities.append
        self.errors = ErrorTally()
        self._pairs = [
            (self._answers, answers_path(directory, name).open("wb")),
            (self._qualities, qualities_path(directory, name).open("wb")),
            (self._rows, rows_path(directory, name).open("wb")),
        ]
        self._on_tick = on_tick
        self._closing = threading.Event()
        self.failure = ""
        self._thread = threading.Thread(target=self._flush_until_closed, name="recorder", daemon=True)
        self._thread.start()

    def _flush_until_closed(self) -> None:
        while not self._closing.wait(FLUSH_INTERVAL_S):
            self._flush()
            if self._on_tick is not None:
                self._on_tick()

    def _flush(self) -> None:
        # A row is added after its answer, counted before it and written after it: so a row on disk
        # always has its answer on disk, whenever the worker is killed.
        counts = [len(queue) for queue, _ in reversed(self._pairs)][::-1]
        for (queue, file), count in zip(self._pairs, counts, strict=True):
            if not count:
                continue
            data = b"".join(queue[:count])
            del queue[:count]
            try:
                file.write(data)
                file.flush()
            except OSError as error:
                self.failure = self.failure or f"cannot write samples: {error.strerror}"

    def close(self) -> None:
        """Write what is left; the files are complete afterwards."""
        self._closing.set()
        self._thread.join()
        self._flush()
        for _, file in self._pairs:
            file.close()


def rows_path(directory: Path, name: str) -> Path:
    return directory / f"{name}.rows"


def answers_path(directory: Path, name: str) -> Path:
    return directory / f"{name}.answers"


def qualities_path(directory: Path, name: str) -> Path:
    return directory / f"{name}.qualities"


def count_rows(directory: Path, name: str) -> int:
    """How many operations are on disk so far; cheap enough for a live display."""
    try:
        return max(0, rows_path(directory, name).stat().st_size // ROW_BYTES - 1)
    except OSError:
        return 0


def read_table(path: Path) -> NDArray[np.int64]:
    """All rows as an int64 array of shape (1 + n, 10), writable; a torn last row is left out."""
    data = np.fromfile(path, np.int64) if path.exists() else np.empty(0, np.int64)
    return data[: len(data) // _COLUMNS * _COLUMNS].reshape(-1, _COLUMNS)


def read_samples(directory: Path, name: str, worker: int) -> Samples:
    """One worker's operations, with times since the common start; none when it never began."""
    table = read_table(rows_path(directory, name))
    if not len(table):
        return Samples.empty(0)
    origin_ns, table = int(table[0, 1]), table[1:]
    n = len(table)
    qualities = np.full((n, 2), np.nan, np.float32)
    path = qualities_path(directory, name)
    if path.exists():
        stored = np.fromfile(path, np.float32)[: 2 * n]
        qualities[: len(stored) // 2] = stored[: len(stored) // 2 * 2].reshape(-1, 2)

    def instants(column: int) -> NDArray[np.int64]:
        return np.where(table[:, column] == NOT_SEEN, NOT_SEEN, table[:, column] - origin_ns)

    return Samples(
        index=table[:, 0].copy(),
        worker=np.full(n, worker, np.uint16),
        intended_ns=instants(1),
        sent_ns=instants(2),
        first_byte_ns=instants(3),
        finished_ns=instants(4),
        outcome=table[:, 5].astype(np.uint8),
        items=table[:, 7].astype(np.uint32),
        bytes_out=table[:, 8].copy(),
        bytes_in=table[:, 9].copy(),
        qualities=qualities,
    )


def read_new_rows(directory: Path, name: str, first: int) -> NDArray[np.int64]:
    """Operations on disk from number `first` on, as raw rows, at most MAX_NEW_ROWS of the newest."""
    count = count_rows(directory, name)
    first = max(first, count - MAX_NEW_ROWS)
    if count <= first:
        return np.empty((0, _COLUMNS), np.int64)
    with rows_path(directory, name).open("rb") as file:
        file.seek((1 + first) * ROW_BYTES)
        data = file.read((count - first) * ROW_BYTES)
    table: NDArray[np.int64] = np.frombuffer(data, np.int64)
    return table[: len(table) // _COLUMNS * _COLUMNS].reshape(-1, _COLUMNS)


def response_ms(rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Response times of the finished operations among raw `rows`, in milliseconds."""
    finished = rows[rows[:, 4] != NOT_SEEN]
    spans: NDArray[np.float64] = (finished[:, 4] - finished[:, 1]) / 1e6
    return spans


def count_errors(rows: NDArray[np.int64]) -> int:
    """Operations among raw `rows` whose outcome is not OK."""
    return int(np.count_nonzero(rows[:, 5]))
