"""Load over HTTP/1.1 by one thread and epoll: stamp first, keep the bytes, interpret afterwards.

An operation is sent the moment it is due on an idle kept-alive connection, or on a new one. Each read
is stamped before its bytes are looked at, and only the end of the answer is searched for. Of streamed answers
every read's time is kept, and all bytes as they came: what they mean is found out when the load is over.
"""

import errno
import heapq
import select
import socket
import ssl
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable

from aifbench.load.assignment import Assignment
from aifbench.load.connecting import MAX_CONNECTIONS, AnySocket, descriptors_left, resolve
from aifbench.load.http import ProtocolError, ResponseReader
from aifbench.load.recorder import DROPPED, UNCHECKED, Recorder, pack_row, unfinished_row
from aifbench.load.tls import TlsSocket
from aifbench.load.workload import NOT_SEEN, OutcomeKind, Request

REFUSED_PAUSE_NS = 50_000_000
_RECEIVE_BYTES = 262_144
# Python makes an object of this size for every read. Pieces of a stream are small, and many.
_STREAM_RECEIVE_BYTES = 16_384
_MAX_WAIT_NS = 50_000_000
# epoll counts in milliseconds. Longer waits begin with one of its own; the rest is waited for with select.
_COARSE_WAIT_NS = 2_000_000
# A sleeping process is woken some 0.1 ms late, which is much beside an answer in 1 ms. So the loop stays
# awake for this long before an operation is due, where that costs at most a tenth of a core.
_AWAKE_NS = 200_000
_AWAKE_SHARE = 0.1
_IN, _OUT = select.EPOLLIN, select.EPOLLIN | select.EPOLLOUT


class _Connection:
    __slots__ = (
        "bytes_out", "first_ns", "index", "intended_ns", "is_connected", "is_kept", "keep", "pending",
        "queue", "reader", "reads", "recv", "request", "sent_ns", "serial", "sock",
    )  # fmt: skip

    def __init__(self, sock: AnySocket) -> None:
        self.sock = sock
        self.recv = sock.recv
        self.reader: ResponseReader | None = None  # None while idle
        self.reads: list[int] = []  # of a stream: instant, bytes so far, instant, ...
        self.serial = 0
        self.is_connected = False
        self.is_kept = False  # it was idle before this operation
        self.request: Request = b""
        self.keep = True
        self.pending = memoryview(b"")
        self.queue: list[memoryview] = []  # what is to be sent after `pending`
        self.bytes_out = 0
        self.index = self.intended_ns = self.sent_ns = self.first_ns = 0


class WireLoop:
    """Runs one Assignment against `address`; `request(index)` gives the bytes to send.

    With `is_stream` the answers recorded are whole responses as they came, cut ones too, and so are their
    reads. With `wants_head` complete answers are recorded and learned from as they came, head and body, and
    not their bodies alone. Answers that `keeps(index)` does not want are counted and forgotten;
    `refusal(status, body)` words those of bad status. `learn(index, body)` is told every answer that another
    operation of its chain builds on, at once: the only reading that is done during the load. What it returns
    False for ends its chain.
    """

    def __init__(
        self,
        address: tuple[str, int],
        request: Callable[[int], Request],
        recorder: Recorder,
        assignment: Assignment,
        *,
        is_stream: bool = False,
        wants_head: bool = False,
        learn: Callable[[int, bytes], bool] | None = None,
        keeps: Callable[[int], bool] | None = None,
        refusal: Callable[[int, bytes], str] | None = None,
        tls: ssl.SSLContext | None = None,
        max_connections: int = MAX_CONNECTIONS,
        now_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._host = address[0]
        self._tls = tls
        self._family, self._address = resolve(address)
        self._request = request
        self._recorder = recorder
        self._part = assignment
        self._is_stream = is_stream
        self._wants_head = wants_head
        self._receive_bytes = _STREAM_RECEIVE_BYTES if is_stream else _RECEIVE_BYTES
        self._learn = learn
        self._keeps = keeps
        self._refusal = refusal
        self._scratch = bytearray(_RECEIVE_BYTES)  # for what is not kept
        self._now_ns = now_ns
        self._max_connections = max(min(max_connections, descriptors_left()), assignment.clients)
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._idle: list[_Connection] = []
        self._deadlines: deque[tuple[int, _Connection, int]] = deque()
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

    def use(self, sockets: Iterable[AnySocket]) -> None:
        """Take over connections that were opened ahead of the start."""
        for sock in sockets:
            connection = self._adopt(sock)
            connection.is_connected = True
            self._epoll.register(sock.fileno(), _IN)
            self._idle.append(connection)

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
            self._close()

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
            if self._is_full():
                self.limited_by = f"all {self._max_connections} connections were busy"
                break
            if self._in_flight >= part.max_in_flight:
                self.overloaded = True
                break
            self._issue(part.index(self._issued), due_ns)
            self._issued += 1
            now_ns = self._now_ns()

    def _is_full(self) -> bool:
        return not self._idle and len(self._connections) >= self._max_connections

    def _issue(self, index: int, intended_ns: int) -> None:
        request = self._request(index)
        connection = self._idle.pop() if self._idle else None
        sent_ns = self._now_ns()
        if connection is None:
            connection = self._adopt(socket.socket(self._family, socket.SOCK_STREAM))
        else:
            connection.is_kept = True
        self._begin(connection, request, index, intended_ns, sent_ns)

    def _begin(
        self, connection: _Connection, request: Request, index: int, intended_ns: int, sent_ns: int
    ) -> None:
        data, *rest = request if isinstance(request, tuple) else (request,)
        connection.request = request
        connection.index, connection.intended_ns, connection.sent_ns = index, intended_ns, sent_ns
        connection.first_ns = NOT_SEEN
        connection.keep = self._keeps is None or self._keeps(index)
        is_head = bytes(data[:5]) == b"HEAD "
        connection.reader = ResponseReader(
            head_request=is_head, by_tail=self._is_stream, keep=connection.keep
        )
        connection.reads = []
        connection.serial += 1
        connection.queue = [memoryview(part) for part in rest]
        connection.bytes_out = len(data) + sum(map(len, connection.queue))
        self._in_flight += 1
        self._deadlines.append((sent_ns + self._part.timeout_ns, connection, connection.serial))
        if connection.is_connected:
            self._send(connection, data)
        else:
            connection.pending = memoryview(data)
            self._connect(connection)

    def _adopt(self, sock: AnySocket) -> _Connection:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(sock)
        self._connections[sock.fileno()] = connection
        return connection

    def _connect(self, connection: _Connection) -> None:
        assert isinstance(connection.sock, socket.socket)
        code = connection.sock.connect_ex(self._address)
        if code in (0, errno.EINPROGRESS):
            self._epoll.register(connection.sock.fileno(), _OUT)
        else:
            self._fail(connection, OutcomeKind.CONNECT, _text(OSError(code, "")))

    def _send(self, connection: _Connection, data: bytes | memoryview) -> None:
        was_waiting = bool(connection.pending)
        while True:
            try:
                count = connection.sock.send(data)
            except BlockingIOError:
                count = 0
            except OSError as error:
                self._fail(connection, OutcomeKind.BROKEN, _text(error))
                return
            connection.pending = memoryview(data)[count:]
            if connection.pending or not connection.queue:
                break
            data = connection.queue.pop(0)
        if was_waiting != bool(connection.pending):
            self._epoll.modify(connection.sock.fileno(), _OUT if connection.pending else _IN)

    def _wait(self, now_ns: int) -> None:
        wait_ns = self._next_wake(now_ns) - now_ns
        if wait_ns >= _COARSE_WAIT_NS:
            # Rounded up to milliseconds: one less is surely not too long.
            events = self._epoll.poll((wait_ns - 1_000_000) / 1e9)
        else:
            if wait_ns > 0:
                select.select([self._epoll], [], [], wait_ns / 1e9)
                now_ns = self._now_ns()
            events = self._epoll.poll(0)
        began_ns = self._now_ns()
        if not events:
            if self._awake_ns and wait_ns < _COARSE_WAIT_NS:
                self.idle_ns += began_ns - now_ns
            return
        connections = self._connections
        for fd, event in events:
            connection = connections.get(fd)
            if connection is None:
                continue
            if event == _IN and connection.is_connected:
                self._receive(connection)
            else:
                self._handle(connection, event)
        delay_ns = self._now_ns() - began_ns
        if delay_ns > self.loop_delay_max_ns:
            self.loop_delay_max_ns = delay_ns

    def _next_wake(self, now_ns: int) -> int:
        part = self._part
        wake_ns = now_ns + _MAX_WAIT_NS
        if part.due_ns is not None and self._issued < part.count and not self._is_full():
            wake_ns = min(wake_ns, int(part.due_ns[self._issued]) - self._awake_ns)
        elif self._free_clients and now_ns < part.end_ns:
            wake_ns = min(wake_ns, self._free_clients[0][0])
        if self._deadlines:
            wake_ns = min(wake_ns, self._deadlines[0][0])
        return wake_ns

    def _handle(self, connection: _Connection, event: int) -> None:
        if not connection.is_connected:
            self._complete_connect(connection, event)
            return
        # An answer may come before the whole request was sent, with a reset behind it: read that first.
        if event & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            self._receive(connection)
        elif connection.pending:
            self._send(connection, connection.pending)

    def _complete_connect(self, connection: _Connection, event: int) -> None:
        sock = connection.sock
        if isinstance(sock, socket.socket):
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code or event & (select.EPOLLHUP | select.EPOLLERR):
                self._fail(connection, OutcomeKind.CONNECT, _text(OSError(code or errno.ECONNREFUSED, "")))
                return
        if self._tls is None or self._has_secured(connection, self._tls):
            connection.is_connected = True
            self._send(connection, connection.pending)

    def _has_secured(self, connection: _Connection, tls: ssl.SSLContext) -> bool:
        """One step of the handshake; whether it was the last."""
        sock = connection.sock
        try:
            if isinstance(sock, socket.socket):
                connection.sock = sock = TlsSocket(sock, tls, self._host)
                connection.recv = sock.recv
            is_done = sock.do_handshake()
        except OSError as error:
            self._fail(connection, OutcomeKind.CONNECT, _text(error))
            return False
        self._epoll.modify(sock.fileno(), _OUT if is_done or sock.wants_write else _IN)
        return is_done

    def _receive(self, connection: _Connection) -> None:
        if connection.reader is not None and connection.reader.is_skipping:
            self._receive_to_skip(connection, connection.reader)
            return
        try:
            data = connection.recv(self._receive_bytes)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(connection, OutcomeKind.BROKEN, _text(error))
            return
        now_ns = self._now_ns()
        reader = connection.reader
        if reader is None:  # the peer closed, or spoke out of turn, on an idle connection
            self._drop(connection)
            return
        if connection.first_ns == NOT_SEEN and data:
            connection.first_ns = now_ns
        try:
            complete = reader.feed(data) if data else reader.feed_eof()
        except ProtocolError as error:
            self._fail(connection, OutcomeKind.PROTOCOL, str(error))
            return
        if self._is_stream:
            connection.reads += (now_ns, reader.received)
        if complete:
            self._finish(connection, reader, now_ns)
        elif not data:
            self._fail(connection, OutcomeKind.BROKEN, "connection closed before the end of the answer")

    def _receive_to_skip(self, connection: _Connection, reader: ResponseReader) -> None:
        """Large bodies that nobody reads again need no memory of their own."""
        sock = connection.sock
        try:
            count = (
                sock.recv_into(self._scratch)
                if isinstance(sock, socket.socket)
                else len(sock.recv(_RECEIVE_BYTES))
            )
            now_ns = self._now_ns()
            complete = reader.skip(count)
        except BlockingIOError:
            return
        except ProtocolError as error:
            self._fail(connection, OutcomeKind.PROTOCOL, str(error))
            return
        except OSError as error:
            self._fail(connection, OutcomeKind.BROKEN, _text(error))
            return
        if complete:
            self._finish(connection, reader, now_ns)
        elif not count:
            self._fail(connection, OutcomeKind.BROKEN, "connection closed before the end of the answer")

    def _finish(self, connection: _Connection, reader: ResponseReader, now_ns: int) -> None:
        kind = kind_of_status(reader.status)
        if kind is not OutcomeKind.OK:
            self._recorder.errors.add(self._words_of(reader))
        self._record(connection, kind, now_ns, reader.status)
        free_ns, index = self._next_of(connection, now_ns, goes_on=kind is OutcomeKind.OK)
        if index >= 0 and self._learn is not None and not self._learn(connection.index, self._wanted(reader)):
            free_ns, index = now_ns, -1
        if reader.keep_alive and not connection.pending:
            connection.reader = None
            self._idle.append(connection)
        else:
            self._drop(connection)
        self._operation_ended(free_ns, index)

    def _words_of(self, reader: ResponseReader) -> str:
        """An answer of bad status in one line: what a service says when it refuses is worth reading."""
        if self._refusal is not None:
            return self._refusal(reader.status, reader.body)
        retry = f" (Retry-After: {reader.retry_after})" if reader.retry_after else ""
        return f"HTTP {reader.status}{retry} {reader.body[:120].decode(errors='replace')}"

    def _fail(self, connection: _Connection, kind: OutcomeKind, text: str) -> None:
        if kind is OutcomeKind.BROKEN and self._is_stale(connection):
            self._send_anew(connection)
            return
        now_ns = self._now_ns()
        is_busy = connection.reader is not None
        if is_busy:
            self._recorder.errors.add(text)
            self._record(connection, kind, now_ns, 0)
        self._drop(connection)
        if is_busy:
            pause_ns = REFUSED_PAUSE_NS if kind is OutcomeKind.CONNECT else 0
            self._operation_ended(now_ns + pause_ns, -1)

    def _is_stale(self, connection: _Connection) -> bool:
        """Services close connections that were idle for some seconds, perhaps just when one is used again.

        One that ends without a byte of the answer was closed before the request was read.
        """
        reader = connection.reader
        return reader is not None and connection.is_kept and not reader.received

    def _send_anew(self, connection: _Connection) -> None:
        """On a new connection, and only once. The time that it took is the operation's."""
        request, index = connection.request, connection.index
        intended_ns, sent_ns = connection.intended_ns, connection.sent_ns
        self._drop(connection)
        self._in_flight -= 1
        self.sent_anew += 1
        new = self._adopt(socket.socket(self._family, socket.SOCK_STREAM))
        self._begin(new, request, index, intended_ns, sent_ns)

    def _next_of(self, connection: _Connection, now_ns: int, *, goes_on: bool) -> tuple[int, int]:
        """When the client of this operation is free, and for which one of its chain."""
        index = connection.index + 1
        if goes_on and index % self._part.chain:
            return now_ns + self._part.think_ns, index
        return now_ns, -1

    def _operation_ended(self, free_ns: int, next_index: int) -> None:
        self._in_flight -= 1
        if self._part.due_ns is None:
            heapq.heappush(self._free_clients, (free_ns, next_index))

    def _record(self, connection: _Connection, kind: OutcomeKind, finished_ns: int, status: int) -> None:
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
        unsent = len(connection.pending) + sum(map(len, connection.queue))
        self._recorder.add_answer(answer)
        self._recorder.add(
            pack_row(
                connection.index, connection.intended_ns, connection.sent_ns, connection.first_ns,
                finished_ns, kind, status, int(kind is OutcomeKind.OK),
                connection.bytes_out - unsent, bytes_in, UNCHECKED, UNCHECKED,
                len(answer) if connection.keep else DROPPED, reads,
            )
        )  # fmt: skip

    def _wanted(self, reader: ResponseReader) -> bytes:
        return reader.raw if self._wants_head else reader.body

    def _drop(self, connection: _Connection) -> None:
        if connection.reader is None and connection in self._idle:
            self._idle.remove(connection)
        connection.reader = None
        self._connections.pop(connection.sock.fileno(), None)
        connection.sock.close()  # also leaves the epoll set

    def _expire(self, now_ns: int) -> None:
        deadlines = self._deadlines
        while deadlines:
            deadline_ns, connection, serial = deadlines[0]
            if connection.serial == serial and connection.reader is not None:
                if deadline_ns > now_ns:
                    return
                self._fail(
                    connection, OutcomeKind.TIMEOUT, f"no answer within {self._part.timeout_ns / 1e9:g} s"
                )
            deadlines.popleft()

    def _record_rest(self) -> None:
        """Operations under way, and open-loop operations due but never sent, are UNFINISHED."""
        for connection in self._connections.values():
            if connection.reader is not None:
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

    def _close(self) -> None:
        for connection in self._connections.values():
            connection.sock.close()
        self._epoll.close()


def kind_of_status(status: int) -> OutcomeKind:
    """How HTTP status codes count; redirects are never followed, so they are a protocol error here."""
    if 200 <= status < 300:
        return OutcomeKind.OK
    if status in (429, 503):
        return OutcomeKind.THROTTLED
    if 400 <= status < 500:
        return OutcomeKind.CLIENT_ERROR
    return OutcomeKind.SERVER_ERROR if status >= 500 else OutcomeKind.PROTOCOL


def _awake_ns(part: Assignment) -> int:
    """How long before each due time to stop sleeping; 0 where operations are too frequent for that."""
    if part.due_ns is None or len(part.due_ns) < 2:
        return 0
    mean_gap_ns = int(part.due_ns[-1] - part.due_ns[0]) / (len(part.due_ns) - 1)
    return _AWAKE_NS if mean_gap_ns * _AWAKE_SHARE >= _AWAKE_NS else 0


def _text(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "") or str(error)
