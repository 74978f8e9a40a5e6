"""Samples of a server's `/metrics` page, taken beside a load that they must not disturb.

One thread, one kept-alive connection, one page per period. Whatever goes wrong is counted and told, and never
raised. Samples are kept in memory and as JSON lines, from which the result can be computed again.
"""

import http.client
import threading
import time
from array import array
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import SplitResult, urlsplit

from aifbench.errors import ConfigError, UsageError
from aifbench.units import format_number
from aifbench.workloads.prometheus_text import Series, finite, parse
from aifbench.workloads.snapshots import Journal, Snapshot

_MAX_PAGE_BYTES = 16 << 20
_PIECE_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class ScrapeReport:
    """How the sampling went. `failures` counts reasons in words; `cpu_s` is that of the sampling thread."""

    samples: int
    failures: Mapping[str, int]
    bad_lines: int
    cpu_s: float
    wall_s: float

    @property
    def cpu_share(self) -> float:
        """Of one core."""
        return self.cpu_s / self.wall_s if self.wall_s > 0 else 0.0

    @property
    def told(self) -> str:
        """One line for a person; empty when all went well."""
        failed = sum(self.failures.values())
        words = [f"{reason} ({times:,})" for reason, times in sorted(self.failures.items())]
        parts = (
            [f"{failed:,} of {self.samples + failed:,} samples failed: {', '.join(words)}"] if failed else []
        )
        if self.bad_lines:
            parts.append(f"{self.bad_lines:,} lines could not be read")
        return "; ".join(parts)


class PageError(Exception):
    """A page could not be had; the text is the reason, short and the same each time."""


class MetricsPage:
    """One URL, asked over a connection that is kept. `headers` may hold secrets: they are sent, never told.

    `timeout_s` bounds one whole exchange. Raises UsageError for a URL that is no http(s) one, and ConfigError
    for a CA file that cannot be read.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float,
        ca_file: Path | None = None,
    ) -> None:
        parts, port = _split(url)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._headers = {
            **(headers or {}),
            "Accept": "text/plain;version=0.0.4",
            "Accept-Encoding": "identity",
        }
        self._timeout_s = timeout_s
        self._connection = _connection(parts.scheme, parts.hostname or "", port, timeout_s, ca_file)

    def fetch(self) -> str:
        """The page. Raises PageError, after which the next call connects anew."""
        try:
            return self._exchange()
        except PageError:
            self.close()
            raise
        except TimeoutError as error:
            self.close()
            raise PageError("no answer in time") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise PageError(_reason(error)) from error

    def close(self) -> None:
        self._connection.close()

    def _exchange(self) -> str:
        deadline_s = time.monotonic() + self._timeout_s
        reused = self._connection.sock is not None
        try:
            self._connection.request("GET", self._target, headers=self._headers)
            response = self._connection.getresponse()
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            if not reused:
                raise
            self.close()  # a server may close an idle connection at any time
            self._connection.request("GET", self._target, headers=self._headers)
            response = self._connection.getresponse()
        body = _read(response, deadline_s)
        if response.status != 200:
            raise PageError(f"HTTP {response.status}")
        return body.decode("utf-8", errors="replace")


class Scraper:
    """Samples `url` from `with` to its end, once on each edge and every `period_s` between.

    Entering waits for the first attempt and leaving for the last one, each at most about `timeout_s`. Only
    values of `families` are kept. After every `limit` samples the older ones are thinned to every second and
    the period doubles, so memory and `path` stay small however long it takes.
    """

    def __init__(
        self,
        url: str,
        path: Path | None,
        *,
        families: Collection[str],
        headers: Mapping[str, str] | None = None,
        ca_file: Path | None = None,
        period_s: float = 1.0,
        timeout_s: float = 5.0,
        limit: int = 4096,
    ) -> None:
        self._page = MetricsPage(url, headers, timeout_s=timeout_s, ca_file=ca_file)
        self._path = path
        self._families = families
        self._period_s = period_s
        self._timeout_s = timeout_s
        self._limit = limit
        self._snapshots: list[Snapshot] = []
        self._failures: Counter[str] = Counter()
        self._bad_lines = 0
        self._cpu_s = self._wall_s = 0.0
        self._samples = 0
        self._begun, self._ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._begun.wait(2 * self._timeout_s)
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(2 * self._timeout_s)

    @property
    def snapshots(self) -> list[Snapshot]:
        """Those kept, in order of time; may be read at any time."""
        return list(self._snapshots)

    @property
    def report(self) -> ScrapeReport:
        return ScrapeReport(self._samples, dict(self._failures), self._bad_lines, self._cpu_s, self._wall_s)

    def _run(self) -> None:
        begun_s = time.perf_counter()
        with Journal(self._path, self._told) as journal:
            due_s = begun_s
            ending = False
            while True:
                self._sample(journal)
                self._begun.set()
                self._cpu_s, self._wall_s = time.thread_time(), time.perf_counter() - begun_s
                if ending:
                    break
                due_s = max(due_s + self._period_s, time.perf_counter())  # what was missed stays missed
                ending = self._ending.wait(due_s - time.perf_counter())
        self._page.close()

    def _told(self, reason: str) -> None:
        self._failures[reason] += 1

    def _sample(self, journal: Journal) -> None:
        wall_s, perf_s = time.time(), time.perf_counter()
        try:
            text = self._page.fetch()
        except PageError as error:
            self._told(str(error))
            return
        half_s = (time.perf_counter() - perf_s) / 2
        if not text.endswith(("\n", "# EOF")):
            self._told("the page was cut")
            return
        page = parse(text, self._families)
        self._bad_lines += page.bad_lines
        values = finite(page.values)
        if not values:
            self._told("no metrics that this program knows")
            return
        snapshot = Snapshot(
            wall_s + half_s, perf_s + half_s, self._shared(values), array("d", values.values())
        )
        self._samples += 1
        self._snapshots.append(snapshot)
        journal.write(snapshot)
        if len(self._snapshots) >= self._limit:
            self._snapshots = self._snapshots[::2]
            self._period_s *= 2

    def _shared(self, values: Mapping[Series, float]) -> tuple[Series, ...]:
        series = tuple(values)
        last = self._snapshots[-1].series if self._snapshots else ()
        return last if last == series else series


def _split(url: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname:
            return parts, parts.port
    except ValueError:  # a port that is no number
        pass
    raise UsageError(f"{url!r} is no address of metrics", hint="give http(s)://host:port/metrics")


def _connection(
    scheme: str, host: str, port: int | None, timeout_s: float, ca_file: Path | None
) -> http.client.HTTPConnection:
    if scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=timeout_s)
    import ssl

    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except OSError as error:
        raise ConfigError(f"cannot read the certificates in {ca_file}") from error
    return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)


def _read(response: http.client.HTTPResponse, deadline_s: float) -> bytes:
    """The whole body. A server that sends it in drops, or without end, is left alone."""
    body = bytearray()
    while piece := response.read1(_PIECE_BYTES):
        body += piece
        if len(body) > _MAX_PAGE_BYTES:
            raise PageError(f"the page is larger than {format_number(_MAX_PAGE_BYTES / 1e6, 2)} MB")
        if time.monotonic() > deadline_s:
            raise PageError("no answer in time")
    if response.length:
        raise PageError("the answer was cut")
    response.close()
    return bytes(body)


def _reason(error: Exception) -> str:
    """Without addresses and byte counts, which would make every failure a new one."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, http.client.HTTPException):
        return "not an HTTP answer" if isinstance(error, http.client.BadStatusLine) else "the answer was cut"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return type(error).__name__
