"""What the shell shows by itself: progress, toolbar, alerts, and how values read."""

import io
import os
import threading
import unittest
from dataclasses import replace
from unittest import mock

from test.fakes.session import FakeSession
from test.fakes.shell import Terminal

from aifbench.doctor import Finding
from aifbench.errors import SchedulerUnavailable
from aifbench.load.progress import LoadStatus
from aifbench.repl import wording
from aifbench.repl.poller import Poller, news
from aifbench.repl.progress import ChangeLog, LiveLine, ShellProgress, can_rewrite
from aifbench.results.query import RunSummary
from aifbench.results.record import RunState, Verdict
from aifbench.servers.status import Stage


class ProgressOnScreen(unittest.TestCase):
    STATUS = LoadStatus("search", 12.0, 30.0, 604, None, 50.21, 3, 12.34)

    def test_a_status_reads_as_one_line(self) -> None:
        lines: list[str] = []
        progress = ShellProgress(ChangeLog(lines.append), lines.append)
        progress.update(self.STATUS)
        progress.update(LoadStatus("ingest", 61.0, None, 50, 200, 1234.0, 0))
        self.assertEqual(
            lines,
            [
                "  search  00:12/00:30  40 %  604 operations  50.2/s  3 errors  p99 12.3 ms",
                "  ingest  01:01  25 %  50 operations  1,234/s  0 errors",
            ],
        )

    def test_plain_output_gets_a_line_every_ten_seconds(self) -> None:
        lines: list[str] = []
        progress = ShellProgress(ChangeLog(lines.append), lines.append)
        progress.phase("search", "poisson 50/s")
        for second in range(35):
            progress.update(replace(self.STATUS, elapsed_s=float(second)))
        progress.note("recall 0.99")
        progress.close()
        self.assertEqual(len(lines), 1 + 4 + 1)
        self.assertFalse(any("\r" in line or "\x1b" in line for line in lines))

    def test_a_terminal_line_is_rewritten_cut_to_its_width_and_kept_at_the_end(self) -> None:
        stream = Terminal()
        progress = ShellProgress(LiveLine(stream), lambda text: stream.write(f"{text}\n") and None)
        progress.phase("search", "")
        with mock.patch.dict(os.environ, COLUMNS="40"):
            progress.update(self.STATUS)
            progress.update(replace(self.STATUS, elapsed_s=13.0))
        progress.note("recall 0.99")
        progress.update(self.STATUS)
        progress.close()
        self.assertEqual(stream.getvalue().count("\n"), 3)
        self.assertTrue(stream.getvalue().endswith("\n"))
        shown = stream.getvalue().split("\r\x1b[K")
        self.assertEqual(shown[1], "  search  00:12/00:30  40 %  604 operat")

    def test_only_terminals_that_can_are_rewritten(self) -> None:
        with mock.patch.dict(os.environ, TERM="xterm"):
            self.assertTrue(can_rewrite(Terminal()))
            self.assertFalse(can_rewrite(io.StringIO()))
        with mock.patch.dict(os.environ, TERM="dumb"):
            self.assertFalse(can_rewrite(Terminal()))


class PollerNews(unittest.TestCase):
    def setUp(self) -> None:
        self.session = FakeSession("chroma")
        self.alerts: list[str] = []
        self.is_idle = True
        self.poller = Poller(self.session, self.alerts.append, lambda: self.is_idle)

    def test_tells_each_change_once(self) -> None:
        self.session.become("chroma", Stage.STARTING)
        self.assertEqual(self.poller.poll(), 1.0, "readiness is looked for every second")
        self.assertEqual(self.alerts, [], "what was there before is no news")
        self.session.become("chroma", Stage.READY)
        self.assertEqual(self.poller.poll(), 5.0)
        self.poller.poll()
        self.assertEqual(self.alerts, ["chroma is ready at http://127.0.0.1:8000"])
        self.session.become("chroma", Stage.SILENT)
        self.poller.poll()
        self.assertIn("does not answer any more", self.alerts[-1])

    def test_death_names_the_reason_and_the_next_command(self) -> None:
        before = self.session.services.copy()
        self.session.become("chroma", Stage.FAILED, detail="out of memory")
        self.assertEqual(
            news(before, self.session.services.values()), ["chroma died: out of memory; see `logs chroma`"]
        )

    def test_a_time_limit_is_announced_once(self) -> None:
        before = self.session.services.copy()
        job = replace(before["chroma"].job, time_left_s=290.0)
        self.session.become("chroma", Stage.READY, job=job)
        self.assertEqual(
            news(before, self.session.services.values()), ["chroma (job 12) reaches its time limit in 04:50"]
        )
        self.assertEqual(news(self.session.services, self.session.services.values()), [])

    def test_what_the_user_has_seen_is_no_news(self) -> None:
        self.session.become("chroma", Stage.STARTING)
        self.poller.poll()
        self.session.become("chroma", Stage.READY)
        self.poller.has_shown(self.session.services.values())
        self.assertEqual([status.stage for status in self.poller.statuses], [Stage.READY])
        self.poller.poll()
        self.assertEqual(self.alerts, [])

    def test_what_was_shown_during_a_look_is_newer_than_it(self) -> None:
        self.poller.poll()
        stopped = replace(self.session.services["chroma"], stage=Stage.ENDED)
        self.session.during_status = lambda: self.poller.has_shown([stopped])
        self.poller.poll()
        self.assertEqual(self.poller.statuses, [stopped])
        self.assertEqual(self.alerts, [])

    def test_asks_nobody_while_a_command_runs_or_nothing_does(self) -> None:
        self.is_idle = False
        self.poller.poll()
        self.is_idle = True
        self.session.become("chroma", Stage.ENDED)
        self.poller.poll()
        self.assertEqual(self.session.called("status"), [])

    def test_a_scheduler_that_does_not_answer_is_shown_not_raised(self) -> None:
        self.session.failing["status"] = SchedulerUnavailable("squeue did not answer", hint="later")
        self.assertEqual(self.poller.poll(), 5.0)
        self.assertEqual(self.poller.trouble, "squeue did not answer")
        self.assertIn("squeue", wording.toolbar_text([], self.poller.trouble))
        self.session.failing.clear()
        self.poller.poll()
        self.assertEqual(self.poller.trouble, "")

    def test_the_thread_ends_when_told_to(self) -> None:
        self.poller.start()
        self.poller.stop()
        threads = [thread for thread in threading.enumerate() if thread.name == "poller"]
        for thread in threads:
            thread.join(5.0)
        self.assertFalse(any(thread.is_alive() for thread in threads))


class Wording(unittest.TestCase):
    def test_runs_that_did_not_complete_say_so(self) -> None:
        run = RunSummary(
            "20261120-131455-chroma-a3f9", "2026-11-20T13:14:55Z", RunState.INTERRUPTED, Verdict.INVALID
        )
        self.assertIn("INTERRUPTED", wording.runs_table([run]))
        self.assertIn("unreadable", wording.runs_table([replace(run, problem="record is corrupt")]))
        self.assertIn("record is corrupt", wording.summary_line(replace(run, problem="record is corrupt")))

    def test_a_narrow_terminal_spares_what_a_run_id_tells_too(self) -> None:
        run = RunSummary(
            "20261120-131455-chroma-a3f9", "2026-11-20T13:14:55Z", RunState.COMPLETE, Verdict.VALID, "chroma"
        )
        whole = wording.runs_table([run])
        self.assertEqual(wording.runs_table([run], 200), whole)
        narrow = wording.runs_table([run], 60)
        self.assertNotIn("created", narrow)
        self.assertNotIn("size", narrow)
        for text in (whole, narrow):
            self.assertIn("VALID", text)

    def test_the_living_come_first_and_an_end_that_was_asked_for_needs_no_detail(self) -> None:
        session = FakeSession("a", "b")
        session.become("a", Stage.ENDED, detail="job 12 ended: CANCELLED, exit code 143")
        text = wording.status_table([*session.services.values()])
        self.assertEqual([line.split()[0] for line in text.splitlines()], ["service", "b", "a"])
        self.assertNotIn("CANCELLED", text)

    def test_why_a_service_died_stands_below_the_table_with_what_to_do(self) -> None:
        session = FakeSession("a")
        session.become("a", Stage.FAILED, detail="out of memory", advice="start it with more")
        *_, row, below = wording.status_table([*session.services.values()]).splitlines()
        self.assertNotIn("out of memory", row)
        self.assertEqual(below, "a: out of memory; start it with more")

    def test_what_is_absent_is_no_problem_and_has_its_remedy(self) -> None:
        text = wording.findings_text([Finding("vllm", False, "no image", "pull it", optional=True)])
        self.assertEqual(text.splitlines()[0].split(), ["absent", "vllm", "no", "image"])
        self.assertIn("-> pull it", text)

    def test_clock(self) -> None:
        self.assertEqual(
            [wording.clock_text(s) for s in (0, 59.9, 3599, 3661)], ["00:00", "00:59", "59:59", "1:01:01"]
        )


if __name__ == "__main__":
    unittest.main()
