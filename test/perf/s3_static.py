"""A server that reads requests and answers what it holds already, as fast as one thread can; see `serve`."""

import argparse
import os
import select
import socket
import sys
from collections.abc import Mapping

from test import fakes  # noqa: F401 - puts src on the path

from aifbench.workloads.s3_objects import ObjectSet

BUCKET = "bench"
_SCRATCH_BYTES = 1 << 20
_HEAD = (
    "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n"
    'ETag: "{}"\r\nLast-Modified: Fri, 20 Nov 2026 12:00:00 GMT\r\nDate: Fri, 20 Nov 2026 12:00:00 GMT\r\n'
    "Server: static\r\nx-amz-request-id: 0123456789ABCDEF\r\n\r\n"
)
_STORED = _HEAD.format(0, "d41d8cd98f00b204e9800998ecf8427e").encode()


class _Peer:
    """One connection: a request being read, then an answer being sent."""

    def __init__(self, sock: socket.socket, answers: Mapping[bytes, bytes], scratch: memoryview) -> None:
        self.sock = sock
        self._answers = answers
        self._scratch = scratch
        self._head = b""
        self._body_left = 0
        self.unsent = memoryview(b"")

    def receive(self) -> bool:
        """False when the other side has closed."""
        count = self.sock.recv_into(self._scratch)
        if self._body_left:
            self._body_left -= count
            if not self._body_left:
                self._answer(_STORED)
            return bool(count)
        self._head += self._scratch[:count]
        head, blank, body = self._head.partition(b"\r\n\r\n")
        if blank:
            self._head = b""
            self._begin(head, len(body))
        return bool(count)

    def _begin(self, head: bytes, body_bytes: int) -> None:
        if head.startswith(b"GET"):
            self._answer(self._answers[head.split(b" ", 2)[1]])
            return
        length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        self._body_left = int(length) - body_bytes
        if not self._body_left:
            self._answer(_STORED)

    def _answer(self, data: bytes) -> None:
        self.unsent = memoryview(data)
        self.send()

    def send(self) -> None:
        try:
            self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except BlockingIOError:
            return


def serve(listener: socket.socket, answers: Mapping[bytes, bytes]) -> None:
    """GET answers what `answers` has for its path, anything else is read and confirmed."""
    scratch, peers = memoryview(bytearray(_SCRATCH_BYTES)), dict[int, _Peer]()
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    while True:
        for fd, event in epoll.poll():
            if fd == listener.fileno():
                sock, _ = listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peers[sock.fileno()] = _Peer(sock, answers, scratch)
                epoll.register(sock, select.EPOLLIN)
                continue
            peer, was_sending = peers[fd], bool(peers[fd].unsent)
            try:
                goes_on = True
                if event & select.EPOLLOUT:
                    peer.send()
                elif not was_sending:
                    goes_on = peer.receive()
            except OSError:
                goes_on = False
            if not goes_on:
                del peers[fd]
                peer.sock.close()
            elif was_sending != bool(peer.unsent):
                epoll.modify(fd, select.EPOLLOUT if peer.unsent else select.EPOLLIN)


def answers_of(objects: ObjectSet, count: int) -> dict[bytes, bytes]:
    return {
        f"/{BUCKET}/{objects.key(n)}".encode(): _HEAD.format(objects.size(n), objects.digest(n)).encode()
        + objects.body(n)
        for n in range(count)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--core", type=int, required=True)
    parser.add_argument(
        "--sizes", nargs="+", required=True, help="size, seed, prefix, count, again and again"
    )
    given = parser.parse_args()
    os.sched_setaffinity(0, {given.core})
    answers: dict[bytes, bytes] = {}
    words = iter(given.sizes)
    for size, seed, prefix, count in zip(words, words, words, words, strict=True):
        answers |= answers_of(ObjectSet(size, int(seed), prefix), int(count))
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        serve(listener, answers)


if __name__ == "__main__":
    main()
