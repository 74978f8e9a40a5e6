"""10,000 log lines a second from four services, shipped to a stand-in for Loki that is away in between.

The writer, the stand-in and the shipper share this machine; the CPU time is of the shipper's process alone.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from test.fakes.loki import FakeLoki
from test.perf.claims import Line, show

SRC = Path(__file__).resolve().parents[2] / "src"
SERVICES = 4
LINES_PER_S = 10_000
SECONDS = 12.0
AWAY_S = (4.0, 7.0)
CATCH_UP_S = 30.0


def write_lines(logs: list[Path], per_s: int, seconds: float) -> int:
    """Write at that rate; how many lines. Every tenth tells no time, as a traceback does."""
    files = [log.open("a", buffering=1 << 16) for log in logs]
    written, began_s = 0, time.monotonic()
    while (passed_s := time.monotonic() - began_s) < seconds:
        due = int(passed_s * per_s)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() // 1000 % 10**6:06d}Z"
        for number in range(written, due):
            head = "  in a traceback" if number % 10 == 9 else f"{stamp}  INFO chroma_frontend::server: took"
            files[number % len(files)].write(f"{head} line {number} of a request with some words in it\n")
        written = due
        for file in files:
            file.flush()
        time.sleep(0.02)
    for file in files:
        file.close()
    return written


def make_services(root: Path) -> list[Path]:
    logs = []
    for number in range(SERVICES):
        folder = root / f"aifb-chroma-{number}"
        folder.mkdir(parents=True)
        service = {"job_id": str(number), "name": f"chroma-{number}", "kind": "chroma", "seen_end": ""}
        (folder / "service.json").write_text(json.dumps(service))
        log = folder / f"job-{number}.log"
        log.write_text(
            f"SLURM_JOB_ID: {number}\nNODE: mel{number}\nIP ADDRESS: 10.3.0.7\nPORT: 80\nANNOUNCED: chroma\n"
        )
        logs.append(log)
    return logs


def restart(loki: FakeLoki) -> None:
    time.sleep(AWAY_S[0])
    loki.lose_answers = 1
    time.sleep(0.3)
    loki.stop()
    time.sleep(AWAY_S[1] - AWAY_S[0])
    loki.start()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, FakeLoki() as loki:
        logs = make_services(Path(folder) / "services")
        command = [sys.executable, "-m", "aifbench.monitor.shipper", str(Path(folder) / "services"), loki.url]
        shipper = subprocess.Popen(
            [*command, str(Path(folder) / "state.json")], env={**os.environ, "PYTHONPATH": str(SRC)}
        )
        threading.Thread(target=restart, args=(loki,), daemon=True).start()
        began_s = time.monotonic()
        written = write_lines(logs, LINES_PER_S, SECONDS)
        wrote_s = time.monotonic() - began_s
        expected = written + 5 * SERVICES
        while len(loki.lines) < expected and time.monotonic() - began_s < wrote_s + CATCH_UP_S:
            time.sleep(0.05)
        caught_up_s = time.monotonic() - began_s - wrote_s
        shipper.terminate()
        _, _, usage = os.wait4(shipper.pid, 0)
        cpu_s = usage.ru_utime + usage.ru_stime
        numbers = {int(line.split(" line ")[1].split()[0]) for line in loki.lines if " line " in line}
        lost, twice = written - len(numbers), len(loki.lines) - expected
    away = f"away from {AWAY_S[0]:g} s to {AWAY_S[1]:g} s, an answer lost before"
    lines = [
        Line("lines written", "/s", [written / wrote_s], at_least=0.99 * LINES_PER_S),
        Line("lines lost", "", [float(lost)], at_most=0),
        Line("lines twice", "", [float(twice)], at_most=0),
        Line("requests with something to refuse", "", [float(len(loki.refusals))], at_most=0),
        Line("lines sent again, and recognised", "", [float(loki.duplicates)]),
        Line("all there after the last was written", "s", [caught_up_s]),
        Line("the shipper's CPU", "% core", [100 * cpu_s / wrote_s]),
        Line("the same for each line", "µs", [1e6 * cpu_s / written]),
        Line("its memory at most", "MiB", [usage.ru_maxrss / 1024]),
    ]
    return show(f"{written:,} log lines of {SERVICES} services, Loki {away}", lines)


if __name__ == "__main__":
    sys.exit(main())
