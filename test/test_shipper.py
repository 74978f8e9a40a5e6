"""The log shipper against a strict stand-in for Loki: nothing lost, nothing twice, no secret, no waiting."""

import json
import os
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

from test.fakes.loki import FakeLoki
from test.fakes.waiting import eventually

from aifbench.errors import ResultError
from aifbench.monitor.loki_push import Answer, LokiPush
from aifbench.monitor.shipper import Shipper, main
from aifbench.monitor.tailed_log import LINE_BYTES, PIECE_LINES, Place, TailedLog
from aifbench.results import masking

SRC = Path(__file__).resolve().parents[1] / "src"


class ShipperCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        self.services = self.dir / "services"
        self.state = self.dir / "shipper.json"
        self.loki = FakeLoki()
        self.addCleanup(self.loki.stop)
        self.now_s = 100.0
        self.notes: list[str] = []

    def service(self, name: str = "chroma", job_id: str = "12", *, seen_end: str = "") -> Path:
        """The log of a service whose job has announced its node."""
        folder = self.services / f"aifb-{name}-ab12"
        folder.mkdir(parents=True, exist_ok=True)
        self.describe(folder, name, job_id, seen_end)
        log = folder / f"job-{job_id}.log"
        log.write_text(
            f"SLURM_JOB_ID: {job_id}\nNODE: mel7\nIP ADDRESS: 10.3.0.7\nPORT: 8000\nANNOUNCED: {name}\n"
        )
        return log

    def describe(self, folder: Path, name: str, job_id: str, seen_end: str) -> None:
        service = {"job_id": job_id, "name": name, "kind": "chroma", "seen_end": seen_end}
        (folder / "service.json").write_text(json.dumps(service))

    def shipper(self) -> Shipper:
        """Another process, on the same state."""
        push = LokiPush(self.loki.url)
        self.addCleanup(push._connection.close)
        return Shipper(
            self.services, push, self.state, monotonic_s=lambda: self.now_s, note=self.notes.append
        )

    def drain(self, shipper: Shipper) -> None:
        self.now_s += 10.0
        while shipper.step():
            pass

    def append(self, log: Path, text: str) -> None:
        with log.open("a") as file:
            file.write(text)


class Shipping(ShipperCase):
    def test_lines_arrive_in_order_with_their_labels(self) -> None:
        log = self.service()
        self.append(log, "one\ntwo\n")
        (log.parent / "grafana.log").write_text("ready\n")
        (log.parent / "job-12-mel8.log").write_text("from the other node\n")
        self.drain(self.shipper())
        found = {
            (dict(key)["node"], dict(key)["stream"]): [line for _, line in entries][-2:]
            for key, entries in self.loki.streams.items()
        }
        self.assertEqual(
            found,
            {
                ("mel7", "job"): ["one", "two"],
                ("mel7", "grafana"): ["ready"],
                ("mel8", "job"): ["from the other node"],
            },
        )
        labels = dict(next(iter(self.loki.streams)))
        self.assertEqual((labels["job"], labels["service"], labels["kind"]), ("12", "chroma", "chroma"))

    def test_only_complete_lines_go_and_the_rest_when_nothing_follows(self) -> None:
        log = self.service()
        shipper = self.shipper()
        self.append(log, "half")
        self.drain(shipper)
        self.assertNotIn("half", self.loki.lines)
        self.append(log, " and half\nlast words")
        self.drain(shipper)
        self.assertEqual(self.loki.lines[-1], "half and half")
        with mock.patch.object(shipper, "_wall_ns", lambda: time.time_ns() + 6 * 10**9):
            self.drain(shipper)
        self.assertEqual(self.loki.lines[-1], "last words")

    def test_a_line_keeps_its_own_time_and_equal_lines_stay_apart(self) -> None:
        log = self.service()
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - 3600))
        self.append(log, f"{at}.5Z  WARN slow\n  because\nsame\nsame\n")
        self.drain(self.shipper())
        entries = next(iter(self.loki.streams.values()))
        (warned_ns, _), (because_ns, _), *same = entries[-4:]
        # What came before the first look goes on from the line before.
        self.assertEqual(because_ns, warned_ns + 1)
        self.assertEqual([line for _, line in same], ["same", "same"])

    def test_times_that_loki_would_refuse_are_not_believed(self) -> None:
        log = self.service()
        self.append(log, "2001-01-01 00:00:00 old\n2099-01-01 00:00:00 new\n2026-13-45 99:99:99 none\n")
        self.drain(self.shipper())
        self.assertEqual(self.loki.refusals, [])
        self.assertEqual(len(self.loki.lines), 5 + 3)

    def test_a_requeued_jobs_new_log_is_taken_from_its_beginning(self) -> None:
        log = self.service()
        self.append(log, "first run, of some length\n")
        shipper = self.shipper()
        self.drain(shipper)
        log.write_text("second run\n")
        self.drain(shipper)
        self.assertEqual(self.loki.lines[-2:], ["first run, of some length", "second run"])

    def test_secrets_and_binary_and_endless_lines(self) -> None:
        log = self.service()
        (log.parent / "secret").write_text("hunter2hunter2\n")
        with log.open("ab") as file:
            file.write(
                b"token is hunter2hunter2\n--api-key abcdefgh\n\xff\xfe\x00\n" + b"x" * 300_000 + b"\n\n"
            )
        self.drain(self.shipper())
        *_, known, looks_like, binary, long, empty = self.loki.lines
        self.assertEqual((known, looks_like), ("token is ***", "--api-key ***"))
        self.assertEqual((binary, empty), ("\ufffd\ufffd\0", ""))
        self.assertLessEqual(len(long), LINE_BYTES + 10)
        self.assertEqual(self.loki.refusals, [])

    def test_a_private_key_is_hidden_to_its_end_however_it_is_cut_into_pieces(self) -> None:
        log = self.service()
        shipper = self.shipper()
        self.append(log, "-----BEGIN RSA PRIVATE KEY-----\nMIIEone\n")
        self.drain(shipper)
        self.append(log, "MIIEtwo\n")
        self.drain(shipper)
        self.append(log, "MIIEthree\n-----END RSA PRIVATE KEY-----\nready\n")
        self.drain(self.shipper())  # another process goes on with it
        self.assertEqual(self.loki.lines[-2:], ["***", "ready"])
        self.assertNotIn("MIIE", "".join(self.loki.lines))

    def test_a_key_that_never_ends_hides_no_more_than_a_key(self) -> None:
        log = self.service()
        shipper = self.shipper()
        self.append(log, "-----BEGIN PRIVATE KEY----- is what a key begins with\n")
        self.drain(shipper)
        for number in range(3):
            self.append(log, f"{number} {'x' * 40_000}\n")
            self.drain(shipper)
        self.assertEqual(self.loki.lines[-1][:2], "2 ")

    def test_lines_wait_while_the_secret_of_their_service_cannot_be_read(self) -> None:
        one, two = self.service("one", "1"), self.service("two", "2")
        unreadable = one.parent / "secret"
        unreadable.write_text("hunter2hunter2\n")
        shipper, real = self.shipper(), masking._read

        def read(path: Path) -> str:
            if path == unreadable:
                raise ResultError("cannot read it")
            return real(path)

        with mock.patch.object(masking, "_read", read):
            for log in (one, two):
                self.append(log, "secret is hunter2hunter2\n" if log == one else "fine\n")
            self.drain(shipper)
            self.drain(shipper)
            shipper.close()
            self.assertEqual({dict(key)["service"] for key in self.loki.streams}, {"two"})
            self.assertEqual(len(self.notes), 1)
            self.assertIn("aifb-one-ab12 cannot be read", self.notes[0])
        self.drain(shipper)
        self.assertEqual(self.loki.lines[-1], "secret is ***")

    def test_what_was_on_its_way_waits_too(self) -> None:
        log = self.service()
        (log.parent / "secret").write_text("hunter2hunter2\n")
        self.append(log, "it is hunter2hunter2\n")
        self.loki.status = 503
        shipper = self.shipper()
        self.drain(shipper)
        self.loki.status = 204
        with mock.patch.object(masking, "_read", side_effect=ResultError("cannot read it")):
            self.drain(self.shipper())
            self.assertEqual(self.loki.lines, [])
        self.drain(self.shipper())
        self.assertEqual(self.loki.lines[-1], "it is ***")

    def test_a_long_line_is_cut_to_what_loki_takes_also_where_it_is_no_text(self) -> None:
        log = self.service()
        with log.open("ab") as file:
            file.write(b"\xff" * 200_000 + b"\n" + "\u2028é".encode() * 60_000 + b"\n")
        self.drain(self.shipper())
        self.assertEqual(self.loki.refusals, [])
        for line in self.loki.lines[-2:]:
            self.assertTrue(line.endswith(" [cut]"))
            self.assertLessEqual(len(line.encode()), 256 * 1024)

    def test_very_many_short_lines_are_sent_in_parts(self) -> None:
        log = self.service()
        self.append(log, "\n" * (PIECE_LINES + 1000) + "end")
        shipper = self.shipper()
        self.assertTrue(shipper.step())
        self.assertEqual(len(self.loki.lines), PIECE_LINES)
        self.append(log, "ing\n")
        self.drain(shipper)
        self.assertEqual((len(self.loki.lines), self.loki.lines[-1]), (5 + PIECE_LINES + 1000 + 1, "ending"))

    def test_ended_services_are_left_out_unless_their_end_is_news(self) -> None:
        self.service("old", "1", seen_end="COMPLETED")
        log = self.service("new", "2")
        shipper = self.shipper()
        self.drain(shipper)
        self.append(log, "last words\n")
        self.describe(log.parent, "new", "2", "FAILED")
        self.drain(shipper)
        self.assertEqual({dict(key)["service"] for key in self.loki.streams}, {"new"})
        self.assertEqual(self.loki.lines[-1], "last words")

    def test_torn_and_foreign_descriptions_are_left_alone(self) -> None:
        for number, text in enumerate(("", "{", "[]", "7", '{"job_id": "1"}')):
            folder = self.services / str(number)
            folder.mkdir(parents=True)
            (folder / "service.json").write_text(text)
            (folder / "job-1.log").write_text("line\n")
        self.drain(self.shipper())
        self.assertEqual(self.loki.lines, [])

    def test_a_node_that_is_never_announced_is_called_unknown(self) -> None:
        log = self.service()
        log.write_text("nothing said\n")
        shipper = self.shipper()
        shipper.step()
        self.assertEqual(self.loki.lines, [])
        self.drain(shipper)
        self.drain(shipper)
        self.assertEqual(dict(next(iter(self.loki.streams)))["node"], "unknown")


class Trouble(ShipperCase):
    def test_while_loki_is_away_nothing_waits_and_nothing_is_lost(self) -> None:
        log = self.service()
        shipper = self.shipper()
        self.drain(shipper)
        self.loki.stop()
        for number in range(50):
            self.append(log, f"line {number}\n")
            self.assertFalse(shipper.step())
            self.now_s += 1.0
        self.loki.start()
        self.drain(shipper)
        self.assertEqual(self.loki.lines[5:], [f"line {number}" for number in range(50)])
        self.assertEqual([note[:20] for note in self.notes], ["Loki takes no lines ", "Loki takes lines aga"])

    def test_waits_grow_and_have_an_end(self) -> None:
        self.service()
        self.loki.status = 503
        shipper = self.shipper()
        for _ in range(600):  # a minute
            shipper.step()
            self.now_s += 0.1
        self.assertLess(self.loki.requests, 20)
        self.assertGreater(self.loki.requests, 10)

    def test_too_many_requests_is_no_refusal(self) -> None:
        self.service()
        self.loki.status = 429
        shipper = self.shipper()
        self.drain(shipper)
        self.loki.status = 204
        self.drain(shipper)
        self.assertEqual((shipper.lines_sent, shipper.lines_refused), (5, 0))

    def test_what_is_refused_is_told_and_does_not_stop_the_rest(self) -> None:
        log = self.service()
        self.loki.status = 400
        shipper = self.shipper()
        self.drain(shipper)
        self.loki.status = 204
        self.append(log, "later\n")
        self.drain(shipper)
        self.assertEqual(self.loki.lines, ["later"])
        self.assertIn("refuses some of 5 lines", self.notes[0])

    def test_lost_answers_make_no_line_twice(self) -> None:
        log = self.service()
        self.append(log, "same\n" * 10)
        self.loki.lose_answers = 2
        shipper = self.shipper()
        for _ in range(4):
            self.drain(shipper)
        self.assertEqual(self.loki.lines.count("same"), 10)
        self.assertEqual(self.loki.duplicates, 2 * 15)

    def test_a_killed_shipper_is_followed_by_one_that_repeats_its_request_as_it_was(self) -> None:
        log = self.service()
        self.append(log, "same\n" * 10)
        self.loki.lose_answers = 1
        self.drain(self.shipper())
        self.append(log, "more\n")
        time.sleep(0.01)
        self.drain(self.shipper())
        self.drain(self.shipper())
        self.assertEqual((self.loki.lines.count("same"), self.loki.lines.count("more")), (10, 1))

    def test_a_state_that_cannot_be_used_or_written_costs_nothing_but_repeats(self) -> None:
        self.service()
        for text in ("", "{", "[]", '{"places": {"x": {"y": 1}}, "nodes": {}, "pending": {}}'):
            self.state.write_text(text)
            self.drain(self.shipper())
        self.assertIn("ANNOUNCED: chroma", self.loki.lines)
        self.state = self.dir / "nowhere/state.json"
        self.drain(self.shipper())
        self.assertEqual(self.loki.refusals, [])

    def test_addresses_that_are_none(self) -> None:
        for argv in (["x"], [".", "localhost:3100", "s"], [".", "https://x", "s"], [".", "http://", "s"]):
            with mock.patch("sys.stderr"):
                self.assertEqual(main(argv), 2, argv)


class AsProcess(ShipperCase):
    def test_the_program_ships_and_ends_on_sigterm_with_the_last_lines(self) -> None:
        log = self.service()
        command = [sys.executable, "-m", "aifbench.monitor.shipper", str(self.services), self.loki.url]
        process = subprocess.Popen(
            [*command, str(self.state)], env={**os.environ, "PYTHONPATH": str(SRC)}, stderr=subprocess.PIPE
        )
        try:
            eventually(lambda: "ANNOUNCED: chroma" in self.loki.lines, "the log ships")
            self.append(log, "goodbye\n")
        finally:
            process.terminate()
            _, said = process.communicate(timeout=10)
        self.assertEqual((process.returncode, said), (0, b""))
        self.assertEqual(self.loki.lines[-1], "goodbye")


class Files(unittest.TestCase):
    def test_a_place_in_a_file_that_is_gone(self) -> None:
        log = TailedLog(Path("/nonexistent/x.log"), Place(7, 100))
        log.look(1)
        self.assertIsNone(log.piece(1))

    def test_nobody_listens(self) -> None:
        self.assertIs(LokiPush("http://127.0.0.1:1")(b"{}")[0], Answer.AWAY)
