"""What a failed file operation says: errors of the operating system as outcomes.

Others may go on after such an error, and a full file system is one that others use: so a client that meets
it waits a little before it tries again.
"""

import errno
import time

from aifbench.load.workload import Outcome, OutcomeKind

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
FULL_PAUSE_S = 0.05

_SERVER = FULL | {errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ESHUTDOWN, errno.ENOTCONN}
_TIMEOUT = {errno.ETIMEDOUT, errno.EINTR}


def failed(error: OSError, what: str) -> Outcome:
    """The outcome of an operation on `what`, which names a kind of file, never one of thousands."""
    kind = OutcomeKind.CLIENT_ERROR
    if error.errno in _SERVER:
        kind = OutcomeKind.SERVER_ERROR
    elif error.errno in _TIMEOUT:
        kind = OutcomeKind.TIMEOUT
    name = errno.errorcode.get(error.errno or 0, type(error).__name__)
    return Outcome(kind, 0, error=f"{what}: {error.strerror or error} ({name})")


def is_full(error: OSError) -> bool:
    """No space, or no quota, left."""
    return error.errno in FULL


def pause_when_full(error: OSError) -> None:
    if is_full(error):
        time.sleep(FULL_PAUSE_S)
