"""Shapes of training data: sizes, batches and compute times; and what a step says of the accelerator."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

from aifbench.errors import UsageError
from aifbench.workloads.draws import key_of, share

MEMORY_RATIO = 5  # MLPerf Storage v2: data by the memory of all clients, at least
STEPS_PER_EPOCH = 500  # MLPerf Storage v2: the fewest in an epoch

_NORMAL = NormalDist()
_LEAST_SHARE, _MOST_SHARE = 0.1, 4.0  # of the mean: further out lies less than a sample in ten thousand


@dataclass(frozen=True, slots=True)
class LoaderShape:
    """`samples_per_file` is 1 where each sample is a file; more are records of equal length in a file.

    `stdev_bytes` is of samples that are files: log-normal, bounded. `compute_s` is one batch's time on the
    emulated accelerator, `least_au` the utilisation that MLPerf asks for (None: it does not know the shape).
    """

    name: str
    sample_bytes: int
    stdev_bytes: int
    samples_per_file: int
    batch: int
    readers: int
    compute_s: float
    least_au: float | None = None

    def __post_init__(self) -> None:
        numbers = (self.sample_bytes, self.samples_per_file, self.batch, self.readers)
        if min(numbers) < 1 or self.stdev_bytes < 0 or self.compute_s < 0:
            raise UsageError(f"a data loader with {self}", hint="sizes and counts are 1 or more")
        if self.stdev_bytes and self.samples_per_file > 1:
            raise UsageError("records of one file are of equal length", hint="leave the deviation out")

    def size_of(self, sample: int, seed: int) -> int:
        """In bytes, the same in every process."""
        if not self.stdev_bytes:
            return self.sample_bytes
        spread = math.log1p((self.stdev_bytes / self.sample_bytes) ** 2)
        z = _NORMAL.inv_cdf(share(key_of("sample size", seed), sample))
        size = self.sample_bytes * math.exp(math.sqrt(spread) * z - spread / 2)
        bounded = min(max(size, _LEAST_SHARE * self.sample_bytes), _MOST_SHARE * self.sample_bytes)
        return max(1, round(bounded))


# The first three as in the H100 configurations of MLPerf Storage; the token shards are our own choice:
# sequences of 4,096 tokens of 4 bytes, from shards of 1 GiB, at places drawn at random.
SHAPES = {
    shape.name: shape
    for shape in (
        LoaderShape("unet3d", 146_600_628, 68_341_808, 1, 7, 4, 0.323, 0.9),
        LoaderShape("resnet50", 114_660, 0, 1251, 400, 8, 0.224, 0.9),
        LoaderShape("cosmoflow", 2_828_486, 71_311, 1, 1, 4, 0.0035, 0.7),
        LoaderShape("llm-tokens", 16_384, 0, 65_536, 16, 2, 0.1),
    )
}


def shape_named(name: str) -> LoaderShape:
    if name not in SHAPES:
        raise UsageError(f"unknown data loader {name!r}", hint=", ".join(SHAPES))
    return SHAPES[name]


def honest_samples(shape: LoaderShape, accelerators: int, memory_bytes: int) -> int:
    """How many samples MLPerf Storage v2 asks for; `memory_bytes` is that of all client nodes together."""
    by_memory = -(-MEMORY_RATIO * memory_bytes // shape.sample_bytes)
    return max(STEPS_PER_EPOCH * shape.batch * accelerators, by_memory)


def files_for(shape: LoaderShape, samples: int) -> int:
    return -(-samples // shape.samples_per_file)


def scaled(shape: LoaderShape, share_of_size: float) -> LoaderShape:
    """Samples, and the compute time with them, at a share of their size: the same demand per second."""
    if not 0 < share_of_size <= 1:
        raise UsageError(f"scale {share_of_size:g}", hint="more than 0 and at most 1")
    return replace(
        shape,
        sample_bytes=max(1, round(shape.sample_bytes * share_of_size)),
        stdev_bytes=round(shape.stdev_bytes * share_of_size),
        compute_s=shape.compute_s * share_of_size,
    )


def accelerator_utilisation(finished_ns: Sequence[int], compute_s: float) -> float | None:
    """Of one accelerator: compute time by total time, without its first step (MLPerf Storage v2).

    `finished_ns` are the ends of its steps. A share, not per cent; None with fewer than two steps.
    """
    if len(finished_ns) < 2:
        return None
    total_ns = max(finished_ns) - min(finished_ns)
    return min(1.0, (len(finished_ns) - 1) * compute_s * 1e9 / total_ns) if total_ns else None
