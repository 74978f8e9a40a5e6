"""Make the project's virtual environment, or bring it up to date; `env.sh` runs this when the stamp differs.

    make_venv.py PROJECT_DIRECTORY STAMP

The stamp is all the environment is made from, and is written last: an environment without one is unfinished,
whatever stopped its making, and is made anew. One process at a time works on it; the others wait and find it
done. Uses nothing but the standard library of Python 3.11.
"""

import contextlib
import fcntl
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

LOCK, LOG = "lock", "install.log"
LOG_LINES_SHOWN = 6
# Settings of the caller's Python or pip that would send packages elsewhere than into the environment.
MISLEADING = {"PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT"}

Run = Callable[[list[str]], bool]


class SetupError(Exception):
    """What stopped the set-up, and what to do about it."""


def say(text: str) -> None:
    print(f"env.sh: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[TextIO]:
    """Hold the lock. Installers inherit it, so that one which outlives us still keeps others out."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another shell is installing here; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks, such as Lustre mounted with noflock
        yield lock


def runner(log: TextIO, lock: TextIO) -> Run:
    """A function that runs one command, its output in the log, and tells whether it succeeded."""
    environ = {name: value for name, value in os.environ.items() if name not in MISLEADING}

    def run(command: list[str]) -> bool:
        print("$", shlex.join(command), file=log, flush=True)
        finished = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environ,
            pass_fds=[lock.fileno()],
            check=False,
        )
        return finished.returncode == 0

    return run


def installers(venv: Path, run: Run) -> Iterator[list[str]]:
    """The commands that install into `venv`, best first: uv, then the pip this Python can bring or borrow.

    uv is not always enough: proxies, certificates and mirrors are often configured for pip alone.
    """
    python = str(venv / "bin/python")
    uv, virtualenv = shutil.which("uv"), shutil.which("virtualenv")
    if uv:
        yield [uv, "pip", "install", "--python", python, "--compile-bytecode"]
    own_pip = [python, "-I", "-m", "pip"]
    borrowed_pip = [sys.executable, "-m", "pip", "--python", python]
    if run([*own_pip, "--version"]) or run([python, "-I", "-m", "ensurepip"]):
        yield [*own_pip, "install", "--no-input"]
    elif run([*borrowed_pip, "--version"]):
        yield [*borrowed_pip, "install", "--no-input"]
    elif virtualenv and run([virtualenv, "--python", sys.executable, str(venv)]):
        yield [*own_pip, "install", "--no-input"]
    elif not uv:
        raise SetupError(
            f"{sys.executable} has neither ensurepip nor pip, and there is no uv on PATH; "
            "as root: apt install python3-venv; without: put the program uv on PATH"
        )


def last_words(log: Path) -> str:
    """The end of the log, and the reason of the last retry, without the noise between."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    retries = [line for line in lines if line.startswith("WARNING: Retrying")]
    telling = [line for line in lines if not line.startswith(("WARNING", "Looking in", "[notice]", "$"))]
    return "\n".join(f"    {line[:300]}" for line in retries[-1:] + telling[-LOG_LINES_SHOWN:])


def clear(venv: Path) -> None:
    for entry in venv.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name not in (LOCK, LOG):
            entry.unlink()


def add_project(venv: Path, project: Path) -> None:
    """Make the package importable and put its command on PATH, without a build step and its network."""
    (site_packages,) = venv.glob("lib/python3*/site-packages")
    (site_packages / "aifbench.pth").write_text(f"{project / 'src'}\n")
    command = venv / "bin/aifbench"
    # -P: a file of the user's current directory must not shadow a module.
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(str(venv / "bin/python"))} -P -m aifbench "$@"\n')
    command.chmod(0o755)


def make(project: Path, stamp_text: str, run: Run) -> None:
    venv = project / ".venv"
    stamp = venv / "stamp"
    was_finished = stamp.exists() and stamp.read_text().startswith(f"{project}\n")
    stamp.unlink(missing_ok=True)
    if not (was_finished and (venv / "bin/python").exists()):
        clear(venv)
        if not run([sys.executable, "-I", "-m", "venv", "--without-pip", "--prompt", "aifbench", str(venv)]):
            raise SetupError(f"{sys.executable} could not make a virtual environment")
    say(f"installing about 130 packages into {venv}, a minute or two ...")
    requirements = ["-r", str(project / "requirements.txt"), "-c", str(project / "utils/constraints.txt")]
    if not any(run([*command, *requirements]) for command in installers(venv, run)):
        raise SetupError("the packages could not be installed; is the package index within reach?")
    add_project(venv, project)
    unfinished = venv / "stamp.new"
    unfinished.write_text(f"{stamp_text}\n")
    unfinished.replace(stamp)


def bring_up_to_date(project: Path, stamp_text: str) -> None:
    venv = project / ".venv"
    venv.mkdir(exist_ok=True)
    stamp = venv / "stamp"
    with locked(venv / LOCK) as lock:
        if stamp.exists() and stamp.read_text() == f"{stamp_text}\n":
            return
        log_path = venv / LOG
        with log_path.open("w") as log:
            try:
                make(project, stamp_text, runner(log, lock))
            except SetupError as error:
                raise SetupError(
                    f"{error}\n{last_words(log_path)}\n    log: {log_path}; try again: source env.sh"
                ) from None


def main(project: str, stamp_text: str) -> int:
    try:
        bring_up_to_date(Path(project), stamp_text)
    except SetupError as error:
        say(str(error))
        return 1
    except OSError as error:
        say(f"cannot make {project}/.venv: {error}; the project must lie where you may write, with 1 GB free")
        return 1
    except KeyboardInterrupt:
        say("interrupted; the next `source env.sh` starts anew")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
