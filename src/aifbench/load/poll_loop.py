"""Load by one thread over connections whose protocol the workload's own library speaks.

For client libraries that can send without waiting and be asked later whether the answer is complete. A
thread per client costs a wake-up and a hand-over of the interpreter's lock for each operation, several times
the operation's own work when that is small; here there is neither. (A client by itself needs neither
anyway: see `PolledWorkload.alone`.)
"""

import select
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar, Protocol, TypeVar

from aifbench.load.assignment import Assignment
from aifbench.load.recorder import Recorder, pack_outcome, pack_times, unfinished_row
from aifbench.load.workload import NOT_SEEN, Outcome, OutcomeKind, Workload

REFUSED_PAUSE_NS = 50_000_000
_MAX_WAIT_NS = 50_000_000
_COARSE_WAIT_NS = 2_000_000  # epoll counts in milliseconds; shorter waits are select's
# select looks at each connection, so it is for few; and it knows none with a larger number.
_FEW, _MAX_SELECT_FD = 16, 1023


class Channel(Protocol):
    """One connection of a polled workload."""

    @property
    def is_lost(self) -> bool: ...

    def fileno(self) -> int: ...

    def close(self) -> None: ...


class SoloClient(Protocol):
    """A blocking client, used by one thread; closed with its workload."""

    def perform(self, index: int) -> Outcome: ...


AnyChannel = TypeVar("AnyChannel", bound=Channel)


class PolledWorkload(Workload, Protocol[AnyChannel]):
    """A workload whose operations need no thread each; `connections` are opened by `open`."""

    is_polled: ClassVar[bool]

    @property
    def connections(self) -> int: ...

    def alone(self) -> "SoloClient":
        """For a closed loop of one client, which waits in its library instead."""

    def connect(self) -> AnyChannel | Outcome:
        """A connection that `open` made, or a new one; the outcome to record where there is none to have."""

    def begin(self, channel: AnyChannel, index: int) -> Outcome | None:
        """Send operation `index`, without waiting; an outcome when that failed."""

    def advance(self, channel: AnyChannel, index: int) -> Outcome | None:
        """Called when there is something to read: the outcome, None while the answer is incomplete."""


class _Client:
    __slots__ = ("channel", "fd", "free_ns", "index", "intended_ns", "sent_ns")

    def __init__(self, start_ns: int) -> None:
        self.channel: Channel | None = None
        self.fd = -1
        self.free_ns = start_ns
        self.index = self.intended_ns = self.sent_ns = NOT_SEEN


class PollLoop:
    """Runs one Assignment of a PolledWorkload and records every operation.

    A closed loop has a connection for each client; an open loop has the workload's `connections`, and where
    all are busy an operation is sent late, which its lag shows.
    """

    def __init__(
        self,
        workload: PolledWorkload,  # type: ignore[type-arg]
        recorder: Recorder,
        assignment: Assignment,
        *,
        now_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._workload = workload
        self._recorder = recorder
        self._part = assignment
        self._now_ns = now_ns
        self._due_ns = None if assignment.due_ns is None else memoryview(assignment.due_ns.data)
        count = workload.connections if self._due_ns is not None else assignment.clients
        self._resting = deque(_Client(assignment.start_ns) for _ in range(count))  # by free_ns
        self._connections = count
        self._busy: dict[int, _Client] = {}
        self._epoll = select.epoll()
        self._fds: list[int] = []
        self._known: Outcome | None = None
        self._rest = b""
        self._issued = 0
        self.limited_by = ""
        self.overloaded = False
        self.loop_delay_max_ns = 0
        self.idle_ns = 0

    def run(self) -> None:
        """Returns when all is done, or when the drain time is over with operations still under way."""
        try:
            for client in self._resting:
                self._connect(client)
            while not self._is_done(now_ns := self._now_ns()):
                self._issue_due(now_ns)
                self._wait()
        finally:
            self._record_rest()
            self._close()

    def _is_done(self, now_ns: int) -> bool:
        part = self._part
        if part.stop.is_set or now_ns >= part.end_ns + part.drain_ns:
            return True
        if self._busy:
            return False
        return self._issued >= part.count or (part.due_ns is None and now_ns >= part.end_ns)

    def _next_due_ns(self) -> int:
        """When the next operation may be sent; in open loop whether or not a client rests."""
        return self._resting[0].free_ns if self._due_ns is None else self._due_ns[self._issued]

    def _issue_due(self, now_ns: int) -> None:
        part, resting, is_open = self._part, self._resting, self._due_ns is not None
        while resting and self._issued < part.count and (due_ns := self._next_due_ns()) <= now_ns:
            if not is_open and now_ns >= part.end_ns:
                return
            # The latest to rest: an open loop uses no more connections than it needs.
            client = resting.pop() if is_open else resting.popleft()
            if client.free_ns > now_ns:  # pausing after a refusal
                resting.appendleft(client)
                return
            client.index, client.intended_ns, client.sent_ns = part.index(self._issued), due_ns, now_ns
            self._issue(client)
            self._issued += 1
            now_ns = self._now_ns()
        if is_open and not resting and self._issued < part.count and self._next_due_ns() <= now_ns:
            self.limited_by = f"all {self._connections} connections were busy"

    def _issue(self, client: _Client) -> None:
        outcome = None
        if client.channel is None:
            outcome = self._connect(client)
        if client.channel is not None:
            outcome = self._workload.begin(client.channel, client.index)
        if outcome is None:
            self._busy[client.fd] = client
        else:
            self._finish(client, outcome, self._now_ns())

    def _connect(self, client: _Client) -> Outcome | None:
        channel = self._workload.connect()
        if isinstance(channel, Outcome):
            return channel
        client.channel, client.fd = channel, channel.fileno()
        self._epoll.register(client.fd, select.EPOLLIN)
        self._fds.append(client.fd)
        return None

    def _wait(self) -> None:
        now_ns = self._now_ns()
        wake_ns = now_ns + _MAX_WAIT_NS
        if self._resting and self._issued < self._part.count:
            wake_ns = min(wake_ns, max(self._next_due_ns(), self._resting[-1].free_ns))
        readable = self._readable(max(0, wake_ns - now_ns))
        if not readable:
            return
        began_ns = finished_ns = self._now_ns()
        for fd in readable:
            client = self._busy.get(fd)
            if client is None or client.channel is None:
                self._forget(fd)
                continue
            outcome = self._workload.advance(client.channel, client.index)
            finished_ns = self._now_ns()
            if outcome is not None:
                del self._busy[fd]
                self._finish(client, outcome, finished_ns)
        self.loop_delay_max_ns = max(self.loop_delay_max_ns, finished_ns - began_ns)

    def _readable(self, wait_ns: int) -> list[int]:
        """Connections with something to read, after so long at the most."""
        if wait_ns >= _COARSE_WAIT_NS:
            return [fd for fd, _ in self._epoll.poll((wait_ns - 1_000_000) / 1e9)]
        if len(self._fds) <= _FEW and max(self._fds, default=0) <= _MAX_SELECT_FD:
            return select.select(self._fds, (), (), wait_ns / 1e9)[0]
        if wait_ns:
            select.select([self._epoll], (), (), wait_ns / 1e9)
        return [fd for fd, _ in self._epoll.poll(0)]

    def _finish(self, client: _Client, outcome: Outcome, finished_ns: int) -> None:
        if outcome is not self._known:  # which is seldom, where all go well
            self._known, self._rest = outcome, pack_outcome(outcome)
        times = pack_times(client.index, client.intended_ns, client.sent_ns, NOT_SEEN, finished_ns)
        self._recorder.add(times + self._rest)
        client.free_ns = finished_ns
        is_open = self._due_ns is not None
        if outcome.kind is OutcomeKind.OK:
            self._resting.append(client) if is_open else self._resting.appendleft(client)
            return
        if outcome.error:
            self._recorder.errors.add(outcome.error)
        if client.channel is not None and client.channel.is_lost:
            self._drop(client)
        is_refused = outcome.kind is OutcomeKind.CONNECT
        if is_refused:
            client.free_ns += REFUSED_PAUSE_NS
        # The next to be used is last in an open loop, first in a closed one; who pauses is at the other end.
        self._resting.append(client) if is_open is not is_refused else self._resting.appendleft(client)

    def _forget(self, fd: int) -> None:
        """Something came on a connection that nobody waits on: its end, or a notice."""
        for client in self._resting:
            if client.fd == fd and client.channel is not None:
                self._workload.advance(client.channel, NOT_SEEN)
                if client.channel.is_lost:
                    self._drop(client)

    def _drop(self, client: _Client) -> None:
        assert client.channel is not None
        with suppress(OSError):  # the library may have closed it, which ends its registration too
            self._epoll.unregister(client.fd)
        with suppress(ValueError):
            self._fds.remove(client.fd)
        client.channel.close()
        client.channel, client.fd = None, -1

    def _record_rest(self) -> None:
        """Operations under way, and open-loop operations due but never sent."""
        part = self._part
        for client in self._busy.values():
            self._recorder.add(unfinished_row(client.index, client.intended_ns, client.sent_ns))
        if part.due_ns is None:
            return
        now_ns = self._now_ns()
        for number in range(self._issued, part.count):
            if (due_ns := int(part.due_ns[number])) <= now_ns:
                self._recorder.add(unfinished_row(part.index(number), due_ns, NOT_SEEN))

    def _close(self) -> None:
        self._epoll.close()
        for client in (*self._resting, *self._busy.values()):
            if client.channel is not None:
                client.channel.close()
