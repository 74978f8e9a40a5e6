"""The configuration of IO500: read, checked key by key, copied with our directories; never edited in place.

The rules are those of its own reader (src/ini-parse.c): names of any case, `#` and `;` begin comments, an
empty value means the default. It stops at the first mistake and, having been started on every node, wastes
the job; here all mistakes are found before, with their lines.
"""

import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from aifbench.errors import ConfigError

LIST_STONEWALL_S = 300
STUDENT_STONEWALL_S = 30


@dataclass(frozen=True, slots=True)
class IniProblem:
    """One mistake; `line` counts from 1, and is 0 for what is missing."""

    line: int
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        return f"{place}{self.message}" + (f" ({self.hint})" if self.hint else "")


@dataclass(frozen=True, slots=True)
class Io500Ini:
    """Values by lower-case (section, key); empty ones, which mean the default, are left out."""

    values: dict[tuple[str, str], str]
    problems: tuple[IniProblem, ...] = ()

    def value(self, section: str, key: str, default: str = "") -> str:
        return self.values.get((section.lower(), key.lower()), default)

    @property
    def stonewall_s(self) -> int:
        return _whole(self.value("debug", "stonewall-time"), LIST_STONEWALL_S)


def parse_ini(text: str) -> Io500Ini:
    """Everything that can be read; what is wrong is in `problems`."""
    values: dict[tuple[str, str], str] = {}
    problems: list[IniProblem] = []
    sections: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if found := _SECTION.match(line):
            section = found[1].lower()
            problems += _section_problems(found[1], number, sections)
            sections.setdefault(section, number)
        elif found := _ENTRY.match(line):
            key, value = found[1].lower(), found[2].strip()
            if (section, key) in values:
                problems.append(IniProblem(number, f"[{section}] {found[1]} is set a second time"))
            problems += _entry_problems(section, found[1], value, number)
            if value:
                values[section, key] = value
        elif not _EMPTY.match(line):
            problems.append(IniProblem(number, f"{line.strip()!r} is neither a section nor a setting"))
    return Io500Ini(values, (*problems, *_together(values)))


def read_ini(text: str, name: str = "the IO500 configuration") -> Io500Ini:
    """Raises ConfigError with all mistakes."""
    ini = parse_ini(text)
    if ini.problems:
        raise ConfigError(
            f"{name} cannot be used: " + "; ".join(str(problem) for problem in ini.problems),
            hint="`io500 --list` prints every section and setting",
        )
    return ini


def with_directories(text: str, datadir: Path, resultdir: Path) -> str:
    """A copy whose data and results go where we say, not into directories named by the time.

    All other lines stay as they are. Raises ConfigError for a path that such a file cannot hold.
    """
    wanted = {
        "datadir": _path_value(datadir),
        "resultdir": _path_value(resultdir),
        "timestamp-datadir": "FALSE",
        "timestamp-resultdir": "FALSE",
    }
    kept = list(_without(text, "global", wanted))
    ours = [f"{key} = {value}" for key, value in wanted.items()]
    place = next((i for i, line in enumerate(kept) if _section_of(line) == "global"), None)
    lines = (
        ["[global]", *ours, "", *kept] if place is None else [*kept[: place + 1], *ours, *kept[place + 1 :]]
    )
    return "\n".join(lines) + "\n"


_SECTION = re.compile(r"^\s*\[\s*([0-9a-zA-Z_-]+)\s*\]\s*(?:[#;].*)?$")
_ENTRY = re.compile(r"^\s*([0-9a-zA-Z_.-]+)\s*=\s*([^#;]*)(?:[#;].*)?$")
_EMPTY = re.compile(r"^\s*(?:[#;].*)?$")
_SIZE = re.compile(r"(\d+)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_FACTOR = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def _as_bool(text: str) -> bool | None:
    return {"true": True, "1": True, "false": False, "0": False}.get(text.lower())


def _size_bytes(text: str) -> int | None:
    found = _SIZE.fullmatch(text)
    return int(found[1]) * _FACTOR[found[2].lower()] if found else None


def _whole(text: str, default: int) -> int:
    return int(text) if text.isdigit() else default


def _boolean(text: str) -> str:
    return "" if _as_bool(text) is not None else "give TRUE or FALSE"


def _count(text: str) -> str:
    return "" if text.isdigit() else "give a whole number, 0 or more"


def _positive(text: str) -> str:
    return "" if text.isdigit() and int(text) > 0 else "give a whole number from 1"


def _size(text: str) -> str:
    return "" if _size_bytes(text) else "give a size from 1, such as 2m or 32g"


def _number(text: str) -> str:
    try:
        return "" if float(text) >= 0 else "give a number, 0 or more"
    except ValueError:
        return "give a number, 0 or more"


def _packet(text: str) -> str:
    kinds = ("timestamp", "offset", "incompressible", "random")
    return "" if text.lower() in kinds else f"give one of {', '.join(kinds)}"


def _any(_text: str) -> str:
    return ""


# A rule says what would be valid, or nothing when the text is.
_Rule = Callable[[str], str]
_PHASE: dict[str, _Rule] = {"api": _any, "run": _boolean, "norun": _boolean, "verbosity": _count}
_FIND: dict[str, _Rule] = {
    "external-script": _any,
    "external-mpi-args": _any,
    "external-extra-args": _any,
    "nproc": _positive,
    "run": _boolean,
    "norun": _boolean,
    "pfind-queue-length": _positive,
    "pfind-steal-next": _boolean,
    "pfind-parallelize-single-dir-access-using-hashing": _boolean,
}
_RANDOM: dict[str, _Rule] = _PHASE | {"blocksize": _size, "randomprefill": _count}
_RULES: dict[str, dict[str, _Rule]] = {
    "global": {
        "datadir": _any,
        "timestamp-datadir": _boolean,
        "resultdir": _any,
        "timestamp-resultdir": _boolean,
        "api": _any,
        "drop-caches": _boolean,
        "drop-caches-cmd": _any,
        "io-buffers-on-gpu": _boolean,
        "verbosity": _count,
        "scc": _boolean,
        "datapackettype": _packet,
    },
    "debug": {"stonewall-time": _positive, "pause-dir": _any},
    "ior-easy": _PHASE
    | {
        "transfersize": _size,
        "blocksize": _size,
        "hintsfilename": _any,
        "fileperproc": _boolean,
        "uniquedir": _boolean,
    },
    "ior-hard": _PHASE | {"segmentcount": _positive, "collective": _boolean, "hintsfilename": _any},
    "mdtest-easy": _PHASE | {"n": _positive},
    "mdtest-hard": _PHASE | {"n": _positive, "files-per-dir": _positive},
    "mdworkbench": _PHASE | {"waitingtime": _number, "precreateperset": _count, "filesperproc": _count},
    **dict.fromkeys(("ior-rnd", "ior-rnd4k", "ior-rnd1mb"), _RANDOM),
    **dict.fromkeys(("find", "find-easy", "find-hard"), _FIND),
    **{
        f"{name}-{verb}": _PHASE | {"collective": _boolean}
        for name in ("ior-easy", "ior-hard", "ior-rnd", "ior-rnd4k", "ior-rnd1mb")
        for verb in ("write", "read")
    },
    **{
        f"mdtest-{kind}-{verb}": _PHASE
        for kind in ("easy", "hard")
        for verb in ("write", "stat", "read", "delete")
    },
    **{f"mdworkbench-{verb}": _PHASE for verb in ("create", "bench", "delete")},
    "ior-rnd4k-easy-read": _PHASE,
    "timestamp": {},
}


def _section_problems(name: str, line: int, seen: dict[str, int]) -> Iterator[IniProblem]:
    if name.lower() not in _RULES:
        yield IniProblem(line, f"[{name}] is not a section of IO500", _nearest(name, _RULES))
    elif name.lower() in seen:
        yield IniProblem(line, f"[{name}] was begun in line {seen[name.lower()]} already", "keep one of them")


def _entry_problems(section: str, key: str, value: str, line: int) -> Iterator[IniProblem]:
    if not section:
        yield IniProblem(line, f"{key} is set before any section")
        return
    rules = _RULES.get(section)
    if (
        rules is None or "." in key
    ):  # said already; or an option of a storage interface, such as posix.odirect
        return
    if key.lower() not in rules:
        yield IniProblem(line, f"[{section}] has no setting {key}", _nearest(key, rules))
    elif value and (wrong := rules[key.lower()](value)):
        yield IniProblem(line, f"[{section}] {key} cannot be {value!r}", wrong)


def _together(values: dict[tuple[str, str], str]) -> Iterator[IniProblem]:
    block = _size_bytes(values.get(("ior-easy", "blocksize"), "9920000m"))
    transfer = _size_bytes(values.get(("ior-easy", "transfersize"), "2m"))
    if block and transfer and block % transfer:
        yield IniProblem(0, "[ior-easy] blockSize is not a multiple of transferSize")


def _nearest(name: str, valid: dict[str, dict[str, _Rule]] | dict[str, _Rule]) -> str:
    found = difflib.get_close_matches(name.lower(), valid, n=1)
    return f"did you mean {found[0]}?" if found else f"valid: {', '.join(sorted(valid))}"


def _path_value(path: Path) -> str:
    text = str(path)
    if not path.is_absolute() or re.search(r"[#;\n\r\t]", text) or text != text.strip():
        raise ConfigError(
            f"IO500 cannot work in {text!r}", hint="give an absolute path without #, ; and control characters"
        )
    return text


def _section_of(line: str) -> str:
    found = _SECTION.match(line)
    return found[1].lower() if found else ""


def _without(text: str, section: str, keys: dict[str, str]) -> Iterator[str]:
    current = ""
    for line in text.splitlines():
        current = _section_of(line) or current
        entry = _ENTRY.match(line)
        if not (entry and current == section and entry[1].lower() in keys):
            yield line
