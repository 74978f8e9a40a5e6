"""Random numbers as a pure function of (key, index): random access, alike in every process.

A hash instead of a generator: making a numpy Generator for each index costs more than all its numbers here.
"""

import hashlib
import json
import struct


def key_of(*parts: str | int) -> bytes:
    """A key for the functions below; other parts give unrelated numbers."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).digest()


def share(key: bytes, index: int) -> float:
    """Uniform in (0, 1), both ends excluded."""
    digest = hashlib.blake2b(index.to_bytes(8, "little"), digest_size=8, key=key).digest()
    # 52 bits and a half: with more, the largest value would round to 1.
    return ((int.from_bytes(digest, "little") >> 12) + 0.5) * 2.0**-52


def numbers_16(key: bytes, index: int, count: int) -> tuple[int, ...]:
    """`count` independent integers in [0, 65536)."""
    return struct.unpack(f"<{count}H", _bytes(key, index, 2 * count))


def numbers_32(key: bytes, index: int, count: int) -> tuple[int, ...]:
    """`count` independent integers in [0, 2**32)."""
    return struct.unpack(f"<{count}I", _bytes(key, index, 4 * count))


def _bytes(key: bytes, index: int, size_bytes: int) -> bytes:
    return hashlib.shake_128(key + index.to_bytes(8, "little")).digest(size_bytes)
