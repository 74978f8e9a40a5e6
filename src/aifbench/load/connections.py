"""The connections of the wire loop: kept alive, watched by epoll, each with one exchange at a time.

Each read is stamped before its bytes are looked at, and only the end of the answer is searched for.
"""

import errno
import select
import socket
import ssl
import time
from collections.abc import Callable

from aifbench.errors import WorkloadError
from aifbench.load.connecting import AnySocket, address_text, descriptors_left, open_socket, resolve
from aifbench.load.http import ProtocolError, ResponseReader
from aifbench.load.tls import TlsSocket
from aifbench.load.workload import NOT_SEEN, OutcomeKind, Request

_MAX_CONNECTIONS = 1024
_RECEIVE_BYTES = 262_144
# Python makes an object of this size for every read. Pieces of a stream are small, and many.
_STREAM_RECEIVE_BYTES = 16_384
# epoll counts in milliseconds. Longer waits begin with one of its own; the rest is waited for with select.
_COARSE_WAIT_NS = 2_000_000
_IN, _OUT = select.EPOLLIN, select.EPOLLIN | select.EPOLLOUT
_CUT = "connection closed before the end of the answer"


class Connection:
    """One of them, with the operation that it carries while `reader` is there."""

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

    @property
    def unsent_bytes(self) -> int:
        return len(self.pending) + sum(map(len, self.queue))


class Connections:
    """Connections to `address`, by TLS where there is a context for it.

    There may be `most`, and one for each of `clients` in any case. Made before any socket is: its own
    descriptor has to be one of those below 1024 that select knows. `tell` says who hears what became of
    requests. Raises WorkloadError for a name that does not resolve, or more clients than open files.
    """

    def __init__(
        self,
        address: tuple[str, int],
        tls: ssl.SSLContext | None = None,
        *,
        clients: int = 0,
        most: int = _MAX_CONNECTIONS,
        now_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._address = address
        self._places = resolve(address)
        self.most = max(clients, min(most, descriptors_left(clients)))
        self._epoll = select.epoll()
        _make_reads_cheap()
        self._tls = tls
        self._now_ns = now_ns
        self._all: dict[int, Connection] = {}
        self._idle: list[Connection] = []
        self._scratch = bytearray(_RECEIVE_BYTES)  # for what is not kept
        self._answered: Callable[[Connection, ResponseReader, int], None]
        self._failed: Callable[[Connection, OutcomeKind, str], None]
        self._is_stream = False
        self._receive_bytes = _RECEIVE_BYTES

    def tell(
        self,
        answered: Callable[[Connection, ResponseReader, int], None],
        failed: Callable[[Connection, OutcomeKind, str], None],
        *,
        is_stream: bool,
    ) -> None:
        """`answered` hears of every complete answer, and when; `failed` of all else, also while idle.

        The times of all reads are kept for a stream.
        """
        self._answered, self._failed = answered, failed
        self._is_stream = is_stream
        self._receive_bytes = _STREAM_RECEIVE_BYTES if is_stream else _RECEIVE_BYTES

    def open_ahead(self, count: int) -> None:
        """So many, before the start. Raises WorkloadError when the service refuses.

        Of a name's several addresses all connections go to the first one where somebody listens.
        """
        try:
            for _ in range(min(count, self.most, _MAX_CONNECTIONS)):
                sock, place = open_socket(self._places, self._tls, self._address[0])
                self._places = [place]
                connection = self._adopt(sock)
                connection.is_connected = True
                self._epoll.register(sock.fileno(), _IN)
                self._idle.append(connection)
        except OSError as error:
            self.close()
            raise WorkloadError(f"cannot connect to {address_text(*self._address)}") from error

    @property
    def is_full(self) -> bool:
        """There may be no more, and none is idle."""
        return not self._idle and len(self._all) >= self.most

    def take(self) -> Connection:
        """An idle one, or a new one."""
        if not self._idle:
            return self.new()
        connection = self._idle.pop()
        connection.is_kept = True
        return connection

    def new(self) -> Connection:
        """One that `send` will connect."""
        return self._adopt(socket.socket(self._places[0][0], socket.SOCK_STREAM))

    def _adopt(self, sock: AnySocket) -> Connection:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(sock)
        self._all[sock.fileno()] = connection
        return connection

    def send(self, connection: Connection, request: Request, *, keep: bool) -> None:
        """Begin an exchange; the body of an answer that is not to be kept is counted only."""
        data, *rest = request if isinstance(request, tuple) else (request,)
        connection.request = request
        connection.first_ns = NOT_SEEN
        connection.keep = keep
        is_head = bytes(data[:5]) == b"HEAD "
        connection.reader = ResponseReader(head_request=is_head, by_tail=self._is_stream, keep=keep)
        connection.reads = []
        connection.queue = [memoryview(part) for part in rest]
        connection.bytes_out = len(data) + sum(map(len, connection.queue))
        if connection.is_connected:
            self._send(connection, data)
        else:
            connection.pending = memoryview(data)
            self._connect(connection)

    def _connect(self, connection: Connection) -> None:
        assert isinstance(connection.sock, socket.socket)
        code = connection.sock.connect_ex(self._places[0][1])
        if code in (0, errno.EINPROGRESS):
            self._epoll.register(connection.sock.fileno(), _OUT)
        else:
            self._failed(connection, OutcomeKind.CONNECT, _text(OSError(code, "")))

    def _send(self, connection: Connection, data: bytes | memoryview) -> None:
        was_waiting = bool(connection.pending)
        while True:
            try:
                count = connection.sock.send(data)
            except BlockingIOError:
                count = 0
            except OSError as error:
                self._failed(connection, OutcomeKind.BROKEN, _text(error))
                return
            connection.pending = memoryview(data)[count:]
            if connection.pending or not connection.queue:
                break
            data = connection.queue.pop(0)
        if was_waiting != bool(connection.pending):
            self._epoll.modify(connection.sock.fileno(), _OUT if connection.pending else _IN)

    def events(self, wait_ns: int) -> list[tuple[int, int]]:
        """What `handle` has to see to: at once if there is something, else after `wait_ns` at most."""
        if wait_ns >= _COARSE_WAIT_NS:
            # Rounded up to milliseconds: one less is surely not too long.
            return self._epoll.poll((wait_ns - 1_000_000) / 1e9)
        if wait_ns > 0:
            select.select([self._epoll], [], [], wait_ns / 1e9)
        return self._epoll.poll(0)

    def handle(self, events: list[tuple[int, int]]) -> None:
        """Go on sending, receiving and connecting."""
        connections = self._all
        for fd, event in events:
            connection = connections.get(fd)
            if connection is None:
                continue
            if event == _IN and connection.is_connected:
                self._receive(connection)
            elif not connection.is_connected:
                self._complete_connect(connection, event)
            # An answer may come before the whole request was sent, with a reset behind it: read that first.
            elif event & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                self._receive(connection)
            elif connection.pending:
                self._send(connection, connection.pending)

    def _complete_connect(self, connection: Connection, event: int) -> None:
        sock = connection.sock
        if isinstance(sock, socket.socket):
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code or event & (select.EPOLLHUP | select.EPOLLERR):
                refusal = _text(OSError(code or errno.ECONNREFUSED, ""))
                self._failed(connection, OutcomeKind.CONNECT, refusal)
                return
        if self._tls is None or self._has_secured(connection, self._tls):
            connection.is_connected = True
            self._send(connection, connection.pending)

    def _has_secured(self, connection: Connection, tls: ssl.SSLContext) -> bool:
        """One step of the handshake; whether it was the last."""
        sock = connection.sock
        try:
            if isinstance(sock, socket.socket):
                connection.sock = sock = TlsSocket(sock, tls, self._address[0])
                connection.recv = sock.recv
            is_done = sock.do_handshake()
        except OSError as error:
            self._failed(connection, OutcomeKind.CONNECT, _text(error))
            return False
        self._epoll.modify(sock.fileno(), _OUT if is_done or sock.wants_write else _IN)
        return is_done

    def _receive(self, connection: Connection) -> None:
        if connection.reader is not None and connection.reader.is_skipping:
            self._receive_to_skip(connection, connection.reader)
            return
        try:
            data = connection.recv(self._receive_bytes)
        except BlockingIOError:
            return
        except OSError as error:
            self._failed(connection, OutcomeKind.BROKEN, _text(error))
            return
        now_ns = self._now_ns()
        reader = connection.reader
        if reader is None:  # the peer closed, or spoke out of turn, on an idle connection
            self.drop(connection)
            return
        if connection.first_ns == NOT_SEEN and data:
            connection.first_ns = now_ns
        try:
            complete = reader.feed(data) if data else reader.feed_eof()
        except ProtocolError as error:
            self._failed(connection, OutcomeKind.PROTOCOL, str(error))
            return
        if self._is_stream:
            connection.reads += (now_ns, reader.received)
        if complete:
            self._answered(connection, reader, now_ns)
        elif not data:
            self._failed(connection, OutcomeKind.BROKEN, _CUT)

    def _receive_to_skip(self, connection: Connection, reader: ResponseReader) -> None:
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
            self._failed(connection, OutcomeKind.PROTOCOL, str(error))
            return
        except OSError as error:
            self._failed(connection, OutcomeKind.BROKEN, _text(error))
            return
        if complete:
            self._answered(connection, reader, now_ns)
        elif not count:
            self._failed(connection, OutcomeKind.BROKEN, _CUT)

    def release(self, connection: Connection) -> None:
        """Keep it for the next request, if its peer does and has read all of this one."""
        reader = connection.reader
        if reader is not None and reader.keep_alive and not connection.pending:
            connection.reader = None
            self._idle.append(connection)
        else:
            self.drop(connection)

    def drop(self, connection: Connection) -> None:
        """Close it."""
        if connection.reader is None and connection in self._idle:
            self._idle.remove(connection)
        connection.reader = None
        self._all.pop(connection.sock.fileno(), None)
        connection.sock.close()  # also leaves the epoll set

    def busy(self) -> list[Connection]:
        """Those that carry an operation."""
        return [connection for connection in self._all.values() if connection.reader is not None]

    def close(self) -> None:
        for connection in self._all.values():
            connection.sock.close()
        self._epoll.close()


def _make_reads_cheap() -> None:
    """glibc maps memory anew for each block as large as a read, unless it has seen a larger one freed.

    That was 40 % of the CPU time of a short answer.
    """
    bytearray(2 * _RECEIVE_BYTES)


def _text(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "") or str(error)
