"""How steady repeated runs are: their headline numbers by groups of equal configuration."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any

from aifbench.results.headline import headline_metrics, main_measurement
from aifbench.results.query import study_of
from aifbench.results.record import RunRecord, RunState

# Of the relative standard deviation. With 5 % between runs, 5 repeats a side find changes of about 13 %.
_STABILITY = ((0.02, "stable"), (0.05, "fair"), (0.10, "noisy"))
_FEWEST = 3
# What differs between repeats of one thing.
_NOT_ASKED = {"facts", "given", "note", "seed", "study", "again", "recipe_text"}


@dataclass(frozen=True, slots=True)
class Steadiness:
    """One headline metric over the runs of a group; `cv` is None for fewer than two runs or a mean of 0."""

    metric: str
    unit: str
    n: int
    median: float
    cv: float | None
    low: float
    high: float

    @property
    def word(self) -> str:
        """`stable`, `fair`, `noisy` or `unstable`; of fewer than three runs nothing can be said."""
        if self.n < _FEWEST or self.cv is None:
            return "too few"
        return next((word for limit, word in _STABILITY if self.cv <= limit), "unstable")


@dataclass(frozen=True, slots=True)
class Repeats:
    """Runs that were asked the same: `asked` says what, `left_out` how many did not complete."""

    service: str
    bench: str
    asked: str
    runs: tuple[str, ...]
    left_out: int
    metrics: tuple[Steadiness, ...]


def repeats(records: Sequence[RunRecord]) -> list[Repeats]:
    """Groups in the order of their first run; within a group the metrics that its runs are quoted by."""
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(_configuration(record), []).append(record)
    return [_repeats(group) for group in groups.values()]


def _repeats(group: Sequence[RunRecord]) -> Repeats:
    complete = [record for record in group if record.state is RunState.COMPLETE]
    first = group[0]
    return Repeats(
        service=str(first.service.get("name") or first.service.get("kind") or ""),
        bench=str(first.recipe.get("bench", "")),
        asked=_asked(first),
        runs=tuple(record.run_id for record in complete),
        left_out=len(group) - len(complete),
        metrics=tuple(_steadiness(complete)),
    )


def _steadiness(records: Sequence[RunRecord]) -> Iterable[Steadiness]:
    found: dict[tuple[str, str], list[float]] = {}
    for record in records:
        measurement = main_measurement(record)
        for metric in headline_metrics(measurement) if measurement else []:
            if metric.value is not None:
                found.setdefault((metric.name, metric.unit), []).append(metric.value)
    for (name, unit), values in found.items():
        mean = fmean(values)
        cv = stdev(values) / abs(mean) if len(values) > 1 and mean else None
        yield Steadiness(name, unit, len(values), median(values), cv, min(values), max(values))


def _configuration(record: RunRecord) -> str:
    """Equal for runs that were asked the same of the same kind of service, started the same way."""
    recipe = {
        key: value for key, value in record.recipe.items() if key not in _NOT_ASKED and value is not None
    }
    service = {key: record.service.get(key) for key in ("kind", "name", "options")}
    return repr((_sorted(service), _sorted(recipe)))


def _sorted(value: Any) -> Any:
    return sorted((str(k), _sorted(v)) for k, v in value.items()) if isinstance(value, Mapping) else value


def _plain(value: object) -> str:
    """`12` of 12.0, as it was typed."""
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _asked(record: RunRecord) -> str:
    """The point of the study, else the options that were given."""
    label = str(study_of(record).get("label", ""))
    given = record.recipe.get("given")
    keys = given if isinstance(given, list) else []
    options = ", ".join(f"{key} {_plain(record.recipe.get(key))}" for key in keys if key != "note")
    return label or options or "defaults"
