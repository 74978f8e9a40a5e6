"""What our S3 client costs and carries, beside boto3, awscrt and a plain copy between sockets.

One static server for all, on core 0; the clients have core 1. Small reads: requests per second of CPU that
the client spends, from its first request to its last answer; ours reads and compares the answers after that,
which is shown, too. Large bodies: MiB/s of one connection, beside a loop that does nothing but send or
receive the same bytes. All sides in turn.

    python -m test.perf.s3_client --peer awscrt=/path/to/venv

boto3 is that of the project; awscrt is told to be absent without its environment.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from test.perf.chroma_client import Meter
from test.perf.claims import Line, options, ratios, show
from test.perf.s3_peers import ACCESS_KEY, SECRET_KEY
from test.perf.s3_static import BUCKET

from aifbench.cluster.endpoint import Endpoint
from aifbench.load.arrivals import Closed, to_json
from aifbench.load.fleet import Fleet, LocalLauncher
from aifbench.load.plan import PhasePlan, StreamPlan
from aifbench.load.progress import Silent
from aifbench.workloads.s3_http import Get
from aifbench.workloads.s3_objects import ObjectSet

SERVER_CORE, CLIENT_CORE = 0, 1
SMALL, LARGE = ObjectSet("4KiB", 1, "small-"), ObjectSet("8MiB", 1, "large-")
SMALL_COUNT, LARGE_COUNT = 64, 4
_RECEIVE_BYTES = 1 << 18  # faster than 1 << 20, which leaves the cache
_OURS = "aifbench.workloads.s3_http"
_PEERS_PROGRAM = Path(__file__).with_name("s3_peers.py")


@dataclass(frozen=True, slots=True)
class Peer:
    name: str
    python: str
    concurrency: int
    requests: int

    def rate(self, port: int, scale: float) -> float:
        """Requests per CPU second."""
        paths = [f"/{BUCKET}/{SMALL.key(n)}" for n in range(SMALL_COUNT)]
        words = [self.name, port, self.concurrency, round(self.requests * scale), *paths]
        done = subprocess.run(
            [self.python, _PEERS_PROGRAM, *map(str, words)], stdout=subprocess.PIPE, text=True, check=True
        )
        told = json.loads(done.stdout)
        return float(told["requests"] / told["cpu_s"])


@contextmanager
def static_server() -> Iterator[int]:
    """Its port."""
    sizes = ["4KiB", "1", SMALL.prefix, SMALL_COUNT, "8MiB", "1", LARGE.prefix, LARGE_COUNT]
    command = [sys.executable, "-m", "test.perf.s3_static", "--core", SERVER_CORE, "--sizes", *sizes]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline())
        finally:
            server.kill()


class Ours:
    """The product's own path: a fleet of one worker process."""

    def __init__(self, fleet: Fleet, endpoint: Endpoint) -> None:
        self._fleet = fleet
        self._endpoint = endpoint
        self._pid: int | None = None

    def small(self, clients: int, requests: int) -> tuple[float, float, float]:
        """Requests per CPU second under load, and with reading and comparing all answers; MiB/s."""
        return self._run("Get", SMALL, SMALL_COUNT, clients, requests)

    def large_mib_per_s(self, workload: str, requests: int) -> float:
        return self._run(workload, LARGE, LARGE_COUNT, 1, requests)[2]

    def _run(
        self, workload: str, objects: ObjectSet, count: int, clients: int, requests: int
    ) -> tuple[float, float, float]:
        params = {"bucket": BUCKET, "objects": objects.to_json(), "count": count}
        stream = StreamPlan("s", f"{_OURS}:{workload}", params, to_json(Closed(clients)), limit=requests)
        meter = Meter(self._pid)
        outcome = self._fleet.run(PhasePlan("p", (stream,), self._endpoint), Silent(), watch=meter.watch)
        (report,), samples = outcome.reports(stream), outcome.samples(stream)
        assert samples.ok.all() and len(samples) == requests, (outcome.problem, report.errors)
        wall_s = (samples.finished_ns.max() - samples.sent_ns.min()) / 1e9
        self._pid = report.pid
        whole_rate = requests / (meter.passed_s() or float("nan"))
        return requests / report.cpu_s, whole_rate, requests * objects.size(0) / 2**20 / wall_s


def plain_mib_per_s(port: int, requests: Sequence[Sequence[bytes | memoryview]]) -> float:
    """Send each request, receive as many bytes as its answer has; nothing else."""
    scratch, answer_bytes = memoryview(bytearray(_RECEIVE_BYTES)), 0
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began_s = time.perf_counter()
        for pieces in requests:
            for piece in pieces:
                sock.sendall(piece)
            # The first answer tells the length of all.
            count = sock.recv_into(scratch)
            answer_bytes = answer_bytes or _length(bytes(scratch[:count]))
            while count < answer_bytes:
                count += sock.recv_into(scratch)
        return len(requests) * LARGE.size(0) / 2**20 / (time.perf_counter() - began_s)


def _length(beginning: bytes) -> int:
    head, _, _ = beginning.partition(b"\r\n\r\n")
    return len(head) + 4 + int(head.partition(b"Content-Length: ")[2].partition(b"\r")[0])


def making_us(endpoint: Endpoint) -> float:
    """Microseconds per request of signing, which our client does before the load."""
    get = Get(BUCKET, SMALL.to_json(), SMALL_COUNT)
    get.open(endpoint)
    began_s = time.process_time()
    for number in range(1000):
        get.request(number)
    return (time.process_time() - began_s) * 1e3


class Bench:
    """All sides on one server."""

    def __init__(self, port: int, ours: Ours, peers: Sequence[Peer], scale: float) -> None:
        self._port = port
        self._ours = ours
        self._scale = scale
        self._peers = peers
        self.load = {n: Line(f"ours, {n} clients: requests per CPU s under load", "1/s") for n in (8, 1)}
        self.whole = {n: Line(f"ours, {n} clients: with comparing the answers", "1/s") for n in (8, 1)}
        self.theirs = {
            peer: Line(f"{peer.name}, {peer.concurrency} at a time: requests per CPU s", "1/s")
            for peer in peers
        }
        self.large = {name: Line(f"{name} of 8 MiB, ours", "MiB/s") for name in ("Get", "Put")}
        self.plain = {name: Line(f"{name} of 8 MiB, plain socket copy", "MiB/s") for name in ("Get", "Put")}

    def round(self) -> None:
        for clients, requests in ((8, 40_000), (1, 20_000)):
            load, whole, _ = self._ours.small(clients, round(requests * self._scale))
            self.load[clients].values.append(load)
            self.whole[clients].values.append(whole)
        for peer in self._peers:
            self.theirs[peer].values.append(peer.rate(self._port, self._scale))
        for name in self.large:
            count = round(128 * self._scale)
            self.plain[name].values.append(plain_mib_per_s(self._port, plain_requests(name, count)))
            self.large[name].values.append(self._ours.large_mib_per_s(name, count))

    def lines(self) -> list[Line]:
        lines = [*self.load.values(), *self.whole.values()]
        for peer, line in self.theirs.items():
            clients = 1 if peer.concurrency == 1 else 8
            bound = {"boto3": 10.0, "awscrt": 1.2}[peer.name]
            ratio = ratios(self.load[clients], line)
            lines += [line, Line(f"  ours, {clients} clients / {peer.name}", "", ratio, at_least=bound)]
        for name, line in self.large.items():
            ratio = ratios(line, self.plain[name])
            lines += [line, self.plain[name], Line("  ours / plain copy", "", ratio, at_least=0.8)]
        return lines


def plain_requests(name: str, count: int) -> list[list[bytes | memoryview]]:
    """What our client sends, without signatures."""
    found: list[list[bytes | memoryview]] = []
    for number in range(count):
        key = LARGE.key(number % LARGE_COUNT)
        head = f"{name.upper()} /{BUCKET}/{key} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        if name == "Get":
            found.append([f"{head}\r\n".encode()])
        else:
            head += f"Content-Length: {LARGE.size(0)}\r\n\r\n"
            found.append([head.encode(), *LARGE.content(number % LARGE_COUNT)])
    return found


def peers_of(given: Sequence[str]) -> list[Peer]:
    """boto3 and those whose environments are named and work; says what is absent."""
    places: Mapping[str, str] = dict(text.split("=", 1) for text in given)
    peers = [Peer("boto3", sys.executable, 8, 4000), Peer("boto3", sys.executable, 1, 2000)]
    python = Path(places.get("awscrt", "/nowhere")) / "bin/python"
    if python.exists():
        return [*peers, Peer("awscrt", str(python), 16, 20_000)]
    sys.stdout.write("  awscrt: absent (--peer awscrt=VENV)\n")
    return peers


def main(argv: Sequence[str]) -> int:
    parser = options(str(__doc__).partition("\n")[0])
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=VENV", help="awscrt")
    parser.add_argument("--quick", action="store_true", help="one round of a fifth of the work")
    given = parser.parse_args(argv)
    if not {SERVER_CORE, CLIENT_CORE} <= os.sched_getaffinity(0):
        parser.error(f"cores {SERVER_CORE} and {CLIENT_CORE} are needed: one for the server, one for clients")
    os.sched_setaffinity(0, {CLIENT_CORE})  # and everything that is started from here
    peers = peers_of(given.peer)
    with (
        tempfile.TemporaryDirectory() as name,
        static_server() as port,
        Fleet(Path(name) / "fleet", LocalLauncher(), workers=1) as fleet,
    ):
        key = Path(name) / "key"
        key.write_text(f"{ACCESS_KEY}:{SECRET_KEY}")
        endpoint = Endpoint("127.0.0.1", port, secret_file=key)
        ours = Ours(fleet, endpoint)
        ours.small(8, 1000)
        bench = Bench(port, ours, peers, 0.2 if given.quick else 1.0)
        making = Line("ours: signing one request, before the load", "us")
        for _ in range(1 if given.quick else given.repeats):
            bench.round()
            making.values.append(making_us(endpoint))
    return show("S3 reads of 4 KiB, and 8 MiB over one connection", [*bench.lines(), making])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
