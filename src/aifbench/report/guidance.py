"""Advice: what a run's numbers say should be done next, and which numbers say so.

A rule is a pure function of a record. It gives nothing where the numbers it rests on are missing or do not
support it; what it gives cites them. Rules name metrics and options, never a service.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from aifbench.report.content import label, measured, metric_words
from aifbench.report.reproduce import bench_command
from aifbench.results.record import Check, Measurement, Metric, RunRecord, Verdict
from aifbench.units import format_number

_MANY = 3  # reasons beyond which the rest is only counted


@dataclass(frozen=True, slots=True)
class Reason:
    """A number that advice rests on: where it was seen, its name, value and unit."""

    where: str
    name: str
    value: float
    unit: str = ""

    @property
    def words(self) -> str:
        return f"{self.where}: {self.name} {format_number(self.value, 4)} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do and why; `command` is what to type next, empty where no command does it."""

    code: str
    text: str
    because: tuple[Reason, ...]
    command: str = ""

    @property
    def reasons(self) -> str:
        """`search: LAG 12 %; ingest: CPU 98 %; and 2 more`."""
        shown = dict.fromkeys(reason.words for reason in self.because)
        more = len(shown) - _MANY
        kept = [*shown][:_MANY]
        return "; ".join([*kept, f"and {more} more"] if more > 0 else kept)


def advice(record: RunRecord) -> list[Advice]:
    """Everything the rules say about a run; what several measurements say is said once."""
    from aifbench.report.guidance_rules import LEVEL_RULES, RULES

    given = [each for m in measured(record) for rule in RULES for each in rule(record, m)]
    return merged([*given, *(each for rule in LEVEL_RULES for each in rule(record))])


def merged(given: Iterable[Advice]) -> list[Advice]:
    """One for each code and command, with the reasons of all."""
    found: dict[tuple[str, str], Advice] = {}
    for each in given:
        key = (each.code, each.command)
        before = found.get(key)
        found[key] = replace(before, because=before.because + each.because) if before else each
    return list(found.values())


def doubted(measurement: Measurement, code: str) -> Check | None:
    """The check of that code that did not hold, the most severe one, if it has a value."""
    found = [c for c in measurement.checks if c.code == code and c.verdict is not Verdict.VALID]
    found = [c for c in found if c.value is not None]
    return next((c for c in found if c.verdict is Verdict.INVALID), found[0] if found else None)


def number(measurement: Measurement, *names: str) -> Metric | None:
    """The first of these metrics that has a value."""
    found = (measurement.metric(name) for name in names)
    return next((metric for metric in found if metric and metric.value is not None), None)


def value(metric: Metric | None) -> float:
    """0 where there is none: no rule rests on a number of 0."""
    return metric.value or 0.0 if metric else 0.0


def seen(record: RunRecord, measurement: Measurement, *found: Metric | Check | None) -> tuple[Reason, ...]:
    """Metrics and checks as reasons; those without a value are left out."""
    where = label(record, measurement)
    return tuple(
        Reason(where, each.code if isinstance(each, Check) else metric_words(each), each.value, each.unit)
        for each in found
        if each is not None and each.value is not None
    )


def again(record: RunRecord, **changes: object) -> str:
    """The benchmark with other options; empty where it has no such option."""
    known = {key: value for key, value in changes.items() if key in record.recipe}
    return bench_command(record, known) if len(known) == len(changes) else ""
