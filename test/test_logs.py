"""Logs as a user asks for them: level, time and words of lines in every format, of one file or several."""

import re
import time
import unittest
from datetime import UTC, datetime

from test.fakes.shell import ShellCase
from test.fakes.site import SiteCase

from aifbench.cluster.log_lines import Level, LineReader, read_line, time_of
from aifbench.errors import UsageError
from aifbench.repl.exit_codes import USAGE
from aifbench.servers import log
from aifbench.servers.log import Wanted

AT = datetime(2026, 11, 20, 13, 14, 55, tzinfo=UTC).timestamp()
HERE = datetime(2026, 11, 20, 13, 14, 55).timestamp()  # noqa: DTZ001 - lines without a zone are of this machine's
NOW = AT + 3600

# Line, level, time: from the programs themselves.
LINES = (
    ("(APIServer pid=7) INFO 11-20 13:14:55 [api_server.py:12] vLLM", Level.INFO, HERE),
    ("(EngineCore_0 pid=7) (Worker_TP0 pid=9) WARNING 11-20 13:14:55 [x.py:1] odd", Level.WARN, HERE),
    ('INFO:     127.0.0.1:51234 - "GET /health HTTP/1.1" 200 OK', Level.INFO, None),
    ("(APIServer pid=1) INFO:     Started server process [1]", Level.INFO, None),
    ("2026-11-20T13:14:55.000000Z  WARN chroma_frontend::x: slow", Level.WARN, AT),
    ("\x1b[2m2026-11-20T13:14:55Z\x1b[0m \x1b[31mERROR\x1b[0m chroma", Level.ERROR, AT),
    ("2026-11-20 13:14:55.000 UTC [123] LOG:  database system is ready", Level.INFO, AT),
    ('2026-11-20 13:14:55.000 UTC [123] ERROR:  relation "x" does not exist', Level.ERROR, AT),
    ("2026-11-20 13:14:55.000 UTC [123] FATAL:  the database system is starting up", Level.FATAL, AT),
    ("2026/11/20 13:14:55 NOTICE: Serving s3 on http://127.0.0.1:1/", Level.INFO, HERE),
    ("2026/11/20 13:14:55 ERROR : file: Failed to copy", Level.ERROR, HERE),
    ("2026/11/20 13:14:55 DEBUG : ok", Level.DEBUG, HERE),
    ("E1120 13:14:55.000000 1 server.cc:674] bad", Level.ERROR, AT),
    ("ts=2026-11-20T13:14:55.000Z caller=main.go:1 level=info msg=x", Level.INFO, AT),
    ('time=2026-11-20T14:14:55.000+01:00 level=ERROR source=x msg="y"', Level.ERROR, AT),
    ("logger=settings t=2026-11-20T13:14:55.000000000Z level=warn msg=x", Level.WARN, AT),
    ('{"level":"error","ts":"2026-11-20T13:14:55.000Z","msg":"x"}', Level.ERROR, AT),
    ("2026-11-20T13:14:55.000Z\tinfo\tservice/telemetry.go:1\tx", Level.INFO, AT),
    ("2026-11-20 13:14:55,000 - mymod.sub - WARNING - careful", Level.WARN, HERE),
    ("[2026-11-20 13:14:55 +0000] [7] [ERROR] worker failed", Level.ERROR, AT),
    ("WARNING:root:msg", Level.WARN, None),
    ("slurmstepd: error: *** JOB 12 ON mel1 CANCELLED", Level.ERROR, None),
    ("Traceback (most recent call last):", Level.ERROR, None),
    ("aifbench: running chroma", Level.INFO, None),
    ("plain words with an error in the middle", None, None),
    ("IP ADDRESS: 10.3.0.7", None, None),
    ("2026-13-45 99:99:99 no time at all", None, None),
    ("", None, None),
    ("\ufffd\0 [{(" * 50, None, None),
)


class Lines(unittest.TestCase):
    def test_every_services_format(self) -> None:
        for text, level, time_s in LINES:
            found = read_line(text, NOW)
            self.assertEqual((found.level, found.time_s), (level, time_s), text)
            self.assertEqual(time_of(text, NOW), time_s, text)

    def test_parts_of_a_second_count(self) -> None:
        self.assertAlmostEqual(time_of("2026-11-20T13:14:55.125Z x", NOW) or 0, AT + 0.125, places=5)

    def test_a_line_of_december_read_in_january(self) -> None:
        january = datetime(2027, 1, 1, 0, 5, tzinfo=UTC).timestamp()
        found = time_of("E1231 23:59:59.000000 1 x", january) or 0
        self.assertEqual(datetime.fromtimestamp(found, UTC).year, 2026)
        self.assertEqual(time_of("E0229 00:00:00.000000 1 x", january), None)  # of no leap year

    def test_what_tells_nothing_goes_on_from_the_line_before(self) -> None:
        reader = LineReader()
        texts = ("2026-11-20T13:14:55Z ERROR x", "  at y", "2026-11-20T13:14:56Z  INFO z", "more")
        read = [reader.read(text, NOW) for text in texts]
        self.assertEqual([line.level for line in read], [Level.ERROR, Level.ERROR, Level.INFO, Level.INFO])
        self.assertEqual([line.time_s for line in read], [AT, AT, AT + 1, AT + 1])

    def test_a_long_line_is_read_at_once(self) -> None:
        began_s = time.perf_counter()
        for text in ("x" * 200_000, "error " * 50_000, "(" * 100_000, "[1:11 " * 50_000, '{"a' * 50_000):
            read_line(text, NOW)
        self.assertLess(time.perf_counter() - began_s, 1.0)


class Selecting(SiteCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = self.start()
        self.server.directory.mkdir(parents=True, exist_ok=True)
        now_s = self.clock.wall_s()

        def at(age_s: float) -> str:
            return datetime.fromtimestamp(now_s - age_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

        self.at = at

    def write(self, *lines: str, name: str = "") -> None:
        path = self.server.log_path.with_name(f"{name}.log") if name else self.server.log_path
        with path.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    def chosen(self, lines: int = 50, **wanted: object) -> list[str]:
        return self.server.chosen_log_lines(lines, Wanted(**wanted))  # type: ignore[arg-type]

    def test_by_level_with_what_belongs_to_a_line(self) -> None:
        self.write(f"{self.at(9)}  INFO a", f"{self.at(8)} ERROR b", "  because", f"{self.at(7)}  WARN c")
        self.assertEqual(self.chosen(level=Level.ERROR), [f"{self.at(8)} ERROR b", "  because"])
        self.assertEqual(len(self.chosen(level=Level.WARN)), 3)
        self.assertEqual(self.chosen(2, level=Level.DEBUG)[1], f"{self.at(7)}  WARN c")

    def test_by_time_and_words(self) -> None:
        self.write(f"{self.at(900)}  INFO old", f"{self.at(60)}  INFO new", f"{self.at(50)}  INFO newer")
        since_s = self.clock.wall_s() - 600
        self.assertEqual([line[-3:] for line in self.chosen(since_s=since_s)], ["new", "wer"])
        self.assertEqual(len(self.chosen(pattern=re.compile("new$"))), 1)
        self.assertEqual(self.chosen(since_s=since_s, pattern=re.compile("old")), [])

    def test_lines_that_tell_nothing_are_said_to(self) -> None:
        self.write("plain", "words")
        with self.assertRaisesRegex(UsageError, "tells its time"):
            self.chosen(since_s=0.0)
        with self.assertRaisesRegex(UsageError, "tells its level"):
            self.chosen(level=Level.INFO)
        self.assertEqual(self.chosen(pattern=re.compile("w.r")), ["words"])

    def test_an_empty_log_has_no_line(self) -> None:
        self.assertEqual(self.chosen(since_s=0.0, level=Level.WARN), [])

    def test_several_nodes_come_in_order_of_time_and_are_told_apart(self) -> None:
        own = self.server.log_path.stem
        self.write(f"{self.at(9)} one", f"{self.at(5)} three")
        self.write(f"{self.at(7)} two", "  and more", name=f"{own}-mel8")
        self.write(f"{self.at(1)} four", name="grafana")
        self.assertEqual(
            [line.partition(" | ")[::2][0] + line[-4:] for line in self.chosen()],
            ["job one", "mel8 two", "mel8more", "jobhree", "grafanafour"],
        )
        self.assertEqual(len(self.chosen(2)), 2)

    def test_following_several_nodes_until_the_end(self) -> None:
        own = self.server.log_path.stem
        self.write(f"{self.at(9)}  INFO one", f"{self.at(8)}  WARN two")
        self.write(f"{self.at(7)} ERROR three", "half", name=f"{own}-mel8")
        ends = iter([False, True])

        def wait() -> None:
            self.write(f"{self.at(0)} ERROR late")

        found = list(
            log.follow(
                lambda: self.server.log_files,
                lambda: next(ends),
                wait,
                Wanted(level=Level.WARN),
                self.clock.wall_s,
            )
        )
        self.assertEqual([line.split()[-1] for line in found], ["two", "three", "half", "late"])
        self.assertTrue(found[1].startswith("mel8 | "))


class Typed(ShellCase):
    def setUp(self) -> None:
        super().setUp()
        self.session = type(self.session)("chroma")
        self.shell = self.make_shell()

    def test_filters_reach_the_session(self) -> None:
        self.run_line("logs chroma -n 20 --level warn --since 10m --grep 'a|b'")
        ((name, lines, wanted),) = self.session.called("logs")
        self.assertEqual((name, lines, wanted.level), ("chroma", 20, Level.WARN))
        self.assertAlmostEqual(time.time() - wanted.since_s, 600, delta=60)
        self.assertTrue(wanted.pattern.search("xbx"))
        self.run_line("logs -f --level error")
        self.assertEqual(self.session.called("follow")[0][1].level, Level.ERROR)

    def test_every_level_can_be_asked_for(self) -> None:
        for level in Level:
            self.run_line(f"logs chroma --level {level.name.lower()}")
        self.assertEqual([call[2].level for call in self.session.called("logs")], [*Level])

    def test_what_cannot_be_a_filter(self) -> None:
        self.assert_fails("logs --level loud", USAGE, "'loud'", "valid: debug, info, warn")
        self.assert_fails("logs --since yesterday", USAGE, "--since", "yesterday")
        self.assert_fails("logs --grep '('", USAGE, "--grep", "no regular expression")


if __name__ == "__main__":
    unittest.main()
