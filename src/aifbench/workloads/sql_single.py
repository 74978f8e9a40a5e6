"""Operations that are one prepared statement each: for loops without threads, and for a client by itself."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result

from aifbench.load.workload import Outcome
from aifbench.workloads.sql_connection import BINARY, Client, SqlWorkload, outcome_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg.pq.abc import PGresult

_ROWS, _DONE = pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK
_UNDER_WAY = pq.TransactionStatus.ACTIVE


class SingleStatement(SqlWorkload):
    """Says what to ask and what an answer means; whoever drives it sends and waits."""

    is_polled: ClassVar[bool] = True

    def __init__(self, connections: int, timeout_s: float) -> None:
        super().__init__(connections, timeout_s)
        self._alone: OneClient | None = None

    def ask(self, index: int) -> tuple[bytes, Sequence[bytes], Sequence[int] | None]:
        """The statement's name, its values and their formats, as `Client.run` takes them."""
        raise NotImplementedError

    def read(self, index: int, result: "PGresult") -> Outcome:
        """What a result means that is no error."""
        raise NotImplementedError

    def act(self, client: Client, index: int) -> Outcome:
        return self.read(index, client.run(*self.ask(index)))

    @property
    def connections(self) -> int:
        return self._connections

    def alone(self) -> "OneClient":
        """For a load of one client; closed with this."""
        self._alone = self._alone or OneClient(self)
        return self._alone

    def close(self) -> None:
        if self._alone is not None:
            self._alone.close()
        super().close()

    def take(self) -> Client:
        """One of the prepared connections, or a new one. Raises psycopg.Error."""
        client = None if self._free.empty() else self._free.get()
        return client or self._new_client()

    def connect(self) -> Client | Outcome:
        """As `take`; what became of the operation if there is none."""
        try:
            return self.take()
        except psycopg.Error as error:
            return outcome_of(error)

    def begin(self, client: Client, index: int) -> Outcome | None:
        """Send operation `index` without waiting for its answer; an outcome when that failed."""
        try:
            client.pgconn.send_query_prepared(*self.ask(index), BINARY)
        except psycopg.Error as error:
            return outcome_of(error, is_lost=client.is_lost)
        return None

    def advance(self, client: Client, index: int) -> Outcome | None:
        """Called when there is something to read: the outcome, None while the answer is incomplete."""
        pgconn = client.pgconn
        try:
            pgconn.consume_input()
            if index < 0 or pgconn.is_busy():
                return None
            result = pgconn.get_result()
            while pgconn.get_result() is not None:
                pass
            if result is None:
                raise psycopg.OperationalError
            return self.judge(index, result)
        except psycopg.Error as error:
            return outcome_of(error, is_lost=client.is_lost)

    def judge(self, index: int, result: "PGresult") -> Outcome:
        """What a result means. Raises the psycopg.Error that it stands for, if it does."""
        status = result.status
        if status != _ROWS and status != _DONE:
            raise error_from_result(result)
        return self.read(index, result)


class OneClient:
    """Does operations by itself, one after the other, on a connection that it keeps.

    libpq waits for each answer, which costs less than to be told of it: no pool, no event loop. One thread
    at a time.
    """

    def __init__(self, workload: SingleStatement) -> None:
        self._workload = workload
        self._client: Client | None = None
        self.perform = self._performing()

    def _performing(self) -> "Callable[[int], Outcome]":
        """A closure, which finds what it needs sooner than a method: the server has emptied the caches."""
        ask, read, judge = self._workload.ask, self._workload.read, self._workload.judge
        rows = int(_ROWS)
        execute: Callable[..., PGresult] | None = None

        def perform(index: int) -> Outcome:
            nonlocal execute
            try:
                if execute is None:
                    execute = self._connect()
                result = execute(*ask(index), BINARY)
                return read(index, result) if result.status == rows else judge(index, result)
            except psycopg.Error as error:
                is_lost = self._client is not None and self._client.is_lost
                if is_lost:
                    self.close()
                    execute = None
                return outcome_of(error, is_lost=is_lost)

        return perform

    def _connect(self) -> "Callable[..., PGresult]":
        self._client = self._workload.take()
        return self._client.pgconn.exec_prepared

    @property
    def is_busy(self) -> bool:
        return self._client is not None and self._client.pgconn.transaction_status == _UNDER_WAY

    def close(self) -> None:
        """Nothing happens while an operation is under way: its thread, which nobody waits for, needs it."""
        if self._client is not None and not self.is_busy:
            self._client.close()
            self._client = None
