"""What a service's benchmark is to the frame: phases of load, made one after another."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from aifbench.cluster.endpoint import Endpoint
from aifbench.load.plan import PhasePlan
from aifbench.load.progress import Progress
from aifbench.results.belongings import Belongings
from aifbench.results.record import Check, Measurement, Metric, Role
from aifbench.results.slo import Slo

if TYPE_CHECKING:
    from aifbench.load.fleet import PhaseOutcome
    from aifbench.servers.base import SlurmServer


@dataclass(frozen=True, slots=True)
class BenchmarkContext:
    """What a benchmark may use. `data_dir` is shared by all runs and visible to all workers.

    What it makes on a service it adds to `belongings` before, and strikes out once that is removed.
    """

    endpoint: Endpoint
    data_dir: Path
    run_tag: str
    progress: Progress
    belongings: Belongings = field(default_factory=Belongings)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What else was found out about one stream of a phase."""

    checks: Sequence[Check] = ()
    metrics: Sequence[Metric] = ()


Verify = Callable[["PhaseOutcome", Mapping[str, Measurement]], Mapping[str, Evidence]]


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase; `parameters` are kept with its measurements.

    `watching` is entered just before the phase and left after it. `verify` looks at the service, and at what
    was measured, once the phase is over, and adds to streams by name, and to those of earlier phases by
    `phase/stream`. A phase that is not `is_measured` only prepares the next one: its numbers are not kept,
    and its failure ends the run: any failed operation or, where it `may_fail_in_part`, only all of them.
    A program that measures itself has its numbers read by `conclude`, instead of made from samples.
    `slo` are the limits that requests are held against. A benchmark that decides by results asks for them in
    `verify`. `by_stream` are the phases whose parameters and limits a stream has, where several were put
    together.
    """

    plan: PhasePlan
    parameters: Mapping[str, Any] = field(default_factory=dict)
    verify: Verify = lambda *_: {}
    conclude: "Callable[[PhaseOutcome], Sequence[Measurement]] | None" = None
    is_measured: bool = True
    may_fail_in_part: bool = False
    role: Role = Role.MEASURE
    slo: Slo | None = None
    watching: "Callable[[Path], AbstractContextManager[object]]" = lambda _: nullcontext()
    by_stream: "Mapping[str, Phase]" = field(default_factory=dict)


class Target(Protocol):
    """What a run loads: one service, or several at once."""

    @property
    def name(self) -> str: ...

    @property
    def services(self) -> "Mapping[str, SlurmServer]":
        """All of them, by their role; that of one alone is empty."""

    def describe(self) -> dict[str, Any]:
        """What the record keeps of them. Holds no secret."""

    def benchmark(self, bench: str, options: Mapping[str, Any], context: BenchmarkContext) -> "Benchmark":
        """The benchmark of that name with resolved options; the context's endpoint is the first one's."""


class Benchmark(Protocol):
    """Phases are made lazily: what one needs (data, a collection) is prepared when it is asked for."""

    @property
    def workers(self) -> int:
        """Load workers that the largest phase needs."""

    def phases(self) -> Iterator[Phase]:
        """The phases in order. Raises WorkloadError."""

    def facts(self) -> dict[str, Any]:
        """What the record should keep of data and settings; complete after the last phase."""

    def close(self) -> None:
        """Remove what it made on the service. Called once, also after a failure; must not raise."""
