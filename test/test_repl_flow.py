"""How the shell ends: exit status of batches, Ctrl-C, scripts, and leaving with services alive."""

import io
import os
import signal
import unittest
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock

from test.fakes.session import FakeSession
from test.fakes.shell import ShellCase, run_main, script

from aifbench.__main__ import run
from aifbench.errors import SchedulerUnavailable, ServiceDied, UsageError
from aifbench.repl.app import command_lines, main
from aifbench.repl.shell import command_names
from aifbench.results.record import Verdict
from aifbench.servers.status import Stage


class Batches(unittest.TestCase):
    def setUp(self) -> None:
        self.session = FakeSession()

    def run_main(self, *argv: str, typed: str = "") -> int:
        code, self.out, self.error = run_main(self.session, list(argv), typed)
        return code

    def test_a_whole_session(self) -> None:
        lines = ["start chroma", "check chroma --wait 120", "bench chroma", "stop chroma", "quit"]
        self.assertEqual(self.run_main(*lines), 0)
        self.assertEqual(self.error, "")
        operations = [call[0] for call in self.session.calls if call[0] not in ("status", "runs")]
        self.assertEqual(operations, ["start", "check", "bench", "stop"])

    def test_what_is_left_running_is_told_on_stderr(self) -> None:
        for ending in ([], ["quit"], ["bogus"]):
            self.session.services.clear()
            self.run_main("start chroma", "status", *ending)
            self.assertIn("left running: chroma  job 12", self.error, ending)
            self.assertIn("`aifbench stop all`", self.error)
        self.assertEqual(self.run_main("status"), 0)
        self.assertEqual(self.error, "", "a single command only answers")

    def test_leaving_needs_no_scheduler(self) -> None:
        self.session.services = FakeSession("chroma").services
        self.session.failing["status"] = SchedulerUnavailable("squeue did not answer")
        self.assertEqual(self.run_main("results", "quit"), 0)
        self.assertIn("left running: chroma  squeue did not answer", self.error)

    def test_stops_at_the_first_error_with_its_status(self) -> None:
        self.assertEqual(self.run_main("start chroma --nodes 0", "quickstart"), 2)
        self.assertEqual(self.run_main("bogus", "quickstart"), 2)
        self.assertEqual(self.run_main("show 'a", "quickstart"), 2)
        self.session.failing["start"] = ServiceDied("chroma died")
        self.assertEqual(self.run_main("start chroma", "quickstart"), 1)
        self.session.failing["start"] = ZeroDivisionError()
        self.assertEqual(self.run_main("start chroma", "quickstart"), 1)
        self.assertEqual(self.session.called("quickstart"), [])

    def test_an_invalid_run_is_3_and_a_warning_is_0(self) -> None:
        self.session.services = FakeSession("chroma").services
        self.session.verdict = Verdict.WARN
        self.assertEqual(self.run_main("bench", "chroma"), 0)
        self.session.verdict = Verdict.INVALID
        self.assertEqual(self.run_main("bench chroma", "status"), 3)
        self.assertIn("is INVALID; `show ", self.error)
        self.assertEqual(self.run_main("quickstart"), 3)
        self.assertEqual(self.run_main("show"), 0, "showing it is no failure")

    def test_without_errexit_all_run_and_the_first_failure_is_the_status(self) -> None:
        self.assertEqual(self.run_main("set errexit false", "bogus", "show nothing", "quickstart"), 2)
        self.assertEqual(len(self.session.called("quickstart")), 1)

    def test_commands_from_a_pipe(self) -> None:
        self.assertEqual(self.run_main(typed="start chroma\n\n# wait\ncheck --wait 1m\nquit\n"), 0)
        self.assertEqual(self.run_main(typed="status\nbogus\nquickstart\n"), 2)
        self.assertEqual(self.session.called("quickstart"), [])
        self.session.services.clear()
        self.assertEqual(self.run_main(typed="help"), 0, "no newline at the end of input")
        self.assertIn("Services\n  start ", self.out)

    def test_a_failing_script_fails_the_batch(self) -> None:
        with script("status\nbogus\nquickstart\n") as path:
            self.assertEqual(self.run_main(f"run_script {path}", "quickstart"), 2)
        self.assertEqual(self.session.called("quickstart"), [])

    def test_help_is_no_failure(self) -> None:
        for line in (
            "start --help",
            "start chroma --nodes 2 -h",
            "bench --help",
            "results --help",
            "help bench chroma",
        ):
            self.assertEqual(self.run_main(line), 0, line)
            self.assertIn("Example:", self.out, line)
            self.assertEqual(self.error, "")

    def test_options_of_the_program(self) -> None:
        self.assertEqual(self.run_main("--version"), 0)
        self.assertIn("aifbench ", self.out)
        self.assertEqual(self.run_main("--help"), 0)
        self.assertIn("exit status: 0 done", self.out)
        self.assertEqual(self.run_main("--scheduler", "pbs"), 2)
        seen = []
        with redirect_stdout(io.StringIO()):
            main(
                ["--scheduler", "local", "--results", "/tmp/r", "start", "chroma", "--help"],
                session_factory=lambda config: seen.append(config) or self.session,
            )
        self.assertEqual((seen[0].scheduler, seen[0].results_dir), ("local", Path("/tmp/r")))

    def test_a_set_up_that_cannot_work_is_one_line(self) -> None:
        with mock.patch.dict(os.environ, AIFBENCH_TIME="soon"):
            self.assertEqual(self.run_main("status"), 2)
        self.assertTrue(self.error.startswith("error: AIFBENCH_TIME 'soon'"), self.error)

    def test_one_command_need_not_be_quoted(self) -> None:
        known = command_names()
        for words, lines in (
            (["quickstart"], ["quickstart"]),
            (["start", "chroma", "--nodes", "2"], ["start chroma --nodes 2"]),
            (["results", "verdict=VALID"], ["results verdict=VALID"]),
            (["save", "last", "--out", "my file.zip"], ["save last --out 'my file.zip'"]),
            (["help", "start"], ["help start"]),
            (["status", "quit"], ["status", "quit"]),
            (["start chroma", "bench chroma", "quit"], ["start chroma", "bench chroma", "quit"]),
            (["status", "bench chroma"], ["status", "bench chroma"]),
            (["strat", "chroma"], ["strat", "chroma"]),
            ([], []),
        ):
            self.assertEqual(command_lines(words, known), lines)

    def test_an_option_between_commands_is_refused_before_any_of_them_runs(self) -> None:
        with self.assertRaises(UsageError) as caught:
            command_lines(["status", "results", "-n", "1"], command_names())
        self.assertIn("-n", str(caught.exception))
        self.assertIn('"results --limit 5"', str(caught.exception))


class CtrlC(ShellCase):
    def setUp(self) -> None:
        super().setUp()
        self.session.services = FakeSession("chroma").services

    def test_says_what_goes_on_and_the_next_command_works(self) -> None:
        advice = {
            "bench": "`stop chroma` ends it",
            "check --wait 1m": "`check chroma --wait`",
            "logs -f": "chroma goes on",
            "start chroma": "`status` lists what runs",
            "stop": "`status` tells",
            "quickstart": "`status` lists what is still",
            "logs": "`status`",
        }
        for presses in (1, 2):
            for line, text in advice.items():
                word = "follow" if line == "logs -f" else line.split()[0]
                self.session.interrupted = {word: presses}
                self.assert_fails(line, 130, "interrupted: ", text)
                self.session.interrupted = {}
                self.run_line("status")
                self.assertEqual(self.shell.outcome, 0)

    def test_while_the_program_begins_and_ends_there_is_no_traceback(self) -> None:
        before = signal.getsignal(signal.SIGINT)
        self.addCleanup(signal.signal, signal.SIGINT, before)
        with mock.patch("aifbench.repl.app.main", side_effect=KeyboardInterrupt):
            self.assertEqual(run(), 130)
        self.assertIs(signal.getsignal(signal.SIGINT), signal.SIG_DFL)

    def test_a_batch_ends_with_130(self) -> None:
        self.session.interrupted = {"bench": 1}
        code, out, _ = run_main(self.session, ["bench chroma", "quickstart"])
        self.assertEqual(code, 130)
        self.assertEqual(self.session.called("quickstart"), [])
        self.assertNotIn("Traceback", out)

    def test_a_script_ends_even_when_errors_do_not_end_it(self) -> None:
        self.session.interrupted = {"bench": 1}
        self.shell = self.make_shell(is_interactive=True)
        self.run_line("set errexit false")
        with script("bench chroma\nquickstart\n") as path:
            self.run_line(f"run_script {path}")
        self.assertEqual(self.session.called("quickstart"), [])
        self.assertFalse(self.stopped)


class Signals(unittest.TestCase):
    def test_a_signal_ends_a_command_as_ctrl_c_does_and_then_the_program(self) -> None:
        session, seen = FakeSession("chroma"), []

        def end() -> None:
            session.during_status = lambda: None
            try:
                signal.raise_signal(signal.SIGTERM)
            except KeyboardInterrupt as interrupt:
                seen.append(str(interrupt))
                signal.raise_signal(signal.SIGTERM)  # one more does not disturb what cleans up
                raise

        session.during_status = end
        code, _, error = run_main(session, ["set errexit false", "status", "bench chroma"])
        self.assertEqual((code, seen), (143, ["ended by SIGTERM"]))
        self.assertEqual(session.called("bench"), [])
        self.assertNotIn("Traceback", error)

    def test_a_hangup_that_was_to_be_ignored_is(self) -> None:
        self.addCleanup(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        session = FakeSession("chroma")
        session.during_status = lambda: signal.raise_signal(signal.SIGHUP)
        code, out, _ = run_main(session, ["status", "bench chroma"])
        self.assertEqual((code, len(session.called("bench"))), (0, 1), out)


class Interactive(ShellCase):
    """On a terminal: nothing ends the shell but leaving it."""

    def setUp(self) -> None:
        super().setUp()
        self.session.services = FakeSession("chroma", "b").services
        self.shell = self.make_shell(is_interactive=True)

    def leave(self, typed: str, line: str = "quit") -> str:
        self.shell = self.make_shell(typed, is_interactive=True)
        return self.run_line(line)[0]

    def test_a_failure_does_not_end_it(self) -> None:
        self.run_line("bogus")
        self.assertFalse(self.stopped)
        self.assertEqual(self.shell.exit_code, 0)

    def test_a_failing_script_ends_alone(self) -> None:
        with script("bogus\nquickstart\n") as path:
            self.run_line(f"@{path}")
        self.assertFalse(self.stopped)
        self.assertEqual(self.session.called("quickstart"), [])
        with script("status\nquit\n") as path:
            self.session.services.clear()
            self.run_line(f"@{path}")
        self.assertTrue(self.stopped)

    def test_services_are_kept_unless_stop_is_asked_for(self) -> None:
        for typed in ("\n", "k\n", "keep\n", "", "what\nKEEP\n"):
            self.assertIn("kept;", self.leave(typed), typed)
            self.assertTrue(self.stopped)
        self.assertEqual(self.session.called("stop"), [])
        self.assertIn("kept;", self.leave("", "_eof"))
        self.assertIn("stopped", self.leave("s\n"))
        self.assertEqual(self.session.called("stop"), [("chroma", "b")])

    def test_what_was_attached_is_detached_and_never_left_running(self) -> None:
        self.session.services.clear()
        self.session.attach("postgres", "http://h:1", {})
        for typed in ("\n", "stop\nkeep\n"):
            self.assertIn("kept;", self.leave(typed))
        self.assertIn("detached", self.leave("d\n"))
        self.assertEqual(self.session.called("stop"), [("postgres",)])
        _, _, error = run_main(self.session, ["attach postgres http://h:1", "status"])
        self.assertEqual(error, "")

    def test_what_cannot_be_stopped_keeps_the_shell_open(self) -> None:
        self.session.failing["stop"] = SchedulerUnavailable("scancel did not answer")
        self.leave("stop\n")
        self.assertFalse(self.stopped)

    def test_with_nothing_running_quit_asks_nothing(self) -> None:
        self.session.services.clear()
        self.assertEqual(self.leave("s\n", "exit"), "")
        self.assertTrue(self.stopped)

    def test_toolbar_shows_what_is_known_and_asks_nobody(self) -> None:
        self.session.become("b", Stage.QUEUED)
        self.run_line("status")
        self.session.calls.clear()
        self.assertEqual(self.shell.get_bottom_toolbar(), " chroma READY 03:12 · b QUEUED (Priority) 03:12")
        self.assertEqual(self.session.calls, [])

    def test_toolbar_follows_what_commands_have_shown(self) -> None:
        self.assertEqual(self.shell.get_bottom_toolbar(), " no service running")
        self.run_line("check b")
        self.assertEqual(self.shell.get_bottom_toolbar(), " b READY 03:12")
        self.run_line("stop b")
        self.assertEqual(self.shell.get_bottom_toolbar(), " no service running")


if __name__ == "__main__":
    unittest.main()
