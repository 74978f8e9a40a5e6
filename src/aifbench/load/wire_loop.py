"""Load over HTTP/1.1 by one thread and epoll: stamp first, keep the bytes, interpret afterwards.

An operation is sent the moment it is due on an idle kept-alive connection, or on a new one. Of streamed
answers every read's time is kept, and all bytes as they came: what they mean is found out when the load is
over.
"""

import heapq
import time
from array import array
from collections import deque
from collections.abc import Callable

from aifbench.load.assignment import Assignment
from aifbench.load.connections import Connection, Connections
from aifbench.load.http import ResponseReader
from aifbench.load.recorder import DROPPED, UNCHECKED, Recorder, pack_row, unfinished_row
from aifbench.load.workload import NOT_SEEN, OutcomeKind, Request

REFUSED_PAUSE_NS = 50_000_000
_MAX_WAIT_NS = 50_000_000
# A sleeping process is woken some 0.1 ms late, which is much beside an answer in 1 ms. So the loop stays
# awake for this long before an operation is due, where that costs at most a tenth of a core.
_AWAKE_NS = 200_000
_AWAKE_SHARE = 0.1


class WireLoop:
    """Runs one Assignment over `connections`, which it closes; `request(index)` gives the bytes to send.

    With `is_stream` the answers recorded are whole responses as they came, cut ones too, and so are their
    reads. With `wants_head` complete answers are recorded and learned from as they came, head and body, and
    not their bodies alone. Answers that `keeps(index)` does not want are counted and forgotten;
    `refusal(status, body)` words those of bad status. `learn(index, body)` is told every answer that another
    operation of its chain builds on, at once: the only reading that is done during the load. What it returns
    False for ends its chain.
    """

    def __init__(
        self,
        connections: Connections,
        request: Callable[[int], Request],
        recorder: Recorder,
        assignment: Assignment,
        *,
        is_stream: bool = False,
        wants_head: bool = False,
        learn: Callable[[int, bytes], bool] | None = None,
        keeps: Callable[[int], bool] | None = None,
        refusal: Callable[[int, bytes], str] | None = None,
        now_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._connections = connections
        self._request = request
        self._recorder = recorder
        self._part = assignment
        self._is_stream = is_stream
        self._wants_head = wants_head
        self._learn = learn
        self._keeps = keeps
        self._refusal = refusal
        self._now_ns = now_ns
        self._deadlines: deque[tuple[int, Connection, int]] = deque()
        # A heap of when each client is free, and the operation it has to do then (-1: any).
        self._free_clients = [(assignment.start_ns, -1)] * assignment.clients
        self._awake_ns = _awake_ns(assignment)
        self._issued = 0
        self._in_flight = 0
        self.loop_delay_max_ns = 0
        self.idle_ns = 0  # awake, with nothing to do
        self.limited_by = ""
        self.overloaded = False
        self.sent_anew = 0
        connections.tell(self._answered, self._failed, is_stream=is_stream)

    def run(self) -> None:
        """Issue, receive and record until everything is done or the drain time is over."""
        try:
            while True:
                now_ns = self._now_ns()
                self._issue_due(now_ns)
                self._expire(now_ns)
                if self._is_done(now_ns):
                    break
                self._wait(now_ns)
        finally:
            self._record_rest()
            self._connections.close()

    def _is_done(self, now_ns: int) -> bool:
        part = self._part
        if part.stop.is_set or self.overloaded or now_ns >= part.end_ns + part.drain_ns:
            return True
        if self._in_flight:
            return False
        if part.due_ns is None:
            return not self._free_clients or now_ns >= part.end_ns
        return self._issued >= part.count

    def _issue_due(self, now_ns: int) -> None:
        if self._part.due_ns is None:
            self._issue_closed(now_ns)
        else:
            self._issue_open(now_ns)

    def _issue_closed(self, now_ns: int) -> None:
        part, free = self._part, self._free_clients
        if now_ns >= part.end_ns:
            return
        while free and free[0][0] <= now_ns:
            free_ns, index = heapq.heappop(free)
            if index < 0:
                if self._issued >= part.count:
                    continue  # nothing is left for this client
                index = part.index(self._issued) * part.chain
                self._issued += 1
            self._issue(index, free_ns)

    def _issue_open(self, now_ns: int) -> None:
        part = self._part
        assert part.due_ns is not None
        while self._issued < part.count:
            due_ns = int(part.due_ns[self._issued])
            if due_ns > now_ns:
                break
            if self._connections.is_full:
                self.limited_by = f"all {self._connections.most} connections were busy"
                break
            if self._in_flight >= part.max_in_flight:
                self.overloaded = True
                break
            self._issue(part.index(self._issued), due_ns)
            self._issued += 1
            now_ns = self._now_ns()

    def _issue(self, index: int, intended_ns: int) -> None:
        request = self._request(index)
        sent_ns = self._now_ns()
        self._begin(self._connections.take(), request, index, intended_ns, sent_ns)

    def _begin(
        self, connection: Connection, request: Request, index: int, intended_ns: int, sent_ns: int
    ) -> None:
        connection.index, connection.intended_ns, connection.sent_ns = index, intended_ns, sent_ns
        connection.serial += 1
        self._in_flight += 1
        self._deadlines.append((sent_ns + self._part.timeout_ns, connection, connection.serial))
        self._connections.send(connection, request, keep=self._keeps is None or self._keeps(index))

    def _wait(self, now_ns: int) -> None:
        wait_ns = self._next_wake(now_ns) - now_ns
        events = self._connections.events(wait_ns)
        began_ns = self._now_ns()
        if events:
            self._connections.handle(events)
            self.loop_delay_max_ns = max(self.loop_delay_max_ns, self._now_ns() - began_ns)
        elif self._awake_ns and wait_ns <= 0:
            self.idle_ns += began_ns - now_ns

    def _next_wake(self, now_ns: int) -> int:
        part = self._part
        wake_ns = now_ns + _MAX_WAIT_NS
        if part.due_ns is not None and self._issued < part.count and not self._connections.is_full:
            wake_ns = min(wake_ns, int(part.due_ns[self._issued]) - self._awake_ns)
        elif self._free_clients and now_ns < part.end_ns:
            wake_ns = min(wake_ns, self._free_clients[0][0])
        if self._deadlines:
            wake_ns = min(wake_ns, self._deadlines[0][0])
        return wake_ns

    def _answered(self, connection: Connection, reader: ResponseReader, now_ns: int) -> None:
        kind = OutcomeKind.of_status(reader.status)
        if kind is not OutcomeKind.OK:
            self._recorder.errors.add(self._words_of(reader))
        self._record(connection, kind, now_ns, reader.status)
        free_ns, index = self._next_of(connection, now_ns, goes_on=kind is OutcomeKind.OK)
        if index >= 0 and self._learn is not None and not self._learn(connection.index, self._wanted(reader)):
            free_ns, index = now_ns, -1
        self._connections.release(connection)
        self._operation_ended(free_ns, index)

    def _words_of(self, reader: ResponseReader) -> str:
        """An answer of bad status in one line: what a service says when it refuses is worth reading."""
        if self._refusal is not None:
            return self._refusal(reader.status, reader.body)
        retry = f" (Retry-After: {reader.retry_after})" if reader.retry_after else ""
        return f"HTTP {reader.status}{retry} {reader.body[:120].decode(errors='replace')}".rstrip()

    def _failed(self, connection: Connection, kind: OutcomeKind, text: str) -> None:
        if kind is OutcomeKind.BROKEN and self._is_stale(connection):
            self._send_anew(connection)
            return
        now_ns = self._now_ns()
        is_busy = connection.reader is not None
        if is_busy:
            self._recorder.errors.add(text)
            self._record(connection, kind, now_ns, 0)
        self._connections.drop(connection)
        if is_busy:
            pause_ns = REFUSED_PAUSE_NS if kind is OutcomeKind.CONNECT else 0
            self._operation_ended(now_ns + pause_ns, -1)

    def _is_stale(self, connection: Connection) -> bool:
        """Services close connections that were idle for some seconds, perhaps just when one is used again.

        One that ends without a byte of the answer was closed before the request was read.
        """
        return connection.reader is not None and connection.is_kept and connection.first_ns == NOT_SEEN

    def _send_anew(self, connection: Connection) -> None:
        """On a new connection, and only once. The time that it took is the operation's."""
        request, index = connection.request, connection.index
        intended_ns, sent_ns = connection.intended_ns, connection.sent_ns
        self._connections.drop(connection)
        self._in_flight -= 1
        self.sent_anew += 1
        self._begin(self._connections.new(), request, index, intended_ns, sent_ns)

    def _next_of(self, connection: Connection, now_ns: int, *, goes_on: bool) -> tuple[int, int]:
        """When the client of this operation is free, and for which one of its chain."""
        index = connection.index + 1
        if goes_on and index % self._part.chain:
            return now_ns + self._part.think_ns, index
        return now_ns, -1

    def _operation_ended(self, free_ns: int, next_index: int) -> None:
        self._in_flight -= 1
        if self._part.due_ns is None:
            heapq.heappush(self._free_clients, (free_ns, next_index))

    def _record(self, connection: Connection, kind: OutcomeKind, finished_ns: int, status: int) -> None:
        """The answer goes with it if it is complete (has a status) or, of a stream, as far as it came."""
        reader = connection.reader
        assert reader is not None
        answer, reads = b"", 0
        if self._is_stream:
            answer, reads = reader.raw, len(connection.reads) // 2
            self._recorder.add_reads(array("q", connection.reads).tobytes())
        elif status and connection.keep:
            answer = self._wanted(reader)
        bytes_in = len(answer)
        if status and (self._wants_head or not answer):
            bytes_in = reader.body_bytes
        self._recorder.add_answer(answer)
        self._recorder.add(
            pack_row(
                connection.index, connection.intended_ns, connection.sent_ns, connection.first_ns,
                finished_ns, kind, status, int(kind is OutcomeKind.OK),
                connection.bytes_out - connection.unsent_bytes, bytes_in, UNCHECKED, UNCHECKED,
                len(answer) if connection.keep else DROPPED, reads,
            )
        )  # fmt: skip

    def _wanted(self, reader: ResponseReader) -> bytes:
        return reader.raw if self._wants_head else reader.body

    def _expire(self, now_ns: int) -> None:
        deadlines = self._deadlines
        while deadlines:
            deadline_ns, connection, serial = deadlines[0]
            if connection.serial == serial and connection.reader is not None:
                if deadline_ns > now_ns:
                    return
                text = f"no answer within {self._part.timeout_ns / 1e9:g} s"
                self._failed(connection, OutcomeKind.TIMEOUT, text)
            deadlines.popleft()

    def _record_rest(self) -> None:
        """Operations under way, and open-loop operations due but never sent, are UNFINISHED."""
        for connection in self._connections.busy():
            self._record(connection, OutcomeKind.UNFINISHED, NOT_SEEN, 0)
        part = self._part
        if part.due_ns is None:
            return
        now_ns = self._now_ns()
        for number in range(self._issued, part.count):
            due_ns = int(part.due_ns[number])
            if due_ns > now_ns:
                break
            self._recorder.add(unfinished_row(part.index(number), due_ns, NOT_SEEN))


def _awake_ns(part: Assignment) -> int:
    """How long before each due time to stop sleeping; 0 where operations are too frequent for that."""
    if part.due_ns is None or len(part.due_ns) < 2:
        return 0
    mean_gap_ns = int(part.due_ns[-1] - part.due_ns[0]) / (len(part.due_ns) - 1)
    return _AWAKE_NS if mean_gap_ns * _AWAKE_SHARE >= _AWAKE_NS else 0
