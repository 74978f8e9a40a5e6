"""How soon the prompt is there: `aifbench` beside an empty cmd2 application, both on a terminal of their own.

Also the CPU time of `aifbench --help`, beside that of the interpreter alone.
"""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from test.perf.claims import Line, options, ratios, show

SRC = Path(__file__).resolve().parents[2] / "src"
PROMPT = b"bench>"
EMPTY = f"import cmd2; app = cmd2.Cmd(); app.prompt = {PROMPT.decode()!r}; app.cmdloop()"
AIFBENCH = "import sys; from aifbench.repl.app import main; sys.exit(main({arguments!r}))"
TIMEOUT_S = 30.0


def prompt_s(code: str, environment: Mapping[str, str]) -> float:
    """From the start of the process to its prompt on the terminal."""
    main_end, its_end = pty.openpty()
    fcntl.ioctl(its_end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    began_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=its_end,
        stdout=its_end,
        stderr=its_end,
        env=environment,
        start_new_session=True,
    )
    os.close(its_end)
    seen = b""
    try:
        while PROMPT not in seen:
            assert time.perf_counter() - began_s < TIMEOUT_S, seen
            data = os.read(main_end, 65536)
            seen += data
            if b"\x1b[6n" in data:  # the line editor asks where the cursor is, and waits for the answer
                os.write(main_end, b"\x1b[1;1R")
        return time.perf_counter() - began_s
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(main_end)


def cpu_s(arguments: Sequence[str], environment: Mapping[str, str]) -> float:
    """User and system time of a whole process."""
    process = subprocess.Popen([sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


def main(argv: Sequence[str]) -> int:
    repeats = options(str(__doc__), repeats=11).parse_args(argv).repeats
    shell, empty = AIFBENCH.format(arguments=[]), EMPTY
    ours, theirs = Line("aifbench: time to its prompt", "s"), Line("empty cmd2 application", "s")
    help_line = Line("aifbench --help: CPU", "s", at_most=0.3)
    bare = Line("  interpreter alone", "s")
    with tempfile.TemporaryDirectory() as home:
        environment = {
            **os.environ,
            "PYTHONPATH": str(SRC),
            "TERM": "xterm-256color",
            "HOME": home,
            "AIFBENCH_RESULTS": f"{home}/results",
            "AIFBENCH_SCHEDULER": "local",
        }
        for number in range(repeats + 1):
            times = prompt_s(shell, environment), prompt_s(empty, environment)
            if number:  # the first time fills the disk cache, and writes byte code
                ours.values.append(times[0])
                theirs.values.append(times[1])
                help_line.values.append(cpu_s(["-c", AIFBENCH.format(arguments=["--help"])], environment))
                bare.values.append(cpu_s(["-c", "pass"], environment))
    ratio = Line("  ratio", "", ratios(ours, theirs), at_most=1.3)
    return show("start-up", [ours, theirs, ratio, help_line, bare])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
