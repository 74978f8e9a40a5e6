"""Reads by primary key, of one row or a range, from `pgbench_accounts`: pgbench's own or one filled here."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from psycopg import sql

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import UsageError
from aifbench.load.workload import Outcome, OutcomeKind
from aifbench.workloads.sql_connection import Statement
from aifbench.workloads.sql_control import SqlNamespace
from aifbench.workloads.sql_keys import DRAWS, draw_keys
from aifbench.workloads.sql_single import SingleStatement

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

TABLE = "pgbench_accounts"
MAX_ROWS = 2**31 - 1  # of an int4 key
ROWS_PER_BRANCH = 100_000

_INT4_BYTES = 4
_BINARY_1 = [1]
_BINARY_2 = [1, 1]
_FOUND = Outcome(bytes_out=_INT4_BYTES, bytes_in=_INT4_BYTES)


class PointRead(SingleStatement):
    """pgbench's select-only statement, `SELECT abalance ... WHERE aid = $1`, for keys of 1 .. `rows`."""

    def __init__(
        self,
        rows: int,
        *,
        schema: str = "public",
        skew: float = 0.0,
        seed: int = 1,
        connections: int = 1,
        timeout_s: float = 30.0,
    ) -> None:
        super().__init__(connections, timeout_s)
        self._rows = rows
        self._table = sql.Identifier(schema, TABLE)
        self._skew = skew
        self._seed = seed
        self._keys: bytes = b""

    def statements(self) -> Sequence[Statement]:
        query = sql.SQL("SELECT abalance FROM {} WHERE aid = $1").format(self._table)
        return [Statement(b"point", query)]

    def open(self, endpoint: Endpoint) -> None:
        check_rows(self._rows)
        keys = draw_keys(self._rows, DRAWS, self._seed, self._skew) + 1
        self._keys = keys.astype(">i4").tobytes()
        super().open(endpoint)

    def ask(self, index: int) -> tuple[bytes, list[bytes], list[int]]:
        at = index % DRAWS * _INT4_BYTES
        return b"point", [self._keys[at : at + _INT4_BYTES]], _BINARY_1

    def read(self, index: int, result: "PGresult") -> Outcome:  # noqa: ARG002
        if result.ntuples != 1 or result.get_value(0, 0) is None:
            return Outcome(OutcomeKind.WRONG, 0, error=f"{result.ntuples} rows instead of one")
        return _FOUND


class RangeRead(SingleStatement):
    """The balances of `span` rows of consecutive keys; items are rows."""

    def __init__(
        self,
        rows: int,
        span: int = 100,
        *,
        schema: str = "public",
        seed: int = 1,
        connections: int = 1,
        timeout_s: float = 30.0,
    ) -> None:
        super().__init__(connections, timeout_s)
        self._rows = rows
        self._span = span
        self._table = sql.Identifier(schema, TABLE)
        self._seed = seed
        self._bounds: bytes = b""
        self._complete = Outcome(items=span, bytes_out=2 * _INT4_BYTES, bytes_in=span * 2 * _INT4_BYTES)

    def statements(self) -> Sequence[Statement]:
        query = sql.SQL("SELECT aid, abalance FROM {} WHERE aid BETWEEN $1 AND $2").format(self._table)
        return [Statement(b"range", query)]

    def open(self, endpoint: Endpoint) -> None:
        check_rows(self._rows)
        if not 1 <= self._span <= self._rows:
            raise UsageError(f"a range of {self._span:,} of {self._rows:,} rows", hint="give 1 or more")
        firsts = draw_keys(self._rows - self._span + 1, DRAWS, self._seed) + 1
        pairs = firsts[:, None] + [0, self._span - 1]
        self._bounds = pairs.astype(">i4").tobytes()
        super().open(endpoint)

    def ask(self, index: int) -> tuple[bytes, list[bytes], list[int]]:
        at = index % DRAWS * 2 * _INT4_BYTES
        middle, end = at + _INT4_BYTES, at + 2 * _INT4_BYTES
        return b"range", [self._bounds[at:middle], self._bounds[middle:end]], _BINARY_2

    def read(self, index: int, result: "PGresult") -> Outcome:  # noqa: ARG002
        if result.ntuples != self._span:
            error = f"{result.ntuples} rows instead of {self._span}"
            return Outcome(OutcomeKind.WRONG, 0, error=error)
        return self._complete


def check_rows(rows: int) -> None:
    """Raises UsageError for a number of rows that the table cannot have."""
    if not 1 <= rows <= MAX_ROWS:
        raise UsageError(f"{rows:,} rows are out of range", hint=f"give 1 to {MAX_ROWS:,}")


def create_accounts(namespace: SqlNamespace, rows: int) -> None:
    """The table as `pgbench -i` makes it, in the run's schema, filled by the server itself."""
    check_rows(rows)
    namespace.execute("CREATE TABLE {t} (aid int NOT NULL, bid int, abalance int, filler char(84))", t=TABLE)
    namespace.execute(
        "INSERT INTO {t} SELECT n, (n - 1) / %s + 1, 0, '' FROM generate_series(1, %s) AS n",
        [ROWS_PER_BRANCH, rows],
        t=TABLE,
    )
    namespace.execute("ALTER TABLE {t} ADD PRIMARY KEY (aid)", t=TABLE)
