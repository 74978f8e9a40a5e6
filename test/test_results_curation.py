"""Tags, notes, filters, steadiness, pruning and the table of many runs; and the shell's words for them."""

import csv
import errno
import io
import os
import tempfile
import unittest
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from test.fakes.clock import FakeClock
from test.fakes.records import empty_record, ingest, sample_record, search
from test.fakes.shell import ShellCase
from test.fakes.slurm import FakeSlurm

from aifbench.clock import utc_text
from aifbench.cluster.slurm_cli import SlurmCli
from aifbench.config import load_config
from aifbench.errors import ResultError, UsageError
from aifbench.results.export import runs_csv
from aifbench.results.ownership import current_owner
from aifbench.results.pruning import plan_pruning, prune
from aifbench.results.record import Measurement, RunRecord, RunState
from aifbench.results.repeats import repeats
from aifbench.results.store import RunStore
from aifbench.results.tags import NO_TAGS, TAGS_FILE, Tags, read_tags, say
from aifbench.session import Session

BASE, MEASURED = sample_record(), (search(), ingest())
DAY_S = 86400.0
OTHER_UID = os.geteuid() + 1


class StoreCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        self.clock = FakeClock()
        self.store = RunStore(self.dir, self.clock)

    def keep(self, number: int = 0, *words: str, age_days: float = 0.0, **changes: Any) -> RunRecord:
        run_id = f"20261120-1300{number:02d}-chroma-{number:04x}"
        created = utc_text(self.clock.wall_s() - age_days * DAY_S)
        record = replace(
            BASE, **{"run_id": run_id, "created_utc": created, "measurements": MEASURED, **changes}
        )
        self.store.path(run_id).mkdir(parents=True)
        self.store.write(record)
        if words:
            say([self.store.path(run_id)], lambda tags: tags.with_words(words))
        return record

    def found(self, *filters: str) -> list[str]:
        return sorted(run.run_id[-4:] for run in self.store.list(filters))


class TagsAndFilters(StoreCase):
    def test_words_and_notes_lie_beside_a_record_that_stays_as_measured(self) -> None:
        directory = self.store.path(self.keep().run_id)
        before = (directory / "record.json").read_bytes()
        say([directory], lambda tags: tags.with_words(["base", "base", "v1.5"]))
        say([directory], lambda tags: tags.with_note("the disk\nwas full"))
        self.assertEqual(read_tags(directory), Tags(("base", "v1.5"), "the disk was full"))
        say([directory], lambda tags: tags.without_words(["base"]))
        self.assertEqual(self.store.tags(directory.name).words, ("v1.5",))
        self.assertEqual((directory / "record.json").read_bytes(), before)
        self.assertEqual([p.name for p in directory.iterdir() if p.suffix == ".part"], [])

    def test_bad_words_are_refused_and_nothing_is_written(self) -> None:
        first, second = (self.store.path(self.keep(n).run_id) for n in (0, 1))
        say([first], lambda tags: tags.with_words(["a"]))
        for word in ("", "a b", "-x", "a,b", "tag=x", "<b>", "x" * 41):
            with self.subTest(word), self.assertRaisesRegex(UsageError, "is no tag"):
                NO_TAGS.with_words([word])
        with self.assertRaisesRegex(UsageError, "has no tag 'a'; it has none"):
            say([first, second], lambda tags: tags.without_words(["a"]))
        self.assertEqual(read_tags(first).words, ("a",))
        with self.assertRaisesRegex(UsageError, "2,001 characters"):
            NO_TAGS.with_note("x" * 2001)

    def test_tags_that_cannot_be_read_are_none(self) -> None:
        directory = self.store.path(self.keep().run_id)
        for text in ("", "[]", '{"tags": 3}', "{", "[" * 100000):
            (directory / TAGS_FILE).write_text(text)
            self.assertEqual(self.store.list()[0].tags, NO_TAGS, text[:9])

    def test_somebody_elses_run_is_left_alone(self) -> None:
        directory = self.store.path(self.keep().run_id)
        with self.assertRaisesRegex(ResultError, "belongs to .*only its owner may"):
            say([directory], lambda tags: tags.with_words(["mine"]), uid=OTHER_UID)
        self.assertFalse((directory / TAGS_FILE).exists())

    def test_filters(self) -> None:
        study = {"id": "20261120-130000-rates-ab12", "name": "rates", "label": "rate=50"}
        self.keep(0, "base", age_days=10)
        self.keep(1, age_days=5, recipe={**BASE.recipe, "study": study})
        self.keep(2, "BASE", "keep")
        for filters, expected in (
            (["tag=base"], ["0000", "0002"]),
            (["tag=keep,other"], ["0002"]),
            (["study=rates"], ["0001"]),
            (["study=ab12"], ["0001"]),
            (["rate=50"], None),
            (["until=4d"], ["0000", "0001"]),
            (["since=7d", "until=1d"], ["0001"]),
            (["7d..1d"], ["0001"]),
            (["7d.."], ["0001", "0002"]),
            (["..7d"], ["0000"]),
        ):
            with self.subTest(filters):
                if expected is None:
                    self.assertRaises(UsageError, self.found, *filters)
                else:
                    self.assertEqual(self.found(*filters), expected)

    def test_the_last_day_of_a_period_belongs_to_it(self) -> None:
        self.keep(created_utc="2026-11-10T23:59:59Z")
        self.assertEqual(self.found("2026-11-10..2026-11-10"), ["0000"])
        self.assertEqual(self.found("until=2026-11-09"), [])
        for bad in ("since=2026-11-31", "until=soon", "until=", "2026-1-1x..", "..", "", " "):
            self.assertRaises(UsageError, self.found, bad)


class Steadiness(StoreCase):
    def scattered(self, count: int, percent: float, **recipe: Any) -> list[RunRecord]:
        def measured(factor: float) -> tuple[Measurement, ...]:
            main, rest = MEASURED
            metrics = tuple(
                replace(m, value=m.value * factor) if m.name == "throughput" and m.value else m
                for m in main.metrics
            )
            return (replace(main, metrics=metrics), rest)

        steps = [1 + percent / 100 * (i - (count - 1) / 2) for i in range(count)]
        recipe = {**BASE.recipe, "given": ["rate"], **recipe}
        return [
            replace(BASE, run_id=str(i), recipe=recipe, measurements=measured(s)) for i, s in enumerate(steps)
        ]

    def test_equal_runs_are_grouped_and_others_are_not(self) -> None:
        groups = repeats([*self.scattered(5, 0.5), *self.scattered(2, 0.5, rate=50.0), empty_record()])
        self.assertEqual(
            [(len(g.runs), g.left_out, g.asked) for g in groups][:2],
            [(5, 1, "rate 200"), (2, 0, "rate 50")],
        )

    def test_scatter_has_a_word(self) -> None:
        for percent, word in ((0.1, "stable"), (2.0, "fair"), (5.0, "noisy"), (30.0, "unstable")):
            found = repeats(self.scattered(5, percent))[0].metrics[0]
            self.assertEqual((found.metric, found.n, found.word), ("throughput", 5, word))
            self.assertTrue(found.low < found.median < found.high)
            assert found.cv is not None
            self.assertAlmostEqual(found.cv, percent / 100 * 2.5**0.5)  # of five even steps
        self.assertEqual(repeats(self.scattered(2, 0.1))[0].metrics[0].word, "too few")


class Pruning(StoreCase):
    def test_only_what_matches_and_nobody_needs(self) -> None:
        study = {"id": "s-1", "name": "rates"}
        self.keep(0, age_days=40)
        self.keep(1, "keep", age_days=40)
        self.keep(2, age_days=40, recipe={**BASE.recipe, "study": study})
        self.keep(3, age_days=40, state=RunState.RUNNING, owner=current_owner())
        self.keep(4)
        plan = plan_pruning(self.store, ["until=30d"])
        self.assertEqual([r.run_id[-4:] for r in plan.doomed], ["0000"])
        self.assertGreater(plan.size_bytes, 1000)
        reasons = {run.run_id[-4:]: reason for run, reason in plan.spared}
        self.assertEqual(reasons["0001"], "tagged keep")
        self.assertIn("of study rates", reasons["0002"])
        self.assertEqual(reasons["0003"], "still RUNNING")
        self.assertEqual(prune(self.store, plan), ["20261120-130000-chroma-0000"])
        self.assertEqual(self.found(), ["0001", "0002", "0003", "0004"])
        plan = plan_pruning(self.store, ["until=30d"], studies=True)
        self.assertEqual(prune(self.store, plan, studies=True), ["20261120-130002-chroma-0002"])

    def test_without_a_filter_nothing(self) -> None:
        with self.assertRaisesRegex(UsageError, "needs a filter"):
            plan_pruning(self.store, [])
        for everything in ("", " ", ".."):
            with self.assertRaisesRegex(UsageError, "is no filter"):
                plan_pruning(self.store, [everything])

    def test_of_a_run_that_cannot_go_nothing_is_lost(self) -> None:
        record = self.keep()
        plan = plan_pruning(self.store, ["chroma"])
        refused = PermissionError(errno.EACCES, "Permission denied")
        for failing in ("pathlib.Path.rename", "shutil.rmtree"):
            with (
                patch(failing, side_effect=refused),
                self.assertRaisesRegex(ResultError, f"deleted 0 runs; cannot delete .*{record.run_id}: Perm"),
            ):
                prune(self.store, plan)
            self.assertEqual(self.store.load(record.run_id), record)

    def test_a_run_that_was_tagged_since_the_question_stays(self) -> None:
        record = self.keep()
        plan = plan_pruning(self.store, ["chroma"])
        say([self.store.path(record.run_id)], lambda tags: tags.with_words(["keep"]))
        self.assertEqual(prune(self.store, plan), [])
        self.assertEqual(self.found(), ["0000"])

    def test_unreadable_runs_and_those_of_others_stay_and_are_listed(self) -> None:
        self.keep(0)
        directory = self.store.path(self.keep(1).run_id)
        (directory / "record.json").write_text("{")
        plan = plan_pruning(self.store, ["chroma"], uid=OTHER_UID)
        self.assertEqual(plan.doomed, ())
        reasons = [reason for _, reason in plan.spared]
        self.assertIn("unreadable", reasons[0])
        self.assertIn("belongs to", reasons[1])
        self.assertEqual(self.found(), ["0000", "0001"])


class Table(StoreCase):
    def rows(self, runs: Sequence[tuple[RunRecord, Tags]]) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(runs_csv(runs))))

    def test_a_row_per_run_and_metric_with_everything_about_the_run(self) -> None:
        study = {"id": "s", "name": "rates", "label": "rate=50", "settings": {"rate": 50}, "repeat": 3}
        record = replace(BASE, recipe={**BASE.recipe, "study": study})
        rows = self.rows([(record, Tags(("base", "v1"), 'a "quoted", note'))])
        self.assertEqual(len(rows), sum(len(m.metrics) for m in record.measurements))
        row = next(r for r in rows if (r["phase"], r["metric"]) == ("search", "throughput"))
        expected = {
            "run": record.run_id, "kind": "chroma", "bench": "search", "tags": "base v1", "repeat": "3",
            "note": 'a "quoted", note', "study": "rates", "point": "rate=50", "point.rate": "50",
            "start.nodes": "1", "bench.rate": "200.0", "host": "mel0313", "value": "199.8", "unit": "ops/s",
            "direction": "higher", "verdict": "WARN", "measurement_verdict": "WARN", "stream": "search",
        }  # fmt: skip
        self.assertEqual({key: row[key] for key in expected}, expected)

    def test_a_failed_run_has_a_row_and_columns_of_all_runs_are_there(self) -> None:
        rows = self.rows(
            [(empty_record(), NO_TAGS), (replace(BASE, recipe={"bench": "search", "extra": [1, 2]}), NO_TAGS)]
        )
        self.assertEqual((rows[0]["state"], rows[0]["metric"], rows[0]["value"]), ("FAILED", "", ""))
        self.assertEqual((rows[0]["bench.extra"], rows[1]["bench.extra"]), ("", "[1, 2]"))


class InTheShell(ShellCase):
    """Over a real session on a results folder of its own."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        clock = FakeClock()
        config = load_config({"AIFBENCH_RESULTS": str(self.dir / "results")})
        self.real = Session(config, scheduler=SlurmCli(FakeSlurm(clock), clock, {}), clock=clock, environ={})
        self.store = RunStore(self.dir / "results", clock)
        for number in range(10):
            factor = 1.0 if number % 2 else 1.3
            self.write(number, factor * (1 + 0.001 * number), "new" if factor > 1 else "old")
        self.session = self.real  # type: ignore[assignment]
        self.shell = self.make_shell()

    def write(self, number: int, factor: float, *words: str) -> None:
        def slower(metric: Any) -> Any:
            timed = metric.value is not None and metric.name.startswith(("response", "service"))
            return replace(metric, value=metric.value * factor) if timed else metric

        measured = tuple(replace(m, metrics=tuple(map(slower, m.metrics))) for m in MEASURED)
        record = replace(BASE, run_id=f"20261120-1300{number:02d}-chroma-{number:04x}", measurements=measured)
        self.store.path(record.run_id).mkdir(parents=True)
        self.store.write(record)
        if words:
            say([self.store.path(record.run_id)], lambda tags: tags.with_words(words))

    def test_compare_and_its_exit_codes(self) -> None:
        page = self.dir / "c.html"
        out, _ = self.run_line(
            f"compare tag=old tag=new --html {page} --csv {self.dir}/c.csv --md {self.dir}/c.md"
        )
        self.assertEqual(self.shell.outcome, 0)
        self.assertIn("response p99", out)
        self.assertIn("regressed", out)
        self.assertIn("<svg", page.read_text())
        self.assertTrue((self.dir / "c.csv").exists() and (self.dir / "c.md").exists())
        self.assert_fails("compare tag=old tag=new --fail-on regression", 1, "--fail-on regression: met")
        self.assert_fails("compare tag=new tag=old --fail-on regression,change", 1, "--fail-on change: met")
        self.run_line("compare tag=new tag=old --fail-on regression,undecided")
        self.assertEqual(self.shell.outcome, 0)

    def test_compare_refuses_in_one_line(self) -> None:
        self.assert_fails("compare tag=old tag=new --fail-on regresion", 2, "did you mean 'regression'?")
        self.assert_fails("compare last", 2, "only one side")
        self.assert_fails("compare", 2, "SIDE")
        self.assert_fails("compare tag=old tag=nothing", 2, "no run matches")
        self.assert_fails(f"compare tag=old {self.dir}/none.zip", 1, "none.zip")
        self.assert_fails("compare tag=old tag=new --html /nonexistent/x.html", 2, "cannot write")

    def test_tags_and_notes(self) -> None:
        out, _ = self.run_line("tag tag=old baseline keep")
        self.assertIn("and 4 more", out)
        self.run_line("note last the disk was full")
        out, _ = self.run_line("results tag=baseline")
        self.assertIn("old baseline keep", out)
        out, _ = self.run_line("results disk")
        self.assertEqual(len(out.splitlines()), 2)
        self.run_line("untag tag=baseline keep")
        self.assertEqual(self.run_line("results tag=keep")[0].strip(), "no run matches")
        self.assert_fails("untag last baseline2", 2, "has no tag")
        self.assert_fails("tag last a,b", 2, "is no tag")
        self.assert_fails("tag ./x.zip a", 2, "is a file")

    def test_statistics_of_repeats(self) -> None:
        out, _ = self.run_line("results tag=old --stats")
        self.assertIn("5 runs", out)
        self.assertRegex(out, r"response p99 .* 0\.\d % .* 5 +stable")

    def test_export(self) -> None:
        path = self.dir / "all.csv"
        out, _ = self.run_line(f"export tag=old {path}")
        self.assertIn("5 runs", out)
        with path.open(newline="") as file:
            self.assertEqual({row["tags"] for row in csv.DictReader(file)}, {"old"})
        self.assert_fails(f"export tag=old {self.dir}/all.parquet", 2, "is no CSV file")
        self.assert_fails("export tag=old /nonexistent/all.csv", 1, "cannot write")

    def test_prune_needs_yes_in_a_script_and_asks_on_a_terminal(self) -> None:
        out, _ = self.run_line("prune tag=old --dry-run")
        self.assertIn("would delete 5 runs", out)
        self.assert_fails("prune tag=old", 2, "--yes deletes")
        self.assertEqual(len(self.store.run_ids()), 10)
        for answer, left in (("no", 10), ("", 10), ("y", 5)):
            self.shell = self.make_shell(is_interactive=True)
            self.shell.read_input = lambda _prompt, answer=answer: answer  # type: ignore[method-assign, assignment, misc]
            self.run_line("prune tag=old")
            self.assertEqual(len(self.store.run_ids()), left, answer)
        self.shell = self.make_shell()
        out, _ = self.run_line("prune tag=new --yes")
        self.assertIn("deleted 5 runs", out)
        self.assertEqual(self.run_line("prune verdict=WARN --yes")[0].strip(), "no run to delete")


if __name__ == "__main__":
    unittest.main()
