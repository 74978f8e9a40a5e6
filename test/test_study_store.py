"""Studies on disk: written whole or not at all, owned by one process, found again by the next."""

import json
import subprocess
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any

from test.fakes.clock import FakeClock
from test.fakes.disk import full_disk
from test.fakes.waiting import eventually

from aifbench.errors import ResultError, SchemaMismatch, UnknownRun
from aifbench.results.files import heartbeat_age_s
from aifbench.results.ownership import current_owner, parse_start_ticks
from aifbench.results.record import RunState
from aifbench.results.store import RunStore
from aifbench.results.study import Point, StudyRecord, Trial, TrialState
from aifbench.studies.store import StudyStore

RECIPE = "study: rates\n# my remark\nmatrix: {rate: [50, 100]}\n"
POINTS = (Point({"rate": "50"}, "rate=50"), Point({"rate": "100"}, "rate=100"))
TRIALS = (Trial(0, 1), Trial(1, 1))


class StudyStoreCase(unittest.TestCase):
    def setUp(self) -> None:
        self.results = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.clock = FakeClock(wall_s=1_795_180_495.0)  # 2026-11-20T13:14:55Z
        self.store = StudyStore(self.results / "studies", self.clock)

    def create(self, name: str = "rates") -> StudyRecord:
        recipe = (RECIPE, "/home/alice/rates.yaml")
        return self.store.create(name, recipe, POINTS, TRIALS, "why", baselines=[0, None])

    def create_ended(self, name: str = "rates", **changes: Any) -> StudyRecord:
        """As an earlier shell has left it."""
        record = self.create(name)
        with self.store.kept_alive(record.study_id):
            self.store.write(replace(record, **changes))
        return self.store.load(record.study_id)

    def file(self, record: StudyRecord) -> Path:
        return self.store.path(record.study_id) / "study.json"

    def age_s(self, record: StudyRecord) -> float | None:
        return heartbeat_age_s(self.store.path(record.study_id), self.clock.wall_s())

    def living_owner(self) -> dict[str, Any]:
        """Another process of this machine."""
        process = subprocess.Popen(["sleep", "60"])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        stat = Path(f"/proc/{process.pid}/stat").read_text()
        return {**current_owner(), "pid": process.pid, "start_ticks": parse_start_ticks(stat)}


class CreateAndRead(StudyStoreCase):
    def test_a_new_study_is_running_and_keeps_its_recipe_verbatim(self) -> None:
        record = self.create()
        self.assertRegex(record.study_id, r"^20261120-131455-rates-[0-9a-f]{4}$")
        self.assertEqual((self.file(record).parent / "recipe.yaml").read_text(), RECIPE)
        self.assertEqual(self.store.load(record.study_id), record)
        self.assertIs(record.state, RunState.RUNNING)
        self.assertEqual({trial.state for trial in record.trials}, {TrialState.PENDING})

    def test_what_was_written_is_read_back_equal(self) -> None:
        done = (Trial(0, 1, TrialState.DONE, "run-1"), Trial(1, 1, TrialState.FAILED, "", "no memory"))
        record = self.create_ended(state=RunState.COMPLETE, trials=done, ended_utc="2026-11-20T14:00:00Z")
        self.assertEqual(record.trials, done)
        self.assertEqual(StudyRecord.from_json(json.loads(self.file(record).read_text())), record)

    def test_studies_are_no_runs(self) -> None:
        self.create()
        self.assertEqual(RunStore(self.results, self.clock).run_ids(), [])

    def test_a_full_disk_leaves_no_half_study(self) -> None:
        record = self.create()
        with full_disk(), self.assertRaisesRegex(ResultError, "AIFBENCH_RESULTS"):
            self.create()
        with full_disk(), self.assertRaises(ResultError):
            self.store.write(replace(record, error="x" * 10_000))
        self.assertEqual(self.store.load("last"), record)
        self.assertEqual([study.study_id for study in self.store.list()], [record.study_id])


class Finding(StudyStoreCase):
    def test_by_id_part_of_it_and_last(self) -> None:
        first = self.create_ended("rates", state=RunState.COMPLETE)
        self.clock.sleep(60)
        second = self.create_ended("nodes", state=RunState.COMPLETE)
        for ref in (first.study_id, "rates", first.study_id[-10:], first.study_id[:18]):
            self.assertEqual(self.store.load(ref).study_id, first.study_id, ref)
        self.assertEqual(self.store.load("last").study_id, second.study_id)

    def test_what_is_not_one_study_is_refused_with_those_there_are(self) -> None:
        with self.assertRaisesRegex(UnknownRun, "there is none yet"):
            self.store.load("last")
        ids = {self.create_ended(state=RunState.COMPLETE).study_id for _ in range(2)}
        with self.assertRaisesRegex(UnknownRun, "matches 2 studies.*" + min(ids)):
            self.store.load("rates")
        for wrong in ("", "ratse", "../rates"):
            with self.assertRaisesRegex(UnknownRun, "no study matches"):
                self.store.load(wrong)

    def test_the_list_counts_trials_and_shows_what_cannot_be_read(self) -> None:
        trials = (Trial(0, 1, TrialState.DONE, "r"), Trial(1, 1, TrialState.FAILED), Trial(0, 2))
        self.create_ended(state=RunState.FAILED, trials=trials)
        self.clock.sleep(60)
        torn = self.create_ended("torn")
        self.file(torn).write_text('{"schema": "aifbench.st')
        bad, good = self.store.list()
        self.assertEqual((good.done, good.failed, good.pending, good.note), (1, 1, 1, "why"))
        self.assertIs(good.state, RunState.FAILED)
        self.assertEqual((bad.study_id, bad.state), (torn.study_id, None))
        self.assertEqual("study.json is not complete JSON", bad.problem)

    def test_records_that_are_not_of_this_version_or_not_whole(self) -> None:
        record = self.create_ended(state=RunState.COMPLETE)
        stored = json.loads(self.file(record).read_text())
        missing = {key: value for key, value in stored.items() if key != "trials"}
        for data, words in (
            ({**stored, "schema": "aifbench.study/2"}, "aifbench.study/2"),
            ({**stored, "trials": [{"point": 7, "repeat": 1}]}, "a point that it does not have"),
            ({**stored, "trials": [{"point": "x", "repeat": 1}]}, "trials"),
            ({**stored, "baselines": [0, 2]}, "compares with a point that it does not have"),
            ({**stored, "baselines": [0]}, "compares with a point that it does not have"),
            ({**stored, "baselines": [0, "1"]}, "baselines"),
            ({**stored, "study_id": "20261120-131455-other-0000"}, "another study"),
            (missing, "trials"),
            (["no", "study"], "schema"),
        ):
            self.file(record).write_text(json.dumps(data))
            with self.assertRaisesRegex(SchemaMismatch, words):
                self.store.load(record.study_id)


class Ownership(StudyStoreCase):
    def test_an_owner_that_is_gone_leaves_it_interrupted_and_free_to_take(self) -> None:
        record = self.create_ended(owner={**current_owner(), "pid": 999_999_999})
        self.assertIs(record.state, RunState.INTERRUPTED)
        self.assertIn("999999999", record.error)
        taken = self.store.take_over("last")
        self.assertEqual((taken.state, taken.error, taken.owner), (RunState.RUNNING, "", current_owner()))

    def test_what_a_living_process_runs_is_not_taken(self) -> None:
        record = self.create_ended(owner=self.living_owner())
        self.assertIs(record.state, RunState.RUNNING)
        with self.assertRaisesRegex(ResultError, "is running already: process"):
            self.store.take_over("last")

    def test_of_two_that_go_on_with_it_in_this_process_the_second_is_refused(self) -> None:
        record = self.create_ended(state=RunState.INTERRUPTED)
        other = StudyStore(self.results / "studies", self.clock)
        taken = self.store.take_over("last")
        with self.assertRaisesRegex(ResultError, "running already"):
            other.take_over("last")
        with self.store.kept_alive(record.study_id):
            self.assertIs(other.load("last").state, RunState.RUNNING)
            with self.assertRaisesRegex(ResultError, "running already"):
                other.take_over("last")
            self.store.write(replace(taken, state=RunState.INTERRUPTED))
        self.assertIs(other.take_over("last").state, RunState.RUNNING)

    def test_what_this_process_has_given_up_without_saying_so_is_interrupted(self) -> None:
        record = self.create()
        with self.store.kept_alive(record.study_id):
            self.assertIs(self.store.load("last").state, RunState.RUNNING)
        self.assertIs(self.store.load("last").state, RunState.INTERRUPTED)

    def test_on_another_host_the_heartbeat_decides(self) -> None:
        elsewhere = {**current_owner(), "host": "login02"}
        record = self.create_ended(owner=elsewhere)
        self.assertIs(record.state, RunState.RUNNING)
        self.clock.sleep(61)
        self.assertIs(self.store.load("last").state, RunState.INTERRUPTED)

    def test_the_heartbeat_goes_on_by_itself(self) -> None:
        record = self.create()
        with self.store.kept_alive(record.study_id, every_s=0.001):
            self.clock.sleep(1000)
            eventually(lambda: self.age_s(record) == 0, "the heartbeat is written")


if __name__ == "__main__":
    unittest.main()
