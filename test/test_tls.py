"""TlsSocket: a nonblocking client against Python's own TLS server, and certificates that do not fit."""

import select
import socket
import ssl
import tempfile
import threading
import unittest
from collections.abc import Callable
from pathlib import Path

from test.fakes.tls import CA_FILE, server_context

from aifbench.errors import ConfigError
from aifbench.load.tls import TlsSocket, client_context

LIMIT_S = 10.0


class TlsCase(unittest.TestCase):
    def connect(
        self,
        serve: Callable[[ssl.SSLSocket], object] = lambda peer: peer.recv(1),
        *,
        host: str = "localhost",
        ca_file: Path | None = CA_FILE,
    ) -> TlsSocket:
        """A client whose server runs `serve` in a thread, once shaken hands, and closes."""
        ours, theirs = socket.socketpair()
        theirs.settimeout(LIMIT_S)

        def run() -> None:
            try:
                with server_context().wrap_socket(theirs, server_side=True) as peer:
                    serve(peer)
                    peer.unwrap()
            except OSError:
                theirs.close()

        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join)
        ours.setblocking(False)
        context = client_context("https", ca_file)
        assert context is not None
        client = TlsSocket(ours, context, host)
        self.addCleanup(client.close)
        return client

    def shake(self, client: TlsSocket) -> TlsSocket:
        while not client.do_handshake():
            self.wait(client)
        return client

    def wait(self, client: TlsSocket) -> None:
        writing = [client] if client.wants_write else []
        self.assertTrue(any(select.select([client], writing, [], LIMIT_S)), "nothing happened")

    def read(self, client: TlsSocket, size: int = 65536) -> bytes:
        while True:
            try:
                return client.recv(size)
            except BlockingIOError:
                self.wait(client)

    def send_all(self, client: TlsSocket, data: bytes) -> int:
        """How often the socket was full."""
        view, refused = memoryview(data), 0
        while view:
            try:
                view = view[client.send(view) :]
            except BlockingIOError:
                refused += 1
                self.wait(client)
        return refused


class Exchange(TlsCase):
    def test_request_and_answer(self) -> None:
        client = self.shake(self.connect(lambda peer: peer.sendall(peer.recv(100).upper())))
        self.assertEqual(client.send(b"hello"), 5)
        self.assertEqual(self.read(client), b"HELLO")
        self.assertEqual(self.read(client), b"")

    def test_nothing_to_read_is_told_as_a_plain_socket_tells_it(self) -> None:
        client = self.shake(self.connect())
        with self.assertRaises(BlockingIOError):
            client.recv(100)
        self.assertFalse(client.wants_write)
        client.send(b"x")

    def test_what_is_decrypted_and_not_read_is_pending(self) -> None:
        client = self.shake(self.connect(lambda peer: peer.sendall(b"0123456789")))
        self.assertEqual(self.read(client, 4), b"0123")
        self.assertEqual(client.pending(), 6)
        self.assertEqual(client.recv(65536), b"456789")
        self.assertEqual(client.pending(), 0)

    def test_records_that_came_together_are_all_seen_by_a_level_triggered_epoll(self) -> None:
        def serve(peer: ssl.SSLSocket) -> None:
            for _ in range(50):
                peer.sendall(b"x" * 1000)

        client = self.shake(self.connect(serve))
        received = 0
        with select.epoll() as epoll:
            epoll.register(client.fileno(), select.EPOLLIN)
            while epoll.poll(LIMIT_S):
                try:
                    data = client.recv(65536)
                except BlockingIOError:
                    continue
                self.assertEqual(client.pending(), 0)
                if not data:
                    break
                received += len(data)
        self.assertEqual(received, 50_000)

    def test_more_than_the_socket_holds_goes_out_in_parts(self) -> None:
        size = 3_000_000
        started = threading.Event()

        def serve(peer: ssl.SSLSocket) -> None:
            started.wait(LIMIT_S)
            left = size
            while left:
                left -= len(peer.recv(65536))
            peer.sendall(b"all")

        client = self.shake(self.connect(serve))
        view = memoryview(b"x" * size)
        with self.assertRaises(BlockingIOError):
            while view:
                view = view[client.send(view) :]
        self.assertTrue(client.wants_write)
        started.set()
        self.send_all(client, bytes(view))
        self.assertFalse(client.wants_write)
        self.assertEqual(self.read(client), b"all")

    def test_a_blocking_socket_shakes_hands_in_one_step(self) -> None:
        client = self.connect(host="127.0.0.1")
        client.setblocking(True)
        self.assertTrue(client.do_handshake())
        client.send(b"x")


class Refusals(TlsCase):
    def failure(self, client: TlsSocket) -> str:
        with self.assertRaises(ConnectionError) as caught:
            self.shake(client)
        self.assertIsNone(caught.exception.errno, "it would be taken for an errno")
        return str(caught.exception)

    def test_a_certificate_of_an_unknown_ca(self) -> None:
        text = self.failure(self.connect(ca_file=None))
        self.assertRegex(text, r"^the certificate of localhost is not trusted: .+--ca-file FILE")

    def test_a_certificate_of_another_host(self) -> None:
        text = self.failure(self.connect(host="example.org"))
        self.assertRegex(text, "certificate of example.org is not trusted: Hostname mismatch")

    def test_a_server_without_tls(self) -> None:
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        theirs.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        client = TlsSocket(ours, client_context("https", CA_FILE), "node7")
        self.addCleanup(client.close)
        self.assertEqual(self.failure(client), "node7 does not speak TLS here: http instead of https?")

    def test_a_server_that_goes_away(self) -> None:
        ours, theirs = socket.socketpair()
        theirs.close()
        client = TlsSocket(ours, client_context("https", CA_FILE), "node7")
        self.addCleanup(client.close)
        self.assertRegex(self.failure(client), "^(node7 closed the connection|TLS with node7 failed)")


class Contexts(unittest.TestCase):
    def test_http_needs_none(self) -> None:
        self.assertIsNone(client_context("http", CA_FILE))

    def test_a_file_that_holds_no_certificate_is_named(self) -> None:
        with (
            tempfile.NamedTemporaryFile() as empty,
            self.assertRaisesRegex(ConfigError, f"{empty.name} holds no certificates"),
        ):
            client_context("https", Path(empty.name))
        with self.assertRaisesRegex(ConfigError, "cannot read --ca-file /no/such: No such file"):
            client_context("https", Path("/no/such"))


if __name__ == "__main__":
    unittest.main()
