"""Samples: every operation of one stream of one phase, as numpy columns.

All times are int64 nanoseconds since the phase's common start. Three latencies per operation:
lag = sent - intended, service = finished - sent, response = finished - intended.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from aifbench.errors import ResultError
from aifbench.load.stages import Stages
from aifbench.load.tokens import Tokens
from aifbench.load.workload import NOT_SEEN, OutcomeKind

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Samples:
    """Columns of equal length n, in order of `intended_ns`; `qualities` is float32 of shape (n, 2).

    A quality is NaN where the operation was not checked. `finished_ns` is NOT_SEEN for UNFINISHED.
    In closed loop an operation is intended when its client is free, so lag is near zero by design.
    `tokens` is there when the answers were streamed, `stages` when the operations have parts: their rows
    belong to these.
    """

    index: Int64
    worker: NDArray[np.uint16]
    intended_ns: Int64
    sent_ns: Int64
    first_byte_ns: Int64
    finished_ns: Int64
    outcome: NDArray[np.uint8]
    items: NDArray[np.uint32]
    bytes_out: Int64
    bytes_in: Int64
    qualities: NDArray[np.float32]
    tokens: Tokens | None = None
    stages: Stages | None = None

    def __len__(self) -> int:
        return len(self.intended_ns)

    @property
    def ok(self) -> NDArray[np.bool_]:
        return np.equal(self.outcome, int(OutcomeKind.OK))

    @property
    def lag_ns(self) -> Int64:
        return self.sent_ns - self.intended_ns

    @property
    def service_ns(self) -> Int64:
        """Meaningless where `finished_ns` is NOT_SEEN; select `ok` first."""
        return self.finished_ns - self.sent_ns

    @property
    def response_ns(self) -> Int64:
        """Meaningless where `finished_ns` is NOT_SEEN; select `ok` first."""
        return self.finished_ns - self.intended_ns

    def select(self, mask: NDArray[Any] | slice) -> "Samples":
        """The operations where `mask` (bool or index array) says so; views of the columns for a slice."""
        columns = {name: getattr(self, name)[mask] for name in _COLUMNS}
        return Samples(
            **columns,
            tokens=self.tokens.select(mask) if self.tokens else None,
            stages=self.stages.select(mask) if self.stages else None,
        )

    def sorted(self) -> "Samples":
        return self.select(np.argsort(self.intended_ns, kind="stable"))

    def packed(self) -> "Samples":
        """The same, in order of intended time; a column of one value becomes read-only and takes no memory.

        For samples without tokens and stages, which are given up: their other columns are ordered in place.
        """
        columns: dict[str, Any] = {name: _packed(getattr(self, name)) for name in _COLUMNS}
        if not (self.intended_ns[1:] >= self.intended_ns[:-1]).all():
            order = np.argsort(self.intended_ns, kind="stable")
            for column in columns.values():
                if column.flags.writeable:
                    column[:] = column[order]
        return Samples(**columns)

    def save(self, path: Path) -> None:
        """Write uncompressed (fast) to `path`, which appears complete or not at all."""
        partial = path.with_name(path.name + ".part")
        try:
            with partial.open("wb") as file:
                columns: dict[str, Any] = {name: getattr(self, name) for name in _COLUMNS}
                for beside in (self.tokens, self.stages):
                    columns |= beside.to_arrays() if beside else {}
                np.savez(file, **columns)
            partial.replace(path)
        except OSError as error:
            raise ResultError(f"cannot write {path}") from error

    @classmethod
    def load(cls, path: Path) -> "Samples":
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
                columns: dict[str, Any] = {name: data[name] for name in _COLUMNS}
                return cls(**columns, tokens=Tokens.from_arrays(data), stages=Stages.from_arrays(data))
        except (OSError, KeyError, ValueError, EOFError, BadZipFile) as error:
            raise ResultError(f"cannot read samples from {path}") from error

    @classmethod
    def concatenate(cls, parts: "list[Samples]") -> "Samples":
        """All parts as one, ordered by intended time. No parts give zero rows."""
        if not parts:
            return cls.empty(0)
        order = np.argsort(np.concatenate([part.intended_ns for part in parts]), kind="stable")
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts])[order] for name in _COLUMNS
        }
        if any(part.tokens for part in parts):
            tokens = Tokens.concatenate([part.tokens or Tokens.empty(len(part)) for part in parts])
            columns["tokens"] = tokens.select(order)
        if any(part.stages for part in parts):
            stages = Stages.concatenate([part.stages or Stages.empty(len(part)) for part in parts])
            columns["stages"] = stages.select(order)
        return cls(**columns)

    @classmethod
    def empty(cls, n: int) -> "Samples":
        """n rows of zeros with unchecked qualities, to be filled by the caller."""
        zeros = np.zeros(n, np.int64)
        return cls(
            index=np.arange(n, dtype=np.int64),
            worker=np.zeros(n, np.uint16),
            intended_ns=zeros.copy(),
            sent_ns=zeros.copy(),
            first_byte_ns=np.full(n, NOT_SEEN, np.int64),
            finished_ns=zeros.copy(),
            outcome=np.zeros(n, np.uint8),
            items=np.ones(n, np.uint32),
            bytes_out=zeros.copy(),
            bytes_in=zeros.copy(),
            qualities=np.full((n, 2), np.nan, np.float32),
        )


def _packed(column: NDArray[Any]) -> NDArray[Any]:
    """A view of its first value in place of all, where they are the same bytes."""
    raw = column.view(np.uint64) if column.ndim == 2 else column  # both qualities as one: NaN is no value
    if not len(raw) or not (raw == raw[0]).all():
        return column
    return np.broadcast_to(column[0].copy(), column.shape)


_COLUMNS = tuple(field.name for field in fields(Samples) if field.name not in ("tokens", "stages"))
