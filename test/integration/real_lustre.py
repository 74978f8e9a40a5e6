"""A file system measured as a user types it: without Slurm, on its real cluster, and on bad days.

fio and Open MPI are Debian's; `mpi_ior.c` stands for IOR, which Debian does not have.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from test.integration.dev_slurm import bring_up, dev_slurm, output_of, wait_until
from test.integration.story import PROJECT, Story

MARKER = ".aifbench-directory.json"
TINY = "--size 2MiB --files 40 --data 4MiB --steps 4 --scale 0.0001 --duration 1s --warmup 100ms --drain 2s"
INVALID = 3  # so little work that every phase is too short to be quoted, as it should be


class FileSystem(Story):
    """A directory on the disk that is under test, and which every node sees."""

    def setUp(self) -> None:
        super().setUp()
        self.place = self.results / "storage"
        self.place.mkdir()

    def start_lustre(self, options: str = "") -> Path:
        """A ready service; its directory."""
        self.type(f"start lustre --time 10m --path {self.place} {options}", "check lustre --wait 60s")
        (target,) = self.place.glob("aifb-lustre-*")
        return target

    def measured(self, bench: str) -> dict[str, dict[str, Any]]:
        """What a benchmark that is too short for anything but this measured, by phase; it leaves nothing."""
        self.type(f"bench lustre {bench}", expect=INVALID)
        record = self.record()
        self.assertEqual(record["state"], "COMPLETE")
        self.assert_clean()
        return {measurement["phase"]: measurement for measurement in record["measurements"]}

    def assert_clean(self) -> None:
        for target in self.place.glob("aifb-lustre-*"):
            self.assertEqual([path.name for path in target.iterdir()], [MARKER])

    def metric(self, measurement: dict[str, Any], name: str) -> float:
        (value,) = [metric["value"] for metric in measurement["metrics"] if metric["name"] == name]
        return float(value)

    def verdicts(self, measurement: dict[str, Any]) -> dict[str, str]:
        return {check["code"]: check["verdict"] for check in measurement["checks"]}

    def workers(self) -> str:
        command = ("pgrep", "-f", f"aifbench.load.worker {self.results}")
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def begin(self, bench: str) -> subprocess.Popen[str]:
        """A benchmark that goes on for a while, in its first measured phase."""
        program = self.start_program(f"bench lustre {bench}", "quit")
        self.addCleanup(program.communicate)
        wait_until(lambda: any(self.results.glob("2*/phases/phase-01/*.rows")), "the load has begun", 60)
        return program


class WithoutSlurm(FileSystem):
    def test_everything_a_user_types(self) -> None:
        target = self.start_lustre("--procs 2")
        done = self.measured(f"all {TINY}")
        for measurement in done.values():
            self.assertEqual(self.metric(measurement, "error_share"), 0, measurement["phase"])
        for phase in ("write-file", "read", "random-read", "train", "restore", "untar"):
            self.assertIn(phase, done)
        self.assertGreater(self.metric(done["read"], "bandwidth"), 0)
        self.assertGreater(self.metric(done["train"], "accelerator_utilisation"), 0)
        self.assertEqual(self.verdicts(done["read"])["CACHE"], "VALID")
        service = self.record()["service"]
        (seen,) = service["file_system"]["nodes"]
        self.assertTrue(seen["type"])
        self.assertGreater(seen["memory_bytes"], 0)
        output = self.type("results", "show last", "save last", "stop lustre")
        self.assertIn("lustre stopped", output)
        self.assertFalse(target.exists())

    def test_fio_on_this_machine(self) -> None:
        self.start_lustre("--procs 2")
        done = self.measured("fio --size 8MiB")
        self.assertEqual(list(done), ["write", "read"])
        self.assertGreater(self.metric(done["read"], "bandwidth"), 0)
        self.assertEqual(self.verdicts(done["read"])["RESULT"], "VALID")
        self.assertEqual(self.record()["recipe"]["facts"]["version"][0], "3")

    def test_a_full_disk_keeps_what_was_measured_and_gives_the_space_back(self) -> None:
        with mounted(self.place, "16m"):
            self.start_lustre("--fs-type tmpfs")
            output = self.type("bench lustre bandwidth --buffered --size 64MiB --drain 1s", check=False)
            (write, *_) = self.record()["measurements"]
            self.assertGreater(self.metric(write, "error_share"), 0)
            self.assertIn("INVALID", self.verdicts(write).values())
            self.assertIn("ENOSPC", json.dumps(self.record()), output)
            self.assertEqual(self.verdicts(write)["STORAGE"], "WARN")
            seen = os.statvfs(self.place)
            self.assertGreater(seen.f_bavail * seen.f_frsize, 15 * 2**20)
            self.type("stop lustre")
            self.assertEqual(list(self.place.iterdir()), [])

    def test_ctrl_c_leaves_neither_files_nor_processes(self) -> None:
        self.start_lustre()
        program = self.begin("random --size 2MiB --duration 1m")
        program.send_signal(signal.SIGINT)
        output, _ = program.communicate(timeout=30)
        self.assertEqual(program.returncode, 130, output)
        self.assertEqual(self.record()["state"], "INTERRUPTED")
        wait_until(lambda: not self.workers(), "the load workers have ended", 10)
        self.assert_clean()

    def test_a_rank_that_is_killed_spoils_the_run_and_is_told(self) -> None:
        self.start_lustre("--procs 2")
        program = self.begin("random --size 2MiB --duration 20s")
        os.kill(int(self.workers().split()[-1]), signal.SIGKILL)
        output, _ = program.communicate(timeout=60)
        self.assertNotEqual(program.returncode, 0)
        self.assertIn("signal 9", output)
        (measurement,) = self.record()["measurements"]
        self.assertIn("INVALID", self.verdicts(measurement).values())
        self.assert_clean()

    def test_somebody_elses_directory_is_refused(self) -> None:
        precious = self.place / "thesis-files"
        precious.mkdir()
        (precious / "text").write_text("years of work")
        environment = {**os.environ, "AIFBENCH_FS_PATH": str(self.place), "SLURM_JOB_NAME": "thesis"}
        environment |= {"AIFBENCH_JOB_DIR": str(self.results / "job"), "AIFBENCH_SCHEDULER": "local"}
        done = subprocess.run(
            [PROJECT / "batch_scripts/start_lustre.sh"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        self.assertEqual(done.returncode, 1)
        self.assertIn("exists already; it holds somebody's data", done.stderr)
        self.assertEqual((precious / "text").read_text(), "years of work")

    def test_a_clean_up_that_could_not_end_is_taken_up_again(self) -> None:
        target = self.start_lustre()
        inner = target / "inner"
        inner.mkdir()
        (target / "file").write_text("x")
        with mounted(inner, "1m"):
            self.assertIn("another file system is mounted there", self.type("stop lustre", expect=1))
            self.assertEqual(sorted(path.name for path in target.iterdir()), [MARKER, "inner"])
        self.type("stop lustre")
        self.assertEqual(list(self.place.iterdir()), [])

    def test_without_a_path_it_is_on_the_sites_scratch(self) -> None:
        output = self.type("start lustre", "check lustre --wait 20s", "stop lustre")
        self.assertIn(f"ready at file://{self.results}/scratch/", output)
        self.assertEqual(list((self.results / "scratch").iterdir()), [])

    def test_bad_paths_are_told_before_anything_is_submitted(self) -> None:
        self.assertIn("is no directory", self.type("start lustre --path /nowhere/at/all", expect=2))
        self.type(f"start lustre --path {self.place} --fs-type lustre")
        output = self.type("check lustre --wait 20s", expect=1)
        self.assertIn("not on lustre", output)
        self.type(f"start lustre --path {self.place} --name b --stripe-count 4")
        self.assertIn("stripes are Lustre's", self.type("check b --wait 20s", expect=1))
        self.assertEqual(list(self.place.iterdir()), [])


class OnSlurm(FileSystem):
    scheduler = "slurm"
    ior: Path

    @classmethod
    def setUpClass(cls) -> None:
        bring_up()
        folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
        cls.addClassCleanup(shutil.rmtree, folder)
        cls.ior = folder / "ior"
        output_of("mpicc", "-O2", "-o", str(cls.ior), str(Path(__file__).with_name("mpi_ior.c")))

    def clean_up(self) -> None:
        super().clean_up()
        dev_slurm("heal")

    def test_two_nodes_by_our_engine_and_by_others(self) -> None:
        target = self.start_lustre("--nodes 2 --procs 4")
        (made,) = self.jobs()
        self.assertEqual(len(list(self.results.glob("services/*/survey-node*.json"))), 2, made)
        done = self.measured("bandwidth --size 4MiB")
        self.assertEqual(self.metric(done["write"], "error_share"), 0)
        self.assertGreater(self.metric(done["read"], "bandwidth_per_node"), 0)
        reports = self.results.glob("2*/phases/phase-*/report-*.json")
        self.assertEqual(len({json.loads(report.read_text())["host"] for report in reports}), 2)

        done = self.measured("fio --size 4MiB")
        self.assertEqual(self.verdicts(done["read"])["RESULT"], "VALID")
        self.assertGreater(self.metric(done["read"], "bandwidth_per_node"), 0)

        with mock.patch.dict(os.environ, AIFBENCH_IOR=str(self.ior)):
            for launcher in ("srun", "mpirun"):
                done = self.measured(f"ior --size 4MiB --launcher {launcher}")
                self.assertEqual(list(done), ["write", "read"], launcher)
                self.assertNotIn("IOR_NOT_ONE_RUN", self.verdicts(done["write"]), launcher)
                self.assertGreater(self.metric(done["write"], "bandwidth_per_node"), 0)
            alone = self.measured("ior --size 4MiB --launcher none")
            self.assertEqual(self.verdicts(alone["write"])["IOR_NOT_ONE_RUN"], "INVALID")
        self.type("stop lustre")
        self.assertFalse(target.exists())
        self.assertEqual(output_of("squeue", "--noheader", "--states=running,pending"), "")

    def test_a_path_that_one_node_does_not_see(self) -> None:
        dev_slurm("shell", "node2", "mount", "-t", "tmpfs", "none", str(self.place))
        self.addCleanup(dev_slurm, "shell", "node2", "umount", str(self.place))
        output = self.type(
            f"start lustre --time 5m --nodes 2 --path {self.place}", "check lustre --wait 60s", expect=1
        )
        self.assertIn("node2 does not see", output)
        self.assertIn("all nodes share", output)
        self.assertEqual(list(self.place.iterdir()), [])

    def test_a_node_that_is_lost_on_the_way(self) -> None:
        self.start_lustre("--nodes 2 --procs 2 --partition gpu")
        program = self.begin("random --size 2MiB --duration 90s")
        dev_slurm("crash", "node4")
        begun_s = time.monotonic()
        output, _ = program.communicate(timeout=80)
        self.assertLess(time.monotonic() - begun_s, 60)
        self.assertEqual(program.returncode, 1, output)
        self.assertIn("ended", output)
        record = self.record()
        self.assertEqual(record["state"], "FAILED")
        (measurement,) = record["measurements"]
        self.assertGreater(self.metric(measurement, "throughput"), 0)
        self.assertIn("INVALID", self.verdicts(measurement).values())
        self.assert_clean()


@contextmanager
def mounted(place: Path, size: str) -> Iterator[None]:
    """A small file system in memory at `place`."""
    output_of("mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place))
    try:
        yield
    finally:
        output_of("umount", str(place))
