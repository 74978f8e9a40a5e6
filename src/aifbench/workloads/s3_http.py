"""S3 by plain HTTP: one operation is one signed request, made ahead, and interpreted afterwards.

All workloads are built from JSON parameters: `bucket`, `objects` (an ObjectSet's `to_json`) and how many of
them there are, `count`. A request's head is signed before the load where possible, and anew once it is too
old to be sent. Bodies are parts of one pool in memory and are handed over as they lie there.

Of large answers a sample is kept and compared, byte by byte, with what was stored. `keeps` says which.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape, unescape
from typing import Any, ClassVar

from aifbench.cluster.endpoint import Endpoint
from aifbench.load.http import split_response
from aifbench.load.workload import Outcome, OutcomeKind
from aifbench.workloads.s3_control import DEFAULT_REGION, credentials_of, error_line
from aifbench.workloads.s3_objects import ObjectSet, Rounds, mix
from aifbench.workloads.sigv4 import (
    EMPTY_SHA256,
    FRESH_S,
    UNSIGNED_PAYLOAD,
    Signer,
    amz_date,
    encode_path,
    encode_query,
)

Request = bytes | tuple[bytes | memoryview, ...]

# Bodies up to here are copied behind their head, as one send is cheaper than two, and are signed by `auto`.
SMALL_BYTES = 65_536
# What is signed and put together before the load: memory for bodies that are copied, and for heads.
_PREPARED_BYTES = 256 * 2**20
PREPARED_REQUESTS = 200_000

# Of answers larger than this a share is kept, so that the sample is of about this size per operation.
_KEPT_BYTES = 16_384
_LARGEST_KEPT_BYTES = 256 * 2**20

_KEY = re.compile(rb"<Key>([^<]*)</Key>")
_ETAG = re.compile(rb"<ETag>")
_BLANK_LINE = b"\r\n\r\n"


class SignedRequests:
    """Requests by number, each signed once and again when it is too old. `make` takes a number and a date."""

    def __init__(
        self,
        make: Callable[[int, str], Request],
        *,
        wall_s: Callable[[], float] = time.time,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make
        self._wall_s = wall_s
        self._monotonic_s = monotonic_s
        self._made: dict[int, tuple[float, Request]] = {}

    def prepare(self, numbers: Iterable[int]) -> None:
        """Make those ahead, as far as memory is worth it."""
        used_bytes = 0
        for number in numbers:
            if number in self._made:
                return  # the rest has been seen
            request = self._new(number)
            used_bytes += sum(len(part) for part in _parts(request) if isinstance(part, bytes)) + 200
            if used_bytes > _PREPARED_BYTES or len(self._made) >= PREPARED_REQUESTS:
                return
            self._made[number] = (self._monotonic_s(), request)

    def __getitem__(self, number: int) -> Request:
        made = self._made.get(number)
        if made is None:
            return self._new(number)
        if self._monotonic_s() - made[0] > FRESH_S:
            made = self._made[number] = (self._monotonic_s(), self._new(number))
        return made[1]

    def _new(self, number: int) -> Request:
        return self._make(number, amz_date(self._wall_s()))


def _parts(request: Request) -> tuple[bytes | memoryview, ...]:
    return (request,) if isinstance(request, bytes) else request


class _S3Workload:
    """What all of them share: how to sign for one bucket."""

    kind: ClassVar[str]

    def __init__(self, bucket: str, region: str = DEFAULT_REGION) -> None:
        self._bucket = bucket
        self._region = region
        self._requests: SignedRequests

    def open(self, endpoint: Endpoint) -> None:
        self._host = endpoint.authority
        self._root = f"{endpoint.prefix}/{self._bucket}"
        self._signer = Signer(credentials_of(endpoint), self._region)
        self._requests = SignedRequests(self._make)

    def operation(self, index: int) -> tuple[str, int]:
        """What operation `index` is, and how many of its kind come before it."""
        return self.kind, index

    def prepare(self, indices: Iterable[int]) -> None:
        """Told by the engine which operations come first."""
        self._requests.prepare(self._number(index) for index in indices)

    def request(self, index: int) -> Request:
        return self._requests[self._number(index)]

    def keeps(self, index: int) -> bool:  # noqa: ARG002
        """Whether the answer to operation `index` is to be kept and interpreted."""
        return True

    def refusal(self, status: int, body: bytes) -> str:
        """The server's error document in one line."""
        return f"HTTP {status} {error_line(body)}".rstrip()

    def close(self) -> None: ...

    def _number(self, index: int) -> int:
        """Which prepared request operation `index` sends."""
        return index

    def _make(self, number: int, date: str) -> Request:
        raise NotImplementedError

    def _head(self, method: str, key: str, query: str, date: str, payload_hash: str = EMPTY_SHA256) -> bytes:
        path = encode_path(f"{self._root}/{key}" if key else self._root)
        return self._signer.head(method, self._host, path, query, payload_hash=payload_hash, date=date)


class _ObjectWorkload(_S3Workload):
    """Operation i is about object i, or about one of `count` objects, each once before any comes again."""

    def __init__(
        self, bucket: str, objects: Mapping[str, Any], count: int, region: str = DEFAULT_REGION
    ) -> None:
        super().__init__(bucket, region)
        self._objects = ObjectSet.from_json(objects)
        self._count = count
        self._rounds = Rounds(count, mix(self._objects.size(0), count))

    def number(self, index: int) -> int:
        """Which object operation `index` is about."""
        return self._rounds[index]

    def size(self, index: int) -> int:
        """Bytes of content that operation `index` moves."""
        return self._objects.size(self.number(index))

    def _number(self, index: int) -> int:
        return self.number(index)


class Get(_ObjectWorkload):
    """Reads whole objects."""

    kind: ClassVar[str] = "get"

    def keeps(self, index: int) -> bool:
        return is_sampled(index, self.size(index))

    def interpret(self, index: int, status: int, body: bytes) -> Outcome:
        if not self.keeps(index):
            return Outcome()
        if status != 200:
            return Outcome(OutcomeKind.PROTOCOL, 0, error=f"HTTP {status} to a read of the whole object")
        return compare(body, self._objects.body(self.number(index)))

    def _make(self, number: int, date: str) -> Request:
        return self._head("GET", self._objects.key(number), "", date) + b"\r\n"


class RangeGet(_ObjectWorkload):
    """Reads `range_bytes` of an object from a random multiple of them; smaller objects as a whole."""

    kind: ClassVar[str] = "range"

    def __init__(
        self,
        bucket: str,
        objects: Mapping[str, Any],
        count: int,
        range_bytes: int = 2**20,
        region: str = DEFAULT_REGION,
    ) -> None:
        super().__init__(bucket, objects, count, region)
        self._range_bytes = range_bytes

    def span(self, index: int) -> tuple[int, int]:
        """[start, stop) of the object that operation `index` asks for."""
        size = self._objects.size(self.number(index))
        ranges = max(1, -(-size // self._range_bytes))
        start = mix(index, 0x72) % ranges * self._range_bytes
        return start, min(size, start + self._range_bytes)

    def size(self, index: int) -> int:
        start, stop = self.span(index)
        return stop - start

    def keeps(self, index: int) -> bool:
        return is_sampled(index, self.size(index))

    def request(self, index: int) -> Request:
        # A Range header needs no signature, so one signed head serves all ranges of an object.
        start, stop = self.span(index)
        head = self._requests[self._number(index)]
        assert isinstance(head, bytes)
        return head + b"range: bytes=%d-%d\r\n\r\n" % (start, max(start, stop - 1))

    def interpret(self, index: int, status: int, body: bytes) -> Outcome:
        start, stop = self.span(index)
        # By its length and not by its status: some servers answer 200 to what they should answer 206 to.
        if status != 206 and self.keeps(index) and len(body) != stop - start:
            return Outcome(OutcomeKind.WRONG, error=f"HTTP {status}: the range was ignored")
        if not self.keeps(index):
            return Outcome()
        return compare(body, self._objects.body(self.number(index), start, stop))

    def _make(self, number: int, date: str) -> Request:
        return self._head("GET", self._objects.key(number), "", date)


class Head(_ObjectWorkload):
    """Asks for an object's metadata, which must have its size."""

    kind: ClassVar[str] = "head"
    wants_head: ClassVar[bool] = True

    def size(self, index: int) -> int:  # noqa: ARG002
        return 0

    def interpret(self, index: int, status: int, answer: bytes) -> Outcome:  # noqa: ARG002
        stored = self._objects.size(self.number(index))
        told = header_of(answer, "content-length")
        if told != str(stored):
            return Outcome(OutcomeKind.WRONG, error=f"a size of {told or 'nothing'} instead of {stored}")
        return Outcome()

    def _make(self, number: int, date: str) -> Request:
        return self._head("HEAD", self._objects.key(number), "", date) + b"\r\n"


class Put(_ObjectWorkload):
    """Operation i stores object i modulo `count`.

    `payload` is `signed` (with the SHA-256 of the body), `unsigned`, or `auto`: signed for small bodies.
    """

    kind: ClassVar[str] = "put"

    def __init__(
        self,
        bucket: str,
        objects: Mapping[str, Any],
        count: int,
        payload: str = "auto",
        region: str = DEFAULT_REGION,
    ) -> None:
        super().__init__(bucket, objects, count, region)
        self._payload = payload

    def open(self, endpoint: Endpoint) -> None:
        super().open(endpoint)
        self._objects.body(0, 0, 1024)  # makes the pool

    def number(self, index: int) -> int:
        return index % self._count

    def interpret(self, index: int, status: int, body: bytes) -> Outcome:  # noqa: ARG002
        return unexpected(body) if error_line(body) else Outcome()

    def _make(self, number: int, date: str) -> Request:
        size = self._objects.size(number)
        is_signed = self._payload == "signed" or (self._payload == "auto" and size <= SMALL_BYTES)
        payload_hash = self._objects.digest(number, "sha256") if is_signed else UNSIGNED_PAYLOAD
        head = self._head("PUT", self._objects.key(number), "", date, payload_hash)
        return with_body(head, size, self._objects.content(number))


class List(_ObjectWorkload):
    """Operation i asks for one page of keys, from a place in the bucket that `count` objects define."""

    kind: ClassVar[str] = "list"

    def __init__(
        self,
        bucket: str,
        objects: Mapping[str, Any],
        count: int,
        page: int = 1000,
        region: str = DEFAULT_REGION,
    ) -> None:
        super().__init__(bucket, objects, count, region)
        self._page = page
        self._keys = sorted(self._objects.key(number) for number in range(count))

    def size(self, index: int) -> int:  # noqa: ARG002
        return 0

    def interpret(self, index: int, status: int, body: bytes) -> Outcome:  # noqa: ARG002
        first = self.number(index)
        expected = self._keys[first : first + self._page]
        found = [unescape(key.decode(errors="replace")) for key in _KEY.findall(body)]
        if not found and b"ListBucketResult" not in body:
            return unexpected(body)
        if found == expected:
            return Outcome(items=len(found))
        missing = len(set(expected) - set(found))
        what = f"lacks {missing} of {len(expected)} keys" if missing else "has keys that were not stored"
        return Outcome(OutcomeKind.WRONG, error=f"a listing {what}")

    def _make(self, number: int, date: str) -> Request:
        asked = {"list-type": "2", "max-keys": str(self._page), "prefix": self._objects.prefix}
        if number:
            asked["start-after"] = self._keys[number - 1]
        return self._head("GET", "", encode_query(asked), date) + b"\r\n"


class Delete(_ObjectWorkload):
    """Operation i removes object i modulo `count`. S3 confirms that of objects that are not there too."""

    kind: ClassVar[str] = "delete"

    def number(self, index: int) -> int:
        return index % self._count

    def size(self, index: int) -> int:  # noqa: ARG002
        return 0

    def interpret(self, index: int, status: int, body: bytes) -> Outcome:  # noqa: ARG002
        return unexpected(body) if error_line(body) else Outcome()

    def _make(self, number: int, date: str) -> Request:
        return self._head("DELETE", self._objects.key(number), "", date) + b"\r\n"


class Upload(_S3Workload):
    """Uploads of `parts` parts: operation i is step i modulo (parts + 1) of upload i div (parts + 1).

    The last step makes an object of the parts. `uploads` are the ids of uploads that were begun before. To be
    run as chains of parts + 1: the last step sends what the server called the parts, and some servers want
    them one after another.
    """

    wants_head: ClassVar[bool] = True

    def __init__(
        self,
        bucket: str,
        objects: Mapping[str, Any],
        uploads: Sequence[str],
        parts: int,
        part_bytes: int,
        region: str = DEFAULT_REGION,
    ) -> None:
        super().__init__(bucket, region)
        self._objects = ObjectSet.from_json(objects)
        self._uploads = uploads
        self._parts = parts
        self._part_bytes = part_bytes
        self._tags: dict[int, list[str]] = {}  # of uploads under way

    def open(self, endpoint: Endpoint) -> None:
        super().open(endpoint)
        self._objects.body(0, 0, 1024)  # makes the pool

    def prepare(self, indices: Iterable[int]) -> None:
        super().prepare(index for index in indices if self.operation(index)[0] == "part")

    def operation(self, index: int) -> tuple[str, int]:
        """What operation `index` is, and of which upload."""
        upload, step = divmod(index, self._parts + 1)
        return "part" if step < self._parts else "complete", upload

    def size(self, index: int) -> int:
        start, stop = self._span(index)
        return stop - start

    def learn(self, index: int, answer: bytes) -> bool:
        """Keep what the server calls a part; whether it calls it anything."""
        tag = header_of(answer, "etag")
        self._tags.setdefault(self.operation(index)[1], []).append(tag)
        return bool(tag)

    def request(self, index: int) -> Request:
        kind, upload = self.operation(index)
        if kind == "part":
            return self._requests[index]
        body = completion(self._tags.pop(upload))
        query = encode_query({"uploadId": self._uploads[upload]})
        head = self._head("POST", self._objects.key(upload), query, amz_date(time.time()), UNSIGNED_PAYLOAD)
        return with_body(head, len(body), [body])

    def interpret(self, index: int, status: int, answer: bytes) -> Outcome:  # noqa: ARG002
        body = split_response(answer)[1]
        if self.operation(index)[0] == "part":
            is_named = bool(header_of(answer, "etag"))
            return Outcome() if is_named and not error_line(body) else unexpected(body, "a part without ETag")
        # A server may begin to answer before it knows how it ends: 200, then an error document.
        return Outcome() if _ETAG.search(body) and not error_line(body) else unexpected(body)

    def _span(self, index: int) -> tuple[int, int]:
        upload, step = divmod(index, self._parts + 1)
        size = self._objects.size(upload)
        start = min(size, step * self._part_bytes)
        return start, min(size, start + self._part_bytes) if step < self._parts else start

    def _make(self, number: int, date: str) -> Request:
        upload, step = divmod(number, self._parts + 1)
        start, stop = self._span(number)
        query = encode_query({"partNumber": str(step + 1), "uploadId": self._uploads[upload]})
        head = self._head("PUT", self._objects.key(upload), query, date, UNSIGNED_PAYLOAD)
        return with_body(head, stop - start, self._objects.content(upload, start, stop))


def with_body(head: bytes, size_bytes: int, content: list[bytes | memoryview]) -> Request:
    """A request of a signed head and a body: copied together when small, else the pieces as they are."""
    head += b"content-length: %d\r\n\r\n" % size_bytes
    if size_bytes <= SMALL_BYTES:
        return b"".join((head, *content))
    # The first piece is an object's 64 bytes of its own: they travel with the head.
    if isinstance(content[0], bytes):
        return (head + content[0], *content[1:])
    return (head, *content)


def completion(tags: Iterable[str]) -> bytes:
    """The body that completes a multipart upload of parts with these ETags, in order."""
    listed = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(tag)}</ETag></Part>"
        for number, tag in enumerate(tags, 1)
    )
    return f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()


def header_of(answer: bytes, name: str) -> str:
    """The value of a header of a whole answer, or nothing; `name` is lower-case."""
    for line in answer.partition(_BLANK_LINE)[0].split(b"\r\n")[1:]:
        found, _, value = line.partition(b":")
        if found.lower() == name.encode():
            return value.strip().decode("latin-1")
    return ""


def is_sampled(index: int, size_bytes: int) -> bool:
    """Whether the answer to this operation is compared: all small ones, few large ones."""
    if size_bytes <= _KEPT_BYTES:
        return True
    return size_bytes <= _LARGEST_KEPT_BYTES and mix(index, 0x6B) % size_bytes < _KEPT_BYTES


def compare(body: bytes, stored: bytes) -> Outcome:
    """Of what was read with what was stored."""
    if len(body) != len(stored):
        return Outcome(OutcomeKind.WRONG, error=f"{len(body)} bytes instead of {len(stored)}")
    if body != stored:
        return Outcome(OutcomeKind.WRONG, error="the content differs from what was stored")
    return Outcome()


def unexpected(body: bytes, what: str = "") -> Outcome:
    text = error_line(body) or what or f"unexpected answer {body[:60]!r}"
    return Outcome(OutcomeKind.PROTOCOL, error=text)
