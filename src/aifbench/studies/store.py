"""The directory of studies: one directory each, with study.json and the recipe verbatim; see results.store.

Of the shells that want to go on with a study, one gets it: who runs it is in its record, and is believed as
long as that process lives.
"""

import fcntl
import os
import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from aifbench.clock import Clock, utc_text
from aifbench.errors import ResultError, SchemaMismatch, UnknownRun
from aifbench.options import nearest
from aifbench.results.files import (
    beat,
    claim_directory,
    dated_directories,
    explained,
    heartbeat_age_s,
    read_json,
    some,
    write_json,
)
from aifbench.results.ownership import current_owner, is_owner_alive
from aifbench.results.record import RunState
from aifbench.results.study import Point, StudyRecord, Trial, TrialState

STUDY_FILE = "study.json"
RECIPE_FILE = "recipe.yaml"
STUDY_ID = re.compile(r"\d{8}-\d{6}-[a-z0-9][a-z0-9-]*-[0-9a-f]{4}")
BEAT_INTERVAL_S = 10.0

# Of this process. What else says it is run by it was left so by an error, such as a full disk.
_running: set[Path] = set()


@dataclass(frozen=True, slots=True)
class StudySummary:
    """One line of the list of studies; of one that cannot be read only the id and the `problem`."""

    study_id: str
    name: str = ""
    created_utc: str = ""
    state: RunState | None = None
    done: int = 0
    failed: int = 0
    pending: int = 0
    note: str = ""
    problem: str = ""

    @classmethod
    def of(cls, record: StudyRecord) -> "StudySummary":
        done, failed, pending = (
            count(record.trials, state) for state in (TrialState.DONE, TrialState.FAILED, TrialState.PENDING)
        )
        return cls(
            record.study_id, record.name, record.created_utc, record.state, done, failed, pending, record.note
        )


def count(trials: Sequence[Trial], state: TrialState) -> int:
    return sum(trial.state is state for trial in trials)


class StudyStore:
    """Studies under `studies_dir`, which is made at the first `create`."""

    def __init__(self, studies_dir: Path, clock: Clock) -> None:
        self._dir = studies_dir
        self._clock = clock

    def path(self, study_id: str) -> Path:
        """The directory of a study; it need not exist."""
        return self._dir / study_id

    def create(
        self,
        name: str,
        recipe: tuple[str, str],
        points: Sequence[Point],
        trials: Sequence[Trial],
        note: str = "",
        baselines: Sequence[int | None] = (),
    ) -> StudyRecord:
        """A new RUNNING study, owned by this process. `recipe` is its text and the file it came from."""
        text, file = recipe
        now_s = self._clock.wall_s()
        study_id = claim_directory(self._dir, name, now_s, "study")
        record = StudyRecord(
            study_id=study_id,
            name=name,
            created_utc=utc_text(now_s),
            state=RunState.RUNNING,
            recipe_text=text,
            recipe_file=file,
            points=tuple(points),
            trials=tuple(trials),
            note=note,
            owner=current_owner(),
            baselines=tuple(baselines),
        )
        target = self.path(study_id) / RECIPE_FILE
        try:
            with explained(f"cannot write {target}"):
                target.write_text(text, encoding="utf-8")
            self.write(record)
        except ResultError:
            shutil.rmtree(target.parent, ignore_errors=True)
            raise
        _running.add(self.path(study_id))
        return record

    def take_over(self, ref: str) -> StudyRecord:
        """The study that `ref` names, RUNNING and owned by this process from now on.

        Raises ResultError when it is running already, here or elsewhere.
        """
        study_id = self.resolve(ref)
        with self._lock(study_id):
            record = self._read(study_id)
            if record.state is RunState.RUNNING:
                raise ResultError(
                    f"study {study_id} is running already: {_writer(record)}",
                    hint="Ctrl-C there ends it; a shell on a host that died counts as running for a minute",
                )
            owned = replace(record, state=RunState.RUNNING, owner=current_owner(), error="", ended_utc="")
            self.write(owned)
            _running.add(self.path(study_id))
        return owned

    def write(self, record: StudyRecord) -> None:
        """Store `record`; a reader sees the old or the new one. Raises ResultError, as on a full disk."""
        write_json(self.path(record.study_id) / STUDY_FILE, record.to_json())

    @contextmanager
    def kept_alive(self, study_id: str, every_s: float = BEAT_INTERVAL_S) -> Iterator[None]:
        """A study just created or taken over runs: other hosts see it, however long its next step takes."""
        over = threading.Event()
        thread = threading.Thread(
            target=self._beat_until, args=(over, study_id, every_s), name="study heartbeat", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            _running.discard(self.path(study_id))
            over.set()
            thread.join()

    def load(self, ref: str) -> StudyRecord:
        """The study that `ref` names; RUNNING without a living owner is returned as INTERRUPTED."""
        return self._read(self.resolve(ref))

    def resolve(self, ref: str) -> str:
        """The study id for a full id, a unique part of one (its 4 digits, its name), or `last`."""
        ids = self.study_ids()
        if ref == "last" and ids:
            return ids[0]
        if ref in ids:
            return ref
        found = [study_id for study_id in ids if ref and ref in study_id]
        if len(found) == 1:
            return found[0]
        raise _not_one(ref, found, ids)

    def study_ids(self) -> Sequence[str]:
        """Every study's id, newest first."""
        return dated_directories(self._dir, STUDY_ID)

    def list(self) -> Sequence[StudySummary]:
        """Every study, newest first; those that cannot be read with their problem."""
        return [self._summary(study_id) for study_id in self.study_ids()]

    def _summary(self, study_id: str) -> StudySummary:
        try:
            return StudySummary.of(self._read(study_id))
        except ResultError as error:
            problem = error.message.replace(f"{self.path(study_id)}{os.sep}", "")
            return StudySummary(study_id, problem=problem)

    def _read(self, study_id: str) -> StudyRecord:
        path = self.path(study_id) / STUDY_FILE
        record = StudyRecord.from_json(read_json(path))
        if record.study_id != study_id:
            raise SchemaMismatch(f"{path} holds another study, {record.study_id!r}")
        if any(trial.point not in range(len(record.points)) for trial in record.trials):
            raise SchemaMismatch(f"{path} has a trial of a point that it does not have")
        if not _fits(record.baselines, len(record.points)):
            raise SchemaMismatch(f"{path} compares with a point that it does not have")
        return self._as_it_is_now(record)

    def _as_it_is_now(self, record: StudyRecord) -> StudyRecord:
        if record.state is not RunState.RUNNING or self._is_alive(record):
            return record
        error = record.error or f"{_writer(record)} ended before the study did; its runs are kept"
        return replace(record, state=RunState.INTERRUPTED, error=error)

    def _is_alive(self, record: StudyRecord) -> bool:
        if record.owner == current_owner():
            return self.path(record.study_id) in _running
        age_s = heartbeat_age_s(self.path(record.study_id), self._clock.wall_s())
        return is_owner_alive(record.owner, age_s)

    def _beat_until(self, over: threading.Event, study_id: str, every_s: float) -> None:
        while True:
            with suppress(ResultError):  # a full disk is told by what writes results
                beat(self.path(study_id), self._clock.wall_s())
            if over.wait(every_s):
                return

    @contextmanager
    def _lock(self, study_id: str) -> Iterator[None]:
        """Keeps two shells from taking over one study at once, where the file system has locks."""
        path = self.path(study_id)
        with explained(f"cannot read {path}"):
            descriptor = os.open(path, os.O_RDONLY)
        try:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _fits(baselines: Sequence[int | None], points: int) -> bool:
    return not baselines or (
        len(baselines) == points and all(index is None or index in range(points) for index in baselines)
    )


def _writer(record: StudyRecord) -> str:
    return f"process {record.owner.get('pid', '?')} on {record.owner.get('host', '?')}"


def _not_one(ref: str, found: Sequence[str], ids: Sequence[str]) -> UnknownRun:
    if found:
        return UnknownRun(f"{ref!r} matches {len(found)} studies", hint=f"give one of: {some(found)}")
    if not ids:
        return UnknownRun(f"no study matches {ref!r}: there is none yet", hint="`run RECIPE` makes one")
    close = nearest(ref, [*ids, *(study_id[-4:] for study_id in ids)])
    return UnknownRun(f"no study matches {ref!r}{close}", hint="`studies` lists them; `last` is the newest")
