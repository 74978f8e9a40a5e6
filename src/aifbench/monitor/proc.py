"""What the kernel tells of a machine, read again and again: files kept open, texts parsed to counters.

Counters are returned as the kernel counts them, in base units (seconds, bytes); differences are for the
reader of the samples. Whatever cannot be read is left out. Standard library only, and light: this runs beside
a load.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

# Mostly the first lines are what is needed: of many processors' interrupt counts nobody asks here.
_READ_BYTES = 16_384
_SECTOR_BYTES = 512  # of /proc/diskstats, whatever the device says of itself
_IB_WORD_BYTES = 4  # port_*_data count in words
_LOOPBACK = "lo"
_INFINIBAND_TYPE = "32"  # ARPHRD_INFINIBAND: IPoIB, whose traffic the port counts too
# Loop devices, memory and parts of devices would count a byte twice.
_NO_DISK = re.compile(r"(loop|ram|zram|dm-|md|sr|fd|nbd)\d")
_JOB = re.compile(r"(.*/job_\d+)(/|$)")

Values = dict[str, Any]
Reader = Callable[[], str]


def cpu_seconds(text: str, ticks_per_s: int) -> Values:
    """Of /proc/stat: seconds since boot over all processors. `user` holds nice, `system` holds interrupts."""
    fields = [int(word) / ticks_per_s for word in text[: text.index("\n")].split()[1:9]]
    user, nice, system, idle, iowait, irq, softirq, steal = fields
    return {
        "user": round(user + nice, 2),
        "system": round(system + irq + softirq, 2),
        "idle": round(idle, 2),
        "iowait": round(iowait, 2),
        "steal": round(steal, 2),
    }


def memory_bytes(text: str) -> Values:
    """Of /proc/meminfo: `used` is what cannot be had without swapping."""
    found = {line.split(":")[0]: line for line in text.splitlines()[:5]}
    total, available = (int(found[name].split()[1]) * 1024 for name in ("MemTotal", "MemAvailable"))
    return {"used": total - available, "available": available}


def load(text: str) -> Values:
    """Of /proc/loadavg: the load over one minute, and how many threads there are."""
    words = text.split()
    return {"load_1min": float(words[0]), "threads": int(words[3].split("/")[1])}


def network_names(text: str) -> frozenset[str]:
    """Of /proc/net/dev: every interface that there is now."""
    return frozenset(line.partition(":")[0].strip() for line in text.splitlines()[2:])


def network_bytes(text: str, names: Iterable[str]) -> dict[str, list[int]]:
    """Of /proc/net/dev: [received, sent] of these interfaces."""
    wanted = set(names)
    found = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        if (name := name.strip()) in wanted:
            words = rest.split()
            found[name] = [int(words[0]), int(words[8])]
    return found


def disk_counts(text: str, names: Iterable[str]) -> dict[str, list[int]]:
    """Of /proc/diskstats: [reads, bytes read, writes, bytes written] of these devices."""
    wanted = set(names)
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) > 9 and words[2] in wanted:
            reads, read, writes, written = (int(words[i]) for i in (3, 5, 7, 9))
            found[words[2]] = [reads, read * _SECTOR_BYTES, writes, written * _SECTOR_BYTES]
    return found


def lustre_bytes(text: str) -> list[int]:
    """Of a client's llite stats: [bytes read, bytes written]; the sum is a line's last word."""
    sums = {"read_bytes": 0, "write_bytes": 0}
    for line in text.splitlines():
        words = line.split()
        if words and words[0] in sums and len(words) >= 7:
            sums[words[0]] = int(words[6])
    return list(sums.values())


def cgroup_cpu_s(text: str) -> float:
    """Of cpu.stat (version 2, microseconds) or cpuacct.usage (version 1, nanoseconds)."""
    if text.startswith("usage_usec"):
        return int(text.split(None, 2)[1]) / 1e6
    return int(text) / 1e9


def job_cgroup(text: str, root: Path = Path("/sys/fs/cgroup")) -> dict[str, Path]:
    """The files of the batch job's group by what they count, from /proc/self/cgroup; none outside a job."""
    found: dict[str, Path] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        job = _JOB.match(path)
        if job is None:
            continue
        below = job[1].lstrip("/")
        for controller in controllers.split(","):
            if controller == "":
                found |= {"cpu": root / below / "cpu.stat", "memory": root / below / "memory.current"}
            elif controller == "memory":
                found["memory"] = root / "memory" / below / "memory.usage_in_bytes"
            elif controller == "cpuacct":
                mounted = next((d for d in ("cpuacct", "cpu,cpuacct") if (root / d).is_dir()), "cpuacct")
                found["cpu"] = root / mounted / below / "cpuacct.usage"
    return {name: path for name, path in found.items() if path.is_file()}


def is_disk(name: str, block: Path = Path("/sys/block")) -> bool:
    """Whether it is a whole device that holds data itself."""
    return (block / name).exists() and not _NO_DISK.match(name)


def interfaces(net: Path = Path("/sys/class/net"), *, has_infiniband: bool = False) -> list[str]:
    """Where bytes enter or leave the machine, and the loopback; bridges and pairs would count twice.

    In a container with its own network there are only pairs: then all of them.
    """
    names = sorted(path.name for path in net.glob("*"))
    others = [name for name in names if name != _LOOPBACK]
    real = [name for name in others if (net / name / "device").exists()]
    if has_infiniband:
        real = [name for name in real if _text(net / name / "type") != _INFINIBAND_TYPE]
    return [*(real or ([] if has_infiniband else others)), *(n for n in names if n == _LOOPBACK)]


def infiniband_ports(root: Path = Path("/sys/class/infiniband")) -> dict[str, tuple[Path, Path]]:
    """Counter files (received, sent) by `device/port`."""
    found = {}
    for counters in sorted(root.glob("*/ports/*/counters")):
        both = counters / "port_rcv_data", counters / "port_xmit_data"
        if all(path.is_file() for path in both):
            found[f"{counters.parents[2].name}/{counters.parent.name}"] = both
    return found


def lustre_stats(
    roots: Iterable[Path] = (Path("/proc/fs/lustre/llite"), Path("/sys/kernel/debug/lustre/llite")),
) -> dict[str, Path]:
    """The statistics of each mounted Lustre file system, where users may read them."""
    found: dict[str, Path] = {}
    for root in roots:
        with suppress(OSError):
            for path in sorted(root.glob("*/stats")):
                found.setdefault(path.parent.name.split("-")[0], path)
    return found


def open_text(path: Path, *, whole: bool = False) -> Reader:
    """Reads the file's beginning, or all of it, anew at every call on one descriptor. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read() -> bytes:
        text = os.pread(descriptor, _READ_BYTES, 0)
        # The kernel hands out a list of devices a page at a time, however much is asked for.
        while whole and (more := os.pread(descriptor, _READ_BYTES, len(text))):
            text += more
        return text

    return lambda: read().decode("ascii", "replace")


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="ascii").strip()
    return ""


class Machine:
    """The counters of this machine: `read` gives what could be read, `missing` says what could not."""

    def __init__(self, proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> None:
        self.missing: dict[str, str] = {}
        self._sources: dict[str, Callable[[], Any]] = {}
        ports = infiniband_ports(sys / "class/infiniband")
        self._net, self._has_infiniband = sys / "class/net", bool(ports)
        self.interfaces = interfaces(self._net, has_infiniband=self._has_infiniband)
        self._names: frozenset[str] = frozenset()
        self.disks = self._disks(proc, sys)
        ticks = os.sysconf("SC_CLK_TCK")
        self._add("cpu", proc / "stat", lambda text: cpu_seconds(text, ticks))
        self._add("memory", proc / "meminfo", memory_bytes)
        self._add("load", proc / "loadavg", load)
        self._add("net", proc / "net/dev", self._network_bytes, whole=True)
        self._add("disk", proc / "diskstats", lambda text: disk_counts(text, self.disks), whole=True)
        self._add_each("ib", ports, _port_bytes)
        lustre = {name: (path,) for name, path in lustre_stats((proc / "fs/lustre/llite",)).items()}
        lustre |= {n: (p,) for n, p in lustre_stats((sys / "kernel/debug/lustre/llite",)).items()}
        self._add_each("lustre", lustre, lambda texts: lustre_bytes(texts[0]))
        self._add_job(proc, sys)

    def read(self) -> Values:
        found = {}
        for name, source in self._sources.items():
            # A device may vanish, a text may change its form: what is left counts.
            with suppress(OSError, ValueError, IndexError, KeyError):
                found[name] = source()
        return found

    def _network_bytes(self, text: str) -> dict[str, list[int]]:
        """Also of interfaces that came after the first look."""
        if (names := network_names(text)) != self._names:
            self._names = names
            self.interfaces = interfaces(self._net, has_infiniband=self._has_infiniband)
        return network_bytes(text, self.interfaces)

    def _add(self, name: str, path: Path, parse: Callable[[str], Any], *, whole: bool = False) -> None:
        try:
            text = open_text(path, whole=whole)
            parse(text())
        except (OSError, ValueError, IndexError, KeyError) as error:
            self.missing[name] = _reason(error)
            return
        self._sources[name] = lambda: parse(text())

    def _add_each(
        self, name: str, files: Mapping[str, tuple[Path, ...]], parse: Callable[[list[str]], list[int]]
    ) -> None:
        readers: dict[str, list[Reader]] = {}
        for each, paths in files.items():
            try:
                opened = [open_text(path) for path in paths]
                parse([text() for text in opened])
                readers[each] = opened
            except (OSError, ValueError, IndexError) as error:
                self.missing[f"{name} {each}"] = _reason(error)
        if readers:
            self._sources[name] = lambda: {
                each: parse([text() for text in texts]) for each, texts in readers.items()
            }

    def _add_job(self, proc: Path, sys: Path) -> None:
        files = job_cgroup(_text(proc / "self/cgroup"), sys / "fs/cgroup")
        parsers: dict[str, Callable[[str], Any]] = {"cpu": cgroup_cpu_s, "memory": int}
        for name, path in files.items():
            self._add(f"job_{name}", path, parsers[name])
        if not files:
            self.missing["job"] = "no control group of a batch job"

    def _disks(self, proc: Path, sys: Path) -> list[str]:
        names = [
            words[2] for line in _text(proc / "diskstats").splitlines() if len(words := line.split()) > 9
        ]
        return [name for name in names if is_disk(name, sys / "block")]


def _port_bytes(texts: list[str]) -> list[int]:
    return [int(text) * _IB_WORD_BYTES for text in texts]


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
