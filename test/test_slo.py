"""Objectives: as typed, as printed, and which requests meet them."""

import subprocess
import sys
import unittest

import numpy as np
from test import fakes  # noqa: F401  (puts src on the path)

from aifbench.errors import UsageError
from aifbench.results.slo import PRESETS, Slo, goodput, parse_slo

NAN = float("nan")


class Parsing(unittest.TestCase):
    def test_reads_limits_and_share(self) -> None:
        self.assertEqual(parse_slo("ttft=2s,tpot=200ms,e2e=10s,share=99%"), Slo(2000, 200, 10_000, 0.99))
        self.assertEqual(parse_slo(" TTFT = 450ms , share=p95 "), Slo(ttft_ms=450, share=0.95))
        self.assertEqual(parse_slo("e2e=1.5m,share=0.999"), Slo(e2e_ms=90_000, share=0.999))
        self.assertEqual(parse_slo("tpot=15ms").share, 0.99)

    def test_presets_are_the_published_limits(self) -> None:
        self.assertEqual(parse_slo("mlperf:llama2-70b"), Slo(2000, 200, None, 0.99))
        self.assertEqual(parse_slo("MLPerf:llama3.1-8b-interactive"), Slo(500, 30))
        self.assertIn("(mlperf:deepseek-r1)", parse_slo("mlperf:deepseek-r1").words)

    def test_prints_what_it_reads(self) -> None:
        typed = "ttft=2s,tpot=200ms,e2e=10s,share=99.9%"
        self.assertEqual(str(parse_slo(typed)), typed)
        for slo in (*PRESETS.values(), Slo(ttft_ms=12.5), Slo(e2e_ms=1234.5, share=0.9)):
            self.assertEqual(parse_slo(str(slo)), slo)
        self.assertEqual(Slo(2000, 200).words, "TTFT <= 2 s and TPOT <= 200 ms for 99 % of requests")

    def test_refuses_with_the_remedy(self) -> None:
        wrong = {
            "": "presets: mlperf",
            "mlperf:llama2-70": "did you mean 'mlperf:llama2-70b'?",
            "tftt=2s": "did you mean 'ttft'?",
            "ttft=200": "write ttft=200ms or ttft=200s",
            "ttft=-2s": "not a quantity",
            "ttft=0s": "out of range",
            "ttft=": "not a quantity",
            "ttft=2h,ttft=1s": "gives ttft twice",
            "share=99%": "limits nothing",
            "ttft=2s,share=100%": "out of range",
            "ttft=2s,share=99": "out of range",
            "ttft=2s,share=most": "out of range",
            "ttft=2s,": "unknown part ''",
        }
        for text, words in wrong.items():
            with self.subTest(text), self.assertRaises(UsageError) as caught:
                parse_slo(text)
            self.assertIn(words, str(caught.exception))
            self.assertIn("--slo", str(caught.exception))

    def test_does_not_load_numpy(self) -> None:
        program = "import sys; import aifbench.results.slo; sys.exit('numpy' in sys.modules)"
        path = str(next(p for p in sys.path if p.endswith("/src")))
        done = subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": path}, check=False)
        self.assertEqual(done.returncode, 0)


class Meeting(unittest.TestCase):
    def met(self, slo: Slo, *requests: tuple[float, float, float, bool]) -> list[bool]:
        ttft, tpot, e2e, ok = (np.array(column) for column in zip(*requests, strict=True))
        return list(slo.met(ttft, tpot, e2e, ok))

    def test_every_limit_counts_and_limits_are_inclusive(self) -> None:
        requests = (
            (100.0, 10.0, 900.0, True),
            (100.1, 10.0, 900.0, True),
            (100.0, 10.1, 900.0, True),
            (100.0, 10.0, 900.1, True),
            (100.0, 10.0, 900.0, False),
        )
        self.assertEqual(self.met(Slo(100, 10, 900), *requests), [True, False, False, False, False])
        self.assertEqual(self.met(Slo(ttft_ms=100), *requests), [True, False, True, True, False])

    def test_a_missing_value_misses_its_limit_only(self) -> None:
        missing = (NAN, NAN, 50.0, True)
        self.assertEqual(self.met(Slo(ttft_ms=100), missing), [False])
        self.assertEqual(self.met(Slo(e2e_ms=100), missing), [True])

    def test_one_token_answers_meet_the_tpot_limit_by_their_whole_time(self) -> None:
        soon, late = (80.0, NAN, 80.0, True), (400.0, NAN, 400.0, True)
        self.assertEqual(self.met(Slo(ttft_ms=100, tpot_ms=10), soon, late), [True, False])
        self.assertEqual(self.met(Slo(tpot_ms=10, e2e_ms=200), soon, late), [True, False])
        self.assertEqual(self.met(Slo(tpot_ms=10), soon, late), [False, False])

    def test_does_not_change_its_input(self) -> None:
        ok = np.array([True])
        Slo(ttft_ms=1).met(np.array([5.0]), np.array([5.0]), np.array([5.0]), ok)
        self.assertTrue(ok[0])


class Goodput(unittest.TestCase):
    def test_share_and_rate_with_intervals(self) -> None:
        finished_ns = np.arange(1, 1001, dtype=np.int64) * 10_000_000  # 100 per second for 10 s
        met = np.arange(1000) % 10 != 0
        share = Slo.attainment(int(met.sum()), len(met))
        assert share and share.low and share.high
        self.assertEqual(share.value, 0.9)
        self.assertTrue(0.87 < share.low < 0.9 < share.high < 0.93)
        good = goodput(met, finished_ns, 0, 10_000_000_000)
        assert good and good.low and good.high
        self.assertAlmostEqual(good.value, 90.0)
        self.assertTrue(85 < good.low <= 90 <= good.high < 95)
        self.assertEqual(good.n, 900)

    def test_nothing_and_nothing_good(self) -> None:
        none = np.zeros(0, bool)
        self.assertIsNone(Slo.attainment(0, 0))
        self.assertIsNone(goodput(none, np.zeros(0, np.int64), 5, 5))
        bad = goodput(np.zeros(3, bool), np.arange(3, dtype=np.int64), 0, 10**9)
        assert bad
        self.assertEqual((bad.value, bad.low, bad.n), (0.0, None, 0))


if __name__ == "__main__":
    unittest.main()
