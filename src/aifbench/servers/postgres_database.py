"""The database of one run: where all its tables are, and what the server counts about it."""

import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import asdict, replace
from typing import Any

from psycopg import sql

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import BenchError, UsageError
from aifbench.servers.postgres_log import Pooler
from aifbench.workloads import postgres_stats
from aifbench.workloads.pgbouncer import PgBouncer
from aifbench.workloads.postgres_control import (
    MAINTENANCE_DATABASE,
    USER,
    PostgresNamespace,
    Sizes,
    direct,
)
from aifbench.workloads.postgres_stats import Snapshot
from aifbench.workloads.sql_control import SqlControl, SqlNamespace

_LEAVE_S = 3.0
_CLEAN_UP_TIMEOUT_S = 5.0
_HAND_IN_S = 1.1
_FLUSHES_ON_REQUEST = 150000
_OWN_CONNECTIONS = 1


class RunDatabase:
    """A database of its own, so that runs do not meet, and one statement removes all that a run has made.

    pgbench's tables are in its schema `public`, those of our own engine in `tables.schema`. With a pooler the
    load goes through it, to `endpoint`, and everything else past it, to `direct_endpoint`.
    """

    def __init__(self, endpoint: Endpoint, run_tag: str, pooler: Pooler | None = None) -> None:
        self._server = direct(endpoint)
        self._run_tag = run_tag
        self._namespace = PostgresNamespace(self._server, run_tag)
        self.pooler = pooler
        self.name = self._namespace.database
        self.endpoint = replace(endpoint, prefix=f"/{self.name}")
        self.direct_endpoint = replace(self._server, prefix=f"/{self.name}")
        self.control: SqlControl
        self.tables: SqlNamespace
        self.settings: dict[str, str] = {}
        self._version = 0

    @property
    def belonging(self) -> str:
        return f"the database {self.name} at {self._server.authority}"

    @property
    def remedy(self) -> str:
        host, port = self._server.host, self._server.port
        statement = f"DROP DATABASE {self.name}"
        return f'`psql -h {host} -p {port} -U {USER} -d {MAINTENANCE_DATABASE} -c "{statement}"` removes it'

    def create(self) -> None:
        """Raises ServiceError."""
        self._namespace.create()
        with closing(self._namespace.open()) as control:
            self.settings = control.settings()
        self.control = SqlControl(self.direct_endpoint)
        self._version = self.control.version()
        self.tables = SqlNamespace(self.control, self._run_tag)
        self.tables.create()

    def close(self) -> str:
        """Remove it; why it is left behind, or nothing."""
        with suppress(BenchError, AttributeError):
            self.control.close()
        try:
            PostgresNamespace(self._server, self._run_tag, timeout_s=_CLEAN_UP_TIMEOUT_S).clear()
        except BenchError as error:
            return f"the database {self.name} is left behind: {error}"
        return ""

    def sizes(self) -> Sizes:
        with closing(self._namespace.open()) as control:
            return control.sizes()

    def facts(self) -> dict[str, Any]:
        return {"database": self.name, "settings": self.settings, "sizes_bytes": asdict(self.sizes())}

    def set_default(self, settings: Mapping[str, str]) -> None:
        """For each session that begins from now on: a pooler may give to others what a client has set."""
        for name, value in settings.items():
            statement = sql.SQL("ALTER DATABASE {} SET {} = {}")
            names = sql.Identifier(self.name), sql.Identifier(*name.split("."))
            self.control.execute(statement.format(*names, sql.Literal(value)))

    def require_connections(self, clients: int, *, are_kept: bool) -> None:
        """Raises UsageError when the server or its pooler cannot take so many clients.

        `are_kept`: each keeps its connection for as long as it runs.
        """
        pooler = self.pooler
        if pooler:
            if are_kept and pooler.mode == "session" and clients > pooler.connections:
                raise UsageError(
                    f"{clients:,} clients are more than the {pooler.connections:,} connections of the pool,"
                    " and each would keep one",
                    hint=f"use fewer, or `start postgres --pooler session --pool-size {clients}`",
                )
            if clients > pooler.clients:
                raise UsageError(
                    f"{clients:,} clients are more than the {pooler.clients:,} that the pooler takes",
                    hint="use fewer: the limit on open files, `ulimit -Hn`, where it runs decides",
                )
            return
        most = int(self.settings.get("max_connections", 0)) - _OWN_CONNECTIONS
        if clients > most >= 0:
            raise UsageError(
                f"{clients:,} clients are more than the {most:,} connections that the server has left",
                hint=f"use fewer, or `start postgres --set max_connections={clients + 100}`",
            )

    def settle(self) -> None:
        """Let the work of preparing be over before a load begins."""
        self.control.execute("VACUUM ANALYZE")
        self.control.execute("CHECKPOINT")

    def history(self) -> int:
        """pgbench's transactions that write leave one row each."""
        return int(self.control.value("SELECT count(*) FROM public.pgbench_history"))

    def snapshot(self) -> Snapshot | None:
        """The server's counters, once the load's connections are gone; None when it does not answer."""
        try:
            pooled = self._release_pool() if self.pooler else {}
            self._await_leave()
            self._hand_in()
            found = postgres_stats.take(self._fetch, self._version)
            return replace(found, counters={**found.counters, **pooled})
        except BenchError:
            return None

    def _release_pool(self) -> dict[str, float]:
        """Have the pooler close its connections, as clients do when they leave it; what it has counted."""
        with closing(PgBouncer(self.endpoint)) as pooler:
            pooler.release(self.name)
            return {f"pooler.{name}": value for name, value in pooler.totals(self.name).items()}

    def _fetch(self, query: str) -> Any:
        return self.control.fetch(query)

    def _hand_in(self) -> None:
        """Have the server count what this connection itself did, which is at most once a second otherwise."""
        if self._version >= _FLUSHES_ON_REQUEST:
            self.control.execute("SELECT pg_stat_force_next_flush()")
        else:
            time.sleep(_HAND_IN_S)
            self.control.execute("SELECT 1")

    def _await_leave(self) -> None:
        """A server process hands in its counts when its client leaves."""
        deadline_s = time.monotonic() + _LEAVE_S
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        while self.control.value(query) and time.monotonic() < deadline_s:
            time.sleep(0.05)
