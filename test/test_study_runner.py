"""Studies: which services are started when, what becomes of every trial, how an interrupted one goes on."""

import tempfile
import unittest
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from test.fakes.clock import FakeClock
from test.fakes.disk import fill_disk, free_disk
from test.fakes.records import sample_record
from test.fakes.study_services import FakeServices

from aifbench.errors import BenchError, ResultError, ServiceError, UsageError, WorkloadError
from aifbench.results.record import Check, RunRecord, RunState, Verdict
from aifbench.results.study import StudyRecord, TrialState
from aifbench.servers.options import parse_name
from aifbench.studies.again import run_again
from aifbench.studies.crew import service_names
from aifbench.studies.opening import new_study, resumed_study, what_is_left
from aifbench.studies.plan import plan
from aifbench.studies.progress import SilentStudy, TrialNews
from aifbench.studies.recipe import Member
from aifbench.studies.recipe_reader import read_recipe
from aifbench.studies.runner import StudyRunner
from aifbench.studies.store import StudyStore

RATES = """
study: rates
service: store
start: {time: 30m}
bench: search
options: {clients: 2}
matrix: {rate: [50, 100]}
repeats: 2
order: sequential
seed: 7
"""
NODES = RATES.replace("{rate: [50, 100]}", "{start.nodes: [1, 2], rate: [50, 100]}").replace(
    "repeats: 2", "repeats: 1"
)
BOTH = """
study: both
services:
  llm: {service: model, start: {time: 1h}, bench: generate}
  db: {service: store, bench: search, options: {seed: 99}}
together: interference
matrix: {llm.start.nodes: [1, 2], rate: [1, 2]}
repeats: 1
order: sequential
"""


class Told(SilentStudy):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.trials: list[TrialNews] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def ended(self, news: TrialNews) -> None:
        self.trials.append(news)


class StudyCase(unittest.TestCase):
    def setUp(self) -> None:
        self.dir = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.clock = FakeClock()
        self.store = StudyStore(self.dir / "studies", self.clock)
        self.services = FakeServices()
        self.told = Told()

    def run_recipe(self, text: str, *, may_exceed: bool = False) -> StudyRecord:
        file = self.dir / "recipe.yaml"
        file.write_text(text)
        self.clock.sleep(1)
        found = plan(read_recipe(text, str(file), self.services), self.services)
        record = new_study(self.store, found, may_exceed=may_exceed)
        return StudyRunner(self.services, self.store, self.clock, found.recipe, record, self.told).run()

    def resume(self, *, retry_failed: bool = False) -> StudyRecord:
        recipe, record = resumed_study(
            self.store, "last", self.services, retry_failed=retry_failed, may_exceed=False
        )
        return StudyRunner(self.services, self.store, self.clock, recipe, record, self.told).run()

    def at_bench(self, number: int, action: Callable[[], object]) -> None:
        """Do `action` in the middle of the run of that number."""
        self.services.during_bench = lambda now: action() if now == number else None

    def interrupt_at(self, number: int) -> None:
        self.at_bench(number, _press_ctrl_c)

    def states(self) -> list[str]:
        return [trial.state.value for trial in self.store.load("last").trials]

    def started(self) -> list[Any]:
        return [options for _, options in self.services.called("start")]

    def asked(self, option: str) -> list[Any]:
        return [given.get(option) for _, _, given in self.services.called("bench")]


class Trials(StudyCase):
    def test_every_trial_is_run_in_order_and_its_run_knows_what_it_is_part_of(self) -> None:
        record = self.run_recipe(RATES)
        self.assertIs(record.state, RunState.COMPLETE)
        self.assertEqual(self.asked("rate"), ["50", "50", "100", "100"])
        self.assertEqual(self.asked("clients"), ["2"] * 4)
        self.assertEqual(
            [trial.run_id for trial in record.trials], [run.run_id for run in self.services.runs]
        )
        recipe = self.services.runs[1].recipe
        self.assertEqual(recipe["recipe_text"], RATES)
        self.assertEqual(
            recipe["study"],
            {
                "id": record.study_id,
                "name": "rates",
                "point": 0,
                "label": "rate=50",
                "settings": {"rate": "50"},
                "repeat": 2,
            },
        )
        self.assertEqual(self.store.load("last"), record)

    def test_repeats_differ_in_seed_and_points_of_a_repeat_share_it(self) -> None:
        self.run_recipe(RATES)
        self.assertEqual(self.asked("seed"), ["7", "8", "7", "8"])

    def test_a_seed_that_is_given_is_kept(self) -> None:
        self.run_recipe(RATES.replace("clients: 2", "seed: 3"))
        self.assertEqual(self.asked("seed"), ["3"] * 4)

    def test_a_trial_that_fails_is_kept_with_its_error_and_run_and_the_study_goes_on(self) -> None:
        self.at_bench(2, _fail)
        record = self.run_recipe(RATES)
        self.assertIs(record.state, RunState.COMPLETE)
        self.assertEqual(self.states(), ["DONE", "FAILED", "DONE", "DONE"])
        failed = record.trials[1]
        self.assertEqual((failed.run_id, failed.error), (self.services.runs[1].run_id, "no data; give some"))
        self.assertEqual([news.trial.state.value for news in self.told.trials], self.states())
        self.assertEqual([(news.number, news.total) for news in self.told.trials][-1], (4, 4))

    def test_an_invalid_run_is_a_result(self) -> None:
        invalid = Check("ERRORS", Verdict.INVALID, "all failed")
        measure = self.services._measure

        def measured(service: Any, recipe: Any) -> RunRecord:
            found = measure(service, recipe)
            bad = replace(found.measurements[0], checks=(invalid,))
            return replace(found, measurements=(bad,))

        self.services._measure = measured  # type: ignore[method-assign]
        record = self.run_recipe(RATES)
        self.assertEqual({trial.state for trial in record.trials}, {TrialState.DONE})

    def test_above_its_limit_nothing_is_started_unless_allowed(self) -> None:
        text = RATES + "limits: {node_hours: 0.01}\n"
        with self.assertRaisesRegex(UsageError, r"at least 0\.\d+ node-hours.*--yes"):
            self.run_recipe(text)
        self.assertEqual((self.services.calls, self.store.study_ids()), ([], []))
        self.assertIs(self.run_recipe(text, may_exceed=True).state, RunState.COMPLETE)

    def test_several_services_are_loaded_together(self) -> None:
        record = self.run_recipe(BOTH)
        first, *_ = calls = self.services.called("together")
        self.assertEqual((first[0], first[2]), ("interference", {"rate": "1"}))
        tag = record.study_id[-4:]
        self.assertEqual(first[1]["llm"], (f"both-llm-{tag}", "generate", {"seed": "1"}))
        self.assertEqual(first[1]["db"], (f"both-db-{tag}", "search", {"seed": "99"}))
        self.assertEqual(len(calls), 4)
        self.assertEqual(len(self.services.called("start")), 3)  # the model twice, the store once
        self.assertEqual(self.services.instances(), [])


class TheServices(StudyCase):
    def test_only_a_change_of_what_it_is_started_with_restarts_a_service(self) -> None:
        self.run_recipe(NODES)
        self.assertEqual(self.started(), [{"time": "30m", "nodes": "1"}, {"time": "30m", "nodes": "2"}])
        self.assertEqual(self.services.instances(), [])
        self.assertEqual(self.asked("rate"), ["50", "100", "50", "100"])

    def test_one_found_dead_is_started_anew_for_the_next_trial(self) -> None:
        def die() -> None:
            self.services.die()
            _fail()

        self.at_bench(2, die)
        self.run_recipe(RATES)
        self.assertEqual(self.states(), ["DONE", "FAILED", "DONE", "DONE"])
        self.assertEqual(len(self.started()), 2)
        self.assertIn("out of memory", " ".join(self.told.notes))

    def test_one_whose_job_ends_before_a_trial_would_is_started_anew(self) -> None:
        self.services.time_left_s = 100.0
        self.services.during_bench = lambda _: self.clock.sleep(90.0)
        self.run_recipe(RATES)
        self.assertEqual((self.states(), len(self.started())), (["DONE"] * 4, 4))

    def test_a_service_that_cannot_be_started_fails_its_trial(self) -> None:
        for attribute, words in (("refused_starts", "invalid partition"), ("dying_starts", "out of memory")):
            setattr(self.services, attribute, 2)
            record = self.run_recipe(RATES)
            self.assertEqual(self.states(), ["FAILED", "FAILED", "DONE", "DONE"])
            self.assertIn(words, record.trials[0].error)
            self.assertEqual(record.trials[0].run_id, "")
            self.assertEqual(self.services.instances(), [])

    def test_three_such_trials_in_a_row_end_the_study(self) -> None:
        self.services.refused_starts = 100
        with self.assertRaisesRegex(ServiceError, "3 trials in a row.*--retry-failed"):
            self.run_recipe(RATES)
        record = self.store.load("last")
        self.assertIs(record.state, RunState.FAILED)
        self.assertEqual(self.states(), ["FAILED", "FAILED", "FAILED", "PENDING"])
        self.services.refused_starts = 0
        self.assertEqual(self.resume(retry_failed=True).state, RunState.COMPLETE)
        self.assertEqual(self.states(), ["DONE"] * 4)

    def test_a_queue_may_be_long_but_not_for_ever(self) -> None:
        self.services.waits_in_queue, self.services.queue_advice = 5, "nodes are drained"
        self.run_recipe(RATES)
        self.assertEqual(self.states(), ["DONE"] * 4)
        self.services.waits_in_queue, self.services.is_stuck = 1, True
        self.run_recipe(RATES)
        self.assertEqual(self.states(), ["FAILED", "DONE", "DONE", "DONE"])

    def test_what_it_is_attached_to_is_neither_started_nor_stopped(self) -> None:
        attached = RATES.replace("start: {time: 30m}", "attach: mine")
        self.services.run_already("mine")
        self.run_recipe(attached)
        self.assertEqual({name for name, _, _ in self.services.called("bench")}, {"mine"})
        self.assertEqual((self.services.called("start"), self.services.called("stop")), ([], []))
        self.assertEqual(self.services.instances(), ["mine"])

    def test_what_it_should_be_attached_to_must_be_there_and_of_that_kind(self) -> None:
        attached = RATES.replace("start: {time: 30m}", "attach: mine")
        with self.assertRaisesRegex(BenchError, "mine"):
            self.run_recipe(attached)
        self.services.run_already("mine", "model")
        with self.assertRaisesRegex(BenchError, "mine is model, the recipe is for store"):
            self.run_recipe(attached)
        self.assertEqual(self.services.calls, [])

    def test_services_of_others_are_left_alone(self) -> None:
        self.services.run_already("rates")
        self.services.run_already("store")
        self.at_bench(2, _fail)
        self.run_recipe(NODES)
        self.assertEqual(self.services.instances(), ["rates", "store"])

    def test_one_that_does_not_stop_is_told_and_hides_nothing(self) -> None:
        self.at_bench(1, lambda: setattr(self.services, "unstoppable", True))
        record = self.run_recipe(RATES)
        self.assertIs(record.state, RunState.COMPLETE)
        self.assertIn(f"`stop rates-{record.study_id[-4:]}` tries again", self.told.notes[-1])

    def test_one_that_does_not_stop_for_its_successor_is_stopped_at_the_end(self) -> None:
        self.at_bench(2, lambda: setattr(self.services, "unstoppable", True))
        self.services.on_refused_stop = lambda: setattr(self.services, "unstoppable", False)
        self.run_recipe(NODES)
        self.assertEqual(self.states(), ["DONE", "DONE", "FAILED", "DONE"])
        self.assertEqual(self.services.instances(), [])

    def test_ctrl_c_while_they_are_stopped_tells_what_may_go_on(self) -> None:
        self.services.unstoppable, self.services.on_refused_stop = True, _press_ctrl_c
        with self.assertRaises(KeyboardInterrupt):
            self.run_recipe(RATES)
        self.assertIn("not waiting for the end of rates-", self.told.notes[-1])
        self.assertIs(self.store.load("last").state, RunState.INTERRUPTED)

    def test_names_are_those_a_service_may_have_and_differ(self) -> None:
        for study in ("a", "a" * 40, "study-with-a-very-long-name-indeed-a"):
            for roles in (("",), ("llm", "store"), ("role-" * 6 + "a", "role-" * 6 + "b")):
                members = [Member(role, "store", {}, "search", {}) for role in roles]
                names = service_names(study, members, "0bf2")
                self.assertEqual([parse_name(name) for name in names.values()], list(names.values()))
                self.assertEqual(len(set(names.values())), len(roles))


class Interruption(StudyCase):
    def test_what_is_done_is_kept_and_the_rest_goes_on_later(self) -> None:
        self.interrupt_at(3)
        with self.assertRaises(KeyboardInterrupt):
            self.run_recipe(RATES)
        record = self.store.load("last")
        self.assertIs(record.state, RunState.INTERRUPTED)
        self.assertEqual(self.states(), ["DONE", "DONE", "PENDING", "PENDING"])
        self.assertEqual(self.services.instances(), [])
        kept = [trial.run_id for trial in record.trials[:2]]
        self.assertIs(self.resume().state, RunState.COMPLETE)
        record = self.store.load("last")
        self.assertEqual([trial.run_id for trial in record.trials[:2]], kept)
        self.assertEqual(self.states(), ["DONE"] * 4)
        self.assertEqual(self.asked("seed")[-2:], ["7", "8"])
        self.assertEqual(self.services.instances(), [])

    def test_a_program_that_is_ended_interrupts_its_study_and_stops_its_services(self) -> None:
        def leave() -> None:
            raise SystemExit(143)

        self.at_bench(2, leave)
        with self.assertRaises(SystemExit):
            self.run_recipe(RATES)
        record = self.store.load("last")
        self.assertEqual((record.state, record.error), (RunState.INTERRUPTED, "ended by SIGTERM"))
        self.assertEqual(self.services.instances(), [])

    def test_it_goes_on_with_the_recipe_it_began_with_and_says_that_the_file_differs(self) -> None:
        self.interrupt_at(1)
        with self.assertRaises(KeyboardInterrupt):
            self.run_recipe(RATES)
        record = self.store.load("last")
        self.assertEqual(what_is_left(record), "4 of 4 trials are left")
        changed = self.dir / "recipe.yaml"
        changed.write_text(RATES.replace("[50, 100]", "[70]"))
        self.assertIn(f"{changed} is different now", what_is_left(record))
        changed.unlink()
        self.assertEqual(what_is_left(record), "4 of 4 trials are left")
        self.resume()
        self.assertEqual(self.asked("rate"), ["50", "50", "50", "100", "100"])

    def test_failed_trials_are_run_again_only_when_asked(self) -> None:
        self.at_bench(2, _fail)
        self.run_recipe(RATES)
        runs = len(self.services.runs)
        record = resumed_study(self.store, "last", self.services, retry_failed=False, may_exceed=False)[1]
        self.assertIs(record.state, RunState.COMPLETE)
        self.assertEqual(
            what_is_left(record), "no trial is left to run, 1 failed (--retry-failed runs these again)"
        )
        self.resume(retry_failed=True)
        self.assertEqual((self.states(), len(self.services.runs)), (["DONE"] * 4, runs + 1))

    def test_a_service_that_a_killed_shell_has_left_is_stopped_first(self) -> None:
        self.interrupt_at(1)
        with self.assertRaises(KeyboardInterrupt):
            self.run_recipe(RATES)
        left = f"rates-{self.store.load('last').study_id[-4:]}"
        self.services.run_already(left)
        self.resume()
        self.assertEqual(self.services.called("stop")[-2:], [(left,), (left,)])
        self.assertEqual(self.services.instances(), [])

    def test_a_bug_ends_it_with_its_services_stopped(self) -> None:
        self.at_bench(2, lambda: 1 / 0)
        with self.assertRaises(ZeroDivisionError):
            self.run_recipe(RATES)
        record = self.store.load("last")
        self.assertEqual(
            (record.state, record.error), (RunState.FAILED, "ZeroDivisionError: division by zero")
        )
        self.assertEqual((self.states()[:2], self.services.instances()), (["DONE", "PENDING"], []))

    def test_a_full_disk_ends_it_and_it_can_go_on_when_there_is_space(self) -> None:
        self.addCleanup(free_disk)
        self.at_bench(2, fill_disk)
        with self.assertRaisesRegex(ResultError, "AIFBENCH_RESULTS"):
            self.run_recipe(RATES)
        free_disk()
        self.assertEqual((self.states()[:2], self.services.instances()), (["DONE", "PENDING"], []))
        self.assertIs(self.store.load("last").state, RunState.INTERRUPTED)
        self.assertIs(self.resume().state, RunState.COMPLETE)


class Again(StudyCase):
    def again(self, record: RunRecord) -> RunRecord:
        return run_again(self.services, record, self.told)

    def plain(self, **service: Any) -> RunRecord:
        recipe = {"bench": "search", "rate": 50.0, "clients": 4, "cold": True, "note": "", "duration": 60.0}
        return sample_record(
            service={"kind": "store", "name": "mine", "options": {}, **service},
            recipe={**recipe, "given": ["cold", "rate"]},
        )

    def test_a_studys_run_is_repeated_with_services_of_its_own(self) -> None:
        self.run_recipe(NODES)
        third = self.services.runs[2]
        self.services.calls.clear()
        self.services.run_already("store")
        run = self.again(third)
        self.assertEqual(self.started(), [{"time": "30m", "nodes": "2"}])
        self.assertEqual((self.asked("rate"), self.asked("seed")), (["50"], ["7"]))
        self.assertEqual(run.recipe["again"]["run"], third.run_id)
        self.assertEqual(run.recipe["recipe_text"], NODES)
        self.assertNotIn("study", run.recipe)
        self.assertEqual(self.services.instances(), ["store"])
        self.again(run)
        self.assertEqual(self.asked("rate"), ["50", "50"])

    def test_a_plain_run_on_the_running_service_with_what_was_given(self) -> None:
        self.services.run_already("other")
        self.again(self.plain())
        self.assertEqual(self.services.called("bench"), [("other", "search", {"rate": "50.0", "cold": True})])
        self.services.run_already("mine")
        self.again(self.plain())
        self.assertEqual(self.services.called("bench")[-1][0], "mine")
        self.assertEqual((self.services.called("start"), self.services.called("stop")), ([], []))

    def test_where_none_is_running_one_is_started_alike_and_stopped(self) -> None:
        self.at_bench(1, _fail)
        options = {"name": "mine", "nodes": 2, "time": 1800.0, "fsync": "off", "unknown": 1}
        with self.assertRaises(WorkloadError):
            self.again(self.plain(options=options))
        self.assertEqual(self.started(), [{"nodes": "2", "time": "1800.0", "fsync": "off"}])
        self.assertEqual(self.services.instances(), [])

    def test_what_cannot_be_repeated_says_why(self) -> None:
        with self.assertRaisesRegex(UsageError, "attach store URL"):
            self.again(self.plain(scheduler="attached"))
        with self.assertRaisesRegex(ResultError, "cannot be repeated: it is search of together"):
            self.again(self.plain(kind="together"))
        self.services.run_already("a")
        self.services.run_already("b")
        with self.assertRaisesRegex(UsageError, "several store are running: a, b"):
            self.again(self.plain())
        self.assertEqual(self.services.calls, [])


def _fail() -> None:
    raise WorkloadError("no data", hint="give some")


def _press_ctrl_c() -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    unittest.main()
