"""The IO500 score, computed strictly: a phase that gave nothing counts as 0, it is not left out.

BW is the geometric mean of four bandwidths (GiB/s), MD that of eight rates (kIOPS), and the score is
sqrt(BW * MD): the rules of io500.org. The program leaves a phase of 0 out of its means, so that a failed
phase can raise what it prints.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

BANDWIDTH_PHASES = ("ior-easy-write", "ior-hard-write", "ior-easy-read", "ior-hard-read")
METADATA_PHASES = (
    "mdtest-easy-write",
    "mdtest-hard-write",
    "find",
    "mdtest-easy-stat",
    "mdtest-hard-stat",
    "mdtest-easy-delete",
    "mdtest-hard-read",
    "mdtest-hard-delete",
)
SCORED_PHASES = BANDWIDTH_PHASES + METADATA_PHASES
WRITE_PHASES = ("ior-easy-write", "mdtest-easy-write", "ior-hard-write", "mdtest-hard-write")


@dataclass(frozen=True, slots=True)
class Printed:
    """A number as a program printed it: it stands for anything within `half_step` of `value`."""

    value: float
    half_step: float

    @classmethod
    def of(cls, text: str) -> "Printed":
        """Raises ValueError. A number that is none (nan) counts as 0."""
        value = float(text)
        decimals = len(text.partition(".")[2]) if "e" not in text.lower() else 0
        return cls(value if math.isfinite(value) else 0.0, 0.5 * 10.0**-decimals)

    @property
    def bounds(self) -> tuple[float, float]:
        return max(0.0, self.value - self.half_step), self.value + self.half_step


@dataclass(frozen=True, slots=True)
class Score:
    """`lacking` are the scored phases with 0 or no value; one is enough to make its mean and `total` 0."""

    bandwidth_gib_s: float
    metadata_kiops: float
    total: float
    lacking: tuple[str, ...] = ()


class Origin(Enum):
    """How a printed total follows from the printed phases."""

    STRICT = "the strict formula"
    LENIENT = "the formula without the phases of 0"
    PRODUCT = "BW * MD, as the earliest runs of the shell version printed it"
    UNKNOWN = "no known formula"


def strict_score(values: Mapping[str, float]) -> Score:
    """Of values by phase name: GiB/s for ior-*, kIOPS for the others; other phases are ignored."""
    bandwidth = geometric_mean(values.get(name, 0.0) for name in BANDWIDTH_PHASES)
    metadata = geometric_mean(values.get(name, 0.0) for name in METADATA_PHASES)
    lacking = tuple(name for name in SCORED_PHASES if not values.get(name, 0.0) > 0)
    return Score(bandwidth, metadata, math.sqrt(bandwidth * metadata), lacking)


def geometric_mean(values: Iterable[float]) -> float:
    """0 when one of them is not positive, or there is none."""
    found = list(values)
    if not found or any(not value > 0 for value in found):
        return 0.0
    return math.exp(math.fsum(math.log(value) for value in found) / len(found))


def origin_of(total: Printed, phases: Mapping[str, Printed]) -> Origin:
    """Which formula gives `total` from `phases`, as exactly as their printed digits can tell."""
    present = {name: phases[name] for name in SCORED_PHASES if name in phases and phases[name].value > 0}
    groups = [
        [present[name] for name in group if name in present] for group in (BANDWIDTH_PHASES, METADATA_PHASES)
    ]
    if not all(groups):
        return Origin.STRICT if total.value == 0 else Origin.UNKNOWN
    (bw_low, bw_high), (md_low, md_high) = (_mean_bounds(group) for group in groups)
    low, high = total.bounds
    # Half a step once more: the program computed with all digits, and then rounded.
    if low <= math.sqrt(bw_high * md_high) and math.sqrt(bw_low * md_low) <= high:
        return Origin.STRICT if len(present) == len(SCORED_PHASES) else Origin.LENIENT
    if low <= bw_high * md_high and bw_low * md_low <= high:
        return Origin.PRODUCT
    return Origin.UNKNOWN


def _mean_bounds(values: list[Printed]) -> tuple[float, float]:
    bounds = [value.bounds for value in values]
    return geometric_mean(low for low, _ in bounds), geometric_mean(high for _, high in bounds)
