"""A server whose timing is known exactly, to measure load clients against: one process, one thread, epoll.

It speaks HTTP/1.1 and vLLM's dialect of OpenAI's interface, and makes no answer but plays scripts (see
`reference_answers`): each event at its own absolute deadline, one `send` per event. Between deadlines it
sleeps when there is time, and polls when the next is near, so it keeps a core busy at high rates.

    python -m aifbench.workloads.reference_server --ttft 0.05 --itl 0.005 --port 0

prints `PORT: <port>` when it listens, and ends on SIGTERM, on SIGINT, or when its parent process has ended;
its last line is what it really did (`reference_truth`), as JSON.
"""

import ctypes
import gc
import hmac
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from heapq import heappop, heappush
from operator import length_hint

from aifbench.workloads import reference_answers as answers
from aifbench.workloads.reference_answers import Author, End, Script
from aifbench.workloads.reference_plan import Fault, ReferencePlan, parse
from aifbench.workloads.reference_requests import (
    HttpRequest,
    Kind,
    Limits,
    Refusal,
    Request,
    count_tokens,
    read_request,
    split_request,
)
from aifbench.workloads.reference_truth import CELL_BITS, Ledger

# Nearer deadlines are waited for awake. Short, because who is always awake is taken off its core: by the
# scheduler for the sake of others, and 50 ms of each second when it runs in real time.
_AWAKE_NS = 20_000
# Events between two looks at the sockets: at about 6 µs each, a request is read 0.05 ms late at most, or 0.1
# when another one is being answered. What is read late is not in the truth, but in what every client sees.
_EVENTS_A_TURN = 8
_PARENT_CHECK_NS = 500_000_000
_PR_SET_TIMERSLACK = 29
_BACKLOG = 4096
_READ_BYTES = 1 << 16  # more than 128 KiB would be mapped and unmapped for every read

_GENERATIONS = {
    b"/v1/chat/completions": Kind.CHAT,
    b"/v1/completions": Kind.COMPLETION,
    b"/v1/embeddings": Kind.EMBEDDING,
}
_METHODS = {
    **dict.fromkeys((*_GENERATIONS, b"/tokenize"), b"POST"),
    **dict.fromkeys((b"/health", b"/version", b"/v1/models", b"/metrics"), b"GET"),
}
_now_ns = time.perf_counter_ns


class _Connection:
    """A client: bytes that came and are not used yet, bytes that could not be sent yet, and its answer."""

    __slots__ = ("closing", "fd", "player", "received", "received_ns", "sock", "unsent")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.received = b""
        self.received_ns = 0  # when the last of it came
        self.unsent = bytearray()
        self.player: _Player | None = None
        self.closing = False  # once all is sent

    def hold(self, data: bytes) -> int:
        """Takes the place of `send` while the client's window is full."""
        self.unsent += data
        return len(data)


class _Player:
    """A script being played: `event` is sent at `due_ns`, then the next pair is taken."""

    __slots__ = ("connection", "due_ns", "event", "kind", "last_ns", "left", "next", "over",
                 "prompt_tokens", "received_ns", "script", "send")  # fmt: skip

    def __init__(
        self, connection: _Connection, script: Script, received_ns: int, prompt_tokens: int, kind: str
    ) -> None:
        self.connection = connection
        self.script = script
        self.received_ns = received_ns
        self.prompt_tokens = prompt_tokens
        self.kind = kind
        self.send: Callable[[bytes], int] = connection.sock.send
        self.last_ns = 0
        self.left: Iterator[bytes] = iter(script.events)
        self.over = False  # counted, and its slot given on or held for good

    def begin(self, start_ns: int) -> None:
        deadlines_ns = [start_ns + offset_ns for offset_ns in self.script.offsets_ns]
        self.next: Callable[[], tuple[int, bytes]] = zip(deadlines_ns, self.left, strict=False).__next__
        self.due_ns, self.event = self.next()

    def tokens_sent(self) -> int:
        """Of an unfinished script: what is left to take, and the event taken, are not sent."""
        left = length_hint(self.left)
        return self.script.tokens_after(max(0, len(self.script.events) - left - 1))


class ReferenceLoop:
    """Everything of one server. `listener` listens; `wake_fd` becomes readable when it shall end."""

    def __init__(self, plan: ReferencePlan, key: bytes, listener: socket.socket, wake_fd: int) -> None:
        self._plan = plan
        self._authorization = b"Bearer " + key if key else b""
        self._limits = Limits(plan.model, plan.max_model_len, plan.output_tokens)
        created_s = int(time.time())
        self._author = Author(plan, created_s)
        _rehearse(Author(plan, created_s), self._limits)
        self._listener = listener
        self._wake_fd = wake_fd
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._number = 0
        self._running: set[_Player] = set()
        self._waiting: deque[_Player] = deque()
        self._due: list[tuple[int, int, _Player]] = []
        self._late: deque[_Player] = deque()
        self._inbox: deque[_Connection] = deque()
        self._pushed = 0
        self.ledger = Ledger()

    def run(self) -> None:
        parent = os.getppid()
        parent_check_ns = _now_ns()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        while True:
            self._sleep()
            for fd, mask in self._epoll.poll(0):
                if fd == self._wake_fd:
                    self._give_up()
                    return
                self._handle(fd, mask)
            if self._inbox:  # one only, so that a burst of requests delays no event
                self._take_requests(self._inbox.popleft())
            self._play()
            if _now_ns() > parent_check_ns:
                if os.getppid() != parent:
                    self._give_up()
                    return
                parent_check_ns = _now_ns() + _PARENT_CHECK_NS

    def _give_up(self) -> None:
        for player in (*self._running, *self._waiting):
            if not player.over:
                self._count(player, "unfinished", self._tokens_sent(player))

    def _sleep(self) -> None:
        """Until shortly before the next deadline or until a socket is ready; not at all when one is near.

        `select` on the epoll descriptor, because epoll itself counts its timeout in whole milliseconds.
        """
        if self._late or self._inbox:
            return
        ahead_ns = self._due[0][0] - _now_ns() if self._due else _PARENT_CHECK_NS
        if ahead_ns > _AWAKE_NS:
            select.select([self._epoll], [], [], min(ahead_ns - _AWAKE_NS, _PARENT_CHECK_NS) / 1e9)

    def _play(self) -> None:
        """Send what is due, some events at most.

        Who is behind its time takes turns with the others that are, after those who have just become due:
        so answers without delays advance together, as in a batch.
        """
        due, late, ledger = self._due, self._late, self.ledger
        gap, lateness = ledger.gap, ledger.late
        for _ in range(_EVENTS_A_TURN):
            now_ns = _now_ns()
            if due and due[0][0] <= now_ns:
                player = heappop(due)[2]
            elif late:
                player = late.popleft()
            else:
                return
            event = player.event % now_ns if player.script.stamped else player.event
            try:
                sent = player.send(event)
            except BlockingIOError:
                sent = 0
            except OSError:
                if not player.over:
                    self._drop(player.connection)
                continue
            if sent != len(event):
                self._hold(player.connection, event[sent:])
            lateness[(now_ns - player.due_ns) >> CELL_BITS] += 1
            if player.last_ns:
                gap[(now_ns - player.last_ns) >> CELL_BITS] += 1
            elif player.script.streamed:
                ledger.first_sent(now_ns - player.received_ns)
            player.last_ns = now_ns
            try:
                player.due_ns, player.event = player.next()
            except StopIteration:
                self._finish(player)
                continue
            if player.due_ns > now_ns:
                self._pushed += 1
                heappush(due, (player.due_ns, self._pushed, player))
            else:
                late.append(player)

    def _finish(self, player: _Player) -> None:
        """After the last event: the slot is free from when that was due, so that capacity is exact."""
        connection, script = player.connection, player.script
        self._count(player, player.kind, script.tokens)
        if script.end is End.HANG:
            return
        connection.player = None
        connection.closing = connection.closing or script.end is End.CLOSE
        self._free(player, player.due_ns)
        self._take_requests(connection)

    def _count(self, player: _Player, kind: str, tokens: int) -> None:
        player.over = True
        self.ledger.kinds[kind] += 1
        self.ledger.tokens += tokens

    def _free(self, player: _Player, free_ns: int) -> None:
        self._running.discard(player)
        while self._waiting and not self._is_full():
            following = self._waiting.popleft()
            if not following.over:
                self._start(following, max(free_ns, following.received_ns))

    def _is_full(self) -> bool:
        return self._plan.slots is not None and len(self._running) >= self._plan.slots

    def _start(self, player: _Player, start_ns: int) -> None:
        self._running.add(player)
        self.ledger.began(player.prompt_tokens, start_ns - player.received_ns)
        player.begin(start_ns)
        self._pushed += 1
        heappush(self._due, (player.due_ns, self._pushed, player))

    def _handle(self, fd: int, mask: int) -> None:
        if fd == self._listener.fileno():
            self._accept()
            return
        connection = self._connections.get(fd)
        if connection is None:  # dropped since the poll
            return
        if mask & select.EPOLLOUT:
            self._send_unsent(connection)
        if mask != select.EPOLLOUT and fd in self._connections:
            self._receive(connection)

    def _accept(self) -> None:
        with suppress(BlockingIOError, ConnectionAbortedError):
            while True:
                sock, _ = self._listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._connections[sock.fileno()] = _Connection(sock)
                self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        connection.received_ns = _now_ns()
        if not data:
            self._drop(connection)
            return
        connection.received += data
        if connection.player is None:
            self._inbox.append(connection)

    def _drop(self, connection: _Connection) -> None:
        """The connection has ended, or shall."""
        del self._connections[connection.fd]
        connection.sock.close()
        player = connection.player
        if player is None:
            return
        connection.player = None
        player.send = connection.sock.send  # which fails now, so that a played event ends the playing
        if not player.over:
            self._count(player, "aborted", self._tokens_sent(player))
        self._free(player, _now_ns())

    def _tokens_sent(self, player: _Player) -> int:
        return player.tokens_sent() if player in self._running else 0

    def _take_requests(self, connection: _Connection) -> None:
        """Answer what has come, one request after the other; the rest waits for the answer's end."""
        if self._connections.get(connection.fd) is not connection:
            return
        while connection.player is None and not connection.closing and connection.received:
            try:
                split = split_request(connection.received)
            except Refusal as refused:
                connection.closing = True
                self._send(connection, answers.refusal(refused))
                break
            if split is None:
                return
            request, connection.received = split
            connection.closing = request.close
            if (answer := self._answer(connection, request)) is not None:
                self._send(connection, answer)
        if connection.closing and not connection.player and not connection.unsent:
            self._drop(connection)

    def _send(self, connection: _Connection, data: bytes) -> None:
        if connection.unsent:
            connection.hold(data)
            return
        try:
            sent = connection.sock.send(data)
        except OSError:  # whatever it is, reading tells
            sent = 0
        if sent != len(data):
            self._hold(connection, data[sent:])

    def _hold(self, connection: _Connection, data: bytes) -> None:
        """Keep what the socket does not take, and all that follows, until it can."""
        self.ledger.blocked += 1
        connection.hold(data)
        if connection.player is not None:
            connection.player.send = connection.hold
        self._epoll.modify(connection.fd, select.EPOLLIN | select.EPOLLOUT)

    def _send_unsent(self, connection: _Connection) -> None:
        try:
            sent = connection.sock.send(connection.unsent)
        except BlockingIOError:
            return
        except OSError:
            self._drop(connection)
            return
        del connection.unsent[:sent]
        if connection.unsent:
            return
        self._epoll.modify(connection.fd, select.EPOLLIN)
        if connection.player is not None:
            connection.player.send = connection.sock.send
        elif connection.closing:
            self._drop(connection)

    def _answer(self, connection: _Connection, request: HttpRequest) -> bytes | None:
        """An answer to send now, or None when a player has been made for it."""
        guarded = self._authorization and request.path.startswith(b"/v1")
        if guarded and not hmac.compare_digest(request.authorization, self._authorization):
            return answers.json_answer({"error": "Unauthorized"}, 401)
        method = _METHODS.get(request.path)
        if method is None:
            return answers.json_answer({"detail": "Not Found"}, 404)
        if method != request.method:
            return answers.json_answer({"detail": "Method Not Allowed"}, 405, f"allow: {method.decode()}\r\n")
        try:
            if request.path in _GENERATIONS:
                asked = read_request(_GENERATIONS[request.path], request.body, self._limits)
                return self._generate(connection, asked)
            return self._describe(request)
        except Refusal as refused:
            if request.path in _GENERATIONS:
                self.ledger.kinds["refused"] += 1
            return answers.refusal(refused)

    def _generate(self, connection: _Connection, asked: Request) -> bytes | None:
        received_ns = connection.received_ns
        self._number += 1
        fault = self._plan.fault_of(self._number)
        kind = fault.value if fault else "whole"
        if fault in (Fault.THROTTLE, Fault.ERROR):
            self.ledger.kinds[kind] += 1
            return answers.throttled() if fault is Fault.THROTTLE else answers.failed()
        script = self._author.script(asked, self._number, fault, received_ns)
        player = connection.player = _Player(connection, script, received_ns, asked.prompt_tokens, kind)
        if script.head:
            self._send(connection, script.head)
        if self._is_full():
            self._waiting.append(player)
        else:
            self._start(player, received_ns)
        return None

    def _describe(self, request: HttpRequest) -> bytes:
        if request.path == b"/health":
            return answers.whole(200, b"")
        if request.path == b"/version":
            return answers.json_answer({"version": answers.VERSION})
        if request.path == b"/v1/models":
            return answers.json_answer(self._author.models())
        if request.path == b"/tokenize":
            count = count_tokens(request.body, self._plan.model)
            return answers.json_answer(
                {
                    "count": count,
                    "max_model_len": self._plan.max_model_len,
                    "tokens": list(range(count)),
                    "token_strs": None,
                }
            )
        waiting = sum(not player.over for player in self._waiting)
        in_progress = sum(player.tokens_sent() for player in self._running if not player.over)
        text = self.ledger.metrics(self._plan.model, len(self._running), waiting, in_progress)
        return answers.whole(200, text.encode(), content_type="text/plain; version=1.0.0; charset=utf-8")


def _rehearse(author: Author, limits: Limits) -> None:
    """The first script takes 0.7 ms, later ones 0.04: no client shall meet the first."""
    body = {"model": limits.model, "stream": True, "max_tokens": limits.default_output_tokens}
    for kind, prompt in (
        (Kind.CHAT, {"messages": [{"role": "user", "content": "a"}]}),
        (Kind.COMPLETION, {"prompt": "a"}),
    ):
        for usage in (True, False):
            options = {"stream_options": {"include_usage": usage}}
            asked = read_request(kind, json.dumps({**body, **prompt, **options}).encode(), limits)
            author.script(asked, 0, None, 0)


def _be_precise(cpu: int | None, *, realtime: bool) -> None:
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    with suppress(OSError, AttributeError):  # by default Linux makes each wake-up up to 50 µs late
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    if realtime:
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))  # a connection each


def main(argv: list[str]) -> int:
    plan, options = parse(argv)
    key = plan.key_file.read_bytes().strip() if plan.key_file else b""
    _be_precise(options.cpu, realtime=options.realtime)
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    signal.set_wakeup_fd(writing.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # the wake-up is what ends the loop
    listener = socket.create_server(("127.0.0.1", options.port), backlog=_BACKLOG)
    listener.setblocking(False)
    loop = ReferenceLoop(plan, key, listener, reading.fileno())
    gc.freeze()
    gc.disable()
    sys.stdout.write(f"PORT: {listener.getsockname()[1]}\n")
    sys.stdout.flush()
    loop.run()
    with suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), loop.ledger.truth().to_line())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
