"""calibrate: what the client of this machine adds, with real load workers and a server of known timing."""

import os
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any

from test.fakes.session import calibration

from aifbench.cluster import processes
from aifbench.errors import UsageError
from aifbench.load.progress import Silent
from aifbench.repl.wording import calibration_text
from aifbench.servers.calibrate import Calibration, Compared, calibrate


def found(**changes: Any) -> Calibration:
    return replace(calibration(), **changes)


class Verdicts(unittest.TestCase):
    def test_what_an_exact_client_is_exact_for(self) -> None:
        text = calibration_text(found())
        self.assertIn("closed loop, 256 clients, 1 worker on node7, 64 cores: 47,800 tok/s", text)
        self.assertIn("0.0071 CPU s per 1k tokens", text)
        self.assertRegex(text, r"TTFT p50 +50\.100 +50\.220 +0\.120")
        self.assertIn(
            "exact enough: the client adds 0.12 ms to the median TTFT, 0.9 ms to its p99 and 0.4 ms to",
            text,
        )
        self.assertIn("from 12 ms up", text)

    def test_one_that_is_not_says_what_to_do(self) -> None:
        cases = [
            ({"cpu_percent": 96.0}, "client-limited: .*96 % of a core; use --workers 2"),
            (
                {"ttft_p50": Compared("", 50.0, 6.0), "cpu_percent": 70.0},
                "not exact enough: .*6 ms.*--workers 2",
            ),
            ({"ttft_p50": Compared("", 50.0, 6.0)}, "not exact enough: .*leave a free core"),
            ({"ttft_p99": Compared("", 60.0, 30.0)}, "exact for medians, not for tails: .*30 ms to its p99"),
            (
                {"gap_p99": Compared("", 5.0, 6.0)},
                "exact for medians, not for tails: .*6 ms to the gaps' p99",
            ),
            ({"errors": 3}, "no good: 3 requests failed"),
        ]
        for changes, pattern in cases:
            self.assertFalse(found(**changes).is_exact)
            self.assertRegex(found(**changes).verdict, pattern)

    def test_an_error_of_less_than_half_a_millisecond_is_no_matter(self) -> None:
        self.assertTrue(found(ttft_p50=Compared("", 2.0, 0.4)).is_exact)

    def test_of_several_workers_the_one_that_is_furthest_off(self) -> None:
        notes = [
            {"ttft_error_p50_ms": 0.1, "ttft_true_p50_ms": 50.0},
            {"ttft_error_p50_ms": 0.3, "ttft_true_p50_ms": 50.2},
            {},
        ]
        worst = Compared.of(notes, "ttft", "p50")
        self.assertEqual((worst.true_ms, worst.reported_ms), (50.2, 50.5))


class Measured(unittest.TestCase):
    def test_a_short_load_by_two_workers_leaves_nothing(self) -> None:
        before = set(Path(tempfile.gettempdir()).glob("aifbench-*"))
        given = {
            "clients": "4", "workers": "2", "duration": "300ms", "ttft": "20ms", "itl": "2ms",
            "output_tokens": "8", "input_tokens": "16",
        }  # fmt: skip
        result = calibrate(given, Silent())
        self.assertEqual((result.workers, result.errors), (2, 0))
        self.assertGreater(result.answers, 8)
        self.assertGreater(result.tokens_per_s, 100)
        self.assertGreaterEqual(result.ttft_p50.true_ms, 19.9)
        self.assertGreater(result.cpu_s_per_1k_tokens, 0)
        self.assertEqual(processes.descendants({os.getpid()}) - {os.getpid()}, set())
        self.assertLessEqual(set(Path(tempfile.gettempdir()).glob("aifbench-calibrate-*")), before)

    def test_bad_input(self) -> None:
        for given in ({"itl": "0"}, {"clients": "0"}, {"rate": "fast"}, {"service": "vllm"}):
            with self.assertRaises(UsageError):
                calibrate(given, Silent())


if __name__ == "__main__":
    unittest.main()
