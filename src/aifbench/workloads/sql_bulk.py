"""Bulk load: batches of rows of (id, group, value, payload), by COPY or by INSERT.

All of a batch but its ids is made before the load, and the ids are written into it by numpy, so that the
client's part is small in every method. Operation `index` writes ids first + index * batch ...
"""

import select
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from psycopg import pq, sql

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import UsageError
from aifbench.load.workload import Outcome
from aifbench.workloads.sql_connection import Client, SqlWorkload, Statement
from aifbench.workloads.sql_control import SqlNamespace

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

TABLE = "bulk"
METHODS = ("copy-binary", "copy-text", "multi-row", "single-row", "pipeline")
MAX_PAYLOAD_BYTES = 1 << 20
MAX_BATCH_BYTES = 1 << 30
# PostgreSQL's protocol counts the values of a statement in 16 bits.
_MAX_VALUES = 65_535
_COLUMNS = 4
_ID_DIGITS = 19
_GROUPS = 1000

# A COPY file in binary: signature, flags, extension; at the end -1 for the next row's number of columns.
_BINARY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_BINARY_TAIL = b"\xff\xff"
_FORMATS = [1, 1, 1, 1]


class Load(SqlWorkload):
    """One batch of `batch` rows with a payload of `payload_bytes`, by one of METHODS; items are rows.

    A batch is one transaction, except with single-row: there each row is one, in a round trip of its own.
    `bytes_out` are the bytes of the values as they are sent.
    """

    def __init__(
        self,
        schema: str,
        method: str = "copy-binary",
        *,
        batch: int = 1000,
        payload_bytes: int = 100,
        first: int = 0,
        seed: int = 1,
        connections: int = 1,
        timeout_s: float = 30.0,
    ) -> None:
        super().__init__(connections, timeout_s)
        check_load(method, batch, payload_bytes)
        self._table = sql.Identifier(schema, TABLE)
        self._method = method
        self._batch = batch
        self._payload_bytes = payload_bytes
        self._first = first
        self._seed = seed

    def statements(self) -> Sequence[Statement]:
        rows = {"multi-row": self._batch, "single-row": 1, "pipeline": 1}.get(self._method)
        if rows is None:
            return ()
        values = ", ".join(f"(${n + 1}, ${n + 2}, ${n + 3}, ${n + 4})" for n in range(0, 4 * rows, 4))
        # Only numbers were put into the text.
        query = sql.SQL("INSERT INTO {} VALUES ").format(self._table) + sql.SQL(values)
        return [Statement(b"insert", query)]

    def open(self, endpoint: Endpoint) -> None:
        format_ = "BINARY" if self._method == "copy-binary" else "TEXT"
        self._copy = sql.SQL("COPY {} FROM STDIN (FORMAT {})").format(self._table, sql.SQL(format_))
        make = text_rows if self._method == "copy-text" else binary_rows
        self._template = make(self._batch, self._payload_bytes, self._seed)
        if self._method not in ("copy-binary", "copy-text"):
            self._values = [row_values(self._template, number) for number in range(self._batch)]
        super().open(endpoint)

    def act(self, client: Client, index: int) -> Outcome:
        ids = np.arange(self._batch) + (self._first + index * self._batch)
        if self._method == "copy-binary":
            data = _BINARY_HEAD + with_binary_ids(self._template, ids) + _BINARY_TAIL
            return self._copy_in(client, data)
        if self._method == "copy-text":
            return self._copy_in(client, with_text_ids(self._template, ids))
        packed = ids.astype(">i8").tobytes()
        rows = [[packed[8 * n : 8 * n + 8], *values] for n, values in enumerate(self._values)]
        if self._method == "multi-row":
            client.run(b"insert", [value for row in rows for value in row], _FORMATS * self._batch)
        elif self._method == "single-row":
            for row in rows:
                client.run(b"insert", row, _FORMATS)
        else:
            run_pipelined(client, b"insert", rows)
        return self._written(sum(map(len, rows[0])) * self._batch)

    def _copy_in(self, client: Client, data: bytes) -> Outcome:
        with client.connection.cursor() as cursor, cursor.copy(self._copy) as copy:
            copy.write(data)
        return self._written(len(data))

    def _written(self, size_bytes: int) -> Outcome:
        return Outcome(items=self._batch, bytes_out=size_bytes)


def check_load(method: str, batch: int, payload_bytes: int) -> None:
    """Raises UsageError."""
    if method not in METHODS:
        raise UsageError(f"the method {method!r} is not known", hint=f"valid: {', '.join(METHODS)}")
    if not 1 <= payload_bytes <= MAX_PAYLOAD_BYTES:
        raise UsageError(
            f"a payload of {payload_bytes:,} bytes is out of range", hint=f"give 1 to {MAX_PAYLOAD_BYTES:,}"
        )
    most = MAX_BATCH_BYTES // (payload_bytes + 64)
    if method == "multi-row":
        most = min(most, _MAX_VALUES // _COLUMNS)
    if not 1 <= batch <= most:
        raise UsageError(f"a batch of {batch:,} rows is out of range", hint=f"give 1 to {most:,}")


def binary_rows(rows: int, payload_bytes: int, seed: int) -> NDArray[np.void]:
    """Rows as COPY reads them in binary: a count of columns, then each one's length and bytes."""
    dtype = np.dtype(
        [
            ("columns", ">i2"),
            ("id_bytes", ">i4"), ("id", ">i8"),
            ("group_bytes", ">i4"), ("group", ">i4"),
            ("value_bytes", ">i4"), ("value", ">f8"),
            ("payload_bytes", ">i4"), ("payload", f"V{payload_bytes}"),
        ]
    )  # fmt: skip
    group, value, payload = _contents(rows, payload_bytes, seed)
    table = np.zeros(rows, dtype)
    table["columns"], table["id_bytes"], table["group_bytes"], table["value_bytes"] = _COLUMNS, 8, 4, 8
    table["payload_bytes"] = payload_bytes
    table["group"], table["value"], table["payload"] = group, value, payload
    return table


def text_rows(rows: int, payload_bytes: int, seed: int) -> NDArray[np.void]:
    """Lines as COPY reads them in text; all of one length, ids with leading zeros."""
    dtype = np.dtype(
        [
            ("id", f"V{_ID_DIGITS}"), ("tab_1", "S1"),
            ("group", "S3"), ("tab_2", "S1"),
            ("value", "S17"), ("tab_3", "S1"),
            ("payload", f"V{payload_bytes}"), ("end", "S1"),
        ]
    )  # fmt: skip
    group, value, payload = _contents(rows, payload_bytes, seed)
    table = np.zeros(rows, dtype)
    table["tab_1"] = table["tab_2"] = table["tab_3"] = b"\t"
    table["end"] = b"\n"
    table["group"] = [b"%03d" % number for number in group]
    table["value"] = [b"%.15f" % number for number in value]
    table["payload"] = payload
    return table


def _contents(
    rows: int, payload_bytes: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.void]]:
    """Payloads are random letters and digits: 6 bits a byte, so that compression gains little."""
    rng = np.random.default_rng(seed)
    letters = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-_abcdefghijklmnopqrstuvwxyz", np.uint8)
    payload = letters[rng.integers(0, 64, (rows, payload_bytes), np.uint8)]
    return rng.integers(0, _GROUPS, rows), rng.random(rows), payload.view(f"V{payload_bytes}")[:, 0]


def with_binary_ids(template: NDArray[np.void], ids: NDArray[np.int64]) -> bytes:
    table = template.copy()
    table["id"] = ids
    return table.tobytes()


def with_text_ids(template: NDArray[np.void], ids: NDArray[np.int64]) -> bytes:
    powers = 10 ** np.arange(_ID_DIGITS - 1, -1, -1)
    digits = (ids[:, None] // powers % 10 + ord("0")).astype(np.uint8)
    table = template.copy()
    table["id"] = digits.view(f"V{_ID_DIGITS}")[:, 0]
    return table.tobytes()


def row_values(template: NDArray[np.void], number: int) -> list[bytes]:
    """All values but the id of one of `binary_rows`, in binary."""
    row = template[number]
    return [row[name].tobytes() for name in ("group", "value", "payload")]


def run_pipelined(client: Client, name: bytes, rows: Sequence[Sequence[bytes]]) -> None:
    """One prepared statement for each of `rows`, in one transaction, without waiting in between.

    Raises psycopg.Error for the first statement that failed; then none took effect.
    """
    pgconn = client.pgconn
    pgconn.enter_pipeline_mode()
    try:
        for row in rows:
            pgconn.send_query_prepared(name, row, _FORMATS, 1)
        pgconn.pipeline_sync()
        # Answers are read while sending: with both directions full each side would wait for the other.
        while pgconn.flush():
            readable, _, _ = select.select([pgconn.socket], [pgconn.socket], [])
            if readable:
                pgconn.consume_input()
        failed = _drain(client, len(rows))
    finally:
        if not client.is_lost:
            pgconn.exit_pipeline_mode()
    if failed is not None:
        client.check(failed)


def _drain(client: Client, count: int) -> "PGresult | None":
    """Read the answers of `count` statements and of the sync; the first error."""
    failed: PGresult | None = None
    for _ in range(count):
        while (result := client.pgconn.get_result()) is not None:
            if failed is None and result.status == pq.ExecStatus.FATAL_ERROR:
                failed = result
        if client.is_lost:
            return failed
    client.pgconn.get_result()
    return failed


def create_bulk(namespace: SqlNamespace, *, unlogged: bool = False) -> None:
    """The table that Load fills, with a primary key; `unlogged` leaves the write-ahead log out."""
    kind = sql.SQL("UNLOGGED ") if unlogged else sql.SQL("")
    namespace.control.execute(
        sql.SQL(
            "CREATE {}TABLE {} (id bigint PRIMARY KEY, group_id int NOT NULL, value float8 NOT NULL,"
            " payload text NOT NULL)"
        ).format(kind, namespace.table(TABLE))
    )
