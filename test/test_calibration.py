"""The client's own error: told from stamps, exactly by hand, and nearly nothing in fact."""

import json
import tempfile
import unittest
from pathlib import Path
from typing import Any

from test.fakes.streams import DONE

from aifbench.cluster.endpoint import Endpoint
from aifbench.load.workload import StreamedAnswer
from aifbench.workloads.calibration import Calibrated
from aifbench.workloads.prompts import PromptSpec, prepare

MS = 1_000_000


class CalibrationCase(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        source = prepare(PromptSpec(kind="repeat", text="hi", output_tokens="3"), Path(directory.name))
        self.workload = Calibrated(str(source), plan={"ttft_s": 0.0, "itl_s": 0.0})
        self.addCleanup(self.workload.close)

    def answer(self, received_ms: float, sent_ms: list[float], arrived_ms: list[float]) -> None:
        """An answer whose events were sent and arrived at these instants."""
        body, ends = b"", []
        for number, ms in enumerate(sent_ms):
            told: dict[str, Any] = {
                "choices": [{"delta": {"content": "x"}}],
                "aifbench_sent_ns": round(ms * MS),
            }
            if not number:
                told["aifbench_received_ns"] = round(received_ms * MS)
            body += b"data: " + json.dumps(told).encode() + b"\n\n"
            ends.append(len(body))
        stamps = [round(ms * MS) for ms in arrived_ms]
        self.workload.interpret_stream(0, 200, StreamedAnswer(body + DONE, b"", [(0, 0)], ends, stamps))


class ByHand(CalibrationCase):
    def test_errors_are_what_was_reported_less_what_was_true(self) -> None:
        for _ in range(5):
            self.answer(0, [100, 110, 120], [101, 111, 124])
        notes = self.workload.notes()
        self.assertEqual((notes["answers"], notes["tokens"]), (5, 15))
        self.assertAlmostEqual(notes["ttft_error_p50_ms"], 1.0)
        # Gaps of 10 and 13 ms, half each, where all were 10 ms.
        self.assertAlmostEqual(notes["gap_error_p50_ms"], 1.5)
        self.assertAlmostEqual(notes["gap_error_p99_ms"], 3.0)
        self.assertAlmostEqual(notes["way_p99_ms"], 4.0)

    def test_answers_of_different_lengths(self) -> None:
        self.answer(0, [100], [101])
        self.answer(0, [100, 110], [101, 111])
        self.assertEqual(self.workload.notes()["tokens"], 3)

    def test_single_tokens_have_no_gaps(self) -> None:
        self.answer(0, [100], [101])
        notes = self.workload.notes()
        self.assertNotIn("gap_error_p50_ms", notes)
        self.assertAlmostEqual(notes["ttft_error_p50_ms"], 1.0)

    def test_nothing_answered_is_nothing_known(self) -> None:
        self.assertEqual(self.workload.notes(), {})
        self.workload.interpret_stream(0, 200, StreamedAnswer(DONE, b"", [(0, 0)], [len(DONE)], [1]))
        self.assertEqual(self.workload.notes(), {})


class WithAServer(CalibrationCase):
    def test_it_brings_its_own_server(self) -> None:
        self.workload.open(Endpoint("nowhere.invalid", 1))
        self.assertEqual(self.workload.address[0], "127.0.0.1")
        self.assertIn(b"Host: 127.0.0.1:%d\r\n" % self.workload.address[1], self.workload.request(0))
        self.workload.close()
        self.workload.close()


if __name__ == "__main__":
    unittest.main()
