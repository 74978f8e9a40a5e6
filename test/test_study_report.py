"""The report of a study: its order, its numbers over runs, its figures, and bad studies."""

import csv
import io
import json
import re
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

from test.fakes.site import SHELL, SiteCase
from test.fakes.studies import clients_study, rate_study
from test.test_report import EVIL, Page

from aifbench.errors import ConfigError, UnknownRun
from aifbench.report import files
from aifbench.report.comparison_text import comparison_text
from aifbench.report.study_axes import baseline, number_of
from aifbench.report.study_content import comparisons, headline, verdict_sentence
from aifbench.report.study_export import study_csv, study_json
from aifbench.report.study_history import drift_figure, interference_figure
from aifbench.report.study_html import study_figures, study_html
from aifbench.report.study_markdown import study_markdown
from aifbench.report.study_points import Spread, StudyView, view
from aifbench.results.compared import Rank
from aifbench.results.comparison import compare_sides
from aifbench.results.record import Metric, RunState, Verdict
from aifbench.results.selection import Side
from aifbench.results.store import RunStore
from aifbench.results.study import TrialState
from aifbench.session import Session
from aifbench.stats.comparison import Change
from aifbench.studies.store import StudyStore

RATES, CLIENTS = view(*rate_study()), view(*clients_study())


def studies() -> dict[str, StudyView]:
    """Good ones, and whatever may be left of one."""
    record, runs = rate_study()
    one_each = {run_id: run for run_id, run in runs.items() if run.recipe["study"]["repeat"] == 1}
    failed = replace(
        record,
        trials=tuple(replace(trial, state=TrialState.FAILED, error="refused") for trial in record.trials),
    )
    pending = replace(
        record,
        state=RunState.INTERRUPTED,
        trials=tuple(replace(trial, state=TrialState.PENDING, run_id="") for trial in record.trials),
    )
    empty = {run_id: replace(run, measurements=()) for run_id, run in runs.items()}
    return {
        "rates": RATES,
        "clients": CLIENTS,
        "one run each": view(record, one_each),
        "all failed": view(failed, {}),
        "nothing run": view(pending, {}),
        "unreadable": view(record, {}, dict.fromkeys(runs, "checksum differs")),
        "nothing measured": view(record, empty),
        "no points": view(replace(record, points=(), trials=()), {}),
        "broken recipe": view(replace(record, recipe_text="a: [1"), runs),
        "bottomless recipe": view(replace(record, recipe_text="[" * 5000), runs),
        "evil": evil(),
    }


def evil() -> StudyView:
    made, kept = rate_study()
    points = tuple(replace(point, label=EVIL, settings={EVIL: i}) for i, point in enumerate(made.points))
    trials = tuple(replace(trial, error=EVIL) for trial in made.trials)
    named = {
        run_id: replace(
            run,
            service={"kind": EVIL, "name": EVIL},
            recipe={**run.recipe, "bench": EVIL, EVIL: EVIL},
            measurements=tuple(replace(m, phase=EVIL, arrivals=EVIL, via=EVIL) for m in run.measurements),
        )
        for run_id, run in kept.items()
    }
    told = replace(
        made,
        name=EVIL,
        recipe_text=EVIL,
        recipe_file=EVIL,
        note=EVIL,
        error=EVIL,
        points=points,
        trials=trials,
    )
    return view(told, named, {EVIL: EVIL})


class Values(unittest.TestCase):
    def spread(self, *values: float) -> Spread:
        found = Spread.of([Metric("throughput", value, "ops/s", "higher") for value in values])
        assert found is not None
        return found

    def test_a_median_has_an_interval_of_95_percent_from_six_runs_on(self) -> None:
        for n, confidence in ((2, 0.5), (3, 0.75), (4, 0.875), (5, 0.9375), (6, 0.95), (7, 0.95)):
            found = self.spread(*range(1, n + 1))
            self.assertEqual((found.low, found.high, found.confidence), (1, n, confidence))
        self.assertEqual((self.spread(*range(1, 10)).low, self.spread(*range(1, 10)).high), (2, 8))

    def test_one_run_has_neither_interval_nor_noise(self) -> None:
        found = self.spread(5.0)
        self.assertEqual((found.median, found.low, found.cv), (5.0, None, None))
        self.assertIsNone(self.spread(1.0, -1.0).cv)
        self.assertIsNone(Spread.of([Metric("x", None, "")]))

    def test_settings_as_amounts(self) -> None:
        cases = (("50", 50), ("50/s", 50), ("20k", 20_000), ("4KiB", 4096), (3, 3), (0.5, 0.5), ("1e3", 1000))
        for text, amount in cases:
            self.assertEqual(number_of(text), amount)
        for nothing in ("hnsw", "", None, True, "4 parsecs", "1:2"):
            self.assertIsNone(number_of(nothing))

    def test_invalid_runs_count_only_where_there_are_no_others(self) -> None:
        self.assertTrue(RATES.points[-1].is_invalid)
        self.assertEqual((len(RATES.points[-1].used), RATES.points[-1].left_out), (6, 0))
        record, runs = rate_study(rates=(50, 100))
        first = next(run_id for run_id, run in runs.items() if run.recipe["study"]["point"] == 0)
        runs[first] = replace(runs[first], state=RunState.FAILED)
        point = view(record, runs).points[0]
        self.assertEqual((len(point.used), point.left_out, point.is_invalid), (5, 1, False))

    def test_each_point_has_the_baseline_that_the_study_began_with(self) -> None:
        def bases(*baselines: int | None) -> list[str]:
            record, runs = rate_study(baselines=baselines)
            study = view(record, runs)
            return [base.label if (base := baseline(study, point)) else "" for point in study.points]

        self.assertEqual(bases(), ["", "rate=50", "rate=50", "rate=50", "rate=50"])
        self.assertEqual(bases(2, 2, 2, None, 0), ["rate=150", "rate=150", "", "", "rate=50"])

    def test_points_with_baselines_of_their_own_say_which(self) -> None:
        page = study_html(view(*rate_study(baselines=(0, 0, 2, 2, None))))
        self.assertIn("against rate=50", page)
        self.assertIn("against rate=150", page)
        self.assertIn("Ratios to the same point with the baseline&#x27;s settings", page)

    def test_a_pair_is_judged_as_compare_judges_it_however_many_points_there_are(self) -> None:
        record, runs = rate_study(rates=(50, 52, 54, 56, 58, 60, 62, 64, 66), repeats=5)
        study = view(record, runs)
        judged = comparisons(study)
        for point in study.points[1:]:
            sides = [Side(each.label, each.used) for each in (study.points[0], point)]
            rows = compare_sides(sides).pairs[0].of_rank(Rank.PRIMARY)
            expected = {row.metric: (row.finding.change, row.finding.p) for row in rows}
            told = {
                each.name: (each.comparison.change, each.comparison.p)
                for each in judged
                if each.point is point
            }
            self.assertEqual(told, expected)
        self.assertIn(Change.IMPROVED, {each.comparison.change for each in judged})

    def test_both_outputs_say_what_p_is_adjusted_over(self) -> None:
        sides = [Side(point.label, point.used) for point in RATES.points[:2]]
        for text in (comparison_text(compare_sides(sides)), study_markdown(RATES)):
            self.assertIn("Holm's method adjusts p over the main numbers of one pair", text)

    def test_an_invalid_point_is_not_judged(self) -> None:
        words = {(each.point.label, each.name): each.word for each in comparisons(RATES)}
        self.assertEqual(words["rate=200", "throughput"], "improved")
        self.assertEqual(words["rate=200", "response_p99"], "regressed")
        self.assertEqual(words["rate=200", "recall@10"], "no change")
        self.assertEqual(words["rate=300", "throughput"], "not judged: INVALID")

    def test_the_headline_is_of_the_best_point_that_can_be_quoted(self) -> None:
        found = headline(RATES)
        assert found is not None
        self.assertEqual(found[0].label, "rate=200")
        self.assertEqual([s.metric.name for s in found[1]], ["throughput", "response_p99", "recall@10"])
        self.assertIsNone(headline(studies()["all failed"]))

    def test_the_verdict_of_the_whole(self) -> None:
        verdicts = {name: study.verdict for name, study in studies().items()}
        self.assertEqual(verdicts["clients"], Verdict.VALID)
        self.assertEqual(verdicts["rates"], Verdict.WARN)
        for name in ("all failed", "nothing run", "unreadable", "no points", "nothing measured"):
            self.assertEqual(verdicts[name], Verdict.INVALID, name)
        self.assertEqual(
            verdict_sentence(RATES),
            "29 runs at 5 points, 23 VALID, 6 INVALID, 1 trial failed; INVALID most often for rate (6 runs), "
            "such as: 76.7 % of the offered rate was served",
        )


class Documents(unittest.TestCase):
    def test_every_study_makes_a_well_formed_page_without_script_or_network(self) -> None:
        for name, study in studies().items():
            text = study_html(study)
            page = Page(text)
            self.assertEqual(page.open, [], name)
            self.assertFalse({"script", "link", "img", "iframe", "object"} & set(page.tags), name)
            names = {attribute for attribute, _ in page.attributes}
            self.assertFalse({"src", "href", "srcset", "style", "onload"} & names, name)
            self.assertNotRegex(text, r"url\(|@import")
            self.assertNotIn("nan", page.text.split())
            self.assertIn(study.verdict.value, page.text)

    def test_text_from_outside_stays_text(self) -> None:
        study = studies()["evil"]
        self.assertNotIn("<script", study_html(study))
        self.assertGreater(study_html(study).count("&lt;script&gt;"), 8)
        outside = re.sub(r"(?s)```.*?```|`[^`]*`", "", study_markdown(study))
        self.assertNotRegex(outside, r"(?<!\\)<script")
        json.loads(study_json(study))

    def test_sections_come_in_the_order_of_reading(self) -> None:
        found = re.findall(r"<h2>(.*?)</h2>", study_html(RATES))
        expected = (
            "What was measured", "Results", "Against the baseline", "Failed trials", "Figures", "Validity",
            "Guidance", "Method", "Where it was measured", "Reproduce",
        )  # fmt: skip
        self.assertEqual(tuple(found), expected)

    def test_every_class_has_a_style(self) -> None:
        page = study_html(RATES) + study_html(CLIENTS)
        style = page[page.index("<style>") : page.index("</style>")]
        for word in {w for classes in re.findall(r'class="([^"]*)"', page) for w in classes.split()}:
            if word not in ("num", "words", "wide", "tick"):
                self.assertIn(f".{word}", style)

    def test_a_failed_trial_is_told_as_failed(self) -> None:
        for text in (Page(study_html(RATES)).text, study_markdown(RATES).replace("\\", "")):
            self.assertIn("chroma's job 4712 ended: NODE_FAIL", text)
            self.assertIn("5 VALID, 1 failed", text)

    def test_the_recipe_is_there_verbatim(self) -> None:
        self.assertIn(RATES.record.recipe_text, study_markdown(RATES))
        self.assertIn("aifbench", study_markdown(RATES))

    def test_tables_for_screen_readers_have_headers(self) -> None:
        page = study_html(RATES)
        self.assertEqual(page.count("<table"), page.count("<thead>"))
        self.assertIn('<th scope="row">', page)
        self.assertEqual(page.count("<section aria-label="), len(re.findall("<h2>", page)))

    def test_csv_has_a_row_for_every_number_of_every_run(self) -> None:
        rows = list(csv.DictReader(io.StringIO(study_csv(RATES))))
        self.assertEqual(len(rows), sum(len(m.metrics) for run in RATES.runs for m in run.measurements))
        self.assertEqual({row["point.rate"] for row in rows}, {"50", "100", "150", "200", "300"})
        self.assertEqual(study_csv(studies()["all failed"]).strip(), "")

    def test_json_says_what_the_page_says(self) -> None:
        data = json.loads(study_json(RATES))
        self.assertEqual((data["verdict"], len(data["points"])), ("WARN", 5))
        self.assertEqual(data["points"][1]["failed"], ["chroma's job 4712 ended: NODE_FAIL"])
        self.assertIn("knee", [each["code"] for each in data["guidance"]])


class Figures(unittest.TestCase):
    def test_each_has_a_finding_its_data_and_a_description(self) -> None:
        for study in studies().values():
            for drawn in study_figures(study, comparisons(study)):
                root = ElementTree.fromstring(drawn.svg)
                found = root.find("{http://www.w3.org/2000/svg}desc")
                assert found is not None and drawn.data is not None
                self.assertTrue(found.text)
                self.assertLess(len(drawn.svg), 40_000)
                self.assertRegex(drawn.caption, r"\d")
                self.assertNotIn("nan", drawn.svg)
                self.assertEqual({len(row) for row in drawn.data.rows}, {len(drawn.data.headers)})

    def test_which_apply(self) -> None:
        titles = [drawn.title for drawn in study_figures(RATES, comparisons(RATES))]
        self.assertEqual(
            titles,
            ["Latency over load", "Achieved over offered rate", "Latency over throughput",
             "Latency distribution", "Against rate=50", "Runs in order"],
        )  # fmt: skip
        self.assertIn("Scaling over clients", [d.title for d in study_figures(CLIENTS, comparisons(CLIENTS))])

    def test_findings_are_computed(self) -> None:
        found = {drawn.title: drawn.caption for drawn in study_figures(RATES, comparisons(RATES))}
        self.assertIn("From 300/s on less was served than offered", found["Achieved over offered rate"])
        found = {drawn.title: drawn.caption for drawn in study_figures(CLIENTS, comparisons(CLIENTS))}
        self.assertRegex(found["Scaling over clients"], r"peaks at 2\d(\.\d)? clients \[\d")
        few = view(*clients_study(clients=(1, 2, 4)))
        captions = {drawn.title: drawn.caption for drawn in study_figures(few, comparisons(few))}
        self.assertIn("No scalability law was fitted: 3 different", captions["Scaling over clients"])

    def test_invalid_points_are_rings(self) -> None:
        drawn = {each.title: each.svg for each in study_figures(RATES, comparisons(RATES))}
        self.assertIn('class="ring p99"', drawn["Latency over load"])
        self.assertNotIn("<circle", "".join(each.svg for each in study_figures(CLIENTS, [])))

    def test_drift_is_found_and_told(self) -> None:
        record, runs = rate_study(rates=(50, 100), repeats=10)
        late = sorted(runs)[len(runs) // 2 :]
        for run_id in late:
            (m,) = runs[run_id].measurements
            metrics = tuple(
                replace(x, value=(x.value or 0) * 0.8) if x.name == "throughput" else x for x in m.metrics
            )
            runs[run_id] = replace(runs[run_id], measurements=(replace(m, metrics=metrics),))
        drawn = drift_figure(view(record, runs))
        assert drawn is not None
        self.assertIn("changed during the study", drawn.caption)
        steady = drift_figure(RATES)
        assert steady is not None
        self.assertIn("No drift", steady.caption)

    def test_slowdowns_are_drawn_where_there_are_some(self) -> None:
        self.assertIsNone(interference_figure(RATES))
        record, runs = clients_study(repeats=6)
        for run_id, run in runs.items():
            (m,) = run.measurements
            told = Metric("slowdown", 1.5, "", "lower")
            runs[run_id] = replace(run, measurements=(replace(m, metrics=(*m.metrics, told)),))
        drawn = interference_figure(view(record, runs))
        assert drawn is not None
        self.assertIn("The largest slowdown is 1.5 times", drawn.caption)


class Files(SiteCase):
    def setUp(self) -> None:
        super().setUp()
        self.session = Session(self.config, scheduler=self.scheduler(), clock=self.clock, environ=SHELL)
        self.runs = RunStore(self.config.results_dir, self.clock)
        self.studies = StudyStore(self.config.results_dir / "studies", self.clock)

    def keep(self) -> str:
        record, runs = rate_study(rates=(50, 100), repeats=2)
        made = self.studies.create("s", (record.recipe_text, "s.yaml"), record.points, record.trials)
        for run_id, run in runs.items():
            self.runs.path(run_id).mkdir()
            self.runs.write(run)
        self.studies.write(replace(record, study_id=made.study_id))
        return made.study_id

    def test_a_study_is_reported_into_its_directory(self) -> None:
        study_id = self.keep()
        written = self.session.report(study_id)
        self.assertEqual(
            [path.name for path in written], ["study.html", "study.md", "study.csv", "report.json"]
        )
        self.assertEqual({path.parent for path in written}, {self.studies.path(study_id)})
        self.assertEqual(self.studies.load(study_id).study_id, study_id)

    def test_formats_and_place_can_be_chosen(self) -> None:
        study_id = self.keep()
        with tempfile.TemporaryDirectory() as name:
            written = self.session.report(study_id[-4:], formats=["md"], out=Path(name) / "new")
            self.assertEqual([path.name for path in written], [f"{study_id}-study.md"])
            run_id = self.runs.run_ids()[0]
            (path,) = self.session.report(run_id, formats=["html"], out=Path(name))
            self.assertEqual(path.name, f"{run_id}-report.html")

    def test_a_run_whose_record_is_gone_is_told(self) -> None:
        study_id = self.keep()
        (self.runs.path(self.runs.run_ids()[0]) / "record.json").unlink()
        (path,) = self.session.report(study_id, formats=["md"])
        self.assertIn("1 record unreadable", path.read_text())

    def test_neither_run_nor_study(self) -> None:
        with self.assertRaisesRegex(UnknownRun, "nothing"):
            self.session.report("nothing")

    def test_a_place_that_cannot_be_written(self) -> None:
        with self.assertRaisesRegex(ConfigError, "cannot write /proc/nowhere"):
            files.write(files.study_texts(RATES), Path("/proc/nowhere"), ["md"])


if __name__ == "__main__":
    unittest.main()
