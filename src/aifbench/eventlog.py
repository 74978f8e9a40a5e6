"""The program's own log: one line of JSON per event, a file per day and host, gone after its time.

It may never be in the way: what cannot be written, or might hold a secret that cannot be read, is left out.
Events: command, error, start, attach, stop, bench, phase, note, run.
"""

import json
import os
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifbench.clock import Clock, utc_text
from aifbench.config import EVENT_LEVELS
from aifbench.errors import ResultError
from aifbench.load.progress import Progress

if TYPE_CHECKING:
    from aifbench.load.progress import LoadStatus

_NAME = re.compile(r"(\d{4}-\d\d-\d\d)-.+\.jsonl")
_LONGEST = 4000  # characters of one text: a hint may hold the end of a log


class EventLog:
    """`level` is the least grave that is written, of EVENT_LEVELS; it and `keep_s` may be set at any time."""

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        *,
        level: str,
        keep_s: float,
        secret_files: Callable[[], Iterable[Path]] = lambda: (),
    ) -> None:
        self.level = level
        self.keep_s = keep_s
        self._directory = directory
        self._clock = clock
        self._secret_files = secret_files
        self._day = ""

    def write(self, level: str, event: str, **fields: Any) -> None:
        """Add an event; returns at once, and never raises for a disk that takes nothing."""
        if EVENT_LEVELS.index(level) < EVENT_LEVELS.index(self.level):
            return
        now_s = self._clock.wall_s()
        with suppress(OSError, ResultError):
            line = json.dumps(
                {
                    "time": _time_text(now_s),
                    "level": level,
                    "event": event,
                    "pid": os.getpid(),
                    **self._masked(fields),
                },
                default=str,
            )
            self._append(utc_text(now_s)[:10], f"{line}\n".encode())

    def progress(self, progress: Progress, **fields: Any) -> Progress:
        """One that also writes down phases and notes, each with `fields`."""
        return _Noting(self, progress, fields)

    def read(self, limit: int, *, level: str = "debug", since_s: float = 0.0) -> list[Mapping[str, Any]]:
        """The last events, oldest first; lines that are none are left out. `since_s` is a wall clock's."""
        least, since = EVENT_LEVELS.index(level), _time_text(since_s)
        found: deque[Mapping[str, Any]] = deque(maxlen=limit)
        by_day = sorted(self._files())
        for path in by_day:
            if path.name[:10] < since[:10]:
                continue
            mine = [event for event in _events(path) if EVENT_LEVELS.index(event["level"]) >= least]
            found.extend(event for event in mine if event["time"] >= since)
        return sorted(found, key=lambda event: str(event["time"]))

    def _append(self, day: str, data: bytes) -> None:
        if day != self._day:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._day = day
            self.expire()
        path = self._directory / f"{day}-{socket.gethostname()}.jsonl"
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, data)  # one call: another shell's line does not come in between
        finally:
            os.close(descriptor)

    def expire(self) -> None:
        """Remove the files of days that are over for longer than `keep_s`."""
        oldest = utc_text(self._clock.wall_s() - self.keep_s)[:10]
        for path in self._files():
            if path.name[:10] < oldest:
                with suppress(OSError):
                    path.unlink()

    def _files(self) -> list[Path]:
        try:
            return [path for path in self._directory.iterdir() if _NAME.fullmatch(path.name)]
        except OSError:
            return []

    def _masked(self, fields: Mapping[str, Any]) -> Any:
        from aifbench.results.masking import mask_json, secret_values

        secrets = secret_values(path for path in self._secret_files() if path.is_file())
        return mask_json({key: _plain(value) for key, value in fields.items()}, secrets)


class _Noting:
    """A Progress that hands everything on."""

    def __init__(self, events: EventLog, progress: Progress, fields: Mapping[str, Any]) -> None:
        self._events = events
        self._progress = progress
        self._fields = fields

    def phase(self, name: str, detail: str) -> None:
        self._events.write("info", "phase", **self._fields, phase=name, detail=detail)
        self._progress.phase(name, detail)

    def update(self, status: "LoadStatus") -> None:
        self._progress.update(status)

    def note(self, text: str) -> None:
        self._events.write("debug", "note", **self._fields, text=text)
        self._progress.note(text)


def event_text(event: Mapping[str, Any]) -> str:
    """`2026-11-20 13:14:55  info   command  start chroma`: the values, by their names where these help."""
    rest = {key: value for key, value in event.items() if key not in ("time", "level", "event", "pid")}
    words = [f"{value}" if key in ("line", "text") else f"{key}={value}" for key, value in rest.items()]
    when = str(event["time"]).replace("T", " ")[:19]
    return f"{when}  {event['level']:5}  {event['event']:8}  {'  '.join(words)}".rstrip()


def _events(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        with suppress(ValueError, RecursionError):
            event = json.loads(line)
            if (
                isinstance(event, dict)
                and event.get("level") in EVENT_LEVELS
                and {"time", "event"} <= event.keys()
            ):
                yield event


def _time_text(wall_s: float) -> str:
    """UTC to the millisecond, so that events sort by it."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(wall_s))}.{int(wall_s % 1 * 1000):03d}Z"


def _plain(value: Any) -> Any:
    """As JSON can hold it; a text may have come from bytes that were none."""
    if value is None or isinstance(value, bool | int | float | list | dict):
        return value
    return str(value)[:_LONGEST].encode(errors="replace").decode()
