"""The directory of runs: one directory per run, listed by scanning, safe for several shells at once.

No data base: record files appear complete or not at all by rename, which holds on Lustre and NFS too.
What a run directory holds is described in results/README.md.
"""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from aifbench.clock import Clock, utc_text
from aifbench.errors import ResultError, SchemaMismatch, UnknownRun
from aifbench.options import nearest
from aifbench.results.files import (
    beat,
    claim_directory,
    dated_directories,
    heartbeat_age_s,
    read_json,
    some,
    write_json,
)
from aifbench.results.ownership import current_owner, is_owner_alive
from aifbench.results.query import RunSummary, matcher, sort_key, unreadable
from aifbench.results.record import RunRecord, RunState
from aifbench.results.tags import Tags, read_tags

__all__ = ["RECORD_FILE", "RunStore", "RunSummary", "current_owner", "is_owner_alive"]

RECORD_FILE = "record.json"
RUN_ID = re.compile(r"\d{8}-\d{6}-[a-z0-9][a-z0-9-]*-[0-9a-f]{4}")


class RunStore:
    """Runs under `results_dir`, which is made at the first `create`."""

    def __init__(self, results_dir: Path, clock: Clock) -> None:
        self._dir = results_dir
        self._clock = clock

    def path(self, run_id: str) -> Path:
        """The directory of a run; it need not exist."""
        return self._dir / run_id

    def create(
        self,
        service: Mapping[str, Any],
        recipe: Mapping[str, Any],
        provenance: Mapping[str, Any] | None = None,
    ) -> RunRecord:
        """A new RUNNING run owned by this process, its directory made and its record written.

        `service["kind"]` becomes part of the run's id.
        """
        run_id = self.claim(str(service.get("kind", "")), self._clock.wall_s())
        record = RunRecord(
            run_id=run_id,
            created_utc=utc_text(self._clock.wall_s()),
            state=RunState.RUNNING,
            service=service,
            recipe=recipe,
            provenance=provenance or {},
            owner=current_owner(),
        )
        self.heartbeat(run_id)
        self.write(record)
        return record

    def claim(self, kind: str, wall_s: float) -> str:
        """The id of a new run of that time, its directory made; there is nothing in it yet."""
        return claim_directory(self._dir, kind, wall_s, "run")

    def write(self, record: RunRecord) -> None:
        """Store `record`. A reader, or a crash at any moment, sees the old or the new one, never a part."""
        write_json(self.path(record.run_id) / RECORD_FILE, record.to_json())

    def heartbeat(self, run_id: str) -> None:
        """Tell other hosts that this run's owner lives; to be called every few seconds while RUNNING."""
        beat(self.path(run_id), self._clock.wall_s())

    def load(self, ref: str) -> RunRecord:
        """The record that `ref` names; RUNNING without a living owner is returned as INTERRUPTED."""
        return self._read(self.resolve(ref))

    def resolve(self, ref: str) -> str:
        """The run id for a full id, a unique beginning or ending of one (such as its 4 digits), or `last`."""
        run_ids = self.run_ids()
        if ref == "last" and run_ids:
            return run_ids[0]
        if ref in run_ids:
            return ref
        found = [run_id for run_id in run_ids if ref and (run_id.startswith(ref) or run_id.endswith(ref))]
        if len(found) == 1:
            return found[0]
        raise _not_one(ref, found, run_ids)

    def run_ids(self) -> Sequence[str]:
        """Every run's id, newest first, without opening any record."""
        return dated_directories(self._dir, RUN_ID)

    def list(
        self, filters: Sequence[str] = (), sort: str = "created", limit: int | None = None
    ) -> Sequence[RunSummary]:
        """Runs that match every filter (see query), newest first unless sorted by another key.

        Unreadable records are listed too, with their problem. By creation, only as many records as
        `limit` asks for are read.
        """
        matches = matcher(filters, self._clock.wall_s())
        order = sort_key(sort)
        found = (summary for summary in map(self.summary, self.run_ids()) if matches(summary))
        if order is None:
            return [*islice(found, limit)]
        return sorted(found, key=order)[:limit]

    def records(self, filters: Sequence[str] = ()) -> Sequence[tuple[RunRecord, Tags]]:
        """What can be read of the runs that match every filter, newest first, with their tags."""
        matches = matcher(filters, self._clock.wall_s())
        found = []
        for run_id in self.run_ids():
            with suppress(ResultError):
                record, tags = self._read(run_id), read_tags(self.path(run_id))
                if matches(RunSummary.of(record, 0, tags)):
                    found.append((record, tags))
        return found

    def tags(self, run_id: str) -> Tags:
        """What people said about a run."""
        return read_tags(self.path(run_id))

    def summary(self, run_id: str) -> RunSummary:
        """One line about a run, also about one whose record cannot be read."""
        size_bytes = _tree_size(self.path(run_id))
        try:
            return RunSummary.of(self._read(run_id), size_bytes, read_tags(self.path(run_id)))
        except ResultError as error:
            problem = error.message.replace(f"{self.path(run_id)}{os.sep}", "")
            return unreadable(run_id, size_bytes, problem)

    def _read(self, run_id: str) -> RunRecord:
        path = self.path(run_id) / RECORD_FILE
        record = RunRecord.from_json(read_json(path))
        if record.run_id != run_id:
            raise SchemaMismatch(f"{path} holds the record of another run, {record.run_id!r}")
        return self._as_it_is_now(record)

    def _as_it_is_now(self, record: RunRecord) -> RunRecord:
        if record.state is not RunState.RUNNING:
            return record
        age_s = heartbeat_age_s(self.path(record.run_id), self._clock.wall_s())
        if is_owner_alive(record.owner, age_s):
            return record
        writer = f"process {record.owner.get('pid', '?')} on {record.owner.get('host', '?')}"
        return replace(
            record,
            state=RunState.INTERRUPTED,
            error=record.error or f"{writer} ended before the run did",
        )


def _not_one(ref: str, found: Sequence[str], run_ids: Sequence[str]) -> UnknownRun:
    if found:
        return UnknownRun(f"{ref!r} matches {len(found)} runs", hint=f"give one of: {some(found)}")
    if not run_ids:
        return UnknownRun(
            f"no run matches {ref!r}: nothing has been measured yet", hint="`bench` makes a run"
        )
    endings = {run_id[-4:]: run_id for run_id in run_ids}
    close = nearest(ref, [*run_ids, *endings])
    return UnknownRun(f"no run matches {ref!r}{close}", hint="`results` lists them; `last` is the newest")


def _tree_size(directory: Path) -> int:
    """Bytes of all files below; what vanishes meanwhile counts nothing."""
    total = 0
    pending = [os.fspath(directory)]
    while pending:
        with suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    return total
