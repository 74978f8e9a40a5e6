"""A clock that moves only when somebody sleeps."""


class FakeClock:
    def __init__(self, wall_s: float = 1_700_000_000.0) -> None:
        self.elapsed_s = 0.0
        self._wall_origin_s = wall_s
        self.slept_s: list[float] = []

    def monotonic_s(self) -> float:
        return self.elapsed_s

    def wall_s(self) -> float:
        return self._wall_origin_s + self.elapsed_s

    def sleep(self, duration_s: float) -> None:
        self.slept_s.append(duration_s)
        self.elapsed_s += duration_s
