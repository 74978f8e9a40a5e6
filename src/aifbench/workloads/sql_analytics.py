"""Analytical queries over the metadata tables: large scans, joins, sorts and aggregates, in turn."""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING

from psycopg import sql

from aifbench.load.workload import Outcome, OutcomeKind
from aifbench.workloads.sql_connection import Statement
from aifbench.workloads.sql_single import SingleStatement

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

QUERIES: Mapping[str, str] = {
    "states": (
        "SELECT state, count(*), avg(extract(epoch FROM finished - started))"
        " FROM {runs} GROUP BY state ORDER BY 2 DESC"
    ),
    "busiest_users": (
        "SELECT r.user_id, count(DISTINCT r.id) AS runs, count(*) AS points FROM {runs} r"
        " JOIN {metrics} m ON m.run_id = r.id GROUP BY r.user_id ORDER BY points DESC LIMIT 10"
    ),
    "best_runs": (
        "SELECT job_id, id, value FROM (SELECT r.job_id, r.id, m.value, row_number() OVER"
        " (PARTITION BY r.job_id ORDER BY m.value) AS place FROM {runs} r JOIN {metrics} m"
        " ON m.run_id = r.id WHERE m.name = 'loss') AS ranked WHERE place = 1 ORDER BY value LIMIT 100"
    ),
    "storage": (
        "SELECT j.user_id, date_trunc('month', j.submitted) AS month, sum(a.size_bytes) FROM {jobs} j"
        " JOIN {runs} r ON r.job_id = j.id JOIN {artifacts} a ON a.run_id = r.id"
        " GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 50"
    ),
    "loss_curve": (
        "SELECT step, percentile_cont(ARRAY[0.05, 0.5, 0.95]) WITHIN GROUP (ORDER BY value)"
        " FROM {metrics} WHERE name = 'loss' GROUP BY step ORDER BY step LIMIT 100"
    ),
}
_TABLES = ("jobs", "runs", "metrics", "artifacts")


class Analyse(SingleStatement):
    """Query number `index` modulo their number; items are the rows of the answer."""

    def __init__(self, schema: str, *, connections: int = 1, timeout_s: float = 300.0) -> None:
        super().__init__(connections, timeout_s)
        self._schema = schema
        self._names = [name.encode() for name in QUERIES]
        self._done = [count() for _ in QUERIES]

    def statements(self) -> Sequence[Statement]:
        tables = {name: sql.Identifier(self._schema, name) for name in _TABLES}
        return [Statement(name.encode(), sql.SQL(text).format(**tables)) for name, text in QUERIES.items()]

    def ask(self, index: int) -> tuple[bytes, list[bytes], None]:
        return self._names[index % len(self._names)], [], None

    def read(self, index: int, result: "PGresult") -> Outcome:
        number = index % len(self._names)
        if not result.ntuples:
            return Outcome(OutcomeKind.WRONG, 0, error=f"{self._names[number].decode()} gave no rows")
        next(self._done[number])
        return Outcome(items=result.ntuples)

    def notes(self) -> dict[str, float]:
        """How many queries of each kind succeeded."""
        return {name: float(next(done)) for name, done in zip(QUERIES, self._done, strict=True)}
