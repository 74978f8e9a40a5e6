"""Stages: when the named parts of each operation began and ended, as numpy columns beside those of Samples.

Instants are int64 nanoseconds since the phase's common start, NOT_SEEN for what did not happen. Stages of one
operation follow one another, with time of the client's own between them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifbench.load.workload import NOT_SEEN

Int64 = NDArray[np.int64]
Spans = Mapping[str, tuple[int, int]]

_NAMES, _BEGIN, _END = "stages_names", "stages_begin_ns", "stages_end_ns"


@dataclass(frozen=True, slots=True)
class Stages:
    """`begin_ns` and `end_ns` have a row for each operation and a column for each of `names`."""

    names: tuple[str, ...]
    begin_ns: Int64
    end_ns: Int64

    def __len__(self) -> int:
        return len(self.begin_ns)

    @classmethod
    def of(cls, spans: Sequence[Spans], origin_ns: int) -> "Stages":
        """Columns of these operations; `origin_ns` is the common start by the clock of their stamps."""
        names = tuple(dict.fromkeys(name for span in spans for name in span))
        missing = (NOT_SEEN, NOT_SEEN)
        stamps = np.array([[span.get(name, missing) for name in names] for span in spans], np.int64)
        stamps = stamps.reshape(len(spans), len(names), 2)
        stamps = np.where(stamps == NOT_SEEN, NOT_SEEN, stamps - origin_ns)
        return cls(names, stamps[:, :, 0], stamps[:, :, 1])

    def select(self, mask: Any) -> "Stages":
        """The rows where `mask` (bool or index array) says so."""
        return Stages(self.names, self.begin_ns[mask], self.end_ns[mask])

    def of_names(self, names: tuple[str, ...]) -> "Stages":
        """With these columns, in this order; NOT_SEEN in those that it has not."""
        begin, end = (np.full((len(self), len(names)), NOT_SEEN, np.int64) for _ in range(2))
        for column, name in enumerate(names):
            if name in self.names:
                begin[:, column] = self.begin_ns[:, self.names.index(name)]
                end[:, column] = self.end_ns[:, self.names.index(name)]
        return Stages(names, begin, end)

    @classmethod
    def concatenate(cls, parts: "Sequence[Stages]") -> "Stages":
        """All parts as one, in their order, with the stages of any."""
        names = tuple(dict.fromkeys(name for part in parts for name in part.names))
        same = [part.of_names(names) for part in parts]
        return cls(
            names, np.concatenate([p.begin_ns for p in same]), np.concatenate([p.end_ns for p in same])
        )

    @classmethod
    def empty(cls, n: int) -> "Stages":
        """n operations of which no stage was seen."""
        return cls.of([{}] * n, 0)

    def to_arrays(self) -> dict[str, Any]:
        return {_NAMES: np.array(self.names, np.str_), _BEGIN: self.begin_ns, _END: self.end_ns}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "Stages | None":
        """The inverse of `to_arrays`; None where there are none."""
        if _NAMES not in arrays:
            return None
        return cls(tuple(arrays[_NAMES].tolist()), arrays[_BEGIN], arrays[_END])
