"""What a long operation tells while it runs; the shell draws it, tests collect it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from aifbench.load.recorder import Rows


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """What a stream did since the last look.

    `rows` are the newest of its `operations`: all of them unless there were very many. `offered_per_s` is
    None in closed loop.
    """

    name: str
    operations: int
    rows: "Rows"
    offered_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class LoadStatus:
    """A phase under way. `planned_s` is None when the phase ends after a number of operations.

    `passed_s` is the time since the last look, which `rate_per_s` and `streams` are about.
    """

    phase: str
    elapsed_s: float
    planned_s: float | None
    operations: int
    planned_operations: int | None
    rate_per_s: float
    errors: int
    p99_ms: float | None = None
    warmup_s: float = 0.0
    passed_s: float = 0.0
    streams: Sequence[StreamStatus] = ()


class Progress(Protocol):
    """Receives what happens; must return at once."""

    def phase(self, name: str, detail: str) -> None:
        """A new step begins."""

    def update(self, status: LoadStatus) -> None:
        """The step goes on; called about once a second."""

    def note(self, text: str) -> None:
        """Something worth keeping on screen."""


class Silent:
    """A Progress that nobody watches."""

    def phase(self, name: str, detail: str) -> None: ...

    def update(self, status: LoadStatus) -> None: ...

    def note(self, text: str) -> None: ...
