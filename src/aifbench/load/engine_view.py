"""What an inference server says about its own work in a window of time: plain values, light to import.

Histograms are the server's: their means are exact, their quantiles are known only to a bucket.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True)
class Bracket:
    """A quantile of a histogram: it lies between the edges `low` and `high` (may be infinite) of a bucket.

    `value` assumes that the bucket is evenly filled, as Prometheus' histogram_quantile does; in the last
    bucket, which has no upper edge, it is the lower one.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram: `cumulative[i]` observations were at most `edges[i]`, and `total` is the sum of all.

    Edges ascend and the last one is infinite, so the last of `cumulative` is the number of observations.
    """

    edges: tuple[float, ...]
    cumulative: tuple[float, ...]
    total: float

    @property
    def count(self) -> float:
        return self.cumulative[-1] if self.cumulative else 0.0

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count > 0 else None

    def quantile(self, q: float) -> Bracket | None:
        """None without observations."""
        if self.count <= 0:
            return None
        rank = q * self.count
        place = next(i for i, count in enumerate(self.cumulative) if count >= rank and count > 0)
        low = self.edges[place - 1] if place else 0.0
        high = self.edges[place]
        if high == inf:
            return Bracket(low, low, high)
        below = self.cumulative[place - 1] if place else 0.0
        share = (rank - below) / (self.cumulative[place] - below)
        return Bracket(low + share * (high - low), low, high)


@dataclass(frozen=True, slots=True)
class Level:
    """A gauge over the window, as sampled."""

    mean: float
    highest: float
    samples: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Level | None":
        """None without values."""
        return cls(sum(values) / len(values), max(values), len(values)) if values else None


@dataclass(frozen=True, slots=True)
class EngineView:
    """One server over `start_s` to `end_s` (wall clock of its first and last sample), its engines summed.

    Everything else is the change over that time, or a level in it; None where the server does not publish it.
    Times are in seconds. `ttft` and `gap` are counted when a token comes, the other histograms when a request
    ends. `kv_cache` is a share of 1, that of the fullest engine, and `kv_cache_full` the share of the samples
    in which it was above 0.95. `idle_edges`: nothing ran or waited in the first and last sample, so that
    counts hold whole requests. After one of `restarts` the counters began again at 0: what was counted
    between the last sample before and the restart is missing.
    """

    engine: str
    start_s: float
    end_s: float
    samples: int
    engines: int = 1
    restarts: int = 0
    idle_edges: bool = False
    requests: float | None = None
    aborted: float | None = None
    prompt_tokens: float | None = None
    output_tokens: float | None = None
    preemptions: float | None = None
    prefix_queries: float | None = None
    prefix_hits: float | None = None
    running: Level | None = None
    waiting: Level | None = None
    kv_cache: Level | None = None
    kv_cache_full: float | None = None
    ttft: Buckets | None = None
    queue: Buckets | None = None
    prefill: Buckets | None = None
    decode: Buckets | None = None
    inference: Buckets | None = None
    e2e: Buckets | None = None
    gap: Buckets | None = None
    tpot: Buckets | None = None

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s

    @property
    def output_rate(self) -> float | None:
        """Tokens per second."""
        return self._rate(self.output_tokens)

    @property
    def prompt_rate(self) -> float | None:
        """Tokens per second, those found in the prefix cache included."""
        return self._rate(self.prompt_tokens)

    @property
    def prefix_hit_share(self) -> float | None:
        """Prompt tokens found in the cache by those looked up; None when none was."""
        if self.prefix_queries is None or self.prefix_hits is None or self.prefix_queries <= 0:
            return None
        return self.prefix_hits / self.prefix_queries

    def _rate(self, amount: float | None) -> float | None:
        return None if amount is None or self.duration_s <= 0 else amount / self.duration_s
