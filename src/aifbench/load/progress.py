"""What a long operation tells while it runs; the shell draws it, tests collect it."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class LoadStatus:
    """A phase under way. `planned_s` is None when the phase ends after a number of operations."""

    phase: str
    elapsed_s: float
    planned_s: float | None
    operations: int
    planned_operations: int | None
    rate_per_s: float
    errors: int
    p99_ms: float | None = None


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
