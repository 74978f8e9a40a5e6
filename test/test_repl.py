"""The shell against a fake Session: what is typed, what is printed, and what the exit status says."""

import io
import os
import tempfile
import threading
import unittest
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from unittest import mock

from test.fakes.session import FakeSession

from aifbench.doctor import Finding
from aifbench.errors import SchedulerUnavailable, ServiceDied, SubmitError
from aifbench.load.progress import LoadStatus
from aifbench.repl import wording
from aifbench.repl.app import command_lines, main
from aifbench.repl.completion import filters, runs
from aifbench.repl.poller import Poller, news
from aifbench.repl.progress import ChangeLog, LiveLine, ShellProgress, can_rewrite
from aifbench.repl.shell import Shell, command_names
from aifbench.results.query import RunSummary
from aifbench.results.record import RunState, Verdict
from aifbench.servers.status import Stage


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class ShellCase(unittest.TestCase):
    """`run_line` gives what one typed line prints, on stdout and on stderr."""

    def setUp(self) -> None:
        self.session = FakeSession()
        self.shell = self.make_shell()

    def make_shell(self, typed: str = "", *, is_interactive: bool = False) -> Shell:
        return Shell(
            self.session, stdin=io.StringIO(typed), stdout=io.StringIO(), is_interactive=is_interactive
        )

    def run_line(self, line: str) -> tuple[str, str]:
        self.shell.stdout.truncate(0)
        self.shell.stdout.seek(0)
        with redirect_stderr(io.StringIO()) as stderr:
            self.stopped = self.shell.onecmd_plus_hooks(line)
        return self.shell.stdout.getvalue(), stderr.getvalue()

    def assert_fails(self, line: str, outcome: int, *words: str) -> None:
        out, error = self.run_line(line)
        self.assertEqual(self.shell.outcome, outcome, (line, out, error))
        for word in words:
            self.assertIn(word, error, line)
        self.assertNotIn("Traceback", error)
        self.assertLessEqual(len(error.strip().splitlines()), 1, error)


class Commands(ShellCase):
    def test_start_submits_and_says_what_comes_next(self) -> None:
        out, error = self.run_line("start chroma --nodes 2 --time 2h --name b")
        self.assertEqual(error, "")
        self.assertIn("submitted b  job 12  QUEUED (Priority)", out)
        self.assertIn("next: check b --wait", out)
        ((kind, values),) = self.session.called("start")
        self.assertEqual((kind, values["nodes"], values["time"]), ("chroma", 2, 7200.0))

    def test_each_kind_has_its_own_options(self) -> None:
        self.run_line("start postgres --shards 3")
        self.assertEqual(self.session.called("start")[0][1]["shards"], 3)
        self.assert_fails("start chroma --shards 3", 2, "unknown option --shards", "help start chroma")

    def test_dry_run_shows_and_submits_nothing(self) -> None:
        out, _ = self.run_line("start chroma --dry-run --nodes 4")
        self.assertEqual(out, "sbatch --nodes=4 batch_scripts/start_chroma.sh\n")
        self.assertEqual(self.session.called("start"), [])

    def test_advice_of_a_pending_job_is_shown_at_once(self) -> None:
        self.session.services = FakeSession("chroma").services
        self.session.become("chroma", Stage.QUEUED, advice="the partition is down: choose another")
        self.assertIn("chroma: the partition is down", self.run_line("status")[0])

    def test_check_prints_one_line_per_change_when_not_on_a_terminal(self) -> None:
        self.run_line("start chroma")
        out, _ = self.run_line("check chroma --wait 2m")
        self.assertEqual(
            [line.split()[3] for line in out.splitlines()[:3]], ["QUEUED", "STARTING", "READY"], out
        )
        self.assertEqual(out.splitlines()[3:], ["chroma is ready at http://127.0.0.1:8000 after 12.3 s"])
        self.assertEqual(self.session.called("check"), [("chroma", 120.0)])

    def test_wait_without_a_time_is_ten_minutes(self) -> None:
        self.run_line("start chroma")
        self.run_line("check chroma --wait")
        self.assertEqual(self.session.called("check"), [("chroma", 600.0)])

    def test_check_on_a_terminal_rewrites_its_line(self) -> None:
        self.run_line("start chroma")
        terminal = Terminal()
        self.shell.stdout = terminal
        with mock.patch.dict(os.environ, TERM="xterm"):
            self.shell.onecmd_plus_hooks("check chroma --wait 1m")
        self.assertEqual(terminal.getvalue().count("\n"), 1)
        self.assertIn("\r\x1b[Kchroma is ready", terminal.getvalue())

    def test_logs_and_following_them(self) -> None:
        self.session.services = FakeSession("chroma").services
        self.assertEqual(self.run_line("logs chroma -n 2")[0], "line 99\nline 100\n")
        self.assertEqual(self.run_line("logs -f")[0], "first\nsecond\nthird\n")

    def test_stop_all_and_by_name(self) -> None:
        self.session.services = FakeSession("a", "b", "c").services
        self.assertEqual(self.run_line("stop a")[0], "a stopped (job 12)\n")
        self.assertEqual(self.run_line("stop all")[0], "b stopped (job 12)\nc stopped (job 12)\n")
        self.assertEqual(self.run_line("stop all")[0], "nothing was running\n")

    def test_bench_passes_what_was_typed_and_shows_the_run(self) -> None:
        self.session.services = FakeSession("chroma", "b").services
        out, error = self.run_line("bench b search --rate 2k --duration 1m --via sdk --cold")
        self.assertEqual(error, "")
        ((name, bench, values),) = self.session.called("bench")
        self.assertEqual((name, bench), ("b", "search"))
        self.assertEqual((values["rate"], values["duration"], values["via"]), (2000.0, 60.0, "sdk"))
        self.assertIs(values["cold"], True)
        self.assertIn("search: poisson 2000/s, 60 s", out)
        self.assertIn("recall@10 0.991", out)
        self.assertIn("VALID", out.splitlines()[-1])

    def test_results_show_report_and_save(self) -> None:
        self.session.services = FakeSession("chroma").services
        self.run_line("bench")
        self.session.verdict = Verdict.WARN
        self.run_line("bench search")
        listed = self.run_line("results")[0].splitlines()
        self.assertIn("created (UTC)", listed[0])
        self.assertIn("WARN", listed[1])
        self.assertEqual(len(self.run_line("results verdict=VALID --sort service")[0].splitlines()), 2)
        self.assertEqual(len(self.run_line("results -n 1")[0].splitlines()), 2)
        self.assertIn("in full", self.run_line("show a3f0 --full")[0])
        self.assertIn("report.html and report.md", self.run_line("report last")[0])
        self.assertIn("saved /tmp/x.zip", self.run_line("save a3f1 --out /tmp/x.zip")[0])

    def test_empty_lists_say_what_to_do(self) -> None:
        self.assertIn("`start chroma`", self.run_line("status")[0])
        self.assertIn("`bench` makes a run", self.run_line("results")[0])
        self.assertIn("no run matches", self.run_line("results verdict=WARN")[0])

    def test_doctor(self) -> None:
        self.assertEqual(self.run_line("doctor")[0], "ok       python     3.11\nok       scheduler  local\n")
        self.session.findings = [Finding("disk", False, "full", "free some space")]
        self.assert_fails("doctor", 1, "1 of 1 checks found a problem")
        self.assertIn("-> free some space", self.shell.stdout.getvalue())

    def test_quickstart_says_where_everything_is(self) -> None:
        self.assertIn("saved /results/quickstart.zip", self.run_line("quickstart")[0])

    def test_output_can_be_redirected_whole(self) -> None:
        self.session.services = FakeSession("a" * 60, "b" * 60).services
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "status.txt"
            self.run_line(f"status > {path}")
            self.assertIn("b" * 60 + "  chroma", path.read_text(encoding="utf-8"))


class Defaults(ShellCase):
    def test_the_only_service_need_not_be_named(self) -> None:
        self.session.services = FakeSession("b").services
        for line in ("check", "logs", "bench", "bench ingest --rate 5", "save", "stop"):
            self.run_line(line)
            self.assertEqual(self.shell.outcome, 0, line)
        self.assertEqual([name for name, *_ in self.session.called("bench")], ["b", "b"])
        self.assertEqual(self.session.called("bench")[1][1], "ingest")
        self.assertEqual(self.session.called("save"), [("b", None)])
        self.assertEqual(self.session.called("stop"), [("b",)])

    def test_with_several_the_choice_is_the_users(self) -> None:
        self.session.services = FakeSession("a", "b").services
        for line in ("check", "logs", "bench search", "stop"):
            self.assert_fails(line, 2, "several services are running", "a, b")

    def test_with_none_the_next_step_is_start(self) -> None:
        for line in ("check", "logs", "bench", "stop"):
            self.assert_fails(line, 2, "no service is running", "`start chroma`")

    def test_the_log_of_the_only_service_that_died_needs_no_name(self) -> None:
        self.session.services = FakeSession("b").services
        self.session.become("b", Stage.FAILED)
        self.assertIn("line 100", self.run_line("logs")[0])


class BadInput(ShellCase):
    def setUp(self) -> None:
        super().setUp()
        self.session.services = FakeSession("chroma").services

    def test_names(self) -> None:
        self.assert_fails("start", 2, "no service given", "chroma, postgres")
        self.assert_fails("start chrom", 2, "'chrom'", "did you mean 'chroma'", "valid: chroma, postgres")
        self.assert_fails("start --nodes 2", 2, "no service given")
        self.assert_fails("check chrona", 2, "'chrona'", "did you mean 'chroma'")
        self.assert_fails("bench serch", 2, "'serch'", "did you mean 'search'")
        self.assert_fails("bench chroma serch", 2, "'serch'", "did you mean 'search'")
        self.assert_fails("show 1234", 2, "no run matches '1234'")
        self.assert_fails("logs a b", 2, "unexpected 'b'")
        self.assert_fails("strat chroma", 2, "unknown command 'strat' (did you mean 'start'?)")
        self.assert_fails("help strat", 2, "'strat'", "did you mean 'start'")
        self.assert_fails("results colour=red", 2, "'colour'")
        self.assert_fails("results --sort sice", 2, "'sice'", "did you mean 'size'")

    def test_options(self) -> None:
        self.assert_fails("start chroma --nods 2", 2, "--nods", "did you mean '--nodes'")
        self.assert_fails("start chroma --nods=2", 2, "unknown option --nods (")
        self.assert_fails("bench --durtion 3", 2, "--durtion", "did you mean '--duration'")
        self.assert_fails("bench --via smoke", 2, "'smoke'", "http, sdk")
        self.assert_fails("start chroma --nodes", 2, "expected one argument")
        self.assert_fails("start chroma --part x", 2, "--part")
        self.assert_fails("check --wiat 3", 2, "did you mean '--wait'")

    def test_quantities(self) -> None:
        for value in ("0", "-1", "1.5", "many", "1e99", "nan", "inf", "99999999", "''"):
            self.assert_fails(f"start chroma --nodes {value}", 2, "--nodes")
            self.assert_fails(f"bench --rate={value}x", 2, "--rate")
            self.assert_fails(f"logs -n {value}", 2, "--lines")
            self.assert_fails(f"results -n {value}", 2, "--limit")
        for value in ("0", "-5", "soon", "400d", "1e400s"):
            self.assert_fails(f"check --wait {value}", 2, "--wait")
            self.assert_fails(f"bench --duration {value}", 2, "--duration")
        self.assertEqual(self.session.called("bench") + self.session.called("start"), [])

    def test_lines_that_cannot_be_read(self) -> None:
        self.assert_fails("show 'a", 2, "No closing quotation")
        self.assert_fails("status > /no/such/folder/file", 2)
        self.assert_fails("run_script /no/such/file", 1, "/no/such/file")
        self.run_line("set errexit perhaps")
        self.assertNotEqual(self.shell.outcome, 0)

    def test_blank_lines_and_comments_are_no_failures(self) -> None:
        for line in ("", "   ", "# bench", "  # indented"):
            self.run_line(line)
            self.assertEqual(self.shell.outcome, 0, line)

    def test_errors_of_the_session_are_one_line_with_the_next_step(self) -> None:
        self.session.failing["start"] = SubmitError(
            "sbatch refused: invalid account", hint="set AIFBENCH_ACCOUNT"
        )
        _, error = self.run_line("start chroma")
        self.assertEqual(error, "error: sbatch refused: invalid account; set AIFBENCH_ACCOUNT\n")
        self.session.stages = (Stage.STARTING, Stage.FAILED)
        self.assert_fails("check --wait 1m", 1, "out of memory", "`logs chroma`")

    def test_a_bug_shows_its_traceback_and_the_shell_goes_on(self) -> None:
        self.session.failing["status"] = ZeroDivisionError("planted")
        _, error = self.run_line("status")
        self.assertIn("Traceback", error)
        self.assertIn("ZeroDivisionError: planted", error)
        self.assertEqual(self.shell.outcome, 1)
        del self.session.failing["status"]
        self.run_line("status")
        self.assertEqual(self.shell.outcome, 0)


class CtrlC(ShellCase):
    def setUp(self) -> None:
        super().setUp()
        self.session.services = FakeSession("chroma").services

    def test_says_what_goes_on_and_the_next_command_works(self) -> None:
        advice = {
            "bench": "`show last`",
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


def run_main(session: FakeSession, argv: list[str], typed: str = "") -> tuple[int, str, str]:
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as error:
        try:
            code = main(argv, session_factory=lambda _: session, stdin=io.StringIO(typed))
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    return code, out.getvalue(), error.getvalue()


class script:
    """A file of commands, for the time of a `with`."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __enter__(self) -> str:
        with tempfile.NamedTemporaryFile("w", suffix=".txt", delete=False) as file:
            file.write(self._text)
        self._path = Path(file.name)
        return file.name

    def __exit__(self, *_: object) -> None:
        self._path.unlink()


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
            "start chroma -h",
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


class Help(ShellCase):
    def test_overview_lists_every_visible_command_once(self) -> None:
        out, _ = self.run_line("help")
        listed = [line.split()[0] for line in out.splitlines() if line.startswith("  ")]
        self.assertEqual(sorted(listed), sorted(self.shell.get_visible_commands()))
        self.assertEqual(listed[:5], ["start", "check", "status", "logs", "stop"])
        self.assertLessEqual(len(out.splitlines()), 30)

    def test_each_of_our_commands_is_explained_with_an_example(self) -> None:
        for command in (
            "start",
            "check",
            "bench",
            "logs",
            "save",
            "stop",
            "status",
            "results",
            "show",
            "report",
        ):
            out, error = self.run_line(f"help {command}")
            self.assertIn(f"Usage: {command}", out)
            self.assertIn("Example:", out)
            self.assertEqual((self.shell.outcome, error), (0, ""))

    def test_options_of_one_service(self) -> None:
        out, _ = self.run_line("help start postgres")
        self.assertIn("--shards", out)
        self.assertNotIn("--shards", self.run_line("help start chroma")[0])
        self.assertIn("(default 50)", self.run_line("help bench chroma")[0])

    def test_few_settings(self) -> None:
        self.assertEqual(set(self.shell.settables), {"allow_style", "echo", "errexit", "timing"})

    def test_no_color(self) -> None:
        before = self.shell.allow_style
        self.addCleanup(setattr, self.shell, "allow_style", before)
        with mock.patch.dict(os.environ, NO_COLOR="1"):
            self.assertEqual(str(self.make_shell().allow_style), "Never")


class Completion(ShellCase):
    def setUp(self) -> None:
        super().setUp()
        self.session.services = FakeSession("chroma", "b").services

    def offered(self, line: str) -> list[str]:
        begin = len(line) - len(line.split(" ")[-1])
        found = self.shell.complete(line[begin:], line, begin, len(line))
        self.assertEqual(found.error, "", line)
        return list(found.to_strings())

    def test_names(self) -> None:
        self.assertEqual(self.offered("sta"), ["start", "status"])
        self.assertEqual(self.offered("start "), ["chroma", "postgres"])
        self.assertEqual(self.offered("check "), ["chroma", "b"])
        self.assertEqual(self.offered("stop "), ["chroma", "b", "all"])
        self.assertEqual(self.offered("stop chroma "), ["b", "all"])
        self.assertEqual(self.offered("bench "), ["chroma", "b"])
        self.assertEqual(self.offered("bench chroma i"), ["ingest"])
        self.assertEqual(self.offered("results serv"), ["service=chroma", "service=postgres"])

    def test_options(self) -> None:
        self.assertEqual(self.offered("start chroma --no"), ["--nodes"])
        self.assertEqual(self.offered("start postgres --sh"), ["--shards"])
        self.assertEqual(self.offered("bench chroma --via "), ["http", "sdk"])
        self.assertEqual(self.offered("bench chroma search --du"), ["--duration"])

    def test_workloads_and_options_of_the_only_service(self) -> None:
        self.session.become("b", Stage.ENDED)
        self.assertEqual(self.offered("bench "), ["chroma", "all", "ingest", "search", "mixed"])
        self.assertEqual(self.offered("bench search --du"), ["--duration"])

    def test_runs_come_newest_first_with_a_word_about_each(self) -> None:
        self.run_line("bench chroma")
        self.run_line("bench b search")
        self.assertEqual(
            self.offered("show "), ["last", "20261120-131451-chroma-a3f1", "20261120-131450-chroma-a3f0"]
        )
        self.assertEqual(self.offered("save b"), ["b"])
        newest = list(runs(self.shell))[1]
        self.assertEqual(newest.display_meta, "2026-11-20 13:14  VALID  chroma search")
        self.assertIn("verdict=VALID", filters(self.shell).to_strings())

    def test_never_asks_the_scheduler(self) -> None:
        self.session.calls.clear()
        for line in ("start ", "check ", "bench ", "bench chroma ", "bench b --", "stop ", "logs "):
            self.offered(line)
        self.assertEqual(self.session.called("status"), [])

    def test_a_problem_is_shown_in_place_of_choices(self) -> None:
        self.session.failing["runs"] = SchedulerUnavailable("results are not readable")
        found = self.shell.complete("", "show ", 5, 5)
        self.assertIn("results are not readable", found.error)
        self.assertNotIn("Traceback", found.error)


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

    def test_clock(self) -> None:
        self.assertEqual(
            [wording.clock_text(s) for s in (0, 59.9, 3599, 3661)], ["00:00", "00:59", "59:59", "1:01:01"]
        )


if __name__ == "__main__":
    unittest.main()
