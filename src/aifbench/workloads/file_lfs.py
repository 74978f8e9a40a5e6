"""What Lustre's `lfs` prints about a path: stripe layout, project, quotas. Pure functions from text.

The forms are those of the Lustre manual, of versions 2.5 to 2.15: plain and composite (progressive) layouts,
of files and of directories, whose keys differ (`lmm_stripe_count` and `stripe_count`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from aifbench.errors import ResultError, UsageError

_PAIR = re.compile(r"([A-Za-z_][\w.]*):[ \t]+([^\s:]+)")
_OST_OF_OBJECT = re.compile(r"l_ost_idx:\s*(\d+)")
_OST_ROW = re.compile(r"\s*(\d+)\s+\d+\s+0x[0-9a-fA-F]+\s+\S+\s*\*?\s*$")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50, "E": 2**60}
_QUANTITY = re.compile(r"\[?(\d+(?:\.\d+)?)([kKMGTPE]?)\]?\*?\]?")
# `bquota  blimit  bgrace` and so on since version 2.16.
_QUOTA_HEADER = re.compile(r"^\s*Filesystem\s.*$", re.MULTILINE)
_PROJECT = re.compile(r"\s*(\d+)\s+[P-]\s")
_STRIPE_SIZE = re.compile(r"\d+[kKmMgG]?")


@dataclass(frozen=True, slots=True)
class Component:
    """One part of a layout: bytes from `start` to `end` (None: the end of the file).

    `stripe_count` -1 is all targets, 0 the file system's default, or none of them where `pattern` is mdt.
    `osts` are the targets of what has been written; none of a directory or of a part not yet in use.
    """

    start: int
    end: int | None
    stripe_count: int
    stripe_size_bytes: int
    pattern: str = ""
    pool: str = ""
    osts: tuple[int, ...] = ()

    def __str__(self) -> str:
        end = "end" if self.end is None else f"{self.end:,}"
        count = "all" if self.stripe_count < 0 else str(self.stripe_count)
        pool = f" of pool {self.pool}" if self.pool else ""
        return f"{self.start:,}-{end}: {count} x {self.stripe_size_bytes:,} B{pool}"


@dataclass(frozen=True, slots=True)
class Quota:
    """In bytes and numbers of files; a limit is None where none is set. `is_over` where lfs marks it."""

    used_bytes: int
    soft_bytes: int | None
    hard_bytes: int | None
    files: int
    soft_files: int | None
    hard_files: int | None
    is_over: bool = False

    @property
    def free_bytes(self) -> int | None:
        return None if self.hard_bytes is None else max(0, self.hard_bytes - self.used_bytes)

    @property
    def free_files(self) -> int | None:
        return None if self.hard_files is None else max(0, self.hard_files - self.files)


def parse_getstripe(text: str) -> tuple[Component, ...]:
    """The layout that `lfs getstripe` or `lfs getstripe -d` printed for one path. Raises ResultError."""
    parts: list[dict[str, str]] = [{}]
    osts: list[list[int]] = [[]]
    for line in text.splitlines():
        if row := _OST_ROW.match(line):
            osts[-1].append(int(row[1]))
            continue
        if found := _OST_OF_OBJECT.search(line):
            osts[-1].append(int(found[1]))
            continue
        for key, value in _PAIR.findall(line):
            if key == "lcme_id":
                parts.append({})
                osts.append([])
            parts[-1].setdefault(key.removeprefix("lmm_"), value)
    components = tuple(
        _component(part, tuple(of_part))
        for part, of_part in zip(parts, osts, strict=True)
        if "stripe_count" in part
    )
    if not components:
        raise ResultError(f"no stripe layout in what lfs printed: {text.strip()[:80]!r}")
    return components


def _component(part: dict[str, str], osts: tuple[int, ...]) -> Component:
    end = part.get("lcme_extent.e_end", "EOF")
    return Component(
        start=int(part.get("lcme_extent.e_start", "0")),
        end=None if end.upper() == "EOF" else int(end),
        stripe_count=int(part["stripe_count"]),
        stripe_size_bytes=int(part.get("stripe_size", "0")),
        pattern={"1": "raid0"}.get(part.get("pattern", ""), part.get("pattern", "")),
        pool=part.get("pool", ""),
        osts=osts,
    )


def parse_quota(text: str) -> Quota:
    """The first line of values that `lfs quota` printed, with or without `-h`. Raises ResultError.

    A long file system name stands on a line of its own; the last grace time may be missing.
    """
    header = _QUOTA_HEADER.search(text)
    values = text[header.end() :].split()[1:] if header else []
    if header is None or len(values) < 7:
        raise ResultError(f"no quota in what lfs printed: {text.strip()[:80]!r}")
    scale = 1024 if "kbytes" in header[0] else 1
    used, soft, hard = (round(_quantity(each) * scale) for each in values[:3])
    files, soft_files, hard_files = (round(_quantity(each)) for each in values[4:7])
    is_over = "*" in values[0] or "*" in values[4]
    return Quota(used, soft or None, hard or None, files, soft_files or None, hard_files or None, is_over)


def parse_project(text: str) -> int:
    """The project that `lfs project -d` printed of one directory; 0 where it has none. Raises ResultError."""
    match = _PROJECT.match(text)
    if match is None:
        raise ResultError(f"no project in what lfs printed: {text.strip()[:80]!r}")
    return int(match[1])


def getstripe_command(path: str) -> list[str]:
    """Prints the path's own layout, not those of the files in it."""
    return ["lfs", "getstripe", "-d", path]


def project_command(directory: str) -> list[str]:
    """Prints the directory's own project, not those of the files in it."""
    return ["lfs", "project", "-d", directory]


def quota_command(mount_point: str, kind: str, number: int) -> list[str]:
    """In kilobytes, of one `user`, `group` or `project`."""
    return ["lfs", "quota", f"-{kind[0]}", str(number), mount_point]


def setstripe_command(directory: str, count: int | None, size: str | None) -> list[str]:
    """For files made in `directory` from then on: a plain layout, also where the default is progressive.

    `count` -1 is all targets; `size` has a unit, as 4M, and is a multiple of 64K. Raises UsageError.
    """
    options: list[str] = []
    if count is not None:
        if count < -1:
            raise UsageError(f"stripe count {count}", hint="-1 (all targets), 0 (the default) or more")
        options += ["-c", str(count)]
    if size is not None:
        if not _STRIPE_SIZE.fullmatch(size) or _stripe_bytes(size) % 2**16:
            raise UsageError(f"stripe size {size!r}", hint="a multiple of 64K, as 1M or 4M")
        options += ["-S", size]
    if not options:
        raise UsageError("neither a stripe count nor a stripe size", hint="give one of them")
    return ["lfs", "setstripe", *options, directory]


def layout_words(components: Sequence[Component]) -> str:
    """A layout in one line."""
    return "; ".join(map(str, components))


def _stripe_bytes(size: str) -> int:
    unit = size[-1].upper() if size[-1].isalpha() else ""
    return int(size.rstrip("kKmMgG")) * _UNITS[unit]


def _quantity(text: str) -> float:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ResultError(f"{text!r} is no size")
    return float(match[1]) * _UNITS[match[2].upper()]
