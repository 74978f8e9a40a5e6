"""A training job's data loader: batches are read ahead by readers while the accelerator computes.

`LoaderData` writes the data set, `Loader` reads it. Which sample is where, and in which order an epoch
takes them, follows from the seed alone.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import UsageError, WorkloadError
from aifbench.load.workload import Outcome, OutcomeKind
from aifbench.workloads.file_cache import Cached, make_cold
from aifbench.workloads.file_content import PAGE_BYTES, BlockBuffer, file_tag
from aifbench.workloads.file_outcomes import failed, is_full, pause_when_full
from aifbench.workloads.file_shapes import LoaderShape, files_for

_CHUNK_BYTES = 4 * 2**20
_WAIT_S = 0.5


class LoaderData:
    """One operation writes file number `index` of the data set, forced to the storage; items are samples.

    `shape` are the fields of LoaderShape. On a full file system the unfinished file is removed.
    """

    def __init__(self, directory: str, shape: dict[str, object], *, seed: int = 1) -> None:
        self._directory = Path(directory)
        self._shape = LoaderShape(**shape)  # type: ignore[arg-type]
        self._seed = seed
        self._local = threading.local()

    def open(self, endpoint: Endpoint) -> None:  # noqa: ARG002 (files have no endpoint)
        if not self._directory.is_dir():
            raise WorkloadError(f"{self._directory} is no directory", hint="prepare it first")

    def close(self) -> None: ...

    def perform(self, index: int) -> Outcome:
        path = self._directory / file_name(index)
        size_bytes = file_bytes(self._shape, index, self._seed)
        try:
            self._write(path, index, size_bytes)
        except OSError as error:
            if is_full(error):
                path.unlink(missing_ok=True)
                pause_when_full(error)
            return failed(error, "write")
        return Outcome(items=self._shape.samples_per_file, bytes_out=size_bytes)

    def _write(self, path: Path, index: int, size_bytes: int) -> None:
        if not hasattr(self._local, "buffer"):
            self._local.buffer = BlockBuffer(_CHUNK_BYTES, self._seed)
        buffer, tag = self._local.buffer, file_tag(self._seed, index)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            written = 0
            while written < size_bytes:
                buffer.stamp(tag, written // PAGE_BYTES)
                part = buffer.parts[0][written % PAGE_BYTES :][: size_bytes - written]
                written += os.pwrite(fd, part, written)
            os.fsync(fd)
        finally:
            os.close(fd)


class Loader:
    """One operation is one training step: wait for the next batch, then compute (sleep) for `compute_s`.

    `samples` of the data set that LoaderData wrote are taken in an order shuffled anew for each epoch.
    `shape.readers` threads read a batch each, at most `prefetch` batches ahead. Items are samples; the
    quality is the step's accelerator utilisation; `first_byte_ns` is when its batch was there, so the time
    before it is what the accelerator waited. One client is one accelerator.
    """

    def __init__(
        self,
        directory: str,
        shape: dict[str, object],
        samples: int,
        *,
        prefetch: int = 4,
        cache: str = "keep",
        seed: int = 1,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._directory = Path(directory)
        self._shape = LoaderShape(**shape)  # type: ignore[arg-type]
        if samples < self._shape.batch or prefetch < 1:
            raise UsageError(
                f"{samples:,} samples, {prefetch} batches ahead",
                hint=f"at least one batch ({self._shape.batch}) and one ahead",
            )
        self._samples = samples
        self._cache = cache
        self._cached = Cached(0, 0)
        self._seed = seed
        self._sleep = sleep
        self._indices: Iterator[int] = iter(())
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))
        self._fds: dict[int, int] = {}
        self._lock = threading.Lock()
        self._room = threading.Semaphore(prefetch)
        self._there = threading.Condition()
        self._batches: dict[int, Outcome] = {}
        self._threads: list[threading.Thread] = []
        self._closed = False

    def open(self, endpoint: Endpoint) -> None:  # noqa: ARG002
        path = self._directory / file_name((self._samples - 1) // self._shape.samples_per_file)
        if not path.is_file():
            raise WorkloadError(f"{path} is missing", hint="write the data set first")
        files = files_for(self._shape, self._samples)
        self._cached = make_cold((self._directory / file_name(n) for n in range(files)), self._cache)

    def notes(self) -> dict[str, float]:
        seen = self._cached
        return {"cached_bytes": float(seen.cached_bytes), "looked_at_bytes": float(seen.total_bytes)}

    def prepare(self, indices: Iterable[int]) -> None:
        """The steps that this worker will do, in their order; reading begins with the first step."""
        self._indices = iter(indices)

    def close(self) -> None:
        self._closed = True
        for _ in self._threads:
            self._room.release()
        for thread in self._threads:
            thread.join()
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def perform(self, index: int) -> Outcome:
        began_ns = time.perf_counter_ns()
        if not self._threads:
            self._start_readers()
        with self._there:
            while index not in self._batches:
                self._there.wait(_WAIT_S)
                if self._closed:
                    return Outcome(OutcomeKind.BROKEN, 0, error="the loader was closed")
            batch = self._batches.pop(index)
        there_ns = time.perf_counter_ns()
        self._room.release()
        if batch.kind is not OutcomeKind.OK:
            return batch
        compute_s = self._shape.compute_s
        self._sleep(compute_s)
        total_s = (there_ns - began_ns) / 1e9 + compute_s
        utilisation = compute_s / total_s if total_s else 0.0
        return Outcome(
            items=batch.items, bytes_in=batch.bytes_in, qualities=(utilisation,), first_byte_ns=there_ns
        )

    def _start_readers(self) -> None:
        with self._lock:
            if self._threads:
                return
            self._threads = [
                threading.Thread(target=self._read_ahead, name=f"reader-{number}", daemon=True)
                for number in range(self._shape.readers)
            ]
        for thread in self._threads:
            thread.start()

    def _read_ahead(self) -> None:
        buffer = memoryview(bytearray(min(_CHUNK_BYTES, 4 * self._shape.sample_bytes)))
        while True:
            self._room.acquire()
            if self._closed:
                return
            with self._lock:
                index = next(self._indices, None)
                if index is None:
                    return
                samples = self._samples_of(index)
            batch = self._read_batch(samples, buffer)
            with self._there:
                self._batches[index] = batch
                self._there.notify_all()

    def _samples_of(self, index: int) -> list[int]:
        """Of batch `index`; the last samples of an epoch that make no batch are left out, as usual."""
        per_epoch = self._samples // self._shape.batch
        epoch, number = divmod(index, per_epoch)
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([self._seed, epoch]).permutation(self._samples))
        first = number * self._shape.batch
        samples: list[int] = self._order[1][first : first + self._shape.batch].tolist()
        return samples

    def _read_batch(self, samples: list[int], buffer: memoryview) -> Outcome:
        bytes_in = 0
        try:
            for sample in samples:
                bytes_in += self._read_sample(sample, buffer)
        except OSError as error:
            return failed(error, "read")
        except EOFError:
            return Outcome(OutcomeKind.WRONG, 0, error="read: a sample is shorter than was written")
        return Outcome(items=len(samples), bytes_in=bytes_in)

    def _read_sample(self, sample: int, buffer: memoryview) -> int:
        file, record = divmod(sample, self._shape.samples_per_file)
        size_bytes = self._shape.size_of(sample, self._seed)
        if self._shape.samples_per_file > 1:
            _read_at(self._kept_open(file), record * size_bytes, size_bytes, buffer)
            return size_bytes
        fd = os.open(self._directory / file_name(file), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            _read_at(fd, 0, size_bytes, buffer)
        finally:
            os.close(fd)
        return size_bytes

    def _kept_open(self, file: int) -> int:
        with self._lock:
            if file not in self._fds:
                path = self._directory / file_name(file)
                self._fds[file] = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            return self._fds[file]


def file_name(file: int) -> str:
    return f"data-{file:07d}.bin"


def file_bytes(shape: LoaderShape, file: int, seed: int) -> int:
    """Of file number `file` of a data set."""
    if shape.samples_per_file > 1:
        return shape.samples_per_file * shape.sample_bytes
    return shape.size_of(file, seed)


def _read_at(fd: int, offset: int, size_bytes: int, buffer: memoryview) -> None:
    """Raises EOFError."""
    end = offset + size_bytes
    while offset < end:
        count = os.preadv(fd, [buffer[: end - offset]], offset)
        if not count:
            raise EOFError
        offset += count
