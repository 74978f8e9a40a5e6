"""When operations are due: closed loop, or open-loop arrival processes that print themselves.

A closed loop keeps `clients` operations under way. An open process is a seeded schedule fixed before
the load starts, so that a slow service cannot slow its own measurement down.

Each class names itself with its parameters by `str()` and plans `mean_rate_per_s` operations over a duration,
None for a closed loop. Open ones have `offsets_s`: due times in [0, duration_s), ascending, since the start.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from aifbench.errors import UsageError, WorkloadError
from aifbench.units import format_number

Offsets = NDArray[np.float64]

# 16 bytes each in a worker; beyond this a shorter phase or more phases are what the user wants.
MAX_ARRIVALS = 20_000_000


@dataclass(frozen=True, slots=True)
class Closed:
    """`clients` operations under way at any time: the next one starts when one ends."""

    kind: ClassVar[str] = "closed"
    clients: int

    def __post_init__(self) -> None:
        if not 1 <= self.clients <= 100_000:
            raise UsageError(f"--clients {self.clients} is out of range", hint="give 1 to 100,000")

    def __str__(self) -> str:
        return f"closed loop, {self.clients:,} client" + ("s" if self.clients > 1 else "")

    def mean_rate_per_s(self, duration_s: float) -> None:  # noqa: ARG002 (the others' signature)
        return None

    def share(self, worker: int, workers: int) -> int:
        """How many of the clients worker number `worker` (from 0) of `workers` has."""
        return self.clients // workers + (worker < self.clients % workers)


@dataclass(frozen=True, slots=True)
class Constant:
    """One operation every 1/rate seconds."""

    kind: ClassVar[str] = "constant"
    rate_per_s: float

    def __str__(self) -> str:
        return f"constant {format_number(self.rate_per_s)}/s"

    def mean_rate_per_s(self, duration_s: float) -> float:  # noqa: ARG002
        return self.rate_per_s

    def offsets_s(self, duration_s: float) -> Offsets:
        count = _bounded(self.rate_per_s * duration_s)
        offsets: Offsets = np.arange(count, dtype=np.float64) / self.rate_per_s
        return offsets[offsets < duration_s]


@dataclass(frozen=True, slots=True)
class Poisson:
    """Independent users: exponential gaps of mean 1/rate."""

    kind: ClassVar[str] = "poisson"
    rate_per_s: float
    seed: int = 1

    def __str__(self) -> str:
        return f"poisson {format_number(self.rate_per_s)}/s seed {self.seed}"

    def mean_rate_per_s(self, duration_s: float) -> float:  # noqa: ARG002
        return self.rate_per_s

    def offsets_s(self, duration_s: float) -> Offsets:
        return _renewal(self.rate_per_s, duration_s, self.seed, shape=1.0)


@dataclass(frozen=True, slots=True)
class Gamma:
    """Bursts: gamma-distributed gaps of mean 1/rate and squared coefficient of variation `burstiness`.

    1 is Poisson; larger values crowd the arrivals together, smaller ones even them out.
    """

    kind: ClassVar[str] = "gamma"
    rate_per_s: float
    burstiness: float = 4.0
    seed: int = 1

    def __post_init__(self) -> None:
        if not 0.01 <= self.burstiness <= 1000:
            raise UsageError(f"--burstiness {self.burstiness} is out of range", hint="give 0.01 to 1000")

    def __str__(self) -> str:
        rate, cv2 = format_number(self.rate_per_s), format_number(self.burstiness)
        return f"gamma {rate}/s burstiness {cv2} seed {self.seed}"

    def mean_rate_per_s(self, duration_s: float) -> float:  # noqa: ARG002
        return self.rate_per_s

    def offsets_s(self, duration_s: float) -> Offsets:
        return _renewal(self.rate_per_s, duration_s, self.seed, shape=1.0 / self.burstiness)


@dataclass(frozen=True, slots=True)
class Ramp:
    """A rate that grows (or falls) linearly from `start_per_s` to `end_per_s` over the whole phase."""

    kind: ClassVar[str] = "ramp"
    start_per_s: float
    end_per_s: float

    def __str__(self) -> str:
        return f"ramp {format_number(self.start_per_s)}/s to {format_number(self.end_per_s)}/s"

    def mean_rate_per_s(self, duration_s: float) -> float:  # noqa: ARG002
        return (self.start_per_s + self.end_per_s) / 2

    def offsets_s(self, duration_s: float) -> Offsets:
        count = _bounded(self.mean_rate_per_s(duration_s) * duration_s)
        number = np.arange(count, dtype=np.float64)
        # Invert N(t) = start t + slope t^2 / 2, in the form that stays exact for a slope near zero.
        slope = (self.end_per_s - self.start_per_s) / duration_s
        root = np.sqrt(np.maximum(self.start_per_s**2 + 2 * slope * number, 0.0))
        offsets: Offsets = 2 * number / np.maximum(self.start_per_s + root, 1e-300)
        return offsets[offsets < duration_s]


@dataclass(frozen=True, slots=True)
class Trace:
    """Due times read from a text file: the first number of each line, in seconds; `#` starts a comment.

    The first time counts as zero; `speed` 2 plays the trace twice as fast.
    """

    kind: ClassVar[str] = "trace"
    path: str
    speed: float = 1.0

    def __str__(self) -> str:
        return f"trace {Path(self.path).name}" + (f" x{self.speed:g}" if self.speed != 1 else "")

    def mean_rate_per_s(self, duration_s: float) -> float:
        return len(self.offsets_s(duration_s)) / duration_s

    def offsets_s(self, duration_s: float) -> Offsets:
        try:
            text = Path(self.path).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise WorkloadError(f"cannot read the trace {self.path}") from error
        times = np.sort(np.array(_trace_times(text, self.path), np.float64))
        if not len(times):
            raise WorkloadError(
                f"the trace {self.path} holds no times", hint="one number of seconds per line"
            )
        offsets = (times - times[0]) / self.speed
        _bounded(len(offsets))
        return np.extract(offsets < duration_s, offsets)


def _trace_times(text: str, path: str) -> list[float]:
    times = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].replace(",", " ").split()
        if not words:
            continue
        try:
            time_s = float(words[0])
        except ValueError:
            time_s = math.nan
        if not math.isfinite(time_s):
            raise WorkloadError(
                f"line {number} of the trace {path} starts with {words[0]!r}",
                hint="each line starts with a time in seconds",
            )
        times.append(time_s)
    return times


def _bounded(count: float) -> int:
    if count > MAX_ARRIVALS:
        raise UsageError(
            f"the schedule has {count:,.0f} operations", hint=f"at most {MAX_ARRIVALS:,}: shorten --duration"
        )
    return math.ceil(count)


def _renewal(rate_per_s: float, duration_s: float, seed: int, *, shape: float) -> Offsets:
    """Arrivals with gamma gaps, generated in blocks until the duration is covered."""
    generator = np.random.default_rng(seed)
    expected = _bounded(rate_per_s * duration_s)
    blocks: list[Offsets] = []
    end_s = 0.0
    while end_s < duration_s:
        size = max(1000, int(expected * 0.1)) if blocks else expected + 1000
        block = end_s + np.cumsum(generator.gamma(shape, 1.0 / (shape * rate_per_s), size))
        end_s = float(block[-1])
        blocks.append(block)
    offsets: Offsets = np.concatenate(blocks)
    return offsets[offsets < duration_s]


_KINDS: Mapping[str, type[Closed | Constant | Poisson | Gamma | Ramp | Trace]] = {
    cls.kind: cls for cls in (Closed, Constant, Poisson, Gamma, Ramp, Trace)
}
AnyArrivals = Closed | Constant | Poisson | Gamma | Ramp | Trace


def to_json(arrivals: AnyArrivals) -> dict[str, Any]:
    return {"kind": arrivals.kind, **asdict(arrivals)}


def from_json(data: Mapping[str, Any]) -> AnyArrivals:
    """The inverse of `to_json`. Raises WorkloadError for an unknown kind or parameter."""
    try:
        return _KINDS[data["kind"]](**{key: value for key, value in data.items() if key != "kind"})
    except (KeyError, TypeError) as error:
        raise WorkloadError(f"unknown arrivals {dict(data)!r}", hint=f"kinds: {', '.join(_KINDS)}") from error
