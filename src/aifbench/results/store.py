"""The directory of runs: one directory per run, listed by scanning, safe for several shells at once.

No data base: record files appear complete or not at all by rename, which holds on Lustre and NFS too.
What a run directory holds is described in results/README.md.
"""

import json
import math
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from aifbench.clock import Clock, utc_text
from aifbench.errors import ResultError, SchemaMismatch, UnknownRun
from aifbench.options import nearest
from aifbench.results.ownership import current_owner, is_owner_alive
from aifbench.results.query import RunSummary, matcher, sort_key, unreadable
from aifbench.results.record import RunRecord, RunState

__all__ = ["RECORD_FILE", "RunStore", "RunSummary", "current_owner", "is_owner_alive"]

RECORD_FILE = "record.json"
HEARTBEAT_FILE = "heartbeat"
RUN_ID = re.compile(r"\d{8}-\d{6}-[a-z0-9][a-z0-9-]*-[0-9a-f]{4}")
_SPACE_HINT = "free some space, or set AIFBENCH_RESULTS to a directory you can write to"


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
        run_id = self._claim_directory(str(service.get("kind", "")))
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

    def write(self, record: RunRecord) -> None:
        """Store `record`. A reader, or a crash at any moment, sees the old or the new one, never a part."""
        target = self.path(record.run_id) / RECORD_FILE
        text = _to_text(record.to_json())
        with _explained(f"cannot write {target}"):
            _replace_file(target, text)

    def heartbeat(self, run_id: str) -> None:
        """Tell other hosts that this run's owner lives; to be called every few seconds while RUNNING."""
        path = self.path(run_id) / HEARTBEAT_FILE
        with _explained(f"cannot write {path}"):
            path.touch()
            now_s = self._clock.wall_s()
            os.utime(path, (now_s, now_s))

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
        try:
            names = [entry.name for entry in os.scandir(self._dir) if entry.is_dir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ResultError(f"cannot list {self._dir}", hint=_SPACE_HINT) from error
        return sorted(filter(RUN_ID.fullmatch, names), reverse=True)

    def list(
        self, filters: Sequence[str] = (), sort: str = "created", limit: int | None = None
    ) -> Sequence[RunSummary]:
        """Runs that match every filter (see query), newest first unless sorted by another key.

        Unreadable records are listed too, with their problem. By creation, only as many records as
        `limit` asks for are read.
        """
        matches = matcher(filters, self._clock.wall_s())
        order = sort_key(sort)
        found = (summary for summary in map(self._summary, self.run_ids()) if matches(summary))
        if order is None:
            return [*islice(found, limit)]
        return sorted(found, key=order)[:limit]

    def _claim_directory(self, kind: str) -> str:
        stamp = re.sub(r"[-:Z]", "", utc_text(self._clock.wall_s())).replace("T", "-")
        word = re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-") or "run"
        with _explained(f"cannot make a run directory in {self._dir}"):
            self._dir.mkdir(parents=True, exist_ok=True)
            while True:
                run_id = f"{stamp}-{word}-{secrets.token_hex(2)}"
                with suppress(FileExistsError):
                    self.path(run_id).mkdir()
                    return run_id

    def _summary(self, run_id: str) -> RunSummary:
        size_bytes = _tree_size(self.path(run_id))
        try:
            return RunSummary.of(self._read(run_id), size_bytes)
        except ResultError as error:
            return unreadable(run_id, size_bytes, str(error))

    def _read(self, run_id: str) -> RunRecord:
        path = self.path(run_id) / RECORD_FILE
        try:
            record = RunRecord.from_json(json.loads(path.read_bytes()))
        except OSError as error:
            raise ResultError(f"cannot read {path}: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise SchemaMismatch(f"{path} is not complete JSON") from error
        if record.run_id != run_id:
            raise SchemaMismatch(f"{path} holds the record of another run, {record.run_id!r}")
        return self._as_it_is_now(record)

    def _as_it_is_now(self, record: RunRecord) -> RunRecord:
        if record.state is not RunState.RUNNING or is_owner_alive(
            record.owner, self._heartbeat_age_s(record)
        ):
            return record
        writer = f"process {record.owner.get('pid', '?')} on {record.owner.get('host', '?')}"
        return replace(
            record,
            state=RunState.INTERRUPTED,
            error=record.error or f"{writer} ended before the run did; what it had measured is kept",
        )

    def _heartbeat_age_s(self, record: RunRecord) -> float | None:
        try:
            return self._clock.wall_s() - (self.path(record.run_id) / HEARTBEAT_FILE).stat().st_mtime
        except OSError:
            return None


def _not_one(ref: str, found: Sequence[str], run_ids: Sequence[str]) -> UnknownRun:
    if found:
        return UnknownRun(f"{ref!r} matches {len(found)} runs", hint=f"give one of: {_some(found)}")
    if not run_ids:
        return UnknownRun(
            f"no run matches {ref!r}: nothing has been measured yet", hint="`bench` makes a run"
        )
    endings = {run_id[-4:]: run_id for run_id in run_ids}
    close = nearest(ref, [*run_ids, *endings])
    return UnknownRun(f"no run matches {ref!r}{close}", hint="`results` lists them; `last` is the newest")


def _some(names: Sequence[str], limit: int = 6) -> str:
    more = f", and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResultError(f"{what}: {error.strerror or error}", hint=_SPACE_HINT) from error


def _replace_file(target: Path, text: str) -> None:
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise


def _to_text(data: Mapping[str, Any]) -> str:
    """Strict JSON: a NaN or infinity, which JSON has no word for, becomes null rather than a lost run."""
    try:
        return json.dumps(data, allow_nan=False, default=_jsonable)
    except ValueError:
        return json.dumps(_finite(data), allow_nan=False, default=_jsonable)


def _jsonable(value: Any) -> Any:
    """Array scalars as numbers; anything else, such as a path, as its text."""
    item = getattr(value, "item", None)
    return item() if callable(item) else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


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
