"""What SlurmServer says of a service between submission and end, on good days and bad ones."""

import unittest

from test.fakes.disk import full_disk
from test.fakes.site import FakeService, SiteCase, announce, block

from aifbench.cluster.endpoint import Endpoint
from aifbench.cluster.jobs import JobInfo, JobState
from aifbench.errors import NotReady, ServiceDied
from aifbench.servers.base import Probe
from aifbench.servers.status import ServiceStatus, Stage

ELSEWHERE = Endpoint("10.3.0.9", 9000)
READY = Probe(is_ready=True, version="1.0")


class StatusCase(SiteCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = self.start()
        self.job_id = self.server.instance.job_id

    def status(self) -> ServiceStatus:
        """What anybody sees now: no answer is remembered from before."""
        self.clock.sleep(5.0)
        return self.server.status()

    def stage(self) -> Stage:
        return self.status().stage

    def check(self, wait_s: float = 60.0) -> ServiceStatus:
        return self.server.check(wait_s=wait_s)

    def after(self, delay_s: float, action: object) -> None:
        """`action` happens while somebody waits, once."""
        due_s = self.clock.elapsed_s + delay_s
        actions = [action]

        def happen() -> None:
            if actions and self.clock.elapsed_s >= due_s:
                actions.pop()()  # type: ignore[operator]

        self.clock.on_sleep = happen


class Life(StatusCase):
    def test_queued_starting_ready(self) -> None:
        status = self.status()
        self.assertEqual((status.stage, status.detail), (Stage.QUEUED, "Priority"))
        self.slurm.start(self.job_id, "mel[2001-2002]")
        status = self.status()
        self.assertEqual((status.stage, status.job.nodes), (Stage.STARTING, ("mel2001", "mel2002")))
        announce(self.server, ELSEWHERE)
        self.assertEqual(self.status().detail, "connection refused")
        FakeService.network[9000] = READY
        status = self.status()
        self.assertEqual((status.stage, status.endpoint), (Stage.READY, ELSEWHERE))
        self.assertIn("no authentication", status.detail)

    def test_readiness_is_noticed_within_a_second_of_the_answer(self) -> None:
        self.run_and_announce(self.server)
        self.after(7.0, lambda: FakeService.network.update({8000: READY}))
        self.assertEqual(self.check().stage, Stage.READY)
        self.assertLess(self.clock.elapsed_s, 8.0)

    def test_a_ready_service_that_does_not_answer_is_silent_and_not_starting(self) -> None:
        self.make_ready(self.server)
        self.status()
        del FakeService.network[8000]
        status = self.status()
        self.assertEqual((status.stage, status.is_alive), (Stage.SILENT, True))
        self.assertIn("logs fake", status.advice)
        self.assertEqual(self.reopen(self.server).status().stage, Stage.SILENT)

    def test_waiting_tells_how_it_goes(self) -> None:
        stages: list[Stage] = []
        self.after(3.0, lambda: self.make_ready(self.server))
        self.server.check(wait_s=60.0, progress=lambda status: stages.append(status.stage))
        self.assertEqual(sorted({*stages}, key=stages.index), [Stage.QUEUED, Stage.READY])

    def test_without_waiting_check_tells_and_does_not_raise(self) -> None:
        self.assertEqual(self.server.check().stage, Stage.QUEUED)
        self.slurm.end(self.job_id, "FAILED", exit_code=1)
        self.clock.sleep(5.0)
        self.assertEqual(self.server.check().stage, Stage.FAILED)

    def test_ctrl_c_while_waiting_changes_nothing(self) -> None:
        def interrupt(_: ServiceStatus) -> None:
            raise KeyboardInterrupt

        with self.assertRaises(KeyboardInterrupt):
            self.server.check(wait_s=60.0, progress=interrupt)
        self.assertEqual(self.slurm.jobs[1].state, "PENDING")
        self.make_ready(self.server)
        self.assertEqual(self.reopen(self.server).check(wait_s=60.0).stage, Stage.READY)


class Announcements(StatusCase):
    def test_a_stale_log_of_an_older_job_is_not_believed(self) -> None:
        self.slurm.start(self.job_id)
        self.server.log_path.write_text(block("99", ELSEWHERE))
        FakeService.network[9000] = READY
        self.assertEqual(self.stage(), Stage.STARTING)
        self.assertEqual(FakeService.probed, [])

    def test_an_address_of_another_machine_is_not_used_here(self) -> None:
        """Without Slurm a service listens on 127.0.0.1: of the machine it was started on."""
        self.make_ready(self.server)
        elsewhere = JobInfo(self.job_id, JobState.UNKNOWN, advice="it was started on login2: look there")
        status = self.server.observe(elsewhere)
        self.assertEqual((status.stage, status.detail), (Stage.UNKNOWN, elsewhere.advice))
        self.assertEqual(FakeService.probed, [])

    def test_what_the_service_itself_prints_is_not_believed(self) -> None:
        self.make_ready(self.server)
        with self.server.log_path.open("a") as log:
            log.write(f"IP ADDRESS: {ELSEWHERE.host}\nPORT: {ELSEWHERE.port}\n")
            log.write(block(self.job_id, ELSEWHERE))
            log.write(block(self.job_id, ELSEWHERE, restarts=7))
        status = self.status()
        assert status.endpoint is not None
        self.assertEqual(status.endpoint.port, 8000)

    def test_a_log_may_come_late_and_torn_and_be_no_text(self) -> None:
        self.slurm.start(self.job_id)
        self.assertEqual(self.status().detail, "no address yet")
        whole = b"\xff\xfe\x00 not text\n" + block(self.job_id, ELSEWHERE).encode()
        self.server.log_path.write_bytes(whole[:-10])
        self.assertEqual(self.stage(), Stage.STARTING)
        FakeService.network[9000] = READY
        self.server.log_path.write_bytes(whole)
        self.assertEqual(self.stage(), Stage.READY)

    def test_a_requeued_job_is_looked_for_at_its_new_address(self) -> None:
        self.make_ready(self.server, 8000)
        self.status()
        self.slurm.requeue(self.job_id)
        status = self.status()
        self.assertEqual((status.stage, status.endpoint), (Stage.QUEUED, None))
        self.slurm.start(self.job_id, "node2")
        self.assertEqual(self.stage(), Stage.STARTING)
        announce(self.server, ELSEWHERE, restarts=1)
        FakeService.network[9000] = READY
        status = self.status()
        self.assertEqual((status.stage, status.endpoint), (Stage.READY, ELSEWHERE))
        self.assertEqual(self.server.describe()["endpoint"]["host"], ELSEWHERE.host)

    def test_what_was_ready_is_lost_by_a_requeue_and_by_an_end(self) -> None:
        self.make_ready(self.server)
        self.status()
        self.assertEqual(self.server.loss(), "")
        self.slurm.requeue(self.job_id)
        self.assertEqual(self.server.loss(max_age_s=0.0), "job 1 was requeued and starts anew")
        self.slurm.end(self.job_id, "TIMEOUT")
        self.assertRegex(self.server.loss(max_age_s=0.0), "job 1 ended: TIMEOUT .*--time")

    def test_right_after_a_requeue_the_old_run_is_still_ending(self) -> None:
        self.make_ready(self.server)
        self.status()
        self.slurm.requeue(self.job_id)
        self.slurm.jobs[1].state = "COMPLETING"
        status = self.status()
        self.assertEqual((status.stage, status.detail), (Stage.QUEUED, "its job is ending"))

    def test_a_service_that_asks_for_a_token_is_given_the_one_of_its_job(self) -> None:
        self.slurm.start(self.job_id)
        announce(self.server, ELSEWHERE, auth="token")
        self.status()
        self.assertEqual(FakeService.probed[-1].secret_file, self.server.secret_path)


class Deaths(StatusCase):
    def death(self) -> ServiceDied:
        with self.assertRaises(ServiceDied) as caught:
            self.check()
        return caught.exception

    def test_each_kind_of_end_is_told_with_what_to_do(self) -> None:
        ends = [
            ("TIMEOUT", 0, 15, "--time"),
            ("OUT_OF_MEMORY", 0, 125, "more memory"),
            ("NODE_FAIL", 0, 0, "a node failed"),
            ("PREEMPTED", 0, 9, "higher priority"),
            ("FAILED", 127, 0, "not found"),
        ]
        for state, exit_code, signal, advice in ends:
            server = self.start(name=state.lower())
            self.make_ready(server)
            server.status(max_age_s=0.0)
            self.slurm.end(server.instance.job_id, state, exit_code=exit_code, signal=signal)
            self.clock.sleep(5.0)
            status = self.reopen(server).status()
            self.assertEqual((status.stage, status.job.state), (Stage.FAILED, JobState(state)))
            self.assertIn(state, status.detail)
            self.assertIn(advice, status.advice)
            with self.assertRaisesRegex(ServiceDied, state):
                self.reopen(server).ready_endpoint()

    def test_one_that_dies_while_somebody_waits_is_told_at_once_with_its_last_words(self) -> None:
        self.slurm.start(self.job_id)
        self.server.log_path.write_text("one\n\n" + "".join(f"line {n}\n" for n in range(9)) + "port taken\n")
        self.after(10.0, lambda: self.slurm.end(self.job_id, "FAILED", exit_code=1))
        error = self.death()
        self.assertEqual(error.message, "fake: job 1 ended: FAILED, exit code 1")
        self.assertIn("| line 8\n  | port taken", error.hint)
        self.assertNotIn("| line 4", error.hint)
        self.assertLess(self.clock.elapsed_s, 13.0)

    def test_one_dead_before_its_first_line_is_told_too(self) -> None:
        self.slurm.end(self.job_id, "FAILED", signal=53)
        self.assertIn("could not open the log file", self.death().hint)

    def test_an_end_is_remembered_when_slurm_has_forgotten_it(self) -> None:
        self.slurm.end(self.job_id, "TIMEOUT")
        self.status()
        self.slurm.forget(self.job_id)
        self.slurm.accounting = "missing"
        self.slurm.calls.clear()
        status = self.reopen(self.server).status()
        self.assertEqual((status.stage, status.detail), (Stage.FAILED, "job 1 ended: TIMEOUT"))
        self.assertIn("--time", status.advice)
        self.assertEqual(self.slurm.calls, [])

    def test_a_full_disk_does_not_hide_it(self) -> None:
        self.make_ready(self.server)
        with full_disk():
            self.assertEqual(self.stage(), Stage.READY)
            self.slurm.end(self.job_id, "TIMEOUT")
            self.assertEqual([self.stage(), self.stage()], [Stage.FAILED] * 2)


class NeverReady(StatusCase):
    def test_a_reason_that_never_resolves_is_told_at_once(self) -> None:
        self.slurm.pend(self.job_id, "PartitionTimeLimit")
        with self.assertRaises(NotReady) as caught:
            self.check(600.0)
        self.assertIn("fake will not start: PartitionTimeLimit", caught.exception.message)
        self.assertIn("lower --time", caught.exception.hint)
        self.assertLess(self.clock.elapsed_s, 1.0)

    def test_nodes_that_may_come_back_are_waited_for(self) -> None:
        self.slurm.pend(self.job_id, "ReqNodeNotAvail, UnavailableNodes:node[1-2]")
        with self.assertRaises(NotReady) as caught:
            self.check(30.0)
        self.assertIn("not ready after 30 s: QUEUED, ReqNodeNotAvail", caught.exception.message)
        self.assertIn("down, drained or reserved", caught.exception.hint)
        self.after(300.0, lambda: self.make_ready(self.server))
        self.assertEqual(self.check(600.0).stage, Stage.READY)

    def test_an_ordinary_queue_is_waited_for(self) -> None:
        self.after(300.0, lambda: self.make_ready(self.server))
        self.assertEqual(self.check(600.0).stage, Stage.READY)

    def test_one_that_starts_and_never_answers_is_told_after_the_wait(self) -> None:
        self.run_and_announce(self.server)
        with self.assertRaises(NotReady) as caught:
            self.check(30.0)
        self.assertIn("not ready after 30 s: STARTING, connection refused", caught.exception.message)
        self.assertIn("logs fake", caught.exception.hint)
        self.assertAlmostEqual(self.clock.elapsed_s, 30.0, delta=1.0)

    def test_waiting_asks_the_scheduler_seldom(self) -> None:
        self.run_and_announce(self.server)
        self.slurm.calls.clear()
        with self.assertRaises(NotReady):
            self.check(60.0)
        self.assertLessEqual(len(self.slurm.calls), 31)


class SchedulerTrouble(StatusCase):
    def test_a_silent_controller_leaves_the_last_state_and_says_so(self) -> None:
        self.slurm.controller = "down"
        status = self.status()
        self.assertEqual(status.stage, Stage.UNKNOWN)
        self.slurm.controller = "up"
        self.clock.sleep(5.0)
        self.make_ready(self.server)
        self.assertEqual(self.stage(), Stage.READY)
        self.slurm.controller = "down"
        self.slurm.controller_back_at_s = self.clock.elapsed_s + 60.0
        for _ in range(6):
            status = self.status()
            self.assertEqual((status.stage, status.job.state), (Stage.READY, JobState.RUNNING))
            self.assertRegex(status.detail, "no news: squeue did not answer: .*Unable to contact slurm")
            self.clock.sleep(1.0)
        self.assertNotIn("no news", self.status().detail)

    def test_a_service_that_is_waited_for_survives_it(self) -> None:
        self.slurm.controller = "hung"
        self.slurm.controller_back_at_s = self.clock.elapsed_s + 60.0
        self.after(70.0, lambda: self.make_ready(self.server))
        self.assertEqual(self.check(300.0).stage, Stage.READY)

    def test_unknown_never_reads_as_ended(self) -> None:
        self.make_ready(self.server)
        self.status()
        self.slurm.forget(self.job_id)
        self.slurm.accounting = "missing"
        self.assertEqual(self.stage(), Stage.READY)
        self.assertIn("scheduler cannot tell", self.status().detail)
        FakeService.network.clear()
        self.clock.sleep(100_000.0)
        self.assertTrue(self.status().is_alive)
        self.assertTrue(self.server.instance.is_open)


class ClockSteps(StatusCase):
    def test_they_do_not_change_how_long_it_took(self) -> None:
        self.make_ready(self.server)
        for step_s in (-86_400.0, 2 * 86_400.0):
            self.clock.step_wall(step_s)
            self.assertEqual(self.status().stage, Stage.READY)
        self.assertEqual(self.server.instance.ready_after_s, 5.0)

    def test_a_service_submitted_on_another_machine_never_took_less_than_nothing(self) -> None:
        self.shell.instances.update(self.server.instance, boot_id="another")
        server = self.reopen(self.server)
        self.make_ready(server)
        self.clock.step_wall(-86_400.0)
        self.assertEqual(server.status().ready_after_s, 0.0)

    def test_waiting_is_neither_cut_short_nor_endless(self) -> None:
        self.run_and_announce(self.server)
        self.after(5.0, lambda: self.clock.step_wall(1e6))
        with self.assertRaises(NotReady):
            self.check(30.0)
        self.assertAlmostEqual(self.clock.elapsed_s, 30.0, delta=1.0)


if __name__ == "__main__":
    unittest.main()
