"""What the sampler costs its node: at most 1 % of a core and 100 MB, and nothing that a load would notice."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from test.perf.claims import Line, options, show

SOURCE = Path(__file__).resolve().parents[2] / "src"
MOST_PERCENT, MOST_MB = 1.0, 100.0
WARM_UP_S = 2.0


def cpu_s(pid: int) -> float:
    """Of all threads so far, to the nanosecond: a sample takes less than a tick of the kernel."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(path.read_text(encoding="ascii").split()[0]) for path in threads) / 1e9


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1e3


def measure(duration_s: float) -> tuple[float, float, float, float]:
    """Percent of a core, of one to start, MB, and bytes a second."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
        argv = [sys.executable, "-S", "-m", "aifbench.monitor.sampler", folder]
        with subprocess.Popen(argv, env=environment) as process:
            try:
                time.sleep(WARM_UP_S)
                begun_s, before_s = time.monotonic(), cpu_s(process.pid)
                time.sleep(duration_s)
                percent = 100 * (cpu_s(process.pid) - before_s) / (time.monotonic() - begun_s)
                megabytes = resident_mb(process.pid)
            finally:
                process.terminate()
        size_bytes = sum(path.stat().st_size for path in Path(folder).iterdir())
    return percent, before_s, megabytes, size_bytes / (duration_s + WARM_UP_S)


def main(argv: Sequence[str]) -> int:
    parser = options(str(__doc__), repeats=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each is watched (%(default)s)")
    args = parser.parse_args(argv)
    share = Line("processor time while it samples", "% core", at_most=MOST_PERCENT)
    start = Line("processor time to start and for two samples, once", "s")
    memory = Line("memory", "MB", at_most=MOST_MB)
    written = Line("written", "B/s")
    for _ in range(args.repeats):
        for line, value in zip((share, start, memory, written), measure(args.seconds), strict=True):
            line.values.append(value)
    return show("sampler", [share, start, memory, written])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
