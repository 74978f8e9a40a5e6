"""Real worker processes behind one start: together from the first operation, none left behind."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from test.fakes.clock import FakeClock
from test.fakes.waiting import eventually

from aifbench.cluster.endpoint import Endpoint
from aifbench.cluster.jobs import JobInfo, JobSpec, JobState
from aifbench.errors import FleetError, SchedulerUnavailable
from aifbench.load import rendezvous as rv
from aifbench.load.arrivals import AnyArrivals, Closed, Constant, to_json
from aifbench.load.fleet import Fleet, JobLauncher, LocalLauncher, PhaseOutcome
from aifbench.load.plan import PhasePlan, Quality, StreamPlan, WorkerReport
from aifbench.load.progress import LoadStatus, Silent
from aifbench.load.recorder import UNCHECKED, count_rows, pack_row, rows_path, unfinished_row
from aifbench.load.worker import place
from aifbench.load.workload import OutcomeKind

TOP = Path(__file__).resolve().parents[1]
SLEEP = "test.fakes.workloads:Sleep"
BAD = "test.fakes.workloads:Bad"

COORDINATE = """
import json, sys
from pathlib import Path
from aifbench.load.fleet import Fleet, LocalLauncher
from aifbench.load.plan import PhasePlan
from aifbench.load.progress import Silent
plan = PhasePlan.from_json(json.loads(sys.argv[2]))
with Fleet(Path(sys.argv[1]), LocalLauncher(), workers=2) as fleet:
    fleet.run(plan, Silent(), watch=str)
"""


def stream(arrivals: AnyArrivals, name: str = "s", **options: Any) -> StreamPlan:
    return StreamPlan(name, **{"workload": SLEEP, "params": {}, **options}, arrivals=to_json(arrivals))


def phase(*streams: StreamPlan, **timing: Any) -> PhasePlan:
    return PhasePlan("p", streams, Endpoint("127.0.0.1", 1), **{"measure_s": 0.3, **timing})


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


class Watcher(Silent):
    def __init__(self) -> None:
        self.updates: list[LoadStatus] = []
        self.notes: list[str] = []

    def update(self, status: LoadStatus) -> None:
        self.updates.append(status)

    def note(self, text: str) -> None:
        self.notes.append(text)


class FleetCase(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name) / "fleet"
        self.progress = Watcher()

    def run_phase(self, plan: PhasePlan, watch: Callable[[], str] = lambda: "") -> PhaseOutcome:
        with self.fleet(plan) as fleet:
            outcome = fleet.run(plan, self.progress, watch=watch)
        self.assert_nothing_runs()
        return outcome

    def fleet(self, *plans: PhasePlan, **options: Any) -> Fleet:
        return Fleet(
            self.root,
            LocalLauncher(),
            workers=max(sum(s.workers for s in plan.streams) for plan in plans),
            **options,
        )

    def pids(self, number: int = 0) -> list[int]:
        """Of the workers that are ready for a phase."""
        files = sorted(rv.phase_dir(self.root, number).glob("ready-*.json"))
        return [json.loads(file.read_text())["pid"] for file in files]

    def assert_nothing_runs(self) -> None:
        self.assertEqual([pid for pid in self.pids() if is_running(pid)], [])

    def count(self, name: str) -> int:
        return count_rows(rv.phase_dir(self.root, 0), name)


class Phases(FleetCase):
    def test_streams_and_phases_share_workers_and_starts(self) -> None:
        search = stream(Closed(4), "a", workers=2, qualities=(Quality("even"),))
        ingest = stream(Constant(100), "a-b", limit=20)
        first, second = phase(search, ingest), phase(stream(Closed(1), limit=7), measure_s=None)
        with self.fleet(first, second) as fleet:
            outcome = fleet.run(first, self.progress, watch=lambda: "")
            again = fleet.run(second, self.progress, watch=lambda: "")
        self.assert_nothing_runs()

        self.assertEqual((outcome.problem, outcome.interrupted), ("", False))
        self.check_search(outcome, search)
        self.assertEqual(outcome.samples(ingest).intended_ns.tolist(), [n * 10_000_000 for n in range(20)])
        self.check_start(outcome)
        self.assertEqual(len(again.samples(second.streams[0])), 7)
        self.assertEqual(self.pids(1), self.pids(0)[:1])
        outcome.discard_raw(search)
        self.assertEqual((len(outcome.samples(search)), len(outcome.samples(ingest))), (0, 20))

    def check_search(self, outcome: PhaseOutcome, search: StreamPlan) -> None:
        samples, reports = outcome.samples(search), outcome.reports(search)
        self.assertEqual([report.worker for report in reports], [0, 1])
        self.assertEqual(sum(report.operations for report in reports), len(samples))
        self.assertEqual(sorted(samples.index.tolist()), sorted(set(samples.index.tolist())))
        for worker in (0, 1):
            mine = samples.select(samples.worker == worker)
            self.assertEqual(mine.intended_ns[:2].tolist(), [0, 0])
            self.assertEqual(set((mine.index % 2).tolist()), {worker})
            self.assertEqual(mine.qualities[:, 0].tolist(), (mine.index % 2).tolist())

    def check_start(self, outcome: PhaseOutcome) -> None:
        """Nobody starts before everybody is ready."""
        ready = [file.stat().st_mtime for file in outcome.directory.glob("ready-*.json")]
        self.assertEqual(len(ready), 3)
        self.assertLess(max(ready), outcome.start_wall_s)


class EarlyEnds(FleetCase):
    def test_a_killed_worker_is_a_problem_and_keeps_its_samples(self) -> None:
        plan = phase(stream(Closed(2), workers=2), measure_s=60.0)
        killed: list[int] = []

        def kill_one() -> str:
            if not killed and min(self.count("s-0"), self.count("s-1")) > 0:
                killed.append(self.pids()[1])
                os.kill(killed[0], signal.SIGKILL)
            return ""

        outcome = self.run_phase(plan, kill_one)
        self.assertEqual(outcome.problem, "load worker 1 ended (signal 9)")
        samples = outcome.samples(plan.streams[0])
        self.assertEqual(set(samples.worker.tolist()), {0, 1})
        alive, lost = outcome.reports(plan.streams[0])
        self.assertEqual((alive.failure, alive.operations), ("", int((samples.worker == 0).sum())))
        self.assertEqual(lost.failure, outcome.problem)

    def test_workers_that_were_told_to_end_have_not_done_all(self) -> None:
        plan = phase(stream(Closed(1)), measure_s=60.0)

        def cancel() -> str:
            if self.count("s-0"):
                os.kill(self.pids()[0], signal.SIGTERM)
            return ""

        outcome = self.run_phase(plan, cancel)
        self.assertRegex(outcome.problem, "load worker.* ended")
        (report,) = outcome.reports(plan.streams[0])
        self.assertTrue(report.terminated)
        self.assertEqual(report.operations, len(outcome.samples(plan.streams[0])))

    def test_a_reason_to_give_up_ends_the_phase(self) -> None:
        plan = phase(stream(Closed(1)), measure_s=60.0)
        outcome = self.run_phase(plan, lambda: "the service died" if self.count("s-0") else "")
        self.assertEqual(outcome.problem, "the service died")
        operations = len(outcome.samples(plan.streams[0]))
        self.assertEqual(outcome.reports(plan.streams[0])[0].operations, operations)

    def test_ctrl_c_keeps_what_was_measured(self) -> None:
        def interrupt() -> str:
            if self.count("s-0"):
                raise KeyboardInterrupt
            return ""

        plan = phase(stream(Closed(1)), measure_s=60.0)
        outcome = self.run_phase(plan, interrupt)
        self.assertEqual((outcome.problem, outcome.interrupted), ("interrupted by the user", True))
        self.assertGreater(len(outcome.samples(plan.streams[0])), 0)
        self.assertEqual(outcome.reports(plan.streams[0])[0].failure, "")

    def test_workers_end_when_their_coordinator_was_killed(self) -> None:
        plan = phase(stream(Closed(2), workers=2), measure_s=60.0)
        command = [sys.executable, "-c", COORDINATE, str(self.root), json.dumps(plan.to_json())]
        environment = {**os.environ, "PYTHONPATH": str(TOP / "src")}
        with subprocess.Popen(command, env=environment, cwd=TOP) as coordinator:
            try:
                eventually(lambda: min(self.count("s-0"), self.count("s-1")) > 0, "the load runs")
            finally:
                coordinator.kill()
        pids = self.pids()
        eventually(lambda: not any(map(is_running, pids)), "the workers have ended")
        self.assertEqual(len(pids), 2)


class Preparation(FleetCase):
    def refuse(self, *streams: StreamPlan, **options: Any) -> str:
        plan = phase(*streams)
        with self.assertRaises(FleetError) as caught, self.fleet(plan, **options) as fleet:
            fleet.run(plan, self.progress, watch=lambda: "")
        self.assert_nothing_runs()
        return str(caught.exception)

    def bad(self, how: str) -> StreamPlan:
        return stream(Closed(1), "bad", workload=BAD, params={"how": how})

    def test_the_reason_of_a_failure_is_told(self) -> None:
        self.assertRegex(
            self.refuse(stream(Closed(1)), self.bad("fails")),
            "load worker on .* could not prepare: no such collection; create it",
        )

    def test_a_worker_that_ends_is_told_of(self) -> None:
        self.assertRegex(
            self.refuse(stream(Closed(1)), self.bad("ends")),
            r"load worker 1 ended \(exit code 3\); see the worker logs in ",
        )

    def test_one_that_had_no_room_for_its_last_words_is_told_of_as_that(self) -> None:
        with mock.patch("shutil.disk_usage", return_value=mock.Mock(free=0)):
            told = self.refuse(stream(Closed(1)), self.bad("ends"))
        self.assertRegex(
            told, r"load worker 1 ended \(exit code 3\): no space left for .*; see the worker logs"
        )

    def test_a_worker_that_hangs_is_not_waited_for_for_ever(self) -> None:
        began_s = time.monotonic()
        self.assertRegex(
            self.refuse(self.bad("hangs"), ready_timeout_s=0.3), "1 of 1 load workers not ready after 0.3 s"
        )
        self.assertLess(time.monotonic() - began_s, 8.0)


class Scripted:
    """A launcher of one worker that is ready at once and does what the test says."""

    start_lead_s = 0.0
    waiting_for = ""

    def launch(self, root: Path, workers: int) -> None:  # noqa: ARG002 (the protocol's signature)
        self.phase = rv.phase_dir(root, 0)

    def failure(self) -> str:
        rv.write_json(self.phase / rv.ready_file(0), {})
        return ""

    def has_ended(self, worker: int) -> bool:  # noqa: ARG002
        return False

    def stop(self) -> None: ...

    def report(self) -> None:
        report = WorkerReport("s", 0, "host", 1, operations=0, cpu_s=0.0, wall_s=0.0)
        rv.write_json(self.phase / rv.report_file(0), report.to_json())


class Display(FleetCase):
    def test_a_status_a_second_tells_what_came_in_meanwhile(self) -> None:
        clock, worker = FakeClock(), Scripted()
        plan = phase(stream(Closed(1)), warmup_s=1.0, measure_s=2.0)

        def work() -> str:
            """One operation per call, that is every 50 ms; ten fail; after a second they get slower."""
            name = rows_path(worker.phase, "s-0")
            number = count_rows(worker.phase, "s-0")
            kind = OutcomeKind.WRONG if number < 10 else OutcomeKind.OK
            took_ns = 100_000_000 if number <= 21 else 200_000_000
            row = pack_row(number, 0, 0, 0, took_ns, kind, 0, 1, 0, 0, UNCHECKED, UNCHECKED, 0, 0)
            with name.open("ab") as file:
                file.write(row if name.stat().st_size else unfinished_row(0, 0, 0) + row)
            if number == 50:
                worker.report()
            return ""

        with Fleet(self.root, worker, workers=1, clock=clock) as fleet:
            fleet.run(plan, self.progress, watch=work)
        first, second, third, last = self.progress.updates
        self.assertEqual((first.phase, first.planned_s, first.planned_operations), ("p", 3.0, None))
        self.assertEqual([first.operations, second.operations, third.operations], [1, 21, 41])
        self.assertEqual([first.errors, second.errors, third.errors], [1, 10, 10])
        self.assertAlmostEqual(third.rate_per_s, 20.0)
        self.assertAlmostEqual(third.elapsed_s, 2.0)
        self.assertEqual((second.p99_ms, third.p99_ms), (100.0, 200.0))
        self.assertEqual(last.operations, 51)
        told = [stream.operations for status in self.progress.updates for stream in status.streams]
        self.assertEqual(told, [1, 20, 20, 10])
        self.assertEqual([len(status.streams[0].rows) for status in self.progress.updates], told)

    def test_fixed_work_is_planned_by_number(self) -> None:
        worker = Scripted()
        plan = phase(stream(Closed(1), limit=30), measure_s=None)

        def work() -> str:
            if self.progress.updates:
                worker.report()
            return ""

        with Fleet(self.root, worker, workers=1, clock=FakeClock()) as fleet:
            fleet.run(plan, self.progress, watch=work)
        status, _last = self.progress.updates
        self.assertEqual((status.planned_s, status.planned_operations), (None, 30))
        self.assertEqual((status.operations, status.p99_ms), (0, None))


class Places(unittest.TestCase):
    def test_workers_are_dealt_to_streams_in_order(self) -> None:
        a, b = stream(Closed(1), "a", workers=2), stream(Closed(1), "b", workers=1)
        plan = phase(a, b)
        self.assertEqual([place(plan, k) for k in range(4)], [(a, 0), (a, 1), (b, 0), None])

    def test_a_plan_survives_json(self) -> None:
        plan = phase(stream(Closed(1), qualities=(Quality("recall", 0.9, 0.5),), limit=3), warmup_s=1.0)
        self.assertEqual(PhasePlan.from_json(json.loads(json.dumps(plan.to_json()))), plan)


class OneJob:
    """A scheduler with one job, in the state that the test says."""

    kind = "slurm"

    def __init__(self) -> None:
        self.info = JobInfo("7", JobState.PENDING, reason="Priority")
        self.polls = 0
        self.is_silent = False
        self.cancelled: list[str] = []
        self.lost_answer: BaseException | None = None

    def submit(self, spec: JobSpec) -> str:
        self.name = spec.name
        if self.lost_answer:
            raise self.lost_answer
        return "7"

    def find(self, name: str) -> list[JobInfo]:
        return [self.info] if name == self.name else []

    def poll(self, job_ids: Collection[str]) -> Mapping[str, JobInfo]:
        self.polls += 1
        if self.is_silent:
            raise SchedulerUnavailable("Socket timed out")
        return dict.fromkeys(job_ids, self.info)

    def cancel(self, job_ids: Sequence[str]) -> None:
        if self.is_silent:
            raise SchedulerUnavailable("Socket timed out")
        self.cancelled += job_ids


class ClientJobs(unittest.TestCase):
    def setUp(self) -> None:
        self.jobs = OneJob()
        self.clock = FakeClock()
        self.launcher = JobLauncher(self.jobs, self.spec, clock=self.clock)
        self.launcher.launch(Path("/x"), 4)

    def spec(self, root: Path, workers: int) -> JobSpec:
        return JobSpec("load", root / f"{workers}.sh", root / "log", root)

    def become(self, state: JobState, **more: Any) -> None:
        self.jobs.info = replace(self.jobs.info, state=state, **more)
        self.clock.sleep(6.0)

    def test_the_queue_is_asked_now_and_then(self) -> None:
        for _ in range(100):
            self.launcher.failure()
        self.assertEqual(self.jobs.polls, 1)

    def test_what_the_workers_wait_for(self) -> None:
        self.assertEqual(self.launcher.waiting_for, "submission")
        self.assertEqual(self.launcher.failure(), "")
        self.assertEqual(self.launcher.waiting_for, "Priority")
        self.become(JobState.RUNNING, reason="")
        self.assertEqual(self.launcher.failure(), "")
        self.assertEqual(self.launcher.waiting_for, "")

    def test_a_job_that_ended_takes_all_workers_along(self) -> None:
        self.assertFalse(self.launcher.has_ended(3))
        self.become(JobState.OUT_OF_MEMORY, advice="ask for more memory")
        self.assertEqual(self.launcher.failure(), "client job 7 ended (OUT_OF_MEMORY); ask for more memory")
        self.assertTrue(self.launcher.has_ended(3))

    def test_what_a_worker_said_of_its_end_is_told(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            launcher = JobLauncher(self.jobs, self.spec, clock=self.clock)
            launcher.launch(Path(folder), 1)
            log = Path(folder) / "log"
            log.write_text("Traceback\nImportError: numpy\nsrun: error: node1: task 0: Exited\n")
            self.become(JobState.FAILED)
            self.assertEqual(launcher.failure(), "client job 7 ended (FAILED): ImportError: numpy")

    def test_a_job_whose_id_was_never_told_is_found_and_cancelled(self) -> None:
        for error in (KeyboardInterrupt(), SchedulerUnavailable("Socket timed out")):
            self.jobs.lost_answer, self.jobs.cancelled = error, []
            launcher = JobLauncher(self.jobs, self.spec, clock=self.clock)
            with self.assertRaises(type(error)):
                launcher.launch(Path("/x"), 4)
            launcher.stop()
            self.assertEqual(self.jobs.cancelled, ["7"])

    def test_a_job_that_waits_for_nodes_to_come_back_is_waited_for(self) -> None:
        self.become(JobState.PENDING, reason="ReqNodeNotAvail", advice="it waits for nodes that are down")
        self.assertEqual(self.launcher.failure(), "")
        self.assertEqual(self.launcher.waiting_for, "ReqNodeNotAvail")

    def test_a_job_that_was_requeued_has_lost_its_workers(self) -> None:
        self.become(JobState.PENDING, reason="BeginTime", restarts=1)
        self.assertIn("client job 7 was requeued", self.launcher.failure())
        self.assertTrue(self.launcher.has_ended(3))

    def test_a_job_that_will_never_start_is_a_failure(self) -> None:
        self.become(
            JobState.PENDING, reason="QOSMaxNodePerUserLimit", advice="ask for fewer nodes", is_stuck=True
        )
        self.assertIn("will not start (QOSMaxNodePerUserLimit): ask for fewer nodes", self.launcher.failure())

    def test_a_controller_that_does_not_answer_ends_nothing(self) -> None:
        self.become(JobState.RUNNING)
        self.jobs.is_silent = True
        self.assertEqual(self.launcher.failure(), "")
        self.launcher.stop()
        self.assertEqual(self.jobs.cancelled, [])

    def test_a_job_is_cancelled_when_it_does_not_end_itself(self) -> None:
        self.launcher.stop()
        self.assertEqual(self.jobs.cancelled, ["7"])
        self.become(JobState.COMPLETED)
        self.launcher.stop()
        self.assertEqual(self.jobs.cancelled, ["7"])


if __name__ == "__main__":
    unittest.main()
