"""A strict stand-in for Loki's push API: stores what a real one takes, and refuses what one may refuse.

Stricter in two points: a stream's entries must come in order of time, as with `unordered_writes: false`, and
its labels must be `LABELS`. An entry that a stream has already, at that time, is taken and not stored again.
`stop` ends all connections; what was stored stays, as with a write-ahead log.
"""

import json
import re
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

LABELS = {"job", "service", "kind", "node", "stream"}
MAX_LINE_BYTES = 256 * 1024
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_DAY_NS = 86_400 * 10**9
_NS = re.compile(r"[0-9]{19}")

Stream = tuple[tuple[str, str], ...]


class FakeLoki:
    """Answers `status` in place of taking anything; takes `lose_answers` requests without an answer."""

    def __init__(self) -> None:
        self.streams: dict[Stream, list[tuple[int, str]]] = {}
        self.refusals: list[str] = []
        self.requests = 0
        self.duplicates = 0
        self.status = 204
        self.lose_answers = 0
        self._seen: set[tuple[Stream, int, str]] = set()
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def lines(self) -> list[str]:
        """Everything stored, of each stream in order."""
        return [line for entries in self.streams.values() for _, line in entries]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, after a stop on the same port."""
        loki = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                loki._connections.add(self.connection)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, text = loki._answer(self.path, self.headers.get("Content-Type", ""), body)
                if status == 0:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._server = None
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._connections.clear()

    def _answer(self, path: str, content_type: str, body: bytes) -> tuple[int, str]:
        """(status, text); status 0 closes the connection."""
        with self._lock:
            self.requests += 1
            if self._server is None:
                return 0, ""
            if path != "/loki/api/v1/push" or content_type != "application/json":
                return self._refused(404, f"{path} {content_type}")
            if self.status != 204:
                return self.status, "as the test wants it"
            problem = self._store(body)
            if self.lose_answers:
                self.lose_answers -= 1
                return 0, ""
            return self._refused(400, problem) if problem else (204, "")

    def _refused(self, status: int, why: str) -> tuple[int, str]:
        self.refusals.append(why)
        return status, why

    def _store(self, body: bytes) -> str:
        """The first problem; entries without one are stored, as Loki does it."""
        problem = ""
        for stream in json.loads(body)["streams"]:
            labels = stream["stream"]
            if set(labels) != LABELS or not all(_NAME.fullmatch(name) for name in labels):
                return f"labels {labels}"
            if not all(isinstance(value, str) and value for value in labels.values()) or not stream["values"]:
                return f"values {stream}"
            key = tuple(sorted(labels.items()))
            for entry in stream["values"]:
                problem = self._store_entry(key, entry) or problem
        return problem

    def _store_entry(self, key: Stream, entry: list[Any]) -> str:
        if len(entry) != 2 or not all(isinstance(part, str) for part in entry) or not _NS.fullmatch(entry[0]):
            return f"entry {entry}"
        at_ns, line = int(entry[0]), entry[1]
        if len(line.encode()) > MAX_LINE_BYTES:
            return f"a line of {len(line)} characters"
        if not -7 * _DAY_NS < at_ns - time.time_ns() < 600 * 10**9:
            return f"time {at_ns}"
        entries = self.streams.setdefault(key, [])
        if (key, at_ns, line) in self._seen:
            self.duplicates += 1
            return ""
        if entries and at_ns < entries[-1][0]:
            return f"entry out of order: {line}"
        self._seen.add((key, at_ns, line))
        entries.append((at_ns, line))
        return ""
