"""How far what the LLM client reports is from the truth, and what it costs, beside other load tools.

The server's timing is known: it says itself what it really sent, and when. It has core 0, the client with
all its processes core 1. An error is what was reported less what the server sent. Our side is the product's
own path: a fleet of one worker process, and the metrics of a record. Other tools run in the same rounds:

    python -m test.perf.llm_client --peer vllm=/path/to/venv --peer aiperf=/path/to/venv --tokenizer FOLDER

CPU is counted twice. "Under load" is from the first request to the last answer, for every client alike: ours
reads the answers after that, and the others while it lasts. "In all" is the whole process from its start to
its end, with imports, preparation and that reading.
"""

import itertools
import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from test.perf.claims import Line, options, show
from test.perf.llm_peers import NAN, PEERS, Load, Peer, Report, Vllm

from aifbench.cluster.endpoint import Endpoint
from aifbench.load.arrivals import Closed, to_json
from aifbench.load.fleet import Fleet, LocalLauncher
from aifbench.load.plan import PhasePlan, StreamPlan, WorkerReport
from aifbench.load.progress import Silent
from aifbench.load.samples import Samples
from aifbench.results.summary import StreamFacts, summarise
from aifbench.workloads.prompts import PromptSpec, prepare
from aifbench.workloads.reference_plan import ReferencePlan
from aifbench.workloads.reference_process import ReferenceServer
from aifbench.workloads.reference_truth import Truth

SERVER_CORE, CLIENT_CORE = 0, 1
WORKLOAD = "aifbench.workloads.inference:Generate"
OURS = "aifbench"

PACED = Load(256, 2048, {"ttft_s": 0.05, "itl_s": 0.005})
SLOW = Load(64, 192, {"ttft_s": 0.05, "itl_s": 0.02})
FAST = Load(576, 4032, {"ttft_s": 0.05, "itl_s": 0.005})
FLAT_OUT = Load(256, 4096, {"ttft_s": 0.0, "itl_s": 0.0})

_TRUE = {"ttft_s": 0.1, "itl_s": 0.01}
HONESTY: Mapping[str, Load] = {
    "role-only first chunk": Load(16, 160, {**_TRUE, "role_first": True}, 32),
    "4 tokens a chunk": Load(16, 160, {**_TRUE, "tokens_per_chunk": 4}, 32),
    "jitter of one gap": Load(16, 160, {**_TRUE, "jitter": 1.0}, 32),
    "10 % cut": Load(16, 160, {**_TRUE, "cut_share": 0.1}, 32),
    "10 % HTTP 500": Load(16, 160, {**_TRUE, "error_share": 0.1}, 32),
    "10 % error event in a 200": Load(16, 160, {**_TRUE, "event_error_share": 0.1}, 32),
    "32 slots for 64 users": Load(64, 256, {**_TRUE, "slots": 32}, 32),
}
# What a reported value may be off before it counts as wrong: milliseconds, or a share where that is more.
_OFF_MS, _OFF_SHARE = 1.0, 0.01


@dataclass(frozen=True, slots=True)
class Run:
    """What a client reported of a load, and what the server says was true."""

    load: Load
    report: Report
    truth: Truth

    @property
    def ttft_p50_ms(self) -> float:
        return self.report.ttft_p50_ms - self.truth.ttft_p50_ms

    @property
    def ttft_p99_ms(self) -> float:
        return self.report.ttft_p99_ms - self.truth.ttft_p99_ms

    @property
    def gap_p50_ms(self) -> float:
        return self.report.gap_p50_ms - self.truth.gap_p50_ms

    @property
    def gap_p99_ms(self) -> float:
        return self.report.gap_p99_ms - self.truth.gap_p99_ms

    @property
    def load_cpu_s(self) -> float:
        """Per 1,000 tokens."""
        return self.report.load_cpu_s / self.report.tokens * 1e3

    @property
    def whole_cpu_s(self) -> float:
        """Per 1,000 tokens."""
        return self.report.whole_cpu_s / self.report.tokens * 1e3

    @property
    def server_share(self) -> float:
        """Of its core, while it answered, in percent."""
        return 100 * self.truth.cpu_s * self.report.tokens_per_s / self.truth.tokens

    def faults(self) -> Iterator[str]:
        """What is wrong in the report: each count and each metric."""
        told, true = self.report, self.truth
        whole = true.kinds.get("whole", 0)
        for what, count, right in (("ok", told.ok, whole), ("failed", told.failed, true.requests - whole)):
            if count != right:
                yield f"{what} {count}, true {right}"
        if told.tokens != whole * self.load.output_tokens:
            yield f"{told.tokens} tokens, true {whole * self.load.output_tokens}"
        per_token_ms = self.load.plan["itl_s"] * 1e3
        for what, value, right in (
            ("TTFT", told.ttft_p50_ms, true.ttft_p50_ms),
            ("gap", told.gap_p50_ms, true.gap_p50_ms),
            ("TPOT", told.tpot_p50_ms, per_token_ms),
        ):
            if not abs(value - right) <= max(_OFF_MS if what == "TTFT" else 0.0, _OFF_SHARE * right):
                yield f"{what} {value:.2f} ms, true {right:.2f}"


class Peak:
    """The peak memory of a process, as it was when the load ended and as it is at the end."""

    def __init__(self, launcher: LocalLauncher) -> None:
        self._pid = pid_of(launcher)
        self._seen: list[tuple[float, float]] = []

    def watch(self) -> str:
        self._seen.append((time.time(), self.now_mb()))
        return ""

    def now_mb(self) -> float:
        for line in Path(f"/proc/{self._pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
        return NAN

    def until_mb(self, wall_s: float) -> float:
        return max((mb for at_s, mb in self._seen if at_s <= wall_s), default=NAN)


def pid_of(launcher: LocalLauncher) -> int:
    (process,) = launcher._processes
    return process.pid


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Ours:
    """One load by our client. `load_mb` is its peak memory under load, without the reading of answers."""

    run: Run
    load_mb: float
    worker: WorkerReport


def stream_of(load: Load, folder: Path) -> StreamPlan:
    spec = PromptSpec(input_tokens=str(load.input_tokens), output_tokens=str(load.output_tokens))
    params = {
        "source": str(prepare(spec, folder / "prompts")),
        "model": "reference",
        "extra": {"ignore_eos": True},
        "exact": True,
    }
    return StreamPlan("s", WORKLOAD, params, to_json(Closed(load.users)), limit=load.requests)


def run_ours(load: Load) -> Ours:
    launcher = LocalLauncher()
    with (
        tempfile.TemporaryDirectory() as name,
        server_of(load) as server,
        Fleet(Path(name) / "fleet", launcher, workers=1) as fleet,
    ):
        stream = stream_of(load, Path(name))
        peak = Peak(launcher)
        outcome = fleet.run(PhasePlan("p", (stream,), server.endpoint), Silent(), watch=peak.watch)
        (worker,) = outcome.reports(stream)
        assert not outcome.problem and not worker.failure, (outcome.problem, worker.failure)
        load_mb = peak.until_mb(outcome.start_wall_s + worker.wall_s)
        report = report_of(load, outcome.samples(stream), worker, cpu_s(worker.pid), peak.now_mb())
        return Ours(Run(load, report, server.stop()), load_mb, worker)


def server_of(load: Load) -> ReferenceServer:
    return ReferenceServer(ReferencePlan(**load.plan), cpu=SERVER_CORE, realtime=True)


def report_of(load: Load, samples: Samples, worker: WorkerReport, whole_s: float, peak_mb: float) -> Report:
    """By the metrics of a record; a percentile that it declines to state is taken from the samples."""
    facts = StreamFacts("p", "s", f"closed {load.users}", open_loop=False)
    told = {metric.name: metric.value for metric in summarise(samples, facts, [worker]).metrics}
    assert samples.tokens is not None
    ok = samples.ok
    ttft_ms = (samples.tokens.first_ns - samples.sent_ns)[ok] / 1e6
    return Report(
        ok=int(ok.sum()),
        failed=int((~ok).sum()),
        tokens=int(samples.tokens.output_tokens[ok].sum()),
        tokens_per_s=told["output_rate"] or NAN,
        ttft_p50_ms=told["ttft_p50"] or NAN,
        ttft_p99_ms=told["ttft_p99"] or float(np.quantile(ttft_ms, 0.99)),
        gap_p50_ms=told["gap_p50"] or 0.0,
        gap_p99_ms=told["gap_p99"] or 0.0,
        tpot_p50_ms=told["tpot_p50"] or NAN,
        load_cpu_s=worker.cpu_s,
        whole_cpu_s=whole_s,
        peak_mb=peak_mb,
    )


def run_peer(peer: Peer, load: Load) -> Run | None:
    with tempfile.TemporaryDirectory() as name, server_of(load) as server:
        report = peer.run(load, server.endpoint.url, Path(name) / "run")
        if report is None:
            last = (Path(name) / "run" / "output").read_text(errors="replace").strip()[-300:]
            sys.stdout.write(f"  {peer.name} left no result: {' '.join(last.split())}\n")
            return None
        return Run(load, report, server.stop())


_ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
)
_EVENT = (
    b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\ndata: [DONE]\n\n'
)


class FirstRequest:
    """A listener that answers everything with one token and knows when the first request came."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.at_s: float | None = None
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", self._listener.getsockname()[1])

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(peer,), daemon=True).start()

    def _answer(self, peer: socket.socket) -> None:
        with peer:
            if peer.recv(65536):
                self.at_s = self.at_s or time.perf_counter()
                peer.sendall(_ANSWER % len(_EVENT) + _EVENT)

    def close(self) -> None:
        self._listener.close()


@contextmanager
def listening() -> Iterator[FirstRequest]:
    listener = FirstRequest()
    try:
        yield listener
    finally:
        listener.close()


def seconds_to_first_request() -> tuple[float, float]:
    """From starting the worker process, and from `run` with a worker that waits; prompts are prepared."""
    load = Load(1, 1, {}, output_tokens=1)
    spans_s = []
    with tempfile.TemporaryDirectory() as name:
        stream = stream_of(load, Path(name))
        began_s = time.perf_counter()
        with Fleet(Path(name) / "fleet", LocalLauncher(), workers=1) as fleet:
            for _ in range(2):
                with listening() as listener:
                    fleet.run(PhasePlan("p", (stream,), listener.endpoint), Silent(), watch=str)
                    assert listener.at_s is not None
                    spans_s.append(listener.at_s - began_s)
                began_s = time.perf_counter()
    return spans_s[0], spans_s[1]


def paced_lines(ours: Sequence[Ours], peers: Mapping[str, Sequence[Run]]) -> list[Line]:
    runs = [one.run for one in ours]
    lines = [
        Line(f"{OURS}: error of TTFT p50", "ms", [abs(r.ttft_p50_ms) for r in runs], at_most=0.3),
        Line(f"{OURS}: error of TTFT p99", "ms", [abs(r.ttft_p99_ms) for r in runs], at_most=1.5),
        Line(f"{OURS}: error of gap p50", "ms", [abs(r.gap_p50_ms) for r in runs], at_most=0.02),
        Line(f"{OURS}: error of gap p99", "ms", [abs(r.gap_p99_ms) for r in runs], at_most=2.0),
        Line(f"{OURS}: CPU under load per 1,000 tokens", "s", [r.load_cpu_s for r in runs]),
        Line(f"{OURS}: CPU in all per 1,000 tokens", "s", [r.whole_cpu_s for r in runs]),
        Line(f"{OURS}: peak memory under load", "MB", [one.load_mb for one in ours], at_most=80),
        Line(f"{OURS}: peak memory in all", "MB", [r.report.peak_mb for r in runs], at_most=80),
    ]
    for name, theirs in peers.items():
        lines += peer_lines(name, theirs)
        pairs = list(zip(runs, theirs, strict=False))
        bound = 0.5 if name == Vllm.name else None
        ratio = [mine.load_cpu_s / other.load_cpu_s for mine, other in pairs]
        lines.append(Line(f"  {OURS} / {name}: CPU under load", "", ratio, at_most=bound))
        whole = [mine.whole_cpu_s / other.whole_cpu_s for mine, other in pairs]
        lines.append(Line(f"  {OURS} / {name}: CPU in all", "", whole))
    return lines


def peer_lines(name: str, runs: Sequence[Run]) -> list[Line]:
    return [
        Line(f"{name}: error of TTFT p50", "ms", [r.ttft_p50_ms for r in runs]),
        Line(f"{name}: error of TTFT p99", "ms", [r.ttft_p99_ms for r in runs]),
        Line(f"{name}: error of gap p50", "ms", [r.gap_p50_ms for r in runs]),
        Line(f"{name}: error of gap p99", "ms", [r.gap_p99_ms for r in runs]),
        Line(f"{name}: tokens per second", "1/s", [r.report.tokens_per_s for r in runs]),
        Line(f"{name}: CPU under load per 1,000 tokens", "s", [r.load_cpu_s for r in runs]),
        Line(f"{name}: CPU in all per 1,000 tokens", "s", [r.whole_cpu_s for r in runs]),
        Line(f"{name}: peak memory", "MB", [r.report.peak_mb for r in runs]),
    ]


def other_lines(runs: Mapping[str, Sequence[Ours]]) -> list[Line]:
    slow, fast, flat = ([one.run for one in runs[name]] for name in ("slow", "fast", "flat out"))
    return [
        Line("64 streams: error of TTFT p50", "ms", [abs(r.ttft_p50_ms) for r in slow], at_most=0.2),
        Line("paced, 576 streams: tokens per second", "1/s", rates_of(fast), at_least=100_000),
        Line("  error of TTFT p50", "ms", [abs(r.ttft_p50_ms) for r in fast], at_most=1.0),
        Line("  the server's share of its core", "%", [r.server_share for r in fast]),
        Line("  CPU under load per 1,000 tokens", "s", [r.load_cpu_s for r in fast]),
        Line("no delays, 256 streams: tokens per second", "1/s", rates_of(flat), at_least=140_000),
        Line("  the server's share of its core", "%", [r.server_share for r in flat]),
        Line("  CPU under load per 1,000 tokens", "s", [r.load_cpu_s for r in flat]),
    ]


def rates_of(runs: Sequence[Run]) -> list[float]:
    return [run.report.tokens_per_s for run in runs]


def start_lines(spans_s: Sequence[tuple[float, float]]) -> list[Line]:
    cold, warm = zip(*spans_s, strict=True)
    return [
        Line("worker process started to first request", "s", list(cold), at_most=0.3),
        Line("waiting worker told to its first request", "s", list(warm), at_most=0.3),
    ]


def honesty(peers: Sequence[Peer]) -> list[Line]:
    """Prints what each client makes of each case; the claim is ours alone."""
    wrong = Line("honesty cases with a wrong count or metric", "", at_most=0)
    bad = 0
    for case, load in HONESTY.items():
        found: list[tuple[str, Run | None]] = [(OURS, run_ours(load).run)]
        found += [(peer.name, run_peer(peer, load)) for peer in peers]
        for name, run in found:
            faults = ["no result"] if run is None else list(run.faults())
            bad += bool(faults) and name == OURS
            sys.stdout.write(f"  {case:<28} {name:<18} {'; '.join(faults) or 'right'}\n")
    wrong.values.append(bad)
    return [wrong]


def peers_of(given: Sequence[str], tokenizer: Path) -> list[Peer]:
    """Those that are there; says versions, and what is absent."""
    places = dict(text.partition("=")[::2] for text in given)
    peers = []
    for key, kind in PEERS.items():
        peer = kind(Path(places.get(key, "/nowhere")), tokenizer)
        version = peer.version()
        sys.stdout.write(f"  {peer.name:<18} {version or 'absent'}\n")
        peers += [peer] if version else []
    return peers


def describe() -> None:
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    sys.stdout.write(
        f"{OURS} {revision}, Python {platform.python_version()}, numpy {np.__version__}, "
        f"Linux {platform.release()}, load average {load} before\n"
    )


def rounds(repeats: int, peers: Sequence[Peer]) -> tuple[dict[str, list[Ours]], dict[str, list[Run]]]:
    """The loads, in turn with the peers on the one they are compared on."""
    ours: dict[str, list[Ours]] = {"paced": [], "slow": [], "fast": [], "flat out": []}
    theirs: dict[str, list[Run]] = {peer.name: [] for peer in peers}
    for _ in range(repeats):
        for name, load in zip(ours, (PACED, SLOW, FAST, FLAT_OUT), strict=True):
            ours[name].append(run_ours(load))
            if name == "paced":
                for peer in peers:
                    theirs[peer.name] += [run] if (run := run_peer(peer, load)) else []
    return ours, {name: runs for name, runs in theirs.items() if runs}


def once(peers: Sequence[Peer], loads: Mapping[str, Load]) -> None:
    """What the others make of the remaining loads: no medians."""
    for (what, load), peer in itertools.product(loads.items(), peers):
        if run := run_peer(peer, load):
            sys.stdout.write(
                f"  {what:<10} {peer.name:<18} {run.report.tokens_per_s:10,.0f} tok/s, error of TTFT p50 "
                f"{run.ttft_p50_ms:+,.2f} ms, {run.load_cpu_s:.4f} s of CPU per 1,000 tokens\n"
            )


def main(argv: Sequence[str]) -> int:
    parser = options(str(__doc__).partition("\n")[0], repeats=3)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=VENV", help=", ".join(PEERS))
    parser.add_argument("--tokenizer", type=Path, default=Path("tiny-model"), help="folder, for the peers")
    parser.add_argument("--quick", action="store_true", help="one round, honesty cases without peers")
    given = parser.parse_args(argv)
    if not {SERVER_CORE, CLIENT_CORE} <= os.sched_getaffinity(0):
        parser.error(f"cores {SERVER_CORE} and {CLIENT_CORE} are needed: one for the server, one for clients")
    os.sched_setaffinity(0, {CLIENT_CORE})  # and everything that is started from here
    describe()
    peers = peers_of(given.peer, given.tokenizer.resolve())
    repeats = 1 if given.quick else given.repeats
    ours, theirs = rounds(repeats, peers)
    missed = show("256 streams, TTFT 50 ms, ITL 5 ms", paced_lines(ours["paced"], theirs))
    missed |= show("other loads", other_lines(ours))
    missed |= show("start", start_lines([seconds_to_first_request() for _ in range(repeats)]))
    if not given.quick:
        once(peers, {"slow": SLOW, "fast": FAST, "flat out": FLAT_OUT})
    missed |= show("honesty", honesty([] if given.quick else peers))
    return missed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
