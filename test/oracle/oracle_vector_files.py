"""HDF5 and Parquet as h5py and pyarrow write them, and files that are not what they claim."""

import unittest

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
from test.test_vector_files import Files

from aifbench.workloads import vector_files


class Hdf5(Files):
    def write_set(self, **sets: np.ndarray) -> None:
        with h5py.File(self.folder / "tiny.hdf5", "w") as file:
            file.attrs["distance"] = "euclidean"
            for name, data in sets.items():
                file[name] = data

    def test_set(self) -> None:
        self.write_set(train=self.vectors, test=self.queries, neighbors=self.truth)
        self.check_folder("l2")

    def test_corrupt(self) -> None:
        self.write_set(train=self.vectors)
        self.expect("no data set test", vector_files.read_folder, self.folder)
        (self.folder / "tiny.hdf5").write_bytes(b"not HDF5")
        self.expect("cannot read", vector_files.read_folder, self.folder)


class Parquet(Files):
    def write_set(self, parts: int = 2) -> None:
        ids = np.arange(80) + 1000
        for part in range(parts):
            rows = slice(part * 80 // 2, (part + 1) * 80 // 2)
            self.write(f"train-{part + 1:02}-of-02", id=ids[rows], emb=list(self.vectors[rows]))
        self.write("test", id=range(7), emb=list(self.queries))
        self.write("neighbors", id=range(7), neighbors_id=list(self.truth.astype(np.int64) + 1000))

    def write(self, name: str, **columns: object) -> None:
        pyarrow.parquet.write_table(pyarrow.table(columns), self.folder / f"{name}.parquet")

    def test_set_in_parts_with_own_ids(self) -> None:
        self.write_set()
        self.check_folder()

    def test_incomplete_or_corrupt(self) -> None:
        self.write_set(parts=1)
        self.expect("1 of 2 train files", vector_files.read_folder, self.folder)
        self.write_set()
        self.write("neighbors", id=range(7), neighbors_id=[[1]] * 7)
        self.expect("ids that no train file has", vector_files.read_folder, self.folder)
        self.write("test", id=[1, 2], emb=[[1.0], [1.0, 2.0]])
        self.expect("differ in length", vector_files.read_folder, self.folder)
        (self.folder / "test.parquet").write_bytes(b"PAR1")
        self.expect("test.parquet", vector_files.read_folder, self.folder)


if __name__ == "__main__":
    unittest.main()
