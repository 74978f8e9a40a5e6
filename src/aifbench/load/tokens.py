"""Tokens: what came in each streamed answer, and when, as numpy columns beside those of Samples.

Instants are int64 nanoseconds since the phase's common start, NOT_SEEN where there was none. The gaps between
pieces with content are pooled: an operation's are `gaps_ms[gap_first : gap_first + gap_count]`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifbench.load.workload import NOT_SEEN, TokenTimes

Int64 = NDArray[np.int64]
UInt32 = NDArray[np.uint32]

_PREFIX = "tokens_"
# A stamp is 40 bytes as a number of Python and 4 as a gap: so columns are made of this many at a time.
_BLOCK = 100_000


@dataclass(frozen=True, slots=True)
class Tokens:
    """One row per operation; `chunks` counts pieces with content, `counted` and `finish` are enum values."""

    first_ns: Int64
    answer_ns: Int64
    last_ns: Int64
    prompt_tokens: UInt32
    cached_tokens: UInt32
    output_tokens: UInt32
    first_tokens: UInt32
    chunks: UInt32
    counted: NDArray[np.uint8]
    finish: NDArray[np.uint8]
    gap_first: Int64
    gap_count: UInt32
    gaps_ms: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.first_ns)

    @classmethod
    def of(cls, times: Iterable[TokenTimes], origin_ns: int) -> "Tokens":
        """Columns of these answers; `origin_ns` is the common start by the clock of their stamps.

        Takes `times` one by one and keeps none of them, so they may be more than fit into memory.
        """
        return cls.concatenate([cls._of_block(block, origin_ns) for block in _blocks(times)])

    @classmethod
    def _of_block(cls, times: Sequence[TokenTimes], origin_ns: int) -> "Tokens":
        counts = np.array([len(t.content_ns) for t in times], np.int64)
        stamps = np.fromiter(chain.from_iterable(t.content_ns for t in times), np.int64)
        ends = np.cumsum(counts)
        # The differences of all stamps in a row, less those from one answer to the next.
        steps = np.diff(stamps) / 1e6
        keep = np.ones(len(steps), bool)
        keep[ends[:-1][(ends[:-1] > 0) & (ends[:-1] <= len(steps))] - 1] = False
        gap_count = np.maximum(counts - 1, 0)

        def instants(name: str) -> Int64:
            column = np.array([getattr(t, name) for t in times], np.int64)
            return np.where(column == NOT_SEEN, NOT_SEEN, column - origin_ns)

        def numbers(name: str, kind: Any) -> Any:
            return np.array([getattr(t, name) for t in times], kind)

        return cls(
            first_ns=instants("first_ns"),
            answer_ns=instants("answer_ns"),
            last_ns=instants("last_ns"),
            prompt_tokens=numbers("prompt_tokens", np.uint32),
            cached_tokens=numbers("cached_tokens", np.uint32),
            output_tokens=numbers("output_tokens", np.uint32),
            first_tokens=numbers("first_tokens", np.uint32),
            chunks=counts.astype(np.uint32),
            counted=numbers("counted", np.uint8),
            finish=numbers("finish", np.uint8),
            gap_first=np.cumsum(gap_count) - gap_count,
            gap_count=gap_count.astype(np.uint32),
            gaps_ms=steps[keep].astype(np.float32),
        )

    def gaps_of(self, mask: Any) -> NDArray[np.float32]:
        """The gaps of the rows where `mask` (bool or index array) says so, in milliseconds."""
        counts = self.gap_count[mask].astype(np.int64)
        begins = np.repeat(self.gap_first[mask] - (np.cumsum(counts) - counts), counts)
        return self.gaps_ms[begins + np.arange(len(begins))]

    def select(self, mask: Any) -> "Tokens":
        """The rows where `mask` says so; the pool of gaps stays whole."""
        columns = {name: getattr(self, name)[mask] for name in _ROWS}
        return Tokens(**columns, gaps_ms=self.gaps_ms)

    @classmethod
    def concatenate(cls, parts: "Sequence[Tokens]") -> "Tokens":
        """All parts as one, in their order."""
        begins = np.cumsum([0, *(len(part.gaps_ms) for part in parts)])
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ROWS}
        columns["gap_first"] = np.concatenate(
            [part.gap_first + begin for part, begin in zip(parts, begins[:-1], strict=True)]
        )
        return cls(**columns, gaps_ms=np.concatenate([part.gaps_ms for part in parts]))

    @classmethod
    def empty(cls, n: int) -> "Tokens":
        """n answers of which nothing was seen."""
        return cls.of([TokenTimes()] * n, 0)

    def to_arrays(self) -> dict[str, Any]:
        return {_PREFIX + field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "Tokens | None":
        """The inverse of `to_arrays`; None where there are none."""
        if _PREFIX + "first_ns" not in arrays:
            return None
        return cls(**{field.name: arrays[_PREFIX + field.name] for field in fields(cls)})


def _blocks(times: Iterable[TokenTimes]) -> Iterator[list[TokenTimes]]:
    """One at least, the last perhaps empty."""
    block: list[TokenTimes] = []
    size = 0
    for time in times:
        block.append(time)
        size += 1 + len(time.content_ns)
        if size >= _BLOCK:
            yield block
            block, size = [], 0
    yield block


_ROWS = tuple(field.name for field in fields(Tokens) if field.name != "gaps_ms")
