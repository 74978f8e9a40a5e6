"""A server of PostgreSQL's protocol 3.0: each statement gives one int4 column, with the rows it is told.

Message formats: PostgreSQL documentation, "Frontend/Backend Protocol".
"""

import socket
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

_SSL_REQUEST, _GSS_REQUEST = 80877103, 80877104
_INT4 = 23


@dataclass(frozen=True, slots=True)
class Failure:
    """An error to answer with; FATAL ones end the connection."""

    state: str
    text: str
    severity: str = "ERROR"

    def encode(self) -> bytes:
        fields = (b"S", self.severity), (b"V", self.severity), (b"C", self.state), (b"M", self.text)
        return message(b"E", b"".join(code + text.encode() + b"\0" for code, text in fields) + b"\0")


class Gone:
    """The connection ends without a word."""


Answer = Sequence[int] | Failure | type[Gone]


@dataclass
class PostgresServer:
    """Listens on 127.0.0.1; `answer(statement, values)` gives the rows of prepared statements.

    `settings` are those that clients have set for their sessions.
    """

    answer: Callable[[str, Sequence[bytes]], Answer] = lambda *_: [0]
    refusal: Failure | None = None
    connections: int = 0
    statements: list[str] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        for sock in self._open:
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            with sock, sock.makefile("rb") as stream:
                while (code := struct.unpack("!ii", stream.read(8)))[1] in (_SSL_REQUEST, _GSS_REQUEST):
                    sock.sendall(b"N")
                stream.read(code[0] - 8)
                self.connections += 1
                if self.refusal is not None:
                    sock.sendall(self.refusal.encode())
                    return
                _Session(self, sock).greet()
                session = _Session(self, sock)
                while (kind := stream.read(1)) and session.hear(
                    kind, stream.read(struct.unpack("!i", stream.read(4))[0] - 4)
                ):
                    pass
        except (OSError, struct.error):
            pass  # the client left


class _Session:
    def __init__(self, server: PostgresServer, sock: socket.socket) -> None:
        self._server = server
        self._sock = sock
        self._texts: dict[bytes, str] = {}
        self._bound: tuple[str, list[bytes]] = ("", [])
        self._out = b""
        self._skipping = False

    def greet(self) -> None:
        told = {"client_encoding": "UTF8", "server_version": "18.4", "integer_datetimes": "on"}
        parameters = b"".join(
            message(b"S", name.encode() + b"\0" + value.encode() + b"\0") for name, value in told.items()
        )
        self._sock.sendall(message(b"R", struct.pack("!i", 0)) + parameters + message(b"Z", b"I"))

    def hear(self, kind: bytes, body: bytes) -> bool:
        """False when the connection is to end."""
        if kind == b"X":
            return False
        if kind == b"S":
            self._sock.sendall(self._out + message(b"Z", b"I"))
            self._out, self._skipping = b"", False
        elif not self._skipping:
            return self._act(kind, body)
        return True

    def _act(self, kind: bytes, body: bytes) -> bool:
        if kind == b"P":
            name, text, _ = body.split(b"\0", 2)
            self._texts[name] = text.decode()
            self._server.statements.append(text.decode())
            self._out += message(b"1", b"")
        elif kind == b"B":
            _, name, rest = body.split(b"\0", 2)
            self._bound = self._texts[name], _values(rest)
            self._out += message(b"2", b"")
        elif kind == b"D":
            column = b"n\0" + struct.pack("!ihihih", 0, 0, _INT4, 4, -1, 1)
            self._out += message(b"T", struct.pack("!h", 1) + column)
        elif kind == b"E":
            return self._execute()
        return True

    def _execute(self) -> bool:
        text, values = self._bound
        if "set_config" in text:
            self._server.settings[values[0].decode()] = values[1].decode()
        answer: Answer = [1] if "set_config" in text else self._server.answer(text, values)
        if answer is Gone:
            return False
        if isinstance(answer, Failure):
            self._out += answer.encode()
            self._skipping = True
            if answer.severity == "FATAL":
                self._sock.sendall(self._out)
                return False
            return True
        assert not isinstance(answer, type)
        for number in answer:
            self._out += message(b"D", struct.pack("!hii", 1, 4, number))
        self._out += message(b"C", b"SELECT %d\0" % len(answer))
        return True


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def _values(rest: bytes) -> list[bytes]:
    """Of a Bind message, after its names."""
    (formats,) = struct.unpack_from("!h", rest)
    at = 2 + 2 * formats
    (count,) = struct.unpack_from("!h", rest, at)
    at += 2
    values = []
    for _ in range(count):
        (size,) = struct.unpack_from("!i", rest, at)
        values.append(rest[at + 4 : at + 4 + size])
        at += 4 + size
    return values
