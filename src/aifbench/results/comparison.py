"""Runs against runs: what differs in how they were made, and what may be said about every number.

The unit is the run: a side is several records, and a number of it one value per run. Numbers are known by
(phase, stream, metric). Runs are compared unpaired, whatever their order was.

Holm's correction holds within a family: of one pair of sides (and one point of a study) the primary metrics,
which are the headline of what the run was made for; those of its other measurements; and all the rest. What
is said of a pair is thus the same whatever else is compared beside it, and in a study's report. Each pair is
a question of its own (R. J. Cook and V. T. Farewell, Journal of the Royal Statistical Society A 159(1),
1996): one in twenty of those without a difference may be called different, in its main numbers.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from aifbench.errors import ResultError, UsageError
from aifbench.results.comparable import compared_side, kind_of, require_one_workload, require_same_bench
from aifbench.results.compared import ComparedSide, Comparison, Key, Pair, Rank, Row, where
from aifbench.results.comparison_notes import few_notes, mixed_note, order_note
from aifbench.results.differences import Difference, differences
from aifbench.results.headline import headline_metrics, in_requests, is_streamed, main_measurement
from aifbench.results.record import Measurement, Metric, Role, RunRecord
from aifbench.results.selection import Side, point_of
from aifbench.stats.comparison import adjust, compare


def compare_sides(sides: Sequence[Side], *, with_invalid: bool = False) -> Comparison:
    """Every side against the first.

    Raises UsageError for runs of different workloads, ResultError for a side without a run that counts.
    """
    by_point = sides[0].by_point
    for side in sides:
        require_one_workload(side)
    require_same_bench(sides)
    base = compared_side(sides[0], with_invalid=with_invalid)
    others, uncounted = _counting(sides[1:], with_invalid=with_invalid)
    first, *tables = [_Table.of(side, by_point=by_point) for side in (base, *others)]
    pairs = tuple(_pair(base, other, first, table) for other, table in zip(others, tables, strict=True))
    differing = differences([side.judged for side in (base, *others)])
    differing = [found for found in differing if not (by_point and _is_of_points(found))]
    notes = [problem for side in sides for problem in side.problems] + uncounted
    notes += [] if by_point else mixed_note(differing)
    notes += few_notes(pairs)
    for other, table in zip(others, tables, strict=True):
        notes += [*_alone(base, first, table), *_alone(other, table, first)]
    notes += [note for pair in pairs for note in order_note(pair)]
    return Comparison((base, *others), tuple(differing), pairs, tuple(notes), by_point)


def _counting(sides: Sequence[Side], *, with_invalid: bool) -> tuple[list[ComparedSide], list[str]]:
    """The sides with runs that count, and why the others have none. Raises ResultError when all are such."""
    found: list[ComparedSide] = []
    failed: list[ResultError] = []
    for side in sides:
        try:
            found.append(compared_side(side, with_invalid=with_invalid))
        except ResultError as error:
            failed.append(error)
    if not found:
        raise failed[0]
    return found, [error.message for error in failed]


def _is_of_points(found: Difference) -> bool:
    """What differs between a study's points, and in the same way on every side."""
    return found.is_mixed and len(set(found.values)) == 1


@dataclass(frozen=True, slots=True)
class _Table:
    """The measurements of a side's runs by key; `main` are those that most runs are remembered by."""

    measurements: Mapping[Key, Sequence[Measurement]]
    main: frozenset[Key]

    @classmethod
    def of(cls, side: ComparedSide, *, by_point: bool) -> "_Table":
        found: dict[Key, list[Measurement]] = {}
        main: dict[str, Counter[Key]] = {}
        for record in side.judged:
            point = point_of(record) if by_point else ""
            first = main_measurement(record)
            if first is not None:
                main.setdefault(point, Counter())[(point, first.phase, first.stream)] += 1
            for key, measurement in _first_of_each(record, point).items():
                found.setdefault(key, []).append(measurement)
        return cls(found, frozenset(counts.most_common(1)[0][0] for counts in main.values()))

    def headline(self, key: Key) -> list[str]:
        """Names of what is quoted of a measurement in any of the runs."""
        quoted = (metric.name for m in self.measurements[key] for metric in headline_metrics(m))
        return [*dict.fromkeys(quoted)]

    def metrics(self, key: Key) -> dict[str, Metric]:
        """An example of every metric, by name."""
        found: dict[str, Metric] = {}
        for measurement in self.measurements[key]:
            for metric in measurement.metrics:
                found.setdefault(metric.name, in_requests(metric) if is_streamed(measurement) else metric)
        return found

    def values(self, key: Key, name: str) -> list[float | None]:
        """One value per run."""
        metrics = [measurement.metric(name) for measurement in self.measurements[key]]
        return [metric.value if metric else None for metric in metrics]


def _first_of_each(record: RunRecord, point: str) -> dict[Key, Measurement]:
    found: dict[Key, Measurement] = {}
    for measurement in record.measurements:
        if measurement.role is Role.MEASURE:
            found.setdefault((point, measurement.phase, measurement.stream), measurement)
    return found


def compare_pair(base: ComparedSide, other: ComparedSide) -> Pair:
    """One side against another, as `compare_sides` judges them. Raises as that does."""
    return _pair(base, other, _Table.of(base, by_point=False), _Table.of(other, by_point=False))


def _pair(base: ComparedSide, other: ComparedSide, a: _Table, b: _Table) -> Pair:
    common = [key for key in a.measurements if key in b.measurements]
    if not common:
        raise UsageError(
            f"{base.label} and {other.label} have nothing in common: {_places(a)} against {_places(b)}",
            hint="compare runs with the same phases and streams",
        )
    _require_alike(base, other, common, a, b)
    main = [key for key in common if key in a.main] or common[:1]
    ordered = [*main, *(key for key in common if key not in main)]
    rows = [row for key in ordered for row in _rows(key, a, b, is_main=key in main)]
    if not any(row.rank is Rank.PRIMARY for row in rows):
        raise ResultError(f"{base.label} and {other.label} have no main number in common that has a value")
    return Pair(base, other, tuple(_adjusted(rows)))


def _require_alike(
    base: ComparedSide, other: ComparedSide, common: Sequence[Key], a: _Table, b: _Table
) -> None:
    """Different kinds of service may be compared where the same numbers are quoted of them."""
    kinds = kind_of(base.judged[0]), kind_of(other.judged[0])
    for key in common if kinds[0] != kinds[1] else ():
        if apart := set(a.headline(key)) ^ set(b.headline(key)):
            raise UsageError(
                f"{kinds[0]} and {kinds[1]} cannot be compared: {where(key)} has {', '.join(sorted(apart))} "
                "on one side only",
                hint="compare runs of one kind of service",
            )


def _rows(key: Key, a: _Table, b: _Table, *, is_main: bool) -> Iterable[Row]:
    """Quoted metrics first, then the rest in their order; only what both sides have a value of."""
    first, second = a.metrics(key), b.metrics(key)
    quoted = [*dict.fromkeys((*a.headline(key), *b.headline(key)))]
    for name in dict.fromkeys((*quoted, *first)):
        if name not in first or name not in second or first[name].unit != second[name].unit:
            continue
        metric = first[name]
        finding = compare(a.values(key, name), b.values(key, name), direction=metric.direction)
        if finding.a.n and finding.b.n:
            rank = Rank.OTHER if name not in quoted else Rank.PRIMARY if is_main else Rank.SECONDARY
            yield Row(key, name, metric.unit, rank, finding)


def _adjusted(rows: Sequence[Row]) -> list[Row]:
    """The rows in their order, each judged within its family."""
    families: dict[tuple[str, Rank], list[int]] = {}
    for index, row in enumerate(rows):
        families.setdefault((row.key[0], row.rank), []).append(index)
    found = list(rows)
    for family in families.values():
        findings = adjust([rows[index].finding for index in family])
        for index, finding in zip(family, findings, strict=True):
            found[index] = replace(rows[index], finding=finding)
    return found


def _alone(side: ComparedSide, mine: _Table, yours: _Table) -> list[str]:
    alone = [where(key) for key in mine.measurements if key not in yours.measurements]
    return [f"only in {side.label}, so not compared: {', '.join(alone)}"] if alone else []


def _places(table: _Table) -> str:
    return ", ".join(map(where, table.measurements))
