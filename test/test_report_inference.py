"""What a run of streamed answers shows: levels, probes, the server's view, meanings, and how to repeat it."""

import unittest
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

from test.fakes.records import (
    capacity_record,
    level,
    levels_record,
    sample_record,
    search,
    server_checks,
    server_metrics,
)
from test.test_report import EVIL, Page

from aifbench.report import content
from aifbench.report.content import Table
from aifbench.report.figures import figures
from aifbench.report.html import run_html
from aifbench.report.level_figures import capacity_figure, levels_figure
from aifbench.report.markdown import run_markdown
from aifbench.report.meanings import meanings
from aifbench.report.numbers import notes, probe_table, result_table
from aifbench.report.reproduce import address, commands
from aifbench.report.server_view import view_table
from aifbench.report.tables import run_text
from aifbench.results.record import Metric, RunState


def column(table: Table, name: str) -> list[str]:
    index = [cell.text for cell in table.headers].index(name)
    return [row[index].text for row in table.rows]


def rows(table: Table) -> dict[str, list[str]]:
    return {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}


class Results(unittest.TestCase):
    def test_few_measurements_have_a_column_each_without_whole_operations(self) -> None:
        table = rows(result_table(levels_record(3)))
        self.assertEqual(
            list(table),
            ["verdict", "requests (req/s)", "output (tok/s)", "TTFT p50 (ms)", "TTFT p99 (ms)",
             "TPOT p50 (ms)", "TPOT p99 (ms)", "gap p99 (ms)", "E2E p99 (ms)", "goodput (req/s)",
             "within limits (%)", "errors"],
        )  # fmt: skip
        self.assertEqual(table["TTFT p99 (ms)"], ["-", "150", "150"])

    def test_many_have_a_row_each_with_units_and_loads(self) -> None:
        table = result_table(levels_record(6))
        self.assertEqual(column(table, ""), [f"clients-{2**i}" for i in range(6)])
        self.assertEqual(table.rows[5][0].note, "closed loop, 32 clients")
        self.assertEqual(
            [(c.text, c.note) for c in table.headers][2:4], [("requests", "req/s"), ("output", "tok/s")]
        )
        self.assertEqual(column(table, "within limits")[-1], "3")

    def test_a_table_of_small_samples_shows_p90(self) -> None:
        small = level("generate", "closed loop, 2 clients", load=1.0, n=40)
        small = replace(small, metrics=(*small.metrics, Metric("ttft_p90", 61.0, "ms", "lower", n=40)))
        table = rows(result_table(sample_record(measurements=(small,))))
        self.assertEqual(table["TTFT p90 (ms)"], ["61"])
        self.assertNotIn("TTFT p99 (ms)", table)

    def test_the_servers_numbers_do_not_crowd_the_short_text(self) -> None:
        embedded = replace(search(), metrics=(*search().metrics, *server_metrics()))
        for measurement in (embedded, level("steady", "poisson 12/s", load=12.0, more=server_metrics())):
            text = run_text(sample_record(measurements=(measurement,)))
            self.assertNotIn("server running", text)
            self.assertNotIn("KV cache", text)

    def test_probes_stand_apart_and_raise_no_findings(self) -> None:
        record = capacity_record()
        self.assertEqual(column(result_table(record), "capacity")[0], "")
        table = probe_table(record)
        self.assertEqual(column(table, ""), ["estimate", *(f"trial-{i}" for i in range(1, 6))])
        self.assertEqual(column(table, "limits"), ["", "met", "missed", "met", "met", "missed"])
        self.assertEqual(content.findings(record), [])
        self.assertEqual(content.verdict_sentence(record), "all 4 checks passed")
        self.assertEqual([c.text for c in content.check_table(record).headers], ["check", "capacity"])

    def test_a_search_that_was_interrupted_shows_its_steps(self) -> None:
        record = capacity_record()
        cut = replace(record, measurements=record.measurements[:3], state=RunState.INTERRUPTED)
        for text in (run_text(cut), run_markdown(cut), run_html(cut)):
            self.assertIn("trial-2", text)

    def test_what_many_share_is_said_once(self) -> None:
        (found,) = content.findings(levels_record(6))
        self.assertEqual(found[0], "clients-1")
        self.assertIn("likewise clients-2, clients-4, clients-8, clients-16, clients-32", found[1].message)
        told = notes(levels_record(6), content.measured(levels_record(6)))
        self.assertIn("clients-1: TTFT p99, TPOT p99, E2E p99: n is too small for p99 (needs 368)", told)
        self.assertIn("tokens per chunk: tokens counted by the server's usage", told)

    def test_text_of_many_levels_is_a_table_that_fits(self) -> None:
        text = run_text(levels_record(7))
        self.assertLessEqual(max(map(len, text.splitlines())), 100)
        self.assertLess(len(text.splitlines()), 45)
        self.assertIn("clients-64", text)
        self.assertIn("client TTFT mean 66 ms = server 58 ms", text)

    def test_the_full_text_keeps_every_number(self) -> None:
        text = run_markdown(levels_record(2))
        self.assertIn("service p99.9", text)
        self.assertIn("server TTFT mean", text)


class ServerView(unittest.TestCase):
    def test_side_by_side_from_send(self) -> None:
        one = level("steady", "poisson 12/s", load=12.0, more=server_metrics(), checks=server_checks())
        table = view_table(sample_record(measurements=(one,)))
        self.assertEqual([cell.text for cell in table.headers], ["", "client", "server"])
        self.assertEqual(rows(table)["TTFT mean (ms)"], ["59", "58"])
        self.assertEqual(rows(table)["queue mean (ms)"], ["", "3.25"])

    def test_a_row_per_level(self) -> None:
        table = view_table(levels_record(6))
        self.assertEqual(column(table, "TTFT mean, server"), ["58"] * 6)
        self.assertEqual(column(table, "outside"), ["8"] * 6)

    def test_nothing_where_the_server_was_not_asked(self) -> None:
        self.assertEqual(view_table(sample_record()).rows, ())
        self.assertNotIn("Server and client", run_html(sample_record()))

    def test_sentences_of_checks_that_held_are_in_all_formats(self) -> None:
        record = capacity_record()
        page = Page(run_html(record)).text
        flat = " ".join(run_text(record).split())
        for said in ("the client adds at most 0.03 ms", "client TTFT mean 66 ms = server", "server-limited"):
            self.assertIn(said, page)
            self.assertIn(said, flat)
            self.assertIn(said, run_markdown(record))


class Meanings(unittest.TestCase):
    def test_every_metric_shown_has_its_formula_and_namesakes(self) -> None:
        table = meanings(capacity_record())
        by_name = {row[0].text: row for row in table.rows}
        for name in ("TTFT", "TPOT", "gap", "E2E", "goodput", "attainment", "capacity", "server TTFT",
                     "kv cache", "client adds TTFT", "outside TTFT", "preemptions"):  # fmt: skip
            self.assertIn(name.replace("kv", "KV"), by_name)
        self.assertEqual(by_name["TPOT"][1].text, "(tn - t1) / (n - k1)")
        self.assertIn("divides by n - 1", by_name["TPOT"][2].text)
        self.assertEqual(by_name["attainment"][0].note, "shown as: within limits")

    def test_both_kinds_of_loop_have_their_start(self) -> None:
        formulas = {row[1].text for row in meanings(capacity_record()).rows}
        self.assertLess({"t1 - sent", "t1 - intended start"}, formulas)


class Figures(unittest.TestCase):
    def test_levels_show_latency_against_throughput_with_the_limit(self) -> None:
        figure = levels_figure(levels_record(6))
        assert figure
        ElementTree.fromstring(figure.svg)
        self.assertIn("32 clients gave 3,072 tok/s, 17.1 times as much as 1 client", figure.caption)
        self.assertIn("median TTFT went from 50 to 700 ms", figure.caption)
        self.assertIn('class="line limit"', figure.svg)

    def test_only_figures_whose_data_exist(self) -> None:
        self.assertIsNone(levels_figure(levels_record(2)))
        self.assertIsNone(levels_figure(sample_record()))
        self.assertIsNone(capacity_figure(levels_record(3)))
        self.assertIsNone(capacity_figure(sample_record(measurements=())))

    def test_a_search_shows_its_steps_and_the_bracket(self) -> None:
        figure = capacity_figure(capacity_record())
        assert figure
        ElementTree.fromstring(figure.svg)
        self.assertIn("5 steps led to 46 req/s [45, 46.8]", figure.caption)
        self.assertIn("the highest rate that met it, 45/s, to the next that missed it, 47/s", figure.caption)
        for css in ("bracket", "dot-met", "dot-missed", "dot-final", "limit"):
            self.assertIn(css, figure.svg)

    def test_probes_have_no_figure_over_time_and_pages_stay_small(self) -> None:
        for record in (levels_record(7), capacity_record()):
            self.assertFalse(any("trial" in f.title or "calibration" in f.title for f in figures(record)))
            self.assertLess(len(run_html(record)), 90_000)

    def test_names_from_outside_stay_text_in_figures(self) -> None:
        record = levels_record(4)
        evil = tuple(
            replace(m, phase=EVIL, arrivals=EVIL, parameters={"slo": EVIL}) for m in record.measurements
        )
        page = run_html(replace(record, measurements=evil))
        self.assertNotIn("<script", page)
        ElementTree.fromstring(figures(replace(record, measurements=evil))[0].svg)

    def test_broken_numbers_are_survived(self) -> None:
        empty = tuple(replace(m, metrics=tuple(replace(x, value=None, low=None) for x in m.metrics))
                      for m in capacity_record().measurements)  # fmt: skip
        odd = tuple(replace(m, arrivals="constant 1.2.3/s") for m in capacity_record().measurements)
        for measurements in (empty, odd):
            record = sample_record(measurements=measurements)
            for render in (run_html, run_markdown, run_text):
                self.assertIn("trial-1", render(record))


class Reproduce(unittest.TestCase):
    def test_an_attached_service_is_attached_again_without_its_key(self) -> None:
        service = {
            "kind": "llm", "name": "mine", "scheduler": "attached", "authentication": "token",
            "endpoint": {"host": "h.example", "port": 443, "scheme": "https", "prefix": "/gw",
                         "secret_file": "/home/me/key"},
            "options": {"model": "a/b"},
        }  # fmt: skip
        record = levels_record(2, service=service)
        lines = commands(record).split(" \\\n  ")
        self.assertEqual(
            lines[1:],
            ["'attach llm https://h.example/gw --name mine --key-file FILE --model a/b'",
             "'bench mine sweep --concurrency 1,2,4 --slo ttft=200ms,share=99% --duration 30'",
             "'stop mine'"],
        )  # fmt: skip
        page = run_html(record)
        self.assertNotIn("/home/me/key", page)
        self.assertIn("at https://h.example/gw, authentication token, attached", Page(page).text)

    def test_addresses(self) -> None:
        for endpoint, expected in (
            ({"host": "n7", "port": 8000}, "http://n7:8000"),
            ({"host": "n7", "port": 80, "prefix": "/x"}, "http://n7/x"),
            ({"host": "::1", "port": 8000, "scheme": "http"}, "http://[::1]:8000"),
            ({"host": "n7"}, "http://n7"),
            ({}, ""),
            (None, ""),
        ):
            self.assertEqual(address(endpoint), expected)

    def test_lists_are_typed_with_commas(self) -> None:
        record = sample_record(recipe={"bench": "sweep", "rates": [2.5, 10.0], "facts": {"a": 1}})
        self.assertIn("--rates 2.5,10'", commands(record))


if __name__ == "__main__":
    unittest.main()
