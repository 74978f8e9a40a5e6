"""Other runs that loaded the same service while one measured: each of them then measured both loads."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from aifbench.clock import Clock, utc_text
from aifbench.errors import ResultError
from aifbench.results.files import heartbeat_age_s, some
from aifbench.results.record import Check, Measurement, RunRecord, RunState, Verdict
from aifbench.results.store import RunStore

_NEWEST = 200  # of the runs: one that is older and still goes on beside so many newer ones is not looked for
_BEATS_S = 120.0  # between two heartbeats of a run at most, preparation included


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A run, from when until when; `ended_utc` is empty while it goes on."""

    run_id: str
    created_utc: str
    ended_utc: str

    def overlaps(self, begin_utc: str, end_utc: str) -> bool:
        """Instants are whole seconds, rounded down; a run may begin in the second in which another ends."""
        return self.created_utc < end_utc and (not self.ended_utc or self.ended_utc > begin_utc)


def service_names(record: RunRecord) -> tuple[str, ...]:
    """The services that a run loads: one, or the members of several at once."""
    members = record.service.get("members")
    described: Sequence[Any] = [*members.values()] if isinstance(members, Mapping) else [record.service]
    return tuple(str(one.get("name", "")) for one in described if isinstance(one, Mapping))


def neighbours(runs: RunStore, record: RunRecord, clock: Clock) -> list[Neighbour]:
    """The other runs that loaded a service of `record` since it began, the oldest first."""
    now_s, ours = clock.wall_s(), set(service_names(record))
    since_s = now_s - _instant_s(record.created_utc)
    found = []
    for run_id in runs.run_ids()[:_NEWEST]:
        age_s = heartbeat_age_s(runs.path(run_id), now_s)
        if run_id == record.run_id or age_s is None or age_s > since_s + _BEATS_S:
            continue
        with suppress(ResultError):
            other = runs.load(run_id)
            is_over = other.state is not RunState.RUNNING
            last_sign_utc = other.ended_utc or utc_text(now_s - age_s)  # one that was killed tells no end
            neighbour = Neighbour(run_id, other.created_utc, last_sign_utc if is_over else "")
            if ours & set(service_names(other)) and neighbour.overlaps(
                record.created_utc, utc_text(now_s + 1)
            ):
                found.append(neighbour)
    return found[::-1]


def with_shared(record: RunRecord, others: Sequence[Neighbour]) -> RunRecord:
    """SHARED for every measurement that one of `others` went on beside."""
    measurements = tuple(_with_check(m, others) for m in record.measurements)
    return replace(record, measurements=measurements)


def _with_check(measurement: Measurement, others: Sequence[Neighbour]) -> Measurement:
    if not measurement.started_utc:
        return measurement
    # Instants are rounded down, and operations finish after the window: two seconds more surely reach it.
    end_s = _instant_s(measurement.started_utc) + measurement.window_s[1] + 2
    beside = [one.run_id for one in others if one.overlaps(measurement.started_utc, utc_text(end_s))]
    if not beside:
        return measurement
    runs = f"run {beside[0]}" if len(beside) == 1 else f"{len(beside)} runs ({some(beside)})"
    check = Check(
        "SHARED",
        Verdict.WARN,
        f"{runs} loaded the same service meanwhile: this measures all these loads together",
        len(beside),
        0,
        "runs",
        "run it again, alone; loads beside one another are for a recipe with `together: interference`",
    )
    return replace(measurement, checks=(*measurement.checks, check))


def _instant_s(utc: str) -> float:
    return datetime.fromisoformat(utc).timestamp()
