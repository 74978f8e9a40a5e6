"""Metadata operations on many small files, in a directory of each client's own or in a shared one."""

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import UsageError, WorkloadError
from aifbench.load.workload import Outcome, OutcomeKind
from aifbench.workloads.file_content import random_bytes
from aifbench.workloads.file_outcomes import failed, pause_when_full

OPERATIONS = ("create", "stat", "read", "rename", "unlink", "mkdir", "rmdir", "readdir")

_DIRECTORY = os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_OLD_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class Tree:
    """One operation is one file (or directory), number `index` of `per_directory` in each directory.

    `operation` is create (with `size_bytes` written into it), stat, read (open, read all, close), rename
    (f... to r...), unlink (of `prefix` f or r), mkdir, rmdir, or readdir (a whole directory; items are its
    entries). Without `shared`, every `per_directory` files have a directory of their own: give the stream
    `chain=per_directory`, and each belongs to one client; it is made with the first file. With `shared` all
    are in one. Files are named by their number, so any process finds what another one made.
    """

    perform: Callable[[int], Outcome]

    def __init__(
        self,
        directory: str,
        operation: str,
        *,
        per_directory: int = 1000,
        shared: bool = False,
        size_bytes: int = 0,
        prefix: str = "f",
        seed: int = 1,
    ) -> None:
        if operation not in OPERATIONS:
            raise UsageError(f"unknown file operation {operation!r}", hint=", ".join(OPERATIONS))
        if per_directory < 1 or size_bytes < 0:
            raise UsageError(f"{per_directory} files in a directory, of {size_bytes} bytes")
        self._root = Path(directory)
        self._operation = operation
        self._per_directory = per_directory
        self._shared = shared
        self._prefix = prefix
        self._content = random_bytes(size_bytes, seed)
        self._root_fd = -1
        self._fds: dict[int, int] = {}  # of the directories, by number
        self._lock = threading.Lock()
        self.perform = self._not_open

    def open(self, endpoint: Endpoint) -> None:  # noqa: ARG002 (files have no endpoint)
        try:
            self._root_fd = os.open(self._root, _DIRECTORY)
        except OSError as error:
            raise WorkloadError(
                f"{self._root}: {error.strerror}", hint="prepare the directory first"
            ) from None
        if self._shared:
            self._fds[0] = os.dup(self._root_fd)
        operate = getattr(self, f"_{self._operation}")()
        self.perform = _guarded(operate, self._operation)

    def close(self) -> None:
        for fd in (*self._fds.values(), self._root_fd):
            if fd >= 0:
                os.close(fd)
        self._fds.clear()
        self._root_fd = -1

    def _not_open(self, index: int) -> Outcome:
        raise RuntimeError(f"operation {index} before open()")

    def _directory_fd(self, number: int) -> int:
        """Of directory `number`, opened at its first use; made where files are created."""
        with self._lock:
            fd = self._fds.get(number, -1)
            if fd < 0:
                name = f"d{number}"
                if self._operation in ("create", "mkdir"):
                    _make(name, self._root_fd)
                fd = self._fds[number] = os.open(name, _DIRECTORY, dir_fd=self._root_fd)
            return fd

    def _where(self) -> Callable[[int], int]:
        """From an operation's index to the descriptor of its directory."""
        if self._shared:
            root_fd = self._fds[0]
            return lambda _: root_fd
        fds, per_directory, find = self._fds, self._per_directory, self._directory_fd

        def where(index: int) -> int:
            number = index // per_directory
            return fds[number] if number in fds else find(number)

        return where

    def _create(self) -> Callable[[int], Outcome]:
        where, content, prefix = self._where(), self._content, self._prefix
        open_file, close, write, done = os.open, os.close, os.write, Outcome(bytes_out=len(content))

        def create(index: int) -> Outcome:
            fd = open_file(f"{prefix}{index}", _NEW_FILE, 0o600, dir_fd=where(index))
            try:
                if content and write(fd, content) != len(content):
                    return Outcome(OutcomeKind.WRONG, 0, error="create: a file is shorter than asked for")
            finally:
                close(fd)
            return done

        return create

    def _stat(self) -> Callable[[int], Outcome]:
        where, prefix, size_bytes = self._where(), self._prefix, len(self._content)
        status, done = os.stat, Outcome()

        def stat_file(index: int) -> Outcome:
            if status(f"{prefix}{index}", dir_fd=where(index), follow_symlinks=False).st_size != size_bytes:
                return Outcome(OutcomeKind.WRONG, 0, error="stat: a file has another size than was written")
            return done

        return stat_file

    def _read(self) -> Callable[[int], Outcome]:
        where, content, prefix = self._where(), self._content, self._prefix
        open_file, close, read, done = os.open, os.close, os.read, Outcome(bytes_in=len(content))
        ask_bytes = len(content) + 1

        def read_file(index: int) -> Outcome:
            fd = open_file(f"{prefix}{index}", _OLD_FILE, dir_fd=where(index))
            try:
                if read(fd, ask_bytes) != content:
                    return Outcome(OutcomeKind.WRONG, 0, error="read: a file does not hold what was written")
            finally:
                close(fd)
            return done

        return read_file

    def _rename(self) -> Callable[[int], Outcome]:
        where, prefix, rename, done = self._where(), self._prefix, os.rename, Outcome()

        def rename_file(index: int) -> Outcome:
            fd = where(index)
            rename(f"{prefix}{index}", f"r{index}", src_dir_fd=fd, dst_dir_fd=fd)
            return done

        return rename_file

    def _unlink(self) -> Callable[[int], Outcome]:
        where, prefix, unlink, done = self._where(), self._prefix, os.unlink, Outcome()

        def unlink_file(index: int) -> Outcome:
            unlink(f"{prefix}{index}", dir_fd=where(index))
            return done

        return unlink_file

    def _mkdir(self) -> Callable[[int], Outcome]:
        where, mkdir, done = self._where(), os.mkdir, Outcome()

        def make(index: int) -> Outcome:
            mkdir(f"s{index}", 0o700, dir_fd=where(index))
            return done

        return make

    def _rmdir(self) -> Callable[[int], Outcome]:
        where, rmdir, done = self._where(), os.rmdir, Outcome()

        def remove(index: int) -> Outcome:
            rmdir(f"s{index}", dir_fd=where(index))
            return done

        return remove

    def _readdir(self) -> Callable[[int], Outcome]:
        """Here an index is the number of a directory."""

        def read_directory(index: int) -> Outcome:
            # A descriptor of its own: the place in a directory belongs to what was opened.
            fd = os.open("." if self._shared else f"d{index}", _DIRECTORY, dir_fd=self._root_fd)
            try:
                with os.scandir(fd) as entries:
                    return Outcome(items=sum(1 for _ in entries))
            finally:
                os.close(fd)

        return read_directory


def _guarded(operate: Callable[[int], Outcome], name: str) -> Callable[[int], Outcome]:
    def perform(index: int) -> Outcome:
        try:
            return operate(index)
        except OSError as error:
            pause_when_full(error)
            return failed(error, name)

    return perform


def _make(name: str, root_fd: int) -> None:
    """A directory that another client may have made first."""
    try:
        os.mkdir(name, 0o700, dir_fd=root_fd)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=root_fd, follow_symlinks=False).st_mode):
            raise
