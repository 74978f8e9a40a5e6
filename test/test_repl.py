"""The shell against a fake Session: what is typed, and what is printed."""

import os
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from test.fakes.session import FakeSession
from test.fakes.shell import ShellCase, Terminal

from aifbench.doctor import Finding
from aifbench.errors import SchedulerUnavailable, ServiceError, SubmitError
from aifbench.repl.completion import filters, runs
from aifbench.results.record import Verdict
from aifbench.servers.status import Stage


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
        self.assertEqual(
            out.splitlines()[3:],
            ["chroma is ready at http://127.0.0.1:8000 after 12.3 s", "  next: bench chroma"],
        )
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
        self.assertEqual(terminal.getvalue().count("\n"), 2)
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
        self.assertIn("VALID", out.splitlines()[-2])
        self.assertEqual(out.splitlines()[-1], "  next: report last, or save last")

    def test_calibrate_needs_no_service(self) -> None:
        out, error = self.run_line("calibrate --clients 256 --itl 5ms")
        self.assertEqual((error, self.shell.outcome), ("", 0))
        self.assertEqual(self.session.called("calibrate"), [({"clients": "256", "itl": "5ms"},)])
        self.assertRegex(out, r"TTFT p50 +50\.100 +50\.220 +0\.120")
        self.assertIn("exact enough", out.splitlines()[-1])
        self.session.client_percent = 97.0
        self.assert_fails("calibrate", 1, "client-limited: the busiest load worker used 97 % of a core")
        self.assertIn("TTFT p99", self.shell.stdout.getvalue())
        self.session.interrupted["calibrate"] = 1
        self.assert_fails("calibrate", 130, "nothing is left behind")

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


class Attaching(ShellCase):
    def test_a_service_of_somebody_else_from_address_to_oblivion(self) -> None:
        out, error = self.run_line("attach postgres https://h/p --name theirs --key-file /k --ca-file /c")
        self.assertEqual(error, "")
        self.assertIn("theirs is attached: http://127.0.0.1:8000 (16.2, no authentication)", out)
        self.assertIn("next: bench theirs", out)
        ((kind, url, values),) = self.session.called("attach")
        self.assertEqual((kind, url), ("postgres", "https://h/p"))
        self.assertEqual((values["name"], values["key_file"], values["ca_file"]), ("theirs", "/k", "/c"))
        row = self.run_line("status")[0].splitlines()[1].split()
        self.assertEqual(row[:4], ["theirs", "postgres", "READY", "attached"])
        self.assertEqual(
            self.run_line("check")[0], "theirs is ready at http://127.0.0.1:8000\n  next: bench theirs\n"
        )
        self.assertEqual(self.run_line("stop")[0], "theirs detached; what somebody else started goes on\n")

    def test_what_cannot_be_attached_is_told(self) -> None:
        self.assert_fails("attach", 2, "no kind of service given")
        self.assert_fails("attach chroma http://h", 2, "'chroma' cannot be attached", "valid: postgres")
        self.assert_fails("attach postgers http://h", 2, "did you mean 'postgres'?")
        self.assert_fails("attach postgres", 2, "URL")
        self.assert_fails(
            "attach postgres http://h --kee-file x", 2, "--kee-file", "did you mean '--key-file'"
        )
        self.session.failing["attach"] = ServiceError("not attached: wants an API key")
        self.assert_fails("attach postgres http://h", 1, "not attached: wants an API key")

    def test_help(self) -> None:
        self.assertIn("--key-env", self.run_line("help attach postgres")[0])
        self.assertIn("kind: postgres", self.run_line("help attach")[0])


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

    def test_a_full_disk_is_no_bug(self) -> None:
        self.assert_fails("status > /dev/full", 1, "cannot write the output: No space left")

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


class Redirection(ShellCase):
    def test_says_what_cannot_be_written_and_why(self) -> None:
        self.assert_fails("status > /nonexistent/file", 2, "cannot write /nonexistent/file: No such file")
        self.assert_fails("status >", 2, "> needs a file")


class Help(ShellCase):
    def test_overview_lists_every_visible_command_once(self) -> None:
        out, _ = self.run_line("help")
        listed = [line.split()[0] for line in out.splitlines() if line.startswith("  ")]
        self.assertEqual(sorted(listed), sorted(self.shell.get_visible_commands()))
        self.assertEqual(listed[:6], ["start", "attach", "check", "status", "logs", "stop"])
        self.assertLessEqual(len(out.splitlines()), 48)

    def test_each_of_our_commands_is_explained_with_an_example(self) -> None:
        for command in (
            "start",
            "attach",
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

    def test_services_and_workloads_are_listed_one_a_line(self) -> None:
        lines = [line.split() for line in self.run_line("help bench")[0].splitlines()]
        self.assertIn(["chroma", "all,", "ingest,", "search,", "mixed"], lines)
        self.assertIn(
            "postgres",
            [line[0] for line in map(str.split, self.run_line("help start")[0].splitlines()) if line],
        )

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
        self.assertEqual(self.offered("attach "), ["postgres"])
        self.assertEqual(self.offered("attach postgres http://h --key"), ["--key-env", "--key-file"])
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
        self.assertEqual(self.shell.complete("", "bench search ", 13, 13).error, "")

    def test_help_of_a_service_and_paths(self) -> None:
        self.assertEqual(self.offered("help start p"), ["postgres"])
        self.assertEqual(self.offered("attach postgres http://h --key-file /us"), ["/usr/"])

    def test_only_runs_are_called_last_in_a_report(self) -> None:
        study = SimpleNamespace(study_id="20261120-131450-ef-search-a3f0", done=1, pending=0)
        self.session.studies = lambda: [study]  # type: ignore[attr-defined]
        found = [item.text for item in self.shell.complete("", "report ", 7, 7)]
        self.assertEqual(found, ["last", study.study_id])

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


if __name__ == "__main__":
    unittest.main()
