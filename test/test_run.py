"""BenchRun with real load workers: a record whatever happens, with the reason, and nothing left behind."""

import json
import os
import socket
import subprocess
import sys
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from test.fakes.chroma import FakeChroma, Faults
from test.fakes.clock import FastClock
from test.fakes.disk import fill_disk, free_disk
from test.fakes.site import PROJECT, SiteCase, announce
from test.fakes.waiting import eventually

from aifbench.cluster import processes
from aifbench.errors import BenchError, FleetError, NotReady, ResultError, ServiceDied, UsageError
from aifbench.load.progress import LoadStatus, Silent
from aifbench.load.samples import Samples
from aifbench.results.record import Check, Measurement, RunRecord, RunState, Verdict
from aifbench.results.store import RunStore
from aifbench.servers.chroma import ChromaServer
from aifbench.session import Session

TINY = {
    "vectors": "150",
    "dim": "8",
    "queries": "20",
    "batch": "50",
    "duration": "250ms",
    "warmup": "50ms",
    "drain": "100ms",
    "timeout": "200ms",
    "ingest_rate": "100",
}
INSIDE_A_JOB = {"SLURM_JOB_ID": "1000"}


class Script(Silent):
    """Does something when a phase begins, at the first sign of its load, or at the first note."""

    def __init__(
        self,
        *,
        phases: dict[str, Callable[[], object]] | None = None,
        updates: dict[str, Callable[[], object]] | None = None,
        on_note: Callable[[], object] = lambda: None,
    ) -> None:
        self._phases = phases or {}
        self._updates = updates or {}
        self._on_note = on_note
        self.notes: list[str] = []

    def phase(self, name: str, detail: str) -> None:  # noqa: ARG002
        self._phases.pop(name, int)()

    def update(self, status: LoadStatus) -> None:
        self._updates.pop(status.phase, int)()

    def note(self, text: str) -> None:
        self.notes.append(text)
        if len(self.notes) == 1:
            self._on_note()


def press_ctrl_c() -> None:
    raise KeyboardInterrupt


class RunCase(SiteCase):
    """A ready Chroma that Slurm runs as job 1, and a shell inside an allocation, where load is made."""

    def setUp(self) -> None:
        super().setUp()
        self.chroma = FakeChroma()
        self.enterContext(self.chroma)
        self.session = self.open(INSIDE_A_JOB)
        self.session.start("chroma", {})
        self.slurm.start("1")
        announce(self.session.server("chroma"), self.chroma.endpoint)

    def open(self, environ: dict[str, str]) -> Session:
        return Session(self.config, scheduler=self.scheduler(), clock=FastClock(), environ=environ)

    def bench(self, bench: str, progress: Script | None = None, **options: Any) -> RunRecord:
        return self.session.bench("chroma", bench, {**TINY, **options}, progress or Script())

    def failed_bench(
        self, kind: type[BaseException], bench: str, progress: Script | None = None, **options: Any
    ) -> tuple[BaseException, RunRecord]:
        with self.assertRaises(kind) as caught:
            self.bench(bench, progress, **options)
        return caught.exception, self.session.run("last")

    def samples(self, record: RunRecord, measurement: Measurement) -> Samples:
        return Samples.load(self.config.results_dir / record.run_id / measurement.samples_file)

    def check(self, measurement: Measurement, code: str) -> Check:
        return next(check for check in measurement.checks if check.code == code)

    def assert_nothing_left(self) -> None:
        """No load worker, and no collection of ours."""
        mark = str(self.config.results_dir).encode()
        workers = [pid for pid in processes.descendants({os.getpid()}) if mark in command_line(pid)]
        self.assertEqual((workers, self.chroma.collections), ([], {}))


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


class WithoutWarmUp(RunCase):
    def test_it_is_measured_from_the_first_operation_on(self) -> None:
        record = self.bench("search", warmup="0")
        self.assertEqual((record.state, record.recipe["warmup"]), (RunState.COMPLETE, 0.0))
        (search,) = record.measurements
        self.assertGreater(sum(search.outcomes.values()), 0)
        self.assertTrue(any(check.code == "STEADY" for check in search.checks))


class WrongAnswers(RunCase):
    def test_wrong_neighbours_errors_and_vectors_that_got_lost(self) -> None:
        """Three bad days in one run: each stream says what was wrong with it."""
        self.chroma.faults = Faults(where="/add$", lose_every=10)
        progress = Script(
            phases={
                "search": lambda: setattr(self.chroma, "faults", Faults("/query$", wrong_neighbors=True)),
                "mixed": lambda: setattr(self.chroma, "faults", Faults("/query$", status=500)),
            }
        )
        record = self.bench("all", progress)
        self.assertEqual((record.state, record.verdict), (RunState.COMPLETE, Verdict.INVALID))
        ingest, search, mixed, trickle = record.measurements
        self.assertIn("135 vectors stored, 150 expected", self.check(ingest, "COUNT").message)
        self.assertEqual(self.check(ingest, "COUNT").verdict, Verdict.INVALID)
        answers = self.check(search, "ANSWERS")
        self.assertEqual(answers.verdict, Verdict.INVALID)
        self.assertRegex(answers.message, r"recall@10 is 0[.,]")
        self.assertEqual(self.check(search, "ERRORS").verdict, Verdict.VALID)
        self.assertEqual(self.check(mixed, "SUCCESSES").verdict, Verdict.INVALID)
        self.assertEqual(set(mixed.outcomes), {"SERVER_ERROR"})
        self.assertTrue(any("500" in text for text in mixed.errors), mixed.errors)
        self.assertEqual(trickle.stream, "ingest")
        self.assert_nothing_left()

    def test_a_service_that_hangs(self) -> None:
        self.chroma.faults = Faults("/query$", hang=True)
        record = self.bench("search")
        (search,) = record.measurements
        self.assertEqual(self.check(search, "SUCCESSES").verdict, Verdict.INVALID)
        self.assertLessEqual(set(search.outcomes), {"TIMEOUT", "UNFINISHED"})

    def test_a_preparation_that_goes_wrong_ends_the_run_before_anything_is_measured(self) -> None:
        self.chroma.faults = Faults("/add$", status=500)
        error, record = self.failed_bench(BenchError, "search")
        self.assertRegex(str(error), r"\d of 3 operations of load failed: .*500")
        self.assertEqual((record.state, record.measurements), (RunState.FAILED, ()))
        self.assert_nothing_left()


class Deaths(RunCase):
    def test_a_service_that_dies_under_load(self) -> None:
        progress = Script(updates={"search": lambda: self.slurm.end("1", "OUT_OF_MEMORY")})
        error, record = self.failed_bench(ServiceDied, "search", progress, duration="60s")
        self.assertRegex(str(error), "in phase search: chroma is gone: job 1 ended: OUT_OF_MEMORY .*memory")
        self.assertEqual((record.state, record.error), (RunState.FAILED, str(error)))
        (search,) = record.measurements
        self.assertEqual(self.check(search, "ENDED").verdict, Verdict.INVALID)
        self.assertGreater(len(self.samples(record, search)), 0)
        self.assertIn(f"run {record.run_id} keeps what was measured", progress.notes)
        self.assertIn("service/script.sh", record.files)
        self.assert_nothing_left()

    def test_one_that_dies_between_two_phases(self) -> None:
        def die() -> None:
            self.slurm.end("1", "TIMEOUT")
            self.chroma.faults = Faults(".", drop=True)

        error, record = self.failed_bench(ServiceDied, "all", Script(phases={"search": die}))
        self.assertRegex(str(error), "^chroma is gone: job 1 ended: TIMEOUT")
        self.assertEqual([m.phase for m in record.measurements], ["ingest"])
        self.assertEqual(record.state, RunState.FAILED)

    def test_counts_that_cannot_be_had_make_the_numbers_invalid_and_not_lost(self) -> None:
        self.chroma.faults = Faults("/count$", status=500)
        record = self.bench("ingest")
        check = self.check(record.measurements[0], "COUNT")
        self.assertEqual((record.state, check.verdict), (RunState.COMPLETE, Verdict.INVALID))
        self.assertIn("could not be verified: Chroma answered 500", check.message)


class Interrupted(RunCase):
    def test_ctrl_c_while_data_is_prepared(self) -> None:
        server = self.session.server("chroma")
        server.log_path.with_name("job-1-mel8.log").write_text("of its other node\n")
        _, record = self.failed_bench(KeyboardInterrupt, "search", Script(phases={"data": press_ctrl_c}))
        self.assertEqual((record.state, record.measurements), (RunState.INTERRUPTED, ()))
        self.assertEqual(record.error, "interrupted by the user")
        self.assertLessEqual({"service/job.log", "service/mel8.log"}, record.files.keys())
        self.assert_nothing_left()

    def test_ctrl_c_under_load_keeps_what_was_measured(self) -> None:
        progress = Script(updates={"search": press_ctrl_c})
        _, record = self.failed_bench(KeyboardInterrupt, "all", progress, duration="60s")
        self.assertEqual(record.state, RunState.INTERRUPTED)
        ingest, search = record.measurements
        self.assertEqual(self.check(search, "ENDED").verdict, Verdict.INVALID)
        self.assertEqual(len(self.samples(record, ingest)), 3)
        self.assertGreater(len(self.samples(record, search)), 0)
        self.assert_nothing_left()

    def test_ctrl_c_while_a_client_job_waits_in_the_queue(self) -> None:
        self.session = self.open({})  # a login node
        progress = Script(on_note=press_ctrl_c)
        asked = {"client_nodes": "2", "workers": "3", "duration": "1h"}
        _, record = self.failed_bench(KeyboardInterrupt, "search", progress, **asked)
        client = self.slurm.jobs[2]
        self.assertEqual((record.state, client.state), (RunState.INTERRUPTED, "CANCELLED"))
        self.assertEqual(self.slurm.jobs[1].state, "RUNNING")
        self.assertRegex(client.name, r"^aifb-load-chroma-[0-9a-f]{6}$")
        for word in ("--nodes=2", "--ntasks-per-node=2", "--time=60"):
            self.assertIn(word, client.argv)
        self.assertEqual(client.environment["AIFBENCH_WORKERS_PER_NODE"], "2")
        self.assertNotIn("AIFBENCH_SECRET_FILE", client.environment)

    def test_a_client_job_has_the_time_its_load_takes_where_no_job_of_a_service_will_end(self) -> None:
        self.session = self.open({})
        self.enterContext(mock.patch.object(ChromaServer, "runs_and_ends", new=True))
        self.failed_bench(KeyboardInterrupt, "search", Script(on_note=press_ctrl_c), duration="1h")
        self.assertIn("--time=241", self.slurm.jobs[2].argv)

    def test_a_client_job_that_will_never_start_is_told(self) -> None:
        self.session = self.open({})
        progress = Script(on_note=lambda: self.slurm.pend("2", "PartitionTimeLimit"))
        error, record = self.failed_bench(FleetError, "search", progress)
        self.assertIn("client job 2 will not start (PartitionTimeLimit)", str(error))
        self.assertEqual((record.state, self.slurm.jobs[2].state), (RunState.FAILED, "CANCELLED"))


class Endings(RunCase):
    def test_a_signal_is_told_and_keeps_what_was_measured(self) -> None:
        def end() -> None:
            raise KeyboardInterrupt("ended by SIGTERM")

        progress = Script(updates={"search": end})
        _, record = self.failed_bench(KeyboardInterrupt, "search", progress, duration="60s")
        self.assertEqual((record.state, record.error), (RunState.INTERRUPTED, "ended by SIGTERM"))
        (search,) = record.measurements
        self.assertIn("ended by SIGTERM", self.check(search, "ENDED").message)
        self.assert_nothing_left()

    def test_a_program_that_is_left_interrupts_its_run(self) -> None:
        def leave() -> None:
            raise SystemExit(143)

        _, record = self.failed_bench(SystemExit, "search", Script(phases={"data": leave}))
        self.assertEqual((record.state, record.error), (RunState.INTERRUPTED, "ended by SIGTERM"))
        self.assert_nothing_left()


class Neighbours(RunCase):
    def test_another_load_that_begins_later_is_in_the_record(self) -> None:
        runs = RunStore(self.config.results_dir, FastClock())
        others: list[str] = []

        def begin() -> None:
            others.append(runs.create({"kind": "chroma", "name": "chroma"}, {"bench": "search"}).run_id)

        record = self.bench("search", Script(updates={"search": begin}))
        shared = self.check(record.measurements[0], "SHARED")
        self.assertEqual(shared.verdict, Verdict.WARN)
        self.assertIn(others[0], shared.message)


class BadInput(RunCase):
    def test_options_that_cannot_be_used_leave_no_run(self) -> None:
        cases: list[dict[str, Any]] = [
            {"arrivals": "gamma"},
            {"rate": "5", "trace": "t"},
            {"filter": "nonsense"},
            {"k": "0"},
            {"nonsense": "1"},
        ]
        for options in cases:
            with self.assertRaises(UsageError):
                self.bench("search", **options)
        self.assertEqual(self.session.runs(), [])
        self.assertEqual([entry.name for entry in self.config.results_dir.glob("2*")], [])

    def test_a_service_that_is_not_ready_is_not_loaded(self) -> None:
        self.chroma.faults = Faults(".", status=503)
        with self.assertRaisesRegex(NotReady, "chroma is STARTING, .*503.*check chroma --wait"):
            self.bench("search")
        self.slurm.end("1", "FAILED", exit_code=1)
        self.session = self.open(INSIDE_A_JOB)
        with self.assertRaisesRegex(ServiceDied, "job 1 ended: FAILED, exit code 1.*start chroma"):
            self.bench("search")
        self.assertEqual(self.session.runs(), [])


class FullDisk(RunCase):
    def test_a_record_that_cannot_be_written_ends_the_run_with_the_reason(self) -> None:
        def fill() -> None:
            (record,) = self.config.results_dir.glob("2*/record.json")
            record.unlink()
            record.mkdir()  # refuses root, too

        with self.assertRaisesRegex(ResultError, "cannot write .*record.json.*AIFBENCH_RESULTS"):
            self.bench("ingest", Script(phases={"ingest": fill}))
        (samples,) = self.config.results_dir.glob("2*/phases/*/samples-ingest.npz")
        self.assertEqual(len(Samples.load(samples)), 3)
        self.assert_nothing_left()

    def test_it_does_not_hide_why_a_run_ends(self) -> None:
        def fill_and_interrupt() -> None:
            fill_disk()
            raise KeyboardInterrupt

        self.addCleanup(free_disk)
        with self.assertRaises(KeyboardInterrupt):
            self.bench("search", Script(phases={"data": fill_and_interrupt}))
        free_disk()
        self.assert_nothing_left()


KILLED_SHELL = """
import sys
from pathlib import Path
from test.fakes.slurm import FakeSlurm
from test.fakes.disk import fill_disk, free_disk
from test.fakes.site import announce
from aifbench.clock import SystemClock
from aifbench.cluster.endpoint import Endpoint
from aifbench.cluster.slurm_cli import SlurmCli
from aifbench.config import load_config
from aifbench.load.progress import Silent
from aifbench.session import Session

slurm = FakeSlurm()
session = Session(
    load_config({"AIFBENCH_RESULTS": sys.argv[1]}), scheduler=SlurmCli(slurm), environ={"SLURM_JOB_ID": "1"}
)
session.start("chroma", {})
slurm.start("1")
announce(session.server("chroma"), Endpoint("127.0.0.1", int(sys.argv[2])))
options = {"vectors": "150", "dim": "8", "queries": "20", "batch": "50", "duration": "60s"}
session.bench("chroma", "all", options, Silent())
"""


class Killed(RunCase):
    def test_a_killed_shell_leaves_its_measurements_and_no_worker(self) -> None:
        results = self.dir / "other"
        environ = {**os.environ, "PYTHONPATH": f"{PROJECT}:{PROJECT}/src"}
        port = str(self.chroma.endpoint.port)
        shell = subprocess.Popen([sys.executable, "-c", KILLED_SHELL, str(results), port], env=environ)
        self.addCleanup(shell.wait)
        self.addCleanup(shell.kill)
        eventually(lambda: any(results.glob("2*/phases/phase-01/start.json")), "the search begins")
        (ready,) = results.glob("2*/phases/phase-01/ready-0.json")
        worker = json.loads(ready.read_text())["pid"]
        self.config = self.make_config(results_dir=results)
        self.assertEqual(self.open({}).run("last").state, RunState.RUNNING)
        shell.kill()
        shell.wait()
        record = self.open({}).run("last")
        self.assertEqual((record.state, record.verdict), (RunState.INTERRUPTED, Verdict.INVALID))
        self.assertEqual([m.phase for m in record.measurements], ["ingest"])
        self.assertEqual(
            record.error, f"process {shell.pid} on {socket.gethostname()} ended before the run did"
        )
        eventually(lambda: processes.start_ticks(worker) is None, "its worker goes")
        (collection,) = self.chroma.collections.values()
        self.assert_left(record.run_id, "aifb_" + record.run_id.replace("-", ""), str(collection))

    def assert_left(self, run_id: str, name: str, collection: str) -> None:
        """Told at the next start, once, and whenever the run is shown."""
        self.assertIn(name, collection)
        first, again = self.open({}).left_behind(), self.open({}).left_behind()
        self.assertEqual((len(first), again), (1, []))
        self.assertIn(f"run {run_id} may have left the collections {name}_* at http://127.0.0.1:", first[0])
        self.assertIn("`stop chroma` removes it", first[0])
        self.assertTrue(self.open({}).run_text(run_id).endswith(first[0]))


if __name__ == "__main__":
    unittest.main()
