"""Job and experiment metadata, as a workflow system or an experiment tracker keeps it.

Jobs have runs, runs have metrics (a value at each step) and artifacts. A weighted mix of small transactions
reads and writes them.
"""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import UsageError
from aifbench.load.workload import Outcome, OutcomeKind
from aifbench.workloads.sql_connection import Statement
from aifbench.workloads.sql_control import SqlNamespace
from aifbench.workloads.sql_keys import draw_keys
from aifbench.workloads.sql_single import SingleStatement

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

STATES = ("PENDING", "RUNNING", "COMPLETED", "FAILED")
RUNS_PER_JOB = 10
RUNS_PER_USER = 100
METRICS_PER_RUN = 20
ARTIFACTS_PER_RUN = 2
METRICS_PER_APPEND = 5
LATEST = 20
ISOLATIONS = ("", "read committed", "repeatable read", "serializable")

# Operations repeat their draws after so many.
_DRAWS = 1 << 20

# Each with its share, its statement and how many rows its answer must have (None: any number).
# Values: $1 the run, $2 its job, $3 its user, $4 a state, $5 the operation's index.
_VALUES = (
    "(SELECT $1::bigint AS run, $2::bigint AS job, $3::int AS usr, $4::text AS state, $5::bigint AS n) AS v"
)
OPERATIONS: Mapping[str, tuple[float, str, int | None]] = {
    "insert_run": (
        15,
        "INSERT INTO {runs} (job_id, user_id, state, parameters)"
        " SELECT job, usr, 'PENDING', jsonb_build_object('seed', n, 'rate', 0.001)"
        f" FROM {_VALUES} RETURNING id",
        1,
    ),
    "append_metrics": (
        40,
        "INSERT INTO {metrics} (run_id, name, step, value)"
        f" SELECT run, 'loss', n * {METRICS_PER_APPEND} + s, 1.0 / (1 + s) FROM {_VALUES},"
        f" generate_series(1, {METRICS_PER_APPEND}) AS s RETURNING step",
        METRICS_PER_APPEND,
    ),
    "finish_run": (
        10,
        f"WITH v AS (SELECT * FROM {_VALUES}), done AS (UPDATE {{runs}} r SET state = v.state,"
        " finished = now() FROM v WHERE r.id = v.run RETURNING r.job_id, r.id), made AS (INSERT INTO"
        " {artifacts} (run_id, path, size_bytes) SELECT id, 'model/' || v.n, 1000000 FROM done, v)"
        " UPDATE {jobs} j SET finished_runs = finished_runs + 1 FROM done"
        " WHERE j.id = done.job_id RETURNING j.id",
        1,
    ),
    "latest_runs": (
        25,
        f"SELECT r.id, r.state, r.started FROM {{runs}} r, {_VALUES} WHERE r.user_id = v.usr"
        f" ORDER BY r.started DESC LIMIT {LATEST}",
        None,
    ),
    "summarise_run": (
        10,
        f"SELECT name, count(*), min(value), avg(value), max(step) FROM {{metrics}} m, {_VALUES}"
        " WHERE m.run_id = v.run GROUP BY name",
        None,
    ),
}
_TABLES = ("jobs", "runs", "metrics", "artifacts")


class Mix(SingleStatement):
    """One operation of OPERATIONS, drawn by `weights` (None: theirs), each one transaction; items are rows.

    `runs` is how many `create_metadata` made. `skew` makes some runs, jobs and users more popular, which
    brings updates of the same rows together.
    """

    def __init__(
        self,
        schema: str,
        runs: int,
        *,
        weights: Mapping[str, float] | None = None,
        skew: float = 0.0,
        isolation: str = "",
        seed: int = 1,
        connections: int = 1,
        timeout_s: float = 30.0,
    ) -> None:
        super().__init__(connections, timeout_s)
        if isolation not in ISOLATIONS:
            raise UsageError(
                f"the isolation level {isolation!r} is not known", hint=f"valid: {', '.join(ISOLATIONS[1:])}"
            )
        if isolation:
            self.settings = {"default_transaction_isolation": isolation}
        self._schema = schema
        self._runs = runs
        self._skew = skew
        self._seed = seed
        self._names = list(OPERATIONS)
        self._shares = shares_of(weights)
        self._expected = [rows for _, _, rows in OPERATIONS.values()]
        self._done = [count() for _ in OPERATIONS]

    def statements(self) -> Sequence[Statement]:
        tables = {name: sql.Identifier(self._schema, name) for name in _TABLES}
        return [
            Statement(name.encode(), sql.SQL(text).format(**tables))
            for share, (name, (_, text, _)) in zip(self._shares, OPERATIONS.items(), strict=True)
            if share
        ]

    def open(self, endpoint: Endpoint) -> None:
        self._kinds = kinds(np.arange(_DRAWS), self._shares, self._seed).tolist()
        runs = draw_keys(self._runs, _DRAWS, self._seed, self._skew) + 1
        self._targets = runs.tolist()
        super().open(endpoint)

    def ask(self, index: int) -> tuple[bytes, list[bytes], None]:
        draw = index % _DRAWS
        run = self._targets[draw]
        values = (run, job_of(run), user_of(run), STATES[2 + draw % 2], index)
        return self._names[self._kinds[draw]].encode(), [str(value).encode() for value in values], None

    def read(self, index: int, result: "PGresult") -> Outcome:
        kind = self._kinds[index % _DRAWS]
        rows, expected = result.ntuples, self._expected[kind]
        if expected is not None and rows != expected:
            error = f"{self._names[kind]} gave {rows} rows instead of {expected}"
            return Outcome(OutcomeKind.WRONG, 0, error=error)
        next(self._done[kind])
        return Outcome(items=rows)

    def notes(self) -> dict[str, float]:
        """How many operations of each kind succeeded."""
        return {name: float(next(done)) for name, done in zip(self._names, self._done, strict=True)}


def shares_of(weights: Mapping[str, float] | None) -> list[float]:
    """The share of each of OPERATIONS, in their order, adding up to 1. Raises UsageError."""
    given = {name: weight for name, (weight, _, _) in OPERATIONS.items()} if weights is None else weights
    unknown = given.keys() - OPERATIONS.keys()
    if unknown:
        raise UsageError(
            f"no operation is called {', '.join(sorted(unknown))}", hint=f"valid: {', '.join(OPERATIONS)}"
        )
    total = sum(given.values())
    if any(weight < 0 for weight in given.values()) or not 0 < total < float("inf"):
        raise UsageError(f"the weights {dict(given)} are no shares", hint="give numbers of 0 or more")
    return [given.get(name, 0.0) / total for name in OPERATIONS]


def kinds(indices: NDArray[np.int64], shares: Sequence[float], seed: int) -> NDArray[np.int64]:
    """The number, in OPERATIONS, of the operation at each of `indices`: to split samples by kind later."""
    draws = np.random.default_rng([seed, len(shares)]).random(_DRAWS)
    edges = np.cumsum(shares)[:-1]
    return np.searchsorted(edges, draws[indices % _DRAWS], side="right")


def job_of(run: int) -> int:
    """The job of one of the prepared runs 1, 2, ..."""
    return (run - 1) // RUNS_PER_JOB + 1


def user_of(run: int) -> int:
    return (run - 1) // RUNS_PER_USER + 1


def create_metadata(namespace: SqlNamespace, runs: int) -> None:
    """All four tables, filled by the server itself for `runs` runs, with their indexes."""
    if runs < 1:
        raise UsageError(f"{runs} runs", hint="give at least one")
    namespace.execute(
        "CREATE TABLE {t} (id bigint PRIMARY KEY, user_id int NOT NULL, name text NOT NULL,"
        " submitted timestamptz NOT NULL DEFAULT now(), finished_runs int NOT NULL DEFAULT 0)",
        t="jobs",
    )
    namespace.execute(
        "CREATE TABLE {t} (id bigint GENERATED BY DEFAULT AS IDENTITY, job_id bigint NOT NULL,"
        " user_id int NOT NULL, state text NOT NULL, started timestamptz NOT NULL DEFAULT now(),"
        " finished timestamptz, parameters jsonb NOT NULL)",
        t="runs",
    )
    namespace.execute(
        "CREATE TABLE {t} (run_id bigint NOT NULL, name text NOT NULL, step bigint NOT NULL,"
        " value float8 NOT NULL, at timestamptz NOT NULL DEFAULT now())",
        t="metrics",
    )
    namespace.execute(
        "CREATE TABLE {t} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, run_id bigint NOT NULL,"
        " path text NOT NULL, size_bytes bigint NOT NULL)",
        t="artifacts",
    )
    _fill(namespace, runs)
    for statement in (
        "ALTER TABLE {runs} ADD PRIMARY KEY (id)",
        "ALTER TABLE {runs} ADD FOREIGN KEY (job_id) REFERENCES {jobs}",
        "CREATE INDEX ON {runs} (user_id, started DESC)",
        "CREATE INDEX ON {runs} (job_id)",
        "CREATE INDEX ON {metrics} (run_id, name, step)",
        "ALTER TABLE {metrics} ADD FOREIGN KEY (run_id) REFERENCES {runs}",
        "CREATE INDEX ON {artifacts} (run_id)",
    ):
        names = {name: namespace.table(name) for name in _TABLES}
        namespace.control.execute(sql.SQL(statement).format(**names))


def _fill(namespace: SqlNamespace, runs: int) -> None:
    namespace.execute(
        "INSERT INTO {t} SELECT n, (n - 1) * %s / %s + 1, 'job ' || n, now() - n * interval '1 minute', 0"
        " FROM generate_series(1, %s) AS n",
        [RUNS_PER_JOB, RUNS_PER_USER, job_of(runs)],
        t="jobs",
    )
    namespace.execute(
        "INSERT INTO {t} SELECT n, (n - 1) / %s + 1, (n - 1) / %s + 1, (%s::text[])[1 + n %% 4],"
        " now() - n * interval '1 minute', CASE WHEN n %% 4 > 1 THEN now() - n * interval '50 seconds' END,"
        " jsonb_build_object('seed', n, 'rate', 0.001 * (n %% 10)) FROM generate_series(1, %s) AS n",
        [RUNS_PER_JOB, RUNS_PER_USER, list(STATES), runs],
        t="runs",
    )
    namespace.execute(
        "INSERT INTO {t} SELECT n, (ARRAY['loss', 'accuracy'])[1 + s %% 2], s, 1.0 / (1 + s),"
        " now() - n * interval '1 minute' FROM generate_series(1, %s) AS n, generate_series(1, %s) AS s",
        [runs, METRICS_PER_RUN],
        t="metrics",
    )
    namespace.execute(
        "INSERT INTO {t} (run_id, path, size_bytes) SELECT n, 'model/' || s, 1000 * n"
        " FROM generate_series(1, %s) AS n, generate_series(1, %s) AS s",
        [runs, ARTIFACTS_PER_RUN],
        t="artifacts",
    )
    namespace.control.execute(
        "SELECT setval(pg_get_serial_sequence(%s, 'id'), %s)",
        [namespace.table("runs").as_string(), runs],
    )
