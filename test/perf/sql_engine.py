"""The same prepared point select of a real PostgreSQL by pgbench and by our SQL engine.

Closed loop: 4 clients each, ours in 4 worker processes, runs of all sides in turn; wall time, and the CPU
time of the clients. A third side is a bare loop over psycopg in 4 processes: what Python alone costs, and so
the most that any engine over psycopg can reach. Open loop: how late our operations are sent at 70 % of the
capacity just found, beside pgbench's own lag at that rate (from its log), and beside a bare loop that sleeps
until each is due, at one worker's rate and with no server at work: what the machine gives anyone. Needs the
programs of a PostgreSQL server on the path.
"""

import os
import pwd
import re
import resource
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from test.perf.claims import Line, options, ratios, show
from test.perf.null_workload import bare_lag_ms
from test.perf.sql_bare import bare_loops

from aifbench.cluster.endpoint import Endpoint
from aifbench.load.arrivals import AnyArrivals, Closed, Poisson, to_json
from aifbench.load.fleet import Fleet, LocalLauncher
from aifbench.load.plan import PhasePlan, StreamPlan
from aifbench.load.progress import Silent
from aifbench.load.samples import Samples
from aifbench.workloads.pgbench_log import read_logs

CLIENTS = 4
DATABASE = "bench"
CONNECTIONS = 4  # of each worker, for the open loop
ROWS_PER_SCALE = 100_000
LOAD_SHARE = 0.7
_NOBODY = "nobody"  # PostgreSQL refuses to run as root


@dataclass(frozen=True, slots=True)
class Sizes:
    scale: int
    seconds: float
    warmup_s: float


@dataclass(frozen=True, slots=True)
class Server:
    endpoint: Endpoint
    programs: Path
    password: str

    def pgbench(self, *arguments: str) -> str:
        where = ["-h", self.endpoint.host, "-p", str(self.endpoint.port), "-U", "bench"]
        done = subprocess.run(
            [self.programs / "pgbench", *where, *arguments, DATABASE],
            env={**os.environ, "PGPASSWORD": self.password},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout


@contextmanager
def postgres(directory: Path) -> Iterator[Server]:
    programs = Path(shutil.which("initdb") or "/nowhere").resolve().parent
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    data, secret = directory / "data", directory / "secret"
    secret.write_text(secrets.token_hex(16))
    secret.chmod(0o600)
    as_user: Mapping[str, str | int] = {}
    if os.geteuid() == 0:
        user = pwd.getpwnam(_NOBODY)
        as_user = {"user": user.pw_uid, "group": user.pw_gid}
        for path in (directory, secret):
            os.chown(path, user.pw_uid, user.pw_gid)

    def run(program: str, *arguments: str | Path) -> None:
        command = [programs / program, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=directory, **as_user)  # type: ignore[call-overload]

    init = ["-U", "bench", "--auth=scram-sha-256", f"--pwfile={secret}", "-N"]
    run("initdb", "-D", data, *init)
    settings = f"-p {port} -k {directory} -c listen_addresses=127.0.0.1 -c shared_buffers=256MB"
    run("pg_ctl", "-D", data, "-w", "-l", directory / "log", "-o", settings, "start")
    try:
        server = Server(
            Endpoint("127.0.0.1", port, prefix="/" + DATABASE, secret_file=secret),
            programs,
            secret.read_text(),
        )
        where = ["-h", "127.0.0.1", "-p", str(port), "-U", "bench"]
        environment = {**os.environ, "PGPASSWORD": server.password}
        subprocess.run([programs / "createdb", *where, DATABASE], env=environment, check=True)
        yield server
    finally:
        run("pg_ctl", "-D", data, "-m", "fast", "stop")


_SELECT = ("-S", "-n", "-M", "prepared", "-c", str(CLIENTS), "-j", str(CLIENTS))


@dataclass(slots=True)
class Closing:
    """One side of the closed loop."""

    tps: Line
    cpu_us: Line


def pgbench(server: Server, sizes: Sizes, side: Closing) -> None:
    """The second of two runs, so that it too is warm."""
    server.pgbench(*_SELECT, "-T", str(max(1, round(sizes.warmup_s))))
    cpu_s = _children_cpu_s()  # our workers are children, too, but only those that have ended count
    text = server.pgbench(*_SELECT, "-T", str(round(sizes.seconds)))
    cpu_s = _children_cpu_s() - cpu_s
    side.tps.values.append(_number(r"tps = ([\d.]+)", text))
    side.cpu_us.values.append(1e6 * cpu_s / _number(r"actually processed: (\d+)", text))


def bare(server: Server, sizes: Sizes, side: Closing) -> None:
    rows = sizes.scale * ROWS_PER_SCALE
    found = bare_loops(server.endpoint, server.password, DATABASE, rows, CLIENTS, sizes.seconds)
    side.tps.values.append(found.tps)
    side.cpu_us.values.append(found.cpu_us)


def pgbench_lag_ms(server: Server, sizes: Sizes, rate_per_s: float) -> float:
    """The p99; pgbench prints only the mean, so that its log has to tell."""
    with tempfile.TemporaryDirectory() as folder:
        where = ("-l", f"--log-prefix={folder}/log", "-R", str(round(rate_per_s)))
        server.pgbench(*_SELECT, "-T", str(round(sizes.seconds)), *where)
        log = read_logs(Path(folder), "log", has_lag=True, has_retries=False)
    return float(np.quantile(log.lag_ns, 0.99)) / 1e6


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found, text
    return float(found[1])


def closed(fleet: Fleet, server: Server, sizes: Sizes, side: Closing) -> None:
    samples, cpu_us = ours(fleet, server, sizes, Closed(CLIENTS))
    side.tps.values.append(len(samples) / sizes.seconds)
    side.cpu_us.values.append(cpu_us)


def ours(fleet: Fleet, server: Server, sizes: Sizes, arrivals: AnyArrivals) -> tuple[Samples, float]:
    """The operations sent in the measured time, and the workers' CPU time for one, in microseconds."""
    stream = StreamPlan(
        "point",
        "aifbench.workloads.sql_points:PointRead",
        {"rows": sizes.scale * ROWS_PER_SCALE, "connections": CONNECTIONS},
        to_json(arrivals),
        workers=CLIENTS,
        via="sql",
    )
    plan = PhasePlan("p", (stream,), server.endpoint, warmup_s=sizes.warmup_s, measure_s=sizes.seconds)
    outcome = fleet.run(plan, Silent(), watch=str)
    samples = outcome.samples(stream)
    reports = outcome.reports(stream)
    assert samples.ok.all(), (outcome.problem, [(report.failure, report.errors) for report in reports])
    cpu_us = 1e6 * sum(report.cpu_s for report in reports) / len(samples)
    return samples.select(samples.intended_ns >= sizes.warmup_s * 1e9), cpu_us


def main(argv: Sequence[str]) -> int:
    parser = options(str(__doc__))
    parser.add_argument("--quick", action="store_true", help="small and short: whether it works")
    parser.add_argument("--seconds", type=int, default=4, help="of each run (%(default)s)")
    arguments = parser.parse_args(argv)
    sizes = Sizes(1, 1.0, 0.5) if arguments.quick else Sizes(10, float(arguments.seconds), 1.0)
    theirs = Closing(Line("pgbench -S -M prepared, 4 clients", "tps"), Line("  its CPU for one", "us"))
    mine = Closing(Line("our engine, 4 worker processes", "tps"), Line("  its CPU for one", "us"))
    least = Closing(Line("bare loop over psycopg, 4 processes", "tps"), Line("  its CPU for one", "us"))
    lag = Line("open loop: lag p99 at 70 % of capacity", "ms", at_most=2.0)
    lag_p50 = Line("  lag p50", "ms")
    their_lag = Line("  pgbench's lag p99 at the same rate", "ms")
    bare_lag = Line("  bare loop: sleep until due, p99", "ms")
    response = Line("  response time p99 from schedule", "ms")
    with (
        tempfile.TemporaryDirectory() as name,
        postgres(Path(name)) as server,
        tempfile.TemporaryDirectory() as work,
        Fleet(Path(work), LocalLauncher(), workers=CLIENTS) as fleet,
    ):
        server.pgbench("-i", "-q", "-s", str(sizes.scale))
        for number in range(arguments.repeats):
            sides = [
                partial(pgbench, server, sizes, theirs),
                partial(bare, server, sizes, least),
                partial(closed, fleet, server, sizes, mine),
            ]
            for measure in sides if number % 2 == 0 else reversed(sides):
                measure()
            rate_per_s = LOAD_SHARE * mine.tps.values[-1]
            bare_lag.values.append(bare_lag_ms(Poisson(rate_per_s / CLIENTS)))
            opened, _ = ours(fleet, server, sizes, Poisson(rate_per_s))
            lag.values.append(float(np.quantile(opened.lag_ns, 0.99)) / 1e6)
            lag_p50.values.append(float(np.quantile(opened.lag_ns, 0.5)) / 1e6)
            spans_ns = opened.finished_ns - opened.intended_ns
            response.values.append(float(np.quantile(spans_ns, 0.99)) / 1e6)
            their_lag.values.append(pgbench_lag_ms(server, sizes, rate_per_s))
    ratio = Line("  ratio ours / pgbench", "", ratios(mine.tps, theirs.tps), at_least=0.9)
    cpu_ratio = Line("  ratio of the CPU for one", "", ratios(mine.cpu_us, theirs.cpu_us))
    floor = Line("  ratio bare loop / pgbench", "", ratios(least.tps, theirs.tps))
    of_floor = Line("  ratio ours / bare loop", "", ratios(mine.tps, least.tps))
    figures = [line for side in (theirs, least, mine) for line in (side.tps, side.cpu_us)]
    lines = [*figures, ratio, cpu_ratio, floor, of_floor, lag, lag_p50, their_lag, bare_lag, response]
    return show("PostgreSQL point select", lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
