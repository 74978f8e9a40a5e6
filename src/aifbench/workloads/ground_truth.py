"""Exact nearest neighbours, and how much of them an answer contains.

Distances are Chroma's: `l2` squared Euclidean, `ip` 1 - q.v, `cosine` 1 - q.v / |q||v|; smaller is
nearer. Recall@k of one query is |G ∩ R| / k with G the true k nearest and R the k returned. Tie-aware
recall counts r in R when d(q, r) <= d_k + tolerance, d_k being the k-th true distance: among
equally near vectors any choice is right.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifbench.errors import ConfigError, UsageError

Ids = NDArray[np.int64]
Float64 = NDArray[np.float64]
Vectors = NDArray[np.float32]

METRICS = ("l2", "cosine", "ip")

# Room for float32 rounding: the relative part over hundreds of dimensions, the absolute part around 0.
TIE_RELATIVE = 1e-5
TIE_ABSOLUTE = 1e-9

_BASE_BLOCK_ROWS = 65_536
_QUERY_BLOCK_ROWS = 256
# Candidates beyond k that FAISS's float32 scan hands to the exact ordering.
_SPARE = 8


def check_metric(metric: str) -> None:
    if metric not in METRICS:
        raise UsageError(f"the metric {metric!r} is not known", hint=f"valid: {', '.join(METRICS)}")


def distances(metric: str, queries: NDArray[Any], vectors: NDArray[Any]) -> Float64:
    """Exact distances in float64 of queries (..., d) to vectors (..., d), broadcast together."""
    q, v = np.asarray(queries, np.float64), np.asarray(vectors, np.float64)
    if metric == "l2":
        return np.asarray(np.square(q - v).sum(-1))
    dot = (q * v).sum(-1)
    if metric == "cosine":
        dot = dot / np.maximum(np.linalg.norm(q, axis=-1) * np.linalg.norm(v, axis=-1), 1e-300)
    return np.asarray(1.0 - dot)


def tie_limit(kth_distance: Any) -> Any:
    """The largest distance that counts as near as the k-th neighbour's; number or array."""
    return kth_distance + TIE_RELATIVE * np.abs(kth_distance) + TIE_ABSOLUTE


def exact_neighbors(
    queries: Vectors, vectors: Vectors, k: int, metric: str, mask: NDArray[np.bool_] | None = None
) -> tuple[Ids, Float64]:
    """The k nearest rows of `vectors` for each query, nearest first, and their distances.

    Only rows where `mask` is true count. Equal distances are ordered by row. FAISS selects in
    float32, block by block; float64 decides the order. Raises UsageError if fewer than k rows count.
    """
    check_metric(metric)
    available = len(vectors) if mask is None else int(np.count_nonzero(mask))
    if k < 1 or k > available:
        raise UsageError(f"{k} neighbours of {available:,} vectors cannot be found", hint="lower k")
    candidates = _candidates(queries, vectors, min(k + _SPARE, available), metric, mask)
    ids = np.empty((len(queries), k), np.int64)
    exact = np.empty((len(queries), k))
    for start in range(0, len(queries), _QUERY_BLOCK_ROWS):
        part = slice(start, start + _QUERY_BLOCK_ROWS)
        ids[part], exact[part] = _nearest_of(queries[part], vectors, candidates[part], k, metric)
    return ids, exact


def _nearest_of(
    queries: Vectors, vectors: Vectors, candidates: Ids, k: int, metric: str
) -> tuple[Ids, Float64]:
    found = distances(metric, queries[:, None, :], vectors[candidates])
    order = np.lexsort((candidates, found), axis=1)[:, :k]
    return np.take_along_axis(candidates, order, 1), np.take_along_axis(found, order, 1)


def _candidates(
    queries: Vectors, vectors: Vectors, count: int, metric: str, mask: NDArray[np.bool_] | None
) -> Ids:
    """The `count` nearest rows by a float32 scan, unordered, merged over blocks of rows."""
    probes = _comparable(queries, metric)
    best_ids = np.empty((len(queries), 0), np.int64)
    best = np.empty((len(queries), 0), np.float32)
    for start in range(0, len(vectors), _BASE_BLOCK_ROWS):
        rows = np.arange(start, min(start + _BASE_BLOCK_ROWS, len(vectors)))
        if mask is not None:
            rows = rows[mask[rows]]
        if len(rows) == 0:
            continue
        near, at = _scan(probes, _comparable(vectors[rows], metric), min(count, len(rows)), metric)
        best_ids = np.concatenate([best_ids, rows[at]], axis=1)
        best = np.concatenate([best, near], axis=1)
        if best.shape[1] > count:
            keep = np.argpartition(best, count - 1, axis=1)[:, :count]
            best_ids, best = np.take_along_axis(best_ids, keep, 1), np.take_along_axis(best, keep, 1)
    return best_ids


def _comparable(vectors: NDArray[Any], metric: str) -> Vectors:
    block = np.ascontiguousarray(vectors, np.float32)
    if metric != "cosine":
        return block
    lengths = np.linalg.norm(block, axis=1, keepdims=True)
    return np.asarray(block / np.maximum(lengths, np.float32(1e-30)))


def _scan(probes: Vectors, block: Vectors, count: int, metric: str) -> tuple[Vectors, Ids]:
    try:
        import faiss
    except ImportError as error:
        raise ConfigError("exact neighbours need faiss", hint="pip install faiss-cpu") from error
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    near, at = faiss.knn(probes, block, count, metric=kind)
    return (near if metric == "l2" else -near), at


def recall_tie_aware(returned: Ids, returned_distances: Float64, truth_distances: Float64) -> Float64:
    """Per query, the share of k returned ids that are as near as the true k-th; repeats count once.

    `returned_distances` must be exact ones (`distances`), not the service's own.
    """
    k = truth_distances.shape[1]
    near = returned_distances <= tie_limit(truth_distances[:, -1:])
    order = np.argsort(returned, axis=1, kind="stable")
    ordered, near = np.take_along_axis(returned, order, 1), np.take_along_axis(near, order, 1)
    near[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    return np.asarray(np.minimum(near.sum(axis=1), k) / k)


def local_intrinsic_dimension(queries: Vectors, vectors: Vectors, k: int = 100) -> float:
    """How hard a set is to search: mean over queries of -1 / mean_i ln(d_i / d_k), Euclidean d.

    The maximum-likelihood estimate of Amsaleg et al. (2015), with the k = 100 of Aumüller and
    Ceccarello's survey; real embedding sets lie around 10 to 25. NaN for fewer than 3 vectors.
    """
    k = min(k, len(vectors))
    if k < 3:
        return float("nan")
    near = np.sqrt(exact_neighbors(queries, vectors, k, "l2")[1])
    usable = (near[:, 0] > 0) & (near[:, 0] < near[:, -1])  # copies of the query carry no information
    if not usable.any():
        return float("nan")
    ratios = np.log(near[usable, :-1] / near[usable, -1:])
    return float(np.mean(-1.0 / ratios.mean(axis=1)))
