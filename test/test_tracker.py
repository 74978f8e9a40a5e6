"""JobTracker: few questions to the scheduler, and sensible answers while it gives none."""

import threading
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory

from test.fakes.clock import FakeClock
from test.fakes.slurm import FakeSlurm

from aifbench.cluster.command import CommandResult
from aifbench.cluster.jobs import JobSpec, JobState
from aifbench.cluster.slurm_cli import SlurmCli
from aifbench.cluster.tracker import JobTracker


class TrackerCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        self.clock = FakeClock()
        self.slurm = FakeSlurm(self.clock)
        self.scheduler = SlurmCli(self.slurm, self.clock, {})
        self.tracker = JobTracker(self.scheduler, self.clock)

    def submit(self, name: str = "aifb-a") -> str:
        job_id = self.scheduler.submit(JobSpec(name, self.dir / "s.sh", self.dir / "%j.log", self.dir))
        self.slurm.calls.clear()
        return job_id

    def state(self, job_id: str, max_age_s: float = 5.0) -> JobState:
        return self.tracker.info(job_id, max_age_s=max_age_s).state


class Economy(TrackerCase):
    def test_one_call_answers_for_all_jobs(self) -> None:
        jobs = [self.submit(f"aifb-{number}") for number in range(20)]
        infos = self.tracker.infos(jobs)
        self.assertEqual({info.state for info in infos.values()}, {JobState.PENDING})
        self.assertEqual(len(self.slurm.calls), 1)

    def test_an_answer_serves_until_it_is_too_old(self) -> None:
        job = self.submit()
        self.state(job)
        self.slurm.start(job)
        self.clock.sleep(4.9)
        self.assertEqual(self.state(job), JobState.PENDING)
        self.assertEqual(self.state(job, max_age_s=1.0), JobState.RUNNING)
        self.assertEqual(len(self.slurm.calls), 2)

    def test_asking_for_one_refreshes_the_others_too(self) -> None:
        first, second = self.submit("aifb-a"), self.submit("aifb-b")
        self.tracker.infos([first, second])
        self.clock.sleep(5.0)
        self.state(first)
        self.state(second)
        self.assertEqual(len(self.slurm.calls), 2)

    def test_a_job_that_has_ended_is_never_asked_for_again(self) -> None:
        job = self.submit()
        self.slurm.end(job, "TIMEOUT")
        self.assertEqual(self.state(job), JobState.TIMEOUT)
        self.slurm.forget(job)
        self.slurm.accounting = "disabled"
        for _ in range(10):
            self.clock.sleep(10.0)
            self.assertEqual(self.state(job, max_age_s=0.0), JobState.TIMEOUT)
        self.assertEqual(len(self.slurm.calls), 1)

    def test_a_job_that_stays_unknown_is_asked_for_less_and_less(self) -> None:
        self.slurm.accounting = "disabled"
        for _ in range(3600):
            self.assertEqual(self.state("77"), JobState.UNKNOWN)
            self.clock.sleep(1.0)
        self.assertLessEqual(len(self.slurm.commands("scontrol")), 18)

    def test_an_unknown_job_does_not_ride_along_with_the_others(self) -> None:
        job = self.submit()
        for _ in range(60):
            self.tracker.infos([job, "77"])
            self.clock.sleep(5.0)
        self.assertLessEqual(len(self.slurm.commands("scontrol")), 7)
        self.assertEqual(len(self.slurm.commands("squeue")), 60)

    def test_an_unknown_job_that_appears_is_seen_and_kept_in_view(self) -> None:
        self.slurm.visible_after_s = 7.0
        self.slurm.accounting = "missing"
        job = self.submit()
        self.assertEqual(self.state(job), JobState.UNKNOWN)
        self.clock.sleep(10.0)
        self.assertEqual(self.state(job), JobState.PENDING)
        self.slurm.start(job)
        self.clock.sleep(5.0)
        self.assertEqual(self.state(job), JobState.RUNNING)

    def test_threads_that_ask_at_once_share_one_call(self) -> None:
        job = self.submit()
        threads = [threading.Thread(target=self.state, args=(job,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(self.slurm.calls), 1)


class ControllerGone(TrackerCase):
    def test_the_last_state_is_repeated_with_the_problem_until_it_answers_again(self) -> None:
        job = self.submit()
        self.slurm.start(job)
        self.state(job)
        self.slurm.controller = "down"
        self.slurm.controller_back_at_s = self.clock.elapsed_s + 60.0
        while self.clock.elapsed_s < self.slurm.controller_back_at_s:
            self.clock.sleep(5.0)
            self.assertEqual(self.state(job), JobState.RUNNING)
            if self.slurm.controller == "down":
                self.assertIn("Unable to contact slurm controller", self.tracker.problem)
        self.slurm.end(job, "FAILED", exit_code=1)
        self.clock.sleep(5.0)
        self.assertEqual(self.state(job), JobState.FAILED)
        self.assertEqual(self.tracker.problem, "")

    def test_it_is_left_alone_for_a_while_even_for_jobs_never_seen(self) -> None:
        """Each question to a hung controller takes many seconds: twenty services must not each ask it."""
        jobs = [self.submit(f"aifb-{number}") for number in range(20)]
        self.slurm.controller = "hung"
        for job in jobs:
            self.assertEqual(self.state(job, max_age_s=0.0), JobState.UNKNOWN)
        self.assertIsNone(self.tracker.find("aifb-1"))
        self.assertEqual(len(self.slurm.calls), 1)

    def test_a_job_is_unknown_rather_than_ended(self) -> None:
        self.slurm.controller = "down"
        info = self.tracker.info("5")
        self.assertEqual((info.state, info.state.is_final), (JobState.UNKNOWN, False))


class Find(TrackerCase):
    def test_the_newest_job_of_a_name(self) -> None:
        self.submit("aifb-a")
        newest = self.submit("aifb-a")
        self.submit("aifb-b")
        found = self.tracker.find("aifb-a")
        assert found is not None
        self.assertEqual(found.job_id, newest)

    def test_what_was_not_there_is_not_looked_for_again_at_once(self) -> None:
        for _ in range(10):
            self.assertIsNone(self.tracker.find("aifb-none"))
            self.clock.sleep(1.0)
        self.assertEqual(len(self.slurm.commands("squeue")), 2)

    def test_no_answer_is_a_problem_and_not_an_absence(self) -> None:
        self.submit("aifb-a")
        self.slurm.controller = "down"
        self.assertIsNone(self.tracker.find("aifb-a"))
        self.assertIn("Unable to contact", self.tracker.problem)
        self.slurm.controller = "up"
        self.clock.sleep(5.0)
        self.assertIsNotNone(self.tracker.find("aifb-a"))
        self.assertEqual(self.tracker.problem, "")


class Interrupted(unittest.TestCase):
    def test_ctrl_c_on_the_way_leaves_the_tracker_usable(self) -> None:
        def interrupted(*_: object, **__: object) -> CommandResult:
            raise KeyboardInterrupt

        clock = FakeClock()
        tracker = JobTracker(SlurmCli(interrupted, clock, {}), clock)
        for _ in range(2):
            with self.assertRaises(KeyboardInterrupt):
                tracker.info("1")


if __name__ == "__main__":
    unittest.main()
