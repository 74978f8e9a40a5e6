"""Preparing a data set: generated or read, checked, with its exact answers, as mapped files.

Deterministic, and reused when the same is asked for again.
"""

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifbench.errors import UsageError, WorkloadError
from aifbench.workloads import ground_truth, synthetic, vector_files
from aifbench.workloads.datasets import SCHEMA, DatasetSpec, filter_column, load_array
from aifbench.workloads.ground_truth import Float64, Ids, Vectors

_LID_QUERIES = 200
_CHECKED_QUERIES = 16
_COPY_ROWS = 8192


def prepare_dataset(spec: DatasetSpec, directory: Path) -> Path:
    """The directory of the prepared set below `directory`, made now unless it is there already.

    It appears complete or not at all, also with two processes at it. Raises WorkloadError.
    """
    source = vector_files.read_folder(Path(spec.folder)) if spec.folder else None
    target = directory / f"{_name(spec)}-{_fingerprint(spec, source)[:12]}"
    if target.is_dir():
        return target
    try:
        directory.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=directory))
        try:
            _write(spec, source, partial)
            _publish(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise WorkloadError(f"cannot prepare data in {directory}") from error
    return target


def _publish(partial: Path, target: Path) -> None:
    try:
        partial.rename(target)
    except OSError:
        # Another process may have finished the same set first; its copy is as good.
        if not target.is_dir():
            raise


def _name(spec: DatasetSpec) -> str:
    return Path(spec.folder).resolve().name if spec.folder else spec.shape


def _fingerprint(spec: DatasetSpec, source: vector_files.VectorFiles | None) -> str:
    """Changes with the request, and with the files it would be read from."""
    files = (
        [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in source.files] if source else []
    )
    return hashlib.sha256(json.dumps([SCHEMA, asdict(spec), files]).encode()).hexdigest()


def _write(spec: DatasetSpec, source: vector_files.VectorFiles | None, path: Path) -> None:
    digest = _write_from_files(spec, source, path) if source else _write_synthetic(spec, path)
    vectors, queries = load_array(path, "vectors"), load_array(path, "queries")
    base = spec.base or len(vectors)
    if base > len(vectors):
        raise UsageError(f"base is {base:,} of {len(vectors):,} vectors", hint="lower base")
    metric = spec.metric or (source.metric if source else "") or "l2"
    neighbors, distances = _answers(spec, source, path, vectors[:base], queries, metric)
    np.save(path / "neighbors.npy", neighbors)
    np.save(path / "distances.npy", distances)
    lid = ground_truth.local_intrinsic_dimension(queries[:_LID_QUERIES], vectors[:base])
    header = {"schema": SCHEMA, "name": _name(spec), "metric": metric, "base": base, "sha256": digest}
    header |= {"lid": lid if math.isfinite(lid) else None, "seed": None if spec.folder else spec.seed}
    header |= {"filter": asdict(spec.filter) if spec.filter else None}
    (path / "dataset.json").write_text(json.dumps(header), encoding="utf-8")


def _write_synthetic(spec: DatasetSpec, path: Path) -> str:
    rows, dim = spec.vectors or 20_000, spec.dim or 128
    queries = spec.queries or 1_000
    source = synthetic.make_source(spec.shape, spec.seed, dim)
    clusters = []

    def vectors() -> Iterator[Vectors]:
        for block in source.vectors(rows):
            clusters.append(block.clusters)
            yield block.vectors

    digest = hashlib.sha256()
    _write_rows(path / "vectors.npy", (rows, dim), vectors(), digest)
    _write_rows(path / "queries.npy", (queries, dim), (b.vectors for b in source.queries(queries)), digest)
    np.save(path / "clusters.npy", np.concatenate(clusters))
    return digest.hexdigest()


def _write_from_files(spec: DatasetSpec, source: vector_files.VectorFiles, path: Path) -> str:
    if spec.dim not in (None, source.vectors.shape[1]):
        raise UsageError(f"{spec.folder} has {source.vectors.shape[1]} dimensions, not {spec.dim}")
    digest = hashlib.sha256()
    for name, data, limit in (
        ("vectors", source.vectors, spec.vectors),
        ("queries", source.queries, spec.queries),
    ):
        wanted = data[: limit or len(data)]
        if limit and limit > len(data):
            raise UsageError(f"{spec.folder} has {len(data):,} {name}, not {limit:,}")
        _write_rows(path / f"{name}.npy", wanted.shape, _float_blocks(wanted, name), digest)
    return digest.hexdigest()


def _float_blocks(data: NDArray[Any], name: str) -> Iterator[Vectors]:
    for start in range(0, len(data), _COPY_ROWS):
        block = np.asarray(data[start : start + _COPY_ROWS], np.float32)
        if not np.isfinite(block).all():
            row = start + int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])
            raise WorkloadError(f"row {row:,} of the {name} holds a value that is not finite")
        yield block


def _write_rows(path: Path, shape: tuple[int, ...], blocks: Iterable[Vectors], digest: Any) -> None:
    # By write, not through a memory map: a full disk must be an error here, not a fatal signal.
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        for block in blocks:
            data = np.ascontiguousarray(block, "<f4").data
            digest.update(data)
            file.write(data)


def _answers(
    spec: DatasetSpec,
    source: vector_files.VectorFiles | None,
    path: Path,
    base: Vectors,
    queries: Vectors,
    metric: str,
) -> tuple[Ids, Float64]:
    """The files' neighbours where they apply to this request, else computed."""
    given = source.neighbors if source else None
    whole = source is not None and len(base) == len(source.vectors)
    if given is None or not whole or spec.filter or given.shape[1] < spec.k:
        return ground_truth.exact_neighbors(queries, base, spec.k, metric, _mask(spec, path, len(base)))
    neighbors = np.asarray(given[: len(queries), : spec.k], np.int64)
    distances = np.empty(neighbors.shape)
    for start in range(0, len(queries), _COPY_ROWS):
        part = slice(start, start + _COPY_ROWS)
        distances[part] = ground_truth.distances(metric, queries[part, None, :], base[neighbors[part]])
    _check_given(spec.folder, base, queries[:_CHECKED_QUERIES], neighbors, distances, metric)
    return neighbors, distances


def _check_given(
    folder: str, base: Vectors, queries: Vectors, neighbors: Ids, distances: Float64, metric: str
) -> None:
    """A few given answers against our own: catches another metric, another base, another order."""
    exact = ground_truth.exact_neighbors(queries, base, neighbors.shape[1], metric)[1]
    n = len(queries)
    recall = ground_truth.recall_tie_aware(neighbors[:n], distances[:n], exact)
    if recall.mean() < 0.99:
        raise WorkloadError(
            f"the neighbours in {folder} are not the nearest ones by {metric} (query {recall.argmin()})",
            hint="name the metric of this set, or remove its ground-truth file to have it computed",
        )


def _mask(spec: DatasetSpec, path: Path, rows: int) -> NDArray[np.bool_] | None:
    if spec.filter is None:
        return None
    clusters = None if spec.folder else load_array(path, "clusters")
    mask = filter_column(spec.filter.column, np.arange(rows), clusters) < spec.filter.below
    if np.count_nonzero(mask) < spec.k:
        raise UsageError(
            f"only {np.count_nonzero(mask)} vectors pass the filter {spec.filter}", hint="widen it"
        )
    return mask
