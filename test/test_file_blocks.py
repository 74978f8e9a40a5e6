"""Blocks of large files: every one written once, at its place, and found again by any reader."""

import errno
import os
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from test import fakes  # noqa: F401 - puts src on the path

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import UsageError, WorkloadError
from aifbench.load.workload import OutcomeKind
from aifbench.workloads.file_blocks import Blocks, random_order
from aifbench.workloads.file_checkpoint import MODELS, parse_model, plan_checkpoint
from aifbench.workloads.file_content import PAGE_BYTES, BlockBuffer, file_tag
from aifbench.workloads.file_layout import BlockLayout, SyncPolicy

ENDPOINT = Endpoint("localhost", 1)
KIB = 1024


class FileCase(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(dir="/var/tmp")  # a file system that knows O_DIRECT
        self.addCleanup(directory.cleanup)
        self.dir = directory.name

    def blocks(
        self, ranks: int = 2, rank_bytes: int = 64 * KIB, block_bytes: int = 16 * KIB, **how: Any
    ) -> Blocks:
        workload = Blocks(self.dir, ranks, rank_bytes, block_bytes, **how)
        workload.open(ENDPOINT)
        self.addCleanup(workload.close)
        return workload

    def kinds(self, workload: Blocks, count: int) -> list[str]:
        return [workload.perform(index).kind.name for index in range(count)]


class Places(unittest.TestCase):
    def test_own_files_are_consecutive(self) -> None:
        layout = BlockLayout(ranks=3, rank_bytes=40, block_bytes=10)
        self.assertEqual([layout.place(n) for n in range(3, 6)], [(0, 30), (1, 0), (1, 10)])
        self.assertEqual((layout.files, layout.blocks, layout.total_bytes), (3, 12, 120))

    def test_segments_of_a_shared_file_take_turns(self) -> None:
        layout = BlockLayout(ranks=2, rank_bytes=40, block_bytes=10, shared=True, segments=2)
        places = [layout.place(n)[1] for n in range(layout.blocks)]
        self.assertEqual(places, [0, 10, 40, 50, 20, 30, 60, 70])

    def test_every_layout_covers_its_bytes_once(self) -> None:
        for shared, segments in ((False, 1), (True, 1), (True, 3), (True, 6)):
            layout = BlockLayout(4, 60, 10, shared, segments)
            places = {layout.place(n) for n in range(layout.blocks)}
            wanted = (
                {(0, n * 10) for n in range(24)}
                if shared
                else {(f, n * 10) for f in range(4) for n in range(6)}
            )
            self.assertEqual(places, wanted)

    def test_random_order_takes_each_block_once_before_any_again(self) -> None:
        for blocks in (1, 7, 1000):
            order = random_order(blocks, 3)
            self.assertEqual(sorted(map(order, range(blocks))), list(range(blocks)))
        self.assertNotEqual([order(n) for n in range(20)], list(range(20)))

    def test_order_of_more_blocks_than_are_remembered(self) -> None:
        with mock.patch("aifbench.workloads.file_blocks._ORDER_CELLS", 8):
            order = random_order(64, 1)
        self.assertEqual(sorted(map(order, range(64))), list(range(64)))

    def test_bad_layouts_say_what_is_valid(self) -> None:
        for arguments in (
            (0, 10, 10),
            (1, 5, 10),
            (1, 15, 10),
            (1, 10, 0),
            (1, 40, 10, False, 2),
            (1, 40, 10, True, 3),
        ):
            with self.subTest(arguments), self.assertRaises(UsageError) as raised:
                BlockLayout(*arguments)
            self.assertTrue(raised.exception.hint)

    def test_sync_policies(self) -> None:
        self.assertEqual(SyncPolicy.parse("8"), SyncPolicy(every=8, at_end=True))
        self.assertTrue(SyncPolicy.parse("dsync").dsync)
        for text in ("0", "-1", "often", "", "²"):
            with self.subTest(text), self.assertRaises(UsageError):
                SyncPolicy.parse(text)


class Content(unittest.TestCase):
    def test_a_block_of_another_size_holds_the_same_bytes(self) -> None:
        large, small = BlockBuffer(2 * 2**20, 1), BlockBuffer(PAGE_BYTES, 1)
        tag = file_tag(1, 0)
        large.stamp(tag, 512)
        for page in (0, 1, 255, 256, 511):
            small.stamp(tag, 512 + page)
            start = page * PAGE_BYTES
            self.assertEqual(large.parts[0][start : start + PAGE_BYTES], small.parts[0])

    def test_no_two_pages_are_alike_and_none_compresses(self) -> None:
        import zlib

        buffer = BlockBuffer(4 * 2**20, 1)
        buffer.stamp(file_tag(1, 0), 0)
        raw = bytes(buffer.parts[0])
        pages = {raw[start : start + PAGE_BYTES] for start in range(0, len(raw), PAGE_BYTES)}
        self.assertEqual(len(pages), 1024)
        self.assertGreater(len(zlib.compress(raw[: 2**19], 1)), 0.99 * 2**19)

    def test_another_file_place_or_seed_is_noticed(self) -> None:
        for size_bytes in (PAGE_BYTES, 4 * PAGE_BYTES):
            buffer = BlockBuffer(size_bytes, 1)
            tag = file_tag(1, 0)
            buffer.stamp(tag, 4)
            self.assertTrue(buffer.is_block(tag, 4))
            self.assertFalse(buffer.is_block(tag, 8))
            self.assertFalse(buffer.is_block(file_tag(1, 1), 4))
            buffer.parts[0][-1] ^= 1
            self.assertFalse(buffer.is_block(tag, 4))


class WritingAndReading(FileCase):
    def test_what_was_written_is_verified(self) -> None:
        for how in (
            {},
            {"direct": True},
            {"shared": True, "segments": 2},
            {"fsync": "2"},
            {"fsync": "dsync"},
        ):
            with self.subTest(how):
                both = {name: value for name, value in how.items() if name != "fsync"}
                self.assertEqual(self.kinds(self.blocks(access="write", **how), 8), ["OK"] * 8)
                for order in ("sequential", "random"):
                    reader = self.blocks(order=order, verify_every=1, **both)
                    self.assertEqual(self.kinds(reader, 8), ["OK"] * 8)
                    self.assertEqual(reader.notes()["verified_blocks"], 8)

    def test_smaller_blocks_read_what_larger_ones_wrote(self) -> None:
        self.kinds(self.blocks(access="write"), 8)
        self.assertEqual(self.kinds(self.blocks(block_bytes=4 * KIB, verify_every=1), 32), ["OK"] * 32)

    def test_a_damaged_block_is_wrong(self) -> None:
        self.kinds(self.blocks(access="write"), 8)
        path = Path(self.dir, "rank-000001.data")
        data = bytearray(path.read_bytes())
        data[20 * KIB] ^= 1
        path.write_bytes(data)
        outcomes = self.kinds(self.blocks(verify_every=1), 8)
        self.assertEqual(outcomes.index("WRONG"), 5)
        self.assertEqual(outcomes.count("WRONG"), 1)

    def test_a_file_that_ends_early_is_wrong(self) -> None:
        self.kinds(self.blocks(access="write"), 8)
        os.truncate(Path(self.dir, "rank-000000.data"), 20 * KIB)
        self.assertEqual(self.kinds(self.blocks(), 4), ["OK", "WRONG", "WRONG", "WRONG"])

    def test_bytes_and_blocks_are_counted(self) -> None:
        outcome = self.blocks(access="write").perform(0)
        self.assertEqual((outcome.items, outcome.bytes_out, outcome.bytes_in), (1, 16 * KIB, 0))

    def test_fsync_at_the_end_is_once_per_rank(self) -> None:
        with mock.patch("os.fsync") as fsync:
            self.kinds(self.blocks(access="write", fsync="end"), 8)
        self.assertEqual(fsync.call_count, 2)

    def test_fsync_after_every_three_blocks_and_at_the_end(self) -> None:
        with mock.patch("os.fsync") as fsync:
            self.kinds(self.blocks(access="write", fsync="3", ranks=1), 4)
        self.assertEqual(fsync.call_count, 2)

    def test_a_full_disk_gives_its_space_back_at_once(self) -> None:
        writer = self.blocks(access="write", ranks=1)
        self.assertEqual(self.kinds(writer, 2), ["OK", "OK"])
        path = Path(self.dir, "rank-000000.data")
        self.assertGreater(path.stat().st_size, 0)
        with mock.patch("os.fsync"), mock.patch("time.sleep"):
            outcome = writer._failed_write(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), writer._fds[0])
            self.assertIs(outcome.kind, OutcomeKind.SERVER_ERROR)
            self.assertIn("ENOSPC", outcome.error)
            self.assertEqual(path.stat().st_size, 0)
            self.assertEqual(self.kinds(writer, 3), ["SERVER_ERROR"] * 3)
        self.assertEqual(writer.notes()["disk_full"], 1)

    def test_reading_what_nobody_wrote(self) -> None:
        with self.assertRaises(WorkloadError) as raised:
            self.blocks()
        self.assertIn("write the files first", raised.exception.hint)

    def test_a_symbolic_link_in_place_of_a_file_is_not_followed(self) -> None:
        victim = Path(self.dir, "victim")
        victim.write_text("precious")
        Path(self.dir, "rank-000000.data").symlink_to(victim)
        with self.assertRaises(WorkloadError):
            self.blocks(access="write").perform(0)
        self.assertEqual(victim.read_text(), "precious")

    def test_bad_parameters(self) -> None:
        for how in (
            {"access": "append"}, {"order": "zigzag"}, {"fsync": "x"}, {"verify_every": -1},
            {"direct": True, "block_bytes": 100, "rank_bytes": 1000},
            {"verify_every": 1, "block_bytes": 100, "rank_bytes": 1000},
        ):  # fmt: skip
            with self.subTest(how), self.assertRaises(UsageError) as raised:
                self.blocks(**how)  # type: ignore[arg-type]
            self.assertTrue(raised.exception.hint)


class Checkpoints(unittest.TestCase):
    def test_a_known_model(self) -> None:
        plan = plan_checkpoint(parse_model("llama3-8B"))
        self.assertEqual(plan.layout.ranks, 8)
        self.assertAlmostEqual(plan.layout.total_bytes / MODELS["llama3-8b"].checkpoint_bytes, 1, delta=0.001)

    def test_any_size(self) -> None:
        model = parse_model("13b")
        self.assertEqual((model.checkpoint_bytes, model.ranks), (182_000_000_000, 13))
        for text in ("", "b", "-3b", "nanb", "gpt", "infb"):
            with self.subTest(text), self.assertRaises(UsageError):
                parse_model(text)

    def test_a_scaled_one_keeps_its_ranks_and_whole_pages(self) -> None:
        layout = plan_checkpoint(parse_model("llama3-70b"), scale=1e-6).layout
        self.assertEqual((layout.ranks, layout.block_bytes % 4096, layout.blocks_per_rank), (64, 0, 1))
        for scale in (0, 1.5, -1):
            with self.assertRaises(UsageError):
                plan_checkpoint(parse_model("1b"), scale=scale)

    def test_parameters_build_the_workload(self) -> None:
        plan = plan_checkpoint(parse_model("1b"), scale=0.001)
        Blocks(**plan.parameters("/tmp", "write"))
        Blocks(**plan.parameters("/tmp", "read", direct=True))


if __name__ == "__main__":
    unittest.main()
