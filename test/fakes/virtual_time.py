"""Time that stands still while any thread works, and jumps when all of them sleep.

With it, real threads give exactly the numbers that arithmetic says, and a minute takes no time.
"""

import heapq
import itertools
import threading

_LOOK_AROUND_S = 0.05


class VirtualTime:
    """A clock in nanoseconds for the threads that sleep by it.

    It first moves when `threads` of them have begun to sleep; those that have ended are not waited for.
    """

    def __init__(self, threads: int) -> None:
        self._now_ns = 0
        self._threads = threads
        self._order = itertools.count()
        self._sleepers: list[tuple[int, int, threading.Event]] = []
        self._seen: set[int] = set()
        self._lock = threading.Lock()

    def now_ns(self) -> int:
        return self._now_ns

    def sleep(self, duration_s: float) -> None:
        awake = threading.Event()
        with self._lock:
            self._seen.add(threading.get_ident())
            wake_ns = self._now_ns + round(duration_s * 1e9)
            heapq.heappush(self._sleepers, (wake_ns, next(self._order), awake))
            self._move()
        while not awake.wait(_LOOK_AROUND_S):  # another thread may have ended instead of sleeping
            with self._lock:
                self._move()

    def _move(self) -> None:
        alive = sum(thread.ident in self._seen for thread in threading.enumerate())
        if len(self._seen) >= self._threads and len(self._sleepers) >= alive:
            self._now_ns, _, awake = heapq.heappop(self._sleepers)
            awake.set()
