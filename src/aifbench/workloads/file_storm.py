"""Many small files at once, as software makes and meets them: unpacking an archive, importing a package."""

import math
import os
from array import array
from pathlib import Path
from statistics import NormalDist

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import UsageError, WorkloadError
from aifbench.load.workload import Outcome, OutcomeKind
from aifbench.workloads.draws import key_of, share
from aifbench.workloads.file_content import random_bytes
from aifbench.workloads.file_outcomes import failed, pause_when_full

FILES_PER_DIRECTORY = 20
_DIRECTORIES_PER_PACKAGE = 16

# Source and package files: half of them below 4 KiB, a twentieth above 70 KiB; 16 KiB in the mean.
_MEDIAN_BYTES, _SIGMA, _MAX_BYTES = 4096, 1.7, 4 * 2**20
_SIZES = 4096

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_OLD_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_MTIME_S = 1_600_000_000


class Untar:
    """One operation is what `tar -x` does for one file: create, write, set mode and times, close.

    Sizes are log-normal, times `size_scale`; every FILES_PER_DIRECTORY files share a directory, two levels
    down, made with its first file. Give the stream chain=FILES_PER_DIRECTORY to keep a directory's files with
    one client. Items are files.
    """

    def __init__(self, directory: str, *, size_scale: float = 1.0, seed: int = 1) -> None:
        self._directory = directory
        self._sizes = small_file_sizes(size_scale, seed)
        self._content = random_bytes(max(self._sizes), seed)
        self._root_fd = -1

    def open(self, endpoint: Endpoint) -> None:  # noqa: ARG002 (files have no endpoint)
        self._root_fd = _open_root(self._directory)

    def close(self) -> None:
        if self._root_fd >= 0:
            os.close(self._root_fd)
            self._root_fd = -1

    def perform(self, index: int) -> Outcome:
        size_bytes = self._sizes[index % _SIZES]
        try:
            fd = self._create(index)
            try:
                if os.write(fd, memoryview(self._content)[:size_bytes]) != size_bytes:
                    return Outcome(OutcomeKind.WRONG, 0, error="untar: a file is shorter than asked for")
                os.fchmod(fd, 0o640)
                os.utime(fd, (_MTIME_S, _MTIME_S))
            finally:
                os.close(fd)
        except OSError as error:
            pause_when_full(error)
            return failed(error, "untar")
        return Outcome(bytes_out=size_bytes)

    def _create(self, index: int) -> int:
        path = small_file_path(index)
        try:
            return os.open(path, _NEW_FILE, 0o600, dir_fd=self._root_fd)
        except FileNotFoundError:
            package, directory, _ = path.split("/")
            for each in (package, f"{package}/{directory}"):
                try:
                    os.mkdir(each, 0o700, dir_fd=self._root_fd)
                except FileExistsError:
                    continue
            return os.open(path, _NEW_FILE, 0o600, dir_fd=self._root_fd)


class ImportFiles:
    """One operation is what an interpreter does for one module that Untar wrote (the same seed and scale).

    It looks for it `misses` times where it is not, then stats, opens, reads and closes it. Items are files.
    """

    def __init__(
        self, directory: str, files: int, *, misses: int = 6, size_scale: float = 1.0, seed: int = 1
    ) -> None:
        if files < 1 or misses < 0:
            raise UsageError(f"{files} files, {misses} misses each", hint="give 1 file or more")
        self._directory = directory
        self._files = files
        self._misses = misses
        self._sizes = small_file_sizes(size_scale, seed)
        self._root_fd = -1

    def open(self, endpoint: Endpoint) -> None:  # noqa: ARG002
        self._root_fd = _open_root(self._directory)

    def close(self) -> None:
        if self._root_fd >= 0:
            os.close(self._root_fd)
            self._root_fd = -1

    def perform(self, index: int) -> Outcome:
        number = index % self._files
        path, size_bytes = small_file_path(number), self._sizes[number % _SIZES]
        try:
            for miss in range(self._misses):
                if _exists(f"{path}.absent{miss}", self._root_fd):
                    return Outcome(OutcomeKind.WRONG, 0, error="import: a file is there that nobody wrote")
            seen_bytes = os.stat(path, dir_fd=self._root_fd).st_size
            fd = os.open(path, _OLD_FILE, dir_fd=self._root_fd)
            try:
                read_bytes = len(os.read(fd, seen_bytes + 1))
            finally:
                os.close(fd)
        except OSError as error:
            return failed(error, "import")
        if read_bytes != size_bytes:
            return Outcome(OutcomeKind.WRONG, 0, error="import: a file has another size than was written")
        return Outcome(bytes_in=read_bytes)


def small_file_sizes(scale: float, seed: int) -> "array[int]":
    """In bytes, of files 0, 1, 2 ...; after _SIZES of them they begin again."""
    if not 0 < scale <= 16:
        raise UsageError(f"size scale {scale:g}", hint="more than 0, at most 16")
    key, normal = key_of("small files", seed), NormalDist()
    sizes = (_MEDIAN_BYTES * math.exp(_SIGMA * normal.inv_cdf(share(key, n))) for n in range(_SIZES))
    return array("q", (max(1, round(min(size, _MAX_BYTES) * scale)) for size in sizes))


def small_file_path(index: int) -> str:
    """Of file number `index`, below the root: package, directory, file."""
    directory = index // FILES_PER_DIRECTORY
    return f"p{directory // _DIRECTORIES_PER_PACKAGE}/d{directory}/f{index}.py"


def _exists(path: str, root_fd: int) -> bool:
    try:
        os.stat(path, dir_fd=root_fd)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _open_root(directory: str) -> int:
    path = Path(directory)
    try:
        return os.open(path, os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise WorkloadError(f"{path}: {error.strerror}", hint="prepare the directory first") from None
