"""How the wire loop reaches a service: its addresses, the first connection to one of them, room for more."""

import resource
import socket
import ssl
from collections.abc import Sequence
from typing import Any

from aifbench.errors import WorkloadError
from aifbench.load.tls import TlsSocket

AnySocket = socket.socket | TlsSocket
Place = tuple[socket.AddressFamily, tuple[Any, ...]]  # what a socket is made for, and connects to

_OTHER_FILES = 64
_TIMEOUT_S = 10.0


def address_text(host: str, port: int) -> str:
    """`node7:8000`, `[::1]:8000`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def resolve(address: tuple[str, int]) -> list[Place]:
    """One at least, in the order of preference. Raises WorkloadError."""
    try:
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
    except OSError as error:
        raise WorkloadError(f"cannot resolve {address[0]!r}") from error
    return [(family, place) for family, _, _, _, place in found]


def open_socket(places: Sequence[Place], tls: ssl.SSLContext | None, host: str) -> tuple[AnySocket, Place]:
    """A connection to the first of the places where somebody listens, and which that was.

    Raises the OSError of the last one.
    """
    *others, last = places
    for place in others:
        try:
            return _open(place, tls, host), place
        except OSError:
            continue
    return _open(last, tls, host), last


def _open(place: Place, tls: ssl.SSLContext | None, host: str) -> AnySocket:
    family, address = place
    sock: AnySocket = socket.socket(family, socket.SOCK_STREAM)
    try:
        assert isinstance(sock, socket.socket)
        sock.settimeout(_TIMEOUT_S)
        sock.connect(address)
        if tls is not None:
            sock = secured = TlsSocket(sock, tls, host)
            secured.do_handshake()
    except BaseException:
        sock.close()
        raise
    return sock


def descriptors_left(wanted: int) -> int:
    """How many connections the process's limit of open files has room for, roughly.

    Raises WorkloadError when it is less than `wanted`.
    """
    left = max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OTHER_FILES)
    if wanted > left:
        raise WorkloadError(
            f"{wanted:,} clients of one load worker need a connection each, and a process may have {left:,}",
            hint="spread them over more --workers, or raise `ulimit -n`",
        )
    return left
