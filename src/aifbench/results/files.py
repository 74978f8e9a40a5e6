"""Dated directories with JSON files in them: claimed once, written whole, safe for several shells at once.

Files appear complete or not at all by rename, which holds on Lustre and NFS too.
"""

import json
import math
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from aifbench.clock import utc_text
from aifbench.errors import ResultError, SchemaMismatch

HEARTBEAT_FILE = "heartbeat"
_SPACE_HINT = "free some space, or set AIFBENCH_RESULTS to a directory you can write to"


def claim_directory(parent: Path, name: str, wall_s: float, fallback: str) -> str:
    """Make `<UTC stamp>-<name>-<4 hex digits>` in `parent`, which is made too; the new directory's name."""
    stamp = re.sub(r"[-:Z]", "", utc_text(wall_s)).replace("T", "-")
    word = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or fallback
    with explained(f"cannot make a directory in {parent}"):
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            claimed = f"{stamp}-{word}-{secrets.token_hex(2)}"
            with suppress(FileExistsError):
                (parent / claimed).mkdir()
                return claimed


def dated_directories(parent: Path, pattern: re.Pattern[str]) -> Sequence[str]:
    """Names of the directories in `parent` that match, newest first; none when there is no `parent`."""
    try:
        names = [entry.name for entry in os.scandir(parent) if entry.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ResultError(
            f"cannot list {parent}: {error.strerror or error}",
            hint="set AIFBENCH_RESULTS to a directory you can read",
        ) from error
    return sorted(filter(pattern.fullmatch, names), reverse=True)


def beat(directory: Path, wall_s: float) -> None:
    """Tell other hosts that the owner of what is in `directory` lives."""
    path = directory / HEARTBEAT_FILE
    with explained(f"cannot write {path}"):
        path.touch()
        os.utime(path, (wall_s, wall_s))


def heartbeat_age_s(directory: Path, wall_s: float) -> float | None:
    """Seconds since the last beat; None where there was none."""
    try:
        return wall_s - (directory / HEARTBEAT_FILE).stat().st_mtime
    except OSError:
        return None


def read_json(path: Path) -> Any:
    """Raises ResultError for a file that cannot be read, SchemaMismatch for one that is no complete JSON."""
    try:
        with open(path, "rb", opener=_at_once) as file:
            return json.loads(file.read())
    except OSError as error:
        raise ResultError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise SchemaMismatch(
            f"{path} is not complete JSON", hint="what lies beside it, such as samples and logs, is as it was"
        ) from error


def _at_once(path: str, flags: int) -> int:
    """A pipe in a results folder that others write to must not hold up the list."""
    return os.open(path, flags | os.O_NONBLOCK)


def write_json(target: Path, data: Mapping[str, Any]) -> None:
    """Store `data`. A reader, or a crash at any moment, sees the old or the new file, never a part."""
    text = to_text(data)
    with explained(f"cannot write {target}"):
        replace_file(target, text)


def some(names: Sequence[str], limit: int = 6) -> str:
    """The first names, and how many more there are."""
    more = f", and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


@contextmanager
def explained(what: str, hint: str = _SPACE_HINT) -> Iterator[None]:
    """An OSError as a ResultError that says what failed."""
    try:
        yield
    except OSError as error:
        raise ResultError(f"{what}: {error.strerror or error}", hint=hint) from error


def replace_file(target: Path, text: str) -> None:
    """Write `target` by rename, so that nobody ever reads a part of it. Raises OSError."""
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


def to_text(data: Mapping[str, Any]) -> str:
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
