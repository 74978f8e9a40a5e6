"""A job's logs as a user wants them: the last lines, or lines as they come, all or chosen; of any bytes."""

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from heapq import merge
from pathlib import Path
from typing import TYPE_CHECKING

from aifbench.errors import UsageError

if TYPE_CHECKING:
    from aifbench.cluster.log_lines import Level, LogLine

_TAIL_BYTES = 1 << 20
# Of a longer log, lines are looked for in this much of its end: some seconds of work.
_SEARCH_BYTES = 64 << 20
OWN_LOG = "job"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines: at least that grave, not older than `since_s` (wall clock), and with `pattern` in them."""

    level: "Level | None" = None
    since_s: float | None = None
    pattern: re.Pattern[str] | None = None

    @property
    def is_all(self) -> bool:
        return self.level is None and self.since_s is None and self.pattern is None

    def has(self, line: "LogLine") -> bool:
        """A line of unknown time is as new as it can be; one of unknown level is not grave."""
        if self.level is not None and (line.level is None or line.level < self.level):
            return False
        if self.since_s is not None and line.time_s is not None and line.time_s < self.since_s:
            return False
        return self.pattern is None or self.pattern.search(line.text) is not None


ALL = Wanted()


def log_files(directory: Path, job_id: str) -> dict[str, Path]:
    """The logs of a job by what they are of: `job`, its own output; a node; else the file's name."""
    own = directory / f"job-{job_id}.log"
    found = {OWN_LOG: own}
    for path in sorted(directory.glob("*.log")):
        if path != own:
            found[path.stem.removeprefix(f"{own.stem}-")] = path
    return found


def tail(path: Path, lines: int) -> list[str]:
    """The last `lines` lines; none while the log does not exist."""
    return list(deque(_end_of(path, _TAIL_BYTES).splitlines(), maxlen=lines))


def select(files: Mapping[str, Path], lines: int, wanted: Wanted, now_s: float) -> list[str]:
    """The last `lines` wanted lines of all files, in order of time; of several files each says which.

    Raises UsageError when it is asked for what no line tells.
    """
    if len(files) == 1 and wanted.is_all:
        return tail(next(iter(files.values())), lines)
    read = {name: _read_all(path, now_s) for name, path in files.items()}
    every = [line for found in read.values() for line in found]
    if wanted.since_s is not None and every and all(line.time_s is None for line in every):
        raise UsageError(
            "no line of this log tells its time", hint="leave --since out; -n takes the last lines"
        )
    if wanted.level is not None and every and all(line.level is None for line in every):
        raise UsageError("no line of this log tells its level", hint="leave --level out; --grep finds words")
    chosen = [
        [(line.time_s or 0.0, _labelled(name, line.text, files)) for line in found if wanted.has(line)]
        for name, found in read.items()
    ]
    return [text for _, text in deque(merge(*chosen, key=lambda each: each[0]), maxlen=lines)]


def follow(
    files: Callable[[], Mapping[str, Path]],
    is_over: Callable[[], bool],
    wait: Callable[[], None],
    wanted: Wanted = ALL,
    now_s: Callable[[], float] = lambda: 0.0,
) -> Iterator[str]:
    """Wanted lines from the beginning on, again when a log begins anew. `is_over` is asked when nothing is
    new; the rest is read once more after it.
    """
    followed: dict[str, _Followed] = {}
    over = False
    while True:
        current = files()
        grown = False
        for name, path in current.items():
            one = followed.setdefault(name, _Followed(path))
            texts, has_grown = one.news()
            grown = grown or has_grown
            yield from _chosen(one, name, texts, current, wanted, now_s())
        if grown:
            continue
        if over:
            break
        over = is_over()
        if not over:
            wait()
    for name, one in followed.items():
        yield from _chosen(one, name, one.rest(), followed, wanted, now_s())


class _Followed:
    """One file that grows."""

    def __init__(self, path: Path) -> None:
        from aifbench.cluster.log_lines import LineReader

        self._path = path
        self._position = 0
        self._pending = b""
        self.reader = LineReader()

    def news(self) -> tuple[list[str], bool]:
        """Lines that have come to their end since the last call, and whether the file has grown at all."""
        texts = []
        if _size(self._path) < self._position:  # a requeued job has a new log
            texts, self._position = self.rest(), 0
        data = _read_from(self._path, self._position)
        self._position += len(data)
        *lines, self._pending = (self._pending + data).split(b"\n")
        return texts + [line.decode(errors="replace") for line in lines], bool(data)

    def rest(self) -> list[str]:
        """A line that did not come to its end; nothing when there is none."""
        text, self._pending = self._pending, b""
        return [text.decode(errors="replace")] if text else []


def _chosen(
    one: _Followed, name: str, texts: list[str], files: Mapping[str, object], wanted: Wanted, now_s: float
) -> Iterator[str]:
    for text in texts:
        if wanted.is_all or wanted.has(one.reader.read(text, now_s)):
            yield _labelled(name, text, files)


def _labelled(name: str, text: str, files: Mapping[str, object]) -> str:
    """Of one file among several, as `mel2001 | text`."""
    return text if len(files) == 1 else f"{name} | {text}"


def _read_all(path: Path, now_s: float) -> "list[LogLine]":
    from aifbench.cluster.log_lines import LineReader

    reader = LineReader()
    return [reader.read(text, now_s) for text in _end_of(path, _SEARCH_BYTES).splitlines()]


def _end_of(path: Path, size_bytes: int) -> str:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - size_bytes))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _read_from(path: Path, position: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(position)
            return file.read(_TAIL_BYTES)
    except OSError:
        return b""
