"""What a study tells while it runs, and what it needs of a session: the seams that tests fill."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from aifbench.cluster.jobs import JobInfo
from aifbench.load.progress import Progress, Silent
from aifbench.results.record import RunRecord
from aifbench.results.study import StudyRecord, Trial
from aifbench.studies.recipe import Catalog


class Status(Protocol):
    """A deployed service now."""

    @property
    def name(self) -> str: ...

    @property
    def stage(self) -> Enum: ...

    @property
    def job(self) -> JobInfo: ...

    @property
    def detail(self) -> str: ...

    @property
    def advice(self) -> str: ...


class Services(Catalog, Protocol):
    """Starts, watches, loads and stops services; Session is one."""

    def instances(self) -> list[str]: ...

    def kind_of(self, name: str) -> str: ...

    def start(self, kind: str, given: Mapping[str, Any]) -> Status: ...

    def check(
        self, name: str, *, wait_s: float = 0.0, progress: Callable[[Any], None] = lambda _: None
    ) -> Status: ...

    def stop(self, names: Sequence[str]) -> Sequence[Status]: ...

    def bench(
        self,
        name: str,
        bench: str,
        given: Mapping[str, Any],
        progress: Progress,
        *,
        study: Mapping[str, Any] | None = None,
    ) -> RunRecord: ...

    def bench_together(
        self,
        members: Mapping[str, tuple[str, str, Mapping[str, Any]]],
        together: str,
        given: Mapping[str, Any],
        progress: Progress,
        *,
        study: Mapping[str, Any] | None = None,
    ) -> RunRecord: ...


@dataclass(frozen=True, slots=True)
class TrialNews:
    """The trial that begins or has ended, the `number`th of `total`; `run` is that of a DONE one."""

    number: int
    total: int
    label: str
    trial: Trial
    run: RunRecord | None = None


class StudyProgress(Protocol):
    """Receives what happens; must return at once."""

    def opened(self, record: StudyRecord) -> None:
        """The study has its id, and begins or goes on."""

    def note(self, text: str) -> None:
        """Something worth keeping on screen."""

    def waits_for(self, status: Any) -> None:
        """A service is not ready yet; called at every look at it."""

    def begins(self, news: TrialNews) -> Progress:
        """A trial begins; what is returned is told of its load."""

    def ended(self, news: TrialNews) -> None:
        """A trial is DONE or FAILED."""


class SilentStudy:
    """A StudyProgress that nobody watches."""

    def opened(self, record: StudyRecord) -> None: ...

    def note(self, text: str) -> None: ...

    def waits_for(self, status: Any) -> None: ...

    def begins(self, news: TrialNews) -> Progress:
        del news
        return Silent()

    def ended(self, news: TrialNews) -> None: ...
