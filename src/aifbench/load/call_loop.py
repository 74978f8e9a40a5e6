"""Load by blocking calls: one thread per client, each taking the next operation when it is free.

The hot path reads the clock, calls, reads the clock and appends one packed row; nothing else.
"""

import itertools
import struct
import threading
import time
from collections.abc import Callable

from aifbench.load.assignment import Assignment
from aifbench.load.recorder import Recorder, pack_row
from aifbench.load.samples import NOT_SEEN
from aifbench.load.workload import Outcome, OutcomeKind, Workload

_pack_qualities = struct.Struct("=2f").pack
_NAN = float("nan")

# Blocking clients an open loop may use at once before operations have to wait for one (visible as lag).
OPEN_LOOP_THREADS = 64

# A client whose connection is refused pauses, so that a dead service is not answered by a busy loop.
REFUSED_PAUSE_S = 0.05

_SLEEP_SLICE_NS = 100_000_000


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
        self._current: dict[int, tuple[int, int, int]] = {}
        self.limited_by = ""
        self.loop_delay_max_ns = 0

    def run(self) -> None:
        part = self._part
        threads = part.clients if part.due_ns is None else min(OPEN_LOOP_THREADS, max(1, part.count))
        body = self._closed if part.due_ns is None else self._open
        if threads == 1 and part.due_ns is None:
            body(0)
        else:
            self._run_threads(body, threads)
        self._record_unfinished()

    def _run_threads(self, body: Callable[[int], None], count: int) -> None:
        threads = [threading.Thread(target=body, args=(n,), daemon=True) for n in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive() and not self._drained():
                thread.join(0.05)

    def _drained(self) -> bool:
        return self._part.stop.is_set or self._now_ns() > self._part.end_ns + self._part.drain_ns

    def _closed(self, client: int) -> None:
        part, now_ns, add = self._part, self._now_ns, self._recorder.add
        perform, tickets, current, stop = self._perform, self._tickets, self._current, self._part.stop
        self._wait_until(part.start_ns)
        free_ns = max(now_ns(), part.start_ns)
        while not stop.is_set:
            number = next(tickets)
            sent_ns = now_ns()
            if number >= part.count or sent_ns >= part.end_ns:
                break
            index = part.index(number)
            current[client] = (index, free_ns, sent_ns)
            try:
                outcome = perform(index)
            except Exception as error:
                outcome = outcome_of(error)
            finished_ns = now_ns()
            if outcome.error or part.scored:
                self._extras(outcome)
            add(
                pack_row(
                    index, free_ns, sent_ns, outcome.first_byte_ns or NOT_SEEN, finished_ns,
                    outcome.kind, 0, outcome.items, outcome.bytes_out, outcome.bytes_in,
                )
            )  # fmt: skip
            free_ns = finished_ns
            if outcome.kind is OutcomeKind.CONNECT:
                self._sleep(REFUSED_PAUSE_S)
                free_ns = now_ns()
        current.pop(client, None)

    def _open(self, client: int) -> None:
        part, now_ns, current = self._part, self._now_ns, self._current
        assert part.due_ns is not None
        due = part.due_ns
        while not part.stop.is_set:
            number = next(self._tickets)
            if number >= part.count:
                break
            intended_ns = int(due[number])
            self._wait_until(intended_ns)
            sent_ns = now_ns()
            if part.stop.is_set or sent_ns > part.end_ns + part.drain_ns:
                self._record_never_sent(number)
                break
            index = part.index(number)
            current[client] = (index, intended_ns, sent_ns)
            try:
                outcome = self._perform(index)
            except Exception as error:
                outcome = outcome_of(error)
            finished_ns = now_ns()
            if outcome.error or part.scored:
                self._extras(outcome)
            self._recorder.add(
                pack_row(
                    index, intended_ns, sent_ns, outcome.first_byte_ns or NOT_SEEN, finished_ns,
                    outcome.kind, 0, outcome.items, outcome.bytes_out, outcome.bytes_in,
                )
            )  # fmt: skip
            current.pop(client, None)
            if len(current) + 1 >= OPEN_LOOP_THREADS:
                self.limited_by = f"all {OPEN_LOOP_THREADS} blocking clients were busy"

    def _extras(self, outcome: Outcome) -> None:
        if outcome.error:
            self._recorder.errors.add(outcome.error)
        if self._part.scored:
            first, second = (*outcome.qualities, _NAN, _NAN)[:2]
            self._recorder.add_quality(_pack_qualities(first, second))

    def _wait_until(self, due_ns: int) -> None:
        while (left_ns := due_ns - self._now_ns()) > 0 and not self._part.stop.is_set:
            self._sleep(min(left_ns, _SLEEP_SLICE_NS) / 1e9)

    def _record_never_sent(self, number: int) -> None:
        assert self._part.due_ns is not None
        if self._part.due_ns[number] <= self._now_ns():
            self._unfinished(self._part.index(number), int(self._part.due_ns[number]), NOT_SEEN)

    def _record_unfinished(self) -> None:
        for index, intended_ns, sent_ns in list(self._current.values()):
            self._unfinished(index, intended_ns, sent_ns)
        if self._part.due_ns is not None:
            for number in range(next(self._tickets), self._part.count):
                self._record_never_sent(number)

    def _unfinished(self, index: int, intended_ns: int, sent_ns: int) -> None:
        if self._part.scored:
            self._recorder.add_quality(_pack_qualities(_NAN, _NAN))
        kind = OutcomeKind.UNFINISHED
        self._recorder.add(pack_row(index, intended_ns, sent_ns, NOT_SEEN, NOT_SEEN, kind, 0, 0, 0, 0))


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
