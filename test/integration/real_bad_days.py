"""Bad days of a real cluster, met by a real service: nothing is lost, and what is said is true."""

from contextlib import suppress

from test.integration.dev_slurm import bring_up, dev_slurm, output_of, wait_for_state, wait_until
from test.integration.story import SMALL, Story

from aifbench.cluster.jobs import JobState
from aifbench.cluster.slurm_cli import SlurmCli
from aifbench.errors import SchedulerUnavailable


class BadDays(Story):
    scheduler = "slurm"

    @classmethod
    def setUpClass(cls) -> None:
        bring_up()

    def clean_up(self) -> None:
        # The controller first, whichever way it is gone: nothing can be stopped without it.
        for remedy in ("start-controller", "unhang"):
            with suppress(AssertionError):
                dev_slurm(remedy)
        super().clean_up()
        dev_slurm("heal")

    def start_chroma(self, options: str = "") -> str:
        """A ready Chroma; its job."""
        self.type(f"start chroma --time 10m {options}", "check chroma --wait 60s")
        return str(self.jobs()[-1]["job_id"])

    def test_a_controller_that_hangs_is_waited_for(self) -> None:
        self.start_chroma()
        dev_slurm("hang")
        during = self.type("status")
        self.assertIn("scheduler cannot tell", during)
        dev_slurm("unhang")
        wait_until(lambda: "READY" in self.type("status"), "the service is seen again", 60)

    def test_a_controller_that_hangs_under_load_costs_nothing(self) -> None:
        self.start_chroma()
        program = self.start_program(f"bench chroma search {SMALL}", "quit")
        wait_until(lambda: any(self.results.glob("2*/phases/phase-01/*.rows")), "the search has begun", 60)
        dev_slurm("hang")
        output, _ = program.communicate(timeout=200)
        self.assertEqual(program.returncode, 0, output)
        self.assertEqual(self.record()["state"], "COMPLETE")

    def test_a_submission_without_an_answer_is_not_made_twice(self) -> None:
        dev_slurm("hang")
        starting = self.start_program("start chroma --time 10m", "quit")
        wait_until(lambda: bool(self.jobs()), "the submission has begun", 30)
        self.addCleanup(starting.communicate)
        # Long enough for sbatch to give up once: the controller then finds its message and makes the job.
        wait_until(lambda: "sbatch" not in output_of("ps", "-eo", "args"), "sbatch has timed out", 60)
        dev_slurm("unhang")
        starting.communicate(timeout=120)
        self.assertIn("READY", self.type("check chroma --wait 60s"))
        names = output_of("squeue", "--noheader", "--states=all", "--format=%j").split()
        self.assertEqual(names.count(self.jobs()[0]["job_name"]), 1)

    def test_killed_by_its_time_limit(self) -> None:
        job = self.start_chroma()
        dev_slurm("expire", job)
        wait_for_state(job, "TIMEOUT", timeout_s=60)
        listed = self.type("status")
        self.assertIn("FAILED", listed)
        self.assertIn("TIMEOUT", listed)
        self.assertIn("--time", listed)

    def test_requeued_to_another_node_it_is_found_again(self) -> None:
        job = self.start_chroma("--partition gpu")
        first = self.jobs()[-1]["endpoint"]
        node = output_of("squeue", "--noheader", f"--jobs={job}", "--format=%N")
        dev_slurm("drain", node)
        output_of("scontrol", "requeue", job)
        wait_for_state(job, "PENDING", timeout_s=30)
        output_of("scontrol", "update", f"jobid={job}", "StartTime=now")
        wait_for_state(job, "RUNNING", timeout_s=30)
        self.assertIn("is ready at", self.type("check chroma --wait 60s"))
        second = self.jobs()[-1]["endpoint"]
        self.assertNotEqual(first["host"], second["host"])

    def test_a_node_that_crashes_ends_the_service(self) -> None:
        job = self.start_chroma("--partition gpu")
        node = output_of("squeue", "--noheader", f"--jobs={job}", "--format=%N")
        output_of("scontrol", "update", f"jobid={job}", "Requeue=0")
        dev_slurm("crash", node)
        wait_for_state(job, "NODE_FAIL", timeout_s=60)
        output = self.type("check chroma --wait 10s", expect=1)
        self.assertIn("NODE_FAIL", output)

    def test_a_log_that_comes_late_only_delays(self) -> None:
        for node in ("node1", "node2"):
            dev_slurm("late-logs", node, "3", str(self.results))
        self.start_chroma()
        self.assertGreater(self.jobs()[-1]["ready_after_s"], 2)

    def test_without_accounting_nothing_is_missing(self) -> None:
        dev_slurm("no-accounting")
        job = self.start_chroma()
        self.type("stop chroma")
        self.assertIs(SlurmCli().poll([job])[job].state, JobState.CANCELLED)

    def test_out_of_memory_is_told_as_such(self) -> None:
        job = dev_slurm("oom").split()[-1]
        wait_for_state(job, "OUT_OF_MEMORY", "FAILED", timeout_s=30)
        info = SlurmCli().poll([job])[job]
        self.assertTrue(info.state.is_final)
        self.assertTrue(info.advice)

    def test_a_controller_that_is_gone_is_told_as_such(self) -> None:
        dev_slurm("stop-controller")
        with self.assertRaises(SchedulerUnavailable):
            SlurmCli().poll(["1"])
        self.assertIn("slurm", self.type("start chroma", expect=1).lower())
