"""Progress on screen: one line rewritten in place on a terminal, plain lines now and then anywhere else."""

import os
import shutil
from collections.abc import Callable
from typing import Any, TextIO

from aifbench.load.progress import LoadStatus
from aifbench.repl.wording import clock_text
from aifbench.units import format_number

_PLAIN_EVERY_S = 10.0
_ERASE_LINE = "\r\x1b[K"

Print = Callable[[str], None]


def can_rewrite(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that can erase a line."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def terminal_width(stream: TextIO) -> int | None:
    """Columns of a terminal; None for a file or a pipe, where nothing need fit."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


class LiveLine:
    """The last line of a terminal, rewritten by each `show`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_shown = False

    def show(self, text: str, _key: Any = None) -> None:
        width = shutil.get_terminal_size().columns - 1
        self._write(_ERASE_LINE + text[:width])
        self._is_shown = True

    def clear(self) -> None:
        if self._is_shown:
            self._write(_ERASE_LINE)
            self._is_shown = False

    def keep(self) -> None:
        if self._is_shown:
            self._write("\n")
            self._is_shown = False

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class ChangeLog:
    """The same for pipes and files: a line for every new `key`, and nothing to erase."""

    def __init__(self, print_line: Print) -> None:
        self._print = print_line
        self._key: Any = None

    def show(self, text: str, key: Any = None) -> None:
        if key != self._key:
            self._key = key
            self._print(text)

    def clear(self) -> None: ...

    def keep(self) -> None: ...


def live_line(stream: TextIO, print_line: Print) -> LiveLine | ChangeLog:
    return LiveLine(stream) if can_rewrite(stream) else ChangeLog(print_line)


class ShellProgress:
    """A load Progress that draws on `line`. On anything but a terminal an update is due every 10 s."""

    def __init__(self, line: LiveLine | ChangeLog, print_line: Print) -> None:
        self._line = line
        self._print = print_line

    def phase(self, name: str, detail: str) -> None:
        self._line.keep()
        self._print(f"{name}: {detail}" if detail else name)

    def update(self, status: LoadStatus) -> None:
        self._line.show(load_line(status), (status.phase, status.elapsed_s // _PLAIN_EVERY_S))

    def note(self, text: str) -> None:
        self._line.clear()
        self._print(text)

    def close(self) -> None:
        """Leave the last state on screen, on a line of its own."""
        self._line.keep()


def load_line(status: LoadStatus) -> str:
    """`  search  00:12/00:30  40 %  604 operations  50.2/s  0 errors  p99 12.3 ms`."""
    planned = f"/{clock_text(status.planned_s)}" if status.planned_s is not None else ""
    parts = [
        f"  {status.phase}",
        clock_text(status.elapsed_s) + planned,
        _share(status),
        f"{status.operations:,} operations",
        f"{format_number(status.rate_per_s, 3)}/s",
        f"{status.errors:,} errors",
        f"p99 {format_number(status.p99_ms, 3)} ms" if status.p99_ms is not None else "",
    ]
    return "  ".join(part for part in parts if part)


def _share(status: LoadStatus) -> str:
    if status.planned_operations:
        share = status.operations / status.planned_operations
    elif status.planned_s:
        share = status.elapsed_s / status.planned_s
    else:
        return ""
    return f"{min(share, 1.0):.0%}".replace("%", " %")
