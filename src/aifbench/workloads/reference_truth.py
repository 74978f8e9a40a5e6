"""What the reference server really did: kept while it serves, told by /metrics and at the end."""

import json
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Self

# Times are kept as counts of cells of 2**10 ns, about 1 µs: bounded memory, whatever the number of tokens.
CELL_BITS = 10

# vLLM 0.32's buckets, in seconds.
_TTFT_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
    1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
_QUEUE_BUCKETS = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0,
    40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Truth:
    """What a reported number is held against. Times as really sent; NaN where nothing was sent.

    `kinds` counts requests for an answer: `whole`, the faults by name, `refused` (asked for what cannot be),
    `aborted` (the client left first) and `unfinished` (the server ended first). TTFT is from the whole
    request's arrival, with the time in the queue. Gaps are between the events of one stream; lateness is the
    time from when an event was due, which says nothing where there are no delays. Sent is the instant before
    the system call. `blocked` counts how often a client's full window kept data here.
    """

    requests: int
    tokens: int
    kinds: dict[str, int]
    blocked: int
    ttft_p50_ms: float
    ttft_p99_ms: float
    gap_p50_ms: float
    gap_p99_ms: float
    late_p50_ms: float
    late_p99_ms: float
    cpu_s: float
    wall_s: float

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode("ascii") + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """The inverse of `to_line`. Raises ValueError for anything but a whole line of JSON."""
        return cls(**json.loads(line))


def quantile_ms(cells: dict[int, int], share: float) -> float:
    """Nearest rank, at the middle of its cell; NaN without values."""
    left = share * sum(cells.values())
    for cell in sorted(cells):
        left -= cells[cell]
        if left <= 0:
            return ((cell << CELL_BITS) + (1 << CELL_BITS) / 2) / 1e6
    return float("nan")


class Ledger:
    """Counts and times of everything since the start. The server adds to its cells directly."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.prompt_tokens = 0
        self.tokens = 0
        self.blocked = 0
        self.ttft: defaultdict[int, int] = defaultdict(int)
        self.gap: defaultdict[int, int] = defaultdict(int)
        self.late: defaultdict[int, int] = defaultdict(int)
        self._ttfts = _Histogram(_TTFT_BUCKETS)
        self._queued = _Histogram(_QUEUE_BUCKETS)
        self._began_s = time.perf_counter()
        self._cpu_s = time.process_time()

    def began(self, prompt_tokens: int, queued_ns: int) -> None:
        self.prompt_tokens += prompt_tokens
        self._queued.add(queued_ns / 1e9)

    def first_sent(self, after_ns: int) -> None:
        self.ttft[after_ns >> CELL_BITS] += 1
        self._ttfts.add(after_ns / 1e9)

    def truth(self) -> Truth:
        return Truth(
            requests=self.kinds.total(),
            tokens=self.tokens,
            kinds=dict(self.kinds),
            blocked=self.blocked,
            ttft_p50_ms=quantile_ms(self.ttft, 0.5),
            ttft_p99_ms=quantile_ms(self.ttft, 0.99),
            gap_p50_ms=quantile_ms(self.gap, 0.5),
            gap_p99_ms=quantile_ms(self.gap, 0.99),
            late_p50_ms=quantile_ms(self.late, 0.5),
            late_p99_ms=quantile_ms(self.late, 0.99),
            cpu_s=time.process_time() - self._cpu_s,
            wall_s=time.perf_counter() - self._began_s,
        )

    def metrics(self, model: str, running: int, waiting: int, tokens_in_progress: int) -> str:
        """Prometheus text with those of vLLM's series that are true of this server."""
        label = model.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        labels = f'engine="0",model_name="{label}"'
        simple = [
            ("num_requests_running", "gauge", running),
            ("num_requests_waiting", "gauge", waiting),
            ("kv_cache_usage_perc", "gauge", 0),
            ("prompt_tokens_total", "counter", self.prompt_tokens),
            ("generation_tokens_total", "counter", self.tokens + tokens_in_progress),
        ]
        lines = [
            f"# TYPE vllm:{name} {kind}\nvllm:{name}{{{labels}}} {float(value)}"
            for name, kind, value in simple
        ]
        lines += self._ttfts.lines("vllm:time_to_first_token_seconds", labels)
        lines += self._queued.lines("vllm:request_queue_time_seconds", labels)
        return "\n".join(lines) + "\n"


class _Histogram:
    """As Prometheus has it: cumulative when told, `le` includes its bound."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, labels: str) -> Iterable[str]:
        yield f"# TYPE {name} histogram"
        below = 0
        for bound, count in zip([*map(str, self._bounds), "+Inf"], self._counts, strict=True):
            below += count
            yield f'{name}_bucket{{{labels},le="{bound}"}} {float(below)}'
        yield f"{name}_count{{{labels}}} {float(below)}"
        yield f"{name}_sum{{{labels}}} {self._sum}"
