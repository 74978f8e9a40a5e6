"""PostgreSQL's control plane: what a server is, one run's data base. Never on a measured path."""

import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import NotReady, ServiceError

if TYPE_CHECKING:
    import psycopg

USER = "bench"  # the superuser that start_postgres.sh makes
MAINTENANCE_DATABASE = "postgres"
DIRECT_PORT = "postgres"  # the name of its own port, where a pooler has the endpoint's

# Settings that decide what a result means, kept with every run.
RECORDED_SETTINGS = (
    "server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_level", "wal_compression",
    "data_checksums", "shared_buffers", "huge_pages", "effective_cache_size", "work_mem",
    "maintenance_work_mem", "max_connections", "max_wal_size", "checkpoint_timeout",
    "checkpoint_completion_target", "autovacuum", "random_page_cost", "effective_io_concurrency", "io_method",
    "io_workers", "max_parallel_workers", "max_parallel_workers_per_gather", "jit", "password_encryption",
    "default_transaction_isolation", "shared_preload_libraries", "ssl", "track_io_timing",
)  # fmt: skip

# What a connection's refusal says, and what that means.
_REFUSALS = (
    (r"(password|SASL) authentication failed|no password supplied", ServiceError, "refuses the password", ""),
    (
        r"too many clients|remaining connection slots|too many connections|no more connections allowed",
        ServiceError,
        "has no connection left",
        "use fewer clients, or `start postgres --set max_connections=1000`",
    ),
    (r"is starting up|not yet accepting connections|recovery", NotReady, "is starting up", ""),
    (r"is shutting down", NotReady, "is shutting down", ""),
    (r"server login has been failing|server conn crashed", NotReady, "cannot be reached by its pooler", ""),
    (r"Connection refused|could not connect", NotReady, "does not listen", ""),
    (r"closed the connection", NotReady, "ends each connection", ""),
    (r"timeout expired|timed out", NotReady, "does not answer", ""),
)
_SHUTTING_DOWN = "57P"  # the codes of a server that ends, or ends a connection
_DATABASE = re.compile(r"[a-z_][a-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes. `memory` is what the server's node or job may use; None when the server does not tell."""

    database: int
    shared_buffers: int
    memory: int | None


def direct(endpoint: Endpoint) -> Endpoint:
    """PostgreSQL itself, past the pooler if there is one."""
    return replace(endpoint, port=endpoint.ports.get(DIRECT_PORT, endpoint.port))


class PostgresControl:
    """One connection to one data base, each statement a transaction. Raises NotReady or ServiceError."""

    def __init__(
        self, endpoint: Endpoint, *, database: str = MAINTENANCE_DATABASE, timeout_s: float = 10.0
    ) -> None:
        self._where = f"PostgreSQL at {endpoint.authority}"
        self._connection = _connect(endpoint, database, timeout_s, self._where)

    def close(self) -> None:
        self._connection.close()

    def ready(self) -> None:
        """Return if it answers a query."""
        if self.rows("SELECT 1") != [(1,)]:
            raise ServiceError(f"{self._where} cannot count to one")

    def version(self) -> str:
        """Such as 18.4, without what a distribution adds to it."""
        return str(self.value("SHOW server_version")).partition(" ")[0]

    def settings(self, names: Sequence[str] = RECORDED_SETTINGS) -> dict[str, str]:
        """Those named and those that the server was started with, in PostgreSQL's own words and units.

        A setting that this version does not have is left out.
        """
        query = (
            "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY(%s) "
            "OR (source = 'command line' AND name !~ '^(listen_addresses|port|unix_socket_directories)$') "
            "ORDER BY name"
        )
        return {str(name): str(value) for name, value in self.rows(query, [list(names)])}

    def sizes(self) -> Sizes:
        """Of the data base this is connected to."""
        row = self.rows(
            "SELECT pg_database_size(current_database()), pg_size_bytes(current_setting('shared_buffers'))"
        )
        return Sizes(int(row[0][0]), int(row[0][1]), self.memory_bytes())

    def memory_bytes(self) -> int | None:
        """What the server may use: its node's memory, or its job's share. Only a superuser's to ask."""
        try:
            total = _meminfo_bytes(str(self.value("SELECT pg_read_file('/proc/meminfo')")))
            group = _own_group(str(self.value("SELECT pg_read_file('/proc/self/cgroup')")))
        except ServiceError:
            return None
        limits = [limit for path in group if (limit := self._memory_limit(path)) is not None]
        return min([*limits, *([total] if total else [])], default=None)

    def _memory_limit(self, path: str) -> int | None:
        try:
            text = self.value("SELECT pg_read_file(%s, 0, 100, true)", [f"/sys/fs/cgroup{path}/memory.max"])
        except ServiceError:
            return None
        return int(text) if text and text.strip().isdigit() else None

    def has_extension(self, name: str) -> bool:
        """Whether the server could make it."""
        return bool(self.rows("SELECT 1 FROM pg_available_extensions WHERE name = %s", [name]))

    def execute(self, statement: str) -> None:
        with self._errors(statement):
            self._connection.execute(statement.encode())

    def value(self, query: str, parameters: Sequence[Any] | None = None) -> Any:
        rows = self.rows(query, parameters)
        return rows[0][0] if rows else None

    def rows(self, query: str, parameters: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        with self._errors(query):
            return self._connection.execute(query.encode(), parameters).fetchall()

    def records(self, query: str) -> list[dict[str, Any]]:
        """Rows by the names of their columns."""
        with self._errors(query):
            cursor = self._connection.execute(query.encode())
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def _errors(self, statement: str) -> "_Errors":
        return _Errors(self._where, statement)


class PostgresNamespace:
    """The data base of one run; no other is ever changed. Needs a role that may create data bases."""

    def __init__(self, endpoint: Endpoint, run_tag: str, *, timeout_s: float = 10.0) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self.database = f"aifb_{run_tag}".lower().replace("-", "_")
        if not _DATABASE.fullmatch(self.database):
            raise ServiceError(f"{self.database!r} cannot be the name of a data base")

    def create(self, *, extensions: Sequence[str] = ()) -> None:
        """Raises ServiceError if it exists, or if the server lacks an extension."""
        self._maintain(f'CREATE DATABASE "{self.database}"')
        with closing(self.open()) as control:
            for name in extensions:
                if not _DATABASE.fullmatch(name) or not control.has_extension(name):
                    raise ServiceError(f"this PostgreSQL has no extension {name}")
                control.execute(f'CREATE EXTENSION "{name}"')

    def open(self) -> PostgresControl:
        return PostgresControl(self._endpoint, database=self.database, timeout_s=self._timeout_s)

    def clear(self) -> None:
        """Drop it with all that is in it, whoever is still connected. Nothing happens when there is none."""
        self._maintain(f'DROP DATABASE IF EXISTS "{self.database}" WITH (FORCE)')

    def _maintain(self, statement: str) -> None:
        with closing(PostgresControl(self._endpoint, timeout_s=self._timeout_s)) as control:
            control.execute(statement)


class _Errors:
    """psycopg's errors as ours, with the server's first line and never its parameters."""

    def __init__(self, where: str, statement: str) -> None:
        self._where = where
        self._statement = statement

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        import psycopg

        if isinstance(error, psycopg.Error):
            verb = " ".join(self._statement.split()[:2])
            message = f"{self._where} answered to {verb}: {_first_line(error)}"
            if error.sqlstate is None or error.sqlstate.startswith(_SHUTTING_DOWN):
                raise NotReady(message) from None
            raise ServiceError(message) from None


def _connect(
    endpoint: Endpoint, database: str, timeout_s: float, where: str
) -> "psycopg.Connection[tuple[Any, ...]]":
    import psycopg

    try:
        return psycopg.connect(
            host=endpoint.host,
            port=endpoint.port,
            user=USER,
            password=endpoint.read_secret(),
            dbname=database,
            # libpq takes whole seconds, and less than two for two.
            connect_timeout=max(2, round(timeout_s)),
            application_name="aifbench",
            # Not what the user's environment says for other servers.
            options="",
            gssencmode="disable",
            autocommit=True,
        )
    except psycopg.Error as error:
        raise _refusal(where, str(error)) from None


def _refusal(where: str, text: str) -> ServiceError:
    for pattern, kind, what, hint in _REFUSALS:
        if re.search(pattern, text, re.IGNORECASE):
            return kind(f"{where} {what}", hint=hint)
    return ServiceError(f"cannot use {where}: {' '.join(text.split())[:300]}")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _meminfo_bytes(text: str) -> int | None:
    found = re.search(r"(?m)^MemTotal: +(\d+) kB", text)
    return int(found[1]) * 1024 if found else None


def _own_group(text: str) -> list[str]:
    """The path of a process's control group (version 2) and of those above it, the root left out."""
    found = re.search(r"(?m)^0::(/\S*)", text)
    parts = found[1].strip("/").split("/") if found else []
    return ["/" + "/".join(parts[:end]) for end in range(len(parts), 0, -1) if parts[0]]
