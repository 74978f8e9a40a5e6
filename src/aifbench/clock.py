"""Time as an injected object, so that waiting can be tested without waiting."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def monotonic_s(self) -> float:
        """Seconds that never go back; the origin means nothing."""

    def wall_s(self) -> float:
        """Seconds since the epoch; may be stepped."""

    def sleep(self, duration_s: float) -> None:
        """Return after about `duration_s`."""


class SystemClock:
    def monotonic_s(self) -> float:
        return time.monotonic()

    def wall_s(self) -> float:
        return time.time()

    def sleep(self, duration_s: float) -> None:
        time.sleep(duration_s)


def utc_text(wall_s: float) -> str:
    """`2026-11-20T13:14:55Z`."""
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
