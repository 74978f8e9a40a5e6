"""Streamed answers in the OpenAI dialect as bytes, and a real server on 127.0.0.1 that sends their pieces."""

import contextlib
import itertools
import json
import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"
CLOSE, HANG = b"close the connection", b"send nothing more"


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def delta(usage: Any = None, finish: str | None = None, **fields: Any) -> bytes:
    """A chunk of a chat; `fields` are its delta's."""
    told = {} if usage is None else {"usage": usage}
    return event({"choices": [{"index": 0, "delta": fields, "finish_reason": finish}], **told})


ROLE = delta(role="assistant", content="")


def usage(prompt_tokens: int, output_tokens: int, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt_tokens, "completion_tokens": output_tokens, **more}


def usage_event(prompt_tokens: int, output_tokens: int, **more: Any) -> bytes:
    return event({"choices": [], "usage": usage(prompt_tokens, output_tokens, **more)})


def chat(*words: str, prompt_tokens: int = 5, tokens: int | None = None) -> list[bytes]:
    """The events of a complete answer with a word in each, as vLLM sends it."""
    count = len(words) if tokens is None else tokens
    texts = [delta(content=word) for word in words]
    return [ROLE, *texts, delta(finish="length", content=""), usage_event(prompt_tokens, count), DONE]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def chunked(events: Sequence[bytes]) -> list[bytes]:
    """Head, a chunk for each event, and the end."""
    return [CHUNKED, *map(chunk, events), LAST_CHUNK]


def with_length(events: Sequence[bytes]) -> list[bytes]:
    return [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % sum(map(len, events)), *events]


def until_close(events: Sequence[bytes]) -> list[bytes]:
    return [b"HTTP/1.1 200 OK\r\n\r\n", *events]


def cut(data: bytes, chance: random.Random, pieces: int) -> list[bytes]:
    """`data` in that many pieces at most, at random places."""
    places = sorted(chance.randrange(1, len(data)) for _ in range(pieces - 1))
    ends = [0, *places, len(data)]
    return [data[a:b] for a, b in itertools.pairwise(ends) if a < b]


class StreamService:
    """Answers each request with the pieces that `answer(its number, its body)` gives."""

    def __init__(
        self,
        answer: Callable[[int, bytes], Iterable[bytes]],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.requests: list[bytes] = []
        self.closing = threading.Event()
        self._answer, self._tls = answer, tls
        self._lock = threading.Lock()
        self._peers: list[tuple[threading.Thread, socket.socket]] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address: tuple[str, int] = self._listener.getsockname()
        self._acceptor = threading.Thread(target=self._accept)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        for thread, sock in self._peers:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            thread.join()

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._peers.append((thread, sock))
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            with sock, sock.makefile("rb") as file:
                while (body := _read_body(file)) is not None and self._reply(sock, body):
                    pass

    def _reply(self, sock: socket.socket, body: bytes) -> bool:
        """False when the connection is over."""
        with self._lock:
            number = len(self.requests)
            self.requests.append(body)
        for piece in self._answer(number, body):
            if piece == CLOSE:
                return False
            if piece == HANG:
                self.closing.wait()
                return False
            sock.sendall(piece)
        return True


def _read_body(file: Any) -> bytes | None:
    """None at the end of the connection."""
    length, line = 0, file.readline()
    if not line:
        return None
    while line not in (b"\r\n", b""):
        if line.lower().startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
        line = file.readline()
    data: bytes = file.read(length)
    return data
