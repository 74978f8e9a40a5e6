"""Which row an operation asks for: seeded draws, made before the load, alike in every worker."""

import math

import numpy as np
from numpy.typing import NDArray

from aifbench.errors import UsageError

# Draws repeat after so many operations.
DRAWS = 1 << 21
# Scatters the popular keys over the table, which would otherwise share a few pages; any large prime does.
_SCATTER = 2_654_435_761


def draw_keys(rows: int, count: int, seed: int, skew: float = 0.0) -> NDArray[np.int64]:
    """`count` keys in 0 .. rows-1: uniform, or with a `skew` s > 0 the k-th most popular as often as k**-s.

    Raises UsageError.
    """
    if rows < 1:
        raise UsageError(f"{rows} rows to choose from", hint="give at least one")
    if not 0 <= skew <= 10:
        raise UsageError(f"the skew {skew} is out of range", hint="give 0 (uniform) to 10; web-like: 1")
    rng = np.random.default_rng(seed)
    if skew == 0:
        return rng.integers(0, rows, count)
    ranks = zipf_ranks(rows, skew, count, rng)
    return (ranks - 1) * (_SCATTER % rows if math.gcd(_SCATTER, rows) == 1 else 1) % rows


def zipf_ranks(rows: int, skew: float, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Ranks 1 .. rows with probabilities proportional to rank**-skew, without a table of them.

    Rejection-inversion (Hörmann and Derflinger, ACM TOMACS 6(3), 1996): invert the integral of x**-skew,
    round, and accept almost always.
    """

    def integral(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.log(x) if skew == 1 else np.expm1((1 - skew) * np.log(x)) / (1 - skew)

    def inverse(y: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.exp(y) if skew == 1 else np.exp(np.log1p(y * (1 - skew)) / (1 - skew))

    first, last = integral(np.array([1.5, rows + 0.5])) - np.array([1.0, 0.0])
    ranks = np.empty(0, np.int64)
    while len(ranks) < count:
        y = last + rng.random(count) * (first - last)
        k = np.clip(np.floor(inverse(y) + 0.5), 1, rows)
        accepted = y >= integral(k + 0.5) - k**-skew
        ranks = np.concatenate([ranks, k[accepted].astype(np.int64)])
    return ranks[:count]
