"""The local scheduler with real processes: states, signals, other shells, lost supervisors."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from test.fakes.clock import FakeClock
from test.fakes.waiting import eventually

from aifbench.cluster import processes
from aifbench.cluster.jobs import JobInfo, JobSpec, JobState
from aifbench.cluster.local import LocalProcess, job_environment
from aifbench.errors import SchedulerError, SubmitError

SRC = Path(__file__).resolve().parents[1] / "src"

SUBMIT_AND_LEAVE = """
import sys
from pathlib import Path
from aifbench.cluster.jobs import JobSpec
from aifbench.cluster.local import LocalProcess
here = Path(sys.argv[1])
print(LocalProcess(here).submit(JobSpec("from-another-shell", here / "job.sh", here / "%j.log", here)))
"""


class LocalCase(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.dir = Path(directory.name)
        self.scheduler = LocalProcess(self.dir, grace_s=0.4)
        self.addCleanup(self.end_everything)

    def end_everything(self) -> None:
        jobs = [entry.name for entry in (self.dir / "jobs").glob("[0-9]*")]
        for name in jobs:
            started = json.loads((self.dir / "jobs" / name / "started.json").read_text())
            started["host"] = os.uname().nodename
            (self.dir / "jobs" / name / "started.json").write_text(json.dumps(started))
        self.scheduler.cancel(jobs)
        processes.end_all(lambda: self.processes_of("*"), 0.0)

    def spec(self, body: str, **changes: Any) -> JobSpec:
        script = self.dir / "job.sh"
        script.write_text(f"#!/bin/bash\n{body}\n")
        return replace(JobSpec("test-job", script, self.dir / "%j.log", self.dir), **changes)

    def submit(self, body: str, **changes: Any) -> str:
        return self.scheduler.submit(self.spec(body, **changes))

    def info(self, job_id: str) -> JobInfo:
        return self.scheduler.poll([job_id])[job_id]

    def final(self, job_id: str) -> JobInfo:
        eventually(lambda: self.info(job_id).state.is_final, f"job {job_id} ends")
        return self.info(job_id)

    def log(self, job_id: str) -> str:
        path = self.dir / f"{job_id}.log"
        return path.read_text() if path.exists() else ""

    def says(self, job_id: str, text: str) -> None:
        eventually(lambda: text in self.log(job_id), f"job {job_id} says {text!r}")

    def processes_of(self, job_id: str) -> set[int]:
        """Everything alive that job started, supervisor included."""
        jobs = (self.dir / "jobs").glob(job_id)
        return {pid for job in jobs for pid in processes.carriers(f"AIFBENCH_LOCAL_JOB={job}".encode())}

    def assert_nothing_left(self, job_id: str) -> None:
        """Only the supervisor itself may live a moment longer than its job."""
        self.assertEqual(self.processes_of(job_id) - {self.supervisor(job_id)}, set())
        eventually(lambda: not self.processes_of(job_id), "the supervisor goes")

    def supervisor(self, job_id: str) -> int:
        pid: int = self.started(job_id)["pid"]
        return pid

    def started(self, job_id: str) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.dir / "jobs" / job_id / "started.json").read_text())
        return data

    def change_started(self, job_id: str, **changes: Any) -> None:
        path = self.dir / "jobs" / job_id / "started.json"
        path.write_text(json.dumps(self.started(job_id) | changes))

    def kill_supervisor(self, job_id: str) -> None:
        pid = self.supervisor(job_id)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: processes.start_ticks(pid) is None, "the supervisor is gone")


class States(LocalCase):
    def test_completed(self) -> None:
        job_id = self.submit("echo out; echo err >&2; pwd")
        info = self.final(job_id)
        self.assertEqual((info.state, info.exit_code, info.reason), (JobState.COMPLETED, 0, ""))
        self.assertEqual((info.name, info.nodes, info.source), ("test-job", (os.uname().nodename,), "local"))
        self.assertEqual(self.log(job_id), f"out\nerr\n{self.dir}\n")

    def test_failed_keeps_the_exit_code(self) -> None:
        info = self.final(self.submit("exit 3"))
        self.assertEqual((info.state, info.exit_code, info.reason), (JobState.FAILED, 3, "NonZeroExitCode"))
        self.assertIn("not found", self.final(self.submit("no-such-command")).advice)

    def test_killed_by_a_signal_is_failed(self) -> None:
        info = self.final(self.submit("kill -KILL $$"))
        self.assertEqual((info.state, info.exit_code, info.signal), (JobState.FAILED, None, 9))
        self.assertIn("memory", info.advice)

    def test_running_tells_elapsed_and_left(self) -> None:
        info = self.info(self.submit("sleep 100", time_limit_s=60.0))
        assert info.elapsed_s is not None and info.time_left_s is not None
        self.assertIs(info.state, JobState.RUNNING)
        self.assertAlmostEqual(info.elapsed_s + info.time_left_s, 60.0)

    def test_time_limit(self) -> None:
        job_id = self.submit("sleep 100", time_limit_s=0.2)
        info = self.final(job_id)
        self.assertEqual((info.state, info.reason), (JobState.TIMEOUT, "TimeLimit"))
        self.assert_nothing_left(job_id)

    def test_ids_nobody_knows_are_unknown(self) -> None:
        for job_id in ("1", "0", "-1", "../jobs", "", "x", "٣"):
            self.assertEqual(self.info(job_id), JobInfo(job_id, JobState.UNKNOWN))

    def test_waiting_costs_nothing(self) -> None:
        job_id = self.submit("echo started; sleep 100")
        self.says(job_id, "started")
        status = Path(f"/proc/{self.supervisor(job_id)}/status")
        eventually(lambda: "S (sleeping)" in status.read_text(), "the supervisor sleeps")
        before = status.read_text().partition("voluntary_ctxt_switches")[2]
        subprocess.run(["sleep", "0.3"], check=True)
        self.assertEqual(status.read_text().partition("voluntary_ctxt_switches")[2], before)


class Ending(LocalCase):
    def test_cancel(self) -> None:
        job_id = self.submit("trap 'echo bye; exit 0' TERM; echo up; sleep 100 & wait")
        self.says(job_id, "up")
        self.scheduler.cancel([job_id])
        self.assertIn(self.info(job_id).state, (JobState.COMPLETING, JobState.CANCELLED))
        info = self.final(job_id)
        self.assertEqual((info.state, info.reason, info.advice), (JobState.CANCELLED, "", ""))
        self.assertIn("bye", self.log(job_id))
        self.assert_nothing_left(job_id)

    def test_cancel_ends_what_ignores_sigterm_and_what_hides(self) -> None:
        hidden = "(setsid bash -c 'trap \"\" TERM; echo hidden; while :; do sleep 1; done' &)"
        bare = "(env -i setsid sleep 1234 &)"
        job_id = self.submit(f"trap '' TERM; {hidden}; {bare}; echo up; while :; do sleep 1; done")
        self.says(job_id, "hidden")
        self.says(job_id, "up")
        everything = processes.descendants({self.supervisor(job_id)})
        self.assertGreaterEqual(len(everything), 4)
        self.scheduler.cancel([job_id])
        self.assertIs(self.final(job_id).state, JobState.CANCELLED)
        self.assertEqual([pid for pid in everything if processes.start_ticks(pid) is not None], [])

    def test_nothing_outlives_a_script_that_ends(self) -> None:
        job_id = self.submit("sleep 1234 & (setsid sleep 1234 &); exit 0")
        self.assertIs(self.final(job_id).state, JobState.COMPLETED)
        self.assert_nothing_left(job_id)

    def test_cancelling_the_ended_and_the_unknown_is_no_error(self) -> None:
        job_id = self.submit("exit 0")
        self.final(job_id)
        self.scheduler.cancel([job_id, "99", "../x"])
        self.assertIs(self.info(job_id).state, JobState.COMPLETED)

    def test_a_cancel_that_comes_before_the_supervisor_is_not_lost(self) -> None:
        job_id = self.submit("exit 0")
        self.final(job_id)
        self.assert_nothing_left(job_id)
        job_dir = self.dir / "jobs" / job_id
        (job_dir / "started.json").unlink()
        (job_dir / "ended.json").unlink()
        (job_dir / "script").write_text("#!/bin/bash\nsleep 100\n")
        self.assertIs(self.info(job_id).state, JobState.PENDING)
        self.scheduler.cancel([job_id])
        supervise = "import sys; from aifbench.cluster.local_job import main; main()"
        environment = {**os.environ, "PYTHONPATH": str(SRC)}
        subprocess.run([sys.executable, "-c", supervise, "run", job_dir], env=environment, check=True)
        self.assertIs(self.final(job_id).state, JobState.CANCELLED)

    def test_killing_the_supervisor_softly_cancels(self) -> None:
        job_id = self.submit("sleep 100")
        os.kill(self.supervisor(job_id), signal.SIGTERM)
        self.assertIs(self.final(job_id).state, JobState.CANCELLED)


class OtherShells(LocalCase):
    def test_a_job_outlives_its_shell_and_is_found_and_cancelled_by_another(self) -> None:
        self.spec("echo up; sleep 100")
        environment = {**os.environ, "PYTHONPATH": str(SRC)}
        command = [sys.executable, "-c", SUBMIT_AND_LEAVE, str(self.dir)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        job_id = done.stdout.strip()
        self.says(job_id, "up")
        [found] = self.scheduler.find("from-another-shell")
        self.assertEqual((found.job_id, found.state), (job_id, JobState.RUNNING))
        self.scheduler.cancel([job_id])
        self.assertIs(self.final(job_id).state, JobState.CANCELLED)

    def test_many_shells_at_once_get_different_ids(self) -> None:
        spec = self.spec("echo $SLURM_JOB_ID")
        with ThreadPoolExecutor(6) as pool:
            job_ids = list(pool.map(lambda _: LocalProcess(self.dir).submit(spec), range(12)))
        self.assertEqual(sorted(map(int, job_ids)), list(range(1, 13)))
        for job_id in job_ids:
            self.assertIs(self.final(job_id).state, JobState.COMPLETED)
            self.assertEqual(self.log(job_id).strip(), job_id)

    def test_find_by_name(self) -> None:
        self.assertEqual(self.scheduler.find("a"), [])
        for name in ("a", "b", "a"):
            self.final(self.submit("exit 0", name=name))
        self.assertEqual([info.job_id for info in self.scheduler.find("a")], ["1", "3"])

    def test_an_older_log_of_the_same_id_is_not_mixed_in(self) -> None:
        (self.dir / "1.log").write_text("SLURM_JOB_ID: 1\n")
        self.final(self.submit("echo new"))
        self.assertEqual(self.log("1"), "new\n")

    def test_the_script_is_the_one_that_was_submitted(self) -> None:
        job_id = self.submit(f"until [ -e {self.dir}/go ]; do sleep 0.01; done\necho old")
        (self.dir / "job.sh").write_text("#!/bin/bash\necho new\n" * 20)
        (self.dir / "go").touch()
        self.final(job_id)
        self.assertEqual(self.log(job_id), "old\n")


class LostSupervisors(LocalCase):
    def test_the_script_alone_is_still_running_and_can_be_cancelled(self) -> None:
        job_id = self.submit("echo up; sleep 100")
        self.says(job_id, "up")
        self.kill_supervisor(job_id)
        info = self.info(job_id)
        self.assertEqual((info.state, info.reason), (JobState.RUNNING, "SupervisorLost"))
        self.assertIn("time limit", info.advice)
        self.scheduler.cancel([job_id])
        self.assertIs(self.final(job_id).state, JobState.CANCELLED)
        self.assert_nothing_left(job_id)

    def test_both_gone_is_failed_with_advice(self) -> None:
        job_id = self.submit("echo up; exec sleep 100")
        self.says(job_id, "up")
        [script] = processes.descendants({self.supervisor(job_id)})
        self.kill_supervisor(job_id)
        os.kill(script, signal.SIGKILL)
        info = self.final(job_id)
        self.assertEqual((info.state, info.exit_code), (JobState.FAILED, None))
        self.assertIn("log", info.advice)

    def test_a_recycled_pid_is_not_mistaken_for_the_supervisor(self) -> None:
        job_id = self.submit("exit 0")
        self.final(job_id)
        self.assert_nothing_left(job_id)
        (self.dir / "jobs" / job_id / "ended.json").unlink()
        self.change_started(job_id, pid=os.getpid())
        self.assertIs(self.info(job_id).state, JobState.FAILED)

    def test_a_restarted_machine_is_a_node_failure(self) -> None:
        job_id = self.submit("sleep 100")
        self.change_started(job_id, boot_id="another boot")
        info = self.info(job_id)
        self.assertIs(info.state, JobState.NODE_FAIL)
        self.assertIn("restarted", info.advice)
        os.kill(self.supervisor(job_id), signal.SIGTERM)
        eventually((self.dir / "jobs" / job_id / "ended.json").exists, "the job ends")

    def test_a_job_of_another_machine_is_unknown_here(self) -> None:
        job_id = self.submit("sleep 100")
        self.change_started(job_id, host="mel0001")
        info = self.info(job_id)
        self.assertIs(info.state, JobState.UNKNOWN)
        self.assertIn("mel0001", info.advice)
        with self.assertRaisesRegex(SchedulerError, "mel0001"):
            self.scheduler.cancel([job_id])

    def test_an_interrupted_submission_is_pending_then_failed(self) -> None:
        clock = FakeClock()
        scheduler = LocalProcess(self.dir, clock=clock)
        job_id = scheduler.submit(self.spec("exit 0"))
        self.final(job_id)
        started = self.dir / "jobs" / job_id / "started.json"
        kept = started.read_text()
        started.unlink()
        self.assertIs(scheduler.poll([job_id])[job_id].state, JobState.PENDING)
        clock.sleep(3600)
        info = scheduler.poll([job_id])[job_id]
        self.assertEqual((info.state, info.reason), (JobState.FAILED, "NeverStarted"))
        started.write_text(kept)


class Submission(LocalCase):
    def test_more_than_one_node_is_refused(self) -> None:
        with self.assertRaisesRegex(SubmitError, "use --nodes 1"):
            self.submit("exit 0", nodes=2)

    def test_what_could_not_be_seen_to_fail_is_refused(self) -> None:
        no_script = self.dir / "plain"
        no_script.write_text("echo hello\n")
        cases = {
            "log directory": {"log_path": self.dir / "missing/%j.log"},
            "working directory": {"work_dir": self.dir / "missing"},
            "cannot read the batch script": {"script": self.dir / "missing.sh"},
            "not a batch script": {"script": no_script},
        }
        for words, changes in cases.items():
            with self.subTest(words), self.assertRaisesRegex(SubmitError, words):
                self.submit("exit 0", **changes)
        self.assertEqual(self.scheduler.find("test-job"), [])

    def test_a_log_that_cannot_be_opened_is_refused_with_the_reason(self) -> None:
        (self.dir / "1.log").mkdir()
        with self.assertRaisesRegex(SubmitError, "IsADirectoryError"):
            self.submit("exit 0")
        self.assertEqual(self.scheduler.find("test-job"), [])

    def test_a_state_directory_that_cannot_be_made_is_refused(self) -> None:
        (self.dir / "file").touch()
        with self.assertRaisesRegex(SubmitError, "Not a directory"):
            LocalProcess(self.dir / "file").submit(self.spec("exit 0"))

    def test_the_script_sees_slurms_variables_and_not_the_callers(self) -> None:
        spec = self.spec("exit 0", environment={"AIFBENCH_PORT": "8000"}, tasks_per_node=3, cpus_per_task=2)
        caller = {"PATH": "/bin", "SLURM_JOB_ID": "777", "SBATCH_PARTITION": "gpu", "SLURM_STEP_ID": "0"}
        seen = job_environment(spec, "12", caller)
        expected = {
            "PATH": "/bin",
            "AIFBENCH_PORT": "8000",
            "AIFBENCH_SCHEDULER": "local",
            "SLURM_JOB_ID": "12",
            "SLURM_JOB_NAME": "test-job",
            "SLURM_JOB_NODELIST": os.uname().nodename,
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_NNODES": "1",
            "SLURM_NTASKS": "3",
            "SLURM_NTASKS_PER_NODE": "3",
            "SLURM_CPUS_PER_TASK": "2",
            "SLURM_CPUS_ON_NODE": str(len(os.sched_getaffinity(0))),
            "SLURM_PROCID": "0",
            "SLURM_NODEID": "0",
            "SLURM_LOCALID": "0",
            "SLURM_RESTART_COUNT": "0",
            "SLURM_SUBMIT_DIR": str(self.dir),
        }
        self.assertEqual({key: seen.get(key) for key in expected}, expected)
        self.assertEqual([key for key in ("SBATCH_PARTITION", "SLURM_STEP_ID") if key in seen], [])

    def test_signals_work_inside_although_the_supervisor_blocks_them(self) -> None:
        job_id = self.submit("trap 'echo caught' TERM; kill -TERM $$; yes | head -1")
        self.assertIs(self.final(job_id).state, JobState.COMPLETED)
        self.assertEqual(self.log(job_id), "caught\ny\n")

    def test_the_command_line_is_what_one_would_type(self) -> None:
        spec = self.spec("exit 0", environment={"A": "1"})
        self.assertEqual(self.scheduler.command_line(spec), ["bash", str(spec.script)])


if __name__ == "__main__":
    unittest.main()
