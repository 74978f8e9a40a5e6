"""`source env.sh` in real bash and with a real `python -m venv`; only the installer (uv) is a fake."""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import tomllib
import unittest
from pathlib import Path

from test.fakes.waiting import eventually

ROOT = Path(__file__).resolve().parents[1]
COPIED = (
    "env.sh",
    "load_modules.sh",
    "requirements.txt",
    ".env.example",
    "utils/make_venv.py",
    "utils/constraints.txt",
    "utils/sites/meluxina.env",
)
# Records its call; then succeeds, waits for a line in a FIFO, or fails and puts a failing pip into the
# environment, whose Python is its fourth argument.
FAKE_UV = """#!/bin/bash
echo "$PPID $*" >>"$CALLS"
case ${FAKE_UV-} in
  fail)
    for packages in "${4%/bin/python}"/lib/python3*/site-packages; do cp "$FAKE_PIP" "$packages/pip.py"; done
    echo "error: Failed to fetch"
    exit 1
    ;;
  wait) read -r _ <"$GATE" ;;
esac
"""
FAKE_PIP = """import sys
if "install" in sys.argv:
    print("WARNING: Retrying after connection refused")
    print("WARNING: noise")
    sys.exit("ERROR: No matching distribution found")
"""
OLD_PYTHON = """#!/bin/sh
echo 3.6.8 /usr/bin/python3.6
"""
MAIN = """import sys
print(sys.argv[1:])
"""
DEADLINE_S = 30


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


class EnvCase(unittest.TestCase):
    """A copy of the set-up in a directory with spaces, and a PATH with one Python and a fake uv."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="aifbench env ")
        self.addCleanup(folder.cleanup)
        self.top = Path(folder.name).resolve()
        self.project = self.top / "my project"
        for name in COPIED:
            (self.project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.project / name)
        package = self.project / "src/aifbench"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(MAIN)
        self.bin = self.top / "bin"
        self.bin.mkdir()
        write_program(self.bin / "uv", FAKE_UV)
        write_program(self.bin / "python3", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        self.calls = self.top / "calls"
        self.gate = self.top / "gate"
        os.mkfifo(self.gate)
        self.environ = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(self.top),
            "USER": "ada",
            "CALLS": str(self.calls),
            "GATE": str(self.gate),
        }

    def bash(self, script: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "--norc", "-c", textwrap.dedent(script)],
            cwd=self.project,
            env=self.environ | environ,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def entered(self, script: str = "", **environ: str) -> str:
        """What `script` prints after a successful `source env.sh`."""
        done = self.bash(f"source env.sh && {{\n{script or ':'}\n}}", **environ)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def refused(self, script: str = "source env.sh", **environ: str) -> str:
        """What is said when `source env.sh` fails, and must stop what follows it."""
        done = self.bash(f"{script} && echo went on", **environ)
        self.assertEqual((done.returncode != 0, done.stdout), (True, ""), done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        return done.stderr

    def install_count(self) -> int:
        return len(self.calls.read_text().splitlines()) if self.calls.exists() else 0


class Install(EnvCase):
    def test_the_first_time_makes_the_environment_and_the_second_only_enters_it(self) -> None:
        first = self.bash("source env.sh; command -v python aifbench")
        self.assertIn("installed .venv", first.stderr)
        programs = [str(self.project / ".venv/bin" / name) for name in ("python", "aifbench")]
        self.assertEqual(first.stdout.splitlines(), programs)
        write_program(self.bin / "python3", OLD_PYTHON)  # the second time must not even look for one
        second = self.bash("source env.sh; command -v python aifbench")
        self.assertEqual(second.stdout, first.stdout)
        self.assertEqual(second.stderr, "env.sh: using .venv, site none; type: aifbench\n")
        self.assertEqual(self.install_count(), 1)

    def test_the_installer_is_told_what_to_install_and_where(self) -> None:
        self.entered()
        call = self.calls.read_text()
        for part in ("pip install", ".venv/bin/python", "-r", "requirements.txt", "-c", "constraints.txt"):
            self.assertIn(part, call)

    def test_the_command_passes_its_arguments_and_is_not_shadowed_by_local_files(self) -> None:
        elsewhere = self.top / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "aifbench.py").write_text("raise SystemExit('shadowed')\n")
        printed = self.entered(f'cd "{elsewhere}"; aifbench "start chroma" --x "" quit')
        self.assertEqual(printed, "['start chroma', '--x', '', 'quit']\n")

    def test_changed_requirements_are_installed(self) -> None:
        self.entered()
        with (self.project / "requirements.txt").open("a") as requirements:
            requirements.write("another>=1\n")
        self.entered()
        self.entered()
        self.assertEqual(self.install_count(), 2)

    def test_a_moved_project_gets_a_new_environment(self) -> None:
        self.entered()
        moved = self.top / "moved"
        self.project = self.project.rename(moved)
        self.assertEqual(self.entered("command -v aifbench"), f"{moved}/.venv/bin/aifbench\n")
        self.assertEqual(self.install_count(), 2)

    def test_a_failed_install_says_why_and_the_next_one_starts_anew(self) -> None:
        fake_pip = self.top / "fake_pip.py"
        fake_pip.write_text(FAKE_PIP)
        said = self.refused(FAKE_UV="fail", FAKE_PIP=str(fake_pip))
        self.assertIn("could not be installed", said)
        log = self.project / ".venv/install.log"
        self.assertEqual(
            said.splitlines()[2:],
            [
                "    WARNING: Retrying after connection refused",
                "    error: Failed to fetch",
                "    ERROR: No matching distribution found",
                f"    log: {log}; try again: source env.sh",
            ],
        )
        half_installed = self.project / ".venv/half-installed"
        half_installed.touch()
        self.entered()
        self.assertFalse(half_installed.exists())

    def test_a_killed_install_is_never_believed_finished(self) -> None:
        waiting = self.start_waiting_install()
        os.killpg(waiting.pid, signal.SIGKILL)
        waiting.communicate(timeout=DEADLINE_S)
        self.entered()
        self.assertEqual(self.install_count(), 2)

    def test_an_installer_that_outlives_its_killed_parent_still_keeps_others_out(self) -> None:
        waiting = self.start_waiting_install()
        os.kill(int(self.calls.read_text().split()[0]), signal.SIGKILL)
        self.assertNotEqual(waiting.wait(DEADLINE_S), 0)
        second = self.start()
        assert second.stderr is not None
        self.assertIn("another shell is installing", second.stderr.readline())
        self.gate.write_text("go on\n")
        second.communicate(timeout=DEADLINE_S)
        self.assertEqual((second.returncode, self.install_count()), (0, 2))

    def test_ctrl_c_stops_with_a_word_and_no_traceback(self) -> None:
        # A test run in the background ignores SIGINT, and children would inherit that.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.addCleanup(signal.signal, signal.SIGINT, before)
        waiting = self.start_waiting_install()
        os.killpg(waiting.pid, signal.SIGINT)
        _, said = waiting.communicate(timeout=DEADLINE_S)
        self.assertIn("interrupted", said)
        self.assertNotIn("Traceback", said)
        self.assertNotEqual(waiting.returncode, 0)

    def test_two_shells_at_once_install_once(self) -> None:
        first = self.start_waiting_install()
        second = self.start()
        assert second.stderr is not None
        self.assertIn("another shell is installing", second.stderr.readline())
        self.gate.write_text("go on\n")
        for shell in (first, second):
            shell.communicate(timeout=DEADLINE_S)
            self.assertEqual(shell.returncode, 0)
        self.assertEqual(self.install_count(), 1)

    def start(self, **environ: str) -> subprocess.Popen[str]:
        shell = subprocess.Popen(
            ["bash", "--norc", "-c", "source env.sh"],
            cwd=self.project,
            env=self.environ | environ,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert shell.stderr is not None
        self.addCleanup(shell.stderr.close)
        self.addCleanup(shell.wait, DEADLINE_S)
        self.addCleanup(shell.kill)
        return shell

    def start_waiting_install(self) -> subprocess.Popen[str]:
        """A shell that is in the middle of its installation."""
        shell = self.start(FAKE_UV="wait")
        assert shell.stderr is not None
        self.assertIn("installing about", shell.stderr.readline())
        eventually(lambda: self.install_count() == 1, "the installer is called")
        return shell

    def test_a_python_too_old_is_named_with_what_to_do(self) -> None:
        for name in ("python3", "python3.14", "python3.13", "python3.12", "python3.11"):
            write_program(self.bin / name, OLD_PYTHON)
        said = self.refused()
        self.assertIn("needs Python 3.11 or newer; on PATH: python3 3.6.8, ", said)
        self.assertIn("load_modules.sh", said)

    def test_a_newer_python_is_found_behind_an_old_python3(self) -> None:
        (self.bin / "python3").rename(self.bin / "python3.14")
        write_program(self.bin / "python3", OLD_PYTHON)
        self.entered()

    def test_no_environment_can_be_made_where_nothing_may_be_written(self) -> None:
        (self.project / ".venv").symlink_to("/proc/self")
        self.assertRegex(self.refused(), r"cannot make .*my project/\.venv: .*where you may write")

    def test_an_environment_of_another_machine_is_left_alone(self) -> None:
        self.entered()
        (self.project / ".venv/bin/python").unlink()
        (self.project / ".venv/bin/python").symlink_to("/nowhere/python3.11")
        self.assertIn("lacks the Python", self.refused())
        self.assertTrue((self.project / ".venv/stamp").exists())


class CallersShell(EnvCase):
    def test_only_the_promised_names_appear_and_nothing_else_changes(self) -> None:
        script = """
            state() { set +o; shopt -p || true; pwd; }
            names() { compgen -v; compgen -A function; }
            cd /
            before=$(state) named=$(names)
            source "$project/env.sh"
            after=$(state)
            [[ $before == "$after" ]]
            comm -13 <(sort <<<"$named") <(names | sort) |
                grep -v -x -E "after|before|named|BASH.*|PIPESTATUS|_OLD_VIRTUAL_.*|VIRTUAL_ENV_PROMPT|PS1"
        """
        promised = {"AIFBENCH_FROM_FILES", "AIFBENCH_HOME", "VIRTUAL_ENV", "deactivate"}
        for options in ("-eu", "-euf -o pipefail", "-C +h"):
            with self.subTest(options):
                done = self.bash(f"set {options}\n{textwrap.dedent(script)}", project=str(self.project))
                self.assertEqual((done.returncode, set(done.stdout.split())), (0, promised), done.stderr)

    def test_a_failure_leaves_no_names_behind_either(self) -> None:
        done = self.bash("source env.sh; compgen -A function", AIFBENCH_SITE="atlantis")
        self.assertEqual(done.stdout, "")

    def test_it_says_so_when_run_instead_of_sourced(self) -> None:
        self.assertIn("must be sourced", self.refused("bash env.sh"))

    def test_it_says_so_in_another_shell(self) -> None:
        self.assertIn("needs bash", self.refused("unset BASH_VERSION; source env.sh"))

    def test_the_project_is_exported(self) -> None:
        self.assertEqual(self.entered("printenv AIFBENCH_HOME", AIFBENCH_HOME="/old"), f"{self.project}\n")


class Settings(EnvCase):
    def setUp(self) -> None:
        super().setUp()
        profile = """
            SITE_HOSTS=star[0-9]* port
            SITE_DIRECTORY=/proc
            SITE_NEEDS=AIFBENCH_ACCOUNT
            AIFBENCH_PARTITION=cpu
            AIFBENCH_QOS=default
            AIFBENCH_SCRATCH=/scratch/{account}/{user}
        """
        (self.project / "utils/sites/star.env").write_text(textwrap.dedent(profile))

    def settings(self, **environ: str) -> dict[str, str]:
        lines = self.entered("printenv | grep ^AIFBENCH_ | grep -v -E '_HOME=|_FROM_FILES='", **environ)
        return dict(line.removeprefix("AIFBENCH_").split("=", 1) for line in lines.splitlines())

    def dotenv(self, text: str) -> None:
        (self.project / ".env").write_text(textwrap.dedent(text))

    def test_environment_wins_over_dotenv_wins_over_profile(self) -> None:
        self.dotenv("AIFBENCH_SITE=star\nAIFBENCH_ACCOUNT=p1\nAIFBENCH_QOS=short\nAIFBENCH_TIME=2h\n")
        self.assertEqual(
            self.settings(AIFBENCH_TIME="5m", AIFBENCH_PARTITION=""),
            {
                "SITE": "star",
                "ACCOUNT": "p1",
                "QOS": "short",
                "TIME": "5m",
                "PARTITION": "",
                "SCRATCH": "/scratch/p1/ada",
            },
        )

    def test_the_profile_is_found_by_host_name(self) -> None:
        for host, partition in (("star42.example.org", "cpu"), ("port", "cpu"), ("starlet", None)):
            with self.subTest(host):
                found = self.settings(HOSTNAME=host, AIFBENCH_TIME="1h")
                self.assertEqual(found.get("PARTITION"), partition)
                self.assertNotIn("SCRATCH", found)  # its account is not known

    def test_what_the_site_needs_is_asked_for(self) -> None:
        self.assertIn(
            "put AIFBENCH_ACCOUNT=... into", self.bash("source env.sh", AIFBENCH_SITE="star").stderr
        )
        given = self.bash("source env.sh", AIFBENCH_SITE="star", AIFBENCH_ACCOUNT="p1")
        self.assertNotIn("put AIFBENCH_ACCOUNT", given.stderr)

    def test_an_unknown_site_is_refused(self) -> None:
        self.assertIn("AIFBENCH_SITE is 'atlantis'", self.refused(AIFBENCH_SITE="atlantis"))

    def test_dotenv_is_read_leniently_and_never_run(self) -> None:
        self.dotenv(
            """
            # a comment
            AIFBENCH_QOS="two words"
            AIFBENCH_PARTITION='gpu'   # quotes end the value
            AIFBENCH_TIME=90s  # a comment
            AIFBENCH_RESULTS=~/my results
            """
        )
        with (self.project / ".env").open("a") as dotenv:
            dotenv.write("export AIFBENCH_ACCOUNT=p2\r\nAIFBENCH_IMAGES=/no/newline/at/end")
        self.assertEqual(
            self.settings(),
            {
                "QOS": "two words",
                "PARTITION": "gpu",
                "TIME": "90s",
                "RESULTS": f"{self.top}/my results",
                "ACCOUNT": "p2",
                "IMAGES": "/no/newline/at/end",
            },
        )

    def test_a_wrong_line_in_dotenv_is_named(self) -> None:
        for line, said in {
            "AIFBENCH_ACOUNT=p1": "'AIFBENCH_ACOUNT=p1' is not one of the settings",
            "touch pwned": "'touch pwned' is not one of the settings",
            "AIFBENCH_RESULTS=$(touch pwned)": "AIFBENCH_RESULTS is not expanded",
            "AIFBENCH_QOS=`touch pwned`": "AIFBENCH_QOS is not expanded",
        }.items():
            with self.subTest(line):
                self.dotenv(f"\n{line}\n")
                self.assertIn(f".env line 2: {said}", self.refused())
        self.assertFalse((self.project / "pwned").exists())

    def test_an_edited_dotenv_counts_the_next_time_in_the_same_shell(self) -> None:
        self.dotenv("AIFBENCH_QOS=short\nAIFBENCH_TIME=1h\n")
        printed = self.entered(
            """
            echo AIFBENCH_QOS=long >.env
            export AIFBENCH_PARTITION=mine
            source env.sh
            echo $AIFBENCH_QOS $AIFBENCH_PARTITION ${AIFBENCH_TIME-unset}
            """
        )
        self.assertEqual(printed, "long mine unset\n")

    def test_settings_are_those_the_program_reads_and_the_example_explains(self) -> None:
        names = re.compile(r"AIFBENCH_[A-Z]+(?:_[A-Z]+)*\b")
        not_settings = {"AIFBENCH_HOME", "AIFBENCH_FROM_FILES"}
        known = set(names.findall((ROOT / "env.sh").read_text())) - not_settings
        explained = set(names.findall((ROOT / ".env.example").read_text()))
        read = set(names.findall((ROOT / "src/aifbench/config.py").read_text())) - not_settings
        self.assertEqual(known, explained)
        self.assertEqual(known - {"AIFBENCH_SITE"}, read)

    def test_shipped_profiles_are_valid(self) -> None:
        for profile in (ROOT / "utils/sites").glob("*.env"):
            with self.subTest(profile.stem):
                shutil.copy(profile, self.project / "utils/sites")
                found = self.settings(AIFBENCH_SITE=profile.stem, AIFBENCH_ACCOUNT="p7")
                self.assertEqual(found["SCHEDULER"], "slurm")
                self.assertFalse([value for value in found.values() if "{" in value])


class LoadModules(EnvCase):
    MODULE = """
        module() { echo "module $*"; [[ $1 != "$REFUSED" ]]; }
        set -eu
        source load_modules.sh
        [[ $- == *e*u* ]]
    """

    def test_without_modules_it_says_so_and_succeeds(self) -> None:
        done = self.bash("set -eu; source load_modules.sh; compgen -A function || true")
        self.assertEqual((done.returncode, done.stdout), (0, ""))
        self.assertIn("nothing loaded", done.stderr)

    def test_with_modules_it_loads_them(self) -> None:
        done = self.bash(self.MODULE, REFUSED="nothing")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.splitlines()[-1], "module load env/release/2024.1 Apptainer Python")

    def test_other_sites_modules_are_left_alone(self) -> None:
        done = self.bash(self.MODULE, REFUSED="is-avail")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("module load", done.stdout)
        self.assertIn("nothing loaded", done.stderr)

    def test_a_failed_load_fails(self) -> None:
        done = self.bash(self.MODULE, REFUSED="load")
        self.assertEqual(done.returncode, 1)
        self.assertIn("failed", done.stderr)


class Packages(unittest.TestCase):
    def test_requirements_are_the_core_and_all_extras(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        extras = project["optional-dependencies"]
        (everything,) = extras.pop("all")
        del extras["dev"]
        self.assertEqual(everything, f"aifbench[{','.join(sorted(extras))}]")
        self.assertEqual(requirements(), sorted(itertools.chain(project["dependencies"], *extras.values())))

    def test_every_package_is_pinned_once(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        lines = (ROOT / "utils/constraints.txt").read_text().splitlines()
        pins = [line for line in lines if not line.startswith("#")]
        for pin in pins:
            self.assertRegex(pin, r"^[A-Za-z0-9._-]+==[0-9][0-9a-z.]*$")
        pinned = [normal(pin) for pin in pins]
        self.assertEqual(len(pinned), len(set(pinned)))
        asked = [*requirements(), *project["optional-dependencies"]["dev"]]
        self.assertEqual({normal(package) for package in asked} - set(pinned), set())


def requirements() -> list[str]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return sorted(line for line in lines if not line.startswith("#"))


def normal(requirement: str) -> str:
    """The name of a requirement as package indexes compare it."""
    name = re.split(r"[^A-Za-z0-9._-]", requirement)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    unittest.main()
