"""Running one short command of another program, as an injected function: tests pass a fake instead."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

NOT_FOUND_STATUS = 127


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command said. `status` is its exit status, or None when it had to be killed at its timeout."""

    status: int | None
    stdout: str = ""
    stderr: str = ""

    @property
    def ok(self) -> bool:
        return self.status == 0

    @property
    def timed_out(self) -> bool:
        return self.status is None


class CommandRunner(Protocol):
    def __call__(
        self, argv: Sequence[str], *, timeout_s: float, environment: Mapping[str, str], stdin: str = ""
    ) -> CommandResult:
        """Run `argv` with exactly `environment`; never raises for what the command does.

        A program that does not exist has status 127, as in a shell.
        """


def run_command(
    argv: Sequence[str], *, timeout_s: float, environment: Mapping[str, str], stdin: str = ""
) -> CommandResult:
    """The real CommandRunner. Undecodable output bytes become U+FFFD."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
            # Its own group: Ctrl-C in the shell must not cut an sbatch off half-way, and a timeout
            # must end helpers that would otherwise hold the pipes open.
            start_new_session=True,
        )
    except OSError as error:
        return CommandResult(NOT_FOUND_STATUS, stderr=f"{argv[0]}: {error.strerror}")
    with process:
        return _communicate(process, stdin, timeout_s)


def _communicate(process: subprocess.Popen[bytes], stdin: str, timeout_s: float) -> CommandResult:
    status: int | None = None
    try:
        out, err = process.communicate(stdin.encode(), timeout=timeout_s)
        status = process.returncode
    except subprocess.TimeoutExpired:
        _kill_group(process)
        out, err = process.communicate()
    except BaseException:
        _kill_group(process)
        raise
    return CommandResult(status, out.decode(errors="replace"), err.decode(errors="replace"))


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()
