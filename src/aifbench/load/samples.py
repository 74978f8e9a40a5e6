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
from aifbench.load.tokens import Tokens
from aifbench.load.workload import NOT_SEEN, OutcomeKind

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Samples:
    """Columns of equal length n, in order of `intended_ns`; `qualities` is float32 of shape (n, 2).

    A quality is NaN where the operation was not checked. `finished_ns` is NOT_SEEN for UNFINISHED.
    In closed loop an operation is intended when its client is free, so lag is near zero by design.
    `tokens` is there when the answers were streamed: its rows belong to these.
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

    def select(self, mask: NDArray[Any]) -> "Samples":
        """The operations where `mask` (bool or index array) says so."""
        columns = {name: getattr(self, name)[mask] for name in _COLUMNS}
        return Samples(**columns, tokens=self.tokens.select(mask) if self.tokens else None)

    def sorted(self) -> "Samples":
        return self.select(np.argsort(self.intended_ns, kind="stable"))

    def save(self, path: Path) -> None:
        """Write uncompressed (fast) to `path`, which appears complete or not at all."""
        partial = path.with_name(path.name + ".part")
        try:
            with partial.open("wb") as file:
                columns: dict[str, Any] = {name: getattr(self, name) for name in _COLUMNS}
                np.savez(file, **columns, **(self.tokens.to_arrays() if self.tokens else {}))
            partial.replace(path)
        except OSError as error:
            raise ResultError(f"cannot write {path}") from error

    @classmethod
    def load(cls, path: Path) -> "Samples":
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
                return cls(**{name: data[name] for name in _COLUMNS}, tokens=Tokens.from_arrays(data))
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
        if not any(part.tokens for part in parts):
            return cls(**columns)
        tokens = Tokens.concatenate([part.tokens or Tokens.empty(len(part)) for part in parts])
        return cls(**columns, tokens=tokens.select(order))

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


_COLUMNS = tuple(field.name for field in fields(Samples) if field.name != "tokens")
