"""The file system under test: what it is, what of it is cached, and a directory of our own on it."""

import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from test import fakes  # noqa: F401 - puts src on the path

from aifbench.errors import BenchError, ResultError, UsageError, WorkloadError
from aifbench.workloads import file_cache, file_own_directory
from aifbench.workloads.file_cache import (
    cached_in,
    cached_in_all,
    cgroup_limit,
    drop_file,
    node_memory,
    parse_meminfo,
)
from aifbench.workloads.file_lfs import (
    layout_words,
    parse_getstripe,
    parse_project,
    parse_quota,
    setstripe_command,
)
from aifbench.workloads.file_mounts import find_mount, mount_of, parse_mountinfo, space_of
from aifbench.workloads.file_own_directory import MARKER, OwnDirectory

MIB = 2**20


class OwnDirectories(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.parent = Path(directory.name).resolve()
        self.outside = self.parent / "outside"
        self.outside.mkdir()
        (self.outside / "precious").write_text("data")

    def own(self, name: str = "run1") -> OwnDirectory:
        return OwnDirectory.create(self.parent, name, "run-7")

    def test_made_filled_and_removed_without_a_trace(self) -> None:
        own = self.own()
        (own.path / "a" / "b").mkdir(parents=True)
        (own.path / "a" / "b" / "file").write_text("x")
        own.remove()
        self.assertFalse(own.path.exists())
        self.assertTrue((self.outside / "precious").exists())
        own.remove()  # nothing is left to do

    def test_gone_meanwhile_with_all_above_it(self) -> None:
        outer = self.own()
        inner = OwnDirectory.create(outer.path, "inner", "run-8")
        outer.remove()
        inner.remove()  # as by `stop` in another shell: nothing is left to do

    def test_found_again_by_its_path(self) -> None:
        own = self.own()
        self.assertEqual(OwnDirectory.find(own.path), own)
        self.assertEqual(own.marker.run, "run-7")

    def test_somebodys_data_is_refused_and_stays(self) -> None:
        with self.assertRaises(UsageError) as raised:
            OwnDirectory.create(self.parent, "outside", "r")
        self.assertIn("somebody's data", raised.exception.hint)
        with self.assertRaises(UsageError):
            OwnDirectory.find(self.outside)
        self.own()
        with self.assertRaises(UsageError) as raised:
            self.own()
        self.assertIn("an earlier run", raised.exception.hint)
        self.assertTrue((self.outside / "precious").exists())

    def test_links_are_removed_and_not_followed(self) -> None:
        own = self.own()
        (own.path / "to-directory").symlink_to(self.outside)
        (own.path / "to-file").symlink_to(self.outside / "precious")
        own.remove()
        self.assertEqual((self.outside / "precious").read_text(), "data")

    def test_a_link_or_another_directory_in_its_place_is_refused(self) -> None:
        own = self.own()
        own.path.rename(self.parent / "moved")
        own.path.symlink_to(self.outside)
        with self.assertRaises(WorkloadError):
            own.remove()
        own.path.unlink()
        OwnDirectory.create(self.parent, "run1", "another")
        with self.assertRaises(WorkloadError) as raised:
            own.remove()
        self.assertIn("another run", raised.exception.message)
        self.assertTrue((self.outside / "precious").exists())

    def test_a_link_as_name_is_not_taken(self) -> None:
        (self.parent / "link").symlink_to(self.parent / "nowhere")
        with self.assertRaises(UsageError) as raised:
            OwnDirectory.create(self.parent, "link", "r")
        self.assertIn("symbolic link", raised.exception.hint)
        (self.parent / "link").unlink()
        (self.parent / "link").symlink_to(self.own().path)
        with self.assertRaises(UsageError):
            OwnDirectory.find(self.parent / "link")

    def test_an_interrupted_removal_is_taken_up_again(self) -> None:
        own = self.own()
        for number in range(4):
            (own.path / f"f{number}").write_text("x")
        unlinked: list[object] = []
        real = os.unlink

        def interrupted(path: str, **how: int) -> None:
            if len(unlinked) == 2:
                raise KeyboardInterrupt
            unlinked.append(path)
            real(path, **how)

        with (
            mock.patch.object(file_own_directory.os, "unlink", interrupted),
            self.assertRaises(KeyboardInterrupt),
        ):
            own.remove()
        self.assertTrue((own.path / MARKER).exists())
        OwnDirectory.find(own.path).remove()
        self.assertFalse(own.path.exists())

    def test_what_is_mounted_inside_is_left_and_told(self) -> None:
        own = self.own()
        (own.path / "mounted").mkdir()
        (own.path / "mounted" / "other").write_text("x")
        real = os.stat

        def other_device(path: object, **how: object) -> os.stat_result:
            seen = real(path, **how)  # type: ignore[call-overload]
            if path == "mounted":
                seen = os.stat_result((*seen[:2], seen.st_dev + 1, *seen[3:]))
            return seen

        with (
            mock.patch.object(file_own_directory.os, "stat", other_device),
            self.assertRaises(WorkloadError) as raised,
        ):
            own.remove()
        self.assertIn("another file system is mounted there", raised.exception.message)
        self.assertTrue((own.path / "mounted" / "other").exists())
        self.assertTrue((own.path / MARKER).exists())

    def test_a_damaged_or_foreign_marker(self) -> None:
        own = self.own()
        for text in ("", "[]", '{"uid": 1}', "\x00"):
            (own.path / MARKER).write_text(text)
            with self.assertRaises(UsageError):
                OwnDirectory.find(own.path)
        (own.path / MARKER).write_text('{"uid": 99999, "run": "r", "id": "x"}')
        with self.assertRaises(UsageError) as raised:
            OwnDirectory.find(own.path)
        self.assertIn("99999", raised.exception.message)

    def test_bad_parents_say_what_to_do(self) -> None:
        plain = self.parent / "plain"
        plain.write_text("")
        for parent in (self.parent / "no" / "such", plain, plain / "below", "\0"):
            with self.subTest(parent), self.assertRaises(BenchError):
                OwnDirectory.create(parent, "x", "r")
        with (
            mock.patch.object(file_own_directory.os, "access", return_value=False),
            self.assertRaises(UsageError),
        ):
            OwnDirectory.create(self.parent, "x", "r")
        for name in ("", "..", "a/b"):
            with self.assertRaises(UsageError):
                OwnDirectory.create(self.parent, name, "r")

    def test_a_full_disk_leaves_no_empty_directory(self) -> None:
        full = OSError(28, "No space left on device")
        with (
            mock.patch.object(file_own_directory.json, "dump", side_effect=full),
            self.assertRaises(WorkloadError),
        ):
            self.own()
        self.assertFalse((self.parent / "run1").exists())


MOUNTINFO = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 22 0:25 / /dev/shm rw,nosuid - tmpfs tmpfs rw,size=1024k
41 22 0:50 / /mnt/tier1 rw,flock shared:9 master:2 - lustre 10.3.0.1@o2ib,10.3.0.2@o2ib:/tier1 rw,lazystatfs
42 41 0:51 / /mnt/tier1/with\040space ro,relatime - nfs4 server:/x rw,vers=4.2
43 22 0:52 / /over rw - overlay overlay rw,lowerdir=/a
44 22 0:53 / /over rw - tmpfs none rw
not a line
"""


class Mounts(unittest.TestCase):
    def test_the_mount_of_a_path(self) -> None:
        mounts = parse_mountinfo(MOUNTINFO)
        self.assertEqual(len(mounts), 6)

        def at(path: str) -> str:
            mount = find_mount(path, mounts)
            return mount.fs_type if mount else ""

        self.assertEqual(at("/home/me"), "ext4")
        self.assertEqual(at("/mnt/tier1/project"), "lustre")
        self.assertEqual(at("/mnt/tier10"), "ext4")
        self.assertEqual(at("/mnt/tier1/with space/x"), "nfs4")
        self.assertEqual(at("/over/x"), "tmpfs")  # what was mounted last is on top

    def test_what_kinds_mean(self) -> None:
        root, _, lustre, nfs, *_ = parse_mountinfo(MOUNTINFO)
        self.assertTrue(lustre.is_lustre and lustre.is_shared and nfs.is_shared)
        self.assertFalse(root.is_lustre or nfs.is_lustre or root.is_shared)
        self.assertEqual(lustre.source, "10.3.0.1@o2ib,10.3.0.2@o2ib:/tier1")
        self.assertIn("lazystatfs", lustre.options)

    def test_this_machine(self) -> None:
        self.assertTrue(mount_of("/").fs_type)
        space = space_of("/")
        self.assertTrue(0 <= space.free_bytes <= space.total_bytes)
        with self.assertRaises(WorkloadError):
            space_of("/no/such/path")


class Cache(unittest.TestCase):
    def test_memory_of_a_node(self) -> None:
        memory = parse_meminfo(
            "MemTotal:  1024 kB\nMemFree: 10 kB\nMemAvailable:   512 kB\nHugePages_Total: 0\n"
        )
        self.assertEqual((memory.total_bytes, memory.available_bytes), (MIB, MIB // 2))
        self.assertEqual(file_cache.Memory(MIB, 5, 1000).usable_bytes, 1000)
        with self.assertRaises(WorkloadError):
            parse_meminfo("nothing")
        self.assertGreater(node_memory().usable_bytes, 0)

    def test_the_least_limit_counts(self) -> None:
        self.assertEqual(cgroup_limit(["max\n", "2000\n", "1000"]), 1000)
        self.assertIsNone(cgroup_limit(["max\n"]))

    def test_how_much_of_a_file_is_cached(self) -> None:
        with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
            path, empty = Path(name, "data"), Path(name, "empty")
            path.write_bytes(os.urandom(MIB + 100))
            empty.touch()
            self.assertEqual(cached_in(path).share, 1.0)
            drop_file(path)
            self.assertLess(cached_in(path).share, 0.1)
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
                os.pread(file.fileno(), 256 * 1024, 0)
            self.assertAlmostEqual(cached_in(path).share, 0.25, delta=0.05)
            self.assertEqual(cached_in(empty).share, 0.0)
            with mock.patch.object(file_cache, "_LOOK_BYTES", 256 * 1024):
                together = cached_in_all([path, empty])
            self.assertEqual(together.total_bytes, MIB + 100)
            self.assertAlmostEqual(together.share, 0.25, delta=0.05)
            for look in (cached_in, drop_file):
                with self.assertRaises(WorkloadError):
                    look(Path(name, "missing"))


COMPOSITE_FILE = """/mnt/tier1/test
  lcm_layout_gen:    3
  lcm_mirror_count:  1
  lcm_entry_count:   2
    lcme_id:             1
    lcme_mirror_id:      0
    lcme_flags:          init
    lcme_extent.e_start: 0
    lcme_extent.e_end:   4194304
      lmm_stripe_count:  2
      lmm_stripe_size:   1048576
      lmm_pattern:       raid0
      lmm_layout_gen:    0
      lmm_stripe_offset: 0
      lmm_pool:          flash
      lmm_objects:
      - 0: { l_ost_idx: 5, l_fid: [0x100000000:0x45:0x0] }
      - 1: { l_ost_idx: 7, l_fid: [0x100010000:0x45:0x0] }

    lcme_id:             2
    lcme_mirror_id:      0
    lcme_flags:          0
    lcme_extent.e_start: 4194304
    lcme_extent.e_end:   EOF
      lmm_stripe_count:  -1
      lmm_stripe_size:   4194304
      lmm_pattern:       raid0
      lmm_layout_gen:    0
      lmm_stripe_offset: -1
"""
COMPOSITE_DIRECTORY = """/mnt/tier1
  lcm_layout_gen:    0
  lcm_mirror_count:  1
  lcm_entry_count:   2
    lcme_id:             N/A
    lcme_mirror_id:      N/A
    lcme_flags:          0
    lcme_extent.e_start: 0
    lcme_extent.e_end:   65536
      stripe_count:  0       stripe_size:   65536       pattern:       mdt       stripe_offset: -1

    lcme_id:             N/A
    lcme_mirror_id:      N/A
    lcme_flags:          0
    lcme_extent.e_start: 65536
    lcme_extent.e_end:   EOF
      stripe_count:  4       stripe_size:   1048576       pattern:       raid0       stripe_offset: -1
"""
PLAIN_FILE = """/mnt/lustre/file
lmm_stripe_count:  2
lmm_stripe_size:   1048576
lmm_pattern:       1
lmm_layout_gen:    0
lmm_stripe_offset: 42
\tobdidx\t\t objid\t\t objid\t\t group
\t    42\t      14589201\t     0xde9b71\t             0
\t    43\t      14589202\t     0xde9b72\t             0
"""


class Lfs(unittest.TestCase):
    def test_a_progressive_layout_of_a_file(self) -> None:
        first, second = parse_getstripe(COMPOSITE_FILE)
        self.assertEqual((first.start, first.end, first.stripe_count, first.osts), (0, 4 * MIB, 2, (5, 7)))
        self.assertEqual((first.pool, first.pattern), ("flash", "raid0"))
        self.assertEqual((second.end, second.stripe_count, second.osts), (None, -1, ()))
        self.assertEqual(
            layout_words((first, second)),
            "0-4,194,304: 2 x 1,048,576 B of pool flash; 4,194,304-end: all x 4,194,304 B",
        )

    def test_the_default_of_a_directory(self) -> None:
        small, rest = parse_getstripe(COMPOSITE_DIRECTORY)
        self.assertEqual((small.pattern, small.end, rest.stripe_count), ("mdt", 65536, 4))
        (plain,) = parse_getstripe(
            "/d\nstripe_count:  1 stripe_size:   1048576 pattern:       raid0 stripe_offset: -1\n"
        )
        self.assertEqual((plain.start, plain.end, plain.stripe_count), (0, None, 1))

    def test_a_plain_file_of_any_version(self) -> None:
        (plain,) = parse_getstripe(PLAIN_FILE)
        self.assertEqual((plain.stripe_count, plain.pattern, plain.osts), (2, "raid0", (42, 43)))

    def test_no_layout(self) -> None:
        for text in ("", "error: getstripe failed for /tmp: Inappropriate ioctl for device (25)"):
            with self.assertRaises(ResultError):
                parse_getstripe(text)

    def test_quotas_in_kilobytes_and_for_people(self) -> None:
        quota = parse_quota(
            "Disk quotas for usr me (uid 1000):\n"
            "     Filesystem  kbytes   quota   limit   grace   files   quota   limit   grace\n"
            "/project/scratch/p200000\n"
            "                 1048576*  1000000 2097152       -     120       0     300       -\n"
            "uid 1000 is using default file quota setting\n"
        )
        self.assertEqual((quota.used_bytes, quota.hard_bytes, quota.free_bytes), (2**30, 2**31, 2**30))
        self.assertEqual(
            (quota.files, quota.soft_files, quota.hard_files, quota.is_over), (120, None, 300, True)
        )
        quota = parse_quota(
            "Disk quotas for usr me (uid 1):\n"
            "     Filesystem    used   quota   limit   grace   files   quota   limit   grace\n"
            "             ./  792.5M      0k  9.5T       -       9       0 2000000\n"
        )
        self.assertEqual((quota.used_bytes, quota.soft_bytes), (round(792.5 * MIB), None))
        self.assertEqual((quota.hard_bytes, quota.is_over), (round(9.5 * 2**40), False))

    def test_quotas_that_are_inexact_absent_or_refused(self) -> None:
        quota = parse_quota(
            "Disk quotas for usr u (uid 1000):\n"
            "     Filesystem    kbytes    quota   limit   grace   files   quota   limit   grace\n"
            "          /fred [1041408]  5242880 6291456       -     [0]       0       0       -\n"
        )
        self.assertEqual((quota.used_bytes, quota.files), (1041408 * 1024, 0))
        for text in ("", "lfs quota: '/tmp' not on a mounted Lustre filesystem", "grace grace"):
            with self.assertRaises(ResultError):
                parse_quota(text)

    def test_quotas_of_projects_by_their_newest_header_and_of_a_user_called_grace(self) -> None:
        quota = parse_quota(
            "Disk quotas for prj 100010 (pid 100010):\n"
            "Filesystem    used   bquota  blimit  bgrace   files   iquota  ilimit  igrace\n"
            "     /home   2.5G       0k     50G       -     511        0 1000000       -\n"
            "pid 100010 is using default block quota setting\n"
        )
        self.assertEqual((quota.free_bytes, quota.free_files), (round(47.5 * 2**30), 999_489))
        quota = parse_quota(
            "Disk quotas for usr grace (uid 9):\n"
            "     Filesystem  kbytes   quota   limit   grace   files   quota   limit   grace\n"
            "         /grace      16       0       0       -       4       0       0       -\n"
        )
        self.assertEqual((quota.used_bytes, quota.free_bytes, quota.free_files), (2**14, None, None))

    def test_the_project_of_a_directory(self) -> None:
        self.assertEqual(parse_project("110255 P /projects/csc000\n"), 110255)
        self.assertEqual(parse_project("    0 - /scratch/3 P x\n"), 0)
        for text in ("", "lfs: '/tmp' not on a mounted Lustre filesystem", "P 3 /x"):
            with self.assertRaises(ResultError):
                parse_project(text)

    def test_the_command_that_sets_striping(self) -> None:
        self.assertEqual(
            setstripe_command("/d", -1, "4M"), ["lfs", "setstripe", "-c", "-1", "-S", "4M", "/d"]
        )
        for count, size in ((None, None), (-2, None), (1, "10"), (1, "64"), (1, "1T"), (1, ""), (1, "-1M")):
            with self.subTest((count, size)), self.assertRaises(UsageError):
                setstripe_command("/d", count, size)


if __name__ == "__main__":
    unittest.main()
