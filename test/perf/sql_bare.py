"""The least that Python costs a SQL load: the point select in a bare loop over psycopg, a process per client.

It draws a key, calls `exec_prepared` and counts: no clock but the one that ends it, no record, no outcome.
"""

import gc
import multiprocessing
import random
import time
from dataclasses import dataclass

import psycopg

from aifbench.cluster.endpoint import Endpoint

_LEAD_S = 1.0  # for the processes to start and to connect
_QUERY = b"SELECT abalance FROM pgbench_accounts WHERE aid = $1"


@dataclass(frozen=True, slots=True)
class Bare:
    tps: float
    cpu_us: float  # of the clients, for one


def bare_loops(
    endpoint: Endpoint, password: str, database: str, rows: int, clients: int, seconds: float
) -> Bare:
    """Each process is new, as a worker is, so that they share no memory that they have written."""
    url = f"host={endpoint.host} port={endpoint.port} user=bench dbname={database} password={password}"
    begin_s = time.monotonic() + _LEAD_S
    with multiprocessing.get_context("spawn").Pool(clients) as pool:
        done = pool.starmap(_loop, [(url, rows, begin_s, seconds)] * clients, chunksize=1)
    count = sum(number for number, _ in done)
    return Bare(count / seconds, 1e6 * sum(cpu_s for _, cpu_s in done) / count)


def _loop(url: str, rows: int, begin_s: float, seconds: float) -> tuple[int, float]:
    """How many it did, and the CPU seconds that took."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.pgconn.prepare(b"point", _QUERY)
        execute, draw, now_s = connection.pgconn.exec_prepared, random.Random().randrange, time.monotonic
        gc.collect()
        gc.freeze()
        gc.disable()
        if (late_s := now_s() - begin_s) > 0:
            begin_s += late_s
        time.sleep(max(0.0, begin_s - now_s()))
        end_s, cpu_s, count = begin_s + seconds, time.process_time(), 0
        while now_s() < end_s:
            result = execute(b"point", [draw(1, rows).to_bytes(4, "big")], [1], 1)
            assert result.ntuples == 1
            count += 1
        return count, time.process_time() - cpu_s
