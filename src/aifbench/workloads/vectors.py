"""What every vector workload shares, whatever the service: batches, prepared requests, scored answers.

A vector's id is its row number in the data set, as decimal text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aifbench.errors import WorkloadError
from aifbench.load.workload import Outcome, OutcomeKind
from aifbench.workloads.datasets import Dataset, load_dataset
from aifbench.workloads.ground_truth import distances, tie_limit

PREPARED_LIMIT_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Batches:
    """Rows [first, last) of a data set in batches of `size`; the last one may be smaller."""

    first: int
    last: int
    size: int

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.first < self.last:
            raise WorkloadError(
                f"rows {self.first} to {self.last} in batches of {self.size} is no work",
                hint="give at least one row, and a batch of 1 or more",
            )

    def __len__(self) -> int:
        return len(range(self.first, self.last, self.size))

    def rows(self, index: int) -> range:
        """The rows of batch `index`. Raises WorkloadError beyond the last batch."""
        if not 0 <= index < len(self):
            raise WorkloadError(
                f"batch {index} does not exist: the rows are used up after {len(self)} batches",
                hint="limit the operations, or use a larger data set",
            )
        start = self.first + index * self.size
        return range(start, min(start + self.size, self.last))


def open_batches(dataset: Dataset, first: int, last: int | None, size: int) -> Batches:
    """Batches of the rows of `dataset` from `first` up to `last` (None: all)."""
    end = len(dataset.vectors) if last is None else last
    if end > len(dataset.vectors):
        raise WorkloadError(f"rows up to {end:,} of {len(dataset.vectors):,}", hint="lower the last row")
    return Batches(first, end, size)


class PreparedRequests:
    """The encoded requests 0 .. count-1: prepared while they fit in the limit, later ones on demand."""

    def __init__(
        self, encode: Callable[[int], bytes], count: int, limit_bytes: int = PREPARED_LIMIT_BYTES
    ) -> None:
        self._encode = encode
        self._prepared: list[bytes] = []
        used_bytes = 0
        for index in range(count):
            if used_bytes >= limit_bytes:
                break
            request = encode(index)
            used_bytes += len(request)
            self._prepared.append(request)

    def __getitem__(self, index: int) -> bytes:
        if 0 <= index < len(self._prepared):
            return self._prepared[index]
        return self._encode(index)


class AnswerScorer:
    """Scores the k nearest neighbours that a service returned, one query at a time.

    Rows from `dataset.base` on may or may not have been inserted when the query ran: nobody outside
    the service can tell. So an answer R is compared with T, the exact top k of (base vectors) united with
    (inserted vectors that R itself contains): recall = |R ∩ T| / k. Without inserts this is
    plain recall. With them it never blames an answer for a vector that was not yet visible, and
    never praises one that a base vector should have displaced; what it cannot see is an
    inserted vector that was visible and missed, so it is an upper bound of the true recall.
    """

    def __init__(self, dataset: Dataset, k: int) -> None:
        if not 1 <= k <= dataset.k:
            raise WorkloadError(f"k is {k} and the data set has {dataset.k} true neighbours per query")
        self._dataset = dataset
        self._k = k
        self._truth = [frozenset(row) for row in dataset.neighbors[:, :k].tolist()]
        self._limits = tie_limit(dataset.distances[:, k - 1]).tolist()

    def check(self, query: int, ids: Sequence[object]) -> Outcome:
        """OK with (recall by id, tie-aware recall), or WRONG for an answer that cannot be one."""
        try:
            rows = [int(str(value)) for value in ids]
        except ValueError:
            return _wrong("an id that was never stored")
        if len(rows) != self._k:
            return _wrong(f"{len(rows)} neighbours instead of {self._k}")
        if len(set(rows)) != len(rows):
            return _wrong("the same id twice in one answer")
        if min(rows) < 0 or max(rows) >= len(self._dataset.vectors):
            return _wrong("an id that was never stored")
        if self._dataset.filter and not self._dataset.matches(np.asarray(rows)).all():
            return _wrong("a vector that the filter excludes")
        return Outcome(qualities=self.score(query, rows))

    def score(self, query: int, rows: Sequence[int]) -> tuple[float, float]:
        """(recall by id, tie-aware recall) of k distinct rows."""
        truth, limit = self._truth[query], self._limits[query]
        if max(rows) >= self._dataset.base:
            truth, limit = self._truth_with(query, [r for r in rows if r >= self._dataset.base])
        missed = [row for row in rows if row not in truth]
        hits = len(rows) - len(missed)
        if not missed:
            return 1.0, 1.0
        ties = int(np.count_nonzero(self._distances(query, missed) <= limit))
        return hits / self._k, (hits + ties) / self._k

    def _truth_with(self, query: int, inserted: list[int]) -> tuple[frozenset[int], float]:
        known = self._dataset.neighbors[query, : self._k].tolist()
        near = np.concatenate([self._dataset.distances[query, : self._k], self._distances(query, inserted)])
        order = np.argsort(near, kind="stable")[: self._k]
        rows = known + inserted
        return frozenset(rows[i] for i in order), float(tie_limit(near[order[-1]]))

    def _distances(self, query: int, rows: list[int]) -> np.ndarray:
        return distances(self._dataset.metric, self._dataset.queries[query], self._dataset.vectors[rows])


def _wrong(text: str) -> Outcome:
    return Outcome(OutcomeKind.WRONG, error=text)


def open_dataset(path: str) -> Dataset:
    """The prepared data set at `path`, as workers get it in their parameters."""
    return load_dataset(Path(path))
