"""What a node sees of a file system, and the making of our directory, with `lfs` and a mount as of Lustre."""

import io
import json
import os
import tempfile
import unittest
from contextlib import redirect_stderr
from pathlib import Path
from unittest import mock

from test.fakes.programs import install

from aifbench.errors import UsageError, WorkloadError
from aifbench.servers.lustre_room import free_bytes, free_files
from aifbench.workloads import file_mounts, file_survey
from aifbench.workloads.file_own_directory import MARKER, OwnDirectory
from aifbench.workloads.file_survey import fastest_link, look, main, make


class SurveyCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name).resolve()
        self.place = self.dir / "scratch"
        self.place.mkdir()
        self.target = self.place / "aifb-lustre-1"

    def mount(self, fs_type: str) -> None:
        """From now on the place is on a file system of this type."""
        mountinfo = self.dir / "mountinfo"
        mountinfo.write_text(
            "1 0 0:1 / / rw,relatime - ext4 /dev/sda rw\n"
            f"2 1 0:2 / {self.place} rw,flock - {fs_type} 10.0.0.1@o2ib:/fs rw,lazystatfs\n"
        )
        self.enterContext(mock.patch.object(file_mounts, "MOUNTINFO", mountinfo))

    def install_lfs(self) -> None:
        program = install("lfs", "lfs", self.dir / "bin")
        path = f"{program.parent}:{os.environ['PATH']}"
        self.enterContext(mock.patch.dict(os.environ, PATH=path))


class Making(SurveyCase):
    def test_a_directory_with_our_marker(self) -> None:
        make(self.target, "77")
        self.assertEqual(OwnDirectory.find(self.target).marker.run, "77")

    def test_of_somebody_else_is_refused_and_stays(self) -> None:
        self.target.mkdir()
        (self.target / "thesis.tex").write_text("years of work")
        with self.assertRaisesRegex(UsageError, "exists already.*somebody's data"):
            make(self.target, "77")
        self.assertEqual([path.name for path in self.target.iterdir()], ["thesis.tex"])

    def test_in_a_place_that_cannot_be_used(self) -> None:
        for parent in (self.dir / "nowhere", self.dir / "file"):
            (self.dir / "file").write_text("")
            with self.assertRaises(UsageError) as caught:
                make(parent / "x", "77")
            self.assertTrue(caught.exception.hint)

    def test_on_another_type_of_file_system_than_was_asked_for(self) -> None:
        self.mount("nfs4")
        with self.assertRaisesRegex(UsageError, "is on nfs4 .*, not on lustre"):
            make(self.target, "77", fs_type="lustre")
        self.assertFalse(self.target.exists())
        make(self.target, "77", fs_type="nfs4")

    def test_stripes_are_lustres_alone(self) -> None:
        self.mount("nfs4")
        with self.assertRaisesRegex(UsageError, "stripes are Lustre's, and .* is on nfs4"):
            make(self.target, "77", stripe_count=4)
        self.assertFalse(self.target.exists())

    def test_with_stripes(self) -> None:
        self.mount("lustre")
        self.install_lfs()
        make(self.target, "77", stripe_count=-1, stripe_size="4194304")
        self.assertEqual(look(self.target)["stripes"], "0-end: all x 4,194,304 B")

    def test_nothing_is_left_where_striping_fails(self) -> None:
        self.mount("lustre")
        with self.assertRaisesRegex(WorkloadError, "there is no `lfs`"):
            make(self.target, "77", stripe_count=4)
        self.install_lfs()
        (self.dir / "bin/broken").touch()
        with self.assertRaisesRegex(WorkloadError, "setstripe.* failed: .*transport endpoint"):
            make(self.target, "77", stripe_count=4)
        self.assertEqual(list(self.place.iterdir()), [])


class Looking(SurveyCase):
    def test_any_file_system(self) -> None:
        make(self.target, "77")
        seen = look(self.target)
        self.assertEqual(seen["directory"], str(self.target))
        self.assertTrue(seen["type"])
        self.assertGreater(seen["free_bytes"], 0)
        self.assertGreater(seen["memory_bytes"], 2**20)
        self.assertGreaterEqual(seen["cpus"], 1)
        self.assertNotIn("stripes", seen)
        self.assertNotIn("quotas", seen)

    def test_lustre_with_stripes_and_quotas(self) -> None:
        self.mount("lustre")
        self.install_lfs()
        make(self.target, "77")
        seen = look(self.target)
        self.assertEqual(
            (seen["type"], seen["source"], seen["is_remote"]), ("lustre", "10.0.0.1@o2ib:/fs", True)
        )
        self.assertIn("flock", seen["mount_options"])
        user, group, project = seen["quotas"]
        self.assertEqual((user["of"], group["of"]), (f"user {os.getuid()}", f"group {os.getgid()}"))
        self.assertEqual((user["used_bytes"], user["hard_bytes"], user["free_files"]), (2**20, 2**31, 180))
        self.assertIsNone(group["free_bytes"])
        self.assertEqual((project["of"], project["free_bytes"]), ("project 7", 2**29 - 2**20))
        self.assertEqual(free_bytes(seen), (2**29 - 2**20, "project 7"))
        self.assertEqual(free_bytes({**seen, "free_bytes": 5}), (5, ""))
        self.assertEqual(free_files({**seen, "free_inodes": None}), (180, user["of"]))

    def test_what_lfs_does_not_tell_is_unknown_and_no_failure(self) -> None:
        self.mount("lustre")
        make(self.target, "77")
        with mock.patch.dict(os.environ, PATH=str(self.dir)):
            seen = look(self.target)
        self.assertIn("unknown: there is no `lfs`", seen["stripes"])
        self.assertEqual(len(seen["quotas"]), 3)
        for quota in seen["quotas"]:
            self.assertIn("there is no `lfs`", quota["unknown"])
        self.assertEqual(free_bytes(seen), (seen["free_bytes"], ""))
        self.assertEqual(free_bytes({"free_bytes": 0}), (None, ""))

    def test_a_node_that_does_not_see_it(self) -> None:
        with self.assertRaisesRegex(WorkloadError, "does not see .*all nodes share"):
            look(self.target)

    def test_the_fastest_link(self) -> None:
        self.assertEqual(fastest_link([("net", "1000\n"), ("net", "-1\n"), ("net", "25000\n")]), 25e9 / 8)
        rails = [("infiniband", "200 Gb/sec (4X HDR)\n"), ("infiniband", "200 Gb/sec (4X HDR)\n")]
        self.assertEqual(fastest_link([*rails, ("net", "1000\n")]), 50e9)
        self.assertIsNone(fastest_link([("net", "-1\n"), ("infiniband", "no rate")]))
        self.assertIsNone(fastest_link([]))


class Program(SurveyCase):
    def run_main(self, *words: str) -> tuple[int, str]:
        with redirect_stderr(io.StringIO()) as said:
            code = main(words)
        return code, said.getvalue()

    def test_make_look_and_drop(self) -> None:
        self.assertEqual(self.run_main("make", str(self.target), "--owner", "77"), (0, ""))
        self.assertEqual(self.run_main("look", str(self.target), "--into", str(self.dir)), (0, ""))
        (found,) = self.dir.glob("survey-*.json")
        self.assertEqual(json.loads(found.read_text())["directory"], str(self.target))
        (self.target / "data").write_text("x")
        self.assertEqual(self.run_main("drop", str(self.target)), (0, ""))
        self.assertFalse(self.target.exists())

    def test_a_refusal_is_one_line_with_advice(self) -> None:
        self.target.mkdir()
        for verb in ("make", "drop"):
            code, said = self.run_main(verb, str(self.target), "--owner", "77")
            self.assertEqual((code, said.count("\n")), (1, 1))
            self.assertTrue(said.startswith("aifbench: "), said)
            self.assertIn("; ", said)
        self.assertTrue(self.target.exists())

    def test_a_survey_that_cannot_be_written(self) -> None:
        make(self.target, "77")
        code, said = self.run_main("look", str(self.target), "--into", str(self.dir / "gone"))
        self.assertEqual(code, 1)
        self.assertIn("cannot write", said)

    def test_a_link_in_place_of_our_directory_is_not_followed(self) -> None:
        elsewhere = self.dir / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / MARKER).write_text(json.dumps({"uid": os.getuid(), "run": "77", "id": "1"}))
        self.target.symlink_to(elsewhere)
        code, _ = self.run_main("drop", str(self.target))
        self.assertEqual(code, 1)
        self.assertTrue((elsewhere / MARKER).exists())

    def test_what_lies_in_our_directory_as_a_link_is_removed_as_one(self) -> None:
        make(self.target, "77")
        precious = self.dir / "precious"
        precious.mkdir()
        (precious / "thesis.tex").write_text("years of work")
        (self.target / "link").symlink_to(precious)
        self.assertEqual(self.run_main("drop", str(self.target))[0], 0)
        self.assertTrue((precious / "thesis.tex").exists())


class Commands(unittest.TestCase):
    def test_one_that_hangs_is_given_up(self) -> None:
        with (
            mock.patch.object(file_survey, "_LFS_TIMEOUT_S", 0.05),
            self.assertRaisesRegex(WorkloadError, "did not end within"),
        ):
            file_survey._run(["sleep", "5"])


if __name__ == "__main__":
    unittest.main()
