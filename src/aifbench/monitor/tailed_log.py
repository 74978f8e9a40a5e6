"""A log that grows, taken piece by piece: each piece can be read again later, with the same times.

Loki drops a line that it has already at the same time in the same stream. So what was sent and never answered
is sent again as it was: a `Piece` says which bytes, and all that their times depend on.
"""

import os
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aifbench.cluster.log_lines import time_of
from aifbench.monitor.loki_push import Entry
from aifbench.results.masking import behind_key, mask_block, open_key_bytes

PIECE_BYTES = 1 << 20
# Each line costs memory of its own, however short it is.
PIECE_LINES = 20_000
# Loki's own limit for a line; what is beyond is cut off.
LINE_BYTES = 256 * 1024 - 64
# A last line without an end is taken when nothing has followed for this long.
TORN_AFTER_S = 5.0
# A line's own time is believed when Loki would take it: not older than a week, not to come.
_OLDEST_S = 6 * 86400.0
_NEWEST_S = 60.0
# Growth is noted this often: so exact are the times of lines that tell none.
_MARK_NS = 500_000_000
_CUT = " [cut]"
_MOST_BYTES = 4  # of one character


@dataclass(frozen=True, slots=True)
class Place:
    """How far a file was taken, and `last_ns`, the time given to the line before that."""

    inode: int
    offset: int = 0
    last_ns: int = 0
    is_timed: bool = False  # some line so far told its own time
    key_bytes: int = 0  # of a private key that has begun and not ended


@dataclass(frozen=True, slots=True)
class Piece:
    """The bytes from `place.offset` to `end`. They were written at about `seen_ns`, if `is_witnessed`."""

    place: Place
    end: int
    seen_ns: int
    is_witnessed: bool


class TailedLog:
    """One file, its growth noted at each `look`. Missing files have nothing new."""

    def __init__(self, path: Path, place: Place | None = None) -> None:
        self.path = path
        self.place = place or Place(0)
        self._is_new = place is None
        self._marks: deque[tuple[int, int, bool]] = deque()  # size, when, witnessed
        self._size = self.place.offset
        self._grown_ns = 0

    def look(self, now_ns: int) -> None:
        """Note how long the file is by now. One that was replaced or cut begins anew."""
        try:
            found = self.path.stat()
        except OSError:
            return
        if found.st_ino != self.place.inode or found.st_size < self._size:
            self.place = Place(found.st_ino, 0, self.place.last_ns)
            self._marks.clear()
            self._size = 0
        if found.st_size > self._size:
            self._note(found, now_ns)
        self._is_new = False

    def _note(self, found: os.stat_result, now_ns: int) -> None:
        # What was there before the first look was written when nobody looked.
        witnessed = not self._is_new and self._grown_ns > 0
        seen_ns = now_ns if witnessed else min(now_ns, found.st_mtime_ns)
        self._size, self._grown_ns = found.st_size, now_ns
        if self._marks and self._marks[-1][2] and seen_ns - self._marks[-1][1] < _MARK_NS:
            seen_ns = self._marks.pop()[1]
        self._marks.append((found.st_size, seen_ns, witnessed))

    def piece(self, now_ns: int) -> Piece | None:
        """The next complete lines; None while there is none."""
        while self._marks:
            size, seen_ns, witnessed = self._marks[0]
            end = min(size, self.place.offset + PIECE_BYTES)
            data = _read(self.path, self.place.offset, end)
            length = _whole_lines(data)
            if length == 0 and (len(data) == PIECE_BYTES or self._is_torn(now_ns)):
                length = len(data)
            if length:
                return Piece(self.place, self.place.offset + length, seen_ns, witnessed)
            if len(self._marks) == 1:
                return None
            self._marks.popleft()
        return None

    def _is_torn(self, now_ns: int) -> bool:
        return len(self._marks) == 1 and now_ns - self._grown_ns > TORN_AFTER_S * 1e9

    @property
    def is_taken(self) -> bool:
        return self.place.offset >= self._size

    def took(self, place: Place) -> None:
        """Everything up to there has been stored."""
        self.place = place
        self._size = max(self._size, place.offset)
        while self._marks and self._marks[0][0] <= place.offset:
            self._marks.popleft()


def read_piece(path: Path, piece: Piece, secrets: Sequence[bytes] = ()) -> tuple[list[str], int]:
    """The piece's lines, without secrets, too long ones cut; none where the file is not that one any more.

    And how long the private key is that the piece ends within, which the next one's place has to tell.
    """
    try:
        if path.stat().st_ino != piece.place.inode:
            return [], 0
    except OSError:
        return [], 0
    data, key_bytes = _read(path, piece.place.offset, piece.end), piece.place.key_bytes
    if key_bytes:
        data, key_bytes = behind_key(data, key_bytes)
    key_bytes = key_bytes or open_key_bytes(data)
    data = mask_block(data, secrets)
    if not data:
        return [], key_bytes
    lines = data.removesuffix(b"\n").decode(errors="replace").split("\n")
    return [_cut(line.rstrip("\r")) for line in lines], key_bytes


def timed(lines: Iterable[str], piece: Piece, key_bytes: int = 0) -> tuple[list[Entry], Place]:
    """Each line with a time of its own, later than the one before, and the place after them. Pure.

    It is the time that the line tells; else when it was seen to be written; else that of the line before.
    """
    last_ns, is_timed = piece.place.last_ns, piece.place.is_timed
    seen_s = piece.seen_ns / 1e9
    entries = []
    for line in lines:
        own_s = time_of(line, seen_s)
        if own_s is not None and seen_s - _OLDEST_S < own_s < seen_s + _NEWEST_S:
            is_timed, wanted_ns = True, round(own_s * 1e6) * 1000
        else:
            wanted_ns = piece.seen_ns if piece.is_witnessed or not is_timed else 0
        last_ns = max(wanted_ns, last_ns + 1)
        entries.append((last_ns, line))
    return entries, Place(piece.place.inode, piece.end, last_ns, is_timed, key_bytes)


def _whole_lines(data: bytes) -> int:
    """The length of the complete lines at the beginning, of PIECE_LINES at most."""
    if data.count(b"\n") <= PIECE_LINES:
        return data.rfind(b"\n") + 1
    return len(data) - len(data.split(b"\n", PIECE_LINES)[-1])


def _cut(line: str) -> str:
    if len(line) <= LINE_BYTES // _MOST_BYTES:
        return line
    data = line.encode()
    return line if len(data) <= LINE_BYTES else data[:LINE_BYTES].decode(errors="ignore") + _CUT


def _read(path: Path, start: int, end: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(max(0, end - start))
    except OSError:
        return b""
