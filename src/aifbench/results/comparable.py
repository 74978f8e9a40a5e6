"""Which runs may be compared, and which of them count."""

from collections import Counter
from collections.abc import Callable, Sequence

from aifbench.errors import ResultError, UsageError
from aifbench.results.compared import ComparedSide
from aifbench.results.record import Role, RunRecord, RunState, Verdict
from aifbench.results.selection import Side

_Source = Callable[[RunRecord], str]


def kind_of(record: RunRecord) -> str:
    return str(record.service.get("kind") or "?")


def bench_of(record: RunRecord) -> str:
    return str(record.recipe.get("bench") or "?")


def require_one_workload(side: Side) -> None:
    """All runs of a side are of one benchmark and one kind of service. Raises UsageError."""
    sources: Sequence[tuple[str, str, _Source]] = (
        ("benchmarks", "bench", bench_of),
        ("services", "service", kind_of),
    )
    for words, filter_key, source in sources:
        found = Counter(map(source, side.records)).most_common()
        if len(found) > 1:
            counts = ", ".join(f"{name} ({count})" for name, count in found)
            raise UsageError(
                f"{side.label} mixes different {words}: {counts}",
                hint=f"narrow it, such as {filter_key}={found[0][0]}",
            )


def require_same_bench(sides: Sequence[Side]) -> None:
    """Raises UsageError for runs of different benchmarks."""
    benches = [(side.label, bench_of(side.records[0])) for side in sides]
    if len({bench for _, bench in benches}) > 1:
        told = "; ".join(f"{label}: {bench}" for label, bench in benches)
        raise UsageError(
            f"different benchmarks cannot be compared: {told}", hint="compare runs of the same benchmark"
        )


def compared_side(side: Side, *, with_invalid: bool) -> ComparedSide:
    """The side's runs, those that count and those that do not. Raises ResultError when none counts."""
    reasons = [(record, _why_not(record, with_invalid=with_invalid)) for record in side.records]
    judged = tuple(record for record, reason in reasons if not reason)
    left_out = tuple((record, reason) for record, reason in reasons if reason)
    if not judged:
        told = "; ".join(f"{record.run_id}: {reason}" for record, reason in left_out[:3])
        usable = not with_invalid and any(not _why_not(record, with_invalid=True) for record, _ in left_out)
        more = "--with-invalid compares them all the same; " if usable else ""
        raise ResultError(f"no run of {side.label} counts: {told}", hint=f"{more}`show RUN` tells more")
    return ComparedSide(side.label, judged, left_out)


def _why_not(record: RunRecord, *, with_invalid: bool) -> str:
    """Why a run is not judged; nothing when it is."""
    measured = [m for m in record.measurements if m.role is Role.MEASURE]
    if record.state is RunState.RUNNING:
        return "still RUNNING"
    if not measured:
        return f"{record.state.value}, nothing was measured"
    if with_invalid or record.verdict is not Verdict.INVALID:
        return ""
    if record.state is not RunState.COMPLETE:
        return str(record.state.value)
    said = [c.message for m in measured for c in m.checks if c.verdict is Verdict.INVALID]
    return f"INVALID: {said[0]}"
