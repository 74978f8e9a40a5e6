"""Seeded synthetic vectors, made in blocks that any process can make alone and in any order.

`clustered` behaves like embeddings: Gaussian clusters of Zipf(1.1)-distributed weight, each on its
own anisotropic 24-dimensional subspace, with a little noise in all dimensions, scaled to unit
length. `uniform` spreads over the whole sphere; no index finds neighbours there (recall@10 of one
HNSW at ef 64: 0.99 clustered, 0.11 uniform, at 100k x 256), so it is for comparison only.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifbench.errors import UsageError

Float32 = NDArray[np.float32]
Clusters = NDArray[np.uint8]

BLOCK_ROWS = 8192
CLUSTERS = 64

_SUBSPACE_DIM = 24
_ZIPF = 1.1
_DECAY = 16.0  # dimensions over which a cluster's spread falls by e
_NOISE = 0.2  # length of the full-dimensional noise, against a spread and a centre of about 1

# What is drawn, as the second word of every seed: streams never share random numbers.
_MODEL, _VECTORS, _QUERIES = range(3)


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rows: unit vectors, and the cluster each was drawn from (0 when uniform)."""

    vectors: Float32
    clusters: Clusters


BlockMaker = Callable[[np.random.Generator], Block]


@dataclass(frozen=True, slots=True)
class Source:
    """An endless seeded sequence of vectors, and another of queries from the same distribution.

    Row i is the same however many rows are asked for. A block depends on (seed, dim, shape, index)
    alone; the last bits may differ between CPU types, which compute matrix products differently.
    """

    seed: int
    make: BlockMaker

    def vectors(self, rows: int) -> Iterator[Block]:
        return self._blocks(_VECTORS, rows)

    def queries(self, rows: int) -> Iterator[Block]:
        return self._blocks(_QUERIES, rows)

    def block(self, index: int) -> Block:
        """Rows [index * BLOCK_ROWS, (index + 1) * BLOCK_ROWS) of the vectors."""
        return self.make(np.random.default_rng([self.seed, _VECTORS, index]))

    def _blocks(self, stream: int, rows: int) -> Iterator[Block]:
        for start in range(0, rows, BLOCK_ROWS):
            block = self.make(np.random.default_rng([self.seed, stream, start // BLOCK_ROWS]))
            wanted = min(BLOCK_ROWS, rows - start)
            yield Block(block.vectors[:wanted], block.clusters[:wanted])


def _unit(vectors: NDArray[Any]) -> Float32:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def uniform_source(seed: int, dim: int) -> Source:
    """Unit vectors in all directions alike."""

    def make(random: np.random.Generator) -> Block:
        vectors = random.standard_normal((BLOCK_ROWS, dim), np.float32)
        return Block(_unit(vectors), np.zeros(BLOCK_ROWS, np.uint8))

    return Source(seed, make)


def clustered_source(seed: int, dim: int) -> Source:
    """Unit vectors in CLUSTERS clusters; cluster 0 is the most frequent."""
    random = np.random.default_rng([seed, _MODEL])
    centres = _unit(random.standard_normal((CLUSTERS, dim)))
    axes = _cluster_axes(random, dim)
    weights = np.arange(1, CLUSTERS + 1) ** -_ZIPF
    weights /= weights.sum()
    noise_length = np.float32(_NOISE / np.sqrt(dim))

    def make(random: np.random.Generator) -> Block:
        clusters = random.choice(CLUSTERS, BLOCK_ROWS, p=weights).astype(np.uint8)
        position = random.standard_normal((BLOCK_ROWS, axes.shape[1]), np.float32)
        vectors = centres[clusters] + noise_length * random.standard_normal((BLOCK_ROWS, dim), np.float32)
        for cluster in np.unique(clusters):
            rows = np.flatnonzero(clusters == cluster)
            vectors[rows] += position[rows] @ axes[cluster]
        return Block(_unit(vectors), clusters)

    return Source(seed, make)


def _cluster_axes(random: np.random.Generator, dim: int) -> Float32:
    """Per cluster, orthogonal axes of decreasing length: shape (CLUSTERS, subspace, dim)."""
    subspace = min(_SUBSPACE_DIM, dim)
    bases = np.linalg.qr(random.standard_normal((CLUSTERS, dim, subspace)))[0]
    lengths = np.exp(-np.arange(subspace) / _DECAY)
    lengths /= np.linalg.norm(lengths)
    return np.asarray(bases.transpose(0, 2, 1) * lengths[:, None], np.float32)


SHAPES: dict[str, Callable[[int, int], Source]] = {
    "clustered": clustered_source,
    "uniform": uniform_source,
}


def make_source(shape: str, seed: int, dim: int) -> Source:
    if shape not in SHAPES:
        raise UsageError(f"the shape {shape!r} is not known", hint=f"valid: {', '.join(SHAPES)}")
    return SHAPES[shape](seed, dim)
