"""Chroma by its official Python client, to be compared with plain HTTP: same answers, other cost.

Scoring an answer (some 10 µs) is part of the operation here, because a blocking operation has no
afterwards; the client's own work is a hundred times that.
"""

from collections.abc import Mapping
from typing import Any

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import ConfigError
from aifbench.load.workload import Outcome, OutcomeKind
from aifbench.workloads.chroma_control import auth_headers
from aifbench.workloads.chroma_http import check_batch, find_collection, where_clause
from aifbench.workloads.openlit_tracing import CHROMA, instrument, tell_address
from aifbench.workloads.vectors import AnswerScorer, open_batches, open_dataset


class _Client:
    """The SDK's client and one collection of it; `telemetry` says where traces go, None makes none."""

    def __init__(self, endpoint: Endpoint, name: str, telemetry: Mapping[str, str] | None) -> None:
        try:
            import chromadb
        except ImportError as error:
            raise ConfigError(
                "the SDK needs chromadb", hint="pip install chromadb, or use --via http"
            ) from error
        from chromadb.config import Settings

        if telemetry is not None:
            instrument(CHROMA, telemetry)
        # Asked by HTTP first, which explains what is wrong; the SDK often cannot.
        self.limits = find_collection(endpoint, name)[1]
        self._client: Any = chromadb.HttpClient(  # its declared type lacks close
            host=endpoint.host,
            port=endpoint.port,
            ssl=endpoint.scheme == "https",
            headers=auth_headers(endpoint),
            settings=Settings(anonymized_telemetry=False),
        )
        # Any embedding function but None would fetch a model from the network.
        self.collection = self._client.get_collection(name, embedding_function=None)
        if telemetry is not None:
            tell_address(self.collection._client, endpoint.url)

    def close(self) -> None:
        self._client.close()


def _outcome_of(error: Exception) -> Outcome:
    """The SDK's exception as an outcome; raised again when it is not about the exchange."""
    import chromadb.errors
    import httpx

    # For statuses it has no class for, the SDK raises a bare Exception after httpx's own.
    cause = error.__context__ if type(error) is Exception else error
    if isinstance(cause, chromadb.errors.ChromaError):
        return _of_status(cause.code(), str(cause))
    if isinstance(cause, httpx.HTTPStatusError):
        return _of_status(cause.response.status_code, str(error))
    if isinstance(cause, httpx.TimeoutException):
        return Outcome(OutcomeKind.TIMEOUT, error="timeout")
    if isinstance(cause, httpx.ConnectError):
        return Outcome(OutcomeKind.CONNECT, error=str(cause))
    if isinstance(cause, httpx.TransportError):
        return Outcome(OutcomeKind.BROKEN, error=str(cause))
    raise error


def _of_status(status: int, text: str) -> Outcome:
    if status in (429, 503):
        kind = OutcomeKind.THROTTLED
    else:
        kind = OutcomeKind.SERVER_ERROR if status >= 500 else OutcomeKind.CLIENT_ERROR
    return Outcome(kind, error=f"{status}: {text[:200]}")


class Search:
    """`chroma_http.Search` by the SDK."""

    def __init__(
        self, dataset: str, collection: str, k: int = 10, instrument: Mapping[str, str] | None = None
    ) -> None:
        self._telemetry = instrument
        self._dataset_path = dataset
        self._collection = collection
        self._k = k
        self._client: _Client | None = None

    def open(self, endpoint: Endpoint) -> None:
        dataset = open_dataset(self._dataset_path)
        self._scorer = AnswerScorer(dataset, self._k)
        self._queries = dataset.queries
        self._where: Any = where_clause(dataset.filter)
        self._client = _Client(endpoint, self._collection, self._telemetry)
        self._chroma = self._client.collection

    def perform(self, index: int) -> Outcome:
        query = index % len(self._queries)
        try:
            answer = self._chroma.query(
                query_embeddings=[self._queries[query]],
                n_results=self._k,
                where=self._where,
                include=["distances"],
            )
        except Exception as error:  # the SDK raises bare Exceptions
            return _outcome_of(error)
        return self._scorer.check(query, answer["ids"][0])

    def close(self) -> None:
        if self._client:
            self._client.close()


class Ingest:
    """`chroma_http.Ingest` by the SDK, which chooses the encoding itself."""

    def __init__(
        self,
        dataset: str,
        collection: str,
        batch: int = 500,
        first: int = 0,
        last: int | None = None,
        attributes: bool = False,
        instrument: Mapping[str, str] | None = None,
    ) -> None:
        self._telemetry = instrument
        self._dataset_path = dataset
        self._collection = collection
        self._batch = batch
        self._first = first
        self._last = last
        self._attributes = attributes
        self._client: _Client | None = None

    def open(self, endpoint: Endpoint) -> None:
        self._dataset = open_dataset(self._dataset_path)
        self._batches = open_batches(self._dataset, self._first, self._last, self._batch)
        self._client = _Client(endpoint, self._collection, self._telemetry)
        self._chroma = self._client.collection
        check_batch(self._batch, self._client.limits)

    def perform(self, index: int) -> Outcome:
        rows = self._batches.rows(index)
        metadatas: Any = [self._dataset.attributes(row) for row in rows] if self._attributes else None
        try:
            self._chroma.add(
                ids=[str(row) for row in rows],
                embeddings=list(self._dataset.vectors[rows.start : rows.stop]),
                metadatas=metadatas,
            )
        except Exception as error:  # the SDK raises bare Exceptions
            return _outcome_of(error)
        return Outcome(items=len(rows))

    def close(self) -> None:
        if self._client:
            self._client.close()
