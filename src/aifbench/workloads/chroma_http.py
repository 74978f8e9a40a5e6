"""Chroma by plain HTTP: one operation is one request of prepared bytes, interpreted afterwards.

All workloads are built from JSON parameters: `dataset` is the directory of a prepared data set and
`collection` a collection's name. Queries go as JSON numbers (the server takes nothing else there); stored
vectors go as base64 where the server says it can, which costs client and server less.
"""

import json
from binascii import b2a_base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import WorkloadError
from aifbench.load.http import encode_request
from aifbench.load.workload import Outcome, OutcomeKind
from aifbench.workloads.chroma_control import COLLECTIONS_PATH, ChromaControl, Limits, auth_headers
from aifbench.workloads.datasets import Dataset, Filter
from aifbench.workloads.vectors import AnswerScorer, PreparedRequests, open_batches, open_dataset


def vector_json(vector: NDArray[np.float32]) -> str:
    """A JSON array that reads back as the same float32 values."""
    return "[" + ",".join([f"{value:.9g}" for value in vector.tolist()]) + "]"


def vector_base64(vector: NDArray[np.float32]) -> str:
    """A JSON string of the little-endian float32 bytes, in base64."""
    return f'"{b2a_base64(vector.astype("<f4").tobytes(), newline=False).decode("ascii")}"'


def where_clause(condition: Filter | None) -> dict[str, Any] | None:
    """The data set's filter in Chroma's language."""
    return {condition.column: {"$lt": condition.below}} if condition else None


def query_body(
    vector: NDArray[np.float32],
    k: int,
    where: dict[str, Any] | None,
    include: Sequence[str] = ("distances",),
) -> str:
    condition = f',"where":{json.dumps(where)}' if where else ""
    told = json.dumps(list(include))
    return f'{{"query_embeddings":[{vector_json(vector)}],"n_results":{k},"include":{told}{condition}}}'


def add_body(dataset: Dataset, rows: range, *, base64: bool, attributes: bool) -> str:
    encode = vector_base64 if base64 else vector_json
    embeddings = ",".join([encode(vector) for vector in dataset.vectors[rows.start : rows.stop]])
    ids = ",".join([f'"{row}"' for row in rows])
    metadatas = json.dumps([dataset.attributes(row) for row in rows]) if attributes else "null"
    return f'{{"ids":[{ids}],"embeddings":[{embeddings}],"metadatas":{metadatas}}}'


def check_batch(size: int, limits: Limits) -> None:
    if size > limits.max_batch_size:
        raise WorkloadError(
            f"a batch of {size:,} is more than this Chroma takes",
            hint=f"give at most {limits.max_batch_size:,}",
        )


class _Posts:
    """Builds POST requests to one server."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._host = endpoint.authority
        self._headers = {"Content-Type": "application/json", **auth_headers(endpoint)}

    def encode(self, path: str, body: str) -> bytes:
        return encode_request("POST", path, self._host, self._headers, body.encode("utf-8"))


def find_collection(endpoint: Endpoint, name: str) -> tuple[str, Limits]:
    """The collection's path, and what the server accepts; typed errors when either is not to be had."""
    control = ChromaControl(endpoint)
    try:
        return f"{COLLECTIONS_PATH}/{control.collection(name).id}", control.limits()
    finally:
        control.close()


class Search:
    """Operation i asks for the k nearest neighbours of query i modulo the number of queries.

    The data set's filter applies; it needs what `Ingest` stores with `attributes`. Qualities are
    recall by id and tie-aware recall: see AnswerScorer.
    """

    def __init__(self, dataset: str, collection: str, k: int = 10) -> None:
        self._dataset_path = dataset
        self._collection = collection
        self._k = k

    def open(self, endpoint: Endpoint) -> None:
        dataset = open_dataset(self._dataset_path)
        self._scorer = AnswerScorer(dataset, self._k)
        self._queries = len(dataset.queries)
        posts = _Posts(endpoint)
        path = find_collection(endpoint, self._collection)[0] + "/query"
        where = where_clause(dataset.filter)
        self._requests = PreparedRequests(
            lambda i: posts.encode(path, query_body(dataset.queries[i], self._k, where)), self._queries
        )

    def request(self, index: int) -> bytes:
        return self._requests[index % self._queries]

    def interpret(self, index: int, status: int, body: bytes) -> Outcome:  # noqa: ARG002
        try:
            answers = json.loads(body)["ids"]
            (ids,) = answers
        except (ValueError, KeyError, TypeError):
            return _unexpected(body)
        if not isinstance(ids, list):
            return _unexpected(body)
        return self._scorer.check(index % self._queries, ids)

    def close(self) -> None: ...


class Ingest:
    """Operation i stores batch i of rows [first, last); there are ceil((last - first) / batch) of them.

    `attributes` stores what filters need along with every vector. `base64` None means if the
    server can.
    """

    def __init__(
        self,
        dataset: str,
        collection: str,
        batch: int = 500,
        first: int = 0,
        last: int | None = None,
        attributes: bool = False,
        base64: bool | None = None,
    ) -> None:
        self._dataset_path = dataset
        self._collection = collection
        self._batch = batch
        self._first = first
        self._last = last
        self._attributes = attributes
        self._base64 = base64

    def open(self, endpoint: Endpoint) -> None:
        dataset = open_dataset(self._dataset_path)
        self._batches = open_batches(dataset, self._first, self._last, self._batch)
        posts = _Posts(endpoint)
        path, limits = find_collection(endpoint, self._collection)
        check_batch(self._batch, limits)
        base64 = limits.base64 if self._base64 is None else self._base64

        def encode(index: int) -> bytes:
            rows = self._batches.rows(index)
            body = add_body(dataset, rows, base64=base64, attributes=self._attributes)
            return posts.encode(f"{path}/add", body)

        self._requests = PreparedRequests(encode, len(self._batches))

    def request(self, index: int) -> bytes:
        return self._requests[index]

    def interpret(self, index: int, status: int, body: bytes) -> Outcome:  # noqa: ARG002
        try:
            answer = json.loads(body)
        except ValueError:
            return _unexpected(body)
        if answer is not True and (not isinstance(answer, dict) or "error" in answer):
            return _unexpected(body)
        return Outcome(items=len(self._batches.rows(index)))

    def close(self) -> None: ...


class Create:
    """Operation i creates the empty collection `<prefix>_<i>`; `prefix` is a name of the run's namespace."""

    def __init__(self, prefix: str, metric: str = "l2") -> None:
        self._prefix = prefix
        self._metric = metric

    def open(self, endpoint: Endpoint) -> None:
        self._posts = _Posts(endpoint)

    def request(self, index: int) -> bytes:
        body = {
            "name": f"{self._prefix}_{index}",
            "configuration": {"hnsw": {"space": self._metric}},
            "get_or_create": False,
        }
        return self._posts.encode(COLLECTIONS_PATH, json.dumps(body))

    def interpret(self, index: int, status: int, body: bytes) -> Outcome:  # noqa: ARG002
        try:
            name = json.loads(body)["name"]
        except (ValueError, KeyError, TypeError):
            return _unexpected(body)
        if name != f"{self._prefix}_{index}":
            return Outcome(OutcomeKind.WRONG, error="another collection than the one asked for")
        return Outcome()

    def close(self) -> None: ...


class Delete:
    """Operation i deletes batch i of rows [first, last) by their ids.

    Chroma reports as deleted what was asked for, stored or not: verify with the collection's count.
    """

    def __init__(
        self, dataset: str, collection: str, batch: int = 500, first: int = 0, last: int | None = None
    ) -> None:
        self._dataset_path = dataset
        self._collection = collection
        self._batch = batch
        self._first = first
        self._last = last

    def open(self, endpoint: Endpoint) -> None:
        dataset = open_dataset(self._dataset_path)
        self._batches = open_batches(dataset, self._first, self._last, self._batch)
        posts = _Posts(endpoint)
        path, limits = find_collection(endpoint, self._collection)
        check_batch(self._batch, limits)

        def encode(index: int) -> bytes:
            ids = [str(row) for row in self._batches.rows(index)]
            return posts.encode(f"{path}/delete", json.dumps({"ids": ids}))

        self._requests = PreparedRequests(encode, len(self._batches))

    def request(self, index: int) -> bytes:
        return self._requests[index]

    def interpret(self, index: int, status: int, body: bytes) -> Outcome:  # noqa: ARG002
        rows = len(self._batches.rows(index))
        try:
            deleted = json.loads(body).get("deleted", rows)  # before 1.1 the answer is {}
        except (ValueError, AttributeError):
            return _unexpected(body)
        if deleted != rows:
            return Outcome(OutcomeKind.WRONG, error="fewer vectors deleted than asked for")
        return Outcome(items=rows)

    def close(self) -> None: ...


def _unexpected(body: bytes) -> Outcome:
    return Outcome(OutcomeKind.PROTOCOL, error=f"unexpected answer {body[:60]!r}")
