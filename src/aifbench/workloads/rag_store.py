"""Preparing a library for retrieval: vectors of its texts, exact answers, and the documents in the store."""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from aifbench.errors import ServiceError, WorkloadError
from aifbench.workloads.chroma_control import COLLECTIONS_PATH, ChromaControl, Collection
from aifbench.workloads.datasets import Dataset
from aifbench.workloads.ground_truth import Vectors
from aifbench.workloads.openai_control import OpenAIControl
from aifbench.workloads.openai_dialect import read_vectors
from aifbench.workloads.rag_texts import document

_TEXTS_AT_ONCE = 32


def embed_texts(control: OpenAIControl, model: str, texts: Sequence[str]) -> Vectors:
    """Their vectors (n, d), in order. Raises ServiceError."""
    parts: list[list[float]] = []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        batch = list(texts[start : start + _TEXTS_AT_ONCE])
        answer = control.exchange("POST", "/v1/embeddings", {"model": model, "input": batch})
        if not answer.ok:
            raise ServiceError(f"the embedding service answered {answer.status}: {answer.message}")
        try:
            found = read_vectors(answer.body)
        except ValueError as error:
            raise ServiceError(f"the embedding service: {error}") from error
        if len(found) != len(batch):
            raise ServiceError(f"the embedding service gave {len(found)} vectors for {len(batch)} texts")
        parts += found
    try:
        return np.array(parts, np.float32)
    except ValueError as error:
        raise ServiceError("the embedding service gave vectors of different lengths") from error


def write_vectors(folder: Path, vectors: Vectors, queries: Vectors) -> None:
    """As files that `preparation` reads. Raises WorkloadError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in (("base", vectors), ("query", queries)):
            header = struct.pack("<2I", *rows.shape)
            (folder / f"{name}.fbin").write_bytes(header + rows.astype("<f4").tobytes())
    except OSError as error:
        raise WorkloadError(f"cannot write to {folder}: {error.strerror}") from error


def store_documents(
    control: ChromaControl, collection: Collection, dataset: Dataset, *, seed: int, words: int, batch: int
) -> None:
    """All documents with their vectors; a document's id is its row. Raises ServiceError if any is missing."""
    size = min(batch, control.limits().max_batch_size)
    for rows in _batches(len(dataset.vectors), size):
        body = {
            "ids": [str(row) for row in rows],
            "embeddings": dataset.vectors[rows.start : rows.stop].tolist(),
            "documents": [document(seed, row, words) for row in rows],
        }
        control.request("POST", f"{COLLECTIONS_PATH}/{collection.id}/add", body)
    stored = control.count(collection)
    if stored != len(dataset.vectors):
        raise ServiceError(f"{stored:,} of {len(dataset.vectors):,} documents were stored")


def _batches(count: int, size: int) -> Iterator[range]:
    for start in range(0, count, size):
        yield range(start, min(start + size, count))
