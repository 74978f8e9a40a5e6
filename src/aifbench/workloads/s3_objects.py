"""What is stored in a bucket: keys, sizes and content of numbered objects, the same wherever it is asked for.

Content cannot be compressed, and differs between any two objects. It is cut from one pool of random bytes per
seed, at a place of its own that is no multiple of a block size, behind 64 bytes that no other object has; so
making it costs nothing but its sending, and its checksums can be computed anywhere. Deduplication by fixed
blocks finds next to nothing in it; a store that looks for equal content at any offset finds the pool.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from aifbench.errors import UsageError
from aifbench.units import parse_size_bytes

MAX_OBJECT_BYTES = 5 * 10**12  # what S3 allows

HEADER_BYTES = 64
POOL_BYTES = 32 * 2**20
# Of one piece of content, its header included: so that a piece begins anywhere in the pool's first half.
_PIECE_BYTES = POOL_BYTES // 2

_MASK = 2**64 - 1
_HINT = "give 4KiB, lognormal:1MiB:1.5 (median, sigma), 4KiB:80,1MiB:20 (size:weight), or one of "

# Sizes that programs really use: training samples (150 KB pictures, 2 MB and 140 MB volumes), shards of
# checkpoints, files of columns read by range, and the small files around them.
SHAPES = {
    "loader-small": "150KB",
    "loader-medium": "2MB",
    "loader-large": "140MB",
    "checkpoint": "loguniform:100MB:5GB",
    "parquet": "loguniform:64MiB:512MiB",
    "metadata": "4KiB",
}


def _size(text: str) -> int:
    return parse_size_bytes(text, "--size", minimum=0, maximum=MAX_OBJECT_BYTES)


@dataclass(frozen=True, slots=True)
class Sizes:
    """A distribution of object sizes: `at(u)` is the size of an object with the random number u in [0, 1)."""

    text: str
    at: Callable[[float], int] = field(repr=False, compare=False)
    mean_bytes: float


def parse_sizes(text: str) -> Sizes:
    """The distribution a person asked for. Raises UsageError naming the value."""
    spelled = SHAPES.get(text, text)
    kind, _, rest = spelled.partition(":")
    if kind == "lognormal":
        return _log_normal(text, rest)
    if kind == "loguniform":
        return _log_uniform(text, rest)
    if ":" in spelled or "," in spelled:
        return _weighted(text, spelled)
    try:
        size_bytes = _size(spelled)
    except UsageError as error:
        raise UsageError(error.message, hint=_HINT + ", ".join(SHAPES)) from None
    return Sizes(text, lambda _: size_bytes, float(size_bytes))


def _pair(text: str, rest: str) -> tuple[str, str]:
    first, colon, second = rest.partition(":")
    if not colon:
        raise UsageError(f"--size {text!r} lacks a value", hint=_HINT + ", ".join(SHAPES))
    return first, second


def _log_normal(text: str, rest: str) -> Sizes:
    """Cut at a hundredth and a hundred times the median, as no store has objects without bounds."""
    from statistics import NormalDist

    first, second = _pair(text, rest)
    median, normal = _size(first), NormalDist()
    try:
        sigma = float(second)
    except ValueError:
        sigma = -1.0
    if not 0 < sigma <= 4 or not median:
        raise UsageError(
            f"--size {text!r} has no usable sigma", hint="give 0.1 to 4, such as lognormal:1MiB:1.5"
        )
    low, high = max(1, median // 100), median * 100

    def at(u: float) -> int:
        factor = math.exp(sigma * normal.inv_cdf(min(max(u, 1e-12), 1 - 1e-12)))
        return min(high, max(low, round(median * factor)))

    return Sizes(text, at, _mean(at))


def _log_uniform(text: str, rest: str) -> Sizes:
    first, second = _pair(text, rest)
    low, high = _size(first), _size(second)
    if not 0 < low < high:
        raise UsageError(f"--size {text!r} has no range", hint="give the smaller size first")

    def at(u: float) -> int:
        return round(low * math.pow(high / low, u))

    return Sizes(text, at, _mean(at))


def _weighted(text: str, spelled: str) -> Sizes:
    sizes, weights = [], []
    for part in spelled.split(","):
        size, _, weight = part.partition(":")
        sizes.append(_size(size))
        try:
            weights.append(float(weight))
        except ValueError:
            weights.append(math.nan)
    total = sum(weights)
    if not math.isfinite(total) or total <= 0 or min(weights) < 0:
        raise UsageError(f"--size {text!r} has no usable weights", hint=_HINT + ", ".join(SHAPES))
    bounds = [sum(weights[: k + 1]) / total for k in range(len(weights))]

    def at(u: float) -> int:
        return next((size for size, bound in zip(sizes, bounds, strict=True) if u < bound), sizes[-1])

    mean = sum(size * weight for size, weight in zip(sizes, weights, strict=True)) / total
    return Sizes(text, at, mean)


def _mean(at: Callable[[float], int], points: int = 1000) -> float:
    return sum(at((k + 0.5) / points) for k in range(points)) / points


def mix(*values: int) -> int:
    """64 random-looking bits of some numbers (the finaliser of splitmix64)."""
    state = 0
    for value in values:
        state = (state ^ value) + 0x9E3779B97F4A7C15 & _MASK
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ state >> 27) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state


class Rounds:
    """Visits `count` things in an order without pattern, each once before any is seen again."""

    def __init__(self, count: int, seed: int) -> None:
        self._count = count
        # Steps of about the golden ratio spread best; neighbours in time are far apart.
        step = max(1, round(count * 0.6180339887))
        while math.gcd(step, count) != 1:
            step += 1
        self._step, self._first = step, mix(seed) % count

    def __getitem__(self, index: int) -> int:
        return (self._first + index * self._step) % self._count


class ObjectSet:
    """Objects `<prefix>xx/nnnnnnnnn`, numbered from 0; `xx` spreads them over 256 folders.

    The folders have no folder in common, which clients of a gateway to a file system would make at the same
    moment, and some gateways then lose objects. Those that are `is_flat` are `<prefix>nnnnnnnnn`.
    """

    def __init__(self, sizes: str, seed: int, prefix: str = "data-", *, is_flat: bool = False) -> None:
        self.sizes = parse_sizes(sizes)
        self.prefix = prefix
        self._is_flat = is_flat
        self._sizes_text = sizes
        self._seed = seed
        self._salt = int.from_bytes(hashlib.sha256(f"{seed} {prefix}".encode()).digest()[:8])

    def to_json(self) -> dict[str, Any]:
        """The parameters it can be made from again."""
        return {
            "sizes": self._sizes_text,
            "seed": self._seed,
            "prefix": self.prefix,
            "is_flat": self._is_flat,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ObjectSet":
        return cls(**data)

    def key(self, number: int) -> str:
        folder = "" if self._is_flat else f"{number & 0xFF:02x}/"
        return f"{self.prefix}{folder}{number:09d}"

    def number(self, key: str) -> int:
        """Which object has that key. Raises ValueError for a key that is not of this set."""
        number = int(key[-9:])
        if self.key(number) != key:
            raise ValueError(f"{key!r} is no key of {self.prefix!r}")
        return number

    def size(self, number: int) -> int:
        return self.sizes.at(mix(self._salt, number) / 2**64)

    def total_bytes(self, count: int) -> int:
        return sum(self.size(number) for number in range(count))

    def content(self, number: int, start: int = 0, stop: int | None = None) -> list[bytes | memoryview]:
        """Bytes [start, stop) of an object, in pieces that share the pool's memory."""
        stop = self.size(number) if stop is None else stop
        pieces: list[bytes | memoryview] = []
        while start < stop:
            piece, within = divmod(start, _PIECE_BYTES)
            end = min(stop - start + within, _PIECE_BYTES)
            pieces += self._piece(number, piece, within, end)
            start += end - within
        return pieces

    def body(self, number: int, start: int = 0, stop: int | None = None) -> bytes:
        """The same in one piece."""
        return b"".join(self.content(number, start, stop))

    def digest(self, number: int, algorithm: str = "md5") -> str:
        """Checksum of the whole object, in hexadecimal digits."""
        digest = hashlib.new(algorithm, usedforsecurity=False)
        for piece in self.content(number):
            digest.update(piece)
        return digest.hexdigest()

    def _piece(self, number: int, piece: int, start: int, end: int) -> Iterator[bytes | memoryview]:
        if start < HEADER_BYTES:
            yield self._header(number, piece)[start:end]
        if end > HEADER_BYTES:
            # Odd places: no two objects have equal blocks at equal offsets until thousands share a place.
            place = (mix(self._salt, number, piece) % (_PIECE_BYTES // 2)) * 2 + 1
            yield pool(self._seed)[place + max(start, HEADER_BYTES) : place + end]

    def _header(self, number: int, piece: int) -> bytes:
        return hashlib.sha512(f"{self._salt} {number} {piece}".encode()).digest()


@cache
def pool(seed: int) -> memoryview:
    """The random bytes that all content of a seed is cut from."""
    import numpy as np

    return memoryview(np.random.default_rng([seed, 0x53]).bytes(POOL_BYTES + 2))


def bucket_label(size_bytes: int) -> str:
    """The power of four that a size falls below, for tables by size: `<=4 KiB`, `<=16 KiB`, ..."""
    limit = 4096
    while limit < size_bytes:
        limit *= 4
    return f"<={_short(limit)}"


def _short(size_bytes: int) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes} {unit}"
        size_bytes //= 1024
    return f"{size_bytes} TiB"


def default_count(sizes: Sizes, budget_bytes: int, choices: Sequence[int] = (16, 1000)) -> int:
    """How many objects make a data set of about `budget_bytes`, within sensible numbers."""
    low, high = choices
    return max(low, min(high, round(budget_bytes / max(1.0, sizes.mean_bytes))))
