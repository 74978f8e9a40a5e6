"""What file system a path is on: mount point, type, source, options, free space."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aifbench.errors import WorkloadError

MOUNTINFO = Path("/proc/self/mountinfo")

_SHARED = frozenset(
    {"lustre", "nfs", "nfs4", "gpfs", "beegfs", "ceph", "fuse.ceph", "cifs", "smb3", "wekafs", "9p",
     "virtiofs", "fuse.sshfs", "fuse.juicefs", "dfuse", "fuse.dfuse", "panfs", "pvfs2", "orangefs", "afs"}
)  # fmt: skip
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo."""

    point: str
    fs_type: str
    source: str
    options: tuple[str, ...]

    @property
    def is_lustre(self) -> bool:
        return self.fs_type == "lustre"

    @property
    def is_shared(self) -> bool:
        """Other nodes see the same files."""
        return self.fs_type in _SHARED


@dataclass(frozen=True, slots=True)
class Space:
    """`free_bytes` is what an ordinary user may still take; inodes are None where there is no such count."""

    total_bytes: int
    free_bytes: int
    total_inodes: int | None
    free_inodes: int | None


def parse_mountinfo(text: str) -> list[Mount]:
    """All mounts in the kernel's order; lines of another form are left out (see proc(5))."""
    mounts = []
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        left, right = before.split(" "), after.split(" ")
        if not dash or len(left) < 6 or len(right) < 2:
            continue
        own = left[5].split(",")
        further = right[2].split(",") if len(right) > 2 else []
        # The mount's own rw or ro counts: the file system's may be another.
        options = (*own, *(each for each in further if each not in ("rw", "ro", *own)))
        mounts.append(Mount(_unescape(left[4]), right[0], _unescape(right[1]), options))
    return mounts


def find_mount(path: str, mounts: Sequence[Mount]) -> Mount | None:
    """The mount that a path without symbolic links is on; of several on one point the last, on top."""
    best: Mount | None = None
    for mount in mounts:
        if _is_below(path, mount.point) and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def mount_of(path: str | Path) -> Mount:
    """The mount of an existing path. Raises WorkloadError."""
    try:
        mount = find_mount(os.path.realpath(path), parse_mountinfo(MOUNTINFO.read_text("utf-8", "replace")))
    except OSError as error:
        raise WorkloadError(f"cannot read {MOUNTINFO}: {error.strerror}") from None
    if mount is None:
        raise WorkloadError(f"no mount point is known for {path}")
    return mount


def space_of(path: str | Path) -> Space:
    """Raises WorkloadError."""
    try:
        seen = os.statvfs(path)
    except OSError as error:
        raise WorkloadError(f"cannot tell the space of {path}: {error.strerror}") from None
    counts_inodes = seen.f_files > 0
    return Space(
        total_bytes=seen.f_blocks * seen.f_frsize,
        free_bytes=seen.f_bavail * seen.f_frsize,
        total_inodes=seen.f_files if counts_inodes else None,
        free_inodes=seen.f_favail if counts_inodes else None,
    )


def _is_below(path: str, point: str) -> bool:
    return point == "/" or path == point or path.startswith(f"{point}/")


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)
