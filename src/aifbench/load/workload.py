"""What one operation is. A workload has no clock, no statistics and no output.

Three shapes: a blocking `Workload` (any client library, files, SQL); a `WireWorkload`, whose HTTP/1.1
requests the engine's own event loop sends, stamping first and interpreting afterwards; and a
`StreamWorkload`, a wire workload whose answers come piece by piece, each with its own time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Protocol

from aifbench.cluster.endpoint import Endpoint

NOT_SEEN = -1  # an instant that did not happen: no first byte, never finished


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

    @classmethod
    def of_status(cls, status: int) -> "OutcomeKind":
        """What an HTTP status means; redirects are never followed, so they are a protocol error here."""
        if 200 <= status < 300:
            return cls.OK
        if status in (429, 503):
            return cls.THROTTLED
        if 400 <= status < 500:
            return cls.CLIENT_ERROR
        return cls.SERVER_ERROR if status >= 500 else cls.PROTOCOL


class TokenCount(IntEnum):
    """How the tokens of an answer were counted."""

    NONE = 0
    USAGE = 1  # the service said
    CHUNKS = 2  # pieces with content, each taken for one token


class Finish(IntEnum):
    """Why a generated answer ended, in the service's words."""

    NONE = 0
    STOP = 1
    LENGTH = 2
    OTHER = 3


@dataclass(frozen=True, slots=True)
class TokenTimes:
    """When the content of one streamed answer arrived, and how much it was.

    Instants are `time.perf_counter_ns` stamps, NOT_SEEN for what did not happen. `content_ns` has one per
    piece with content; `answer_ns` is the first one that is not reasoning. `first_tokens` is the number of
    tokens in the first piece, known or taken to be the mean.
    """

    content_ns: Sequence[int] = ()
    answer_ns: int = NOT_SEEN
    first_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    counted: TokenCount = TokenCount.NONE
    finish: Finish = Finish.NONE

    @property
    def first_ns(self) -> int:
        return self.content_ns[0] if self.content_ns else NOT_SEEN

    @property
    def last_ns(self) -> int:
        return self.content_ns[-1] if self.content_ns else NOT_SEEN


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one operation.

    `items` counts the units of work in it (vectors written, rows read); `qualities` are at most two
    values in [0, 1], in the order the stream's plan names them, empty when unchecked. `error` is
    empty for OK. `first_byte_ns` is a `time.perf_counter_ns` stamp, 0 when the client cannot tell.
    `tokens` is for answers that a blocking client received as a stream. `stages` are the (begin, end) stamps
    of an operation's named parts, NOT_SEEN for the end of one that did not come to it.
    """

    kind: OutcomeKind = OutcomeKind.OK
    items: int = 1
    qualities: tuple[float, ...] = ()
    error: str = ""
    bytes_out: int = 0
    bytes_in: int = 0
    first_byte_ns: int = 0
    tokens: TokenTimes | None = None
    stages: Mapping[str, tuple[int, int]] | None = None


class Workload(Protocol):
    """One kind of operation, performed by blocking calls; called from several threads at once."""

    def open(self, endpoint: Endpoint) -> None:
        """Prepare everything that must not be timed. Raises WorkloadError."""

    def perform(self, index: int) -> Outcome:
        """Do operation `index`. May raise: the engine records it as an error of its kind."""

    def close(self) -> None:
        """Give back what `open` took; called once, also after a failure."""


Request = bytes | tuple[bytes | memoryview, ...]


class WireWorkload(Protocol):
    """One kind of operation that is one HTTP/1.1 exchange over a kept-alive connection."""

    def open(self, endpoint: Endpoint) -> None:
        """Prepare everything that must not be timed. Raises WorkloadError."""

    def request(self, index: int) -> Request:
        """The complete request for operation `index`: request line, headers and body.

        Called just before sending, so it should be a look-up of prepared bytes. The parts of a tuple, such as
        a head and a large body, are sent one after the other. A workload may also have `keeps(index)`, False
        for answers that `interpret` need not see; `refusal(status, body)`, a bad answer in words; and
        `wants_head`, True where `body` is to be the whole answer, its head first.
        """

    def interpret(self, index: int, status: int, body: bytes) -> Outcome:
        """What a complete answer means. Called after the measurement, never during it.

        `status` is 200..299; other statuses are classified by the engine.
        """

    def close(self) -> None:
        """Give back what `open` took; called once, also after a failure."""


@dataclass(frozen=True, slots=True)
class StreamedAnswer:
    """A response as it came: `raw` holds all its bytes, `body` those of its body without transfer coding.

    Read number j ended after `read_ends[j]` bytes of `raw`, at `read_ns[j]`. `pieces` are (start in the body,
    start in `raw`) of the parts that the body was put together from.
    """

    body: bytes
    head: bytes
    pieces: Sequence[tuple[int, int]]
    read_ends: Sequence[int]
    read_ns: Sequence[int]

    def arrived_ns(self, ends: Sequence[int]) -> list[int]:
        """When the first `end` bytes of the body were there, for each of `ends`, which must ascend."""
        instants, piece, read = [], 0, 0
        pieces, read_ends, read_ns = self.pieces, self.read_ends, self.read_ns
        last_piece, last_read = len(pieces) - 1, len(read_ns) - 1
        for end in ends:
            while piece < last_piece and pieces[piece + 1][0] < end:
                piece += 1
            body_start, raw_start = pieces[piece]
            place = raw_start + end - body_start
            while read < last_read and read_ends[read] < place:
                read += 1
            instants.append(read_ns[read])
        return instants


class StreamWorkload(WireWorkload, Protocol):
    """A wire workload whose answers' pieces are timed. Answers cut short are interpreted too."""

    is_stream: ClassVar[bool]

    def interpret_stream(self, index: int, status: int, answer: StreamedAnswer) -> tuple[Outcome, TokenTimes]:
        """What an answer means, as `interpret`; and its times. `status` 200..299, the body perhaps a part."""
