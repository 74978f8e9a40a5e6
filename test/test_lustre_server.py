"""LustreServer: a job that makes a directory and ends; it is ready from then on, until `stop` removes it."""

import json
import os
import shutil
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from test.fakes.site import SiteCase, block

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import BenchError, ServiceDied, UsageError
from aifbench.options import resolve_options
from aifbench.servers.lustre import LustreServer
from aifbench.servers.lustre_options import BENCH_OPTIONS
from aifbench.servers.status import Stage
from aifbench.session import Session
from aifbench.workloads.file_own_directory import MARKER, OwnDirectory


class LustreCase(SiteCase):
    def setUp(self) -> None:
        super().setUp()
        self.place = self.dir / "storage"
        self.place.mkdir()

    def started(self, **options: Any) -> LustreServer:
        return LustreServer.start(self.shell, {"path": str(self.place), **options})

    def make(self, server: LustreServer, *, announces: bool = True) -> None:
        """What the job does until its end."""
        instance = server.instance
        self.slurm.start(instance.job_id)
        OwnDirectory.create(self.place, server.target.name, instance.job_id)
        (server.directory / "survey-node1.json").write_text(
            json.dumps({"host": "node1", "type": "lustre", "free_bytes": 2**40, "memory_bytes": 2**38})
        )
        if announces:
            self.announce(server)

    def announce(self, server: LustreServer) -> None:
        text = block(server.instance.job_id, Endpoint("10.3.0.7", 0)).replace("PORT: 0", "PORT: none")
        with server.log_path.open("a") as log:
            log.write(text)

    def made(self, **options: Any) -> LustreServer:
        server = self.started(**options)
        self.make(server)
        self.slurm.end(server.instance.job_id)
        self.clock.elapsed_s += 30
        self.assertIs(server.status(max_age_s=0).stage, Stage.READY)
        return server

    def other_shell(self, server: LustreServer) -> LustreServer:
        shell = self.site()
        stored = {found.job_name: found for found in shell.instances.all()}
        return LustreServer(shell, stored[server.instance.job_name])


class Life(LustreCase):
    def test_from_the_queue_to_the_end(self) -> None:
        server = self.started()
        self.assertIs(server.status(max_age_s=0).stage, Stage.QUEUED)
        self.make(server, announces=False)
        self.assertIs(server.status(max_age_s=0).stage, Stage.STARTING)
        self.announce(server)
        status = server.status(max_age_s=0)
        self.assertIs(status.stage, Stage.READY)
        self.slurm.end(server.instance.job_id)
        self.clock.elapsed_s += 30
        status = server.status(max_age_s=0)
        self.assertEqual((status.stage, status.detail), (Stage.READY, "lustre, 1 TiB free"))
        self.assertEqual(status.endpoint.url if status.endpoint else "", f"file://{server.target}")
        self.assertTrue(status.is_alive)
        self.assertEqual(server.loss(max_age_s=0), "")
        self.assertIs(server.stop().stage, Stage.ENDED)
        self.assertEqual(list(self.place.iterdir()), [])
        self.assertIs(server.status(max_age_s=0).stage, Stage.ENDED)

    def test_a_log_that_comes_after_the_scheduler_told_the_end(self) -> None:
        server = self.started()
        self.make(server, announces=False)
        self.slurm.end(server.instance.job_id)
        self.clock.elapsed_s += 30
        status = server.status(max_age_s=0)
        self.assertIs(status.stage, Stage.STARTING)
        self.assertIn("its log is not here yet", status.detail)
        self.announce(server)
        self.assertIs(server.check(wait_s=5).stage, Stage.READY)

    def test_it_stays_when_slurm_forgets_its_job_and_hangs(self) -> None:
        server = self.made()
        self.slurm.forget(server.instance.job_id)
        self.slurm.accounting = "missing"
        self.clock.elapsed_s += 3600
        again = self.other_shell(server)
        self.assertIs(again.status(max_age_s=0).stage, Stage.READY)
        self.slurm.controller = "hung"
        self.assertEqual(again.loss(max_age_s=0), "")
        self.assertIs(again.stop().stage, Stage.ENDED)
        self.assertFalse(server.target.exists())

    def test_a_job_that_failed_says_why(self) -> None:
        server = self.started()
        self.slurm.start(server.instance.job_id)
        server.log_path.write_text(
            "srun: step 0\naifbench: node2 does not see /scratch/x; give --path a directory that all see\n"
        )
        self.slurm.end(server.instance.job_id, "FAILED", exit_code=1)
        self.clock.elapsed_s += 30
        with self.assertRaisesRegex(ServiceDied, "FAILED.*node2 does not see /scratch/x") as caught:
            server.check(wait_s=5)
        self.assertTrue(caught.exception.hint.startswith("give --path"))
        self.assertIs(server.status().stage, Stage.FAILED)
        self.assertIn("node2 does not see", server.loss())

    def test_a_job_that_ran_out_of_time_leaves_nothing_after_stop(self) -> None:
        server = self.started()
        self.make(server, announces=False)
        self.slurm.end(server.instance.job_id, "TIMEOUT")
        self.clock.elapsed_s += 30
        self.assertIs(server.status(max_age_s=0).stage, Stage.FAILED)
        self.assertTrue(server.target.exists())
        server.stop()
        self.assertEqual(list(self.place.iterdir()), [])

    def test_stopped_while_it_waits_or_runs(self) -> None:
        waiting = self.started()
        self.assertIs(waiting.stop().stage, Stage.ENDED)
        running = self.started(name="b")
        self.make(running, announces=False)
        self.assertIs(running.stop().stage, Stage.ENDED)
        self.assertEqual(list(self.place.iterdir()), [])

    def test_a_directory_that_somebody_removed(self) -> None:
        server = self.made()
        shutil.rmtree(server.target)
        status = server.status()
        self.assertIs(status.stage, Stage.SILENT)
        self.assertIn("is gone", status.detail)
        self.assertIn("`stop lustre` forgets it", status.advice)
        self.assertIs(server.stop().stage, Stage.ENDED)

    def test_another_shell_uses_and_ends_it(self) -> None:
        server = self.made(name="fast")
        session = Session(
            self.config, scheduler=self.scheduler(), clock=self.clock, environ={"PATH": "/usr/bin:/bin"}
        )
        (status,) = session.status()
        self.assertEqual((status.name, status.stage), ("fast", Stage.READY))
        session.stop(["all"])
        self.assertFalse(server.target.exists())
        self.assertEqual(session.instances(), [])

    def test_two_have_a_directory_each(self) -> None:
        one, two = self.made(), self.made(name="b")
        self.assertNotEqual(one.target, two.target)
        one.stop()
        self.assertTrue(two.target.is_dir())

    def test_what_was_chosen_holds_for_its_benchmarks(self) -> None:
        server = self.started(nodes="2", procs="8")
        self.assertEqual(
            {key: value for key, value in server.bench_defaults.items() if value},
            {"client_nodes": 2, "workers": 8},
        )
        alone = self.started(name="b")
        self.assertIsNone(alone.bench_defaults["client_nodes"])

    def test_a_damaged_survey_is_left_out(self) -> None:
        server = self.made()
        (server.directory / "survey-node2.json").write_text('{"host"')
        self.assertEqual([seen["host"] for seen in server.survey()], ["node1"])
        self.assertEqual(server.describe()["file_system"]["directory"], str(server.target))


class Removing(LustreCase):
    def test_everything_in_it_and_nothing_else(self) -> None:
        server = self.made()
        (self.place / "thesis").mkdir()
        (self.place / "thesis/text").write_text("years of work")
        (server.target / "deep/er").mkdir(parents=True)
        (server.target / "deep/er/file").write_text("x")
        (server.target / "link").symlink_to(self.place / "thesis")
        server.stop()
        self.assertEqual([path.name for path in self.place.iterdir()], ["thesis"])
        self.assertTrue((self.place / "thesis/text").exists())

    def test_one_without_our_marker_is_refused(self) -> None:
        server = self.made()
        (server.target / MARKER).unlink()
        (server.target / "thesis").write_text("years of work")
        with self.assertRaisesRegex(UsageError, "no marker of ours.*by hand"):
            server.stop()
        self.assertTrue((server.target / "thesis").exists())

    def test_a_link_in_its_place_is_not_followed(self) -> None:
        server = self.made()
        moved = self.dir / "elsewhere"
        server.target.rename(moved)
        server.target.symlink_to(moved)
        with self.assertRaises(BenchError):
            server.stop()
        self.assertTrue((moved / MARKER).exists())

    def test_interrupted_and_taken_up_again(self) -> None:
        server = self.made()
        files = [server.target / name for name in ("a", "b", "c")]
        for file in files:
            file.write_text("x")
        files_left = len(files)

        def unlink(path: str, **options: Any) -> None:
            nonlocal files_left
            if files_left == 1:
                raise KeyboardInterrupt
            files_left -= 1
            real_unlink(path, **options)

        real_unlink = os.unlink
        with mock.patch("os.unlink", unlink), self.assertRaises(KeyboardInterrupt):
            server.stop()
        self.assertEqual(len(list(server.target.iterdir())), 2, "one file, and the marker")
        again = self.other_shell(server)
        self.assertIs(again.stop().stage, Stage.ENDED)
        self.assertFalse(server.target.exists())


class Options(LustreCase):
    def refused(self, **options: Any) -> UsageError:
        with self.assertRaises(UsageError) as caught:
            self.started(**options)
        self.assertTrue(caught.exception.hint, options)
        self.assertEqual(self.slurm.jobs, {})
        return caught.exception

    def test_a_path_that_cannot_be_used_is_told_at_once(self) -> None:
        (self.dir / "file").write_text("")
        self.assertIn("is no directory", str(self.refused(path=str(self.dir / "nowhere"))))
        self.assertIn("is no directory", str(self.refused(path=str(self.dir / "file"))))
        self.refused(path="a\nb")
        self.refused(path="a\0b")
        if os.geteuid():
            self.place.chmod(0o500)
            self.assertIn("not writable", str(self.refused()))

    def test_counts_and_sizes(self) -> None:
        for options in (
            {"procs": "0"},
            {"procs": "many"},
            {"nodes": "-1"},
            {"stripe_count": "0"},
            {"stripe_count": "2001"},
            {"stripe_size": "1000"},
            {"stripe_size": "8g"},
            {"stripe_size": "-1m"},
            {"ini": "/nowhere.ini"},
        ):
            self.refused(**options)

    def test_what_the_batch_script_is_told(self) -> None:
        server = self.started(fs_type="lustre", stripe_count="all", stripe_size="4m", nodes="3")
        job = self.slurm.jobs[int(server.instance.job_id)]
        self.assertEqual(
            {key: value for key, value in job.environment.items() if "FS_" in key or "STRIPE" in key},
            {
                "AIFBENCH_FS_PATH": str(self.place),
                "AIFBENCH_FS_TYPE": "lustre",
                "AIFBENCH_STRIPE_COUNT": "-1",
                "AIFBENCH_STRIPE_SIZE": str(4 * 2**20),
            },
        )
        self.assertIn("--nodes=3", job.argv)

    def test_the_default_path_is_the_sites_scratch(self) -> None:
        (path,) = [each for each in LustreServer.start_options(self.shell) if each.name == "path"]
        self.assertEqual(path.default, str(self.config.scratch_dir))
        self.assertIn(str(self.config.scratch_dir), LustreServer.dry_run(self.shell, {}))
        self.assertFalse(self.config.scratch_dir.exists())
        self.assertEqual(LustreServer.start(self.shell, {}).target.parent, self.config.scratch_dir)
        self.assertTrue(self.config.scratch_dir.is_dir(), "it is the program's own, and made when needed")

    def test_on_scratch_it_is_not_what_the_job_keeps_there(self) -> None:
        server = LustreServer.start(self.shell, {})
        job = self.slurm.jobs[int(server.instance.job_id)]
        self.assertNotEqual(job.environment["AIFBENCH_DATA_DIR"], str(server.target))

    def test_a_scratch_that_cannot_be_made(self) -> None:
        self.config = self.make_config(scratch_dir=self.dir / "file/scratch")
        (self.dir / "file").write_text("")
        with self.assertRaisesRegex(UsageError, "cannot make .*give --path"):
            LustreServer.start(self.site(), {})

    def test_a_relative_path_is_that_of_the_shell(self) -> None:
        relative = os.path.relpath(self.place)
        self.assertEqual(self.started(path=relative).target.parent.resolve(), self.place.resolve())

    def test_of_benchmarks(self) -> None:
        for key, text in (
            ("size", "-1"),
            ("size", "much"),
            ("block", "100"),
            ("sync", "often"),
            ("sync", "0"),
            ("cache", "cold"),
            ("loader", "unet4d"),
            ("checkpoint", "llama9"),
            ("scale", "2"),
            ("profile", "slow"),
            ("ini", str(Path("/nowhere.ini"))),
            ("launcher", "ssh"),
            ("steps", "0"),
        ):
            with self.assertRaises(UsageError, msg=(key, text)) as caught:
                resolve_options(BENCH_OPTIONS, {key: text})
            self.assertTrue(caught.exception.hint, key)
        for text in ("none", "end", "dsync", "16"):
            self.assertEqual(resolve_options(BENCH_OPTIONS, {"sync": text})["sync"], text)


class LogNews(LustreCase):
    def test_the_last_of_its_own_lines_is_the_cause(self) -> None:
        server = self.started()
        news = server.read_log(["aifbench: one", "srun: error", "aifbench: two; do this; and that", "bye"])
        self.assertEqual((news.cause, news.advice), ("two", "do this; and that"))
        self.assertEqual(server.read_log(["nothing of ours"]).cause, "")


if __name__ == "__main__":
    unittest.main()
