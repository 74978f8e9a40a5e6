"""PgBouncer's console: what it has counted for a data base, and how it lets go of its connections."""

from collections.abc import Mapping
from contextlib import suppress

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import ServiceError
from aifbench.workloads.postgres_control import PostgresControl

CONSOLE = "pgbouncer"  # connecting to a data base of this name opens the console
COUNTERS = ("total_xact_count", "total_wait_time")


class PgBouncer:
    """One connection to the console. Raises NotReady or ServiceError."""

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = 10.0) -> None:
        self._control = PostgresControl(endpoint, database=CONSOLE, timeout_s=timeout_s)

    def close(self) -> None:
        self._control.close()

    def release(self, database: str) -> None:
        """Close its connections to a data base, each once no client has it; new ones follow on demand."""
        with suppress(ServiceError):  # it does not know one that nobody has asked it for yet
            self._control.execute(f'RECONNECT "{database}"')

    def totals(self, database: str) -> Mapping[str, float]:
        """COUNTERS of a data base since its first client; 0 before that. Times are in microseconds."""
        rows = [row for row in self._control.records("SHOW STATS") if row["database"] == database]
        return {name: float(rows[0][name]) if rows else 0.0 for name in COUNTERS}
