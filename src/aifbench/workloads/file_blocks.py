"""Reading and writing blocks of large files: sequential or at random, own files or segments of a shared one.

The place of every operation follows from its index alone, so any number of processes on any number of nodes
covers the data exactly once. Give the stream `chain=layout.blocks_per_rank` for sequential order: then each
client takes a rank's part as a whole, and works through it block by block.
"""

import os
import threading
from array import array
from collections.abc import Callable
from pathlib import Path

import numpy as np

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import UsageError, WorkloadError
from aifbench.load.workload import Outcome, OutcomeKind
from aifbench.workloads.file_cache import CACHES, Cached, make_cold
from aifbench.workloads.file_content import PAGE_BYTES, BlockBuffer, file_tag
from aifbench.workloads.file_layout import BlockLayout, SyncPolicy
from aifbench.workloads.file_outcomes import failed, is_full, pause_when_full

ACCESSES = ("write", "read")
ORDERS = ("sequential", "random")

_DIRECT_BYTES = 512  # the least unit of O_DIRECT anywhere; a device may want 4,096
_ORDER_CELLS = 2**20


class Blocks:
    """One operation is one block, read or written at the place that follows from its index.

    `ranks` x `rank_bytes` of data in `directory`, see BlockLayout. `access` is write or read, `order`
    sequential or random (every block once before any comes again); `direct` goes past the page cache; `fsync`
    is a SyncPolicy as text; every `verify_every`-th block read is compared with what was written (0: none).
    `cache` is what is done before reading through the page cache, see file_cache.make_cold.
    Items are blocks. On a full file system the client's file is emptied at once and nothing more is written.
    """

    perform: Callable[[int], Outcome]

    def __init__(
        self,
        directory: str,
        ranks: int,
        rank_bytes: int,
        block_bytes: int,
        *,
        access: str = "read",
        order: str = "sequential",
        shared: bool = False,
        segments: int = 1,
        direct: bool = False,
        fsync: str = "none",
        verify_every: int = 0,
        cache: str = "keep",
        seed: int = 1,
    ) -> None:
        self._directory = Path(directory)
        self._layout = BlockLayout(ranks, rank_bytes, block_bytes, shared, segments)
        self._writes = _one_of("access", access, ACCESSES) == "write"
        self._is_random = _one_of("order", order, ORDERS) == "random"
        self._sync = SyncPolicy.parse(fsync)
        self._direct = direct
        self._verify_every = verify_every
        self._cache = _one_of("cache", cache, CACHES)
        self._cached = Cached(0, 0)
        self._seed = seed
        self._fds = [-1] * self._layout.files
        self._tags = [-1] * self._layout.files
        self._lock = threading.Lock()
        self._local = threading.local()
        self._full = ""
        self._verified = 0
        self.perform = self._not_open
        if direct and block_bytes % _DIRECT_BYTES:
            raise UsageError(
                f"O_DIRECT with blocks of {block_bytes:,} bytes",
                hint=f"give a multiple of {_DIRECT_BYTES}, better of {PAGE_BYTES:,}",
            )
        if verify_every < 0:
            raise UsageError(f"verify every {verify_every} blocks", hint="give 0 (never) or more")
        if verify_every and block_bytes % PAGE_BYTES:
            raise UsageError(
                f"blocks of {block_bytes:,} bytes cannot be verified",
                hint=f"give a multiple of {PAGE_BYTES:,}",
            )

    def open(self, endpoint: Endpoint) -> None:  # noqa: ARG002 (files have no endpoint)
        if not self._directory.is_dir():
            raise WorkloadError(f"{self._directory} is no directory", hint="prepare the files first")
        if not self._writes and not self._direct:
            files = (self._directory / self._layout.file_name(n) for n in range(self._layout.files))
            self._cached = make_cold(files, self._cache)
        if not self._writes:
            self._open_file(0)  # the commonest mistake is to read what nobody has written
        place = self._place_of()
        self.perform = self._writer(place) if self._writes else self._reader(place)

    def close(self) -> None:
        for file, fd in enumerate(self._fds):
            if fd >= 0:
                os.close(fd)
                self._fds[file] = -1

    def notes(self) -> dict[str, float]:
        return {
            "verified_blocks": float(self._verified),
            "disk_full": float(bool(self._full)),
            "cached_bytes": float(self._cached.cached_bytes),
            "looked_at_bytes": float(self._cached.total_bytes),
        }

    def _not_open(self, index: int) -> Outcome:
        raise RuntimeError(f"operation {index} before open()")

    def _place_of(self) -> Callable[[int], tuple[int, int]]:
        """From an operation's index to its file and offset."""
        place, blocks = self._layout.place, self._layout.blocks
        if self._is_random:
            order = random_order(blocks, self._seed)
            return lambda index: place(order(index))
        if self._layout.shared:
            return lambda index: place(index % blocks)
        ranks, per_rank, block_bytes = (
            self._layout.ranks,
            self._layout.blocks_per_rank,
            self._layout.block_bytes,
        )
        return lambda index: (index // per_rank % ranks, index % per_rank * block_bytes)

    def _open_file(self, file: int) -> int:
        with self._lock:
            if self._fds[file] < 0:
                flags = os.O_RDWR | os.O_CREAT if self._writes else os.O_RDONLY
                flags |= os.O_DIRECT if self._direct else 0
                flags |= os.O_DSYNC if self._writes and self._sync.dsync else 0
                path = self._directory / self._layout.file_name(file)
                try:
                    self._fds[file] = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                except OSError as error:
                    raise WorkloadError(f"cannot open {path}: {error.strerror}", hint=_hint(error)) from None
                self._tags[file] = file_tag(self._seed, file)
            return self._fds[file]

    def _buffer(self) -> BlockBuffer:
        """This thread's own."""
        buffer = BlockBuffer(self._layout.block_bytes, self._seed)
        self._local.buffer = buffer
        self._local.since_sync = 0
        return buffer

    def _reader(self, place: Callable[[int], tuple[int, int]]) -> Callable[[int], Outcome]:
        fds, local, preadv = self._fds, self._local, os.preadv
        size_bytes, every = self._layout.block_bytes, self._verify_every
        done = Outcome(bytes_in=size_bytes)

        def read(index: int) -> Outcome:
            file, offset = place(index)
            fd = fds[file]
            if fd < 0:
                fd = self._open_file(file)
            try:
                buffer = local.buffer
            except AttributeError:
                buffer = self._buffer()
            try:
                count = preadv(fd, buffer.parts, offset)
            except OSError as error:
                return failed(error, "read")
            if count != size_bytes:
                return Outcome(OutcomeKind.WRONG, 0, error="read: fewer bytes than a block", bytes_in=count)
            if every and index % every == 0:
                return self._verify(buffer, file, offset, done)
            return done

        return read

    def _verify(self, buffer: BlockBuffer, file: int, offset: int, done: Outcome) -> Outcome:
        if not buffer.is_block(self._tags[file], offset // PAGE_BYTES):
            error = "read: a block does not hold what was written there"
            return Outcome(OutcomeKind.WRONG, 0, error=error, bytes_in=done.bytes_in)
        self._verified += 1
        return done

    def _writer(self, place: Callable[[int], tuple[int, int]]) -> Callable[[int], Outcome]:
        fds, tags, local, pwritev = self._fds, self._tags, self._local, os.pwritev
        size_bytes, last_offset = self._layout.block_bytes, self._layout.blocks_per_rank - 1
        per_rank, sync = self._layout.blocks_per_rank, self._sync
        may_sync = bool(sync.every or (sync.at_end and not self._is_random))
        done = Outcome(bytes_out=size_bytes)

        def write(index: int) -> Outcome:
            if self._full:
                return self._refuse()
            file, offset = place(index)
            fd = fds[file]
            if fd < 0:
                fd = self._open_file(file)
            try:
                buffer = local.buffer
            except AttributeError:
                buffer = self._buffer()
            buffer.stamp(tags[file], offset // PAGE_BYTES)
            try:
                count = pwritev(fd, buffer.parts, offset)
                if count != size_bytes:  # what could not be written says why when it is tried alone
                    count += os.pwrite(fd, buffer.parts[0][count:], offset + count)
                if may_sync and self._is_sync_due(index % per_rank == last_offset):
                    os.fsync(fd)
            except OSError as error:
                return self._failed_write(error, fd)
            if count != size_bytes:
                return Outcome(OutcomeKind.WRONG, 0, error="write: fewer bytes than a block", bytes_out=count)
            return done

        return write

    def _is_sync_due(self, is_last: bool) -> bool:
        if not self._sync.every:
            return is_last
        self._local.since_sync += 1
        if self._local.since_sync < self._sync.every and not is_last:
            return False
        self._local.since_sync = 0
        return True

    def _failed_write(self, error: OSError, fd: int) -> Outcome:
        outcome = failed(error, "write")
        if is_full(error):
            self._full = outcome.error
            for each in {fd, *(each for each in self._fds if each >= 0)}:
                os.ftruncate(each, 0)  # the space belongs to everybody
            pause_when_full(error)
        return outcome

    def _refuse(self) -> Outcome:
        pause_when_full(OSError(28, ""))
        return Outcome(OutcomeKind.SERVER_ERROR, 0, error=self._full)


def random_order(blocks: int, seed: int) -> Callable[[int], int]:
    """A function from 0, 1, 2 ... to block numbers: each one comes once before any comes again.

    Large numbers are divided into cells, visited in random order; in round r every cell gives the block
    that follows from r, so what is kept does not grow with the data.
    """
    cells = min(blocks, _ORDER_CELLS)
    per_cell, rest = divmod(blocks, cells)
    rng = np.random.default_rng(seed)
    starts = np.arange(cells, dtype=np.int64) * per_cell + np.minimum(np.arange(cells), rest)
    cell_order = array("q", starts[rng.permutation(cells)].tobytes())
    if per_cell == 1 and not rest:
        return lambda index: cell_order[index % cells]
    shifts = array("q", rng.integers(0, per_cell, cells).tobytes())

    def order(index: int) -> int:
        turn, number = divmod(index, cells)
        return cell_order[number] + (shifts[number] + turn) % per_cell

    return order


def _one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise UsageError(f"unknown {name} {value!r}", hint=", ".join(known))
    return value


def _hint(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "write the files first"
    if error.errno == 22:
        return "this file system may not support O_DIRECT: leave it out, or use another one"
    return "see whether the directory is yours, and its file system writable"
