"""What one line of a service's log says of its time and its gravity, in the formats that services here use.

Known: vLLM (no year), Uvicorn, Rust tracing (Chroma), PostgreSQL, rclone, glog (Triton), logfmt and JSON (Go
programs such as Prometheus and Grafana), Python's logging, `program: error: ...` (srun, slurmstepd). Pure.
"""

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from enum import IntEnum
from functools import lru_cache


class Level(IntEnum):
    """How grave a line is; a service's own words are mapped to these."""

    DEBUG = 0
    INFO = 1
    WARN = 2
    ERROR = 3
    FATAL = 4


@dataclass(frozen=True, slots=True)
class LogLine:
    """`time_s` is in seconds since the epoch; None for what the line, and those before it, do not tell."""

    text: str
    time_s: float | None = None
    level: Level | None = None


_WORDS = {
    **dict.fromkeys(("TRACE", "DEBUG", "DEBUG1", "DEBUG2", "DEBUG3", "DEBUG4", "DEBUG5", "D"), Level.DEBUG),
    **dict.fromkeys(("INFO", "NOTICE", "LOG", "I"), Level.INFO),
    **dict.fromkeys(("WARN", "WARNING", "W"), Level.WARN),
    **dict.fromkeys(("ERROR", "ERR", "E"), Level.ERROR),
    **dict.fromkeys(("FATAL", "CRITICAL", "PANIC", "EMERG", "ALERT", "F"), Level.FATAL),
}
_LONG = "|".join(sorted((word for word in _WORDS if len(word) > 2), key=len, reverse=True))

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Where a line begins with its time, perhaps after the name of a process or a key, which are short.
_PREFIX = (
    r"^(?:\([^)]{1,60}\)\s|\[|\{[^{}]{0,200}?\"(?:ts|time|timestamp|t)\":\s*\""
    r"|(?:\w+=\S+\s){0,3}(?:ts|time|t)=\"?)?\s*"
)
_DATED = re.compile(
    _PREFIX + r"(\d{4})[-/](\d\d)[-/](\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?"
    r"\s?(Z|UTC|GMT|[+-]\d\d:?\d\d)?(?![\w.])"
)
# vLLM: `(APIServer pid=7) INFO 11-20 13:14:55 [api_server.py:1]`; newer ones have parts of a second.
_YEARLESS = re.compile(
    rf"^(?:\([^)]{{1,60}}\)\s)*(?:{_LONG})\s+(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(?:[.,](\d{{1,9}}))?\s"
)
_GLOG = re.compile(r"^([DIWEF])(\d\d)(\d\d) (\d\d):(\d\d):(\d\d)\.(\d{6})\s")
_LEVELS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"^(?:\([^)]{{1,60}}\)\s)*({_LONG})(?::|\s|$)",  # vLLM, Uvicorn, Python's basicConfig
        r"""\b(?:level|lvl|severity)"?[=:]\s*"?(\w+)""",  # logfmt, JSON
        # After a time: PostgreSQL, rclone, tracing, Python; at most a process and a place in between.
        rf"^.{{0,80}}?\d:\d\d(?:[.,]\d+)?(?:Z|\s?[A-Z]{{2,5}}|\s?[+-]\d\d:?\d\d)?\]?\s*"
        rf"(?:[-|]\s|\[[^\]]{{0,60}}\]\s*|[\w.]{{1,60}}\s-\s)*\[?(?i:({_LONG}))\b",
        rf"^[\w./-]{{1,60}}:\s(?i:({_LONG})):",  # slurmstepd: error: ...
    )
)
_PLAIN_WORDS = re.compile(
    r"error|fatal|critical|panic|warn|info|debug|trace|notice|log|level|lvl|sever", re.I
)
_TRACEBACK = ("Traceback (most recent call last)", "thread '", "panic: ", "Segmentation fault")


def read_line(text: str, now_s: float) -> LogLine:
    """One line by itself. Times without a zone are this machine's; those without a year are of the last."""
    clean = _COLOUR.sub("", text) if "\x1b" in text else text
    glog = _GLOG.match(clean)
    if glog:
        return LogLine(text, _yearless([*glog.groups()[1:]], now_s, "UTC"), _WORDS[glog[1]])
    return LogLine(text, _time_s(clean, now_s), _level(clean))


class LineReader:
    """Lines in order; one that tells neither time nor level goes on from the one before, as tracebacks do."""

    def __init__(self) -> None:
        self._time_s: float | None = None
        self._level: Level | None = None

    def read(self, text: str, now_s: float) -> LogLine:
        line = read_line(text, now_s)
        if line.time_s is not None:
            self._time_s = line.time_s
        if line.time_s is not None or line.level is not None:
            self._level = line.level
        return LogLine(text, self._time_s, self._level)


def time_of(text: str, now_s: float) -> float | None:
    """Only the time of a line: what a shipper asks of very many of them."""
    clean = _COLOUR.sub("", text) if "\x1b" in text else text
    glog = _GLOG.match(clean)
    if glog:
        return _yearless([*glog.groups()[1:]], now_s, "UTC")
    return _time_s(clean, now_s)


def _time_s(text: str, now_s: float) -> float | None:
    if match := _DATED.match(text):
        *numbers, fraction, zone = match.groups()
        return _epoch_s(tuple(numbers), fraction, zone)
    if match := _YEARLESS.match(text):
        return _yearless([*match.groups()], now_s, None)
    return None


def _yearless(parts: list[str], now_s: float, zone: str | None) -> float | None:
    """Of this year, unless that is to come: a log written in December is read in January."""
    *numbers, fraction = parts
    year = time.gmtime(now_s).tm_year
    for candidate in (year + 1, year, year - 1):
        found_s = _epoch_s((str(candidate), *numbers), fraction, zone)
        if found_s is not None and found_s <= now_s + 86400:
            return found_s
    return None


def _epoch_s(numbers: tuple[str, ...], fraction: str | None, zone: str | None) -> float | None:
    whole_s = _whole_s(numbers, zone)
    return whole_s if whole_s is None or not fraction else whole_s + float(f"0.{fraction}")


@lru_cache(maxsize=64)  # lines of one second follow each other, and calendars take long
def _whole_s(numbers: tuple[str, ...], zone: str | None) -> float | None:
    try:
        return datetime(*map(int, numbers), tzinfo=_zone(zone)).timestamp()  # type: ignore[arg-type, misc]
    except (ValueError, OverflowError):
        return None


def _zone(text: str | None) -> timezone | None:
    if text is None:
        return None
    if text in ("Z", "UTC", "GMT"):
        return UTC
    digits = text[1:].replace(":", "")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-offset if text[0] == "-" else offset) if offset < timedelta(hours=24) else None


def _level(text: str) -> Level | None:
    if text.startswith(_TRACEBACK):
        return Level.ERROR
    if text.startswith("aifbench: "):
        return Level.INFO
    if not _PLAIN_WORDS.search(text, 0, 200):
        return None
    for pattern in _LEVELS:
        if (match := pattern.search(text)) and (level := _WORDS.get(match[1].upper())) is not None:
            return level
    return None
