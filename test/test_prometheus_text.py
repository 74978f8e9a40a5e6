"""The text format of metrics: what a real server writes, and what a broken one may."""

import math
import unittest
from pathlib import Path

from test import fakes  # noqa: F401 - puts src on the path

from aifbench.workloads.prometheus_text import Series, finite, parse

DATA = Path(__file__).resolve().parent / "data"


def read(name: str) -> str:
    return (DATA / f"vllm_metrics_0.32_{name}.txt").read_text()


def parse_series(text: str) -> Series:
    (series,) = parse(f"{text} 1\n").values
    return series


class RealPage(unittest.TestCase):
    def test_every_sample_of_a_page_of_vllm_is_read(self) -> None:
        text = read("before")
        page = parse(text)
        samples = [line for line in text.splitlines() if line and not line.startswith("#")]
        self.assertEqual(page.bad_lines, 0)
        self.assertEqual(len(page.values), len(samples))
        tokens = Series("vllm:generation_tokens_total", (("engine", "0"), ("model_name", "tiny")))
        self.assertEqual(page.values[tokens], 141)

    def test_a_family_is_kept_with_its_parts_and_nothing_else(self) -> None:
        page = parse(read("before"), ["vllm:request_queue_time_seconds", "vllm:prompt_tokens"])
        names = {series.name.removeprefix("vllm:") for series in page.values}
        queue = {f"request_queue_time_seconds_{part}" for part in ("bucket", "sum", "count")}
        self.assertEqual(names, {"prompt_tokens_total"} | queue)

    def test_a_series_is_written_as_it_is_read(self) -> None:
        for series in parse(read("before")).values:
            self.assertEqual(parse_series(str(series)), series)


class Values(unittest.TestCase):
    def value(self, line: str) -> float:
        page = parse(line + "\n")
        self.assertEqual((len(page.values), page.bad_lines), (1, 0), line)
        return next(iter(page.values.values()))

    def test_numbers_as_the_format_allows_them(self) -> None:
        for text, value in (("1", 1.0), ("-2.5", -2.5), ("1.795e+09", 1.795e9), (".5", 0.5), ("3.", 3.0)):
            self.assertEqual(self.value(f"a {text}"), value)
        self.assertEqual(self.value("a +Inf"), math.inf)
        self.assertEqual(self.value("a -Inf"), -math.inf)
        self.assertTrue(math.isnan(self.value("a NaN")))
        self.assertTrue(math.isnan(self.value("llamacpp:predicted_tokens_seconds nan")))

    def test_time_stamps_and_exemplars_are_passed_over(self) -> None:
        self.assertEqual(self.value("a 1 1795198890123"), 1)
        exemplar = 'a_bucket{le="1"} 7 # {trace_id="KOO5S4vxi0o"} 0.67 1520879607.789'
        self.assertEqual(self.value(exemplar), 7)

    def test_values_that_are_none_can_be_left_out(self) -> None:
        values = parse("a 1\nb NaN\nc +Inf\n").values
        self.assertEqual(finite(values), {Series("a"): 1})

    def test_windows_line_ends_and_blanks(self) -> None:
        self.assertEqual(
            parse('a{ x = "1" , y="2", } \t 3\r\n\r\n').values, {parse_series('a{x="1",y="2"}'): 3}
        )


class Labels(unittest.TestCase):
    def test_escapes_are_undone_and_done_again(self) -> None:
        text = 'a{path="C:\\\\dir",said="\\"hi\\"\\nthere, {you}="}'
        series = parse_series(text)
        self.assertEqual(series.label("path"), "C:\\dir")
        self.assertEqual(series.label("said"), '"hi"\nthere, {you}=')
        self.assertEqual(str(series), text)

    def test_a_backslash_before_an_n_is_not_a_line_feed(self) -> None:
        self.assertEqual(parse_series('a{x="\\\\n"}').label("x"), "\\n")

    def test_the_order_of_labels_does_not_matter_and_a_missing_one_is_empty(self) -> None:
        self.assertEqual(parse_series('a{y="2",x="1"}'), parse_series('a{x="1",y="2"}'))
        self.assertEqual(parse_series("a{}").label("x"), "")

    def test_a_text_that_is_no_series_is_refused(self) -> None:
        for text in ("", "1a", 'a{x="1"', "a{x=1}", 'a{x="1"}}', 'a{"x"}'):
            page = parse(f"{text} 1\n")
            self.assertEqual((page.values, page.bad_lines), ({}, 1), text)


class BrokenPage(unittest.TestCase):
    def test_a_bad_line_costs_itself_only(self) -> None:
        for line in (
            "a",
            "a one",
            "a 1_0",
            "a 0x10",
            "a 1 2 3",
            "a 1 then",
            'a{x="1} 3',
            'a{x="1" y="2"} 3',
            "{} 3",
            "=== 3",
        ):
            page = parse(f"first 1\n{line}\nlast 2\n")
            self.assertEqual(page.values, {Series("first"): 1, Series("last"): 2}, line)
            self.assertEqual(page.bad_lines, 1, line)

    def test_the_last_line_of_a_cut_page_may_hold_half_a_number(self) -> None:
        page = parse("a 100\nb 123")
        self.assertEqual(page.values, {Series("a"): 100})
        self.assertEqual(page.bad_lines, 1)

    def test_a_page_cut_anywhere_never_yields_a_wrong_value(self) -> None:
        text = read("after")[:9000]
        whole = parse(read("after")).values
        for end in range(1, len(text), 7):
            cut = parse(text[:end]).values
            self.assertEqual(cut, {series: whole[series] for series in cut})

    def test_an_error_page_holds_no_values(self) -> None:
        html = "<!DOCTYPE html>\n<html><head><title>502</title></head>\n<body>\n<h1>502</h1>\n</html>\n"
        page = parse(html)
        self.assertEqual(page.values, {})
        self.assertEqual(page.bad_lines, 5)
        self.assertEqual(parse("").bad_lines, 0)
        self.assertEqual(parse('{"error": "not found"}\n').values, {})

    def test_openmetrics_ends_with_a_comment(self) -> None:
        self.assertEqual(parse("# TYPE a counter\na_total 5\n# EOF").values, {Series("a_total"): 5})


if __name__ == "__main__":
    unittest.main()
