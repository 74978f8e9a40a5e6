"""Phases of several services put together: names that tell them apart, and each verified by its own."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from aifbench.load.fleet import PhaseOutcome
from aifbench.load.plan import PhasePlan, StreamPlan, WorkerReport
from aifbench.load.samples import Samples
from aifbench.results.record import Measurement
from aifbench.servers.benchmark import Evidence, Phase


def stream_name(role: str, stream: str) -> str:
    return f"{role}.{stream}"


def prefixed(role: str, phase: Phase) -> Phase:
    """A phase of one service, under a name that tells whose it is."""
    return joined(f"{role}-{phase.plan.name}", {role: phase})


def joined(name: str, parts: Mapping[str, Phase], **timing: Any) -> Phase:
    """All phases of `parts`, by role, as one; `timing` replaces the settings of PhasePlan of that name.

    What decides about a phase as a whole is that of the first: they are all measured, or there is only one.
    """
    first = next(iter(parts.values()))
    plan = replace(
        first.plan,
        name=name,
        streams=tuple(_renamed(role, part.plan, stream) for role, part in parts.items()
                      for stream in part.plan.streams),
        **timing,
    )  # fmt: skip

    def verify(outcome: PhaseOutcome, measured: Mapping[str, Measurement]) -> Mapping[str, Evidence]:
        found: dict[str, Evidence] = {}
        for role, part in parts.items():
            own_plan = replace(plan, streams=part.plan.streams, endpoint=part.plan.endpoint)
            own = {stream.name: measured[stream_name(role, stream.name)] for stream in part.plan.streams}
            extra = part.verify(MemberOutcome(outcome, own_plan, role), own)
            found |= {_label(role, label): evidence for label, evidence in extra.items()}
        return found

    @contextmanager
    def watching(directory: Path) -> Iterator[None]:
        with ExitStack() as stack:
            for role, part in parts.items():
                stack.enter_context(part.watching(directory / f"{name}-{role}"))
            yield

    return replace(
        first,
        plan=plan,
        verify=verify,
        watching=watching,
        by_stream={
            stream_name(role, s.name): part for role, part in parts.items() for s in part.plan.streams
        },
    )


def _renamed(role: str, plan: PhasePlan, stream: StreamPlan) -> StreamPlan:
    return replace(stream, name=stream_name(role, stream.name), endpoint=plan.endpoint_of(stream))


def _label(role: str, label: str) -> str:
    """As the whole has it: a stream of this phase, or `phase/stream` of an earlier one of that service."""
    phase, slash, stream = label.rpartition("/")
    return f"{role}-{phase}/{stream_name(role, stream)}" if slash else stream_name(role, label)


class MemberOutcome(PhaseOutcome):
    """One service's part of a phase, by the names that its own benchmark gave."""

    def __init__(self, whole: PhaseOutcome, plan: PhasePlan, role: str) -> None:
        super().__init__(
            whole.directory, plan, whole.start_wall_s, whole.problem, interrupted=whole.interrupted
        )
        self._whole = whole
        self._role = role

    def reports(self, stream: StreamPlan) -> list[WorkerReport]:
        return [replace(report, stream=stream.name) for report in self._whole.reports(self._in_whole(stream))]

    def samples(self, stream: StreamPlan) -> Samples:
        return self._whole.samples(self._in_whole(stream))

    def recover(self, stream: StreamPlan) -> None:
        self._whole.recover(self._in_whole(stream))

    def program_folder(self, stream: StreamPlan, worker: int) -> Path:
        return self._whole.program_folder(self._in_whole(stream), worker)

    def discard_raw(self, stream: StreamPlan) -> None:
        self._whole.discard_raw(self._in_whole(stream))

    def _in_whole(self, stream: StreamPlan) -> StreamPlan:
        return _renamed(self._role, self.plan, stream)
