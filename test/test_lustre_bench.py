"""A file system's benchmarks: their phases really run, tiny; checks and metrics; other people's programs."""

import os
import tempfile
import unittest
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from test.fakes.in_process import perform
from test.fakes.simulated_load import Done

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import UsageError, WorkloadError
from aifbench.load.progress import Silent
from aifbench.load.samples import Samples
from aifbench.results.belongings import Belongings, LeftStore
from aifbench.results.record import Check, Verdict
from aifbench.servers import lustre_checks as checks
from aifbench.servers.benchmark import BenchmarkContext, Phase
from aifbench.servers.lustre import LustreServer
from aifbench.servers.lustre_bench import FileBenchmark
from aifbench.servers.lustre_metrics import rank_ends, transfer_metrics
from aifbench.servers.run import resolve_bench
from aifbench.workloads.file_own_directory import OwnDirectory

DATA = Path(__file__).parent / "data"
GIB = 2**30
TINY = {
    "size": "64KiB",
    "block": "16KiB",
    "files": "6",
    "data": "4k",
    "steps": "3",
    "scale": "0.00001",
    "verify": "1",
    "duration": "200ms",
    "warmup": "1ms",
    "drain": "1s",
}
SEEN = {"host": "node1", "type": "ext4", "memory_bytes": 16 * GIB, "is_remote": False}


class BenchCase(unittest.TestCase):
    def setUp(self) -> None:
        # Not in /tmp, which may be memory, where O_DIRECT is not known everywhere.
        folder = tempfile.TemporaryDirectory(dir="/var/tmp")
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        self.target = OwnDirectory.create(self.dir, "target", "1").path
        self.notes: list[str] = []

    def benchmark(
        self, bench: str, seen: Sequence[dict[str, Any]] = (SEEN,), **options: Any
    ) -> FileBenchmark:
        recipe = resolve_bench(LustreServer, bench, {**TINY, **options})
        progress = Silent()
        progress.note = self.notes.append  # type: ignore[method-assign]
        self.left = LeftStore(self.dir / "results")
        own = Belongings(self.left.note("run1"))
        context = BenchmarkContext(
            Endpoint("here", 0, scheme="file"), self.dir / "data", "run1", progress, own
        )
        return FileBenchmark(bench, recipe, context, self.target, seen)

    def done(self, bench: str, **options: Any) -> dict[str, Done]:
        """What each phase came to, by its measurement's name; the target is as it was afterwards."""
        benchmark = self.benchmark(bench, **options)
        try:
            done = perform(benchmark, self.dir / f"phases-{bench}")
            self.facts = benchmark.facts()
        finally:
            benchmark.close()
        self.assertEqual([path.name for path in self.target.iterdir()], [".aifbench-directory.json"])
        return {one.measurement.phase: one for one in done}

    def metric(self, done: Done, name: str) -> float:
        found = [*done.measurement.metrics, *(m for e in done.found.values() for m in e.metrics)]
        (value,) = [metric.value for metric in found if metric.name == name]
        assert value is not None
        return value

    def check(self, done: Done, code: str) -> Check:
        found = [*done.measurement.checks, *(c for e in done.found.values() for c in e.checks)]
        (check,) = [check for check in found if check.code == code]
        return check

    def errors(self, done: Done) -> float:
        return self.metric(done, "error_share")


class BuiltIn(BenchCase):
    def test_a_file_by_size(self) -> None:
        done = self.done("file")
        self.assertEqual(list(done), ["write-file", "read-file"])
        for one in done.values():
            self.assertEqual(self.errors(one), 0)
            self.assertGreater(self.metric(one, "bandwidth"), 0)
            self.assertGreater(self.metric(one, "time"), 0)
        self.assertIs(self.check(done["read-file"], "CACHE").verdict, Verdict.VALID)
        self.assertIs(self.check(done["read-file"], "CONTENT").verdict, Verdict.VALID)

    def test_bandwidth_of_several_ranks(self) -> None:
        for shared in (None, True):
            done = self.done("bandwidth", clients="3", workers="2", shared=shared, note=str(shared))
            self.assertEqual(self.metric(done["read"], "throughput") > 0, True)
            self.assertEqual(done["write"].measurement.parameters["ranks"], 3)
            self.assertGreaterEqual(self.metric(done["write"], "slowest_rank"), 1)
            self.assertEqual(self.errors(done["read"]), 0)
            for path in self.dir.glob("phases-*"):
                path.rename(self.dir / f"done-{shared}")

    def test_random_blocks_of_a_time(self) -> None:
        done = self.done("random", block="4KiB", clients="2", duration="600ms")
        measured = [name for name, one in done.items() if one.phase.is_measured]
        self.assertEqual(measured, ["random-read", "random-write"])
        self.assertGreater(self.metric(done["random-read"], "data_rate"), 0)
        self.assertEqual(self.errors(done["layout"]), 0)

    def test_metadata(self) -> None:
        for shared in (None, True):
            done = self.done("metadata", clients="2", one_directory=shared)
            steps = [name.removesuffix("-files") for name in done]
            self.assertEqual(steps, ["create", "stat", "read", "rename", "unlink"])
            for one in done.values():
                self.assertEqual((self.errors(one), one.measurement.parameters["files"]), (0, 12))
            (self.dir / "phases-metadata").rename(self.dir / f"done-{shared}")

    def test_a_training_job_and_how_busy_its_accelerators_were(self) -> None:
        done = self.done("loader", workers="2", scale="0.00001")
        train = done["train"]
        self.assertEqual(self.errors(train), 0)
        self.assertLessEqual(self.metric(train, "accelerator_utilisation"), 100)
        self.assertIn(self.check(train, "AU").verdict, (Verdict.VALID, Verdict.WARN))
        cache = self.check(train, "CACHE")
        self.assertIs(cache.verdict, Verdict.WARN)
        self.assertIn("--data", cache.advice)

    def test_a_checkpoint_is_saved_and_restored(self) -> None:
        done = self.done("checkpoint", scale="0.000001", buffered=True, cache="keep")
        self.assertEqual(list(done), ["save", "restore"])
        for one in done.values():
            self.assertEqual(self.errors(one), 0)
        self.assertIs(self.check(done["restore"], "CACHE").verdict, Verdict.INVALID, "it was just written")

    def test_a_storm_of_small_files(self) -> None:
        done = self.done("storm", clients="2")
        self.assertEqual(list(done), ["untar", "import"])
        for one in done.values():
            self.assertEqual(self.errors(one), 0)

    def test_all_of_it_has_a_room_for_each(self) -> None:
        benchmark = self.benchmark("all")
        names = [phase.plan.name for phase in benchmark.phases()]
        rooms = {path.name for path in (self.target / "run1").iterdir() if path.is_dir()}
        benchmark.close()
        self.assertLessEqual({"bandwidth", "random", "metadata", "loader", "checkpoint", "storm"}, rooms)
        self.assertEqual(len(names), len(set(names)))

    def test_facts_name_what_was_seen(self) -> None:
        self.done("file")
        self.assertEqual(self.facts["directory"], str(self.target))
        self.assertEqual(self.facts["client_memory_bytes"], 16 * GIB)
        self.assertEqual(self.facts["file_systems"], [SEEN])

    def test_what_is_in_the_way_stays_and_is_told(self) -> None:
        benchmark = self.benchmark("file")
        next(benchmark.phases())
        (self.target / "run1/.aifbench-directory.json").unlink()
        benchmark.close()
        self.assertIn("is left behind", self.notes[0])
        path = self.target / "run1"
        told = f"run run1 may have left the directory {path}; `rm -r {path}` removes it"
        self.assertEqual(self.left.of("run1", ()).sentences(), [told])

    def test_what_was_removed_is_not_noted_any_more(self) -> None:
        self.done("file")
        self.assertEqual(self.left.of("run1", ()).sentences(), [])

    def test_a_link_in_the_place_of_its_directory_is_not_followed(self) -> None:
        self.target.rename(self.dir / "moved")
        (self.dir / "precious").mkdir()
        self.target.symlink_to(self.dir / "precious")
        with self.assertRaisesRegex(UsageError, "no directory of ours"):
            next(self.benchmark("file").phases())
        self.assertEqual(list((self.dir / "precious").iterdir()), [])

    def test_stopped_by_another_shell_meanwhile(self) -> None:
        benchmark = self.benchmark("all")
        phases = benchmark.phases()
        next(phases)
        OwnDirectory.find(self.target).remove()
        with self.assertRaisesRegex(WorkloadError, "cannot make .*No such file"):
            list(phases)
        benchmark.close()
        self.assertEqual(self.notes, [])

    def test_an_own_directory_that_is_there_already(self) -> None:
        (self.target / "run1").mkdir()
        with self.assertRaisesRegex(UsageError, "exists already"):
            next(self.benchmark("file").phases())


class Plans(BenchCase):
    def phases(self, bench: str, **options: Any) -> dict[str, Phase]:
        benchmark = self.benchmark(bench, **options)
        phases = {phase.plan.name: phase for phase in benchmark.phases()}
        benchmark.close()
        return phases

    def test_layouts_are_written_in_large_blocks_whatever_is_read(self) -> None:
        (layout,) = self.phases("random", size="8MiB", block="4KiB")["layout"].plan.streams
        self.assertEqual(layout.params["block_bytes"], 2**20)
        (odd,) = self.phases("random", size="12KiB", block="4KiB")["layout"].plan.streams
        self.assertEqual(odd.params["rank_bytes"] % odd.params["block_bytes"], 0)

    def test_blocks_that_are_no_pages_are_not_verified(self) -> None:
        (read,) = self.phases("bandwidth", block="1000", size="10000", buffered=True)["read"].plan.streams
        self.assertEqual(read.params["verify_every"], 0)

    def test_an_engine_is_started_once_on_each_node(self) -> None:
        self.assertEqual(self.benchmark("fio", workers="8", client_nodes="4").workers, 4)
        self.assertEqual(self.benchmark("fio", workers="8").workers, 1)
        self.assertEqual(self.benchmark("bandwidth", workers="8", client_nodes="4").workers, 8)

    def test_an_ini_is_checked_before_anything_runs(self) -> None:
        ini = self.dir / "my.ini"
        for text, words in (
            ("[global]\nscc = TRUE\n[ior-esy]\ntransferSize = 1m\n", "ior-esy"),
            ("[ior-easy]\nblockSize = -1\n", "blockSize"),
            ("no ini at all", "my.ini"),
        ):
            ini.write_text(text)
            with self.subTest(words), self.assertRaisesRegex(UsageError, words):
                self.benchmark("io500", ini=str(ini))
        ini.write_bytes(b"\xff\xfe")
        with self.assertRaisesRegex(UsageError, "cannot read"):
            self.benchmark("io500", ini=str(ini))

    def test_profiles_of_io500(self) -> None:
        stonewalls = {}
        for profile in ("quick", "student-cluster", "list-valid"):
            (stream,) = self.phases("io500", profile=profile)["io500"].plan.streams
            stonewalls[profile] = stream.params["job"]["ini"]
        self.assertIn("300", stonewalls["list-valid"])
        self.assertEqual(len(set(stonewalls.values())), 3)


class Engines(BenchCase):
    def engine(self, name: str, script: str, **options: Any) -> dict[str, Done]:
        program = self.dir / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        environ = {f"AIFBENCH_{name.upper()}": str(program), "AIFBENCH_SCHEDULER": "local"}
        with mock.patch.dict(os.environ, environ):
            return self.done(name, launcher="none", **options)

    def ior(self, tasks: int = 1, *, bandwidth: float = 500.0, ends: bool = True, more: str = "") -> str:
        row = f"{bandwidth} 500 0.001 1024 1024 0.001 20.0 0.001 20.0 0"
        lines = [
            "IOR-4.1.0: MPI Coordinated Test of Parallel I/O",
            "nodes               : 1",
            f"tasks               : {tasks}",
            "access bw(MiB/s) IOPS Latency(s) block(KiB) xfer(KiB) open(s) wr/rd(s) close(s) total(s) iter",
            f"write {row}",
            f"read {row}",
            *(["Finished            : now"] if ends else []),
        ]
        return "\n".join(f"echo '{line}'" for line in lines) + f"\n{more}"

    def test_numbers_as_the_program_tells_them(self) -> None:
        done = self.engine("ior", self.ior())
        self.assertEqual(list(done), ["write", "read"])
        self.assertEqual(self.metric(done["read"], "bandwidth"), 500)
        self.assertIs(done["write"].measurement.verdict, Verdict.VALID)
        self.assertEqual(self.facts["version"], "4.1.0")

    def test_each_rank_alone_is_no_run(self) -> None:
        done = self.engine("ior", self.ior(1), workers="4")
        check = self.check(done["write"], "IOR_NOT_ONE_RUN")
        self.assertIs(check.verdict, Verdict.INVALID)
        self.assertIn("1 tasks instead of 4", check.message)

    def test_a_cut_run_and_one_that_failed(self) -> None:
        cut = self.engine("ior", self.ior(ends=False))
        self.assertIs(self.check(cut["write"], "IOR_NOT_FINISHED").verdict, Verdict.INVALID)
        (self.dir / "phases-ior").rename(self.dir / "first")
        failed = self.engine("ior", "echo 'ior ERROR: open64() failed'; exit 7")
        self.assertEqual(list(failed), ["ior"])
        self.assertIn("exit status 7", self.check(failed["ior"], "EXIT").message)
        self.assertIs(self.check(failed["ior"], "RESULT").verdict, Verdict.INVALID)

    def test_good_numbers_of_a_run_that_was_killed_are_not_valid(self) -> None:
        done = self.engine("ior", self.ior(more="kill -9 $$"))
        self.assertIn("signal 9", self.check(done["read"], "EXIT").message)

    def test_a_log_that_is_no_text(self) -> None:
        done = self.engine("ior", "printf '\\377\\376\\000 junk'")
        self.assertIs(self.check(done["ior"], "RESULT").verdict, Verdict.INVALID)

    def test_faster_than_the_link_is_a_cache(self) -> None:
        done = self.engine("ior", self.ior(bandwidth=50_000), link="12.5GB")
        self.assertIs(self.check(done["read"], "LINK").verdict, Verdict.INVALID)
        self.assertIs(self.check(done["write"], "LINK").verdict, Verdict.WARN)

    def test_through_the_page_cache_little_data_is_memory(self) -> None:
        done = self.engine("ior", self.ior(), buffered=True, size="1MiB")
        self.assertIs(self.check(done["read"], "CACHE").verdict, Verdict.INVALID)

    def test_one_that_is_not_there_says_how_to_get_it(self) -> None:
        environ = {"PATH": str(self.dir), "AIFBENCH_IMAGES": str(self.dir), "AIFBENCH_ELBENCHO": ""}
        with (
            mock.patch.dict(os.environ, environ),
            self.assertRaisesRegex(WorkloadError, "no elbencho on this machine.*github.com/breuner"),
        ):
            self.done("elbencho")


class Checks(unittest.TestCase):
    def test_memory_is_no_storage(self) -> None:
        for kind in ("tmpfs", "ramfs"):
            check = checks.check_type([{"type": kind}])
            self.assertIs(check.verdict if check else None, Verdict.WARN)
        self.assertIsNone(checks.check_type([{"type": "lustre"}]))
        self.assertIsNone(checks.check_type([]))

    def cache(self, **changes: Any) -> Verdict:
        given: dict[str, Any] = {
            "direct": False,
            "cached_share": None,
            "data_bytes": GIB,
            "memory_bytes": 16 * GIB,
            "how": "drop",
        }
        return checks.check_cache(**{**given, **changes}).verdict

    def test_caches(self) -> None:
        self.assertIs(self.cache(direct=True), Verdict.VALID)
        self.assertIs(self.cache(cached_share=0.0), Verdict.VALID)
        self.assertIs(self.cache(cached_share=0.05), Verdict.WARN)
        self.assertIs(self.cache(cached_share=0.5), Verdict.INVALID)
        self.assertIs(self.cache(memory_bytes=None), Verdict.WARN)
        self.assertIs(self.cache(), Verdict.INVALID)
        self.assertIs(self.cache(data_bytes=20 * GIB), Verdict.WARN)
        self.assertIs(self.cache(data_bytes=40 * GIB), Verdict.VALID)

    def test_nothing_is_faster_than_its_link(self) -> None:
        self.assertIsNone(checks.check_link(1e12, None, is_read=True))
        for is_read, verdict in ((True, Verdict.INVALID), (False, Verdict.WARN)):
            check = checks.check_link(26e9, 25e9, is_read=is_read)
            self.assertIs(check.verdict if check else None, verdict)
        check = checks.check_link(24e9, 25e9, is_read=True)
        self.assertIs(check.verdict if check else None, Verdict.VALID)

    def test_stragglers_and_sync_and_contents(self) -> None:
        self.assertIsNone(checks.check_stragglers(None))
        for slowest, verdict in ((1.1, Verdict.VALID), (3.0, Verdict.WARN)):
            check = checks.check_stragglers(slowest)
            self.assertIs(check.verdict if check else None, verdict)
        self.assertIsNone(checks.check_sync("end", direct=False))
        self.assertIsNone(checks.check_sync("none", direct=True))
        self.assertIsNotNone(checks.check_sync("none", direct=False))
        self.assertIsNone(checks.check_verified(0, 0))
        for verified, verdict in ((0, Verdict.WARN), (5, Verdict.VALID)):
            check = checks.check_verified(verified, 64)
            self.assertIs(check.verdict if check else None, verdict)


class Metrics(unittest.TestCase):
    def samples(self) -> Samples:
        """Two ranks of two blocks of 1 MiB each: the first done after 2 s, the second after 8 s."""
        finished = np.array([1, 2, 4, 8], np.int64) * 10**9
        found = Samples.empty(4)
        columns: dict[str, Any] = {
            "index": np.arange(4),
            "finished_ns": finished,
            "sent_ns": finished - 10**9,
            "intended_ns": finished - 10**9,
            "outcome": np.zeros(4, np.uint8),
            "bytes_out": np.full(4, 2**20),
            "bytes_in": np.zeros(4, np.int64),
        }
        for name, column in columns.items():
            object.__setattr__(found, name, column)
        return found

    def test_judged_by_the_last_rank_with_the_first_beside_it(self) -> None:
        found = {
            metric.name: metric.value
            for metric in transfer_metrics(self.samples(), (0.0, 8.0), lambda index: index // 2, 2)
        }
        self.assertEqual(found["bandwidth"], 0.5)
        self.assertEqual(found["bandwidth_per_node"], 0.25)
        self.assertEqual(found["bandwidth_first_done"], 1.0)
        self.assertEqual(found["time"], 8.0)
        self.assertEqual(found["slowest_rank"], 1.6)

    def test_a_data_rate_where_ranks_have_no_part_of_their_own(self) -> None:
        found = {m.name: m.value for m in transfer_metrics(self.samples(), (0.0, 8.0), None, 1)}
        self.assertEqual(found, {"data_rate": 0.5})

    def test_nothing_that_succeeded_gives_nothing(self) -> None:
        self.assertEqual(list(transfer_metrics(Samples.empty(0), (0.0, 1.0), None, 1)), [])
        self.assertEqual(len(rank_ends(Samples.empty(0), lambda index: index)), 0)


if __name__ == "__main__":
    unittest.main()
