"""What one operation is. A workload has no clock, no statistics and no output.

Two shapes: a blocking `Workload` (any client library, files, SQL), and a `WireWorkload`, whose
HTTP/1.1 requests the engine's own event loop sends, stamping first and interpreting afterwards.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from aifbench.cluster.endpoint import Endpoint


class OutcomeKind(IntEnum):
    """How an operation ended. Stored as one byte; names appear in records and reports."""

    OK = 0
    TIMEOUT = 1  # no complete answer within the operation's time limit
    CONNECT = 2  # the connection could not be made
    BROKEN = 3  # the connection ended before the answer did
    THROTTLED = 4  # the service asked for less (HTTP 429, 503)
    CLIENT_ERROR = 5  # the service blames the request (HTTP 4xx)
    SERVER_ERROR = 6  # the service blames itself (HTTP 5xx)
    PROTOCOL = 7  # the answer is not what the protocol allows
    WRONG = 8  # a complete answer that fails the workload's own check
    UNFINISHED = 9  # still under way when the drain time was over
    HARNESS = 10  # our own code raised


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one operation.

    `items` counts the units of work in it (vectors written, rows read); `qualities` are at most two
    values in [0, 1], in the order the stream's plan names them, empty when unchecked. `error` is
    empty for OK. `first_byte_ns` is a `time.perf_counter_ns` stamp, 0 when the client cannot tell.
    """

    kind: OutcomeKind = OutcomeKind.OK
    items: int = 1
    qualities: tuple[float, ...] = ()
    error: str = ""
    bytes_out: int = 0
    bytes_in: int = 0
    first_byte_ns: int = 0


class Workload(Protocol):
    """One kind of operation, performed by blocking calls; called from several threads at once."""

    def open(self, endpoint: Endpoint) -> None:
        """Prepare everything that must not be timed. Raises WorkloadError."""

    def perform(self, index: int) -> Outcome:
        """Do operation `index`. May raise: the engine records it as an error of its kind."""

    def close(self) -> None:
        """Give back what `open` took; called once, also after a failure."""


class WireWorkload(Protocol):
    """One kind of operation that is one HTTP/1.1 exchange over a kept-alive connection."""

    def open(self, endpoint: Endpoint) -> None:
        """Prepare everything that must not be timed. Raises WorkloadError."""

    def request(self, index: int) -> bytes:
        """The complete request for operation `index`: request line, headers and body.

        Called just before sending, so it should be a look-up of prepared bytes.
        """

    def interpret(self, index: int, status: int, body: bytes) -> Outcome:
        """What a complete answer means. Called after the measurement, never during it.

        `status` is 200..299; other statuses are classified by the engine.
        """

    def close(self) -> None:
        """Give back what `open` took; called once, also after a failure."""
