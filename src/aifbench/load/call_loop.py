"""Load by blocking calls: one thread per client, each taking the next operation when it is free.

The hot path reads the clock, calls, reads the clock and appends one packed row; nothing else. It takes no
lock: what a client has under way is in a slot of its own, and whoever empties the slot records the operation.
"""

import itertools
import threading
import time
from collections.abc import Callable, Mapping

from aifbench.load.assignment import FOREVER_NS, Assignment
from aifbench.load.recorder import Recorder, pack_outcome, pack_times, unfinished_row
from aifbench.load.workload import NOT_SEEN, Outcome, OutcomeKind, TokenTimes, Workload

# Blocking clients an open loop may use at once before operations have to wait for one (visible as lag).
OPEN_LOOP_THREADS = 64

# A client whose connection is refused pauses, so that a dead service is not answered by a busy loop.
REFUSED_PAUSE_S = 0.05

_SLEEP_SLICE_NS = 100_000_000
_JOIN_S = 0.05
_LAST_WORDS_S = 1.0

Slot = list[tuple[int, int, int]]


class CallLoop:
    """Runs one Assignment of a blocking Workload and records every operation.

    In closed loop a client does the operations of a chain one after the other, `think_ns` apart; one that
    fails ends its chain.
    """

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
        # Per client at most one operation: index, intended and sent time. Whoever removes it records it.
        self._slots: list[Slot] = []
        self._lock = threading.Lock()
        self._ended = False
        self.limited_by = ""
        self.overloaded = False
        # By index, of the operations whose outcome had some.
        self.tokens: dict[int, TokenTimes] = {}
        self.stages: dict[int, Mapping[str, tuple[int, int]]] = {}
        self.loop_delay_max_ns = 0
        self.idle_ns = 0

    def run(self) -> None:
        """Returns when all is done, or when the drain time is over with calls still under way."""
        part = self._part
        if part.due_ns is None:
            threads = self._run_threads(self._closed, part.clients)
        else:
            threads = self._run_threads(self._open, min(OPEN_LOOP_THREADS, part.count))
        self._record_unfinished(threads)

    def _run_threads(self, body: Callable[[Slot], None], count: int) -> list[threading.Thread]:
        self._slots = [[] for _ in range(count)]
        threads = [threading.Thread(target=body, args=(slot,), daemon=True) for slot in self._slots]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive() and not self._is_over():
                thread.join(_JOIN_S)
        return threads

    def _is_over(self) -> bool:
        part = self._part
        end_ns = part.end_ns
        if end_ns == FOREVER_NS:
            # A call cannot be interrupted: fixed work is over when even the latest one has taken too long.
            sent_ns = [sent_ns for slot in self._slots for _, _, sent_ns in slot.copy()]
            end_ns = max(sent_ns, default=FOREVER_NS) + part.timeout_ns
        return part.stop.is_set or self._now_ns() > end_ns + part.drain_ns

    def _closed(self, slot: Slot) -> None:
        part, now_ns, stop, perform = self._part, self._now_ns, self._part.stop, self._perform
        add, take, chain, think_ns = self._recorder.add, self._tickets.__next__, part.chain, part.think_ns
        end_ns, count, first_index, stride = part.end_ns, part.count, part.first_index, part.stride
        self._wait_until(part.start_ns)
        free_ns = part.start_ns
        index = last_index = NOT_SEEN
        known: Outcome | None = None
        first_ns, rest, is_plain = NOT_SEEN, b"", True
        while not stop.is_set:
            if index == last_index:
                number = take()
                if number >= count:
                    break
                index = (first_index + number * stride) * chain
                last_index = index + chain
            sent_ns = now_ns()
            if sent_ns >= end_ns:
                break
            slot.append((index, free_ns, sent_ns))
            if self._ended:
                break
            try:
                outcome = perform(index)
            except Exception as error:
                outcome = outcome_of(error)
            finished_ns = now_ns()
            try:
                slot.pop()
            except IndexError:  # recorded as unfinished meanwhile
                break
            if outcome is not known:
                known, rest = outcome, pack_outcome(outcome)
                first_ns = outcome.first_byte_ns or NOT_SEEN
                is_plain = (
                    outcome.kind is OutcomeKind.OK and outcome.tokens is None and outcome.stages is None
                )
            add(pack_times(index, free_ns, sent_ns, first_ns, finished_ns) + rest)
            free_ns = finished_ns
            if not is_plain:
                self._note(index, outcome)
                if outcome.kind is OutcomeKind.CONNECT:
                    self._sleep(REFUSED_PAUSE_S)
                    free_ns = now_ns()
                if outcome.kind is not OutcomeKind.OK:
                    index = last_index
                    continue
            index += 1
            if think_ns and index != last_index:
                free_ns += think_ns
                self._wait_until(min(free_ns, end_ns))

    def _open(self, slot: Slot) -> None:
        part, now_ns = self._part, self._now_ns
        while (due := self._take_due(slot)) is not None:
            index, intended_ns = due
            self._wait_until(intended_ns)
            sent_ns = now_ns()
            if part.stop.is_set or sent_ns > part.end_ns + part.drain_ns:
                break  # it stays in its slot, as one that was never sent
            try:
                slot[0] = (index, intended_ns, sent_ns)
                outcome = self._call(index)
                finished_ns = now_ns()
                slot.pop()
            except IndexError:  # recorded as unfinished meanwhile
                break
            first_ns = outcome.first_byte_ns or NOT_SEEN
            times = pack_times(index, intended_ns, sent_ns, first_ns, finished_ns)
            self._recorder.add(times + pack_outcome(outcome))
            self._note(index, outcome)

    def _take_due(self, slot: Slot) -> tuple[int, int] | None:
        """Index and intended time of the next operation, which is this client's from now on."""
        part = self._part
        assert part.due_ns is not None
        with self._lock:
            if self._ended or (number := next(self._tickets)) >= part.count:
                return None
            index, intended_ns = part.index(number), int(part.due_ns[number])
            slot.append((index, intended_ns, NOT_SEEN))
        if not self.limited_by and intended_ns < self._now_ns() and self._is_every_other_busy(slot):
            self.limited_by = f"all {OPEN_LOOP_THREADS} blocking clients were busy"
        return index, intended_ns

    def _is_every_other_busy(self, slot: Slot) -> bool:
        """Whether all others are in a call. One that was woken late is not: it holds an operation unsent."""
        if len(self._slots) < OPEN_LOOP_THREADS:
            return False
        others = (other.copy() for other in self._slots if other is not slot)
        return all(under_way and under_way[0][2] != NOT_SEEN for under_way in others)

    def _wait_until(self, due_ns: int) -> None:
        while (left_ns := due_ns - self._now_ns()) > 0 and not self._part.stop.is_set:
            self._sleep(min(left_ns, _SLEEP_SLICE_NS) / 1e9)

    def _call(self, index: int) -> Outcome:
        try:
            return self._perform(index)
        except Exception as error:
            return outcome_of(error)

    def _note(self, index: int, outcome: Outcome) -> None:
        if outcome.error:
            self._recorder.errors.add(outcome.error)
        if outcome.tokens is not None:
            self.tokens[index] = outcome.tokens
        if outcome.stages is not None:
            self.stages[index] = outcome.stages

    def _record_unfinished(self, threads: list[threading.Thread]) -> None:
        """Operations under way, and open-loop operations due but never sent."""
        with self._lock:
            self._ended = True
        rest: Slot = []
        for slot, thread in zip(self._slots, threads, strict=True):
            try:
                rest.append(slot.pop())
            except IndexError:  # between two operations: it may be about to add its last row
                thread.join(_LAST_WORDS_S)
        part = self._part
        if part.due_ns is not None:
            numbers = range(next(self._tickets), part.count)
            rest += [(part.index(number), int(part.due_ns[number]), NOT_SEEN) for number in numbers]
        now_ns = self._now_ns()
        for index, intended_ns, sent_ns in rest:
            if intended_ns <= now_ns:
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
