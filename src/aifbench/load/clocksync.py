"""How far the clocks of two machines are apart, measured by asking the other one often.

The exchange with the shortest round trip wins; its half is the error bound (Cristian, 1989).
Machines with one kernel (processes of one node) share a clock and need no exchange.
"""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_STAMP = struct.Struct("=q")
_EXCHANGES = 20
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Offset:
    """This machine's wall clock minus the other's, and the bound of the error, in seconds."""

    offset_s: float = 0.0
    error_s: float = 0.0


def boot_id() -> str:
    """Names the running kernel; empty where the system does not tell."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


class TimeServer:
    """Answers every byte received with its wall clock, until closed. One short-lived peer each."""

    def __init__(self, wall_ns: Callable[[], int] = time.time_ns) -> None:
        self._wall_ns = wall_ns
        self._listener = socket.create_server(("", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, name="time-server", daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(peer,), daemon=True).start()

    def _answer(self, peer: socket.socket) -> None:
        peer.settimeout(_TIMEOUT_S)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with peer, contextlib.suppress(OSError):
            while peer.recv(1):
                peer.sendall(_STAMP.pack(self._wall_ns()))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def measure_offset(host: str, port: int, wall_ns: Callable[[], int] = time.time_ns) -> Offset:
    """Ask the TimeServer at `host:port`. Raises OSError when it cannot be reached."""
    best: tuple[int, int] | None = None
    with socket.create_connection((host, port), timeout=_TIMEOUT_S) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(_EXCHANGES):
            asked_ns = wall_ns()
            peer.sendall(b"?")
            answer = peer.recv(_STAMP.size, socket.MSG_WAITALL)
            got_ns = wall_ns()
            if len(answer) < _STAMP.size:
                raise ConnectionError(f"{host}:{port} closed the connection")
            theirs_ns = _STAMP.unpack(answer)[0]
            round_trip_ns = got_ns - asked_ns
            if best is None or round_trip_ns < best[0]:
                best = (round_trip_ns, (asked_ns + got_ns) // 2 - theirs_ns)
    assert best is not None
    return Offset(best[1] / 1e9, best[0] / 2e9)
