"""Energy counters of processors and memory: Intel's and AMD's RAPL as the kernel's powercap shows it.

The counter wraps at `max_energy_range_uj`, which on some processors is within an hour under load.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from aifbench.monitor.proc import open_text

_ROOT = Path("/sys/class/powercap")


def packages(root: Path = _ROOT) -> dict[str, Path]:
    """The zones to be added up, by name: packages, and memory where it is no part of one.

    Other zones are parts of a package (core, uncore) or the sum of several (psys). The same registers may be
    shown twice, as intel-rapl and intel-rapl-mmio: the first one counts.
    """
    found: dict[str, Path] = {}
    for path in sorted(root.glob("intel-rapl:*")):
        with suppress(OSError):
            name = (path / "name").read_text(encoding="ascii").strip()
            if name.startswith("package"):
                found.setdefault(name, path)
            elif name == "dram":
                found.setdefault(f"{name} {path.name.split(':')[1]}", path)
    return found


class Rapl:
    """Energy in joules since the first reading, by zone; wrap-arounds are taken out."""

    def __init__(self, root: Path = _ROOT) -> None:
        self.missing = ""
        self._zones: dict[str, _Zone] = {}
        for name, path in packages(root).items():
            try:
                span_uj = int((path / "max_energy_range_uj").read_text(encoding="ascii"))
                self._zones[name] = _Zone(open_text(path / "energy_uj"), span_uj)
            except (OSError, ValueError) as error:
                self.missing = getattr(error, "strerror", None) or str(error)
        if not self._zones and not self.missing:
            self.missing = "no energy counters"

    @property
    def zones(self) -> list[str]:
        return list(self._zones)

    def read(self) -> dict[str, float]:
        found = {}
        for name, zone in self._zones.items():
            with suppress(OSError, ValueError):
                found[name] = zone.read_j()
        return found


class _Zone:
    def __init__(self, text: Callable[[], str], span_uj: int) -> None:
        self._text = text
        self._span_uj = span_uj
        self._last_uj = int(text())
        self._total_uj = 0

    def read_j(self) -> float:
        now_uj = int(self._text())
        grown_uj = now_uj - self._last_uj
        if grown_uj < 0:
            grown_uj += self._span_uj
        self._total_uj += grown_uj
        self._last_uj = now_uj
        return round(self._total_uj / 1e6, 3)
