"""PostgreSQL's control plane for one run: a schema of its own, its tables, their sizes. Never timed."""

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import NotReady, ServiceError
from aifbench.load.workload import OutcomeKind
from aifbench.workloads.sql_connection import connect, outcome_of

_UNANSWERED = (OutcomeKind.CONNECT, OutcomeKind.BROKEN, OutcomeKind.TIMEOUT, OutcomeKind.THROTTLED)

Query = LiteralString | sql.SQL | sql.Composed


class SqlControl:
    """One connection for statements outside the load. Every method raises NotReady or ServiceError.

    They may take as long as they do: an index over millions of vectors needs hours. `timeout_s` is for
    connecting, and for noticing that the server's node has vanished.
    """

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = 60.0) -> None:
        self._authority = endpoint.authority
        try:
            self._connection = connect(endpoint, timeout_s=timeout_s, settings={"statement_timeout": "0"})
        except psycopg.Error as error:
            raise self._explained(error) from None

    def execute(self, query: Query, values: Sequence[object] | None = None) -> None:
        """Run a statement with %s for its values."""
        self.fetch(query, values)

    def fetch(self, query: Query, values: Sequence[object] | None = None) -> list[Mapping[str, Any]]:
        """All rows of a statement, by column name; none for one without a result."""
        composed = query if not isinstance(query, str) else sql.SQL(query)
        try:
            with self._connection.cursor(row_factory=dict_row) as cursor:
                cursor.execute(composed, values, prepare=False)
                return list(cursor.fetchall()) if cursor.description else []
        except psycopg.Error as error:
            raise self._explained(error) from None

    def value(self, query: Query, values: Sequence[object] | None = None) -> Any:
        """The first column of the first row; None without one."""
        rows = self.fetch(query, values)
        return next(iter(rows[0].values())) if rows else None

    def version(self) -> int:
        """Such as 150013 for 15.13 (server_version_num)."""
        return int(self.value("SHOW server_version_num"))

    def close(self) -> None:
        self._connection.close()

    def _explained(self, error: psycopg.Error) -> ServiceError:
        outcome = outcome_of(error, is_lost=hasattr(self, "_connection") and self._connection.closed)
        what = f"PostgreSQL at {self._authority}: {outcome.error}"
        if outcome.kind in _UNANSWERED:
            return NotReady(what, hint="`check postgres` shows its state")
        return ServiceError(what)


class SqlNamespace:
    """The schema `aifb_<run>`, which holds all tables of one run; nothing outside it is ever changed."""

    def __init__(self, control: SqlControl, run_id: str) -> None:
        self.control = control
        self.schema = f"aifb_{run_id}"

    def create(self) -> None:
        """Raises ServiceError when it is there already."""
        self.control.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self.schema)))

    def drop(self) -> None:
        """Remove the schema and all in it, if it is there."""
        self.control.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(self.schema)))

    def table(self, name: str) -> sql.Identifier:
        return sql.Identifier(self.schema, name)

    def execute(self, query: LiteralString, values: Sequence[object] | None = None, **tables: str) -> None:
        """Run `query`, in which {name} stands for the table of that name: `execute("... {t}", t="runs")`."""
        names = {key: self.table(table) for key, table in tables.items()}
        self.control.execute(sql.SQL(query).format(**names), values)

    def tables(self) -> list[str]:
        rows = self.control.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1", [self.schema]
        )
        return [row["tablename"] for row in rows]

    def count(self, name: str) -> int:
        return int(self.control.value(sql.SQL("SELECT count(*) FROM {}").format(self.table(name))))

    def size_bytes(self) -> int:
        """All tables with their indexes."""
        size = self.control.value(
            "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n"
            " ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relkind = 'r'",
            [self.schema],
        )
        return int(size or 0)

    def settle(self) -> None:
        """Statistics, visibility map and a checkpoint, so that their work does not fall into the load."""
        for name in self.tables():
            self.execute("VACUUM ANALYZE {t}", t=name)
        if self.control.value("SELECT pg_has_role(current_user, 'pg_checkpoint', 'MEMBER')"):
            self.control.execute("CHECKPOINT")
