"""Figures of work on files: bars from zero for each phase, and bandwidth over time."""

import re
import unittest
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

from test import fakes  # noqa: F401 - puts src on the path
from test.fakes.records import sample_record

from aifbench.report.figures import figures
from aifbench.report.files_figures import bytes_per_operation, phases_figure
from aifbench.report.html import run_html
from aifbench.report.numbers import narrow_table
from aifbench.report.score_words import score_sentences
from aifbench.report.tables import run_text
from aifbench.results.record import Check, Measurement, Metric, RunRecord, Verdict

MIB = 2**20


def told(phase: str, value: float, unit: str, *more: Metric, verdict: Verdict = Verdict.VALID) -> Measurement:
    """A phase of a program that measures itself."""
    name = "bandwidth" if unit.endswith("B/s") else "throughput"
    metrics = (Metric(name, value, unit, "higher", n=1), *more)
    checks = (Check("RESULT", verdict, "a result"),)
    return Measurement(phase, "tool", "8 processes on 2 nodes", "tool", 8, (0.0, 30.0), metrics, checks)


def total(printed: float, why: str, score: float) -> Measurement:
    metrics = (
        Metric("bandwidth_mean", 2.0, "GiB/s", "higher", n=1),
        Metric("metadata_mean", 72.0, "kIOPS", "higher", n=1),
        Metric("score", score, "", "higher", n=1),
        Metric("score_printed", printed, "", n=1, note=why),
    )
    return replace(told("total", 1.0, "kIOPS"), metrics=metrics)


def scored(printed: float = 12.0, why: str = "", score: float = 12.0) -> RunRecord:
    first = Metric("bandwidth_first_done", 5.0, "GiB/s", "higher", n=1, note="when the first was done")
    share = Metric("reference_share", 50.0, "%", n=1, note="of somebody's own entry (512 nodes)")
    node = Metric("bandwidth_per_node", 2.0, "GiB/s", "higher", n=1)
    measurements = (
        told("easy-write", 4.0, "GiB/s", first, node, share, Metric("time", 31.0, "s", n=1)),
        told("easy-read", 1.0, "GiB/s", Metric("time", 30.0, "s", n=1), verdict=Verdict.INVALID),
        told("find", 900.0, "kIOPS", Metric("time", 12.0, "s", n=1)),
        told("stat", 90.0, "kIOPS", Metric("time", 11.0, "s", n=1)),
        told("delete", 9.0, "kIOPS", Metric("time", 10.0, "s", n=1)),
        total(printed, why, score),
    )
    return sample_record(measurements=measurements)


def blocks(**changes: Any) -> Measurement:
    """Our own load: 100 blocks of 2 MiB a second."""
    metrics = (
        Metric("throughput", 100.0, "ops/s", "higher", n=400),
        Metric("sent_rate", 200 * MIB / 1e6, "MB/s", "higher", n=400),
        Metric("bandwidth", 200.0, "MiB/s", "higher", n=400),
    )
    series = {"rate": [100.0, 50.0, None, 150.0], "in_flight": [1.0, 1.0, 1.0, 0.0]}
    made = Measurement(
        "write", "write", "closed loop, 1 client", "posix", 1, (0.0, 4.0), metrics, (), {"OK": 400},
        series=series,
    )  # fmt: skip
    return replace(made, **changes)


class Bars(unittest.TestCase):
    def drawn(self, record: RunRecord) -> ElementTree.Element:
        drawn = phases_figure(record)
        assert drawn
        return ElementTree.fromstring(drawn.svg)

    def widths(self, record: RunRecord) -> list[float]:
        rects = self.drawn(record).iter("{http://www.w3.org/2000/svg}rect")
        return [float(rect.attrib["width"]) for rect in rects]

    def test_are_from_zero_and_in_proportion_within_a_panel(self) -> None:
        write, read, find, stat, delete = self.widths(scored())
        self.assertAlmostEqual(4.0, write / read, delta=0.05)
        self.assertAlmostEqual(10.0, find / stat, delta=0.1)
        self.assertAlmostEqual(100.0, find / delete, delta=3)

    def test_bandwidths_and_operations_have_panels_of_their_own(self) -> None:
        svg = phases_figure(scored())
        assert svg
        self.assertRegex(svg.svg, r"bandwidth \(GiB/s\).*operations \(kIOPS\)")
        self.assertNotIn("total", svg.svg)

    def test_one_that_must_not_be_quoted_is_hollow_and_first_done_is_marked(self) -> None:
        svg = phases_figure(scored())
        assert svg
        self.assertEqual(1, svg.svg.count('class="block hollow"'))
        self.assertEqual(1, len(re.findall(r'class="line first" d="[^h"]*V', svg.svg)))
        self.assertIn("easy-write looked 1.25 times as fast", svg.caption)

    def test_none_for_other_work_or_a_single_phase(self) -> None:
        self.assertIsNone(phases_figure(sample_record()))
        self.assertIsNone(phases_figure(sample_record(measurements=())))
        self.assertIsNone(phases_figure(sample_record(measurements=(told("a", 1.0, "GiB/s"),))))

    def test_zero_everywhere_and_names_from_outside(self) -> None:
        odd = [told("<i>&", 0.0, "GiB/s", verdict=Verdict.INVALID), told("x", 0.0, "GiB/s")]
        record = sample_record(measurements=tuple(odd))
        self.assertEqual(2, len(self.widths(record)))
        self.assertNotIn("<i>", run_html(record))


class OverTime(unittest.TestCase):
    def test_blocks_are_drawn_as_bandwidth(self) -> None:
        self.assertAlmostEqual(2 * MIB, bytes_per_operation(blocks()) or 0)
        drawn = [f for f in figures(sample_record(measurements=(blocks(),))) if "over time" in f.title]
        self.assertIn("bandwidth (MiB/s)", drawn[0].svg)
        self.assertNotIn("completed operations", drawn[0].svg)
        self.assertIn("between 100 and 300 MiB/s", drawn[0].caption)

    def test_other_work_is_drawn_as_operations(self) -> None:
        self.assertIsNone(bytes_per_operation(blocks(via="http")))
        self.assertIsNone(bytes_per_operation(blocks(metrics=())))
        drawn = [f for f in figures(sample_record()) if "over time" in f.title]
        self.assertTrue(all("completed operations" in f.svg for f in drawn))


class Words(unittest.TestCase):
    def test_one_table_with_the_result_of_each_phase_and_its_unit(self) -> None:
        table = narrow_table(scored())
        heads = [cell.text for cell in table.headers]
        self.assertEqual(["", "verdict", "result"], heads[:3])
        self.assertLessEqual({"per node", "first done", "time", "of reference"}, set(heads))
        self.assertNotIn("errors", heads)
        rows = {row[0].text: row[2].text for row in table.rows}
        self.assertEqual(("4 GiB/s", "900 kIOPS"), (rows["easy-write"], rows["find"]))
        self.assertNotIn("total", rows)

    def test_the_score_beside_the_one_that_was_printed(self) -> None:
        first, *others = score_sentences(scored(12.9, "which left out easy-read", 12.3))
        self.assertTrue(first.startswith("score 12.3 (tool's own: 12.9, which left out easy-read): "), first)
        self.assertIn("per node: easy-write 2 GiB/s = 50 % of somebody's own entry (512 nodes)", others)

    def test_text_and_page_say_it(self) -> None:
        record = scored(12.9, "which left out easy-read", 12.3)
        for text in (run_text(record), run_html(record).replace("&#x27;", "'")):
            self.assertIn("score 12.3 (tool's own: 12.9, which left out easy-read)", text)

    def test_without_a_score_nothing_is_said(self) -> None:
        self.assertEqual([], score_sentences(sample_record()))


if __name__ == "__main__":
    unittest.main()
