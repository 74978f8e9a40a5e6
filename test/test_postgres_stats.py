"""Server-side counters: the same changes from every version, and none across a reset."""

import unittest
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from test import fakes  # noqa: F401 - puts src on the path

from aifbench.workloads.postgres_stats import change, queries, read_snapshot

DATABASE = {
    "xact_commit": 100, "xact_rollback": 1, "blks_read": 10, "blks_hit": 90, "tup_returned": 5,
    "tup_fetched": 5, "tup_inserted": 0, "tup_updated": 0, "tup_deleted": 0, "conflicts": 0,
    "temp_files": 0, "temp_bytes": 0, "deadlocks": 0, "stats_reset": None,
}  # fmt: skip
CHECKPOINTER = {
    "num_timed": 1, "num_requested": 0, "write_time": 100.0, "sync_time": 5.0, "buffers_written": 10,
    "stats_reset": None,
}  # fmt: skip
WAL = {
    "wal_records": 10,
    "wal_fpi": 1,
    "wal_bytes": Decimal(1000),
    "wal_buffers_full": 0,
    "stats_reset": None,
}
ROWS = {"database": DATABASE, "checkpointer": CHECKPOINTER, "wal": WAL}


def later(**changed: Any) -> dict[str, dict[str, Any]]:
    return {
        view: {name: changed.get(name, value) for name, value in row.items()} for view, row in ROWS.items()
    }


class Changes(unittest.TestCase):
    def test_what_happened(self) -> None:
        after = later(xact_commit=300, blks_hit=1080, blks_read=20, wal_bytes=Decimal(5000), deadlocks=2,
                      num_requested=1, write_time=1100.0)  # fmt: skip
        found = change(read_snapshot(ROWS, 10.0), read_snapshot(after, 12.0))
        assert found is not None
        self.assertEqual((200, 0, 2), (found.commits, found.rollbacks, found.deadlocks))
        self.assertEqual(
            (0.99, 4000, 20), (found.cache_hit_share, found.wal_bytes, found.wal_bytes_per_commit)
        )
        self.assertEqual(
            (0, 1, 1.0), (found.checkpoints_timed, found.checkpoints_requested, found.checkpoint_write_s)
        )

    def test_a_reset_leaves_nothing_to_tell(self) -> None:
        before = read_snapshot(ROWS, 0.0)
        for changed in ({"xact_commit": 3}, {"stats_reset": datetime(2026, 1, 1, tzinfo=UTC)}):
            self.assertIsNone(change(before, read_snapshot(later(**changed), 1.0)))

    def test_nothing_read_has_no_hit_share_and_old_versions_no_wal(self) -> None:
        rows = {view: row for view, row in ROWS.items() if view != "wal"}
        found = change(read_snapshot(rows, 0.0), read_snapshot(rows, 1.0))
        assert found is not None
        self.assertEqual((None, None), (found.cache_hit_share, found.wal_bytes))

    def test_versions(self) -> None:
        self.assertEqual({"database", "checkpointer"}, set(queries(130000)))
        self.assertIn("pg_stat_bgwriter", queries(160000)["checkpointer"])
        self.assertIn("pg_stat_checkpointer", queries(180000)["checkpointer"])
        self.assertEqual({"database", "checkpointer", "wal", "io"}, set(queries(180000)))


if __name__ == "__main__":
    unittest.main()
