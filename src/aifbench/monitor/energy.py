"""Energy counters of processors and memory: Intel's and AMD's RAPL as the kernel's powercap shows it.

The counter wraps at `max_energy_range_uj`, which on some processors is within an hour under load. It may as
well begin anew, as after the driver was loaded again: what was used meanwhile nobody knows.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from aifbench.monitor.proc import open_text

_ROOT = Path("/sys/class/powercap")
# More than any package, or its memory, takes: what a wrap would have to explain, a reset does.
_MOST_W = 2000.0
# Between the clock's reading and the counter's, at most.
_APART_S = 1.0


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
    """Energy in joules since the first reading, by zone; wrap-arounds are taken out.

    A zone that went back by more than a wrap explains is left out once; its total goes on from there.
    """

    def __init__(self, root: Path = _ROOT, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self.missing = ""
        self._zones: dict[str, _Zone] = {}
        for name, path in packages(root).items():
            try:
                span_uj = int((path / "max_energy_range_uj").read_text(encoding="ascii"))
                self._zones[name] = _Zone(open_text(path / "energy_uj"), span_uj, now_s)
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
    def __init__(self, text: Callable[[], str], span_uj: int, now_s: Callable[[], float]) -> None:
        self._text = text
        self._span_uj = span_uj
        self._now_s = now_s
        self._last_s = now_s()
        self._last_uj = int(text())
        self._total_uj = 0

    def read_j(self) -> float:
        """Raises ValueError for a counter that began anew."""
        now_uj, now_s = int(self._text()), self._now_s()
        grown_uj, passed_s = now_uj - self._last_uj, now_s - self._last_s
        self._last_uj, self._last_s = now_uj, now_s
        if grown_uj < 0:
            grown_uj += self._span_uj
            if not 0 <= grown_uj <= 1e6 * _MOST_W * (passed_s + _APART_S):
                raise ValueError("the energy counter began anew")
        self._total_uj += grown_uj
        return round(self._total_uj / 1e6, 3)
