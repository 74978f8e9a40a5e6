"""A real HTTP/1.1 server on 127.0.0.1 with one page, `/metrics`, that misbehaves as told.

`text` is the page; `status` its status; `mode` one of `whole`, `chunked`, `cut` (ends early), `hang`
(no answer until closed), `drip` (a byte now and then) and `garbage` (not HTTP). `headers`: the last received.
"""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class MetricsService:
    def __init__(self, text: str = "", tls: Any = None) -> None:
        self.text = text
        self.status = 200
        self.mode = "whole"
        self.headers: dict[str, str] = {}
        self.pages = self.connections = 0
        self.asked = threading.Condition()
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler_of(self))
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}/metrics"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if not self.closing.is_set():
            self.closing.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def wait_for(self, pages: int) -> None:
        """Until that many more have been asked for."""
        with self.asked:
            target = self.pages + pages
            assert self.asked.wait_for(lambda: self.pages >= target, 10)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """A client that goes away, or refuses a certificate, is no news."""


def _handler_of(service: MetricsService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            service.connections += 1

        def do_GET(self) -> None:
            service.headers = {name.lower(): value for name, value in self.headers.items()}
            with service.asked:
                service.pages += 1
                service.asked.notify_all()
            self._answer(service.text.encode())

        def _answer(self, body: bytes) -> None:
            mode = service.mode  # a test may change it at any time
            if mode == "hang":
                service.closing.wait(10)
            elif mode == "garbage":
                self.wfile.write(b"220 mail.example.org ESMTP\r\n")
                self.close_connection = True
            elif mode == "chunked":
                self._head(("Transfer-Encoding", "chunked"))
                self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
            elif mode == "drip":
                self._head(("Content-Length", "1000000"))
                while not service.closing.wait(0.01):
                    self.wfile.write(b"x")
            else:
                self._head(("Content-Length", str(len(body))))
                self.wfile.write(body[: len(body) // 2] if mode == "cut" else body)
                self.close_connection = mode == "cut"

        def _head(self, header: tuple[str, str]) -> None:
            self.send_response(service.status)
            self.send_header(*header)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return Handler
