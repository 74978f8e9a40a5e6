"""Readers of published formats: round trips, ties, and files that are not what they claim."""

import struct
import sys
import tempfile
import unittest
from contextlib import AbstractContextManager
from pathlib import Path
from unittest import mock

import numpy as np
from test import fakes  # noqa: F401

from aifbench.errors import ConfigError, UsageError, WorkloadError
from aifbench.workloads import vector_files
from aifbench.workloads.datasets import DatasetSpec, Filter, load_dataset
from aifbench.workloads.ground_truth import exact_neighbors
from aifbench.workloads.preparation import prepare_dataset


def write_vecs(path: Path, rows: np.ndarray) -> None:
    path.write_bytes(b"".join(struct.pack("<i", len(row)) + row.tobytes() for row in rows))


def write_bin(path: Path, rows: np.ndarray, more: bytes = b"") -> None:
    path.write_bytes(struct.pack("<II", *rows.shape) + rows.tobytes() + more)


def without(package: str) -> AbstractContextManager[object]:
    """Importing `package` fails as if it were not installed."""
    return mock.patch.dict(sys.modules, {package: None})


class Files(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name) / "tiny"
        self.folder.mkdir()
        self.prepared = Path(folder.name) / "prepared"
        random = np.random.default_rng(11)
        self.vectors = random.integers(0, 100, (80, 6)).astype(np.float32)
        self.vectors[40:44] = self.vectors[0]  # ties
        self.queries = random.integers(0, 100, (7, 6)).astype(np.float32)
        self.queries[0] = self.vectors[0]
        self.truth = exact_neighbors(self.queries, self.vectors, 5, "l2")[0].astype(np.int32)

    def expect(self, text: str, call: object, *args: object, **kwargs: object) -> None:
        with self.assertRaises((WorkloadError, UsageError)) as caught:
            call(*args, **kwargs)  # type: ignore[operator]
        self.assertIn(text, str(caught.exception))

    def check_folder(self, metric: str = "") -> None:
        found = vector_files.read_folder(self.folder)
        np.testing.assert_array_equal(np.asarray(found.vectors, np.float32), self.vectors)
        np.testing.assert_array_equal(np.asarray(found.queries, np.float32), self.queries)
        np.testing.assert_array_equal(found.neighbors, self.truth)
        self.assertEqual(found.metric, metric)


class Vecs(Files):
    def write_set(self) -> None:
        write_vecs(self.folder / "tiny_base.fvecs", self.vectors)
        write_vecs(self.folder / "tiny_query.fvecs", self.queries)
        write_vecs(self.folder / "tiny_groundtruth.ivecs", self.truth)
        write_vecs(self.folder / "tiny_learn.fvecs", self.vectors[:5])

    def test_set(self) -> None:
        self.write_set()
        self.check_folder()

    def test_bytes(self) -> None:
        path = self.folder / "x.bvecs"
        write_vecs(path, self.vectors.astype(np.uint8))
        np.testing.assert_array_equal(vector_files.read_vecs(path), self.vectors.astype(np.uint8))

    def test_corrupt(self) -> None:
        path = self.folder / "x.fvecs"
        write_vecs(path, self.vectors)
        whole = path.read_bytes()
        mixed = bytearray(whole)
        mixed[28 * 3] = 5
        for content, text in (
            (b"", "empty"),
            (whole[:2], "too few"),
            (whole[:-1], "truncated"),
            (b"\xff\xff\xff\xff" + whole[4:], "dimension of -1"),
            (bytes(mixed), "vector 3 has another dimension"),
        ):
            path.write_bytes(content)
            with self.subTest(text):
                self.expect(text, vector_files.read_vecs, path)
        self.expect("unknown suffix", vector_files.read_vecs, self.folder / "x.txt")
        self.expect("cannot read", vector_files.read_vecs, self.folder / "none.fvecs")

    def test_roles_must_be_clear(self) -> None:
        self.write_set()
        write_vecs(self.folder / "other.fvecs", self.vectors)
        self.expect("cannot tell the roles", vector_files.read_folder, self.folder)


class Binaries(Files):
    def test_set_with_distances_in_the_ground_truth(self) -> None:
        write_bin(self.folder / "base.80.u8bin", self.vectors.astype(np.uint8))
        write_bin(self.folder / "query.public.u8bin", self.queries.astype(np.uint8))
        write_bin(self.folder / "GT_80.ibin", self.truth, np.zeros(35, np.float32).tobytes())
        self.check_folder()

    def test_types_and_plain_ground_truth(self) -> None:
        for suffix, kind in (("fbin", np.float32), ("ibin", np.int32), ("i8bin", np.int8)):
            path = self.folder / f"x.{suffix}"
            write_bin(path, self.vectors.astype(kind))
            np.testing.assert_array_equal(vector_files.read_bin(path), self.vectors.astype(kind))
        path = self.folder / "gt.bin"
        write_bin(path, self.truth)
        np.testing.assert_array_equal(vector_files.read_ground_truth_bin(path), self.truth)

    def test_corrupt(self) -> None:
        path = self.folder / "x.fbin"
        write_bin(path, self.vectors)
        whole = path.read_bytes()
        for content, text in (
            (whole[:7], "too few for a header"),
            (whole[:-4], "needs 1,928 bytes, the file has 1,924"),
            (whole + b"\0", "needs 1,928"),
            (struct.pack("<II", 0, 6), "no rows"),
            (struct.pack("<II", 1 << 31, 1 << 31), "dimension"),
        ):
            path.write_bytes(content)
            with self.subTest(text):
                self.expect(text, vector_files.read_bin, path)
        path.write_bytes(whole[:100])
        self.expect("ground truth", vector_files.read_ground_truth_bin, path)


class OptionalFormats(Files):
    """What needs neither h5py nor pyarrow; the oracles read real files."""

    def test_a_missing_package_is_named_with_its_remedy(self) -> None:
        for package, name in (("h5py", "tiny.hdf5"), ("pyarrow", "train.parquet")):
            path = self.folder / name
            path.touch()
            with self.subTest(package), without(package), self.assertRaises(ConfigError) as caught:
                vector_files.read_folder(self.folder)
            self.assertTrue(str(caught.exception).startswith(f"{path} needs {package} to be read: "))
            self.assertEqual(caught.exception.hint, f"pip install {package}")
            path.unlink()

    def test_one_folder_holds_one_hdf5_file(self) -> None:
        for name in ("a.hdf5", "b.h5"):
            (self.folder / name).touch()
        self.expect("2 HDF5 files", vector_files.read_folder, self.folder)

    def test_every_part_of_a_parquet_set_must_be_there(self) -> None:
        (self.folder / "test.parquet").touch()
        self.expect("no train.parquet", vector_files.read_folder, self.folder)
        (self.folder / "train-02-of-03.parquet").touch()
        self.expect("1 of 3 train files", vector_files.read_folder, self.folder)


class Consistency(Files):
    def write_set(self, vectors: np.ndarray, queries: np.ndarray, truth: np.ndarray) -> None:
        write_bin(self.folder / "base.fbin", vectors)
        write_bin(self.folder / "query.fbin", queries)
        write_bin(self.folder / "gt.ibin", truth)

    def test_parts_that_do_not_belong_together(self) -> None:
        for vectors, queries, truth, text in (
            (self.vectors, self.queries[:, :5].copy(), self.truth, "6 dimensions and queries 5"),
            (self.vectors, self.queries[:6], self.truth, "neighbours for 7 of 6"),
            (self.vectors[:40], self.queries, self.truth, "not all among its 40"),
        ):
            self.write_set(vectors, queries, truth)
            with self.subTest(text):
                self.expect(text, vector_files.read_folder, self.folder)

    def test_nothing_to_read(self) -> None:
        self.expect("no vector files", vector_files.read_folder, self.folder)
        self.expect("cannot read the data folder", vector_files.read_folder, self.folder / "x")


class PreparedFromFiles(Consistency):
    def prepare(self, **spec: object) -> Path:
        return prepare_dataset(DatasetSpec(folder=str(self.folder), **{"k": 5, **spec}), self.prepared)

    def test_given_neighbors_are_used_with_exact_distances(self) -> None:
        self.write_set(self.vectors, self.queries, self.truth)
        data = load_dataset(self.prepare())
        np.testing.assert_array_equal(data.neighbors, self.truth)
        np.testing.assert_array_equal(data.distances, exact_neighbors(self.queries, self.vectors, 5, "l2")[1])
        self.assertEqual((data.name, data.seed, data.clusters), ("tiny", None, None))

    def test_another_choice_among_ties_is_as_good(self) -> None:
        tied = self.truth.copy()
        self.assertEqual(tied[0].tolist(), [0, 40, 41, 42, 43])
        tied[0] = tied[0][::-1]
        self.write_set(self.vectors, self.queries, tied)
        np.testing.assert_array_equal(load_dataset(self.prepare()).neighbors, tied)

    def test_neighbors_by_another_metric_are_refused(self) -> None:
        self.write_set(self.vectors, self.queries, self.truth)
        self.expect("not the nearest ones by ip", self.prepare, metric="ip")

    def test_neighbors_are_computed_where_the_given_ones_do_not_apply(self) -> None:
        self.write_set(self.vectors, self.queries, self.truth)
        for spec, rows in (({"vectors": 30}, 30), ({"base": 50}, 50), ({"k": 6}, 80)):
            data = load_dataset(self.prepare(**spec))
            expected = exact_neighbors(self.queries, self.vectors[:rows], spec.get("k", 5), "l2")[0]
            np.testing.assert_array_equal(data.neighbors, expected)
        data = load_dataset(self.prepare(filter=Filter("bucket", 20)))
        self.assertLess(data.neighbors.max(), 20)

    def test_changed_files_are_prepared_anew(self) -> None:
        self.write_set(self.vectors, self.queries, self.truth)
        first = self.prepare()
        write_bin(self.folder / "base.fbin", self.vectors[::-1].copy())
        (self.folder / "gt.ibin").unlink()
        second = self.prepare()
        self.assertNotEqual(second, first)
        np.testing.assert_array_equal(load_dataset(second).vectors, self.vectors[::-1])

    def test_impossible_requests(self) -> None:
        self.write_set(self.vectors, self.queries, self.truth)
        self.expect("has 80 vectors, not 81", self.prepare, vectors=81)
        self.expect("has 6 dimensions, not 7", self.prepare, dim=7)
        self.expect("no clusters", self.prepare, filter=Filter("cluster", 1))
        self.vectors[3, 2] = np.nan
        self.write_set(self.vectors, self.queries, self.truth)
        self.expect("row 3 of the vectors", self.prepare)


if __name__ == "__main__":
    unittest.main()
