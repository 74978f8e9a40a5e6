"""How much work makes a phase long enough to be believed, from a short try of it.

Fixed work is judged by its last operation, so its amount decides how long it takes; what takes a minute on a
laptop is over in a blink on a parallel file system.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from aifbench.load.fleet import PhaseOutcome
from aifbench.results.record import Measurement, Role
from aifbench.servers.benchmark import Evidence, Phase

# Longer than what results.validity wants of fixed work, as the try itself may have met a fast moment.
WANTED_S = 20.0
TRY_S = 2.0  # the first files of a directory are slow ones
TRY_BYTES = 64 * 2**20
TRY_FILES = 5000
_MIB = 2**20
_MOST_OF_SPACE = 0.2  # of what is free: others live there too
_MOST_BYTES = 2**38
_MOST_FILES = 1_000_000


@dataclass(slots=True)
class Tried:
    """How much of it was done in a second, once the try is over."""

    per_s: float = 0.0


def rank_bytes(rate_bytes_per_s: float, ranks: int, free_bytes: int | None) -> int:
    """Bytes of each rank that keep all of them busy for WANTED_S, in whole MiB, within the space."""
    wanted = rate_bytes_per_s * WANTED_S / ranks
    room = _MOST_BYTES if free_bytes is None else free_bytes * _MOST_OF_SPACE / ranks
    return max(TRY_BYTES, int(min(wanted, room, _MOST_BYTES)) // _MIB * _MIB)


def client_files(rate_per_s: float, clients: int, free_files: int | None, wanted_s: float) -> int:
    """Files of each client that keep all of them busy for so long, within the room for files."""
    room = _MOST_FILES if free_files is None else free_files * _MOST_OF_SPACE
    return int(max(min(rate_per_s * wanted_s, room, _MOST_FILES) / clients, TRY_FILES))


def scale_of(rate_bytes_per_s: float, whole_bytes: int, free_bytes: int | None) -> float:
    """The part of `whole_bytes` that takes WANTED_S, at most all of it."""
    room = _MOST_BYTES if free_bytes is None else free_bytes * _MOST_OF_SPACE
    return min(1.0, max(TRY_BYTES, min(rate_bytes_per_s * WANTED_S, room)) / whole_bytes)


def attempt(phase: Phase, metric: str, number: int = 1) -> Generator[Phase, None, float]:
    """Runs `phase` as try `number`; returns its `metric`'s value, 0 where it has none."""
    tried = Tried()

    def verify(_outcome: PhaseOutcome, measured: Mapping[str, Measurement]) -> Mapping[str, Evidence]:
        found: Any = next(iter(measured.values())).metric(metric)
        tried.per_s = (found.value or 0.0) if found else 0.0
        return {}

    plan = replace(phase.plan, name=f"try-{number}-{phase.plan.name}")
    yield replace(phase, plan=plan, verify=verify, is_measured=True, role=Role.PROBE)
    return tried.per_s
