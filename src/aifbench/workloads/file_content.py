"""What is written to files under test: incompressible, different in every page, and known to the reader.

Page number p of 4 KiB is page p modulo _POOL_PAGES of a pool of random bytes, but begins with two words,
which name its file and p: so no two pages are alike, for whatever compresses or deduplicates below, and a
reader of any block size can tell a page of another file, place or run from the right one.
"""

import hashlib
import mmap
import struct
from contextlib import suppress
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

PAGE_BYTES = 4096
_WORD_BYTES = 8
_POOL_PAGES = 256
_HUGE_PAGE_BYTES = 2 * 2**20
_HUGE_FROM_BYTES = 64 * 2**10
_PAGE_WORDS = PAGE_BYTES // _WORD_BYTES

Words = NDArray[np.uint64]

_pack_names = struct.Struct("=QQ").pack_into


def file_tag(seed: int, file: int) -> int:
    """The first word of every page of file number `file`: 64 bits."""
    digest = hashlib.blake2b(f"{seed}/{file}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


class BlockBuffer:
    """A page-aligned buffer of one block, for one thread; `parts` is what preadv and pwritev take."""

    def __init__(self, size_bytes: int, seed: int) -> None:
        self.size_bytes = size_bytes
        pages = -(-size_bytes // PAGE_BYTES)
        self._memory = aligned_memory(pages * PAGE_BYTES)
        self.parts = [self._memory[:size_bytes]]
        self._words: Words = np.frombuffer(self._memory, np.uint64).reshape(pages, _PAGE_WORDS)
        self._pool = _pool(seed)
        self._numbers = np.arange(pages, dtype=np.uint64)
        self._tag = self._place = -1
        self._pool_bytes = self._pool.view(np.uint8).reshape(-1).data
        self._is_page = pages == 1

    def stamp(self, tag: int, first_page: int) -> None:
        """Make this the block that begins with page number `first_page` of the file with `tag`."""
        words, place = self._words, first_page % _POOL_PAGES
        if self._is_page:  # where numpy would take longer than the work
            start = place * PAGE_BYTES
            self._memory[:] = self._pool_bytes[start : start + PAGE_BYTES]
            _pack_names(self._memory, 0, tag, first_page)
            return
        if place != self._place:
            words[:] = self._from_pool(place)
            self._place, self._tag = place, -1
        if tag != self._tag:
            words[:, 0] = tag
            self._tag = tag
        np.add(self._numbers, first_page, out=words[:, 1])

    def is_block(self, tag: int, first_page: int) -> bool:
        """Whether the buffer holds exactly that block, which is a whole number of pages."""
        expected = self._from_pool(first_page % _POOL_PAGES).copy()
        expected[:, 0] = tag
        np.add(self._numbers, first_page, out=expected[:, 1])
        return np.array_equal(expected, self._words)

    def _from_pool(self, place: int) -> Words:
        pages = len(self._numbers)
        if pages <= _POOL_PAGES:
            return self._pool[place : place + pages]
        return self._pool[(np.arange(pages) + place) % _POOL_PAGES]


def aligned_memory(size_bytes: int) -> memoryview:
    """Private memory that O_DIRECT can use. Larger ones are huge pages where the kernel has some: a device
    then moves a block in few pieces, instead of one for every 4 KiB.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    if size_bytes < _HUGE_FROM_BYTES:
        return memoryview(mmap.mmap(-1, size_bytes, flags))
    memory = mmap.mmap(-1, size_bytes + _HUGE_PAGE_BYTES, flags)
    with suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    start = -np.frombuffer(memory, np.uint8).ctypes.data % _HUGE_PAGE_BYTES
    memory[start : start + size_bytes] = bytes(size_bytes)  # taken now, not during the load
    return memoryview(memory)[start : start + size_bytes]


def random_bytes(size_bytes: int, seed: int) -> bytes:
    """Incompressible bytes, the same for the same seed."""
    return np.random.default_rng(seed).bytes(size_bytes)


@lru_cache(maxsize=2)
def _pool(seed: int) -> Words:
    """The pool twice in a row, so that a piece of it may begin anywhere."""
    words = np.random.default_rng(seed).integers(0, 2**64, (_POOL_PAGES, _PAGE_WORDS), np.uint64)
    return np.concatenate([words, words])
