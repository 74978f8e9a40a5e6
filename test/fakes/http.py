"""A small real HTTP/1.1 server on 127.0.0.1 that misbehaves on request: the target says how.

/ok             200 with body `ok`
/body/N         200 with N bytes            /chunked/N   the same in chunks of 1000 bytes
/status/C       an answer with status C     /until-end   200 that ends with the connection
/wait           200 once `gate` is set      /hang        no answer as long as the server lives
/close          200, Connection: close      /leave       200, then closes the idle connection
/cut            10 of 100 bytes, then closes
/vanish         closes without an answer    /reset       closes by a reset
/garbage        not HTTP                    /early       413 without reading the body
/slow-reader    reads the body in small pieces, answers 200
"""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Self

Answer = Callable[["_Peer"], None]


class HttpService:
    """Serves until closed; counts what it sees."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.stall_until_s = 0.0
        self.targets: list[str] = []
        self.request_bytes: list[int] = []
        self.connections = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._peers: list[_Peer] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address: tuple[str, int] = self._listener.getsockname()
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._closing.is_set():
            return
        self._closing.set()
        self.gate.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        for peer in self._peers:
            peer.end()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self._peers.append(_Peer(self, sock))

    def hang(self) -> None:
        self._closing.wait()

    def began(self, target: str) -> None:
        with self._lock:
            self.targets.append(target)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def ended(self, size_bytes: int) -> None:
        with self._lock:
            self.request_bytes.append(size_bytes)
            self.in_flight -= 1


class _Peer:
    """One connection."""

    def __init__(self, service: HttpService, sock: socket.socket) -> None:
        self.service = service
        self.sock = sock
        self.argument = 0
        self.keeps_open = True
        self.requests = 0
        self._file = sock.makefile("rb")
        self._request_bytes = 0
        self._body_left = 0
        self._is_head = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _serve(self) -> None:
        with self.sock, self._file, contextlib.suppress(OSError):
            while self.keeps_open and (target := self._read_head()):
                self.requests += 1
                _, name, argument = (*target.split("/"), "0")[:3]
                self.argument = int(argument)
                if name not in ("early", "slow-reader"):
                    self.read_body(1 << 20)
                self.service.began(target)
                try:
                    _ANSWERS[name](self)
                finally:
                    self.service.ended(self._request_bytes)

    def _read_head(self) -> str:
        """The target of the next request; empty when the client has closed."""
        first = line = self._file.readline()
        self._request_bytes, self._body_left = len(first), 0
        while line not in (b"\r\n", b""):
            line = self._file.readline()
            self._request_bytes += len(line)
            if line.lower().startswith(b"content-length:"):
                self._body_left = int(line.partition(b":")[2])
        if not line:
            return ""
        method, target, _ = first.decode().split()
        self._is_head = method == "HEAD"
        return target

    def read_body(self, piece_bytes: int) -> None:
        while self._body_left:
            got = len(self._file.read1(min(piece_bytes, self._body_left)))
            if not got:
                return
            self._body_left -= got
            self._request_bytes += got

    def answer(self, body: bytes, status: int = 200, headers: str = "") -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        self.sock.sendall(head.encode() + (b"" if self._is_head else body))

    def close_after(self, data: bytes) -> None:
        self.keeps_open = False
        self.sock.sendall(data)


def _wait(peer: _Peer) -> None:
    peer.service.gate.wait()
    peer.answer(b"ok")


def _close(peer: _Peer) -> None:
    peer.keeps_open = False
    peer.answer(b"bye", headers="Connection: close\r\n")


def _leave(peer: _Peer) -> None:
    peer.keeps_open = False
    peer.answer(b"ok")


def _stale(peer: _Peer) -> None:
    """Closed just when it is used again, as after too long a pause."""
    peer.keeps_open = peer.requests == 1
    if peer.keeps_open:
        peer.answer(b"ok")


def _reset(peer: _Peer) -> None:
    peer.keeps_open = False
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _chunked(peer: _Peer) -> None:
    body = b"x" * peer.argument
    pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    peer.sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")


def _early(peer: _Peer) -> None:
    peer.keeps_open = False
    peer.answer(b"too large", 413)
    peer.service.hang()


def _work(peer: _Peer) -> None:
    time.sleep(max(peer.argument / 1000, peer.service.stall_until_s - time.monotonic()))
    peer.answer(b"ok")


def _slow_reader(peer: _Peer) -> None:
    peer.read_body(10_000)
    peer.answer(b"ok")


_ANSWERS: dict[str, Answer] = {
    "ok": lambda peer: peer.answer(b"ok"),
    "body": lambda peer: peer.answer(b"x" * peer.argument),
    "chunked": _chunked,
    "status": lambda peer: peer.answer(b"" if peer.argument == 204 else b"no", peer.argument),
    "until-end": lambda peer: peer.close_after(b"HTTP/1.1 200 OK\r\n\r\nall of it"),
    "wait": _wait,
    "stale": _stale,
    "hang": lambda peer: peer.service.hang(),
    "close": _close,
    "leave": _leave,
    "cut": lambda peer: peer.close_after(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 10),
    "vanish": lambda peer: peer.close_after(b""),
    "reset": _reset,
    "garbage": lambda peer: peer.close_after(b"220 mail.example.org ESMTP\r\n"),
    "early": _early,
    "slow-reader": _slow_reader,
    "work": _work,
}
