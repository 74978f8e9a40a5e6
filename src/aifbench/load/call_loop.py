"""Load by blocking calls: one thread per client, each taking the next operation when it is free.

The hot path reads the clock, calls, reads the clock and appends one packed row; nothing else.
"""

import itertools
import threading
import time
from collections.abc import Callable

from aifbench.load.assignment import FOREVER_NS, Assignment
from aifbench.load.recorder import UNCHECKED, Recorder, pack_row, unfinished_row
from aifbench.load.workload import NOT_SEEN, Outcome, OutcomeKind, TokenTimes, Workload

# Blocking clients an open loop may use at once before operations have to wait for one (visible as lag).
OPEN_LOOP_THREADS = 64

# A client whose connection is refused pauses, so that a dead service is not answered by a busy loop.
REFUSED_PAUSE_S = 0.05

_SLEEP_SLICE_NS = 100_000_000
_JOIN_S = 0.05
_NO_TOKENS = TokenTimes()


class CallLoop:
    """Runs one Assignment of a blocking Workload and records every operation."""

    def __init__(
        self,
        workload: Workload,
        recorder: Recorder,
        assignment: Assignment,
        *,
        now_ns: Callable[[], int] = time.perf_counter_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._perform = workload.perform
        self._recorder = recorder
        self._part = assignment
        self._now_ns = now_ns
        self._sleep = sleep
        self._tickets = itertools.count()
        # Per client the index, intended and sent time of its operation; whoever removes it records it.
        self._current: dict[int, tuple[int, int, int]] = {}
        self._lock = threading.Lock()
        self._ended = False
        self.limited_by = ""
        self.overloaded = False
        self.times: list[TokenTimes] = []  # of every recorded operation, in the order of the rows
        self.loop_delay_max_ns = 0
        self.idle_ns = 0

    def run(self) -> None:
        """Returns when all is done, or when the drain time is over with calls still under way."""
        part = self._part
        if part.due_ns is None:
            self._run_threads(self._closed, part.clients)
        else:
            self._run_threads(self._open, min(OPEN_LOOP_THREADS, part.count))
        self._record_unfinished()

    def _run_threads(self, body: Callable[[int], None], count: int) -> None:
        threads = [threading.Thread(target=body, args=(n,), daemon=True) for n in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive() and not self._is_over():
                thread.join(_JOIN_S)

    def _is_over(self) -> bool:
        part = self._part
        end_ns = part.end_ns
        if end_ns == FOREVER_NS:
            # A call cannot be interrupted: fixed work is over when even the latest one has taken too long.
            sent_ns = [sent_ns for _, _, sent_ns in list(self._current.values())]
            end_ns = max(sent_ns, default=FOREVER_NS) + part.timeout_ns
        return part.stop.is_set or self._now_ns() > end_ns + part.drain_ns

    def _closed(self, client: int) -> None:
        part, now_ns, stop = self._part, self._now_ns, self._part.stop
        self._wait_until(part.start_ns)
        free_ns = part.start_ns
        while not stop.is_set:
            number = next(self._tickets)
            sent_ns = now_ns()
            if number >= part.count or sent_ns >= part.end_ns:
                break
            index = part.index(number)
            self._current[client] = (index, free_ns, sent_ns)
            outcome = self._call(index)
            finished_ns = now_ns()
            if not self._record(client, outcome, finished_ns):
                break
            free_ns = finished_ns
            if outcome.kind is OutcomeKind.CONNECT:
                self._sleep(REFUSED_PAUSE_S)
                free_ns = now_ns()

    def _open(self, client: int) -> None:
        part, now_ns = self._part, self._now_ns
        while (due := self._take_due(client)) is not None:
            index, intended_ns = due
            self._wait_until(intended_ns)
            sent_ns = now_ns()
            if part.stop.is_set or sent_ns > part.end_ns + part.drain_ns:
                break  # it stays in _current, as one that was never sent
            self._current[client] = (index, intended_ns, sent_ns)
            outcome = self._call(index)
            if not self._record(client, outcome, now_ns()):
                break

    def _take_due(self, client: int) -> tuple[int, int] | None:
        """Index and intended time of the next operation, which is this client's from now on."""
        part = self._part
        assert part.due_ns is not None
        with self._lock:
            if self._ended or (number := next(self._tickets)) >= part.count:
                return None
            index, intended_ns = part.index(number), int(part.due_ns[number])
            self._current[client] = (index, intended_ns, NOT_SEEN)
        # Free clients hold the earlier operations, so one taken late had to wait for a client.
        if number >= OPEN_LOOP_THREADS and intended_ns < self._now_ns():
            self.limited_by = f"all {OPEN_LOOP_THREADS} blocking clients were busy"
        return index, intended_ns

    def _wait_until(self, due_ns: int) -> None:
        while (left_ns := due_ns - self._now_ns()) > 0 and not self._part.stop.is_set:
            self._sleep(min(left_ns, _SLEEP_SLICE_NS) / 1e9)

    def _call(self, index: int) -> Outcome:
        try:
            return self._perform(index)
        except Exception as error:
            return outcome_of(error)

    def _record(self, client: int, outcome: Outcome, finished_ns: int) -> bool:
        """False when the operation has been recorded as unfinished meanwhile."""
        first_ns = outcome.first_byte_ns or NOT_SEEN
        qualities = (*outcome.qualities, UNCHECKED, UNCHECKED)[:2]
        with self._lock:
            if self._ended:
                return False
            self.times.append(outcome.tokens or _NO_TOKENS)
            if outcome.error:
                self._recorder.errors.add(outcome.error)
            self._recorder.add(
                pack_row(
                    *self._current.pop(client), first_ns, finished_ns, outcome.kind, 0, outcome.items,
                    outcome.bytes_out, outcome.bytes_in, *qualities, 0, 0,
                )
            )  # fmt: skip
        return True

    def _record_unfinished(self) -> None:
        """Operations under way, and open-loop operations due but never sent."""
        with self._lock:
            self._ended = True
            rest = list(self._current.values())
        part = self._part
        if part.due_ns is not None:
            numbers = range(next(self._tickets), part.count)
            rest += [(part.index(number), int(part.due_ns[number]), NOT_SEEN) for number in numbers]
        now_ns = self._now_ns()
        for index, intended_ns, sent_ns in rest:
            if intended_ns <= now_ns:
                self.times.append(_NO_TOKENS)
                self._recorder.add(unfinished_row(index, intended_ns, sent_ns))


def outcome_of(error: Exception) -> Outcome:
    """What an exception raised by a client library says about the operation."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, TimeoutError):
        return Outcome(OutcomeKind.TIMEOUT, 0, error=text)
    if isinstance(error, ConnectionRefusedError):
        return Outcome(OutcomeKind.CONNECT, 0, error=text)
    if isinstance(error, OSError):
        return Outcome(OutcomeKind.BROKEN, 0, error=text)
    return Outcome(OutcomeKind.HARNESS, 0, error=text)
