"""PostgreSQL's own counters over a phase: transactions, cache hits, write-ahead log, checkpoints.

Snapshots hold counters by the names of the newest versions, whatever view an older version keeps them in.
A server process adds its counts at most once a second, and when its client leaves: take the snapshot that
ends a phase after the load's connections are closed.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Fetch = Callable[[str], Sequence[Mapping[str, Any]]]

_DATABASE = (
    "SELECT xact_commit, xact_rollback, blks_read, blks_hit, tup_returned, tup_fetched, tup_inserted,"
    " tup_updated, tup_deleted, conflicts, temp_files, temp_bytes, deadlocks, stats_reset"
    " FROM pg_stat_database WHERE datname = current_database()"
)
_WAL = "SELECT wal_records, wal_fpi, wal_bytes, wal_buffers_full, stats_reset FROM pg_stat_wal"
_CHECKPOINTER = (
    "SELECT num_timed, num_requested, write_time, sync_time, buffers_written, stats_reset"
    " FROM pg_stat_checkpointer"
)
_BGWRITER = (  # before 17 the checkpointer had no view of its own
    "SELECT checkpoints_timed AS num_timed, checkpoints_req AS num_requested,"
    " checkpoint_write_time AS write_time, checkpoint_sync_time AS sync_time,"
    " buffers_checkpoint AS buffers_written, stats_reset FROM pg_stat_bgwriter"
)
_IO = (
    "SELECT sum(reads) AS client_reads, sum(writes) AS client_writes, sum(evictions) AS client_evictions,"
    " max(stats_reset) AS stats_reset FROM pg_stat_io WHERE backend_type = 'client backend'"
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All counters at one time, by `view.column`; `resets` tells when each view last began at zero."""

    wall_s: float
    counters: Mapping[str, float]
    resets: Mapping[str, datetime | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """What happened between two snapshots; None where this version does not tell, or nothing was counted.

    Everything but `duration_s` is of the whole database or server, whoever caused it. `pooled` transactions
    went through a pooler, where they waited `pooler_wait_s` in all for a connection.
    """

    duration_s: float
    commits: float
    rollbacks: float
    deadlocks: float
    conflicts: float
    temp_files: float
    temp_bytes: float
    cache_hit_share: float | None
    wal_bytes: float | None
    wal_full_pages: float | None
    checkpoints_timed: float
    checkpoints_requested: float
    checkpoint_write_s: float
    checkpoint_sync_s: float
    pooled: float | None = None
    pooler_wait_s: float | None = None

    @property
    def wal_bytes_per_commit(self) -> float | None:
        return self.wal_bytes / self.commits if self.wal_bytes is not None and self.commits else None


def queries(version: int) -> dict[str, str]:
    """The statement for each view that a server of that version has (server_version_num)."""
    found = {"database": _DATABASE, "checkpointer": _CHECKPOINTER if version >= 170000 else _BGWRITER}
    if version >= 140000:
        found["wal"] = _WAL
    if version >= 160000:
        found["io"] = _IO
    return found


def take(fetch: Fetch, version: int, *, wall_s: Callable[[], float] = time.time) -> Snapshot:
    """Ask for all counters. Raises what `fetch` raises."""
    rows = {view: next(iter(fetch(query)), {}) for view, query in queries(version).items()}
    return read_snapshot(rows, wall_s())


def read_snapshot(rows: Mapping[str, Mapping[str, Any]], wall_s: float) -> Snapshot:
    """Of one row for each view; a counter without a value counts as 0 (a view nobody has touched yet)."""
    counters = {
        f"{view}.{column}": float(value or 0)
        for view, row in rows.items()
        for column, value in row.items()
        if column != "stats_reset"
    }
    return Snapshot(wall_s, counters, {view: row.get("stats_reset") for view, row in rows.items()})


def change(before: Snapshot, after: Snapshot) -> Change | None:
    """None when the counters began anew in between: somebody reset them, or the server crashed."""
    if before.resets != after.resets or before.counters.keys() != after.counters.keys():
        return None
    grown = {name: value - before.counters[name] for name, value in after.counters.items()}
    if min(grown.values(), default=0.0) < 0:
        return None
    hits, reads = grown["database.blks_hit"], grown["database.blks_read"]
    return Change(
        duration_s=after.wall_s - before.wall_s,
        commits=grown["database.xact_commit"],
        rollbacks=grown["database.xact_rollback"],
        deadlocks=grown["database.deadlocks"],
        conflicts=grown["database.conflicts"],
        temp_files=grown["database.temp_files"],
        temp_bytes=grown["database.temp_bytes"],
        cache_hit_share=hits / (hits + reads) if hits + reads else None,
        wal_bytes=grown.get("wal.wal_bytes"),
        wal_full_pages=grown.get("wal.wal_fpi"),
        checkpoints_timed=grown["checkpointer.num_timed"],
        checkpoints_requested=grown["checkpointer.num_requested"],
        checkpoint_write_s=grown["checkpointer.write_time"] / 1e3,
        checkpoint_sync_s=grown["checkpointer.sync_time"] / 1e3,
        pooled=grown.get("pooler.total_xact_count"),
        pooler_wait_s=grown["pooler.total_wait_time"] / 1e6 if "pooler.total_wait_time" in grown else None,
    )
