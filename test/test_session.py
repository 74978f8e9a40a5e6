"""Session: several services and several shells on one results directory, and a Slurm that has its days."""

import threading
import unittest
import unittest.mock
from collections.abc import Sequence
from typing import Any

from test.fakes.chroma import FakeChroma
from test.fakes.records import sample_record
from test.fakes.site import SHELL, SiteCase, announce

from aifbench.cluster.command import CommandResult
from aifbench.cluster.jobs import JobState
from aifbench.cluster.slurm_cli import SlurmCli
from aifbench.errors import (
    ConfigError,
    SchedulerUnavailable,
    ServiceError,
    SubmitError,
    UnknownRun,
    UnknownService,
    UsageError,
)
from aifbench.load.progress import Silent
from aifbench.monitor.live import RunView
from aifbench.servers.status import ServiceStatus, Stage
from aifbench.session import Session, choose_scheduler
from aifbench.session.services import SHOW_ENDED_S


class SessionCase(SiteCase):
    def setUp(self) -> None:
        super().setUp()
        self.session = self.open()

    def open(self) -> Session:
        """Another shell."""
        return Session(self.config, scheduler=self.scheduler(), clock=self.clock, environ=SHELL)

    def ready(self, chroma: FakeChroma, name: str = "chroma") -> None:
        server = self.session.server(name)
        self.slurm.start(server.instance.job_id)
        announce(server, chroma.endpoint)

    def status(self, name: str = "chroma", session: Session | None = None) -> ServiceStatus:
        self.clock.sleep(5.0)
        found = {status.name: status for status in (session or self.session).status()}
        return found[name]

    def shown(self) -> list[str]:
        self.clock.sleep(5.0)
        return [status.name for status in self.session.status()]


class Services(SessionCase):
    def test_a_whole_life_seen_from_two_shells(self) -> None:
        other = self.open()
        with FakeChroma() as chroma:
            self.assertEqual(self.session.start("chroma", {}).stage, Stage.QUEUED)
            self.assertEqual(self.status(session=other).stage, Stage.QUEUED)
            self.ready(chroma)
            self.assertEqual(other.check("chroma", wait_s=10.0).stage, Stage.READY)
            self.assertEqual(self.status().stage, Stage.READY)
            self.assertEqual(other.stop(["chroma"])[0].stage, Stage.ENDED)
            self.assertEqual(self.status().stage, Stage.ENDED)
        self.assertEqual((self.session.instances(), other.instances()), ([], []))

    def test_two_services_of_a_kind(self) -> None:
        self.session.start("chroma", {})
        self.clock.sleep(1.0)
        self.session.start("chroma", {"name": "b"})
        self.assertEqual(self.session.instances(), ["chroma", "b"])
        self.session.stop(["b"])
        self.assertEqual(self.session.instances(), ["chroma"])
        self.assertEqual(self.slurm.jobs[1].state, "PENDING")

    def test_what_the_site_tells_at_submission_reaches_the_user(self) -> None:
        self.slurm.site_message = "sbatch: Project p200981: 1234 node-hours left\nsbatch: Be nice\n"
        status = self.session.start("chroma", {})
        self.assertIn("Project p200981: 1234 node-hours left; Be nice", status.detail)
        self.assertNotIn("node-hours", self.status().detail)

    def test_a_refusal_leaves_no_service(self) -> None:
        self.slurm.refusal = (1, "sbatch: error: invalid partition specified: nope\n")
        with self.assertRaisesRegex(SubmitError, "invalid partition specified: nope"):
            self.session.start("chroma", {"partition": "nope"})
        self.assertEqual(self.session.status(), [])

    def test_unknown_words_get_the_nearest(self) -> None:
        with self.assertRaisesRegex(UnknownService, "did you mean 'chroma'"):
            self.session.start("croma", {})
        self.session.start("chroma", {})
        for ask in (self.session.check, self.session.logs, self.session.kind_of):
            with self.assertRaisesRegex(UnknownService, "'chrome' .did you mean 'chroma'.*running: chroma"):
                ask("chrome")
        with self.assertRaisesRegex(UsageError, "no benchmark 'serch'.*search"):
            self.session.bench("chroma", "serch", {}, Silent())

    def test_a_benchmark_tells_of_another_one_on_the_same_service(self) -> None:
        self.session.start("chroma", {})
        said = unittest.mock.create_autospec(Silent, instance=True)
        view = RunView("20261120-131455-chroma-a3f9", "search", ("chroma",), None)
        with unittest.mock.patch("aifbench.monitor.live.RunWatch.look", side_effect=[None, view]):
            for _ in range(2):
                with self.assertRaises(ServiceError):  # it is QUEUED
                    self.session.bench("chroma", "search", {}, said)
        notes = [call.args[0] for call in said.note.call_args_list if "loads chroma now" in call.args[0]]
        self.assertEqual(len(notes), 1)
        self.assertIn(view.run_id, notes[0])

    def test_more_nodes_than_it_can_use_are_refused(self) -> None:
        with self.assertRaisesRegex(UsageError, "--nodes 2 is too many for chroma"):
            self.session.start("chroma", {"nodes": "2"})

    def test_a_new_service_takes_the_place_of_an_ended_one(self) -> None:
        self.session.start("chroma", {})
        self.session.stop(["chroma"])
        self.clock.step_wall(-3600.0)  # what ended seems younger than what lives
        self.session.start("chroma", {})
        self.assertEqual(self.session.server("chroma").instance.job_id, "2")
        self.assertEqual((self.status().stage, self.shown()), (Stage.QUEUED, ["chroma"]))

    def test_a_death_is_shown_for_a_while_however_long_the_service_had_run(self) -> None:
        self.session.start("chroma", {})
        self.slurm.start("1")
        self.clock.sleep(100 * SHOW_ENDED_S)
        self.slurm.end("1", "NODE_FAIL")
        self.assertEqual(self.status().stage, Stage.FAILED)
        self.assertEqual(self.status(session=self.open()).stage, Stage.FAILED)
        self.clock.sleep(SHOW_ENDED_S)
        self.assertEqual(self.shown(), [])

    def test_a_running_service_is_shown_whatever_the_wall_clock_says(self) -> None:
        self.session.start("chroma", {})
        for step_s in (1e8, -2e8):
            self.clock.step_wall(step_s)
            self.assertEqual(self.shown(), ["chroma"])

    def test_damaged_state_of_one_service_hides_no_other(self) -> None:
        self.session.start("chroma", {})
        self.session.start("chroma", {"name": "b"})
        (self.session.server("b").directory / "service.json").write_bytes(b'{"schema": "aifb')
        self.assertEqual(self.shown(), ["chroma"])


class Stopping(SessionCase):
    def setUp(self) -> None:
        super().setUp()
        for name in ("a", "b", "c"):
            self.session.start("chroma", {"name": name})

    def test_all(self) -> None:
        statuses = self.session.stop(["all"])
        self.assertEqual([(s.name, s.stage) for s in statuses], [(name, Stage.ENDED) for name in "abc"])
        self.assertEqual(self.session.stop(["all"]), [])

    def test_an_unknown_name_stops_none(self) -> None:
        with self.assertRaises(UnknownService):
            self.session.stop(["a", "nope"])
        self.assertEqual(self.session.instances(), ["a", "b", "c"])

    def test_one_that_does_not_end_does_not_keep_the_others(self) -> None:
        self.slurm.start("1")
        self.slurm.hanging_jobs = {"1"}
        with self.assertRaisesRegex(ServiceError, "job 1 of a is COMPLETING"):
            self.session.stop(["a", "b", "a"])
        self.assertEqual(self.session.instances(), ["a", "c"])

    def test_all_are_asked_before_any_is_waited_for(self) -> None:
        def interrupt() -> None:
            raise KeyboardInterrupt

        self.slurm.hanging_jobs = {"1", "2", "3"}
        self.clock.on_sleep = interrupt
        with self.assertRaises(KeyboardInterrupt):
            self.session.stop(["all"])
        self.assertEqual({job.state for job in self.slurm.jobs.values()}, {"COMPLETING"})


class AtRest(SessionCase):
    def calls_in_a_minute(self, look_every_s: float) -> int:
        self.session.status()
        self.slurm.calls.clear()
        started_s = self.clock.elapsed_s
        while self.clock.elapsed_s < started_s + 60.0:
            self.clock.sleep(look_every_s)
            self.session.status(max_age_s=5.0)
        return len(self.slurm.calls)

    def test_one_call_in_five_seconds_whatever_the_number_of_services(self) -> None:
        with FakeChroma() as chroma:
            for number in range(12):
                self.session.start("chroma", {"name": f"s{number}"})
            for number in range(6):
                self.ready(chroma, f"s{number}")
            self.slurm.end("12", "FAILED")
            self.assertLessEqual(self.calls_in_a_minute(look_every_s=1.0), 12)

    def test_ended_services_cost_nothing(self) -> None:
        self.session.start("chroma", {})
        self.slurm.end("1", "FAILED")
        self.assertEqual(self.status().stage, Stage.FAILED)
        self.session = self.open()
        self.assertEqual(self.calls_in_a_minute(look_every_s=5.0), 0)

    def test_a_submission_that_nobody_answered_costs_little(self) -> None:
        self.slurm.controller = "down"
        with self.assertRaises(SchedulerUnavailable):
            self.session.start("chroma", {})
        self.slurm.controller = "up"
        self.clock.sleep(5.0)
        self.assertLessEqual(self.calls_in_a_minute(look_every_s=1.0), 2 * 12)

    def test_a_new_shell_asks_once_for_all(self) -> None:
        for number in range(5):
            self.session.start("chroma", {"name": f"s{number}"})
        self.slurm.calls.clear()
        self.open().status()
        self.assertEqual(len(self.slurm.calls), 1)


class ControllerGone(SessionCase):
    def test_a_minute_without_it_loses_nothing(self) -> None:
        with FakeChroma() as chroma:
            self.session.start("chroma", {})
            self.ready(chroma)
            self.status()
            self.slurm.controller = "hung"
            self.slurm.controller_back_at_s = self.clock.elapsed_s + 60.0
            newcomer = self.open()
            for session in (self.session, newcomer):
                status = self.status(session=session)
                self.assertEqual(status.stage, Stage.READY)
                self.assertIn("Socket timed out", status.detail)
            self.clock.sleep(60.0)
            for session in (self.session, newcomer):
                status = self.status(session=session)
                self.assertEqual((status.stage, status.job.state), (Stage.READY, JobState.RUNNING))
                self.assertNotIn("no news", status.detail)

    def test_starting_meanwhile_tells_what_is_known(self) -> None:
        self.slurm.controller = "down"
        with self.assertRaisesRegex(SchedulerUnavailable, "Slurm did not answer.*it may exist nevertheless"):
            self.session.start("chroma", {})
        self.assertIn("Unable to contact", self.status().detail)


class Background(SessionCase):
    def test_looking_from_another_thread_while_working_is_safe(self) -> None:
        over = threading.Event()
        problems: list[BaseException] = []

        def look() -> None:
            while not over.is_set():
                try:
                    self.session.status(max_age_s=0.0)
                except BaseException as error:
                    problems.append(error)
                    return

        thread = threading.Thread(target=look)
        thread.start()
        try:
            for number in range(10):
                self.session.start("chroma", {"name": f"s{number}"})
                self.session.stop([f"s{number}"])
        finally:
            over.set()
            thread.join()
        self.assertEqual((problems, self.session.instances()), ([], []))


class Quickstart(SessionCase):
    def test_ctrl_c_at_any_moment_leaves_nothing_running(self) -> None:
        for moment in ("sbatch", "squeue"):
            session = Session(
                self.config, scheduler=self.interrupted_after(moment), clock=self.clock, environ=SHELL
            )
            with self.assertRaises(KeyboardInterrupt):
                session.quickstart(Silent())
            self.assertEqual({job.state for job in self.slurm.jobs.values()}, {"CANCELLED"}, moment)
            self.assertEqual(session.instances(), [])

    def interrupted_after(self, command: str) -> SlurmCli:
        """Ctrl-C once, right after the first such command."""
        left = [command]

        def run(argv: Sequence[str], **options: Any) -> CommandResult:
            result = self.slurm(argv, **options)
            if argv[0] in left:
                left.remove(argv[0])
                raise KeyboardInterrupt
            return result

        return SlurmCli(run, self.clock, SHELL)

    def test_it_takes_a_name_that_is_free(self) -> None:
        self.session.start("chroma", {"name": "quickstart"})
        with self.assertRaises(KeyboardInterrupt):
            session = self.interrupted_after("squeue")
            Session(self.config, scheduler=session, clock=self.clock, environ=SHELL).quickstart(Silent())
        self.assertEqual(self.session.instances(), ["quickstart"])


class Results(SessionCase):
    def keep(self, **changes: Any) -> str:
        """A stored run; its id."""
        made = sample_record(**changes)
        store = self.shell.runs
        record = store.create(made.service, made.recipe)
        store.write(sample_record(run_id=record.run_id, **changes))
        return record.run_id

    def test_a_run_is_saved_by_the_name_of_its_service(self) -> None:
        run_id = self.keep()
        name = str(self.session.run(run_id).service["name"])
        self.assertEqual(self.session.save(name), self.config.results_dir / f"{run_id}.zip")
        with self.assertRaises(UnknownRun):
            self.session.save("nobody")

    def test_a_damaged_or_future_record_hides_no_other(self) -> None:
        good, torn, future = self.keep(), self.keep(), self.keep()
        (self.config.results_dir / torn / "record.json").write_bytes(b'{"schema"')
        (self.config.results_dir / future / "record.json").write_bytes(b'{"schema": "aifbench.run/99"}')
        problems = {run.run_id: run.problem for run in self.session.runs()}
        self.assertEqual(problems[good], "")
        self.assertIn("not complete JSON", problems[torn])
        self.assertIn("aifbench.run/99", problems[future])

    def test_a_report_that_cannot_be_written_is_told(self) -> None:
        run_id = self.keep()
        (self.config.results_dir / run_id / "report.html").mkdir()
        with self.assertRaisesRegex(ConfigError, "cannot write .*report.html.*--out DIR"):
            self.session.report(run_id)


class Choice(SessionCase):
    def test_slurm_where_there_is_none_is_refused_with_a_way_out(self) -> None:
        with unittest.mock.patch.dict("os.environ", {"PATH": "/nowhere"}):
            with self.assertRaises(ConfigError) as caught:
                choose_scheduler(self.make_config(scheduler="slurm"), self.clock)
            self.assertEqual(choose_scheduler(self.make_config(), self.clock).kind, "local")
        self.assertIn("--scheduler local", caught.exception.hint)


if __name__ == "__main__":
    unittest.main()
