"""PostgreSQL connections as load clients want them, and what PostgreSQL's errors mean.

Measured operations run server-side prepared statements through psycopg's libpq layer: a cursor's
conversions and row objects cost a multiple of what libpq itself does for a small query.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import ConfigError, UsageError, WorkloadError
from aifbench.load.workload import Outcome, OutcomeKind

try:
    import psycopg
    from psycopg import pq, sql
    from psycopg.errors import error_from_result
except ImportError as error:
    raise ConfigError("PostgreSQL needs psycopg", hint="pip install 'psycopg[binary]'") from error

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

USER = "bench"
DATABASE = "bench"

_ROWS, _DONE = pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK
_BAD = pq.ConnStatus.BAD
BINARY = 1

# By SQLSTATE, or by its class. What is not here, the server blames on itself.
_KINDS = {
    "08": OutcomeKind.BROKEN,
    "0A": OutcomeKind.CLIENT_ERROR,
    "22": OutcomeKind.CLIENT_ERROR,
    "23": OutcomeKind.CLIENT_ERROR,
    "26": OutcomeKind.CLIENT_ERROR,
    "28": OutcomeKind.CLIENT_ERROR,
    "3D": OutcomeKind.CLIENT_ERROR,
    "3F": OutcomeKind.CLIENT_ERROR,
    "42": OutcomeKind.CLIENT_ERROR,
    "54": OutcomeKind.CLIENT_ERROR,
    "53300": OutcomeKind.THROTTLED,
    "55P03": OutcomeKind.TIMEOUT,
    "57014": OutcomeKind.TIMEOUT,
    "57P01": OutcomeKind.BROKEN,
    "57P02": OutcomeKind.BROKEN,
    "57P03": OutcomeKind.CONNECT,
}
# Fixed words where the server's name a file or a row, or differ from case to case.
_NAMES = {
    "28P01": "wrong password",
    "40001": "serialization failure",
    "40P01": "deadlock",
    "53100": "disk full",
    "53300": "too many connections",
    "55P03": "lock timeout",
    "57014": "statement timeout",
    "57P01": "shut down by an administrator",
    "57P02": "shut down after a crash",
    "57P03": "not accepting connections now",
}
# libpq tells no SQLSTATE when a connection is refused, so the words have to do (untranslated ones).
_REFUSALS = {
    "too many clients already": "53300",
    "too many connections": "53300",
    "no more connections allowed": "53300",  # a pooler's words, as are those of SASL
    "remaining connection slots are reserved": "53300",
    "password authentication failed": "28P01",
    "SASL authentication failed": "28P01",
    "no password supplied": "28P01",
    "no pg_hba.conf entry": "28000",
    "the database system is": "57P03",
}


def connect(
    endpoint: Endpoint,
    *,
    timeout_s: float = 30.0,
    settings: Mapping[str, str] | None = None,
    bare: bool = False,
) -> "psycopg.Connection[tuple[object, ...]]":
    """A connection in autocommit mode; `settings` are set for its session. Raises psycopg.Error.

    The endpoint's prefix, if any, names the database, as the path of a postgresql:// address does.
    No statement takes longer than `timeout_s` (the server ends it, unless `settings` say otherwise), and a
    vanished host is noticed in that time too. A `bare` connection leaves all settings as they are, which
    saves their round trips.
    """
    connection = psycopg.connect(
        host=endpoint.host,
        port=endpoint.port,
        user=USER,
        dbname=endpoint.prefix.strip("/") or DATABASE,
        password=endpoint.read_secret(),
        sslmode="verify-full" if endpoint.ca_file else "prefer",
        sslrootcert=str(endpoint.ca_file) if endpoint.ca_file else None,
        gssencmode="disable",
        application_name="aifbench",
        connect_timeout=max(2, round(timeout_s)),  # libpq's least
        tcp_user_timeout=round(timeout_s * 1e3),
        autocommit=True,
        prepare_threshold=0,
    )
    if bare:
        return connection
    all_settings = {"statement_timeout": f"{round(timeout_s * 1e3)}", **(settings or {})}
    try:
        for name, value in all_settings.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value), prepare=False)
    except psycopg.Error:
        connection.close()
        raise
    return connection


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement with $1, $2 ... for its values, to be prepared under `name`."""

    name: bytes
    text: sql.Composable


class Client:
    """One connection with its prepared statements. Used by one thread at a time."""

    def __init__(
        self, connection: "psycopg.Connection[tuple[object, ...]]", statements: Sequence[Statement]
    ) -> None:
        self.connection = connection
        self.pgconn = connection.pgconn
        for statement in statements:
            self.check(self.pgconn.prepare(statement.name, statement.text.as_bytes(connection)))

    def run(self, name: bytes, values: Sequence[bytes], formats: Sequence[int] | None = None) -> "PGresult":
        """Execute a prepared statement; its rows come back in binary. Raises psycopg.Error.

        `formats` has 1 for each value in binary; None means that all are text.
        """
        result = self.pgconn.exec_prepared(name, values, formats, BINARY)
        if result.status != _ROWS and result.status != _DONE:
            raise error_from_result(result)
        return result

    def check(self, result: "PGresult") -> None:
        """Raise the psycopg.Error that `result` stands for, if it does."""
        if result.status == pq.ExecStatus.FATAL_ERROR:
            raise error_from_result(result)

    def fileno(self) -> int:
        return self.pgconn.socket

    @property
    def is_lost(self) -> bool:
        return self.pgconn.status == _BAD

    def close(self) -> None:
        self.connection.close()


class SqlWorkload:
    """What every SQL workload shares: its connections, and errors as outcomes.

    The `connections` of a worker are opened before the load and never more: where operations find all of
    them busy they wait for one, and that is part of their time. So a load can exhaust a server only if the
    user asks for it. One that was lost is made anew by the next operation that gets it.
    """

    settings: Mapping[str, str] = {}

    def __init__(self, connections: int, timeout_s: float) -> None:
        if connections < 1:
            raise UsageError(f"{connections} connections", hint="give at least one")
        self._connections = connections
        self._timeout_s = timeout_s
        self._free: SimpleQueue[Client | None] = SimpleQueue()  # None: to be connected
        self._endpoint: Endpoint

    def statements(self) -> Sequence[Statement]:
        """What to prepare on each connection."""
        return ()

    def act(self, client: Client, index: int) -> Outcome:
        """Do operation `index`. May raise psycopg.Error."""
        raise NotImplementedError

    def open(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        try:
            for _ in range(self._connections):
                self._free.put(self._new_client())
        except psycopg.Error as error:
            raise WorkloadError(
                f"cannot prepare {self._connections} connections to {endpoint.authority}: "
                f"{outcome_of(error).error}",
                hint=_hint(error),
            ) from None

    def perform(self, index: int) -> Outcome:
        try:
            client = self._free.get(True, self._timeout_s)
        except Empty:
            return Outcome(OutcomeKind.TIMEOUT, 0, error="all connections were busy")
        try:
            if client is None:
                client = self._new_client()
            return self.act(client, index)
        except psycopg.Error as error:
            return outcome_of(error, is_lost=client is not None and client.is_lost)
        finally:
            if client is not None and client.is_lost:
                client.close()
                client = None
            self._free.put(client)

    def close(self) -> None:
        while not self._free.empty():
            client = self._free.get()
            if client is not None:
                client.close()

    def _new_client(self) -> Client:
        connection = connect(self._endpoint, timeout_s=self._timeout_s, settings=self.settings)
        try:
            return Client(connection, self.statements())
        except psycopg.Error:
            connection.close()
            raise


def outcome_of(error: psycopg.Error, *, is_lost: bool = False) -> Outcome:
    """What an error says about the operation that met it; `is_lost` when its connection was lost by it."""
    state = sqlstate_of(error)
    if not state:
        if is_lost:
            return Outcome(OutcomeKind.BROKEN, 0, error="the connection was lost")
        if isinstance(error, psycopg.errors.ConnectionTimeout):
            return Outcome(OutcomeKind.TIMEOUT, 0, error="no connection in time")
        kind = OutcomeKind.CONNECT if isinstance(error, psycopg.OperationalError) else OutcomeKind.HARNESS
        return Outcome(kind, 0, error=_words(error))
    default = OutcomeKind.BROKEN if is_lost else OutcomeKind.SERVER_ERROR
    kind = _KINDS.get(state) or _KINDS.get(state[:2]) or default
    return Outcome(kind, 0, error=f"{_NAMES.get(state) or _words(error)} ({state})")


def sqlstate_of(error: psycopg.Error) -> str:
    """The five characters, guessed from the words where a connection was refused; empty when unknown."""
    if error.sqlstate:
        return error.sqlstate
    text = str(error)
    return next((state for words, state in _REFUSALS.items() if words in text), "")


def _words(error: psycopg.Error) -> str:
    if error.diag.message_primary:
        return error.diag.message_primary
    # libpq: "connection to server at ..., port ... failed: WORDS", once for each address of the name.
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    line = next((line for line in reversed(lines) if " failed: " in line), lines[0])
    return line.rpartition(" failed: ")[2].strip()


def _hint(error: psycopg.Error) -> str:
    return {
        "28P01": "the password file does not belong to this server, or the user bench has another password",
        "53300": "use fewer clients, or raise max_connections",
        "42P01": "the tables are missing: prepare them first",
    }.get(sqlstate_of(error), "")
