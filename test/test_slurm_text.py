"""Slurm's text and words: states, reasons, ends, and output captured from real clusters."""

import unittest
from pathlib import Path

from test import fakes  # noqa: F401 - puts src on the path

from aifbench.cluster import slurm_states, slurm_text
from aifbench.cluster.jobs import JobInfo, JobState

_SCONTROL = Path(__file__).parent / "data" / "scontrol_show_job_25.11.txt"


def queue_row(state: str, *, used: str = "0:00", exit_status: int | str = 0, reason: str = "None") -> JobInfo:
    """Job 5 as squeue shows it."""
    fields = ["5", state, used, used, "n1", "0", str(exit_status), reason, "x"]
    return slurm_text.parse_queue(slurm_text.SEPARATOR.join(fields) + slurm_text.SEPARATOR)["5"]


class Advice(unittest.TestCase):
    def test_pending_reasons_that_never_resolve(self) -> None:
        """They are told at once; nobody waits for them."""
        cases = {
            "PartitionTimeLimit": "--time", "PartitionNodeLimit": "--nodes", "BadConstraints": "no node",
            "DependencyNeverSatisfied": "stop it", "QOSMaxWallDurationPerJobLimit": "--time",
            "QOSMaxNodePerJobLimit": "--nodes", "AssocMaxCpuPerJobLimit": "--nodes",
            "AssocGrpCPUMinutesLimit": "used up", "InvalidAccount": "--account", "InvalidQOS": "--qos",
            "JobHeldUser": "scontrol release", "JobHeldAdmin": "administrator",
            "job requeued in held state": "release", "launch failed requeued held": "failed launch",
        }  # fmt: skip
        for reason, words in cases.items():
            with self.subTest(reason):
                info = queue_row("PENDING", reason=reason)
                self.assertIn(words, info.advice)
                self.assertTrue(info.is_stuck)

    def test_pending_reasons_that_only_administrators_can_end_are_told_and_waited_for(self) -> None:
        cases = {
            "PartitionDown": "closed", "ReqNodeNotAvail, UnavailableNodes:node[1-2]": "maintenance",
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions":
            "down",
        }  # fmt: skip
        for reason, words in cases.items():
            with self.subTest(reason):
                info = queue_row("PENDING", reason=reason)
                self.assertIn(words, info.advice)
                self.assertFalse(info.is_stuck)

    def test_scontrol_writes_reasons_with_underscores(self) -> None:
        reason = "ReqNodeNotAvail,_May_be_reserved_for_other_job"
        pending = _SCONTROL.read_text().splitlines()[0]
        info = slurm_text.parse_controller(pending.replace("Reason=Resources", f"Reason={reason}"))
        assert info is not None
        self.assertEqual(info.reason, "ReqNodeNotAvail, May be reserved for other job")
        self.assertIn("maintenance", info.advice)

    def test_reasons_that_resolve_by_themselves_are_left_alone(self) -> None:
        for reason in (
            *("None", "Resources", "Priority", "Dependency", "BeginTime", "Licenses", "Prolog"),
            *("AssocMaxJobsLimit", "QOSMaxJobsPerUserLimit", "QOSGrpNodeLimit", "AssocGrpCpuLimit"),
            *("AssocGrpCPURunMinutesLimit", "JobArrayTaskLimit", "QOSMaxCpuPerUserLimit"),
        ):
            with self.subTest(reason):
                self.assertEqual(queue_row("PENDING", reason=reason).advice, "")

    def test_well_known_ends(self) -> None:
        cases = [
            ("FAILED", 0, 53, "no log"), ("FAILED", 127, 0, "not found"), ("FAILED", 137, 0, "memory"),
            ("FAILED", 0, 9, "memory"), ("OUT_OF_MEMORY", 0, 125, "memory"), ("TIMEOUT", 0, 15, "--time"),
            ("NODE_FAIL", 0, 0, "node failed"), ("PREEMPTED", 0, 9, "priority"),
        ]  # fmt: skip
        for state, exit_code, signal, words in cases:
            with self.subTest(state=state, exit_code=exit_code, signal=signal):
                info = queue_row(state, exit_status=exit_code << 8 | signal)
                self.assertIn(words, info.advice)
                self.assertEqual(info.signal, signal or None)

    def test_ordinary_ends_need_no_advice(self) -> None:
        for state, exit_code in (("COMPLETED", 0), ("FAILED", 1), ("CANCELLED", 0)):
            info = queue_row(state, exit_status=exit_code << 8)
            self.assertEqual((info.advice, info.exit_code), ("", exit_code))


class States(unittest.TestCase):
    def test_every_word_of_slurm(self) -> None:
        cases = {
            JobState.PENDING: "PENDING CONFIGURING REQUEUED REQUEUE_HOLD REQUEUE_FED RESV_DEL_HOLD "
            "SPECIAL_EXIT POWER_UP_NODE EXPEDITING",
            JobState.RUNNING: "RUNNING RESIZING SIGNALING",
            JobState.SUSPENDED: "SUSPENDED STOPPED",
            JobState.COMPLETING: "COMPLETING STAGE_OUT",
            JobState.FAILED: "FAILED LAUNCH_FAILED RECONFIG_FAIL",
            JobState.CANCELLED: "CANCELLED REVOKED",
        }
        for state, words in cases.items():
            for word in words.split():
                self.assertIs(slurm_states.parse_state(word), state, word)
        for state in JobState:
            self.assertIs(slurm_states.parse_state(state.value), state)
        self.assertIs(slurm_states.parse_state("CANCELLED by 1001"), JobState.CANCELLED)

    def test_words_of_the_future_are_unknown_and_shown(self) -> None:
        self.assertIs(slurm_states.parse_state("TELEPORTED"), JobState.UNKNOWN)
        self.assertIs(slurm_states.parse_state(""), JobState.UNKNOWN)
        self.assertEqual(queue_row("TELEPORTED").reason, "TELEPORTED")


class CapturedText(unittest.TestCase):
    """Output of real clusters."""

    def test_scontrol(self) -> None:
        lines = _SCONTROL.read_text().splitlines()
        pending, running = map(slurm_text.parse_controller, lines)
        assert pending is not None and running is not None
        self.assertEqual((pending.job_id, pending.name, pending.nodes), ("2", "pending-big", ()))
        self.assertEqual((pending.state, pending.reason), (JobState.PENDING, "Resources"))
        self.assertEqual((running.job_id, running.name), ("1", "vllm-serve"))
        self.assertEqual((running.nodes, running.elapsed_s), (("node3", "node4"), 3.0))

    def test_text_that_is_something_else(self) -> None:
        for text in ("", "No jobs in the system", "slurm_load_jobs error: x", "1|RUNNING", "\x1f\x1f\x1f"):
            self.assertIsNone(slurm_text.parse_controller(text))
            self.assertEqual(slurm_text.parse_queue(text), {})
            self.assertEqual(slurm_text.parse_accounting(text), {})

    def test_times(self) -> None:
        for text, seconds in (
            *(("0:03", 3.0), ("12:00", 720.0), ("1:02:03", 3723.0), ("2-01:00:00", 176400.0)),
            *(("UNLIMITED", None), ("INVALID", None), ("N/A", None), ("NOT_SET", None)),
        ):
            info = queue_row("RUNNING", used=text)
            self.assertEqual((info.elapsed_s, info.time_left_s), (seconds, seconds), text)

    def test_exit_status(self) -> None:
        # 3893 is what Slurm 22.05 shows for a job whose log could not be opened, which scontrol calls 0:53.
        for status, ending in (
            ("768", (3, None)),
            ("15", (None, 15)),
            ("3893", (None, 53)),
            ("?", (None, None)),
        ):
            info = queue_row("FAILED", exit_status=status)
            self.assertEqual((info.exit_code, info.signal), ending, status)

    def test_accounting_keeps_who_cancelled_and_does_not_count_a_lost_node_as_a_restart(self) -> None:
        rows = [
            ["7", "RESIZING", "10", "node[1-2]", "0:0", "None", "x"],
            ["7", "CANCELLED by 1001", "20", "node1", "0:0", "None", "x"],
        ]
        info = slurm_text.parse_accounting("\n".join(map(slurm_text.SEPARATOR.join, rows)))["7"]
        self.assertEqual((info.state, info.reason), (JobState.CANCELLED, "CANCELLED by 1001"))
        self.assertEqual((info.restarts, info.nodes), (0, ("node1",)))


if __name__ == "__main__":
    unittest.main()
