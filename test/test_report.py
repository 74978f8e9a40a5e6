import json
import random
import re
import unittest
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from test.fakes.records import (
    RUN_ID,
    bare_measurement,
    capacity_record,
    empty_record,
    ingest,
    interrupted_record,
    levels_record,
    sample_record,
    search,
)

from aifbench.report import content, svg
from aifbench.report.figures import figures, tail_curve
from aifbench.report.html import run_html
from aifbench.report.markdown import run_markdown
from aifbench.report.numbers import result_table
from aifbench.report.reproduce import commands
from aifbench.report.tables import run_text
from aifbench.results.record import Check, Measurement, Metric, RunRecord, RunState, Verdict

EVIL = "<script>alert('x')</script> & \"quotes\" | `code` *bold* [link](javascript:1)"
VOID = {"meta", "br", "hr", "img", "link"}


def records() -> dict[str, RunRecord]:
    lean = Measurement("p", "s", "closed", "http", 1, (0.0, 0.0), (), ())
    return {
        "complete": sample_record(),
        "failed": empty_record(),
        "interrupted": interrupted_record(),
        "running": sample_record(state=RunState.RUNNING, ended_utc=""),
        "bare": sample_record(measurements=(bare_measurement(),)),
        "lean": RunRecord(RUN_ID, "", RunState.COMPLETE, {}, {}, measurements=(lean,)),
        "nothing": RunRecord(RUN_ID, "not a date", RunState.COMPLETE, {}, {}),
        "levels": levels_record(),
        "capacity": capacity_record(),
        "valid": sample_record(measurements=(replace(search(), checks=search().checks[:2]),)),
    }


class Page(HTMLParser):
    """Checks that elements close in order, and keeps what a test asks for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if self.open.pop() != tag:
            raise AssertionError(f"</{tag}> closes the wrong element, open: {self.open}")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


class Html(unittest.TestCase):
    def test_every_kind_of_record_makes_a_well_formed_page_without_script_or_network(self) -> None:
        for name, record in records().items():
            text = run_html(record)
            page = Page(text)
            self.assertEqual(page.open, [], name)
            self.assertFalse({"script", "link", "img", "iframe", "object"} & set(page.tags), name)
            names = {attribute for attribute, _ in page.attributes}
            self.assertFalse({"src", "href", "srcset", "style", "onload"} & names, name)
            self.assertNotRegex(text, r"url\(|@import")
            self.assertIn(record.verdict.value, page.text)
            self.assertIn(RUN_ID, page.text)

    def test_headline_numbers_with_intervals_come_first(self) -> None:
        text = Page(run_html(sample_record())).text
        parts = [
            "4 of 21 checks not met",
            "199.8 ops/s",
            "[198.1, 201.6]",
            "22.48 ms",
            "0.9868",
            "What was measured",
        ]
        places = [text.index(part) for part in parts]
        self.assertEqual(places, sorted(places))

    def test_sections_come_in_the_order_of_reading(self) -> None:
        found = re.findall(r"<h2>(.*?)</h2>", run_html(sample_record()))
        expected = [
            "What was measured",
            "Results",
            "Figures",
            "Validity",
            "Guidance",
            "Every number",
            "Definitions",
            "Where it was measured",
            "Reproduce",
        ]
        self.assertEqual(found, expected)

    def test_text_from_outside_stays_text(self) -> None:
        page = run_html(evil_record())
        self.assertNotIn("<script", page)
        self.assertGreater(page.count("&lt;script&gt;"), 8)
        self.assertIn("alert('x')", Page(page).text)

    def test_light_dark_and_print_styles_and_alternative_texts(self) -> None:
        page = run_html(sample_record())
        self.assertIn("prefers-color-scheme: dark", page)
        self.assertIn("@media print", page)
        self.assertEqual(page.count("<svg"), page.count("<desc>"))
        self.assertEqual(page.count("<svg"), page.count('role="img"'))

    def test_every_class_has_a_style(self) -> None:
        for record in records().values():
            page = run_html(record)
            css = page[page.index("<style>") : page.index("</style>")]
            used = {
                word for name, value in Page(page).attributes if name == "class" for word in value.split()
            }
            for word in used - {"eyebrow"}:
                self.assertIn(f".{word}", css)


class Figures(unittest.TestCase):
    def test_figures_are_small_well_formed_and_say_what_they_show(self) -> None:
        drawn = figures(sample_record())
        self.assertEqual(len(drawn), 5)
        for figure in drawn:
            root = ElementTree.fromstring(figure.svg)
            self.assertLess(len(figure.svg), 40_000)
            title = root.find("{http://www.w3.org/2000/svg}title")
            assert title is not None
            self.assertEqual(title.text, figure.title)
            self.assertRegex(figure.caption, r"\d")
            self.assertNotIn("nan", figure.svg)

    def test_captions_state_the_finding(self) -> None:
        captions = [figure.caption for figure in figures(sample_record())]
        self.assertIn("99 % of search operations took at most 22.5 ms.", captions[0])
        self.assertIn("90 % of ingest operations took at most 179 ms.", captions[0])
        self.assertRegex(
            captions[2], r"^search: between 185 and 217 operations per second, at worst .* 12 errors"
        )

    def test_long_series_stay_small_and_keep_their_peaks(self) -> None:
        source = random.Random(1)
        rows = 20_000
        noise = {
            name: [source.random() * 90 + 10 for _ in range(rows)] for name in ("p50_ms", "p99_ms", "max_ms")
        }
        series = {"rate": noise["p50_ms"], "in_flight": noise["p99_ms"], "errors": [1.0] * rows, **noise}
        long = replace(search(), series=series, window_s=(5.0, rows - 5.0))
        drawn = figures(sample_record(measurements=(long,)))[1]
        self.assertLess(len(drawn.svg), 40_000)
        points = [(float(i), 1000.0 if i == 777 else 1.0) for i in range(rows)]
        kept = svg.thinned(points)
        self.assertIn((777.0, 1000.0), kept)
        self.assertLessEqual(len(kept), 510)
        self.assertEqual(kept, sorted(kept))

    def test_a_curve_ends_at_the_last_percentile_the_sample_carries(self) -> None:
        quantiles = {"0": 1.0, "0.5": 2.0, "0.9": 3.0, "0.99": 4.0, "0.999": 5.0, "x": 9.0, "nan": 9.0}
        for n, last in ((5, 1.0), (35, 2.0), (36, 3.0), (367, 3.0), (368, 4.0), (3687, 4.0), (3688, 5.0)):
            metrics = (Metric("response_p50", 2.0, "ms", n=n),)
            curve = tail_curve(replace(search(), metrics=metrics, latency_quantiles=quantiles))
            self.assertEqual(curve[-1][0], last, n)

    def test_gaps_stay_gaps(self) -> None:
        panel = svg.Panel(svg.linear([2.0], 0, 100), svg.linear([2.0], 100, 0), "t")
        panel.line([(0, 1.0), (1, None), (2, 1.0)], "p50")
        self.assertEqual(panel.parts[0].count("M"), 2)
        panel.line([(0, None)], "p50")
        self.assertEqual(len(panel.parts), 1)


class Scales(unittest.TestCase):
    def test_ticks_are_round_and_within(self) -> None:
        self.assertEqual(svg.linear([65.0], 0, 1).ticks(8), [0, 10, 20, 30, 40, 50, 60, 70])
        scale = svg.logarithmic([2.0, 300.0], 0, 1)
        self.assertEqual(scale.ticks(), [2, 5, 10, 20, 50, 100, 200])
        for values in ([], [0.0], [5.0], [1e-9, 1e9], [float("inf"), -3.0], [7.0, 7.1]):
            for scale in (svg.linear(values, 0, 1), svg.logarithmic(values, 0, 1)):
                ticks = scale.ticks()
                self.assertTrue(ticks, values)
                self.assertLess(len(ticks), 25)
                self.assertTrue(all(scale.low * 0.999 <= tick <= scale.high * 1.001 for tick in ticks))

    def test_positions(self) -> None:
        scale = svg.Scale(1, 100, 0, 200, is_log=True)
        self.assertEqual([scale.at(v) for v in (0, 1, 10, 100, 1000)], [0, 0, 100, 200, 200])
        self.assertEqual(svg.Scale(3, 3, 0, 10).at(3), 5)


class Text(unittest.TestCase):
    def test_every_kind_of_record_fits_the_terminal(self) -> None:
        for name, record in records().items():
            text = run_text(record)
            self.assertLessEqual(max(map(len, text.splitlines())), 100, name)
            self.assertIn(record.verdict.value, text)
            self.assertFalse(any(line != line.rstrip() for line in text.splitlines()), name)

    def test_columns_stand_under_each_other(self) -> None:
        lines = run_text(sample_record()).splitlines()
        start = next(i for i, line in enumerate(lines) if line.startswith("search "))
        header = next(i for i in range(start, len(lines)) if "p99.9" in lines[i])
        self.assertEqual(
            lines[header].split(), ["p50", "p90", "p99", "p99.9", "max", "unit", "95", "%", "interval"]
        )
        response = lines[header + 1]
        for name, value in (("p50", "4.251"), ("p99", "22.48"), ("max", "108.2")):
            self.assertEqual(lines[header].index(name) + len(name), response.index(value) + len(value))

    def test_numbers_verdicts_errors_and_advice(self) -> None:
        text = run_text(sample_record())
        for part in (
            "service    chroma 1.5.9 at http://mel0312:41873, authentication token",
            "search   WARN\n",
            "errors   12 of 11,988 operations: SERVER_ERROR 10, TIMEOUT 2",
            '10 x  HTTP 500: {"error":"InternalError"',
            "WARN     ERRORS  0.1001 % failed, over 0.1 %; read `logs chroma`",
            "- service p99: n = 301 is too small for p99 (needs 368)",
            "VALID    lag, rate, steady, generator",
            "WARN   4 of 21 checks not met; first of all ingest: measured 12.9 s, under 60 s",
        ):
            self.assertIn(part, text)

    def test_how_a_run_ended_is_said(self) -> None:
        found = records()
        for name, words in {
            "failed": "the run failed: chroma's job 4711 ended: OUT_OF_MEMORY; no phase was finished",
            "interrupted": "the run was interrupted: process 4242 on login02 ended",
            "running": "still running; what is shown so far must not be quoted",
            "nothing": "nothing was measured",
            "valid": "VALID   all 2 checks passed",
            "lean": "no checks were made",
        }.items():
            self.assertIn(words, " ".join(run_text(found[name]).split("\n")), name)

    def test_a_run_that_ended_in_its_first_warm_up_has_no_numbers(self) -> None:
        cut = replace(search(), outcomes={}, samples_file="phases/phase-0/samples-search.npz")
        record = sample_record(state=RunState.INTERRUPTED, error="ended by SIGTERM", measurements=(cut,))
        self.assertEqual(
            content.verdict_sentence(record),
            "the run was interrupted: ended by SIGTERM; no phase was finished",
        )

    def test_an_interruption_is_said_once(self) -> None:
        record = replace(records()["interrupted"], error="interrupted by the user")
        self.assertIn("the run was interrupted by the user; ", run_text(record))

    def test_each_doubt_has_the_code_that_is_explained_elsewhere(self) -> None:
        for text in (run_markdown(sample_record()), Page(run_html(sample_record())).text):
            self.assertIn("ERRORS, search: 0.1001 % failed", text)


class Markdown(unittest.TestCase):
    def test_tables_have_equal_columns(self) -> None:
        for record in records().values():
            table: list[str] = []
            for line in [*run_markdown(record).splitlines(), ""]:
                if line.startswith("|"):
                    table.append(line)
                elif table:
                    self.assertEqual(len({len(re.findall(r"(?<!\\)\|", row)) for row in table}), 1)
                    table = []

    def test_text_from_outside_stays_text(self) -> None:
        text = run_markdown(evil_record())
        outside_code = re.sub(r"(?s)```.*?```", "", text)
        self.assertNotRegex(outside_code, r"(?<!\\)<script")
        self.assertNotRegex(outside_code, r"(?<!\\)\[link")

    def test_the_same_numbers_as_the_page(self) -> None:
        page, text = Page(run_html(sample_record())).text, run_markdown(sample_record()).replace("\\", "")
        numbers = re.findall(r"\d[\d,.]*\d", run_text(sample_record()))
        self.assertGreater(len(numbers), 80)
        for number in {"199.8", "22.48", "0.9868", "[20.49, 25.78]", "2,231", "11,988"}:
            self.assertIn(number, page)
            self.assertIn(number, text)


class Content(unittest.TestCase):
    def test_metric_names_for_people(self) -> None:
        for name, expected in {
            "response_p999": ("response", "p99.9"),
            "response_p99.9": ("response", "p99.9"),
            "first_byte_p50": ("first_byte", "p50"),
            "service_max": ("service", "max"),
            "lag_p9999": ("lag", "p99.99"),
            "service_mean": ("service", "mean"),
            "throughput": None,
            "recall@10": None,
        }.items():
            self.assertEqual(content.percentile_label(name), expected)

    def test_limits_that_are_only_known_on_one_side(self) -> None:
        metric = Metric(
            "response_p99", 30000.0, "ms", low=28000.0, note=">= value: operations without an answer"
        )
        self.assertEqual(content.with_unit(metric), "≥ 30,000 ms")
        self.assertEqual(content.interval_text(metric), "[28,000, ∞)")

    def test_the_worst_of_two_checks_of_one_name_is_shown(self) -> None:
        twice = (Check("RECALL", Verdict.VALID, "a", 1.0), Check("RECALL", Verdict.INVALID, "b", 0.1))
        table = content.check_table(sample_record(measurements=(replace(search(), checks=twice),)))
        self.assertEqual([cell.text for cell in table.rows[0]], ["recall", "0.1"])

    def test_units_stand_in_the_row_name_only_where_all_share_them(self) -> None:
        rows = {row[0].text: row for row in result_table(sample_record()).rows}
        self.assertIn("p99 (ms)", rows)
        odd = replace(ingest(), metrics=(Metric("throughput", 5.0, "rows/s"),))
        rows = {row[0].text: row for row in result_table(sample_record(measurements=(search(), odd))).rows}
        self.assertEqual([cell.text for cell in rows["achieved"][1:]], ["199.8 ops/s", "5 rows/s"])

    def test_the_command_makes_a_like_run(self) -> None:
        options = {"rate": 0.5, "note": "it's", "trace": None, "dry": False, "full": True, "client_nodes": 2}
        record = sample_record(
            service={"kind": "chroma", "name": "b", "options": {"nodes": 1}},
            recipe={"bench": "search", **options},
        )
        lines = commands(record).split(" \\\n  ")
        self.assertEqual(lines[:3], ["aifbench", "'start chroma --nodes 1'", "'check b --wait 600'"])
        self.assertIn("bench b search --rate 0.5 --note", lines[3])
        self.assertTrue(lines[3].endswith("--full --client-nodes 2'"))
        self.assertEqual(commands(records()["nothing"]), "")

    def test_no_service_is_named_in_report_code(self) -> None:
        folder = Path(content.__file__).parent
        for path in (*folder.glob("*.py"), *folder.glob("*.css")):
            for name in ("vllm", "chroma", "postgres", "lustre", "faiss", "triton", "ollama"):
                self.assertNotIn(name, path.read_text(encoding="utf-8").lower(), path.name)


def evil_record() -> RunRecord:
    measurement = replace(
        search(),
        phase=EVIL,
        arrivals=EVIL,
        metrics=(Metric("throughput", 1.0, EVIL, note=EVIL), Metric(f"{EVIL}_p99", 1.0, "ms")),
        checks=(Check(EVIL, Verdict.WARN, EVIL, 1.0, 2.0, EVIL, EVIL),),
        errors={EVIL: 3},
        outcomes={EVIL: 3},
    )
    data = json.loads(json.dumps(sample_record().to_json()))
    return sample_record(
        service={**data["service"], "name": EVIL, EVIL: EVIL},
        recipe={"bench": EVIL, EVIL: EVIL},
        provenance={EVIL: {EVIL: EVIL}, "loose": EVIL},
        measurements=(measurement,),
        notes=(EVIL,),
        error=EVIL,
        files={EVIL: EVIL},
    )


if __name__ == "__main__":
    unittest.main()
