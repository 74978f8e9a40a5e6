"""Server-sent events: the pieces of a streamed answer, and where each one ends. No sockets, no clocks."""

import re
from collections.abc import Iterator

_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")


def events(body: bytes) -> Iterator[tuple[int, bytes]]:
    """(where it ends in `body`, its data) of every event with data; of one cut short only what is whole.

    Comments and other fields are left out, and several data lines are joined, as the WHATWG HTML standard
    (section 9.2.6) says. The last event may lack its blank line when it ends with a line.
    """
    start = 0
    for found, end in _blank_lines(body):
        data = _data(body[start:found])
        start = end
        if data is not None:
            yield end, data
    rest = body[start:]
    data = _data(rest) if rest.endswith((b"\n", b"\r")) else None
    if data is not None:
        yield len(body), data


def _blank_lines(body: bytes) -> Iterator[tuple[int, int]]:
    """Where each one begins, with the end of the line before it, and where it ends."""
    if b"\r" in body:
        for blank in _BLANK_LINE.finditer(body):
            yield blank.span()
        return
    start = 0
    while (found := body.find(b"\n\n", start)) >= 0:
        start = found + 2
        yield found, start


def _data(event: bytes) -> bytes | None:
    if event.startswith(b"data: ") and b"\n" not in event and b"\r" not in event:
        return event[6:]
    lines = [line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None
