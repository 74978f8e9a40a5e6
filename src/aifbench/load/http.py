"""HTTP/1.1 on the wire: build a request, find the end of a response. No sockets, no clocks."""

from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache

from aifbench.errors import WorkloadError

_MAX_HEAD_BYTES = 64 * 1024
_MAX_DIGITS = 16
_VERSION = b"HTTP/1."
_BLANK_LINE = b"\r\n\r\n"
_LAST_CHUNK = b"\r\n0" + _BLANK_LINE


class ProtocolError(WorkloadError):
    """The bytes received are not an HTTP/1.1 response."""


def encode_request(
    method: str, target: str, host: str, headers: Mapping[str, str] | None = None, body: bytes = b""
) -> bytes:
    """A complete request. A Content-Length is added for a body and for POST, PUT and PATCH."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if any(c in line for line in lines for c in "\r\n"):
        raise WorkloadError("a request line or header contains a line break")
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    try:
        return "\r\n".join(lines).encode("latin-1") + _BLANK_LINE + body
    except UnicodeEncodeError:
        # Without its cause, which quotes the line: that may hold a secret.
        raise WorkloadError("a request line or header has a character beyond Latin-1") from None


class ResponseReader:
    """Takes the bytes of one response as they arrive and knows when it is complete.

    `feed` returns True at the end of the response; then `status`, `body` and `keep_alive` are set.
    Bytes beyond the end are an error, since requests are not pipelined. The work per `feed` is a
    search for the end of the head, then a length comparison: everything else waits for `body`.

    With `by_tail`, a chunked response counts as complete when it ends like one. That spares the walk through
    its chunks, thousands a second, and suits bodies that cannot hold the last chunk's line: `split_response`
    finds afterwards whether it was. Only where a read ends with a blank line, as after a trailer, are they
    walked through.

    With `keep` False the body of a good answer of known length is counted and not kept: once `is_skipping`,
    bytes may be received anywhere and told by `skip`.
    """

    __slots__ = (
        "_body_start", "_by_tail", "_chunked", "_data", "_keep", "_no_body", "_remaining", "_skipped",
        "is_skipping", "keep_alive", "retry_after", "status",
    )  # fmt: skip

    def __init__(self, *, head_request: bool = False, by_tail: bool = False, keep: bool = True) -> None:
        self._data = bytearray()
        self._keep = keep
        self._skipped = 0
        self.is_skipping = False
        self._by_tail = by_tail
        self._body_start = 0
        self._remaining: int | None = None  # None: until the peer closes
        self._chunked: _ChunkScanner | None = None
        self._no_body = head_request
        self.status = 0
        self.keep_alive = True
        self.retry_after = ""

    def feed(self, data: bytes) -> bool:
        """Add received bytes. Raises ProtocolError."""
        if self.is_skipping:
            return self.skip(len(data))
        self._data += data
        if not self._body_start:
            if not self._parse_head():
                return False
            if not self._keep and self._remaining and self.status < 300:
                return self._skip_body()
        if self._chunked is not None:
            if self._by_tail:
                if self._data.endswith(_LAST_CHUNK):
                    return True
                if not self._data.endswith(_BLANK_LINE):
                    return False
            end = self._chunked.feed(self._data)
        elif self._remaining is not None:
            end = self._body_start + self._remaining
        else:
            return False
        if end is not None and len(self._data) > end:
            raise ProtocolError(f"{len(self._data) - end} bytes beyond the end of the response")
        return len(self._data) == end

    def skip(self, count: int) -> bool:
        """So many more bytes of the body were received, and not kept. Raises ProtocolError."""
        self._skipped += count
        assert self._remaining is not None
        if self._skipped > self._remaining:
            raise ProtocolError(f"{self._skipped - self._remaining} bytes beyond the end of the response")
        return self._skipped == self._remaining

    def _skip_body(self) -> bool:
        self.is_skipping = True
        count = len(self._data) - self._body_start
        del self._data[self._body_start :]
        return self.skip(count)

    @property
    def body_bytes(self) -> int:
        """The length of the body as far as it came, kept or not."""
        return self._skipped if self.is_skipping else len(self.body)

    def feed_eof(self) -> bool:
        """The peer closed: True when that ends the response properly."""
        self.keep_alive = False
        return bool(self._body_start) and self._remaining is None and self._chunked is None

    @property
    def body(self) -> bytes:
        """Without the transfer coding; of chunks that turn out not to add up, those before."""
        if self._chunked is not None:
            if self._by_tail:
                with suppress(ProtocolError):
                    self._chunked.feed(self._data)
            return self._chunked.payload(self._data)
        return bytes(self._data[self._body_start :])

    @property
    def raw(self) -> bytes:
        """Everything since the head of the final response, as it came."""
        return bytes(self._data)

    @property
    def received(self) -> int:
        """The length of `raw`."""
        return len(self._data)

    @property
    def parts(self) -> list[tuple[int, int]]:
        """Where the parts of the body are in `raw`: (start, end). The last may still be on its way."""
        if self._chunked is None:
            return [(self._body_start, len(self._data))] if self._body_start else []
        self._chunked.feed(self._data)
        return [*self._chunked.pieces, *self._chunked.begun]

    def _parse_head(self) -> bool:
        while True:
            if not self._data.startswith(_VERSION[: len(self._data)]):
                raise ProtocolError(f"not an HTTP/1 response: {bytes(self._data[:40])!r}")
            end = self._data.find(_BLANK_LINE)
            if end < 0:
                if len(self._data) > _MAX_HEAD_BYTES:
                    raise ProtocolError(f"no end of the response head in {_MAX_HEAD_BYTES} bytes")
                return False
            self.status = _number(self._data[9:12], "status", 10)
            if not 100 <= self.status < 200:
                break
            del self._data[: end + 4]  # an interim response: the final one is behind it
        self._parse_headers(bytes(self._data[:end]).lower())
        self._body_start = end + 4
        return True

    def _parse_headers(self, head: bytes) -> None:
        # The blank after the colon is optional in HTTP; the line break before the name is not.
        http_1_0 = head.startswith(b"http/1.0")
        connection = header_of(head, b"connection")
        self.keep_alive = b"keep-alive" in connection if http_1_0 else b"close" not in connection
        if self.status in (429, 503):
            self.retry_after = header_of(head, b"retry-after").decode("latin-1")
        if self._no_body or self.status in (204, 304):
            self._remaining = 0
        elif b"chunked" in header_of(head, b"transfer-encoding"):
            self._chunked = _ChunkScanner(len(head) + 4)
        elif length := header_of(head, b"content-length"):
            self._remaining = _number(length, "Content-Length", 10)


def header_of(head: bytes, name: bytes) -> bytes:
    """The value of header `name`, both in lower case, or nothing."""
    start = head.find(b"\r\n" + name + b":")
    if start < 0:
        return b""
    start += len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else len(head)].strip()


class _ChunkScanner:
    """Walks chunk sizes as they arrive; the payload is put together only when asked for."""

    __slots__ = ("_at", "_in_trailer", "begun", "pieces")

    def __init__(self, start: int) -> None:
        self._at = start
        self.pieces: list[tuple[int, int]] = []
        self.begun: list[tuple[int, int]] = []  # none or one
        self._in_trailer = False

    def feed(self, data: bytearray) -> int | None:
        """Where the response ends, or None while that has not arrived."""
        while (line_end := data.find(b"\r\n", self._at)) >= 0:
            start = line_end + 2
            line = bytes(data[self._at : line_end])
            if self._in_trailer:
                self._at = start
                if not line:
                    return start
                continue
            size = _chunk_size(line)
            if size == 0:
                self._in_trailer = True
                self._at = start
                continue
            end = start + size
            if len(data) < end + 2:
                self.begun = [(start, min(end, len(data)))]
                return None
            self.begun = []
            if data[end : end + 2] != b"\r\n":
                raise ProtocolError(f"a chunk of {size} bytes does not end there")
            self.pieces.append((start, end))
            self._at = end + 2
        return None

    def payload(self, data: bytearray) -> bytes:
        return b"".join(bytes(data[start:end]) for start, end in self.pieces)


@lru_cache(4096)  # the pieces of a stream have few different sizes
def _chunk_size(line: bytes) -> int:
    return _number(line.partition(b";")[0].strip(), "chunk size", 16)


def split_response(raw: bytes) -> tuple[bytes, bytes, list[tuple[int, int]], bool]:
    """(head, body, pieces, is complete) of a response, whole or cut short; no head until it is whole.

    A piece is (start in the body, start in `raw`). What ends with the connection counts as complete. Raises
    ProtocolError.
    """
    reader = ResponseReader()
    is_complete = reader.feed(raw) or reader.feed_eof()
    pieces, body, at = [], [], 0
    for start, end in reader.parts:
        pieces.append((at, start))
        body.append(raw[start:end])
        at += end - start
    head, blank, _ = raw.partition(_BLANK_LINE)
    return head + blank if blank else b"", b"".join(body), pieces, is_complete


def _number(text: bytes | bytearray, what: str, base: int) -> int:
    """Stricter than int(), which takes signs, blanks and underscores."""
    digits = b"0123456789abcdefABCDEF"[: 10 if base == 10 else None]
    if not text or len(text) > _MAX_DIGITS or text.strip(digits):
        raise ProtocolError(f"the {what} is {bytes(text[:40])!r}")
    return int(text, base)
