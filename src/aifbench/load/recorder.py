"""Recorder: one worker's operations, appended to files while the load runs.

The hot path appends one packed row to a list. A thread writes the rows to disk four times a second, so a
worker that is killed loses at most that much. Times are absolute `time.perf_counter_ns` values; a first
row, which is no operation, holds the worker's value at the common start: the file explains itself.
After a failure to write nothing more is written, so that what is on disk stays a readable beginning.
"""

import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from aifbench.load.samples import Samples
from aifbench.load.stages import Stages
from aifbench.load.tokens import Tokens
from aifbench.load.workload import NOT_SEEN, Outcome, OutcomeKind

ROW = np.dtype(
    [
        ("index", np.int64), ("intended_ns", np.int64), ("sent_ns", np.int64), ("first_byte_ns", np.int64),
        ("finished_ns", np.int64), ("outcome", np.uint16), ("status", np.uint16), ("items", np.uint32),
        ("bytes_out", np.int64), ("bytes_in", np.int64), ("qualities", np.float32, (2,)),
        ("answer_bytes", np.int64), ("reads", np.int64),
    ]
)  # fmt: skip
pack_row = struct.Struct("=5q2HI2q2f2q").pack  # the fields of ROW
# The same in two parts: when, and what became of it, which is often the same as before.
pack_times = struct.Struct("=5q").pack
_pack_rest = struct.Struct("=2HI2q2f2q").pack
DROPPED = -1  # as answer_bytes: there was an answer, which nobody wanted to keep
READ = np.dtype([("at_ns", np.int64), ("end", np.int64)])  # of one answer: so many bytes were there, then
UNCHECKED = float("nan")  # both qualities of an operation that nobody has checked
Rows = NDArray[np.void]
_Beside = TypeVar("_Beside", Tokens, Stages)

# A live display wants a sample of the last second, not all of it.
MAX_NEW_ROWS = 50_000
_READ_ROWS = 65_536

FLUSH_INTERVAL_S = 0.25
_BLOCK_BYTES = 128 * 1024

# Distinct error texts kept per worker; a service that invents a new text each time must not fill memory.
MAX_ERROR_TEXTS = 50
OTHER_ERRORS = "(other errors)"


def unfinished_row(index: int, intended_ns: int, sent_ns: int) -> bytes:
    """An operation under way, or never sent (NOT_SEEN), when the time was over."""
    kind = OutcomeKind.UNFINISHED
    seen = (intended_ns, sent_ns, NOT_SEEN, NOT_SEEN)
    return pack_row(index, *seen, kind, 0, 0, 0, 0, UNCHECKED, UNCHECKED, 0, 0)


def pack_outcome(outcome: Outcome) -> bytes:
    """The second part of a row, of an operation whose answer is not kept."""
    qualities = (*outcome.qualities, UNCHECKED, UNCHECKED)[:2]
    amounts = (outcome.items, outcome.bytes_out, outcome.bytes_in)
    return _pack_rest(outcome.kind, 0, *amounts, *qualities, 0, 0)


class ErrorTally:
    """Counts of distinct error texts, bounded in number and in length; several threads may add."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._lock = threading.Lock()

    def add(self, text: str, count: int = 1) -> None:
        # What a service says goes to terminals: no control characters.
        key = "".join(c if c.isprintable() else "·" for c in " ".join(text.split())[:200])
        with self._lock:
            if key not in self.counts and len(self.counts) >= MAX_ERROR_TEXTS:
                key = OTHER_ERRORS
            self.counts[key] = self.counts.get(key, 0) + count


class Recorder:
    """Rows and raw answers of one worker, on their way to `directory`; `failure` says what stopped them.

    `add` takes `pack_row(...)` bytes. `add_answer`, before it, takes an answer of exactly as many bytes as
    the row says, and `add_reads`, before both, as many READ entries.
    """

    def __init__(
        self, directory: Path, name: str, origin_ns: int, *, on_tick: Callable[[], None] | None = None
    ) -> None:
        self._rows: list[bytes] = [pack_row(NOT_SEEN, origin_ns, *[0] * 12)]
        self._answers: list[bytes] = []
        self._reads: list[bytes] = []
        self.add = self._rows.append
        self.add_answer = self._answers.append
        self.add_reads = self._reads.append
        self.errors = ErrorTally()
        self._reads_file = reads_path(directory, name).open("wb", buffering=0)
        self._answers_file = answers_path(directory, name).open("wb", buffering=0)
        self._rows_file = rows_path(directory, name).open("wb", buffering=0)
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
        # always has its answer on disk, whenever the worker is killed. So it is with the reads.
        rows, answers, reads = len(self._rows), len(self._answers), len(self._reads)
        self._write(self._reads_file, self._reads, reads)
        self._write(self._answers_file, self._answers, answers)
        self._write(self._rows_file, self._rows, rows)

    def _write(self, file: FileIO, queue: list[bytes], count: int) -> None:
        pieces = queue[:count]
        del queue[:count]
        try:
            for block in _blocks(pieces):
                data = memoryview(block)
                while data and not self.failure:
                    data = data[file.write(data) :]
        except OSError as error:
            self.failure = f"cannot write samples: {error.strerror}"

    def close(self) -> None:
        """Write what is left; the files are complete afterwards."""
        self._closing.set()
        self._thread.join()
        self._flush()
        self._reads_file.close()
        self._answers_file.close()
        self._rows_file.close()


def _blocks(pieces: list[bytes]) -> Iterator[bytes]:
    """Joined to blocks of a modest size: to join megabytes would keep the thread of the load waiting."""
    first, size = 0, 0
    for number, piece in enumerate(pieces, 1):
        size += len(piece)
        if size >= _BLOCK_BYTES:
            yield b"".join(pieces[first:number])
            first, size = number, 0
    yield b"".join(pieces[first:])


def rows_path(directory: Path, name: str) -> Path:
    return directory / f"{name}.rows"


def answers_path(directory: Path, name: str) -> Path:
    return directory / f"{name}.answers"


def reads_path(directory: Path, name: str) -> Path:
    return directory / f"{name}.reads"


def tokens_path(directory: Path, name: str) -> Path:
    """Where the token times of a worker's streamed answers are, once they have been interpreted."""
    return directory / f"{name}.tokens.npz"


def stages_path(directory: Path, name: str) -> Path:
    """Where the stages of a worker's operations are, once the load is over."""
    return directory / f"{name}.stages.npz"


def partial_path(path: Path) -> Path:
    """Where a file is while it is written: what has its own name is whole."""
    return path.with_name(path.name + ".part")


def discard(directory: Path, name: str) -> None:
    """Remove all files of one worker, half-written ones too."""
    for path_of in (rows_path, answers_path, reads_path, tokens_path, stages_path):
        path = path_of(directory, name)
        for written in (path, partial_path(path)):
            written.unlink(missing_ok=True)


def count_rows(directory: Path, name: str) -> int:
    """How many operations are on disk so far; cheap enough for a live display."""
    try:
        return max(0, rows_path(directory, name).stat().st_size // ROW.itemsize - 1)
    except OSError:
        return 0


def read_rows(path: Path) -> Rows:
    """All rows, the first one included; a torn last row is left out."""
    return np.fromfile(path, ROW) if path.exists() else np.empty(0, ROW)


def read_samples(directory: Path, name: str, worker: int) -> Samples:
    """One worker's operations, with times since the common start; none when it never began."""
    samples = Samples.empty(count_rows(directory, name))
    _fill(samples, 0, rows_path(directory, name), worker)
    tokens = _read_beside(tokens_path(directory, name), Tokens, len(samples))
    stages = _read_beside(stages_path(directory, name), Stages, len(samples))
    return replace(samples, tokens=tokens, stages=stages) if tokens or stages else samples


def read_merged(directory: Path, names: Sequence[str]) -> Samples:
    """The operations of all workers, in order of their intended times.

    Takes little more memory than the result, unless there are tokens or stages.
    """
    if any(path(directory, name).exists() for name in names for path in (tokens_path, stages_path)):
        return Samples.concatenate([read_samples(directory, name, k) for k, name in enumerate(names)])
    counts = [count_rows(directory, name) for name in names]
    samples = Samples.empty(sum(counts))
    start = 0
    for worker, (name, count) in enumerate(zip(names, counts, strict=True)):
        _fill(samples.select(slice(start, start + count)), 0, rows_path(directory, name), worker)
        start += count
    return samples.packed()


def _fill(samples: Samples, start: int, path: Path, worker: int) -> None:
    """Put a worker's rows, block by block, into the columns of `samples`, which have as many."""
    if not len(samples):
        return
    with path.open("rb") as file:
        origin_ns = np.fromfile(file, ROW, 1)["intended_ns"][0]
        while start < len(samples) and len(rows := np.fromfile(file, ROW, _READ_ROWS)):
            part = slice(start, start + len(rows))
            for column in ("index", "outcome", "items", "bytes_out", "bytes_in", "qualities"):
                getattr(samples, column)[part] = rows[column]
            for column in ("intended_ns", "sent_ns", "first_byte_ns", "finished_ns"):
                at_ns = rows[column]
                getattr(samples, column)[part] = np.where(at_ns == NOT_SEEN, NOT_SEEN, at_ns - origin_ns)
            samples.worker[part] = worker
            start += len(rows)


def save_tokens(directory: Path, name: str, tokens: Tokens) -> None:
    """Keep them beside a worker's rows, one for each."""
    _save_beside(tokens_path(directory, name), tokens.to_arrays())


def save_stages(directory: Path, name: str, stages: Stages) -> None:
    """Keep them beside a worker's rows, one for each."""
    _save_beside(stages_path(directory, name), stages.to_arrays())


def _save_beside(path: Path, arrays: dict[str, Any]) -> None:
    """Whole or not at all: a disk may be full."""
    partial = partial_path(path)
    try:
        with partial.open("wb") as file:
            np.savez(file, **arrays)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _read_beside(path: Path, kind: type[_Beside], rows: int) -> _Beside | None:
    """None where there are none, or not one for each row: of a worker that was killed."""
    if not path.exists():
        return None
    with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
        found = kind.from_arrays(data)
    return found if found is not None and len(found) == rows else None


def read_new_rows(directory: Path, name: str, first: int) -> Rows:
    """Operations on disk from number `first` on, at most MAX_NEW_ROWS of the newest."""
    count = count_rows(directory, name)
    first = max(first, count - MAX_NEW_ROWS)
    if count <= first:
        return np.empty(0, ROW)
    return np.fromfile(
        rows_path(directory, name), ROW, count=count - first, offset=(1 + first) * ROW.itemsize
    )


def response_ms(rows: Rows) -> NDArray[np.float64]:
    """Response times of the finished operations among `rows`, in milliseconds."""
    finished = rows[rows["finished_ns"] != NOT_SEEN]
    spans: NDArray[np.float64] = (finished["finished_ns"] - finished["intended_ns"]) / 1e6
    return spans


def count_errors(rows: Rows) -> int:
    """Operations among `rows` whose outcome is not OK."""
    return int(np.count_nonzero(rows["outcome"]))
