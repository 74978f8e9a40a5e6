"""A disk that takes nothing more, for this process: every write to a file fails, that of root too."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager


def fill_disk() -> None:
    _set_limit(0)


def free_disk() -> None:
    _set_limit(resource.RLIM_INFINITY)


@contextmanager
def full_disk() -> Iterator[None]:
    fill_disk()
    try:
        yield
    finally:
        free_disk()


def _set_limit(size_bytes: int) -> None:
    # Python ignores SIGXFSZ, so that a write beyond the limit fails as on a full disk.
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
