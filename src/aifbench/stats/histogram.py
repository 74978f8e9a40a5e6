"""Log-linear histogram of nanoseconds: mergeable, at most 0.1 % wide per bucket, at any magnitude.

The bucketing is HdrHistogram's at three digits: values below 2048 are exact, and above that every
power of two is cut into 1024 buckets.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifbench.errors import ResultError
from aifbench.stats.intervals import quantile_rank

Int64 = NDArray[np.int64]

_SUB_BUCKET_BITS = 11
_HALF = 1 << (_SUB_BUCKET_BITS - 1)
_LAST = (63 - _SUB_BUCKET_BITS) * _HALF + 2 * _HALF - 1  # that of the largest 64-bit integer
_SCHEMA = "log-linear/11"


def _bucket_of(values: Int64) -> Int64:
    # frexp may round a value just below a power of two up to it; the index comes out the same.
    bits = np.frexp(values.astype(np.float64))[1].astype(np.int64)
    shift: Int64 = np.maximum(bits - _SUB_BUCKET_BITS, 0)
    return shift * _HALF + (values >> shift)


def _bounds_of(buckets: Int64) -> tuple[Int64, Int64]:
    """Smallest and largest value of each bucket."""
    shift: Int64 = np.maximum(buckets // _HALF - 1, 0)
    lowest = (buckets - shift * _HALF) << shift
    return lowest, lowest + (np.int64(1) << shift) - 1


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Counts of the non-empty buckets, in ascending order of value."""

    buckets: Int64
    counts: Int64

    @classmethod
    def of(cls, values_ns: NDArray[Any]) -> "Histogram":
        """From whole nanoseconds; ValueError for a negative one."""
        values = np.asarray(values_ns, np.int64)
        if values.size and values.min() < 0:
            raise ValueError(f"a duration cannot be negative: {values.min()} ns")
        counts = np.bincount(_bucket_of(values))
        buckets = np.flatnonzero(counts)
        return cls(buckets.astype(np.int64), counts[buckets].astype(np.int64))

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    def __add__(self, other: "Histogram") -> "Histogram":
        buckets, place = np.unique(np.concatenate([self.buckets, other.buckets]), return_inverse=True)
        counts = np.zeros(len(buckets), np.int64)
        np.add.at(counts, place, np.concatenate([self.counts, other.counts]))
        return Histogram(buckets, counts)

    def quantile(self, q: float) -> float | None:
        """Upper edge of the bucket that holds quantile q, so never below it; None when empty."""
        if not self.total:
            return None
        place = np.searchsorted(np.cumsum(self.counts), quantile_rank(self.total, q))
        return float(_bounds_of(self.buckets[place : place + 1])[1][0])

    def to_json(self) -> dict[str, Any]:
        """Gaps between bucket numbers instead of the numbers: shorter, and they compress better."""
        gaps = np.diff(self.buckets, prepend=0)
        return {"schema": _SCHEMA, "gaps": gaps.tolist(), "counts": self.counts.tolist()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Histogram":
        """Raises ResultError for anything `to_json` does not write."""
        try:
            gaps, counts = (np.array(data[key], np.int64) for key in ("gaps", "counts"))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ResultError("a stored histogram is corrupt") from error
        if data.get("schema") != _SCHEMA or gaps.ndim != 1 or gaps.shape != counts.shape:
            raise ResultError(f"a stored histogram is not of the form {_SCHEMA!r}")
        if (gaps[1:] <= 0).any() or (gaps[:1] < 0).any() or (counts <= 0).any():
            raise ResultError("a stored histogram is corrupt: buckets or counts out of order")
        buckets = np.cumsum(gaps)
        if (gaps > _LAST).any() or (buckets > _LAST).any():
            raise ResultError("a stored histogram is corrupt: a bucket beyond all durations")
        return cls(buckets, counts)

    def to_hgrm(self, unit_ns: float = 1e6) -> str:
        """HdrHistogram's percentile text (`.hgrm`), values in `unit_ns` (milliseconds unless told)."""
        lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}", ""]
        lines += self._percentile_lines(unit_ns)
        lowest, highest = _bounds_of(self.buckets)
        mean_ns, deviation_ns = _moments(lowest + (highest - lowest + 1) // 2, self.counts)
        largest_ns = int(highest[-1]) if self.total else 0
        lines += [
            f"#[Mean    = {mean_ns / unit_ns:12.3f}, StdDeviation   = {deviation_ns / unit_ns:12.3f}]",
            f"#[Max     = {largest_ns / unit_ns:12.3f}, TotalCount     = {self.total:12d}]",
            f"#[Buckets = {len(self.buckets):12d}, SubBuckets     = {2 * _HALF:12d}]",
        ]
        return "\n".join(lines) + "\n"

    def _percentile_lines(self, unit_ns: float) -> Iterator[str]:
        """Each line goes a tenth of the remaining way to 100 %, until the last bucket is reached."""
        if not self.total:
            return
        cumulative = np.cumsum(self.counts)
        values = _bounds_of(self.buckets)[1] / unit_ns
        level, place = 0.0, 0
        while place < len(values) - 1 or level == 0.0:
            place = int(np.searchsorted(cumulative, level * self.total))
            yield f"{values[place]:12.3f} {level:2.12f} {cumulative[place]:10d} {1 / (1 - level):14.2f}"
            level += (1 - level) / 10
        yield f"{values[-1]:12.3f} {1:2.12f} {cumulative[-1]:10d}"


def _moments(values: Int64, counts: Int64) -> tuple[float, float]:
    total = int(counts.sum())
    if not total:
        return 0.0, 0.0
    mean = float(values @ counts) / total
    return mean, math.sqrt(float(((values - mean) ** 2) @ counts) / total)
