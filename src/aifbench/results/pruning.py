"""Which runs may be deleted, and their deletion. What is in doubt stays."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aifbench.errors import BenchError, ResultError, UsageError
from aifbench.results.query import RunSummary
from aifbench.results.record import RunState
from aifbench.results.store import RunStore
from aifbench.results.tags import KEEP, require_own


@dataclass(frozen=True, slots=True)
class Pruning:
    """`doomed` would be deleted; `spared` match the filters and stay, each with the reason."""

    doomed: tuple[RunSummary, ...]
    spared: tuple[tuple[RunSummary, str], ...]

    @property
    def size_bytes(self) -> int:
        return sum(run.size_bytes for run in self.doomed)


def plan_pruning(
    store: RunStore, filters: Sequence[str], *, studies: bool = False, uid: int | None = None
) -> Pruning:
    """Among the runs that match, those that may go; `studies`: runs of studies, too. Deletes nothing.

    Raises UsageError without a filter: nobody means all runs there are.
    """
    if not filters:
        raise UsageError("prune needs a filter", hint="such as verdict=INVALID, or until=30d for old ones")
    reasons = [(run, _why_kept(store, run, studies=studies, uid=uid)) for run in store.list(filters)]
    return Pruning(
        tuple(run for run, reason in reasons if not reason),
        tuple((run, reason) for run, reason in reasons if reason),
    )


def prune(store: RunStore, plan: Pruning, *, studies: bool = False, uid: int | None = None) -> list[str]:
    """Delete what was planned, looking at each again; the ids of those that are gone.

    Goes on after a run that cannot be deleted, and raises ResultError for the first of them at the end.
    """
    gone: list[str] = []
    failed: list[str] = []
    for run in plan.doomed:
        if _why_kept(store, store.summary(run.run_id), studies=studies, uid=uid):
            continue
        try:
            _delete(store.path(run.run_id))
            gone.append(run.run_id)
        except OSError as error:
            failed.append(f"{store.path(run.run_id)}: {error.strerror or error}")
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise ResultError(
            f"deleted {len(gone)} runs; cannot delete {failed[0]}{more}", hint="are they yours to delete?"
        )
    return gone


def _delete(run_dir: Path) -> None:
    """Out of the list first, so that of a run that cannot go nothing is deleted. Raises OSError."""
    aside = run_dir.with_name(f".{run_dir.name}.pruned")
    run_dir.rename(aside)
    try:
        shutil.rmtree(aside)
    except OSError:
        aside.rename(run_dir)
        raise


def _why_kept(store: RunStore, run: RunSummary, *, studies: bool, uid: int | None) -> str:
    """Why a run may not be deleted; nothing when it may."""
    if run.problem:
        return "unreadable; delete its directory by hand"
    if run.state is RunState.RUNNING:
        return "still RUNNING"
    if KEEP in run.tags.words:
        return f"tagged {KEEP}"
    if run.study_id and not studies:
        return f"of study {run.study or run.study_id}; --studies deletes those, too"
    try:
        require_own(store.path(run.run_id), uid)
    except BenchError as error:
        return error.message
    return ""
