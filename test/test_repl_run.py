"""`run` and `studies` as typed: what is asked and shown, and what a script learns from the exit status."""

import io
import os
import unittest
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from dataclasses import replace
from typing import Any
from unittest import mock

from test.fakes.shell import Terminal
from test.fakes.site import SHELL, SiteCase
from test.fakes.study_services import FakeServices

from aifbench.errors import UnknownRun, WorkloadError
from aifbench.load.progress import LoadStatus, Progress
from aifbench.repl.shell import Shell
from aifbench.results.record import Check, RunRecord, Verdict
from aifbench.results.study import StudyRecord
from aifbench.session import Session

RATES = """
study: rates
note: how fast
service: store
bench: search
matrix: {rate: [50, 100]}
repeats: 2
order: sequential
limits: {node_hours: 1}
"""


class StudySession(FakeServices, Session):
    """A Session whose services and runs are in memory; its studies are on disk."""

    def __init__(self, case: SiteCase) -> None:
        FakeServices.__init__(self)
        Session.__init__(self, case.config, scheduler=case.scheduler(), clock=case.clock, environ=SHELL)
        self.invalid_from = 1_000_000

    def run(self, ref: str) -> RunRecord:
        for record in reversed(self.runs):
            if ref == "last" or record.run_id.endswith(ref):
                return record
        raise UnknownRun(f"no run matches {ref!r}")

    def run_text(self, ref: str, *, full: bool = False) -> str:
        return f"numbers of {self.run(ref).run_id}{' in full' if full else ''}"

    def bench(self, *arguments: Any, **options: Any) -> RunRecord:
        progress: Progress = arguments[3]
        progress.update(LoadStatus("search", 12.0, 30.0, 600, None, 50.2, 0, 12.3))
        return super().bench(*arguments, **options)

    def _measure(self, service: Mapping[str, Any], recipe: Mapping[str, Any]) -> RunRecord:
        record = super()._measure(service, recipe)
        if len(self.runs) >= self.invalid_from:
            bad = replace(record.measurements[0], checks=(Check("ERRORS", Verdict.INVALID, "all failed"),))
            record = self.runs[-1] = replace(record, measurements=(bad,))
        return record


class RunCase(SiteCase):
    def setUp(self) -> None:
        super().setUp()
        self.session = StudySession(self)
        self.recipe = self.dir / "rates.yaml"
        self.recipe.write_text(RATES)
        self.make_shell()

    def make_shell(self, typed: str = "", *, stdout: io.StringIO | None = None, asks: bool = False) -> None:
        self.out = stdout or io.StringIO()
        self.shell = Shell(self.session, stdin=io.StringIO(typed), stdout=self.out, is_interactive=asks)

    def type(self, line: str, outcome: int = 0) -> tuple[str, str]:
        """What the line prints on stdout and stderr."""
        self.out.seek(0)
        self.out.truncate()
        self.clock.sleep(1)
        with redirect_stderr(io.StringIO()) as error:
            self.shell.onecmd_plus_hooks(line)
        self.assertEqual(self.shell.outcome, outcome, self.out.getvalue() + error.getvalue())
        self.assertNotIn("Traceback", error.getvalue())
        return self.out.getvalue(), error.getvalue()

    def at_bench(self, number: int, action: Callable[[], object]) -> None:
        self.session.during_bench = lambda now: action() if now == number else None


class Run(RunCase):
    def test_one_line_per_trial_and_what_became_of_them(self) -> None:
        out, error = self.type(f"run {self.recipe}")
        record = self.shell.last_result
        assert isinstance(record, StudyRecord)
        study, start, ready, *trials, end, hint = out.splitlines()
        self.assertEqual(study, f"study {record.study_id}: 4 trials of 2 points")
        self.assertTrue(start.startswith("starting rates-"))
        self.assertIn("READY", ready)
        self.assertEqual(len(trials), 4)
        self.assertRegex(trials[2], r"^trial 3/4  rate=100  repeat 1  search: .*p99 .*  WARN  0003$")
        self.assertEqual(end, f"study {record.study_id} is COMPLETE: 4 trials done")
        self.assertEqual(hint, f"  next: report {record.study_id}")
        self.assertEqual(error, "")

    def test_on_a_terminal_the_trial_is_followed_in_its_line(self) -> None:
        terminal = Terminal()
        self.make_shell(stdout=terminal)
        with mock.patch.dict(os.environ, TERM="xterm"):
            out, _ = self.type(f"run {self.recipe}")
        self.assertIn("\r\x1b[Ktrial 1/4  rate=50  repeat 1  search  00:12/00:30  40 %", out)

    def test_failed_trials_and_invalid_runs_are_told_to_scripts(self) -> None:
        self.session.invalid_from = 3
        out, error = self.type(f"run {self.recipe}", outcome=3)
        self.assertIn("4 trials done, 2 INVALID", out)
        self.assertIn("-0003 --full` tells why", error)
        self.at_bench(6, _fail)
        out, error = self.type(f"run {self.recipe}", outcome=1)
        self.assertIn("FAILED (run 20261120-131455-store-0006): no data", out)
        self.assertRegex(error, "1 trial failed; `run --resume .*-rates-.... --retry-failed`")
        self.session.invalid_from = 1_000_000
        self.assertIn("1 of 4 trials are left", self.type("run --resume last --retry-failed", outcome=3)[0])

    def test_ctrl_c_says_how_to_go_on(self) -> None:
        self.at_bench(2, _press_ctrl_c)
        _, error = self.type(f"run {self.recipe}", outcome=130)
        study_id = self.session.study_record("last").study_id
        self.assertIn(f"interrupted: what was measured is kept, its services are stopped; "
                      f"`run --resume {study_id}` goes on", error)  # fmt: skip
        listed, _ = self.type("studies")
        self.assertRegex(listed, rf"{study_id} +INTERRUPTED +1 +0 +3 +how fast")
        self.recipe.write_text(RATES.replace("50, 100", "70"))
        out, _ = self.type(f"run --resume {study_id[-4:]}")
        self.assertIn("3 of 4 trials are left; ", out)
        self.assertIn("is different now", out)
        self.assertIn("trial 4/4  rate=100  repeat 2", out)
        out, _ = self.type("run --resume last")
        self.assertIn("no trial is left to run", out)

    def test_a_dry_run_starts_nothing(self) -> None:
        out, _ = self.type(f"run {self.recipe} --dry-run")
        self.assertIn("2 points x 2 repeats = 4 trials", out)
        self.assertEqual(
            (self.session.calls, self.type("studies")[0].strip()),
            ([], "no study yet; `run RECIPE` makes one"),
        )

    def test_above_the_limit_a_batch_is_refused_and_a_person_asked(self) -> None:
        self.recipe.write_text(RATES.replace("node_hours: 1", "node_hours: 0.001"))
        _, error = self.type(f"run {self.recipe}", outcome=2)
        self.assertRegex(error, "at least .* node-hours, and its limit is 0.001; --yes runs it")
        self.assertEqual(self.session.calls, [])
        self.type(f"run {self.recipe} --yes")
        for answer, trials in (("no", 0), ("", 0), ("yes", 4)):
            self.session.calls.clear()
            self.make_shell(asks=True)
            self.shell.read_input = lambda _, answer=answer: answer  # type: ignore[method-assign,misc]
            out, _ = self.type(f"run {self.recipe}")
            self.assertIn("node-hours", out)
            self.assertEqual(len(self.session.called("bench")), trials)

    def test_again(self) -> None:
        self.session.run_already("store")
        self.type(f"run {self.recipe}")
        out, _ = self.type("run --again 0002")
        self.assertIn("numbers of 20261120-131455-store-0005", out)
        self.assertEqual(self.session.instances(), ["store"])
        self.session.invalid_from = 1
        self.type("run --again last", outcome=3)

    def test_what_cannot_be_is_refused_in_one_line(self) -> None:
        for line, words in (
            ("run", "no recipe given"),
            ("run nothing.yaml", "nothing.yaml"),
            (f"run {self.dir}", "is a directory"),
            ("run --resume last", "there is none yet"),
            (f"run {self.recipe} --retry-failed", "needs --resume"),
            (f"run {self.recipe} --again last", "--again repeats one run"),
            ("run --dry-run --resume last", "--dry-run is of a recipe"),
            ("run --again nothing", "no run matches"),
            (f"run {self.recipe} --resum last", "did you mean '--resume'"),
            (f"run {self.recipe} more", "unexpected 'more'"),
            ("studies more", "unexpected 'more'"),
        ):
            _, error = self.type(line, outcome=2)
            self.assertIn(words, error, line)
            self.assertEqual(len(error.strip().splitlines()), 1, error)
        self.recipe.write_text("study: [")
        self.type(f"run {self.recipe}", outcome=2)
        self.assertEqual(self.session.calls, [])

    def test_help_and_completion(self) -> None:
        for command in ("run", "studies"):
            out, _ = self.type(f"help {command}")
            self.assertIn(f"Usage: {command}", out)
            self.assertIn("Example:", out)
        self.type(f"run {self.recipe}")
        line = "run --resume "
        found = self.shell.complete("", line, len(line), len(line))
        self.assertIn("last", [item.text for item in found])
        self.assertIn(self.session.studies()[0].study_id, [item.text for item in found])


def _fail() -> None:
    raise WorkloadError("no data", hint="give some")


def _press_ctrl_c() -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    unittest.main()
