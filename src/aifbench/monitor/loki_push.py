"""Loki's push API: lines with labels, as JSON, over one connection that is kept."""

import http.client
import json
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from urllib.parse import urlsplit

PATH = "/loki/api/v1/push"
_TIMEOUT_S = 10.0
_TOO_MANY = 429
_SERVER_ERROR = 500

# (nanoseconds since the epoch, text)
Entry = tuple[int, str]


class Answer(Enum):
    """TAKEN: all of it is stored. REFUSED: some of it never will be. AWAY: ask again later."""

    TAKEN = "taken"
    REFUSED = "refused"
    AWAY = "away"


def push_body(streams: Iterable[tuple[Mapping[str, str], Sequence[Entry]]]) -> bytes:
    """A request with the entries of several streams, each in order of time."""
    data = [
        {"stream": dict(labels), "values": [[str(at_ns), text] for at_ns, text in entries]}
        for labels, entries in streams
    ]
    return json.dumps({"streams": data}, separators=(",", ":")).encode()


class LokiPush:
    """Sends one request at a time; never raises for a Loki that is away. ValueError for no HTTP URL."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url!r} is no http address")
        self._path = parts.path.rstrip("/") + PATH
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=_TIMEOUT_S)

    def __call__(self, body: bytes) -> tuple[Answer, str]:
        """What became of the request, and why."""
        try:
            self._connection.request("POST", self._path, body, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            text = response.read().decode(errors="replace").strip()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return Answer.AWAY, str(error) or type(error).__name__
        reason = f"{response.status} {text[:200] or response.reason}"
        if response.status < 300:
            return Answer.TAKEN, reason
        is_passing = response.status == _TOO_MANY or response.status >= _SERVER_ERROR
        return (Answer.AWAY if is_passing else Answer.REFUSED), reason
