"""What workers write: read back as it was, whatever ended the writing."""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
from test.fakes.waiting import eventually

from aifbench.load.recorder import (
    MAX_ERROR_TEXTS,
    MAX_NEW_ROWS,
    OTHER_ERRORS,
    ROW,
    UNCHECKED,
    ErrorTally,
    Recorder,
    answers_path,
    count_errors,
    count_rows,
    discard,
    pack_row,
    partial_path,
    read_new_rows,
    read_rows,
    read_samples,
    response_ms,
    rows_path,
    save_tokens,
    tokens_path,
    unfinished_row,
)
from aifbench.load.tokens import Tokens
from aifbench.load.workload import NOT_SEEN, OutcomeKind, TokenTimes

SRC = Path(__file__).resolve().parents[1] / "src"

WRITE_FOR_EVER = """
import sys
from pathlib import Path
from aifbench.load.recorder import Recorder, pack_row
recorder = Recorder(Path(sys.argv[1]), "x", 0)
index = 0
while True:
    answer = b"%d;" % index
    recorder.add_answer(answer)
    recorder.add(pack_row(index, 1, 2, 3, 4, 0, 200, 1, 9, len(answer), 0.5, 0.5, len(answer), 0))
    index += 1
"""


def row(index: int, *, outcome: int = 0, bytes_in: int = 0) -> bytes:
    return pack_row(
        index, 1000 + index, 2000, 3000, 4000, outcome, 200, 1, 5, bytes_in, UNCHECKED, UNCHECKED, bytes_in, 0
    )


class RecorderCase(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.dir = Path(directory.name)

    def write(self, *rows: bytes, origin_ns: int = 0) -> Path:
        recorder = Recorder(self.dir, "x", origin_ns)
        for data in rows:
            recorder.add(data)
        recorder.close()
        self.assertEqual(recorder.failure, "")
        return rows_path(self.dir, "x")

    def indices(self) -> list[int]:
        return read_samples(self.dir, "x", 0).index.tolist()


class RoundTrip(RecorderCase):
    def test_every_field_comes_back(self) -> None:
        kind = OutcomeKind.SERVER_ERROR
        self.write(
            pack_row(7, 1100, 1200, 1300, 1400, kind, 503, 4, 50, 60, 0.25, 0.75, 60, 0), origin_ns=1000
        )
        samples = read_samples(self.dir, "x", 3)
        self.assertEqual(samples.index.tolist(), [7])
        self.assertEqual(samples.worker.tolist(), [3])
        times = (samples.intended_ns, samples.sent_ns, samples.first_byte_ns, samples.finished_ns)
        self.assertEqual([int(column[0]) for column in times], [100, 200, 300, 400])
        self.assertEqual(samples.outcome.tolist(), [kind])
        counts = (samples.items, samples.bytes_out, samples.bytes_in)
        self.assertEqual([int(column[0]) for column in counts], [4, 50, 60])
        self.assertEqual(samples.qualities.tolist(), [[0.25, 0.75]])
        self.assertEqual(read_rows(rows_path(self.dir, "x"))["status"][1], 503)

    def test_an_instant_that_did_not_happen_stays_one(self) -> None:
        self.write(unfinished_row(7, 1100, NOT_SEEN), origin_ns=1000)
        samples = read_samples(self.dir, "x", 0)
        self.assertEqual(samples.intended_ns[0], 100)
        for column in (samples.sent_ns, samples.first_byte_ns, samples.finished_ns):
            self.assertEqual(column[0], NOT_SEEN)
        self.assertEqual(samples.outcome[0], OutcomeKind.UNFINISHED)
        self.assertTrue(np.isnan(samples.qualities).all())

    def test_large_values_are_not_cut(self) -> None:
        big = 2**62
        self.write(pack_row(big, big, big, big, big, 0, 599, 2**32 - 1, big, big, 1, 1, big, 0))
        samples = read_samples(self.dir, "x", 0)
        self.assertEqual((samples.index[0], samples.bytes_in[0], samples.items[0]), (big, big, 2**32 - 1))

    def test_a_worker_that_never_began_has_no_samples(self) -> None:
        self.assertEqual(len(read_samples(self.dir, "x", 0)), 0)
        self.assertEqual(count_rows(self.dir, "x"), 0)

    def test_a_worker_without_operations_has_no_samples(self) -> None:
        self.write()
        self.assertEqual(len(read_samples(self.dir, "x", 0)), 0)
        self.assertEqual(count_rows(self.dir, "x"), 0)


class WithTokens(RecorderCase):
    def tokens(self, rows: int) -> Tokens:
        return Tokens.of([TokenTimes(content_ns=[1000 + row, 2000]) for row in range(rows)], 1000)

    def test_they_stay_with_their_rows(self) -> None:
        self.write(row(0), row(1), origin_ns=1000)
        save_tokens(self.dir, "x", self.tokens(2))
        tokens = read_samples(self.dir, "x", 0).tokens
        assert tokens is not None
        self.assertEqual(tokens.first_ns.tolist(), [0, 1])

    def test_those_of_other_rows_are_not_taken(self) -> None:
        self.write(row(0), row(1))
        save_tokens(self.dir, "x", self.tokens(3))
        self.assertIsNone(read_samples(self.dir, "x", 0).tokens)

    def test_on_a_full_disk_there_are_none(self) -> None:
        self.write(row(0))
        partial_path(tokens_path(self.dir, "x")).symlink_to("/dev/full")
        with self.assertRaisesRegex(OSError, "No space left"):
            save_tokens(self.dir, "x", self.tokens(1))
        self.assertIsNone(read_samples(self.dir, "x", 0).tokens)
        self.assertEqual(list(self.dir.glob("*tokens*")), [])

    def test_all_files_of_a_worker_go_together(self) -> None:
        self.write(row(0))
        save_tokens(self.dir, "x", self.tokens(1))
        discard(self.dir, "x")
        self.assertEqual(list(self.dir.iterdir()), [])


class WhileItRuns(RecorderCase):
    def test_rows_reach_the_disk_without_closing(self) -> None:
        ticks = []
        recorder = Recorder(self.dir, "x", 0, on_tick=lambda: ticks.append(1))
        self.addCleanup(recorder.close)
        recorder.add(row(0))
        eventually(lambda: count_rows(self.dir, "x") == 1, "the first row is on disk")
        eventually(lambda: bool(ticks), "the worker's own work is done at each tick")

    def test_new_rows_are_those_not_seen_yet(self) -> None:
        self.write(*[row(index, outcome=index % 2) for index in range(10)])
        new = read_new_rows(self.dir, "x", 7)
        self.assertEqual(new["index"].tolist(), [7, 8, 9])
        self.assertEqual(count_errors(new), 2)
        self.assertEqual(len(read_new_rows(self.dir, "x", 10)), 0)
        self.assertEqual(len(read_new_rows(self.dir, "other", 0)), 0)

    def test_of_too_many_new_rows_the_newest_are_shown(self) -> None:
        self.write(*[row(index) for index in range(MAX_NEW_ROWS + 5)])
        new = read_new_rows(self.dir, "x", 2)
        self.assertEqual((len(new), new["index"][0]), (MAX_NEW_ROWS, 5))

    def test_response_times_are_those_of_finished_operations(self) -> None:
        self.write(row(0), unfinished_row(1, 0, 0))
        self.assertEqual(response_ms(read_new_rows(self.dir, "x", 0)).tolist(), [0.003])


class TornFiles(RecorderCase):
    def test_half_a_last_row_is_left_out(self) -> None:
        path = self.write(*[row(index) for index in range(3)])
        for cut in range(1, ROW.itemsize):
            os.truncate(path, 4 * ROW.itemsize - cut)
            with self.subTest(cut=cut):
                self.assertEqual(self.indices(), [0, 1])
                self.assertEqual(count_rows(self.dir, "x"), 2)
                self.assertEqual(read_new_rows(self.dir, "x", 1)["index"].tolist(), [1])

    def test_half_a_first_row_is_no_row(self) -> None:
        path = self.write(row(0))
        os.truncate(path, ROW.itemsize - 1)
        self.assertEqual((self.indices(), count_rows(self.dir, "x")), ([], 0))

    def test_a_killed_worker_leaves_whole_rows_and_their_answers(self) -> None:
        worker = subprocess.Popen(
            [sys.executable, "-c", WRITE_FOR_EVER, self.dir], env={**os.environ, "PYTHONPATH": str(SRC)}
        )
        try:
            eventually(lambda: count_rows(self.dir, "x") > 1000, "rows are on disk")
        finally:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        samples = read_samples(self.dir, "x", 0)
        count = len(samples)
        self.assertEqual(samples.index.tolist(), list(range(count)))
        expected = b"".join(b"%d;" % index for index in range(count))
        self.assertEqual(answers_path(self.dir, "x").read_bytes()[: len(expected)], expected)
        self.assertEqual(int(samples.bytes_in.sum()), len(expected))


class FullDisk(RecorderCase):
    def test_rows_that_cannot_be_written_are_told(self) -> None:
        rows_path(self.dir, "x").symlink_to("/dev/full")
        recorder = Recorder(self.dir, "x", 0)
        recorder.add(row(0))
        recorder.close()
        self.assertEqual(recorder.failure, "cannot write samples: No space left on device")

    def test_no_row_is_written_without_its_answer(self) -> None:
        answers_path(self.dir, "x").symlink_to("/dev/full")
        recorder = Recorder(self.dir, "x", 0)
        recorder.add_answer(b"hello")
        recorder.add(row(0, bytes_in=5))
        recorder.close()
        self.assertEqual(recorder.failure, "cannot write samples: No space left on device")
        self.assertEqual(self.indices(), [])

    def test_what_was_written_stays_readable_though_space_comes_back(self) -> None:
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        recorder = Recorder(self.dir, "x", 0)
        try:
            # Room for the first row, three operations and a torn one.
            resource.setrlimit(resource.RLIMIT_FSIZE, (4 * ROW.itemsize + 10, old[1]))
            for index in range(5):
                recorder.add(row(index))
            eventually(lambda: bool(recorder.failure), "the failure is noticed")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
        recorder.add(row(5))
        recorder.close()
        self.assertEqual(recorder.failure, "cannot write samples: File too large")
        self.assertEqual(self.indices(), [0, 1, 2])


class Tally(unittest.TestCase):
    def test_texts_are_counted_in_one_line_each(self) -> None:
        tally = ErrorTally()
        for text in ("a\n  b", "a b", "c" * 500):
            tally.add(text)
        self.assertEqual(tally.counts, {"a b": 2, "c" * 200: 1})

    def test_what_a_terminal_would_obey_is_shown_and_not_sent_there(self) -> None:
        tally = ErrorTally()
        tally.add("HTTP 500 \x1b]0;owned\x07 \x9b31mno é 漢")
        self.assertEqual(tally.counts, {"HTTP 500 ·]0;owned· ·31mno é 漢": 1})

    def test_a_flood_of_different_texts_is_bounded_and_still_counted(self) -> None:
        tally = ErrorTally()
        for number in range(MAX_ERROR_TEXTS + 10):
            tally.add(f"error {number}")
        tally.add("error 1")
        self.assertEqual(len(tally.counts), MAX_ERROR_TEXTS + 1)
        self.assertEqual(tally.counts[OTHER_ERRORS], 10)
        self.assertEqual(tally.counts["error 1"], 2)


if __name__ == "__main__":
    unittest.main()
