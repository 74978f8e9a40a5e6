"""Lengths of prompts and answers: as distributed as they say, whatever the order they are drawn in."""

import math
import statistics
import tempfile
import unittest
from pathlib import Path
from statistics import NormalDist

from test import fakes  # noqa: F401

from aifbench.errors import UsageError
from aifbench.workloads.draws import key_of
from aifbench.workloads.length_traces import parse_trace
from aifbench.workloads.lengths import Lengths

DRAWS = 20_000


def drawn(text: str, key: bytes = key_of(1, "input lengths"), count: int = DRAWS) -> list[int]:
    lengths = Lengths.parse(text, "--input-tokens")
    return [lengths.draw(index, key) for index in range(count)]


class Distributions(unittest.TestCase):
    def assert_mean(self, values: list[int], mean: float, deviation: float) -> None:
        """Within four standard errors."""
        self.assertAlmostEqual(
            statistics.fmean(values), mean, delta=4 * deviation / math.sqrt(len(values)) + 1e-9
        )

    def assert_quantiles(self, values: list[int], expected: dict[float, float], slack: float) -> None:
        """The share below the expected quantile, within four standard errors and the rounding to tokens."""
        for share, value in expected.items():
            below = sum(each < value for each in values) / len(values)
            self.assertAlmostEqual(
                below, share, delta=4 * math.sqrt(share * (1 - share) / len(values)) + slack, msg=value
            )

    def test_fixed(self) -> None:
        self.assertEqual(set(drawn("512", count=100)), {512})
        self.assertEqual(set(drawn("4k", count=3)), {4000})

    def test_uniform_includes_both_ends_and_all_between_alike(self) -> None:
        values = drawn("uniform:100:109")
        self.assertEqual(set(values), set(range(100, 110)))
        self.assert_mean(values, 104.5, math.sqrt(99 / 12))
        for value in range(100, 110):
            self.assertAlmostEqual(values.count(value) / DRAWS, 0.1, delta=4 * math.sqrt(0.09 / DRAWS))

    def test_normal(self) -> None:
        values = drawn("normal:512:64")
        self.assert_mean(values, 512, 64)
        self.assertAlmostEqual(statistics.stdev(values), 64, delta=4 * 64 / math.sqrt(2 * DRAWS))
        normal = NormalDist(512, 64)
        self.assert_quantiles(values, {q: normal.inv_cdf(q) for q in (0.05, 0.5, 0.95, 0.99)}, 0.5 / 64 * 0.4)

    def test_a_normal_is_cut_off_not_clamped(self) -> None:
        # Truncated to x > 0.5: mean = m + s * pdf(a) / (1 - cdf(a)), a = (0.5 - m) / s.
        mean, deviation = 50.0, 100.0
        standard = NormalDist()
        a = (0.5 - mean) / deviation
        expected = mean + deviation * standard.pdf(a) / (1 - standard.cdf(a))
        values = drawn("normal:50:100")
        self.assertGreaterEqual(min(values), 1)
        self.assert_mean(values, expected, deviation)
        self.assertLess(values.count(1) / DRAWS, 0.02)

    def test_bounds_cut_both_tails(self) -> None:
        values = drawn("normal:500:200:400:600")
        self.assertEqual((min(values), max(values)), (400, 600))
        self.assert_mean(values, 500, 58)
        values = drawn("lognormal:500:1:400:600")
        self.assertEqual((min(values), max(values)), (400, 600))

    def test_log_normal_has_its_median_and_its_mean(self) -> None:
        median, sigma = 512.0, 0.5
        values = drawn("lognormal:512:0.5")
        variance = math.expm1(sigma**2) * median**2 * math.exp(sigma**2)
        self.assert_mean(values, median * math.exp(sigma**2 / 2), math.sqrt(variance))
        z = NormalDist().inv_cdf
        self.assert_quantiles(
            values, {q: median * math.exp(sigma * z(q)) for q in (0.05, 0.5, 0.95, 0.99)}, 0.002
        )

    def test_input_and_output_are_independent_and_seeds_differ(self) -> None:
        inputs, outputs = drawn("uniform:1:1000"), drawn("uniform:1:1000", key_of(1, "output lengths"))
        self.assertLess(abs(statistics.correlation(inputs, outputs)), 4 / math.sqrt(DRAWS))
        self.assertNotEqual(inputs, drawn("uniform:1:1000", key_of(2, "input lengths")))

    def test_neighbouring_indices_are_independent(self) -> None:
        values = drawn("uniform:1:1000")
        self.assertLess(abs(statistics.correlation(values[1:], values[:-1])), 4 / math.sqrt(DRAWS))

    def test_any_length_can_be_drawn_alone(self) -> None:
        key = key_of(1, "input lengths")
        for text in ("uniform:1:1000", "normal:512:128", "lognormal:512:0.5"):
            self.assertEqual(Lengths.parse(text, "x").draw(777, key), drawn(text, count=1000)[777])

    def test_text_and_json_round_trips(self) -> None:
        for text in ("512", "uniform:100:800", "normal:512:128", "lognormal:512:0.5:1:4096"):
            lengths = Lengths.parse(text, "x")
            self.assertEqual(str(lengths), text)
            self.assertEqual(Lengths.from_json(lengths.to_json()), lengths)

    def test_what_cannot_be_used_names_option_and_value(self) -> None:
        for text, words in {
            "": "''",
            "0": "'0'",
            "-5": "'-5'",
            "1.5": "'1.5'",
            "many": "'many'",
            "zipf:1:2": "'zipf:1:2' is no known",
            "512:": "'512:' is no known",
            "uniform:800:100": "from 800 to 100",
            "uniform:100": "1 parameters",
            "uniform:0:100": "'0'",
            "normal:512": "1 parameters",
            "normal:512:0": "'0'",
            "normal:512:nan": "'nan'",
            "normal:10:1:500:600": "cut off",
            "lognormal:512:50": "'50'",
            "lognormal:0:1": "'0'",
            "99999999999": "'99999999999'",
            "trace:/no/such/file": "/no/such/file",
        }.items():
            with self.subTest(text), self.assertRaises(UsageError) as caught:
                Lengths.parse(text, "--input-tokens")
            self.assertIn("--input-tokens", caught.exception.message)
            self.assertIn(words, caught.exception.message)
            self.assertTrue(caught.exception.hint)


class Traces(unittest.TestCase):
    def parse(self, text: str) -> list[tuple[int, int]]:
        columns = parse_trace(text, "trace:t")
        return list(zip(columns["input"], columns["output"], strict=True))

    def test_forms_of_published_traces(self) -> None:
        pairs = [(6955, 52), (12, 500)]
        for name, text in {
            "two columns": "6955,52\n12,500\n",
            "comment and blank": "# recorded\n6955, 52\n\n12 ,500",
            "some header": "in,out\n6955,52\n12,500\n",
            "azure": "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,6955,52\n,12,500\n",
            "burstgpt": "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
            "5,ChatGPT,6955,52,7007,Conversation log\n45,GPT-4,12,500,512,API log\n",
            "mooncake": '{"timestamp": 0, "input_length": 6955, "output_length": 52, "hash_ids": [1]}\n'
            '{"timestamp": 0, "input_length": 12, "output_length": 500, "hash_ids": []}\n',
        }.items():
            with self.subTest(name):
                self.assertEqual(self.parse(text), pairs)

    def test_pairs_stay_together_and_start_again_after_the_last(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.csv"
            path.write_text("1,10\n2,20\n3,30\n", encoding="utf-8")
            inputs = Lengths.parse(f"trace:{path}", "--input-tokens", "input")
            outputs = Lengths.parse(f"trace:{path}", "--output-tokens", "output")
            self.assertEqual(str(inputs), f"trace:{path}")
        restored = Lengths.from_json(inputs.to_json())
        pairs = [(restored.draw(i, b"a"), outputs.draw(i, b"b")) for i in range(4)]
        self.assertEqual(pairs, [(1, 10), (2, 20), (3, 30), (1, 10)])

    def test_bad_traces_name_the_line(self) -> None:
        for text, words in {
            "": "no lengths",
            "input,output\n": "no lengths",
            "1,2\n3\n": "line 2",
            "1,2\n3,x\n": "line 2: 'x'",
            "1,2\n3,0\n": "line 2: '0'",
            "1,2\n3,inf\n": "line 2: 'inf'",
            "1,2\n3,2.5\n": "line 2: '2.5'",
            "1,2,3\n": "3 columns",
            '{"input_length": 1}\n': "line 1 lacks",
            '{"input_length": 1, "output_length": 2}\n{"input': "line 2 is no JSON",
            '{"input_length": 1, "output_length": null}': "None",
            '{"input_length": true, "output_length": 1}': "True",
        }.items():
            with self.subTest(text), self.assertRaises(UsageError) as caught:
                self.parse(text)
            self.assertIn(words, str(caught.exception))

    def test_a_file_that_is_no_text(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace"
            path.write_bytes(b"\xff\xfe\x00")
            with self.assertRaisesRegex(UsageError, "cannot read the trace"):
                Lengths.parse(f"trace:{path}", "--input-tokens")


if __name__ == "__main__":
    unittest.main()
