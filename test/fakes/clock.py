"""Clocks that cost no time: one that moves only when somebody sleeps, and one that runs fast."""

import time
from collections.abc import Callable


class FakeClock:
    def __init__(self, wall_s: float = 1_700_000_000.0) -> None:
        self.elapsed_s = 0.0
        self._wall_origin_s = wall_s
        self.slept_s: list[float] = []
        self.on_sleep: Callable[[], object] = lambda: None  # what happens meanwhile

    def monotonic_s(self) -> float:
        return self.elapsed_s

    def wall_s(self) -> float:
        return self._wall_origin_s + self.elapsed_s

    def step_wall(self, by_s: float) -> None:
        """Somebody, or a time server, sets the wall clock."""
        self._wall_origin_s += by_s

    def sleep(self, duration_s: float) -> None:
        self.slept_s.append(duration_s)
        self.elapsed_s += duration_s
        self.on_sleep()


class FastClock:
    """The real time, only more of it: what waits for seconds by this clock waits for hundredths."""

    def __init__(self, factor: float = 100.0) -> None:
        self._factor = factor

    def monotonic_s(self) -> float:
        return time.monotonic() * self._factor

    def wall_s(self) -> float:
        return time.time()

    def sleep(self, duration_s: float) -> None:
        time.sleep(duration_s / self._factor)
