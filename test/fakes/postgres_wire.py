"""A server that speaks PostgreSQL's protocol (version 3) as far as a control connection needs it.

It asks for a password in clear text and answers queries from a table: pattern to (column names, type, rows),
or to (SQLSTATE, message) for an error. Rows hold texts; all columns of an answer are of one type.
"""

import re
import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import BinaryIO, cast

TEXT, INT8 = 25, 20
Rows = tuple[Sequence[str], int, Sequence[Sequence[str | None]]]
Answers = Mapping[str, Rows | tuple[str, str]]

_SSL_REQUEST = 80877103


class PostgresWire:
    """Serves until `close`; `startup_error` is what every connection gets instead of being let in."""

    def __init__(
        self, answers: Answers, *, password: str = "secret", startup_error: tuple[str, str] | None = None
    ) -> None:
        self._answers = answers
        self._password = password
        self._startup_error = startup_error
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.queries: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._socket.accept()[0],), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, suppress(OSError, struct.error), connection.makefile("rwb") as stream:
            _Session(cast(BinaryIO, stream), self).run(self._startup_error, self._password)

    def answer(self, query: str) -> Rows | tuple[str, str]:
        self.queries.append(query)
        for pattern, answer in self._answers.items():
            if re.search(pattern, query):
                return answer
        return ((), TEXT, ())


class _Session:
    def __init__(self, stream: BinaryIO, server: PostgresWire) -> None:
        self._stream = stream
        self._server = server

    def run(self, startup_error: tuple[str, str] | None, password: str) -> None:
        if self._startup() == _SSL_REQUEST:
            self._raw(b"N")
            self._startup()
        if startup_error:
            self._error(*startup_error)
            return
        self._send(b"R", struct.pack("!i", 3))
        _, given = self._receive()
        if given.rstrip(b"\0").decode() != password:
            self._error("28P01", 'password authentication failed for user "bench"')
            return
        self._send(b"R", struct.pack("!i", 0))
        for name, value in (("server_version", "18.4"), ("client_encoding", "UTF8")):
            self._send(b"S", f"{name}\0{value}\0".encode())
        self._ready()
        query = ""
        while True:
            kind, body = self._receive()
            if kind == b"X":
                return
            if kind == b"Q":
                self._result(body.rstrip(b"\0").decode())
                self._ready()
            elif kind == b"P":
                query = body.split(b"\0")[1].decode()
                self._send(b"1")
            elif kind == b"B":
                self._send(b"2")
            elif kind == b"E":
                self._result(query)
            elif kind == b"S":
                self._ready()

    def _result(self, query: str) -> None:
        answer = self._server.answer(query)
        if len(answer) == 2:
            self._error(*answer)
            return
        names, kind, rows = answer
        if names:
            columns = b"".join(n.encode() + struct.pack("!xihihih", 0, 0, kind, -1, -1, 0) for n in names)
            self._send(b"T", struct.pack("!h", len(names)) + columns)
        for row in rows:
            self._send(b"D", struct.pack("!h", len(row)) + b"".join(map(_field, row)))
        self._send(b"C", b"SELECT\0")

    def _error(self, code: str, message: str) -> None:
        self._send(b"E", f"SFATAL\0VFATAL\0C{code}\0M{message}\0\0".encode())

    def _ready(self) -> None:
        self._send(b"Z", b"I")

    def _startup(self) -> int:
        (length,) = struct.unpack("!i", self._take(4))
        (code,) = struct.unpack("!i", self._take(length - 4)[:4])
        return int(code)

    def _receive(self) -> tuple[bytes, bytes]:
        kind = self._take(1)
        (length,) = struct.unpack("!i", self._take(4))
        return kind, self._take(length - 4)

    def _take(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise ConnectionError
        return data

    def _send(self, kind: bytes, body: bytes = b"") -> None:
        self._raw(kind + struct.pack("!i", 4 + len(body)) + body)

    def _raw(self, data: bytes) -> None:
        self._stream.write(data)
        self._stream.flush()


def _field(value: str | None) -> bytes:
    return struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value.encode()
