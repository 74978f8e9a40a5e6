"""Server-sent events: the pieces of a streamed answer, and where each one ends. No sockets, no clocks."""

from collections.abc import Iterator

_BLANK_LINES = (b"\r\n\r\n", b"\n\n")


def events(body: bytes) -> Iterator[tuple[int, bytes]]:
    """(where it ends in `body`, its data) of every event with data; of one cut short only what is whole.

    Comments and other fields are left out, and several data lines are joined, as the WHATWG HTML standard
    (section 9.2.6) says. The last event may lack its blank line when it ends with a line.
    """
    blank = next((blank for blank in _BLANK_LINES if blank in body), _BLANK_LINES[1])
    start = 0
    while (found := body.find(blank, start)) >= 0:
        data = _data(body[start:found])
        start = found + len(blank)
        if data is not None:
            yield start, data
    rest = body[start:]
    data = _data(rest) if rest.endswith(b"\n") else None
    if data is not None:
        yield len(body), data


def _data(event: bytes) -> bytes | None:
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:].rstrip(b"\r")
    lines = [line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None
