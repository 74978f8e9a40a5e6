"""Deployed instances on disk: one directory per job, found again by any later shell.

services/<job name>/service.json   what was asked and what is known (below)
services/<job name>/job-<id>.log   the job's output
services/<job name>/script.sh      the batch script as submitted
services/<job name>/secret         the service's secret, readable by its owner only

A service that somebody else started has neither job, log nor script, and a secret only where no file of
the user's holds it.
"""

import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from aifbench.errors import ConfigError, SchemaMismatch
from aifbench.results.decode import decode

# In place of a scheduler: somebody else started it.
ATTACHED = "attached"

_STATE_FILE = "service.json"
_SCHEMA = "aifbench.service/1"
SPACE_HINT = "free some space, or set AIFBENCH_RESULTS to a directory you can write to"

# How many ended services keep their directory. A number, not an age, so that no clock step removes any.
KEEP_ENDED = 100


@dataclass(frozen=True, slots=True)
class Instance:
    """One deployment. `job_id` is empty between reservation and submission.

    `endpoint` is the last address that answered, for the restart count `ready_restarts`; `stopped` says that
    a user asked for the end. `seen_end` is the job's final state once somebody has noticed it, and
    `end_detail` and `end_advice` are what was said of it: the job is never asked for again.
    `is_made` says that the job of a service that runs and ends has done its work: what it made is there until
    the service is stopped. `submitted_monotonic_s` holds for the running kernel that `boot_id` names.
    """

    kind: str
    name: str
    job_name: str
    options: Mapping[str, Any]
    submitted_utc: str
    submitted_wall_s: float
    submitted_monotonic_s: float = 0.0
    boot_id: str = ""
    job_id: str = ""
    scheduler: str = ""
    command: tuple[str, ...] = ()
    script_sha256: str = ""
    ready_after_s: float | None = None
    ready_restarts: int = -1
    endpoint: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    stopped: bool = False
    is_made: bool = False
    seen_end: str = ""
    end_detail: str = ""
    end_advice: str = ""
    ended_wall_s: float = 0.0

    @property
    def is_open(self) -> bool:
        """Its end has not been seen yet."""
        return not self.seen_end

    @property
    def is_attached(self) -> bool:
        """Somebody else started it: it has no job, and `endpoint` is where it was said to be."""
        return self.scheduler == ATTACHED


class InstanceStore:
    """All instances below `directory`, whoever started them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, instance: Instance) -> Path:
        return self._directory / instance.job_name

    def all(self) -> list[Instance]:
        """Every readable instance: those that ended, then the open ones, each oldest first.

        Foreign and torn files, and those of a version to come, are left alone.
        """
        found = []
        for path in self._directory.glob(f"*/{_STATE_FILE}"):
            with suppress(OSError, SchemaMismatch):
                found.append(_load(path))
        return sorted(found, key=lambda found: (found.is_open, found.submitted_wall_s, found.name))

    def open_instances(self, name: str = "") -> list[Instance]:
        """Those whose end has not been seen; of that name only, when one is given."""
        return [found for found in self.all() if found.is_open and name in ("", found.name)]

    def write(self, instance: Instance) -> None:
        """Store; a reader sees the old or the new state. Raises ConfigError when it cannot be written."""
        target = self.path(instance) / _STATE_FILE
        partial = target.with_name(f".{_STATE_FILE}.{os.getpid()}.{secrets.token_hex(2)}")
        data = {"schema": _SCHEMA, **asdict(instance)}
        try:
            partial.write_text(json.dumps(data, default=str), encoding="utf-8")
            partial.replace(target)
        except OSError as error:
            raise ConfigError(f"cannot write {target}: {error.strerror}", hint=SPACE_HINT) from error

    def update(self, instance: Instance, **changes: Any) -> Instance:
        """Change these fields of what is stored now, so that what other shells have noted since is kept."""
        with self.lock():
            try:
                stored = _load(self.path(instance) / _STATE_FILE)
            except (OSError, SchemaMismatch):
                stored = instance
            changed = replace(stored, **changes)
            self.write(changed)
        return changed

    def remove(self, instance: Instance) -> None:
        """Forget it: state, log and secret."""
        shutil.rmtree(self.path(instance), ignore_errors=True)

    def prune(self) -> None:
        """Remove the oldest ended services, so that looking at all stays quick."""
        ended = [instance for instance in self.all() if not instance.is_open]
        for instance in ended[:-KEEP_ENDED]:
            self.remove(instance)

    def make_directory(self, instance: Instance) -> Path:
        path = self.path(instance)
        try:
            path.mkdir(parents=True, mode=0o700)
        except OSError as error:
            raise ConfigError(f"cannot make {path}: {error.strerror}", hint=SPACE_HINT) from error
        return path

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps two shells from taking one name at once, where the file system has locks."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            file = (self._directory / ".lock").open("w")
        except OSError as error:
            raise ConfigError(
                f"cannot write in {self._directory}: {error.strerror}", hint=SPACE_HINT
            ) from error
        with file:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def new_job_name(kind: str, name: str) -> str:
    """Unique, so that a job can be found in the queue even when its id was never seen."""
    word = kind if name == kind else f"{kind}-{name}"
    return f"aifb-{re.sub(r'[^a-z0-9_-]', '-', word)}-{secrets.token_hex(3)}"


def _load(path: Path) -> Instance:
    """Raises OSError, and SchemaMismatch for what is no complete state of this version."""
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise SchemaMismatch(f"{path} is not complete JSON") from error
    if not isinstance(data, dict) or data.pop("schema", None) != _SCHEMA:
        raise SchemaMismatch(f"{path} is not of schema {_SCHEMA}")
    instance = decode(Instance, data, "service")
    # Its name says which directories belong to it, to be removed at its end.
    if instance.job_name != path.parent.name:
        raise SchemaMismatch(f"{path} describes another service, {instance.job_name!r}")
    assert isinstance(instance, Instance)
    return instance


def write_secret(path: Path) -> None:
    """A new random secret; see `store_secret`."""
    store_secret(path, secrets.token_urlsafe(32))


def store_secret(path: Path, secret: str) -> None:
    """Readable by its owner alone from the first moment on. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{secret}\n")
