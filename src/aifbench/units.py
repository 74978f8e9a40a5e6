"""Quantities as people type and read them: text to numbers in base units, and back.

All parsers raise UsageError naming the value and what would be valid.
"""

import math
import re

from aifbench.errors import UsageError

_DURATION_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_COUNT = {"": 1, "k": 10**3, "m": 10**6}
_SIZE_BYTES = {"": 1, "b": 1}
_SIZE_BYTES |= {f"{p}b": 1000 ** (n + 1) for n, p in enumerate("kmgt")}
_SIZE_BYTES |= {f"{p}ib": 1024 ** (n + 1) for n, p in enumerate("kmgt")}
_SIZE_BYTES |= {p: 1024 ** (n + 1) for n, p in enumerate("kmgt")}  # as file system benchmarks write them
_NUMBER_UNIT = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+)\s*([A-Za-z]*)\s*")

# Larger than any quantity this program is asked for; keeps typing errors away from the scheduler.
MAX_DURATION_S = 366 * 86400.0


def _split(text: str, what: str, valid: str) -> tuple[float, str]:
    match = _NUMBER_UNIT.fullmatch(text)
    if match is None:
        raise UsageError(f"{what} {text!r} is not a quantity", hint=f"give {valid}")
    value = float(match[1])
    if not math.isfinite(value):
        raise UsageError(f"{what} {text!r} is not finite", hint=f"give {valid}")
    return value, match[2].lower()


def parse_duration_s(text: str, what: str = "duration", *, may_be_zero: bool = False) -> float:
    """Seconds from `90`, `90s`, `1.5m`, `2h`, `500ms`, `MM:SS` or `HH:MM:SS`; positive, unless said."""
    valid = "seconds or a number with ms, s, m, h or d, such as 90s or 1.5h"
    clock = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d\d)", text.strip())
    if clock:
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        value_s = days * 86400.0 + hours * 3600.0 + minutes * 60.0 + seconds
    else:
        number, unit = _split(text, what, valid)
        if unit and unit not in _DURATION_S:
            raise UsageError(f"{what} {text!r} has the unknown unit {unit!r}", hint=f"give {valid}")
        value_s = number * _DURATION_S[unit or "s"]
    if not 0 < value_s <= MAX_DURATION_S and not (may_be_zero and value_s == 0):
        least = "0 or more" if may_be_zero else "more than 0"
        raise UsageError(f"{what} {text!r} is out of range", hint=f"give {least} and at most 366 days")
    return value_s


def parse_count(text: str, what: str = "count", *, minimum: int = 1, maximum: int = 10**12) -> int:
    """A whole number from `1000`, `10k` or `1M`, within [minimum, maximum]."""
    number, unit = _split(text, what, f"a whole number from {minimum:,}, such as 1000, 10k or 1M")
    if unit not in _COUNT:
        raise UsageError(f"{what} {text!r} has the unknown unit {unit!r}", hint="use k or M, or none")
    value = number * _COUNT[unit]
    if value != int(value):
        raise UsageError(f"{what} {text!r} is not a whole number", hint=f"give {minimum:,} or more")
    if not minimum <= value <= maximum:
        raise UsageError(f"{what} {text!r} is out of range", hint=f"give {minimum:,} to {maximum:,}")
    return int(value)


def parse_number(text: str, what: str, *, minimum: float, maximum: float) -> float:
    """A plain number within [minimum, maximum], such as a share or a factor."""
    valid = f"give a number from {minimum:g} to {maximum:g}"
    number, unit = _split(text, what, valid.removeprefix("give "))
    if unit or not minimum <= number <= maximum:
        raise UsageError(f"{what} {text!r} is out of range", hint=valid)
    return number


def parse_rate_per_s(text: str, what: str = "rate") -> float:
    """Operations per second from `8`, `0.5`, `2k`, `8/s` or `30/m`; must be positive."""
    valid = "operations per second such as 50, 2k, or 30/m"
    base, slash, per = text.partition("/")
    divisor = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}.get(per.strip().lower())
    if divisor is None or (slash and not per.strip()):
        raise UsageError(f"{what} {text!r} is not a rate", hint=f"give {valid}")
    number, unit = _split(base, what, valid)
    if unit not in _COUNT:
        raise UsageError(f"{what} {text!r} has the unknown unit {unit!r}", hint=f"give {valid}")
    value = number * _COUNT[unit] / divisor
    if not 0 < value <= 1e7:
        raise UsageError(f"{what} {text!r} is out of range", hint="give more than 0 and at most 10M/s")
    return value


def parse_size_bytes(text: str, what: str = "size", *, minimum: int = 1, maximum: int = 10**18) -> int:
    """Bytes from `4096`, `4KiB` (1024), `1m` (1 MiB) or `150KB` (1000), within [minimum, maximum]."""
    number, unit = _split(text, what, "a size such as 4KiB, 150KB or 1MiB")
    if unit not in _SIZE_BYTES:
        raise UsageError(
            f"{what} {text!r} has the unknown unit {unit!r}",
            hint="use B, KB, KiB, MB, MiB, GB, GiB, TB or TiB",
        )
    size_bytes = round(number * _SIZE_BYTES[unit])
    if not minimum <= size_bytes <= maximum:
        raise UsageError(
            f"{what} {text!r} is out of range", hint=f"give {format_size(minimum)} to {format_size(maximum)}"
        )
    return size_bytes


def format_duration(value_s: float) -> str:
    """`850 ms`, `12.3 s`, `03:12` or `1:02:03`: the shape a person reads fastest."""
    if value_s < 1:
        return f"{value_s * 1000:.0f} ms"
    if value_s < 60:
        return f"{value_s:.1f} s"
    whole = round(value_s)
    hours, rest = divmod(whole, 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes:02d}:{seconds:02d}"


def format_count(number: int, what: str) -> str:
    """`1 run`, `2,000 runs`: `what` in the singular, of those that take an s."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def format_number(value: float, digits: int = 4) -> str:
    """At most `digits` significant digits, thousands separated by a thin space-free comma."""
    if not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{round(value, decimals):,.{decimals}f}" if decimals else f"{value:,.0f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def format_size(size_bytes: float) -> str:
    """Bytes in binary units: `512 B`, `1.5 KiB`, `20 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size_bytes) < 1024 or unit == "TiB":
            return f"{format_number(size_bytes, 3)} {unit}"
        size_bytes /= 1024
    raise AssertionError("unreachable")
