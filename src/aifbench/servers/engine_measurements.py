"""What other people's benchmarks said, as measurements: one for each of their own phases."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aifbench.results.record import Check, Measurement, Metric, Verdict
from aifbench.results.validity import check_duration
from aifbench.units import format_number
from aifbench.workloads.engine_types import EngineReading, EngineResult

TOTAL = "total"
_TOTALS = {"bandwidth": "bandwidth_mean", "metadata": "metadata_mean", "score": "score"}
_PERCENTILE = re.compile(r" p([\d.]+)$")
_PART = re.compile(r" (rate|p[\d.]+)$")
# Its phases write until time is called, and read and delete what there is: less time is no better.
_WORK_VARIES = frozenset({"io500"})
# What makes a score unfit and leaves the phases that were finished as they are.
_OF_THE_SCORE = frozenset(
    {
        "IO500_TRUNCATED",
        "IO500_ZERO_PHASE",
        "IO500_FIRST_FORMULA",
        "IO500_NOT_FOR_THE_LIST",
        "IO500_DAMAGED_LINES",
    }
)


@dataclass(frozen=True, slots=True)
class EngineRun:
    """How an engine was run; `processes` and `nodes` are 0 where nobody knows. `checks` are about all of it.

    `exits` are about how it ended. `more` has metrics to add, by phase.
    """

    engine: str
    processes: int
    nodes: int
    parameters: Mapping[str, Any] = field(default_factory=dict)
    started_utc: str = ""
    checks: Sequence[Check] = ()
    exits: Sequence[Check] = ()
    more: Mapping[str, Sequence[Metric]] = field(default_factory=dict)


def engine_measurements(run: EngineRun, reading: EngineReading) -> list[Measurement]:
    """One for each of the program's own phases; without any, one that says why."""
    groups = _by_phase(reading.results) or {run.engine: []}
    spent_s = sum(time_s for name, found in groups.items() if name != TOTAL for time_s in [_time_s(found)])
    return [
        Measurement(
            phase=name,
            stream=run.engine,
            arrivals=_started(run),
            via=run.engine,
            workers=run.processes,
            window_s=(0.0, spent_s if name == TOTAL else _time_s(found)),
            metrics=(*_metrics(run, found), *run.more.get(name, ())),
            checks=tuple(_checks(run, reading, name, found, has_total=TOTAL in groups)),
            parameters=run.parameters,
            started_utc=run.started_utc,
        )
        for name, found in groups.items()
    ]


def _started(run: EngineRun) -> str:
    """`8 processes on 2 nodes`, as far as it is known."""
    if not run.processes:
        return "processes not told"
    processes = f"{run.processes:,} process{'es' if run.processes > 1 else ''}"
    return f"{processes} on {run.nodes:,} node{'s' if run.nodes > 1 else ''}" if run.nodes else processes


def _by_phase(results: Sequence[EngineResult]) -> dict[str, list[EngineResult]]:
    """By the program's own phases, in their order: `write p99` is of `write`; totals are together."""
    groups: dict[str, list[EngineResult]] = {}
    for result in results:
        name = TOTAL if result.name in _TOTALS else _PART.sub("", result.name)
        groups.setdefault(name, []).append(result)
    return groups


def _time_s(results: Sequence[EngineResult]) -> float:
    return next((result.time_s for result in results if result.time_s is not None), 0.0)


def _metrics(run: EngineRun, results: Sequence[EngineResult]) -> Iterator[Metric]:
    """The figures to judge by, bandwidths per node too, and what the program says besides."""
    for result in results:
        name, n = _metric_name(result), result.repeats
        note = ""
        if n > 1 and result.low is not None and result.high is not None:
            # The extremes of a few repeats are no interval of confidence.
            low, high = format_number(result.low), format_number(result.high)
            note = f"of {n} repeats; lowest {low}, highest {high}"
        yield Metric(name, result.value, result.unit, result.direction, n=n, note=note)
        if run.nodes > 1 and name == "bandwidth":
            each = result.value / run.nodes
            yield Metric("bandwidth_per_node", each, result.unit, result.direction, n=n)
        if name in ("bandwidth", "throughput") and result.first_done is not None:
            note = "when the first process was done, or time was called: not how long the work takes"
            first = result.first_done
            yield Metric(f"{name}_first_done", first, result.unit, result.direction, n=n, note=note)
    if timed := next((result for result in results if result.time_s is not None), None):
        direction = "none" if run.engine in _WORK_VARIES else "lower"
        yield Metric("time", timed.time_s, "s", direction, n=timed.repeats)


def _metric_name(result: EngineResult) -> str:
    """As the same quantity is called everywhere else."""
    if result.name in _TOTALS:
        return _TOTALS[result.name]
    if percentile := _PERCENTILE.search(result.name):
        return f"service_p{percentile[1].replace('.', '')}"
    return "bandwidth" if result.unit.endswith("B/s") else "throughput"


def _checks(
    run: EngineRun, reading: EngineReading, name: str, results: Sequence[EngineResult], *, has_total: bool
) -> Iterator[Check]:
    """What ended a run early spoils its score, and not the phases that had come to their end."""
    yield _result_check(run.engine, name, results)
    if name != TOTAL and results:
        yield _duration_check(run.engine, results)
    is_phase_of_score = has_total and name != TOTAL
    for finding in reading.findings:
        if not (is_phase_of_score and finding.code in _OF_THE_SCORE):
            verdict = Verdict.INVALID if finding.is_fatal else Verdict.WARN
            yield Check(finding.code, verdict, finding.message, advice=finding.advice)
    if not is_phase_of_score:
        yield from run.exits
    yield from run.checks


def _duration_check(engine: str, results: Sequence[EngineResult]) -> Check:
    """DURATION by the program's own clock; to run for a time, as some can be told, is the same work."""
    if all(result.time_s is None for result in results):
        message = f"{engine} does not tell for how long it measured"
        return Check("DURATION", Verdict.WARN, message, advice="see that its work takes 10 s and more")
    return check_duration(_time_s(results))


def _result_check(engine: str, name: str, results: Sequence[EngineResult]) -> Check:
    """RESULT: there is one, and the program itself does not call it invalid."""
    if not results:
        return Check("RESULT", Verdict.INVALID, f"{engine} printed no result", advice="see its output")
    if not all(result.is_valid for result in results):
        return Check("RESULT", Verdict.INVALID, f"{engine} has no valid result of {name}")
    return Check("RESULT", Verdict.VALID, f"{engine} came to a result of {name}")
