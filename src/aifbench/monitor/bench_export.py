"""Serves a benchmark's metrics while it runs, and tells the monitors where: nothing of it touches the load.

The page is made by the coordinator, from files that the workers write in any case. That nobody can see it
never ends a benchmark.
"""

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aifbench.cluster.targets import BENCH, BENCH_EXPIRY_S, Target, remove_targets, write_targets
from aifbench.errors import UsageError
from aifbench.load.progress import Progress
from aifbench.monitor.bench_metrics import BenchMetrics, MeasuredProgress
from aifbench.monitor.exposition import CONTENT_TYPE

LOOPBACK = "127.0.0.1"
_REQUEST_TIMEOUT_S = 5.0


def own_address(seen_from: str) -> str:
    """The address by which `seen_from`, a host name or address, reaches this machine; else the loopback.

    Only asks this machine's routing table: a datagram socket that is connected sends nothing.
    """
    with suppress(OSError):
        family, kind, protocol, _, address = socket.getaddrinfo(seen_from, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as sock:
            sock.connect(address)
            return str(sock.getsockname()[0])
    return LOOPBACK


class MetricsPage:
    """An HTTP server of one page, `/metrics`, in threads; a context manager. Raises UsageError."""

    def __init__(self, text: Callable[[], str], address: str = LOOPBACK, port: int = 0) -> None:
        class Handler(_PageHandler):
            page = staticmethod(text)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

            def server_bind(self) -> None:
                # HTTPServer's own looks up a name for the address, which may take seconds.
                self.socket.bind(self.server_address)
                self.server_address = self.socket.getsockname()

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Whoever asked may go before the answer is there: that is nothing to show in a shell."""
                if not isinstance(sys.exception(), OSError):
                    super().handle_error(request, client_address)

        try:
            self._server = Server((address, port), Handler)
        except OSError as error:
            raise UsageError(
                f"cannot serve metrics on {address}:{port}: {error.strerror}",
                hint="give another --metrics-port, or none",
            ) from None
        self.authority = f"[{address}]:{self.port}" if ":" in address else f"{address}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def __enter__(self) -> "MetricsPage":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _PageHandler(BaseHTTPRequestHandler):
    page: Callable[[], str]
    timeout = _REQUEST_TIMEOUT_S

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404)
            return
        body = self.page().encode()
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


class _Announcement:
    """The target file of one run, kept young until the run is over."""

    def __init__(self, directory: Path, labels: Mapping[str, str], authority: str) -> None:
        self._directory = directory
        self._target = Target(authority, labels)
        self._name = ""
        self._over = threading.Event()

    def begin(self, run_id: str) -> None:
        """Raises OSError."""
        self._name = f"{BENCH}{run_id}"
        path = write_targets(self._directory, self._name, [self._target])
        threading.Thread(target=self._keep_young, args=(path,), name="target", daemon=True).start()

    def _keep_young(self, path: Path) -> None:
        while not self._over.wait(BENCH_EXPIRY_S / 3):
            with suppress(OSError):
                os.utime(path)

    def end(self) -> None:
        self._over.set()
        if self._name:
            remove_targets(self._directory, self._name)


@contextmanager
def exported(
    progress: Progress,
    *,
    service: str,
    kind: str,
    experiment: str = "",
    commit: str = "",
    targets_dir: Path | None = None,
    seen_from: str = LOOPBACK,
    port: int | None = None,
) -> Iterator[Progress]:
    """A Progress whose news are served as metrics until the end of the context.

    `targets_dir` is where monitors on the host `seen_from` look for targets; None when there are none. `port`
    is the one that was asked for: raises UsageError when it cannot be had.
    """
    metrics = BenchMetrics(service)
    try:
        page = MetricsPage(metrics.text, own_address(seen_from), port or 0)
    except UsageError as error:
        if port is not None:
            raise
        progress.note(f"the monitors will not see this run: {error.message}")
        yield progress
        return
    with page:
        # The page itself names the service: a label of the target would take that one's place.
        labels = {"job": "bench", "kind": kind, "node": socket.gethostname()}
        announcement = _Announcement(targets_dir, labels, page.authority) if targets_dir else None

        def begin(run_id: str) -> None:
            metrics.begin(run_id, experiment, commit)
            if announcement is not None:
                try:
                    announcement.begin(run_id)
                except OSError as error:
                    progress.note(f"the monitors will not see this run: {error.strerror}")

        if port is not None:
            progress.note(f"metrics of this benchmark: http://{page.authority}/metrics")
        try:
            yield MeasuredProgress(progress, metrics, begin)
        finally:
            if announcement is not None:
                announcement.end()
