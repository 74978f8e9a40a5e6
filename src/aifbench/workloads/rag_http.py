"""Blocking HTTP/1.1 exchanges over kept connections, with the time of every read; for chains of requests."""

import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import WorkloadError
from aifbench.load.http import ProtocolError, ResponseReader, encode_request, split_response
from aifbench.load.tls import client_context
from aifbench.load.workload import StreamedAnswer

_READ_BYTES = 1 << 16
_LEAST_TIMEOUT_S = 1e-3
_PREPARE_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and what came of it: `error` is why the answer is cut short, None for a whole one.

    Stamps are `time.perf_counter_ns`; `ended_ns` is that of the last read.
    """

    began_ns: int
    ended_ns: int
    status: int
    answer: StreamedAnswer
    error: Exception | None = None


class KeptService:
    """One service and the connections to it that are free. Used by many threads at once.

    A connection that the service has closed meanwhile is replaced, and the request sent once more.
    """

    def __init__(self, endpoint: Endpoint, headers: Mapping[str, str], timeout_s: float) -> None:
        self._endpoint = endpoint
        self._headers = {"Content-Type": "application/json", **headers}
        self._timeout_s = timeout_s
        self._tls = client_context(endpoint.scheme, endpoint.ca_file)
        self._free: list[socket.socket] = []
        self._lock = threading.Lock()

    def connect(self, count: int) -> None:
        """Open that many connections ahead. Raises WorkloadError."""
        try:
            for _ in range(count):
                self._free.append(self._connection(_PREPARE_TIMEOUT_S))
        except OSError as error:
            self.close()
            raise WorkloadError(f"cannot connect to {self._endpoint.url}") from error

    def close(self) -> None:
        while self._free:
            self._free.pop().close()

    def post(self, path: str, body: bytes) -> Exchange:
        """Send a JSON body and read the whole answer. Raises nothing for what goes wrong on the way."""
        endpoint = self._endpoint
        request = encode_request("POST", endpoint.prefix + path, endpoint.authority, self._headers, body)
        began_ns = time.perf_counter_ns()
        deadline_s = time.monotonic() + self._timeout_s
        kept = self._take()
        if kept is not None:
            reading = _Reading(kept, deadline_s)
            self._end(reading, request)
            if not reading.is_stale:
                return reading.exchange(began_ns)
        try:
            fresh = self._connection(self._timeout_s)
        except OSError as error:
            return Exchange(began_ns, time.perf_counter_ns(), 0, _NOTHING, error)
        reading = _Reading(fresh, deadline_s)
        self._end(reading, request)
        return reading.exchange(began_ns)

    def _end(self, reading: "_Reading", request: bytes) -> None:
        reading.run(request)
        if reading.error is None and reading.keep_alive:
            with self._lock:
                self._free.append(reading.sock)
        else:
            reading.sock.close()

    def _take(self) -> socket.socket | None:
        """The one that was used last: the others may rest, and be closed, when they are not needed."""
        with self._lock:
            return self._free.pop() if self._free else None

    def _connection(self, timeout_s: float) -> socket.socket:
        sock = socket.create_connection((self._endpoint.host, self._endpoint.port), timeout=timeout_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is None:
            return sock
        try:
            return self._tls.wrap_socket(sock, server_hostname=self._endpoint.host)
        except (OSError, ssl.SSLError):
            sock.close()
            raise


_NOTHING = StreamedAnswer(b"", b"", [], [], [])


class _Reading:
    """One request on one connection."""

    def __init__(self, sock: socket.socket, deadline_s: float) -> None:
        self.sock = sock
        self.error: Exception | None = None
        self._deadline_s = deadline_s
        self._reader = ResponseReader()
        self._ends: list[int] = []
        self._stamps: list[int] = []

    @property
    def is_stale(self) -> bool:
        """The peer had closed before it took the request: so it did nothing about it."""
        return isinstance(self.error, ConnectionError) and not self._ends

    @property
    def keep_alive(self) -> bool:
        return self._reader.keep_alive

    def run(self, request: bytes) -> None:
        try:
            self._limit()
            self.sock.sendall(request)
            while not self._receive():
                pass
        except (OSError, ProtocolError) as error:
            self.error = error

    def _receive(self) -> bool:
        """Whether the answer is whole."""
        self._limit()
        data = self.sock.recv(_READ_BYTES)
        now_ns = time.perf_counter_ns()
        if not data:
            if self._reader.feed_eof():
                return True
            raise ConnectionResetError("the connection ended before the answer did")
        is_whole = self._reader.feed(data)
        self._ends.append(self._reader.received)
        self._stamps.append(now_ns)
        return is_whole

    def _limit(self) -> None:
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("no complete answer in time")
        self.sock.settimeout(max(left_s, _LEAST_TIMEOUT_S))

    def exchange(self, began_ns: int) -> Exchange:
        answer, status = _NOTHING, 0
        with suppress(ProtocolError):
            head, body, pieces, _ = split_response(self._reader.raw)
            answer = StreamedAnswer(body, head, pieces, self._ends, self._stamps)
            status = self._reader.status
        ended_ns = self._stamps[-1] if self._stamps else time.perf_counter_ns()
        return Exchange(began_ns, ended_ns, status, answer, self.error)
