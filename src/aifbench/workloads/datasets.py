"""Data sets for vector search: what to prepare, and what is there once prepared.

The coordinator calls `preparation.prepare_dataset` on a directory that all workers see; each worker
then maps the files with `load_dataset`.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifbench.errors import UsageError, WorkloadError
from aifbench.workloads import ground_truth, synthetic
from aifbench.workloads.ground_truth import Float64, Ids, Vectors

SCHEMA = "aifbench.dataset/1"
BUCKETS = 100


@dataclass(frozen=True, slots=True)
class Filter:
    """Only vectors whose `column` is less than `below` are wanted.

    `bucket` is the row number modulo 100: `below` is the share wanted in percent, spread evenly.
    `cluster` is the generating cluster, 0 the most frequent: the wanted ones lie together and far
    from most queries, the hard case for an index. Data from files has no clusters.
    """

    column: str
    below: int

    def __post_init__(self) -> None:
        limits = {"bucket": BUCKETS, "cluster": synthetic.CLUSTERS}
        if self.column not in limits:
            raise UsageError(f"cannot filter by {self.column!r}", hint=f"valid: {', '.join(limits)}")
        if not 1 <= self.below <= limits[self.column]:
            raise UsageError(
                f"the filter {self.column} < {self.below} is out of range",
                hint=f"give 1 to {limits[self.column]}",
            )

    def __str__(self) -> str:
        return f"{self.column} < {self.below}"


def parse_filter(text: str) -> Filter | None:
    """`bucket:10` or `cluster:3`: the column, and the bound that its values stay below. Raises UsageError."""
    if not text:
        return None
    column, _, below = text.partition(":")
    if not below.isdigit():
        raise UsageError(f"--filter {text!r} cannot be used", hint="give bucket:1..100 or cluster:1..64")
    return Filter(column, int(below))


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """What to prepare. None means 20,000 x 128 with 1,000 queries, or all that `folder` holds.

    Neighbours are those among the first `base` vectors (None: all), so that the others can be
    inserted while searching. `metric` empty means what the files say, else l2.
    """

    vectors: int | None = None
    dim: int | None = None
    queries: int | None = None
    k: int = 10
    metric: str = ""
    seed: int = 1
    shape: str = "clustered"
    base: int | None = None
    folder: str = ""
    filter: Filter | None = None

    def __post_init__(self) -> None:
        if self.metric:
            ground_truth.check_metric(self.metric)
        for name in ("vectors", "dim", "queries", "k", "base"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}", hint="give 1 or more")
        if self.seed < 0:
            raise UsageError(f"the seed is {self.seed}", hint="give 0 or more")
        if self.folder and self.filter and self.filter.column == "cluster":
            raise UsageError("data from files has no clusters to filter by", hint="filter by bucket")


@dataclass(frozen=True, slots=True)
class Dataset:
    """A prepared set; arrays are mapped read-only from `path`.

    `neighbors` and `distances` (n queries, k) are exact, nearest first, among the first `base`
    vectors that pass `filter`. `sha256` covers vectors and queries. `lid` is the hardness
    (local intrinsic dimension). `clusters` is None for data from files.
    """

    path: Path
    name: str
    metric: str
    vectors: Vectors
    queries: Vectors
    neighbors: Ids
    distances: Float64
    base: int
    lid: float
    sha256: str
    seed: int | None
    filter: Filter | None = None
    clusters: NDArray[np.uint8] | None = None

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    @property
    def k(self) -> int:
        """The largest k that answers can be scored at."""
        return int(self.neighbors.shape[1])

    def matches(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of `rows` pass the filter; all do without one."""
        if self.filter is None:
            return np.ones(len(rows), np.bool_)
        return filter_column(self.filter.column, rows, self.clusters) < self.filter.below

    def attributes(self, row: int) -> dict[str, int]:
        """What to store with vector `row` so that every Filter can be applied to it."""
        values = {"bucket": row % BUCKETS}
        if self.clusters is not None:
            values["cluster"] = int(self.clusters[row])
        return values

    def describe(self) -> dict[str, Any]:
        """For the record: everything that says which data this was, as JSON."""
        return {
            "name": self.name,
            "vectors": len(self.vectors),
            "base": self.base,
            "dim": self.dim,
            "queries": len(self.queries),
            "k": self.k,
            "metric": self.metric,
            "filter": str(self.filter) if self.filter else "",
            "lid": self.lid if math.isfinite(self.lid) else None,
            "seed": self.seed,
            "sha256": self.sha256,
        }


def filter_column(
    column: str, rows: NDArray[np.int64], clusters: NDArray[np.uint8] | None
) -> NDArray[np.integer[Any]]:
    if column == "bucket":
        return rows % BUCKETS
    assert clusters is not None, "DatasetSpec admits cluster filters for synthetic data only"
    return clusters[rows]


def load_array(path: Path, name: str) -> NDArray[Any]:
    array: NDArray[Any] = np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    return array


def load_dataset(path: Path) -> Dataset:
    """Map a set that `prepare_dataset` made. Raises WorkloadError."""
    try:
        header: Mapping[str, Any] = json.loads((path / "dataset.json").read_text(encoding="utf-8"))
        if header["schema"] != SCHEMA:
            raise WorkloadError(f"{path} was prepared by another version", hint="remove it")
        arrays = {name: load_array(path, name) for name in ("vectors", "queries", "neighbors", "distances")}
        return Dataset(
            path=path,
            name=header["name"],
            metric=header["metric"],
            base=header["base"],
            lid=math.nan if header["lid"] is None else header["lid"],
            sha256=header["sha256"],
            seed=header["seed"],
            filter=Filter(**header["filter"]) if header["filter"] else None,
            clusters=load_array(path, "clusters") if (path / "clusters.npy").exists() else None,
            **arrays,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkloadError(f"cannot use the prepared data in {path}") from error
