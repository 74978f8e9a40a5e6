"""A job's log as a user wants it: its last lines, or its lines as they come; any bytes will do."""

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

_TAIL_BYTES = 1 << 20


def tail(path: Path, lines: int) -> list[str]:
    """The last `lines` lines; none while the log does not exist."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return list(deque(text.splitlines(), maxlen=lines))


def follow(path: Path, is_over: Callable[[], bool], wait: Callable[[], None]) -> Iterator[str]:
    """Lines from the beginning on, again when the log begins anew. `is_over` is asked when nothing is new;
    the rest is read once more after it.
    """
    position, pending, over = 0, b"", False
    while True:
        if _size(path) < position:  # a requeued job has a new log
            yield from _last_line(pending)
            position, pending = 0, b""
        data = _read_from(path, position)
        position += len(data)
        *lines, pending = (pending + data).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)
        if data:
            continue
        if over:
            break
        over = is_over()
        if not over:
            wait()
    yield from _last_line(pending)


def _last_line(text: bytes) -> list[str]:
    """A line that did not come to its end; nothing when there is none."""
    return [text.decode(errors="replace")] if text else []


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
