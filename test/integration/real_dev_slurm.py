"""The development cluster is a real one: it runs jobs as a production cluster does, and fails like one."""

import json
import shutil
import tempfile
import time
import unittest
import urllib.request
from pathlib import Path

from test.integration.dev_slurm import (
    ENDED,
    bring_up,
    dev_slurm,
    output_of,
    state_of,
    submit,
    wait_for_state,
    wait_until,
)

REST_PING = "http://10.77.0.1:6820/slurm/v0.0.38/ping"


class ClusterTest(unittest.TestCase):
    """A healthy cluster and a directory that all its nodes share, even when each has its own /tmp."""

    directory: Path

    @classmethod
    def setUpClass(cls) -> None:
        bring_up()
        cls.directory = Path(tempfile.mkdtemp(dir="/var/tmp"))
        cls.addClassCleanup(shutil.rmtree, cls.directory)

    def result_of(self, command: str, *options: str) -> str:
        """What the command printed as a job, once it has ended."""
        output = self.directory / f"{self.id()}.out"
        job = submit(command, f"--output={output}", *options)
        self.assertEqual(wait_for_state(job, *ENDED), "COMPLETED")
        return output.read_text().strip()


class LifeCycle(unittest.TestCase):
    """Apart from BadDays, because a new controller starts counting time limits and lost nodes anew."""

    def test_controller_gone(self) -> None:
        bring_up()
        dev_slurm("stop-controller")
        with self.assertRaisesRegex(AssertionError, "Unable to contact slurm controller"):
            output_of("squeue")
        dev_slurm("start-controller")
        output_of("squeue")

    def test_down_leaves_nothing_and_up_takes_less_than_ten_seconds(self) -> None:
        bring_up()
        dev_slurm("down")
        self.assertFalse(Path("/run/dev-slurm").exists())
        self.assertFalse(Path("/etc/slurm/slurm.conf").is_symlink())
        self.assertFalse(Path("/sys/class/net/ib0").exists())
        self.assertNotIn("dev-slurm", Path("/etc/hosts").read_text() + Path("/proc/mounts").read_text())
        self.assertNotIn("dev-slurm", Path("/etc/passwd").read_text())
        self.assertEqual(list(Path("/sys/fs/cgroup").glob("*/slurm_node*")), [])
        started_s = time.monotonic()
        dev_slurm("up")
        self.assertLess(time.monotonic() - started_s, 10)


class GoodDays(ClusterTest):
    def test_nodes_of_a_job_have_their_own_addresses_and_names(self) -> None:
        seen = self.result_of("srun bash -c 'echo $(hostname) $(hostname -I)'", "--nodes=2")
        self.assertEqual(sorted(seen.split("\n")), ["node1 10.77.0.11", "node2 10.77.0.12"])

    def test_a_job_sees_the_gpus_it_asked_for(self) -> None:
        options = ("--partition=gpu", "--gres=gpu:2")
        self.assertEqual(self.result_of("echo $CUDA_VISIBLE_DEVICES", *options), "0,1")

    def test_an_ordinary_user_can_submit(self) -> None:
        as_alice = (
            "runuser",
            "--login",
            "alice",
            "--command",
            "sbatch --wait --output=me.out --wrap 'id -un'",
        )
        output_of(*as_alice)
        self.assertEqual(Path("/home/alice/me.out").read_text().strip(), "alice")

    def test_accounting_knows_account_and_quality_of_service(self) -> None:
        job = submit("true", "--qos=test", "--time=1", "--output=/dev/null")
        show = ("sacct", "-nPX", "-j", job, "-o", "Account,QOS,State")
        wait_until(lambda: output_of(*show) == "p200001|test|COMPLETED", "sacct has the whole job")

    def test_the_rest_interface_takes_a_token(self) -> None:
        token = output_of("scontrol", "token").removeprefix("SLURM_JWT=")
        headers = {"X-SLURM-USER-NAME": "root", "X-SLURM-USER-TOKEN": token}
        with urllib.request.urlopen(urllib.request.Request(REST_PING, headers=headers), timeout=10) as reply:
            self.assertEqual(json.load(reply)["pings"][0]["ping"], "UP")

    def test_a_command_can_be_run_on_a_node(self) -> None:
        self.assertEqual(dev_slurm("shell", "node3", "hostname"), "node3")

    def test_what_cannot_work_is_refused_with_a_reason(self) -> None:
        with self.assertRaisesRegex(AssertionError, "no node 'node99'; there are node1 to node4"):
            dev_slurm("crash", "node99")
        with self.assertRaisesRegex(AssertionError, "--nodes 1: from 3 to 20"):
            dev_slurm("up", "--nodes", "1")


class BadDays(ClusterTest):
    """The two that Slurm takes long to notice are started first, on nodes of their own, and awaited last."""

    crashed_job: str
    expired_job: str

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.addClassCleanup(dev_slurm, "heal")
        long_job = ("sleep 300", "--partition=gpu", "--no-requeue", "--output=/dev/null")
        cls.crashed_job = submit(*long_job, "--nodelist=node4")
        cls.expired_job = submit(*long_job, "--nodelist=node3")
        wait_for_state(cls.crashed_job, "RUNNING")
        wait_for_state(cls.expired_job, "RUNNING")
        dev_slurm("crash", "node4")
        dev_slurm("expire", cls.expired_job)

    def test_accounting_gone(self) -> None:
        dev_slurm("no-accounting")
        with self.assertRaisesRegex(AssertionError, "Connection refused"):
            output_of("sacct")
        self.assertEqual(self.result_of("echo fine"), "fine")
        dev_slurm("accounting")
        output_of("sacct")

    def test_controller_hangs_and_keeps_a_job_it_never_confirmed(self) -> None:
        dev_slurm("hang")
        with self.assertRaisesRegex(AssertionError, "Socket timed out"):
            submit("true", "--job-name=ghost", "--output=/dev/null")
        dev_slurm("unhang")
        find = ("squeue", "--noheader", "--states=all", "--name=ghost")
        wait_until(lambda: output_of(*find) != "", "the ghost job appears")

    def test_demanding_site(self) -> None:
        dev_slurm("strict")
        with self.assertRaisesRegex(AssertionError, "No account given"):
            submit("true")
        dev_slurm("lenient")
        self.assertEqual(self.result_of("echo fine"), "fine")

    def test_drained_node(self) -> None:
        show = ("sinfo", "--noheader", "--nodes=node2", "--partition=cpu", "--format=%T")
        dev_slurm("drain", "node2")
        self.assertEqual(output_of(*show), "drained")
        dev_slurm("undrain", "node2")
        self.assertEqual(output_of(*show), "idle")

    def test_late_logs(self) -> None:
        log = self.directory / "late.log"
        dev_slurm("late-logs", "node1", "3", str(self.directory))
        job = submit("echo here", f"--output={log}", "--nodelist=node1")
        wait_for_state(job, "COMPLETED")
        self.assertFalse(log.exists())
        wait_until(lambda: log.exists() and log.read_text() == "here\n", "the log arrives", timeout_s=5)
        dev_slurm("late-logs", "node1", "off")

    def test_out_of_memory(self) -> None:
        self.assertEqual(wait_for_state(dev_slurm("oom"), *ENDED), "OUT_OF_MEMORY")

    def test_power_cut(self) -> None:
        self._wait_for_record(self.crashed_job, "NODE_FAIL", timeout_s=30)
        dev_slurm("revive", "node4")
        self.assertEqual(self.result_of("hostname", "--partition=gpu", "--nodelist=node4"), "node4")

    def test_time_limit(self) -> None:
        self._wait_for_record(self.expired_job, "TIMEOUT", timeout_s=45)

    def _wait_for_record(self, job: str, state: str, timeout_s: float) -> None:
        """In the accounting, because squeue may have forgotten the job meanwhile."""
        show = ("sacct", "-nPX", "-j", job, "-o", "State")
        wait_until(lambda: output_of(*show) == state, f"the record of job {job} says {state}", timeout_s)

    def test_short_memory_for_ended_jobs(self) -> None:
        job = submit("true", "--output=/dev/null")
        wait_for_state(job, "COMPLETED")
        dev_slurm("forget", "2")
        wait_until(lambda: self._is_forgotten(job), "squeue forgets the job", timeout_s=20)
        dev_slurm("remember")

    def _is_forgotten(self, job: str) -> bool:
        try:
            return state_of(job) == ""
        except AssertionError as error:
            return "Invalid job id" in str(error)
