"""What our frame costs pgbench: transactions per second of a plain run, and of the same run as our load.

Three sides with the same clients, threads, time and protocol, in turn: pgbench alone; pgbench that logs every
transaction and prints its progress, as our frame has it do (what logging costs by itself); and the frame,
whose workers start pgbench, read its log and turn it into operations. TPC-B waits for the disk: its
tables lie where temporary files do. Needs the programs of a PostgreSQL server on the path.
"""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from test.perf.claims import Line, options, ratios, show
from test.perf.sql_engine import DATABASE, Server, postgres

from aifbench.load.arrivals import Closed, to_json
from aifbench.load.fleet import Fleet, LocalLauncher
from aifbench.load.plan import PhasePlan, StreamPlan
from aifbench.load.progress import Silent

CLIENTS = 4
SCRIPTS = ("select-only", "tpcb-like")
AT_LEAST = 0.97


def plain(server: Server, script: str, seconds: int, *more: str) -> float:
    threads = min(CLIENTS, len(os.sched_getaffinity(0)))  # as many as the frame has it use
    how = ["-n", "-M", "prepared", "-c", str(CLIENTS), "-j", str(threads), "-T", str(seconds)]
    return _tps(server.pgbench("-b", script, *how, *more))


def logging(server: Server, script: str, seconds: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return plain(server, script, seconds, "-P", "1", "-l", f"--log-prefix={folder}/log")


def framed(fleet: Fleet, server: Server, script: str, seconds: int) -> float:
    """By the operations that ended in the measured time, which is all of pgbench's."""
    stream = StreamPlan(
        script,
        "aifbench.workloads.pgbench:PgbenchLoad",
        {"database": DATABASE, "scripts": [(script, 1)], "query_mode": "prepared"},
        to_json(Closed(CLIENTS)),
        via="pgbench",
    )
    plan = PhasePlan("p", (stream,), server.endpoint, warmup_s=0.0, measure_s=float(seconds))
    outcome = fleet.run(plan, Silent(), watch=str)
    samples, reports = outcome.samples(stream), outcome.reports(stream)
    assert samples.ok.all(), (outcome.problem, [(report.failure, report.errors) for report in reports])
    took_ns = samples.finished_ns.max() - samples.sent_ns.min()
    return float(len(samples) / took_ns * 1e9)


def _tps(text: str) -> float:
    found = re.search(r"tps = ([\d.]+)", text)
    assert found, text
    return float(found[1])


def compare(server: Server, fleet: Fleet, script: str, seconds: int, repeats: int) -> list[Line]:
    alone = Line(f"{script}: pgbench", "tps")
    logged = Line("  pgbench -l -P 1", "tps")
    mine = Line("  pgbench in our frame", "tps")
    sides: list[tuple[Line, Callable[[], float]]] = [
        (alone, lambda: plain(server, script, seconds)),
        (logged, lambda: logging(server, script, seconds)),
        (mine, lambda: framed(fleet, server, script, seconds)),
    ]
    plain(server, script, seconds)  # warms the server's memory
    for number in range(repeats):
        for line, measure in sides if number % 2 == 0 else reversed(sides):
            line.values.append(measure())
    return [
        alone,
        logged,
        mine,
        Line("  ratio with log / plain", "", ratios(logged, alone)),
        Line("  ratio ours / with log", "", ratios(mine, logged)),
        Line("  ratio ours / plain", "", ratios(mine, alone), at_least=AT_LEAST),
    ]


def main(argv: Sequence[str]) -> int:
    parser = options(str(__doc__))
    parser.add_argument("--quick", action="store_true", help="small and short: whether it works")
    parser.add_argument("--seconds", type=int, default=4, help="of each run (%(default)s)")
    arguments = parser.parse_args(argv)
    seconds = 1 if arguments.quick else arguments.seconds
    with (
        tempfile.TemporaryDirectory() as name,
        postgres(Path(name)) as server,
        tempfile.TemporaryDirectory() as work,
        Fleet(Path(work), LocalLauncher(), workers=1) as fleet,
    ):
        server.pgbench("-i", "-q", "-s", "2" if arguments.quick else "10")
        lines = [
            line for script in SCRIPTS for line in compare(server, fleet, script, seconds, arguments.repeats)
        ]
    return show("pgbench by itself and in our frame", lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
