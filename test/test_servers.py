"""SlurmServer: from options to a job, and its end. What it says meanwhile is in test_service_status."""

import json
import threading
import unittest
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from test.fakes.disk import full_disk
from test.fakes.site import PROJECT, FakeService, SiteCase

from aifbench.cluster.command import CommandResult
from aifbench.cluster.jobs import JobState
from aifbench.cluster.local import LocalProcess
from aifbench.cluster.slurm_cli import SlurmCli
from aifbench.errors import (
    BenchError,
    ConfigError,
    SchedulerUnavailable,
    ServiceError,
    SubmitError,
    UsageError,
)
from aifbench.servers.base import STOP_TIMEOUT_S
from aifbench.servers.instance import KEEP_ENDED
from aifbench.servers.service_job import SUBMIT_ALLOWANCE_S
from aifbench.servers.status import Stage

NO_ACCOUNT = "sbatch: error: Batch job submission failed: Invalid account or account/partition combination\n"


class ServerCase(SiteCase):
    def argv(self, job_id: str = "1") -> list[str]:
        return self.slurm.jobs[int(job_id)].argv

    def refusal(self, kind: type[BenchError], **options: Any) -> BenchError:
        with self.assertRaises(kind) as caught:
            self.start(**options)
        return caught.exception

    def directories(self) -> list[Path]:
        return [entry for entry in self.config.services_dir.glob("[!.]*") if entry.is_dir()]


class Options(ServerCase):
    def test_they_become_the_job(self) -> None:
        self.start(
            time="90m", partition="gpu", account="p200981", qos="short", reservation="course", port="8123"
        )
        for word in ("--time=90", "--partition=gpu", "--account=p200981", "--qos=short", "--nodes=1"):
            self.assertIn(word, self.argv())
        self.assertEqual(self.slurm.jobs[1].environment["AIFBENCH_PORT"], "8123")

    def test_the_site_gives_what_is_not_said(self) -> None:
        self.config = self.make_config(account="p1", partition="cpu", qos="default", time_limit_s=600.0)
        self.shell = self.site()
        self.start(partition="gpu")
        for word in ("--account=p1", "--partition=gpu", "--qos=default", "--time=10"):
            self.assertIn(word, self.argv())

    def test_what_cannot_be_is_refused_with_its_value_and_what_would_be_valid(self) -> None:
        cases: list[tuple[str, Any]] = [
            *(
                ("nodes", bad)
                for bad in ("0", "-1", "1.5", "two", "", "1e99", "2", "99999999999", True, "NaN")
            ),
            *(("time", bad) for bad in ("0", "-5m", "soon", "10y", "99999d", "", "inf", "1h30")),
            *(("port", bad) for bad in ("0", "80", "65536", "http", "-1")),
            *(("name", bad) for bad in ("", "A", "1b", "../x", "a b", "a/b", "x" * 32, "all", "last", "é")),
            *((option, "--x y") for option in ("partition", "account", "qos", "reservation")),
            *((option, "$(id)") for option in ("partition", "account", "qos", "reservation")),
        ]
        for option, value in cases:
            error = self.refusal(UsageError, **{option: value})
            self.assertIn(f"--{option}", error.message, (option, value))
            self.assertTrue(error.hint, (option, value))
            self.assertEqual(error.exit_code, 2)
        self.assertEqual((self.slurm.calls, self.directories()), ([], []))

    def test_an_unknown_option_gets_the_nearest_one(self) -> None:
        error = self.refusal(UsageError, patition="gpu")
        self.assertIn("did you mean 'partition'?", error.message)

    def test_a_script_that_is_missing_is_named(self) -> None:
        (self.dir / "batch_scripts").mkdir()
        self.config = self.make_config(project_dir=self.dir)
        self.shell = self.site()
        self.assertIn("start_chroma.sh", self.refusal(ConfigError).message)


class DryRun(ServerCase):
    def test_it_shows_the_job_and_changes_nothing(self) -> None:
        text = FakeService.dry_run(self.shell, {"time": "2h", "name": "b"})
        self.assertIn("--time=120", text)
        self.assertIn(f"# script: {PROJECT}/batch_scripts/start_chroma.sh", text)
        self.assertRegex(text, r"export AIFBENCH_SECRET_FILE=\S+/secret\n")
        self.assertEqual((self.slurm.calls, list(self.dir.iterdir())), ([], []))

    def test_it_refuses_what_start_would_refuse(self) -> None:
        with self.assertRaises(UsageError):
            FakeService.dry_run(self.shell, {"nodes": "0"})


class Secrets(ServerCase):
    def test_the_secret_is_in_its_file_and_nowhere_else(self) -> None:
        server = self.start()
        self.make_ready(server)
        server.status(max_age_s=0.0)
        secret = server.secret_path.read_text().strip()
        self.assertEqual(server.secret_path.stat().st_mode & 0o777, 0o600)
        told = [
            json.dumps(server.describe()),
            json.dumps(self.slurm.calls),
            json.dumps(self.slurm.jobs[1].environment),
            FakeService.dry_run(self.shell, {}),
            *(path.read_text() for path in server.directory.iterdir() if path.name != "secret"),
        ]
        for text in told:
            self.assertNotIn(secret, text)

    def test_the_record_says_how_it_authenticates_and_not_where_the_secret_is(self) -> None:
        server = self.start()
        self.make_ready(server)
        server.status(max_age_s=0.0)
        described = server.describe()
        self.assertEqual((described["authentication"], described["job_id"]), ("none", "1"))
        self.assertNotIn("secret_file", described["endpoint"])


class Start(ServerCase):
    def test_a_later_shell_finds_what_was_started(self) -> None:
        server = self.start()
        again = self.reopen(server)
        self.assertEqual((again.name, again.instance.job_id), ("fake", "1"))
        self.assertEqual(
            again.script_path.read_bytes(), (PROJECT / "batch_scripts/start_chroma.sh").read_bytes()
        )
        self.assertEqual(again.status().stage, Stage.QUEUED)

    def test_two_at_once_under_two_names(self) -> None:
        first, second = self.start(), self.start(name="b")
        self.assertNotEqual(first.instance.job_name, second.instance.job_name)
        self.assertNotEqual(first.secret_path.read_text(), second.secret_path.read_text())

    def test_a_taken_name_is_refused_with_two_ways_out(self) -> None:
        self.start()
        error = self.refusal(UsageError)
        self.assertIn("'fake' exists already", error.message)
        self.assertIn("--name other", error.hint)
        self.assertIn("stop fake", error.hint)
        self.assertEqual(len(self.slurm.commands("sbatch")), 1)

    def test_a_name_is_free_again_after_an_end_that_nobody_saw(self) -> None:
        self.start()
        self.slurm.end("1", "TIMEOUT")
        self.shell = self.site()
        self.assertEqual(self.start().instance.job_id, "2")

    def test_a_name_stays_taken_while_nobody_can_tell(self) -> None:
        self.start()
        self.slurm.end("1", "TIMEOUT")
        self.shell = self.site()
        self.slurm.controller = "down"
        self.refusal(UsageError)

    def test_two_shells_cannot_take_one_name(self) -> None:
        outcomes: list[object] = []

        def start() -> None:
            try:
                outcomes.append(FakeService.start(self.site(), {}).name)
            except UsageError:
                outcomes.append("refused")

        threads = [threading.Thread(target=start) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(map(str, outcomes)), ["fake", *["refused"] * 5])
        self.assertEqual(len(self.slurm.jobs), 1)

    def test_what_slurm_refuses_is_told_in_its_own_words_and_leaves_nothing(self) -> None:
        self.slurm.refusal = (1, NO_ACCOUNT)
        error = self.refusal(SubmitError, account="nobody")
        self.assertIn("Invalid account or account/partition combination", error.message)
        self.assertIn("--account", error.hint)
        self.assertEqual(self.directories(), [])

    def test_results_that_cannot_be_written_are_told_before_anything_is_submitted(self) -> None:
        self.config.results_dir.touch()  # a file in its place refuses root, too
        error = self.refusal(ConfigError)
        self.assertIn(str(self.config.services_dir), error.message)
        self.assertIn("AIFBENCH_RESULTS", error.hint)
        self.assertEqual(self.slurm.calls, [])

    def test_a_full_disk_is_told_and_leaves_nothing(self) -> None:
        with full_disk():
            error = self.refusal(ConfigError)
        self.assertIn("free some space", error.hint)
        self.assertEqual((self.slurm.calls, self.directories()), ([], []))

    def test_directories_of_ended_services_do_not_pile_up(self) -> None:
        ended = replace(self.start().instance, seen_end="COMPLETED")
        for number in range(KEEP_ENDED):
            older = replace(ended, job_name=f"aifb-old-{number}", submitted_wall_s=0.0)
            self.shell.instances.make_directory(older)
            self.shell.instances.write(older)
        self.shell.instances.write(ended)
        self.start()
        self.assertEqual(len(self.directories()), KEEP_ENDED + 1)

    def test_a_submission_whose_answer_was_lost_is_found_by_its_name(self) -> None:
        self.slurm.ghost_submits = 1
        self.assertEqual(self.start().instance.job_id, "1")
        self.assertEqual(len(self.slurm.jobs), 1)


class Unanswered(ServerCase):
    """Nobody knows whether the job exists: the instance stays until that is known."""

    def start_in_vain(self) -> FakeService:
        self.slurm.controller = "hung"  # it takes the job, and does not say so
        self.refusal(SchedulerUnavailable)
        return FakeService(self.shell, self.shell.instances.all()[0])

    def test_the_job_is_adopted_when_the_controller_answers_again(self) -> None:
        server = self.start_in_vain()
        self.assertEqual(server.status().stage, Stage.UNKNOWN)
        self.slurm.controller = "up"
        self.clock.sleep(10.0)
        later = self.reopen(server)
        self.assertEqual((later.status().stage, later.instance.job_id), (Stage.QUEUED, "1"))
        self.assertEqual(self.reopen(server).instance.job_id, "1")

    def test_a_job_that_never_came_to_be_is_given_up_after_a_while(self) -> None:
        self.slurm.controller = "down"
        self.refusal(SchedulerUnavailable)
        server = FakeService(self.shell, self.shell.instances.all()[0])
        self.clock.sleep(SUBMIT_ALLOWANCE_S)
        self.assertEqual(server.status().stage, Stage.UNKNOWN)  # the controller is still silent
        self.slurm.controller = "up"
        self.clock.sleep(10.0)
        status = server.status()
        self.assertEqual((status.stage, status.detail), (Stage.FAILED, "its job was never submitted"))
        self.start()

    def test_it_can_be_stopped(self) -> None:
        server = self.start_in_vain()
        with self.assertRaisesRegex(SchedulerUnavailable, "fake cannot be stopped: .*Socket timed out"):
            server.stop()
        self.slurm.controller = "up"
        self.clock.sleep(10.0)
        self.assertEqual(server.stop().stage, Stage.ENDED)
        self.assertEqual(self.slurm.jobs[1].state, "CANCELLED")

    def test_ctrl_c_during_submission_leaks_no_job(self) -> None:
        def interrupted(argv: Sequence[str], **options: Any) -> CommandResult:
            result = self.slurm(argv, **options)
            if argv[0] == "sbatch":
                raise KeyboardInterrupt
            return result

        self.interrupt_with(interrupted)
        self.assertEqual(self.slurm.jobs[1].state, "PENDING")
        server = FakeService(self.site(), self.shell.instances.all()[0])
        self.assertEqual((server.status().stage, server.stop().stage), (Stage.QUEUED, Stage.ENDED))

    def interrupt_with(self, run: Any) -> None:
        broken = replace(self.site(), scheduler=SlurmCli(run, self.clock, {}))
        with self.assertRaises(KeyboardInterrupt):
            FakeService.start(broken, {})

    def test_ctrl_c_before_there_was_a_job_leaves_a_name_that_can_be_freed(self) -> None:
        def interrupted(*_: object, **__: object) -> CommandResult:
            raise KeyboardInterrupt

        self.interrupt_with(interrupted)
        server = FakeService(self.shell, self.shell.instances.all()[0])
        status = server.stop()
        self.assertEqual((status.stage, status.detail), (Stage.ENDED, "its job was never submitted"))
        self.start()

    def test_a_stop_from_another_shell_reaches_a_submission_under_way(self) -> None:
        def stopped_meanwhile(argv: Sequence[str], **options: Any) -> CommandResult:
            if argv[0] == "sbatch":
                FakeService(self.site(), self.shell.instances.all()[0]).stop()
            return self.slurm(argv, **options)

        slow = self.site()
        scheduler = SlurmCli(stopped_meanwhile, self.clock, {})
        server = FakeService.start(replace(slow, scheduler=scheduler), {})
        self.assertEqual(self.slurm.jobs[1].state, "CANCELLED")
        self.assertEqual(server.status(max_age_s=0.0).stage, Stage.ENDED)


class Stop(ServerCase):
    def test_job_and_data_are_gone_and_the_log_stays(self) -> None:
        server = self.start()
        self.make_ready(server)
        data = Path(self.slurm.jobs[1].environment["AIFBENCH_DATA_DIR"])
        data.mkdir(parents=True)
        (data / "chroma.sqlite3").touch()
        status = server.stop()
        self.assertEqual((status.stage, status.job.state), (Stage.ENDED, JobState.CANCELLED))
        self.assertFalse(data.exists())
        self.assertTrue(server.log_path.exists())
        self.assertEqual(self.shell.instances.open_instances(), [])

    def test_another_shell_can_do_it(self) -> None:
        server = self.start()
        self.assertEqual(self.reopen(server).stop().stage, Stage.ENDED)
        self.assertEqual(server.status(max_age_s=0.0).stage, Stage.ENDED)

    def test_twice_is_no_error_and_no_call(self) -> None:
        server = self.start()
        server.stop()
        self.slurm.calls.clear()
        self.assertEqual(self.reopen(server).stop().stage, Stage.ENDED)
        self.assertEqual(self.slurm.calls, [])

    def test_what_has_died_by_itself_is_not_said_to_have_been_stopped(self) -> None:
        server = self.start()
        self.slurm.end("1", "OUT_OF_MEMORY")
        status = server.stop()
        self.assertEqual(status.stage, Stage.FAILED)
        self.assertIn("more memory", status.advice)

    def test_a_silent_controller_is_told_and_the_service_can_be_stopped_later(self) -> None:
        server = self.start()
        server.status()
        self.slurm.controller = "down"
        with self.assertRaises(SchedulerUnavailable):
            server.stop()
        self.slurm.controller = "up"
        self.clock.sleep(10.0)
        self.assertEqual(self.reopen(server).stop().stage, Stage.ENDED)

    def test_a_job_that_does_not_end_is_told(self) -> None:
        server = self.start()
        self.slurm.start("1")
        self.slurm.hanging_jobs = {"1"}
        with self.assertRaisesRegex(ServiceError, "job 1 of fake is COMPLETING after 60 s"):
            server.stop()
        self.assertGreaterEqual(self.clock.elapsed_s, STOP_TIMEOUT_S)
        self.assertEqual([found.name for found in self.shell.instances.open_instances()], ["fake"])

    def test_ctrl_c_while_waiting_leaves_a_cancelled_job(self) -> None:
        server = self.start()
        self.slurm.start("1")
        self.slurm.hanging_jobs = {"1"}
        self.clock.on_sleep = self.press_ctrl_c
        with self.assertRaises(KeyboardInterrupt):
            server.stop()
        self.clock.on_sleep = lambda: None
        self.slurm.end("1", "CANCELLED")
        self.clock.sleep(5.0)
        self.assertEqual(self.reopen(server).status().stage, Stage.ENDED)

    def press_ctrl_c(self) -> None:
        raise KeyboardInterrupt

    def test_a_job_that_slurm_has_forgotten_can_be_put_away(self) -> None:
        """Without accounting nobody knows how it ended; only an explicit stop may say that it has."""
        server = self.start()
        self.slurm.end("1", "FAILED")
        self.slurm.forget("1")
        self.slurm.accounting = "disabled"
        self.assertEqual(server.status(max_age_s=0.0).stage, Stage.UNKNOWN)
        status = server.stop()
        self.assertEqual(
            (status.stage, status.detail), (Stage.ENDED, "the scheduler does not know job 1 any more")
        )
        self.assertEqual(self.start().instance.job_id, "2")

    def test_a_job_too_new_to_be_listed_is_cancelled_too(self) -> None:
        self.slurm.accounting = "missing"
        self.slurm.visible_after_s = 30.0
        server = self.start()
        self.assertEqual(server.stop().stage, Stage.ENDED)
        self.assertEqual(self.slurm.jobs[1].state, "CANCELLED")

    def test_a_full_disk_does_not_keep_a_job_alive(self) -> None:
        server = self.start()
        with full_disk():
            self.assertEqual(server.stop().stage, Stage.ENDED)
        self.assertEqual(self.slurm.jobs[1].state, "CANCELLED")

    def test_an_id_that_now_belongs_to_another_job_is_left_alone(self) -> None:
        server = self.start()
        self.slurm.jobs[1].name = "somebody-elses"
        self.slurm.start("1")
        self.assertEqual(server.status(max_age_s=0.0).stage, Stage.UNKNOWN)
        server.stop()
        self.assertEqual(self.slurm.jobs[1].state, "RUNNING")

    def test_a_service_of_the_other_scheduler_is_left_alone(self) -> None:
        server = self.start()
        self.make_ready(server)
        local = replace(self.site(), scheduler=LocalProcess(self.dir / "local", clock=self.clock))
        foreign = FakeService(local, server.instance)
        status = foreign.status()
        self.assertEqual(status.stage, Stage.UNKNOWN)
        self.assertIn("--scheduler slurm", status.detail)
        self.assertEqual(FakeService.probed, [])
        with self.assertRaises(ServiceError) as caught:
            foreign.stop()
        self.assertIn('aifbench --scheduler slurm "stop fake"', caught.exception.hint)
        self.assertEqual(self.slurm.jobs[1].state, "RUNNING")


class Files(ServerCase):
    def test_a_log_is_followed_to_the_jobs_end_and_through_a_requeue(self) -> None:
        server = self.start()
        self.slurm.start("1")
        steps = iter(
            [
                lambda: server.log_path.write_text("first line of a long log\npartial"),
                lambda: server.log_path.write_text("anew\n"),
                lambda: self.slurm.end("1"),
            ]
        )

        def go_on() -> None:
            next(steps, int)()

        self.clock.on_sleep = go_on
        lines = list(server.follow_log())
        self.assertEqual(lines, ["first line of a long log", "partial", "anew"])

    def test_the_last_lines_of_a_log_that_is_no_text(self) -> None:
        server = self.start()
        self.assertEqual(server.log_lines(5), [])
        server.log_path.write_bytes(b"one\n\xff\xfetwo\nthree")
        self.assertEqual(server.log_lines(2), ["\ufffd\ufffdtwo", "three"])


if __name__ == "__main__":
    unittest.main()
