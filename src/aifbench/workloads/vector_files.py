"""Readers for published vector sets in a folder: fvecs, big-ann binaries, HDF5 and Parquet.

Every reader checks sizes before it trusts a header and raises WorkloadError naming the file and the
defect. Large files are mapped, not read. All formats are little-endian:

    .fvecs .ivecs .bvecs          per vector: int32 d, then d float32, int32 or uint8
    .fbin .ibin .u8bin .i8bin     uint32 n, uint32 d, then n*d float32, int32, uint8 or int8
    ground truth binary           uint32 n, uint32 k, n*k int32 ids, n*k float32 distances (big-ann)
    .hdf5 .h5                     data sets train, test, neighbors (ann-benchmarks)
    train*.parquet test.parquet neighbors.parquet     columns id, emb, neighbors_id (VectorDBBench)
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifbench.errors import ConfigError, WorkloadError

_VECS_TYPES = {".fvecs": "<f4", ".ivecs": "<i4", ".bvecs": "u1"}
_BIN_TYPES = {".fbin": "<f4", ".ibin": "<i4", ".u8bin": "u1", ".i8bin": "i1"}
_HDF5_METRICS = {"euclidean": "l2", "angular": "cosine", "ip": "ip", "inner": "ip"}
_MAX_DIM = 1 << 20

Matrix = NDArray[Any]


@dataclass(frozen=True, slots=True)
class VectorFiles:
    """What a folder holds, as found: nothing is converted or computed.

    `neighbors` are row numbers in `vectors`. `metric` is empty when the files do not say.
    """

    vectors: Matrix
    queries: Matrix
    neighbors: Matrix | None = None
    metric: str = ""
    files: tuple[Path, ...] = ()


def read_vecs(path: Path) -> Matrix:
    """The vectors of an fvecs, ivecs or bvecs file, shape (n, d)."""
    element = np.dtype(_element_type(path, _VECS_TYPES))
    data = _map_bytes(path)
    if len(data) < 4:
        raise _defect(path, f"{len(data)} bytes are too few for one vector")
    dim = _checked_dim(path, int(data[:4].view("<i4")[0]))
    record = 4 + dim * element.itemsize
    if len(data) % record:
        raise _defect(
            path, f"{len(data):,} bytes are not a multiple of {record} (dimension {dim}): truncated?"
        )
    records = data.reshape(-1, record)
    # Comparing bytes avoids a misaligned int32 view for bvecs records.
    differing = np.flatnonzero((records[:, :4] != records[0, :4]).any(axis=1))
    if len(differing):
        raise _defect(path, f"vector {differing[0]:,} has another dimension than {dim}")
    return records[:, 4:].view(element) if element.itemsize == 1 else _aligned(records, element)


def _aligned(records: Matrix, element: np.dtype[Any]) -> Matrix:
    return records.reshape(-1).view(element).reshape(len(records), -1)[:, 1:]


def read_bin(path: Path) -> Matrix:
    """The rows of an fbin, ibin, u8bin or i8bin file, shape (n, d)."""
    element = np.dtype(_element_type(path, _BIN_TYPES))
    data = _map_bytes(path)
    rows, dim = _bin_header(path, data)
    expected = 8 + rows * dim * element.itemsize
    if len(data) != expected:
        raise _defect(path, f"{rows:,} x {dim} needs {expected:,} bytes, the file has {len(data):,}")
    return data[8:].view(element).reshape(rows, dim)


def read_ground_truth_bin(path: Path) -> Matrix:
    """The neighbour ids of a ground-truth binary, shape (n, k), with or without distances after them."""
    data = _map_bytes(path)
    rows, k = _bin_header(path, data)
    ids_end = 8 + rows * k * 4
    if len(data) not in (ids_end, ids_end + rows * k * 4):
        raise _defect(path, f"ground truth of {rows:,} x {k} does not fit in {len(data):,} bytes")
    return data[8:ids_end].view("<i4").reshape(rows, k)


def _bin_header(path: Path, data: Matrix) -> tuple[int, int]:
    if len(data) < 8:
        raise _defect(path, f"{len(data)} bytes are too few for a header")
    rows, dim = (int(value) for value in data[:8].view("<u4"))
    if rows == 0:
        raise _defect(path, "it holds no rows")
    return rows, _checked_dim(path, dim)


def _map_bytes(path: Path) -> Matrix:
    try:
        if path.stat().st_size == 0:
            raise _defect(path, "it is empty")
        return np.memmap(path, np.uint8, "r")
    except OSError as error:
        raise WorkloadError(f"cannot read {path}") from error


def _element_type(path: Path, types: dict[str, str]) -> str:
    if path.suffix not in types:
        raise WorkloadError(f"{path} has an unknown suffix", hint=f"valid: {', '.join(types)}")
    return types[path.suffix]


def _checked_dim(path: Path, dim: int) -> int:
    if not 1 <= dim <= _MAX_DIM:
        raise _defect(path, f"a dimension of {dim:,} cannot be right")
    return dim


def _defect(path: Path, text: str) -> WorkloadError:
    return WorkloadError(f"{path} is corrupt: {text}")


def read_folder(folder: Path) -> VectorFiles:
    """The one set in `folder`, whatever its format. Raises WorkloadError if none or unclear."""
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise WorkloadError(f"cannot read the data folder {folder}") from error
    for suffixes, read in _READERS:
        matching = [path for path in files if path.suffix in suffixes]
        if matching:
            found = read(folder, matching)
            _check_consistent(folder, found)
            return found
    known = ", ".join(suffix for suffixes, _ in _READERS for suffix in suffixes)
    raise WorkloadError(f"no vector files in {folder}", hint=f"known formats: {known}")


def _read_hdf5(folder: Path, files: list[Path]) -> VectorFiles:
    if len(files) > 1:
        raise WorkloadError(f"{len(files)} HDF5 files in {folder}", hint="one folder holds one set")
    try:
        import h5py
    except ImportError as error:
        raise ConfigError(f"{files[0]} needs h5py to be read", hint="pip install h5py") from error
    try:
        with h5py.File(files[0], "r") as data:
            missing = {"train", "test"} - set(data)
            if missing:
                raise _defect(files[0], f"it has no data set {', '.join(sorted(missing))}")
            neighbors = data["neighbors"][:] if "neighbors" in data else None
            metric = _HDF5_METRICS.get(_text(data.attrs.get("distance", "")), "")
            return VectorFiles(data["train"][:], data["test"][:], neighbors, metric, tuple(files))
    except OSError as error:
        raise WorkloadError(f"cannot read {files[0]}") from error


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _read_parquet(folder: Path, files: list[Path]) -> VectorFiles:
    train = [path for path in files if re.fullmatch(r"train(-\d+-of-\d+)?\.parquet", path.name)]
    if not train:
        raise WorkloadError(f"no train.parquet in {folder}", hint="see VectorDBBench's custom data sets")
    _check_all_parts(folder, train)
    ids, vectors = (np.concatenate(columns) for columns in zip(*map(_parquet_vectors, train), strict=True))
    queries = _parquet_vectors(folder / "test.parquet")[1]
    truth = folder / "neighbors.parquet"
    if not truth.exists():
        return VectorFiles(vectors, queries, None, "", (*train, folder / "test.parquet"))
    neighbors = _rows_of(truth, ids, _parquet_lists(truth, "neighbors_id"))
    return VectorFiles(vectors, queries, neighbors, "", (*train, folder / "test.parquet", truth))


def _check_all_parts(folder: Path, train: list[Path]) -> None:
    totals = {int(match[1]) for path in train if (match := re.search(r"-of-(\d+)", path.name))}
    if totals and totals != {len(train)}:
        raise WorkloadError(f"{folder} has {len(train)} of {max(totals)} train files")


def _parquet_vectors(path: Path) -> tuple[Matrix, Matrix]:
    return _parquet_column(path, "id"), _parquet_lists(path, "emb")


def _parquet_lists(path: Path, column: str) -> Matrix:
    """A list column whose lists all have one length, as a matrix."""
    lists = _parquet_column(path, column)
    lengths = {len(item) if item is not None else 0 for item in lists}
    if len(lengths) != 1 or lengths == {0}:
        raise _defect(path, f"the lists of column {column!r} differ in length")
    return np.stack(list(lists))


def _parquet_column(path: Path, column: str) -> Matrix:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(f"{path} needs pyarrow to be read", hint="pip install pyarrow") from error
    try:
        table = pyarrow.parquet.read_table(path, columns=[column])
        return np.asarray(table.column(column).to_numpy())
    except (OSError, KeyError, pyarrow.ArrowException) as error:
        raise WorkloadError(f"cannot read column {column!r} of {path}") from error


def _rows_of(path: Path, ids: Matrix, neighbor_ids: Matrix) -> Matrix:
    """Neighbour ids turned into row numbers of the vectors that carry them."""
    order = np.argsort(ids, kind="stable")
    at = np.searchsorted(ids, neighbor_ids, sorter=order)
    rows = order[np.minimum(at, len(ids) - 1)]
    if not np.array_equal(ids[rows], neighbor_ids):
        raise _defect(path, "it names ids that no train file has")
    return rows


def _read_vecs_set(folder: Path, files: list[Path]) -> VectorFiles:
    return _read_roles(folder, files, read_vecs, read_vecs)


def _read_bin_set(folder: Path, files: list[Path]) -> VectorFiles:
    return _read_roles(folder, files, read_bin, read_ground_truth_bin)


def _read_roles(
    folder: Path, files: list[Path], read: Callable[[Path], Matrix], read_truth: Callable[[Path], Matrix]
) -> VectorFiles:
    """A set whose files are told apart by the usual words in their names."""
    truth = [path for path in files if re.search(r"groundtruth|neighbors|(^|[_.-])gt", path.name.lower())]
    queries = [path for path in files if path not in truth and re.search("query|queries|test", path.name)]
    learn = [path for path in files if "learn" in path.name]
    base = [path for path in files if path not in truth + queries + learn]
    if len(base) != 1 or len(queries) != 1 or len(truth) > 1:
        names = ", ".join(path.name for path in files)
        raise WorkloadError(
            f"cannot tell the roles of the files in {folder}: {names}",
            hint="name them base.*, query.* and groundtruth.*, one each",
        )
    neighbors = read_truth(truth[0]) if truth else None
    return VectorFiles(read(base[0]), read(queries[0]), neighbors, "", (*base, *queries, *truth))


def _check_consistent(folder: Path, found: VectorFiles) -> None:
    vectors, queries, neighbors = found.vectors, found.queries, found.neighbors
    if vectors.ndim != 2 or queries.ndim != 2 or not vectors.size or not queries.size:
        raise WorkloadError(f"{folder} has no vectors or no queries")
    if vectors.shape[1] != queries.shape[1]:
        raise WorkloadError(
            f"{folder}: vectors have {vectors.shape[1]} dimensions and queries {queries.shape[1]}"
        )
    if neighbors is None:
        return
    if neighbors.ndim != 2 or len(neighbors) != len(queries):
        raise WorkloadError(f"{folder}: neighbours for {len(neighbors)} of {len(queries)} queries")
    if neighbors.size == 0 or neighbors.min() < 0 or neighbors.max() >= len(vectors):
        raise WorkloadError(f"{folder}: its neighbours are not all among its {len(vectors):,} vectors")


_READERS: tuple[tuple[tuple[str, ...], Callable[[Path, list[Path]], VectorFiles]], ...] = (
    ((".hdf5", ".h5"), _read_hdf5),
    ((".parquet",), _read_parquet),
    ((".fvecs", ".bvecs", ".ivecs"), _read_vecs_set),
    ((".fbin", ".u8bin", ".i8bin", ".ibin", ".bin"), _read_bin_set),
)
