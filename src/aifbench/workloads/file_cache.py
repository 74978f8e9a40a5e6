"""How much of a read came from memory: sizes against memory, what is cached, and how to have it dropped."""

import ctypes
import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from aifbench.errors import WorkloadError

MEMINFO = Path("/proc/meminfo")
OWN_CGROUP = Path("/proc/self/cgroup")
CGROUP_ROOT = Path("/sys/fs/cgroup")
DROP_CACHES = Path("/proc/sys/vm/drop_caches")

CACHES = ("auto", "drop", "fadvise", "keep")

_LOOK_BYTES = 256 * 2**20
_ABSENT = bytes(range(0, 256, 2))  # mincore: the lowest bit says that a page is there, others are reserved


@dataclass(frozen=True, slots=True)
class Memory:
    """Of a node: what there is, what may be taken now, `limit_bytes` where a control group allows less."""

    total_bytes: int
    available_bytes: int
    limit_bytes: int | None = None

    @property
    def usable_bytes(self) -> int:
        """What a page cache could grow to."""
        return self.total_bytes if self.limit_bytes is None else min(self.total_bytes, self.limit_bytes)


@dataclass(frozen=True, slots=True)
class Cached:
    """How much of some files was in the page cache at one moment."""

    cached_bytes: int
    total_bytes: int

    @property
    def share(self) -> float:
        return self.cached_bytes / self.total_bytes if self.total_bytes else 0.0


def parse_meminfo(text: str) -> Memory:
    """Raises WorkloadError. Without MemAvailable (kernels before 3.14) free memory stands for it."""
    sizes = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            sizes[name] = int(words[0]) * 1024
    if "MemTotal" not in sizes:
        raise WorkloadError("no MemTotal in /proc/meminfo")
    return Memory(sizes["MemTotal"], sizes.get("MemAvailable", sizes.get("MemFree", 0)))


def cgroup_limit(texts: Iterable[str]) -> int | None:
    """The least of the `memory.max` files of a control group and those above it; None without a limit."""
    limits = [int(text) for text in map(str.strip, texts) if text.isdigit()]
    return min(limits, default=None)


def node_memory() -> Memory:
    """Of this node, with the limit of our own control group (version 2). Raises WorkloadError."""
    try:
        memory = parse_meminfo(MEMINFO.read_text())
    except OSError as error:
        raise WorkloadError(f"cannot read {MEMINFO}: {error.strerror}") from None
    return Memory(memory.total_bytes, memory.available_bytes, cgroup_limit(_own_limits()))


def _own_limits() -> list[str]:
    texts = []
    try:
        line = next((each for each in OWN_CGROUP.read_text().splitlines() if each.startswith("0::")), "")
        group = CGROUP_ROOT / line.removeprefix("0::").lstrip("/")
        for place in (group, *group.parents):
            if place.is_relative_to(CGROUP_ROOT) and (place / "memory.max").is_file():
                texts.append((place / "memory.max").read_text())
    except OSError:
        return texts
    return texts


def drop_file(path: str | Path) -> None:
    """Write back one file and ask the kernel to forget its pages, as any user may. Raises WorkloadError.

    Only pages of this node; the kernel keeps those that are mapped or being written. Measure with
    `cached_in` what it left.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise WorkloadError(f"cannot open {path}: {error.strerror}") from None
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError as error:
        raise WorkloadError(f"cannot drop {path} from the cache: {error.strerror}") from None
    finally:
        os.close(fd)


def drop_everything() -> bool:
    """Empty this node's page cache, dentries and inodes; False where that is not allowed (not root)."""
    try:
        os.sync()
        DROP_CACHES.write_text("3\n")
    except OSError:
        return False
    return True


def make_cold(paths: Iterable[str | Path], how: str) -> Cached:
    """Have this node forget `paths` as `how` says (one of CACHES), and tell what it holds of them then.

    auto: the whole page cache where that is allowed, else file by file. Raises WorkloadError.
    """
    known = [path for path in paths if Path(path).exists()]
    dropped = how in ("auto", "drop") and drop_everything()
    if how == "drop" and not dropped:
        raise WorkloadError(
            "the page cache cannot be dropped: only root may",
            hint="use --cache auto, or leave out --buffered",
        )
    if how == "fadvise" or (how == "auto" and not dropped):
        for path in known:
            drop_file(path)
    return cached_in_all(known)


def cached_in(path: str | Path) -> Cached:
    """How much of a file of ours is in this node's page cache now (mincore). Raises WorkloadError.

    The kernel tells this only to who may write the file; to others all seems cached.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise WorkloadError(f"cannot open {path}: {error.strerror}") from None
    try:
        size = os.fstat(fd).st_size
        cached = sum(
            _cached_part(fd, start, min(_LOOK_BYTES, size - start)) for start in range(0, size, _LOOK_BYTES)
        )
    except OSError as error:
        raise WorkloadError(f"cannot look what is cached of {path}: {error.strerror}") from None
    finally:
        os.close(fd)
    return Cached(min(cached, size), size)


def cached_in_all(paths: Iterable[str | Path]) -> Cached:
    """Of several files together."""
    seen = [cached_in(path) for path in paths]
    return Cached(sum(each.cached_bytes for each in seen), sum(each.total_bytes for each in seen))


def _cached_part(fd: int, start: int, size_bytes: int) -> int:
    pages = -(-size_bytes // mmap.PAGESIZE)
    flags = (ctypes.c_ubyte * pages)()
    libc = ctypes.CDLL(None, use_errno=True)
    # A private mapping may be taken by address, which a read-only one of Python's may not; nothing is copied.
    with mmap.mmap(
        fd, size_bytes, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE, offset=start
    ) as mapped:
        holder = ctypes.c_char.from_buffer(mapped)
        address = ctypes.c_void_p(ctypes.addressof(holder))
        result = libc.mincore(address, ctypes.c_size_t(size_bytes), flags)
        del holder
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return len(bytes(flags).translate(None, _ABSENT)) * mmap.PAGESIZE
