"""A directory of our own on a file system that others use: made, marked, and removed without touching more.

Removal goes by open directories, never by paths: whatever becomes a symbolic link meanwhile is removed as a
link, and nothing outside, or on another device, is reached. The marker goes last, so that a removal that was
interrupted can be taken up again.
"""

import json
import os
import secrets
import stat
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from aifbench.errors import UsageError, WorkloadError

MARKER = ".aifbench-directory.json"

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MARKER_MAX_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Marker:
    """Whose directory it is: the numeric user, the run it was made for, and a random id."""

    uid: int
    run: str
    id: str


@dataclass(frozen=True, slots=True)
class OwnDirectory:
    """`path` is without symbolic links; `marker` is what the file in it said when it was made or found."""

    path: Path
    marker: Marker

    @classmethod
    def create(cls, parent: str | Path, name: str, run: str) -> "OwnDirectory":
        """Make `name` in the existing directory `parent`. Raises UsageError with what to do about it."""
        if not name or "/" in name or name in (".", ".."):
            raise UsageError(f"{name!r} cannot name a directory", hint="give one plain name")
        place = checked_parent(parent)
        path = place / name
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            raise UsageError(f"{path} exists already", hint=_exists_hint(path)) from None
        except OSError as error:
            raise WorkloadError(f"cannot make {path}: {error.strerror}", hint=_hint(error, place)) from None
        marker = Marker(os.getuid(), run, secrets.token_hex(8))
        try:
            with (path / MARKER).open("x", encoding="utf-8") as file:
                json.dump(asdict(marker), file)
        except OSError as error:
            with suppress(OSError):
                (path / MARKER).unlink()
            with suppress(OSError):
                path.rmdir()
            raise WorkloadError(
                f"cannot write in {path}: {error.strerror}", hint=_hint(error, place)
            ) from None
        return cls(path, marker)

    @classmethod
    def find(cls, path: str | Path) -> "OwnDirectory":
        """One made earlier, as by a run that was interrupted. Raises UsageError unless it is ours."""
        place = checked_parent(Path(path).parent) / Path(path).name
        try:
            fd = os.open(place, _OPEN_DIRECTORY)
        except OSError as error:
            raise UsageError(f"{place} is no directory of ours: {error.strerror}") from None
        try:
            return cls(place, _read_marker(fd, place))
        finally:
            os.close(fd)

    def remove(self) -> None:
        """Everything in it, and itself; may be called again after an interruption, and when it is gone.

        Raises WorkloadError when another one is in its place, or when something is left that is not ours to
        remove: what is mounted inside, for instance.
        """
        try:
            parent_fd = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except OSError as error:
            raise WorkloadError(f"cannot reach {self.path}: {error.strerror}") from None
        try:
            self._remove_in(parent_fd)
        finally:
            os.close(parent_fd)

    def _remove_in(self, parent_fd: int) -> None:
        try:
            fd = os.open(self.path.name, _OPEN_DIRECTORY, dir_fd=parent_fd)
        except FileNotFoundError:
            return
        except OSError as error:
            raise WorkloadError(f"{self.path} is not what we made: {error.strerror}") from None
        try:
            if _read_marker(fd, self.path) != self.marker:
                raise WorkloadError(
                    f"{self.path} belongs to another run by now", hint="look at its marker file"
                )
            left = _empty(fd, os.fstat(fd).st_dev, keep=MARKER)
            if left:
                raise WorkloadError(f"could not remove {left[0]} in {self.path}", hint="look what it is")
            os.unlink(MARKER, dir_fd=fd)
            os.rmdir(self.path.name, dir_fd=parent_fd)
        except FileNotFoundError:
            return  # somebody else, such as `stop`, was faster
        except OSError as error:
            raise WorkloadError(f"cannot remove {self.path}: {error.strerror}") from None
        finally:
            os.close(fd)


def checked_parent(parent: str | Path) -> Path:
    """The real path of an existing directory in which we may write. Raises UsageError."""
    path = Path(parent).expanduser()
    try:
        real = path.resolve(strict=True)
    except FileNotFoundError:
        above = next((each for each in path.absolute().parents if each.is_dir()), Path("/"))
        raise UsageError(f"{path} does not exist", hint=f"make it first; {above} is there") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"cannot look at {str(path)!r}: {error}") from None
    if not real.is_dir():
        raise UsageError(f"{path} is not a directory", hint="give the directory to work in")
    if not os.access(real, os.W_OK | os.X_OK):
        raise UsageError(f"{path} is not writable for you", hint="give a directory of yours, as on scratch")
    return real


def _read_marker(fd: int, path: Path) -> Marker:
    try:
        marker_fd = os.open(MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    except OSError:
        raise UsageError(
            f"{path} has no marker of ours", hint="its data is somebody's: remove it by hand"
        ) from None
    try:
        owner = os.fstat(marker_fd).st_uid
        marker = Marker(**json.loads(os.read(marker_fd, _MARKER_MAX_BYTES)))
    except (ValueError, TypeError):
        raise UsageError(f"the marker in {path} is damaged", hint="remove the directory by hand") from None
    finally:
        os.close(marker_fd)
    if owner != os.getuid() or marker.uid != os.getuid():
        raise UsageError(f"{path} belongs to user number {marker.uid}", hint="its owner has to remove it")
    return marker


def _empty(fd: int, device: int, *, keep: str = "") -> list[str]:
    """Remove what is in an open directory except `keep`; returns what could not be removed."""
    left: list[str] = []
    with os.scandir(fd) as entries:
        names = [entry.name for entry in entries if entry.name != keep]
    for name in names:
        try:
            left += _remove(name, fd, device)
        except FileNotFoundError:
            continue  # somebody else was faster
        except OSError as error:
            left.append(f"{name} ({error.strerror})")
    return left


def _remove(name: str, fd: int, device: int) -> list[str]:
    seen = os.stat(name, dir_fd=fd, follow_symlinks=False)
    if not stat.S_ISDIR(seen.st_mode):
        os.unlink(name, dir_fd=fd)
        return []
    if seen.st_dev != device:
        return [f"{name} (another file system is mounted there)"]
    inner_fd = os.open(name, _OPEN_DIRECTORY, dir_fd=fd)
    try:
        if os.fstat(inner_fd).st_dev != device:
            return [f"{name} (another file system is mounted there)"]
        left = _empty(inner_fd, device)
    finally:
        os.close(inner_fd)
    if not left:
        os.rmdir(name, dir_fd=fd)
    return [f"{name}/{each}" for each in left]


def _exists_hint(path: Path) -> str:
    if path.is_symlink():
        return "it is a symbolic link, which is not followed; give another name"
    if (path / MARKER).is_file():
        return "an earlier run left it: have that removed, or give another name"
    return "it holds somebody's data: give another name"


def _hint(error: OSError, place: Path) -> str:
    if error.errno in (28, 122):
        return f"no space or quota is left in {place}"
    return "see whether it is yours, and its file system writable"
