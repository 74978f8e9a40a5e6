"""A study as points with their runs: each metric's values over the repeats, their centre, interval and noise.

The run is the unit: whatever a run did inside of itself, it gives one value per metric.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from aifbench.report.content import measured
from aifbench.results.headline import in_requests, is_streamed, main_measurement
from aifbench.results.record import Measurement, Metric, RunRecord, RunState, Verdict
from aifbench.results.study import StudyRecord, Trial, TrialState
from aifbench.stats.intervals import quantile_interval_ranks

Key = tuple[str, str]  # phase and stream
Find = Callable[[Measurement], Metric | None]


@dataclass(frozen=True, slots=True)
class Spread:
    """A metric over the runs of a point, in the order of the runs.

    `low` and `high` enclose the median of all runs like these with `confidence`: order statistics, 95 %
    from 6 runs on, and below that the range of the runs, as sure as that is (5 runs: 93.75 %). None for
    one run. `cv` is the standard deviation by the mean, None for one run or a mean of 0.
    """

    metric: Metric
    values: tuple[float, ...]
    median: float
    low: float | None
    high: float | None
    confidence: float
    cv: float | None

    @property
    def n(self) -> int:
        return len(self.values)

    @classmethod
    def of(cls, metrics: Sequence[Metric]) -> "Spread | None":
        values = tuple(metric.value for metric in metrics if metric.value is not None)
        if not values:
            return None
        n, ordered = len(values), sorted(values)
        low, high, confidence = None, None, 0.0
        if n > 1:
            ranks = quantile_interval_ranks(n, 0.5) or (1, n)
            low, high = ordered[ranks[0] - 1], ordered[ranks[1] - 1]
            confidence = 0.95 if n >= _FIRM else 1 - 0.5 ** (n - 1)
        mean = statistics.fmean(values)
        cv = statistics.stdev(values) / abs(mean) if n > 1 and mean else None
        return cls(metrics[0], values, statistics.median(values), low, high, confidence, cv)


_FIRM = 6  # runs from which on a median has an interval of 95 %


@dataclass(frozen=True)
class PointView:
    """A point of the matrix with what became of its trials. `main` is the measurement it is told by.

    `used` are the runs whose numbers count: those that are not INVALID, or all where every one of them is.
    """

    index: int
    label: str
    settings: Mapping[str, Any]
    runs: tuple[RunRecord, ...]
    trials: tuple[Trial, ...]
    main: Key

    @cached_property
    def used(self) -> tuple[RunRecord, ...]:
        kept = tuple(run for run in self.runs if run.verdict is not Verdict.INVALID)
        return kept or tuple(run for run in self.runs if run.state is RunState.COMPLETE)

    @property
    def is_invalid(self) -> bool:
        """Whether its numbers must not be quoted: every run is INVALID, or there is none."""
        return not any(run.verdict is not Verdict.INVALID for run in self.runs)

    @property
    def left_out(self) -> int:
        """INVALID runs whose numbers do not count."""
        return len(self.runs) - len(self.used)

    @property
    def failed(self) -> tuple[Trial, ...]:
        return tuple(trial for trial in self.trials if trial.state is TrialState.FAILED)

    @property
    def pending(self) -> int:
        return sum(trial.state is TrialState.PENDING for trial in self.trials)

    @property
    def verdicts(self) -> Counter[Verdict]:
        return Counter(run.verdict for run in self.runs)

    def measurements(self, key: Key | None = None) -> list[Measurement]:
        """That measurement of each run that counts; of a run without it, none."""
        found = (measurement(run, key or self.main) for run in self.used)
        return [m for m in found if m is not None]

    def spread(self, name: str, key: Key | None = None) -> Spread | None:
        return self.spread_of(lambda m: m.metric(name), key)

    def spread_of(self, find: Find, key: Key | None = None) -> Spread | None:
        found = [(m, metric) for m in self.measurements(key) if (metric := find(m)) is not None]
        return Spread.of([in_requests(metric) if is_streamed(m) else metric for m, metric in found])


@dataclass(frozen=True)
class StudyView:
    """A study with the records of its runs; `missing` are runs whose record cannot be read, with why."""

    record: StudyRecord
    points: tuple[PointView, ...]
    main: Key
    missing: Mapping[str, str]

    @property
    def runs(self) -> list[RunRecord]:
        """All runs in the order they were made."""
        return sorted((run for point in self.points for run in point.runs), key=lambda run: run.created_utc)

    @property
    def failed(self) -> list[tuple[PointView, Trial]]:
        return [(point, trial) for point in self.points for trial in point.failed]

    @property
    def pending(self) -> int:
        return sum(point.pending for point in self.points)

    @cached_property
    def axes(self) -> dict[str, list[Any]]:
        """The settings that vary, with their values in the order of the points."""
        keys = dict.fromkeys(key for point in self.points for key in point.settings)
        values = {key: _distinct(point.settings.get(key) for point in self.points) for key in keys}
        return {key: found for key, found in values.items() if len(found) > 1}

    @property
    def shown(self) -> list[PointView]:
        """Points that have numbers."""
        return [point for point in self.points if point.measurements()]

    @property
    def verdict(self) -> Verdict:
        """INVALID while a study is not complete or has no point to quote, WARN when anything was in doubt."""
        if self.record.state is not RunState.COMPLETE or all(point.is_invalid for point in self.points):
            return Verdict.INVALID
        doubtful = any(run.verdict is not Verdict.VALID for run in self.runs)
        return Verdict.WARN if doubtful or self.failed or self.pending or self.missing else Verdict.VALID


def view(
    record: StudyRecord, runs: Mapping[str, RunRecord], missing: Mapping[str, str] | None = None
) -> StudyView:
    """`runs` by run id; a trial whose run is not among them counts as one without numbers."""
    main = _main(list(runs.values()))
    points = []
    for index, point in enumerate(record.points):
        trials = tuple(trial for trial in record.trials if trial.point == index)
        found = tuple(
            runs[trial.run_id] for trial in trials if trial.state is TrialState.DONE and trial.run_id in runs
        )
        points.append(PointView(index, point.label, point.settings, found, trials, main))
    return StudyView(record, tuple(points), main, missing or {})


def measurement(run: RunRecord, key: Key) -> Measurement | None:
    return next((m for m in measured(run) if (m.phase, m.stream) == key), None)


def _main(runs: Sequence[RunRecord]) -> Key:
    """The measurement that most runs are remembered by."""
    found = Counter((m.phase, m.stream) for run in runs if (m := main_measurement(run)))
    return found.most_common(1)[0][0] if found else ("", "")


def _distinct(values: Any) -> list[Any]:
    return list({repr(value): value for value in values}.values())
