"""Vector search in PostgreSQL by its extension `vector`: the same data, queries and scoring as for Chroma."""

import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import ServiceError, UsageError, WorkloadError
from aifbench.load.workload import Outcome
from aifbench.workloads.datasets import BUCKETS, Filter
from aifbench.workloads.sql_connection import Client, SqlWorkload, Statement
from aifbench.workloads.sql_control import SqlNamespace
from aifbench.workloads.sql_single import SingleStatement
from aifbench.workloads.vectors import AnswerScorer, open_batches, open_dataset

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

TABLE = "vectors"
# <#> is the negative inner product: the same order as Chroma's 1 - q.v.
OPERATORS = {"l2": "<->", "cosine": "<=>", "ip": "<#>"}
_OPERATOR_CLASSES = {"l2": "vector_l2_ops", "cosine": "vector_cosine_ops", "ip": "vector_ip_ops"}
# Options of the index when it is built, and of a search.
INDEXES = {"none": (), "hnsw": ("m", "ef_construction"), "ivfflat": ("lists",)}
SEARCH_OPTIONS = {
    "none": {},
    "hnsw": {"ef_search": "hnsw.ef_search"},
    "ivfflat": {"probes": "ivfflat.probes"},
}
MAX_INDEXED_DIM = 2000

_COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_TAIL = b"\xff\xff"
_NO_CLUSTER = -1


class Ingest(SqlWorkload):
    """Rows [first, last) of the data set in batches, each one COPY; items are vectors."""

    def __init__(
        self,
        dataset: str,
        schema: str,
        *,
        batch: int = 500,
        first: int = 0,
        last: int | None = None,
        connections: int = 1,
        timeout_s: float = 300.0,
    ) -> None:
        super().__init__(connections, timeout_s)
        self._dataset_path = dataset
        self._batch = batch
        self._first = first
        self._last = last
        self._copy = sql.SQL("COPY {} (id, bucket, cluster, embedding) FROM STDIN (FORMAT BINARY)").format(
            sql.Identifier(schema, TABLE)
        )

    def open(self, endpoint: Endpoint) -> None:
        self._dataset = open_dataset(self._dataset_path)
        self._batches = open_batches(self._dataset, self._first, self._last, self._batch)
        super().open(endpoint)

    def act(self, client: Client, index: int) -> Outcome:
        rows = self._batches.rows(index)
        clusters = self._dataset.clusters
        data = encode_rows(
            rows,
            self._dataset.vectors[rows.start : rows.stop],
            None if clusters is None else clusters[rows.start : rows.stop],
        )
        with client.connection.cursor() as cursor, cursor.copy(self._copy) as copy:
            copy.write(data)
        return Outcome(items=len(rows), bytes_out=len(data))


class Search(SingleStatement):
    """The `k` nearest vectors of query `index` modulo their number; qualities are both recalls.

    `search` holds settings of SEARCH_OPTIONS' names, such as {"hnsw.ef_search": 100}.
    """

    def __init__(
        self,
        dataset: str,
        schema: str,
        *,
        k: int = 10,
        search: Mapping[str, Any] | None = None,
        connections: int = 1,
        timeout_s: float = 30.0,
    ) -> None:
        super().__init__(connections, timeout_s)
        self._dataset_path = dataset
        self._schema = schema
        self._k = k
        self.settings = {name: str(value) for name, value in (search or {}).items()}
        self._unpack = struct.Struct("!q").unpack

    def statements(self) -> Sequence[Statement]:
        return [Statement(b"search", search_query(self._schema, self._metric, self._k, self._filter))]

    def open(self, endpoint: Endpoint) -> None:
        dataset = open_dataset(self._dataset_path)
        self._scorer = AnswerScorer(dataset, self._k)
        self._metric = dataset.metric
        self._filter = dataset.filter
        self._queries = [encode_vector(query) for query in dataset.queries]
        super().open(endpoint)

    def ask(self, index: int) -> tuple[bytes, list[bytes], list[int]]:
        return b"search", [self._queries[index % len(self._queries)]], [1]

    def read(self, index: int, result: "PGresult") -> Outcome:
        ids = [self._unpack(result.get_value(row, 0) or b"")[0] for row in range(result.ntuples)]
        return self._scorer.check(index % len(self._queries), ids)


def encode_vector(vector: NDArray[np.float32]) -> bytes:
    """As the type `vector` is sent in binary: its dimension, two bytes unused, its numbers."""
    return struct.pack("!HH", len(vector), 0) + vector.astype(">f4").tobytes()


def encode_rows(rows: range, vectors: NDArray[np.float32], clusters: NDArray[np.uint8] | None) -> bytes:
    """(id, bucket, cluster, embedding) of each row, as COPY reads it in binary."""
    dim = vectors.shape[1]
    dtype = np.dtype(
        [
            ("columns", ">i2"),
            ("id_bytes", ">i4"), ("id", ">i8"),
            ("bucket_bytes", ">i4"), ("bucket", ">i2"),
            ("cluster_bytes", ">i4"), ("cluster", ">i2"),
            ("vector_bytes", ">i4"), ("dim", ">u2"), ("unused", ">u2"), ("vector", ">f4", (dim,)),
        ]
    )  # fmt: skip
    table = np.zeros(len(rows), dtype)
    table["columns"], table["id_bytes"], table["bucket_bytes"], table["cluster_bytes"] = 4, 8, 2, 2
    table["vector_bytes"], table["dim"] = 4 + 4 * dim, dim
    table["id"] = np.arange(rows.start, rows.stop)
    table["bucket"] = table["id"] % BUCKETS
    table["cluster"] = _NO_CLUSTER if clusters is None else clusters
    table["vector"] = vectors
    return _COPY_HEAD + table.tobytes() + _COPY_TAIL


def search_query(schema: str, metric: str, k: int, only: Filter | None) -> sql.Composed:
    """$1 is the query. An index serves only this form: ORDER BY the operator, with a LIMIT."""
    condition: sql.Composable = sql.SQL("")
    if only is not None:
        condition = sql.SQL("WHERE {} < {} ").format(sql.Identifier(only.column), sql.Literal(only.below))
    return sql.SQL("SELECT id FROM {} {}ORDER BY embedding {} $1 LIMIT {}").format(
        sql.Identifier(schema, TABLE),
        condition,
        sql.SQL(OPERATORS[metric]),
        sql.Literal(k),
    )


def require_extension(namespace: SqlNamespace) -> str:
    """Make sure that the database has the extension; its version. Raises WorkloadError."""
    control = namespace.control
    if not control.value("SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'"):
        raise WorkloadError(
            "this PostgreSQL has no extension `vector`", hint="use an image or a wheel with pgvector"
        )
    try:
        control.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except ServiceError as error:
        raise WorkloadError(
            "the extension `vector` is there and may not be created", hint="ask the database's owner"
        ) from error
    return str(control.value("SELECT extversion FROM pg_extension WHERE extname = 'vector'"))


def create_vectors(namespace: SqlNamespace, dim: int) -> None:
    namespace.execute(
        "CREATE TABLE {t} (id bigint PRIMARY KEY, bucket smallint NOT NULL, cluster smallint NOT NULL,"
        " embedding vector(%s) NOT NULL)".replace("%s", str(int(dim))),
        t=TABLE,
    )


def create_index(
    namespace: SqlNamespace, kind: str, metric: str, dim: int, options: Mapping[str, int]
) -> None:
    """Build one of INDEXES, after the ingest: before it, it slows the ingest, and IVFFlat learns nothing."""
    if kind not in INDEXES:
        raise UsageError(f"the index {kind!r} is not known", hint=f"valid: {', '.join(INDEXES)}")
    unknown = options.keys() - set(INDEXES[kind])
    if unknown:
        known = ", ".join(INDEXES[kind]) or "none"
        raise UsageError(f"an index {kind} has no {', '.join(sorted(unknown))}", hint=f"valid: {known}")
    if kind == "none":
        return
    if dim > MAX_INDEXED_DIM:
        raise UsageError(f"{dim} dimensions cannot be indexed", hint=f"at most {MAX_INDEXED_DIM}")
    settings = sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(int(value)))
        for name, value in options.items()
    )
    namespace.control.execute(
        sql.SQL("CREATE INDEX ON {} USING {} (embedding {}){}").format(
            namespace.table(TABLE),
            sql.SQL(kind),
            sql.SQL(_OPERATOR_CLASSES[metric]),
            sql.SQL(" WITH ({})").format(settings) if options else sql.SQL(""),
        )
    )


def search_settings(kind: str, options: Mapping[str, Any]) -> dict[str, str]:
    """The server's settings for `Search`, from SEARCH_OPTIONS' short names. Raises UsageError."""
    known = SEARCH_OPTIONS.get(kind, {})
    unknown = options.keys() - known.keys()
    if unknown:
        raise UsageError(
            f"a search by index {kind} has no {', '.join(sorted(unknown))}",
            hint=f"valid: {', '.join(known) or 'none'}",
        )
    return {known[name]: str(value) for name, value in options.items()}
