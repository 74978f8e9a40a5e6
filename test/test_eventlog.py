"""The program's own log: what is in it, what never is, how long it stays, and that it is never in the way."""

import json
import os
import tempfile
import unittest
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

from test.fakes.clock import FakeClock
from test.fakes.shell import ShellCase

from aifbench.config import load_config
from aifbench.errors import ConfigError
from aifbench.eventlog import EventLog, event_text
from aifbench.load.progress import Silent
from aifbench.repl.exit_codes import USAGE

DAY_S = 86_400.0
NOON_S = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()


class EventsCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name) / "events"
        self.clock = FakeClock(NOON_S)
        self.secret = Path(folder.name) / "secret"

    def log(self, level: str = "info", keep_s: float = 3 * DAY_S) -> EventLog:
        files = lambda: [self.secret]  # noqa: E731
        return EventLog(self.dir, self.clock, level=level, keep_s=keep_s, secret_files=files)

    def names(self) -> list[str]:
        return sorted(path.name[:10] for path in self.dir.iterdir())


class Writing(EventsCase):
    def test_one_line_of_json_per_event(self) -> None:
        self.log().write("info", "start", service="chroma", job="12", text="two\nlines")
        (path,) = self.dir.iterdir()
        (line,) = path.read_text().splitlines()
        self.assertEqual(
            json.loads(line),
            {
                "time": "2026-11-20T12:00:00.000Z", "level": "info", "event": "start", "pid": os.getpid(),
                "service": "chroma", "job": "12", "text": "two\nlines",
            },
        )  # fmt: skip
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)

    def test_only_from_its_level_on(self) -> None:
        log = self.log("warn")
        log.write("info", "start")
        self.assertFalse(self.dir.exists())
        log.level = "debug"
        log.write("debug", "note")
        log.level = "off"
        log.write("error", "error")
        self.assertEqual([event["event"] for event in log.read(9)], ["note"])

    def test_a_file_per_day_and_none_beyond_its_time(self) -> None:
        log = self.log()
        (self.dir).mkdir()
        (self.dir / "notes.txt").write_text("somebody's own")
        for _ in range(6):
            log.write("info", "start")
            self.clock.sleep(DAY_S)
        self.assertEqual(self.names(), ["2026-11-22", "2026-11-23", "2026-11-24", "2026-11-25", "notes.txt"])
        log.keep_s = DAY_S
        log.expire()
        self.assertEqual(self.names(), ["2026-11-25", "notes.txt"])

    def test_never_a_secret(self) -> None:
        self.secret.write_text("hunter2hunter2\n")
        log = self.log()
        log.write("error", "error", text="refused: hunter2hunter2", password="abc123xyz", api_key="abc123xyz")
        log.write("info", "command", line="start vllm --api-key abc123xyz", url="http://u:abc123xyz@h/")
        log.write("info", "command", deep={"env": ["HF_TOKEN=hf_abc123xyz"]})
        text = "".join(path.read_text() for path in self.dir.iterdir())
        self.assertNotIn("hunter2", text)
        self.assertNotIn("abc123xyz", text)
        self.assertEqual(text.count("\n"), 3)

    def test_a_secret_that_cannot_be_read_keeps_the_event_out(self) -> None:
        self.secret.write_text("hunter2hunter2\n")
        with mock.patch("pathlib.Path.read_text", side_effect=PermissionError):
            self.log().write("error", "error", text="hunter2hunter2")
        self.assertFalse(self.dir.exists())

    def test_a_disk_that_takes_nothing_is_no_trouble(self) -> None:
        log = self.log()
        with mock.patch("os.write", side_effect=OSError(28, "No space left on device")):
            log.write("info", "start")
        self.dir.joinpath("x").touch()
        blocked = EventLog(self.dir / "x/events", self.clock, level="info", keep_s=DAY_S)
        blocked.write("info", "start")
        self.assertEqual(blocked.read(5), [])

    def test_what_cannot_be_json(self) -> None:
        log = self.log()
        log.write("info", "start", path=Path("/x"), text="\udcff" + "x" * 10_000)
        (event,) = log.read(5)
        self.assertEqual((event["path"], len(event["text"])), ("/x", 4000))

    def test_phases_of_a_benchmark(self) -> None:
        log = self.log("debug")
        progress = log.progress(Silent(), service="chroma")
        progress.phase("search", "poisson 50/s")
        progress.note("recall 0.99")
        self.assertEqual(
            [event_text(event) for event in log.read(5)],
            [
                "2026-11-20 12:00:00  info   phase     service=chroma  phase=search  detail=poisson 50/s",
                "2026-11-20 12:00:00  debug  note      service=chroma  recall 0.99",
            ],
        )


class Reading(EventsCase):
    def test_by_level_time_and_number_over_days_without_torn_lines(self) -> None:
        log = self.log()
        for number in range(4):
            log.write("error" if number % 2 else "info", "start", number=number)
            self.clock.sleep(DAY_S / 2)
        with next(self.dir.iterdir()).open("a") as file:
            file.write('{"torn\n[]\n{"level": "loud"}\n7\n')
        self.assertEqual([event["number"] for event in log.read(3)], [1, 2, 3])
        self.assertEqual([event["number"] for event in log.read(9, level="error")], [1, 3])
        self.assertEqual([event["number"] for event in log.read(9, since_s=NOON_S + DAY_S)], [2, 3])


class Configuration(unittest.TestCase):
    def test_level_and_time_come_from_the_environment(self) -> None:
        config = load_config({"AIFBENCH_EVENTS_LEVEL": "error", "AIFBENCH_EVENTS_KEEP": "7d"})
        self.assertEqual((config.events_level, config.events_keep_s), ("error", 7 * DAY_S))
        for wrong in ({"AIFBENCH_EVENTS_LEVEL": "loud"}, {"AIFBENCH_EVENTS_KEEP": "long"}):
            with self.assertRaisesRegex(ConfigError, next(iter(wrong))):
                load_config(wrong)


class Typed(ShellCase):
    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.session.events = EventLog(Path(folder.name), FakeClock(NOON_S), level="info", keep_s=30 * DAY_S)

    def test_commands_and_errors_are_written_down(self) -> None:
        self.run_line("status")
        self.run_line("bench nothing --password abc123xyz")
        out, _ = self.run_line("events -n 4")
        self.assertIn("command   status", out)
        self.assertIn("command   bench nothing --password ***", out)
        self.assertIn("error     no service", out)
        out, _ = self.run_line("events --level error")
        self.assertEqual(len(out.splitlines()), 1)

    def test_level_and_time_of_this_shell(self) -> None:
        out, _ = self.run_line("events --set-level error --set-keep 7d")
        self.assertIn("from error on, kept 7 days", out)
        self.run_line("status")
        out, _ = self.run_line("events")
        self.assertNotIn("status", out)

    def test_bad_input(self) -> None:
        self.assert_fails("events --level loud", USAGE, "loud")
        self.assert_fails("events --set-keep long", USAGE, "--set-keep")
        self.assert_fails("events -n x", USAGE, "--lines")


if __name__ == "__main__":
    unittest.main()
