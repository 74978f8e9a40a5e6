"""Small files, and the data loader: what one process writes another one finds."""

import errno
import itertools
import os
import tempfile
import threading
import unittest
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest import mock

from test import fakes  # noqa: F401 - puts src on the path

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import UsageError, WorkloadError
from aifbench.load.workload import Outcome, OutcomeKind
from aifbench.workloads.file_loader import Loader, LoaderData, file_bytes
from aifbench.workloads.file_outcomes import failed
from aifbench.workloads.file_shapes import (
    SHAPES,
    LoaderShape,
    accelerator_utilisation,
    files_for,
    honest_samples,
    scaled,
    shape_named,
)
from aifbench.workloads.file_storm import ImportFiles, Untar, small_file_path, small_file_sizes
from aifbench.workloads.file_tree import Tree

ENDPOINT = Endpoint("localhost", 1)


class TreeCase(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.dir = directory.name

    def run_all(self, workload: Any, count: int) -> list[Outcome]:
        workload.open(ENDPOINT)
        try:
            return [workload.perform(index) for index in range(count)]
        finally:
            workload.close()

    def tree(self, operation: str, count: int = 6, **how: Any) -> list[str]:
        outcomes = self.run_all(Tree(self.dir, operation, **{"per_directory": 3, **how}), count)
        return [outcome.kind.name for outcome in outcomes]


class Metadata(TreeCase):
    def test_the_life_of_files_in_own_and_shared_directories(self) -> None:
        for shared in (False, True):
            steps = [
                ("create", "f"),
                ("stat", "f"),
                ("read", "f"),
                ("rename", "f"),
                ("stat", "r"),
                ("unlink", "r"),
            ]
            for operation, prefix in steps:
                how = {"shared": shared, "size_bytes": 3901, "prefix": prefix}
                self.assertEqual(self.tree(operation, **how), ["OK"] * 6, operation)
            left = [each for each in Path(self.dir).rglob("*") if each.is_file()]
            self.assertEqual(left, [])

    def test_own_directories_hold_as_many_as_asked_for(self) -> None:
        self.tree("create")
        self.assertEqual(sorted(each.name for each in Path(self.dir, "d1").iterdir()), ["f3", "f4", "f5"])

    def test_directories_and_their_entries(self) -> None:
        self.assertEqual(self.tree("mkdir"), ["OK"] * 6)
        outcomes = self.run_all(Tree(self.dir, "readdir", per_directory=3), 2)
        self.assertEqual([outcome.items for outcome in outcomes], [3, 3])
        self.assertEqual(self.tree("rmdir"), ["OK"] * 6)

    def test_what_is_missing_there_already_or_altered(self) -> None:
        self.assertEqual(self.tree("stat", shared=True), ["CLIENT_ERROR"] * 6)
        self.tree("create", shared=True)
        self.assertEqual(self.tree("create", shared=True), ["CLIENT_ERROR"] * 6)
        Path(self.dir, "f2").write_text("x")
        self.assertEqual(self.tree("stat", shared=True).index("WRONG"), 2)
        self.assertEqual(self.tree("read", shared=True).index("WRONG"), 2)

    def test_two_clients_may_make_the_same_directory(self) -> None:
        one, two = (Tree(self.dir, "create", per_directory=100) for _ in range(2))
        for workload in (one, two):
            workload.open(ENDPOINT)
            self.addCleanup(workload.close)
        self.assertIs(one.perform(0).kind, OutcomeKind.OK)
        self.assertIs(two.perform(1).kind, OutcomeKind.OK)

    def test_a_link_in_place_of_a_directory_is_not_followed(self) -> None:
        with tempfile.TemporaryDirectory() as elsewhere:
            Path(self.dir, "d0").symlink_to(elsewhere)
            self.assertEqual(self.tree("create", count=1), ["CLIENT_ERROR"])
            self.assertEqual(list(Path(elsewhere).iterdir()), [])

    def test_bad_parameters(self) -> None:
        for arguments in (("chmod", {}), ("create", {"per_directory": 0}), ("create", {"size_bytes": -1})):
            with self.assertRaises(UsageError):
                Tree(self.dir, arguments[0], **arguments[1])  # type: ignore[arg-type]
        with self.assertRaises(WorkloadError):
            Tree(f"{self.dir}/nowhere", "stat").open(ENDPOINT)

    def test_errors_by_kind(self) -> None:
        for number, kind in (
            (errno.ENOSPC, OutcomeKind.SERVER_ERROR),
            (errno.EDQUOT, OutcomeKind.SERVER_ERROR),
            (errno.EIO, OutcomeKind.SERVER_ERROR),
            (errno.EACCES, OutcomeKind.CLIENT_ERROR),
            (errno.ETIMEDOUT, OutcomeKind.TIMEOUT),
        ):
            outcome = failed(OSError(number, os.strerror(number), "/some/file17"), "create")
            self.assertEqual((outcome.kind, outcome.items), (kind, 0))
            self.assertIn(errno.errorcode[number], outcome.error)
            self.assertNotIn("file17", outcome.error)


class Storm(TreeCase):
    def test_what_was_unpacked_is_imported(self) -> None:
        unpacked = self.run_all(Untar(self.dir, size_scale=0.1), 50)
        self.assertEqual({outcome.kind for outcome in unpacked}, {OutcomeKind.OK})
        imported = self.run_all(ImportFiles(self.dir, 50, size_scale=0.1), 100)
        self.assertEqual({outcome.kind for outcome in imported}, {OutcomeKind.OK})
        self.assertEqual([o.bytes_in for o in imported[:50]], [o.bytes_out for o in unpacked])
        status = Path(self.dir, small_file_path(3)).stat()
        self.assertEqual((status.st_mode & 0o777, status.st_mtime), (0o640, 1_600_000_000))

    def test_missing_modules_and_other_sizes(self) -> None:
        self.assertIs(self.run_all(ImportFiles(self.dir, 1), 1)[0].kind, OutcomeKind.CLIENT_ERROR)
        self.run_all(Untar(self.dir), 1)
        Path(self.dir, small_file_path(0)).write_text("short")
        self.assertIs(self.run_all(ImportFiles(self.dir, 1), 1)[0].kind, OutcomeKind.WRONG)

    def test_sizes_are_those_of_source_trees(self) -> None:
        sizes = sorted(small_file_sizes(1.0, 1))
        self.assertTrue(3_500 < sizes[len(sizes) // 2] < 4_700)
        self.assertTrue(10_000 < sum(sizes) / len(sizes) < 25_000)
        self.assertEqual(small_file_sizes(1.0, 1), small_file_sizes(1.0, 1))
        for scale in (0, -1, 17):
            with self.assertRaises(UsageError):
                small_file_sizes(scale, 1)


class DataLoader(TreeCase):
    SMALL = LoaderShape("small", 5000, 2000, 1, 3, 2, 0.01)
    RECORDS = LoaderShape("records", 300, 0, 4, 3, 2, 0.0)

    def load(self, shape: LoaderShape, samples: int, steps: int, **how: Any) -> list[Outcome]:
        self.naps: list[float] = []
        loader = Loader(self.dir, asdict(shape), samples, sleep=self.naps.append, **how)
        loader.open(ENDPOINT)
        loader.prepare(iter(range(steps)))
        try:
            return [loader.perform(index) for index in range(steps)]
        finally:
            loader.close()

    def write(self, shape: LoaderShape, samples: int) -> list[Outcome]:
        return self.run_all(LoaderData(self.dir, asdict(shape)), files_for(shape, samples))

    def test_an_epoch_reads_every_sample_once(self) -> None:
        for shape in (self.SMALL, self.RECORDS):
            written = self.write(shape, 12)
            steps = self.load(shape, 12, 4)
            self.assertEqual({step.kind for step in steps}, {OutcomeKind.OK}, steps)
            self.assertEqual([step.items for step in steps], [3] * 4)
            self.assertEqual(sum(o.bytes_out for o in written), sum(s.bytes_in for s in steps))

    def test_the_accelerator_computes_once_a_step_and_its_share_is_told(self) -> None:
        self.write(self.SMALL, 12)
        steps = self.load(self.SMALL, 12, 8)
        self.assertEqual(self.naps, [0.01] * 8)
        self.assertTrue(all(0 < step.qualities[0] <= 1 for step in steps))
        self.assertTrue(all(step.first_byte_ns for step in steps))

    def test_no_more_is_read_ahead_than_allowed(self) -> None:
        self.write(self.SMALL, 12)
        taken = itertools.count()
        reached = threading.Event()

        def indices() -> Any:
            while True:
                index = next(taken)
                if index == 3:
                    reached.set()
                yield index

        loader = Loader(self.dir, asdict(self.SMALL), 12, prefetch=2, sleep=lambda _: None)
        loader.open(ENDPOINT)
        loader.prepare(indices())
        loader.perform(0)
        self.assertFalse(reached.wait(0.05))
        loader.perform(1)
        self.assertTrue(reached.wait(5))
        loader.close()

    def test_a_missing_or_short_sample_is_an_error_of_its_step(self) -> None:
        self.write(self.SMALL, 6)
        os.truncate(Path(self.dir, "data-0000004.bin"), 10)
        steps = self.load(self.SMALL, 6, 2)
        self.assertEqual(sorted(step.kind.name for step in steps), ["OK", "WRONG"])
        with self.assertRaises(WorkloadError):
            self.load(self.SMALL, 60, 1)
        with self.assertRaises(UsageError):
            self.load(self.SMALL, 2, 1)

    def test_each_epoch_has_its_own_order(self) -> None:
        loader = Loader(self.dir, asdict(self.SMALL), 30)
        epochs = [[sample for n in range(10) for sample in loader._samples_of(10 * e + n)] for e in range(2)]
        self.assertEqual(sorted(epochs[0]), sorted(epochs[1]))
        self.assertNotEqual(epochs[0], epochs[1])

    def test_a_disk_that_fills_leaves_no_part_of_a_file(self) -> None:
        writer = LoaderData(self.dir, asdict(self.SMALL))
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with mock.patch("os.fsync", side_effect=full), mock.patch("time.sleep"):
            outcome = self.run_all(writer, 1)[0]
        self.assertIs(outcome.kind, OutcomeKind.SERVER_ERROR)
        self.assertEqual(list(Path(self.dir).iterdir()), [])


class Shapes(unittest.TestCase):
    def test_sizes_have_the_mean_and_deviation_asked_for(self) -> None:
        shape = SHAPES["unet3d"]
        sizes = [shape.size_of(sample, 1) for sample in range(3000)]
        mean = sum(sizes) / len(sizes)
        spread = (sum((size - mean) ** 2 for size in sizes) / len(sizes)) ** 0.5
        self.assertAlmostEqual(mean / shape.sample_bytes, 1, delta=0.05)
        self.assertAlmostEqual(spread / shape.stdev_bytes, 1, delta=0.1)
        self.assertEqual(file_bytes(SHAPES["resnet50"], 0, 1), 1251 * 114_660)

    def test_the_honest_number_of_samples(self) -> None:
        # MLPerf's rule for one accelerator: 500 steps of 7, or five times the memory.
        self.assertEqual(honest_samples(SHAPES["unet3d"], 1, 2**30), 3500)
        self.assertEqual(honest_samples(SHAPES["unet3d"], 1, 512 * 2**30), 18_751)

    def test_a_scaled_shape_asks_for_the_same_rate(self) -> None:
        whole, tenth = SHAPES["cosmoflow"], scaled(SHAPES["cosmoflow"], 0.1)
        self.assertAlmostEqual(
            tenth.sample_bytes / tenth.compute_s / (whole.sample_bytes / whole.compute_s), 1, delta=1e-5
        )
        with self.assertRaises(UsageError):
            scaled(whole, 0)
        with self.assertRaises(UsageError):
            shape_named("bert")
        with self.assertRaises(UsageError):
            replace(whole, batch=0)

    def test_utilisation_leaves_out_the_first_step(self) -> None:
        # Steps end at 5, 6, 7.5 and 8.5 s with one second of compute each: 3 of 3.5 s.
        ends_ns = [5_000_000_000, 6_000_000_000, 7_500_000_000, 8_500_000_000]
        self.assertAlmostEqual(accelerator_utilisation(ends_ns, 1.0) or 0, 3 / 3.5)
        self.assertIsNone(accelerator_utilisation(ends_ns[:1], 1.0))


if __name__ == "__main__":
    unittest.main()
