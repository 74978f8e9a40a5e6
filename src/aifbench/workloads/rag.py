"""Retrieval-augmented generation as load: a question is embedded, looked up and answered, in one operation.

The three requests of an operation go through the same wire formats as the services' own benchmarks, by
blocking calls; the times of each are kept as stages.
"""

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from aifbench.cluster.endpoint import Endpoint
from aifbench.load.call_loop import outcome_of
from aifbench.load.workload import NOT_SEEN, Outcome, OutcomeKind, TokenTimes
from aifbench.workloads.chroma_control import COLLECTIONS_PATH, ChromaControl, auth_headers
from aifbench.workloads.chroma_http import query_body
from aifbench.workloads.inference import flaw, token_times, tokens_in
from aifbench.workloads.openai_control import bearer_headers
from aifbench.workloads.openai_dialect import DIALECTS, error_text, read_vectors
from aifbench.workloads.rag_http import Exchange, KeptService
from aifbench.workloads.rag_texts import prompt, question
from aifbench.workloads.sse import events
from aifbench.workloads.vectors import AnswerScorer, open_dataset

EMBED, RETRIEVE, GENERATE = "embed", "retrieve", "generate"
_EMBEDDINGS = "/v1/embeddings"
_CONNECTIONS = 16
_INCLUDE = ("documents", "distances")

Spans = dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Library:
    """What is asked about: `documents` texts of `words` words, and their number in the data set's order."""

    seed: int
    words: int
    documents: int


class _Failed(Exception):
    """A stage that did not do what it should ends the operation."""

    def __init__(self, outcome: Outcome, exchange: Exchange | None = None) -> None:
        super().__init__(outcome.error)
        self.outcome = outcome
        self.exchange = exchange


class Rag:
    """Operation i asks question i modulo the number of the data set's queries.

    The endpoint is the generating service's; `store` and `embed` are those of the others, as JSON. Without
    `embed` the questions' vectors are the data set's queries, made beforehand: there is no such stage then.
    Qualities are recall by id and, where `exact`, whether the answer has `output_tokens` tokens.
    """

    def __init__(
        self,
        dataset: str,
        collection: str,
        store: Mapping[str, Any],
        model: str,
        library: Mapping[str, int],
        *,
        k: int = 10,
        api: str = "chat",
        extra: Mapping[str, Any] | None = None,
        exact: bool = False,
        output_tokens: int = 128,
        salt: str = "",
        embed: Mapping[str, Any] | None = None,
        embed_model: str = "",
        timeout_s: float = 300.0,
    ) -> None:
        self._dataset_path, self._collection = dataset, collection
        self._store_endpoint = Endpoint.from_json(store)
        self._embed_endpoint = Endpoint.from_json(embed) if embed else None
        self._embed_model = embed_model
        self._dialect = DIALECTS[api](model, extra)
        self._library = Library(**library)
        self._k, self._exact, self._output_tokens = k, exact, output_tokens
        self._salt, self._timeout_s = salt, timeout_s
        self._services: list[KeptService] = []

    def open(self, endpoint: Endpoint) -> None:
        dataset = open_dataset(self._dataset_path)
        self._scorer = AnswerScorer(dataset, self._k)
        self._count = len(dataset.queries)
        library = self._library
        self._questions = [
            question(library.seed, number, library.words, library.documents) for number in range(self._count)
        ]
        with closing(ChromaControl(self._store_endpoint)) as control:
            self._query_path = f"{COLLECTIONS_PATH}/{control.collection(self._collection).id}/query"
        self._llm = self._service(endpoint, {**bearer_headers(endpoint), "Accept": "text/event-stream"})
        self._store = self._service(self._store_endpoint, auth_headers(self._store_endpoint))
        self._embed: KeptService | None = None
        self._query_bodies: list[bytes] = []
        if self._embed_endpoint is not None:
            self._embed = self._service(self._embed_endpoint, bearer_headers(self._embed_endpoint))
        else:
            self._query_bodies = [self._query_body(query) for query in dataset.queries]

    def close(self) -> None:
        for service in self._services:
            service.close()

    def perform(self, index: int) -> Outcome:
        number = index % self._count
        stages: Spans = {}
        try:
            query = self._query(number, stages)
            ids, documents = self._retrieve(query, stages)
            return replace(self._generate(index, number, ids, documents, stages), stages=stages)
        except _Failed as failed:
            tokens = self._times(failed.exchange) if GENERATE in stages and failed.exchange else None
            return replace(failed.outcome, stages=stages, tokens=tokens)

    def _service(self, endpoint: Endpoint, headers: Mapping[str, str]) -> KeptService:
        service = KeptService(endpoint, headers, self._timeout_s)
        service.connect(_CONNECTIONS)
        self._services.append(service)
        return service

    def _query_body(self, vector: Any) -> bytes:
        return query_body(vector, self._k, None, include=_INCLUDE).encode()

    def _query(self, number: int, stages: Spans) -> bytes:
        """The request to the store: made beforehand, or of the vector that the embedding service gives."""
        if self._embed is None:
            return self._query_bodies[number]
        asked = {"model": self._embed_model, "input": self._questions[number]}
        exchange = _post(EMBED, stages, self._embed, _EMBEDDINGS, json.dumps(asked).encode())
        try:
            (vector,) = read_vectors(exchange.answer.body)
        except ValueError as error:
            raise _wrong(EMBED, str(error)) from error
        return self._query_body(np.asarray(vector, np.float32))

    def _retrieve(self, query: bytes, stages: Spans) -> tuple[list[Any], list[str]]:
        """The ids and texts of the nearest documents."""
        exchange = _post(RETRIEVE, stages, self._store, self._query_path, query)
        try:
            answer = json.loads(exchange.answer.body)
            (ids,), (documents,) = answer["ids"], answer["documents"]
            texts = [text for text in documents if isinstance(text, str)]
        except (ValueError, KeyError, TypeError) as error:
            raise _wrong(RETRIEVE, f"unexpected answer {exchange.answer.body[:60]!r}") from error
        if len(texts) != len(ids):
            raise _wrong(RETRIEVE, "an id without its document")
        return ids, texts

    def _generate(
        self, index: int, number: int, ids: list[Any], documents: list[str], stages: Spans
    ) -> Outcome:
        text = prompt(f"{self._salt}-{index}", documents, self._questions[number])
        body = self._dialect.body(self._dialect.text_prompt(text), self._output_tokens, {})
        exchange = _post(GENERATE, stages, self._llm, self._dialect.path, body)
        reading = self._dialect.read_stream(events(exchange.answer.body))
        tokens = token_times(reading, exchange.answer.arrived_ns(reading.content_ends))
        judged = flaw(reading) or self._scorer.check(number, ids)
        if judged.kind is OutcomeKind.OK:
            exact = (float(reading.output_tokens == self._output_tokens),) if self._exact else ()
            judged = Outcome(OutcomeKind.OK, tokens_in(reading), (judged.qualities[0], *exact))
        else:
            judged = replace(judged, error=f"{GENERATE if flaw(reading) else RETRIEVE}: {judged.error}")
        return replace(judged, tokens=tokens, first_byte_ns=max(tokens.first_ns, 0))

    def _times(self, exchange: Exchange) -> TokenTimes:
        """Of an answer that was cut short."""
        reading = self._dialect.read_stream(events(exchange.answer.body))
        return token_times(reading, exchange.answer.arrived_ns(reading.content_ends))


def _post(stage: str, stages: Spans, service: KeptService, path: str, body: bytes) -> Exchange:
    """The answer of a stage, whose begin and end are noted. Raises _Failed for any other."""
    exchange = service.post(path, body)
    if exchange.error is not None:
        stages[stage] = (exchange.began_ns, NOT_SEEN)
        outcome = outcome_of(exchange.error)
        raise _Failed(replace(outcome, error=f"{stage}: {outcome.error}"), exchange)
    stages[stage] = (exchange.began_ns, exchange.ended_ns)
    kind = OutcomeKind.of_status(exchange.status)
    if kind is not OutcomeKind.OK:
        said = error_text(exchange.answer.body.decode("utf-8", "replace"))
        raise _Failed(Outcome(kind, 0, error=f"{stage}: HTTP {exchange.status} {said}"))
    return exchange


def _wrong(stage: str, text: str) -> _Failed:
    return _Failed(Outcome(OutcomeKind.WRONG, 0, error=f"{stage}: {text}"))
