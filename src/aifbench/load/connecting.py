"""Connections for the wire loop: how many there may be, and those that are opened ahead of a start."""

import resource
import socket
import ssl

from aifbench.errors import WorkloadError
from aifbench.load.tls import TlsSocket

MAX_CONNECTIONS = 1024
_OTHER_FILES = 64
_PREPARE_TIMEOUT_S = 10.0

AnySocket = socket.socket | TlsSocket


def open_sockets(address: tuple[str, int], count: int, tls: ssl.SSLContext | None = None) -> list[AnySocket]:
    """Connections for a loop to use. Raises WorkloadError when the service refuses."""
    sockets: list[AnySocket] = []
    try:
        for _ in range(min(count, MAX_CONNECTIONS, descriptors_left())):
            sock = socket.create_connection(address, timeout=_PREPARE_TIMEOUT_S)
            sockets.append(sock)
            if tls is not None:
                sockets[-1] = secured = TlsSocket(sock, tls, address[0])
                secured.do_handshake()
    except OSError as error:
        for opened in sockets:
            opened.close()
        raise WorkloadError(f"cannot connect to {address[0]}:{address[1]}") from error
    return sockets


def descriptors_left() -> int:
    """How many connections the process's limit of open files has room for, roughly."""
    return max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OTHER_FILES)


def resolve(address: tuple[str, int]) -> tuple[socket.AddressFamily, tuple[str, int]]:
    try:
        family, _, _, _, resolved = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise WorkloadError(f"cannot resolve {address[0]!r}") from error
    return family, (str(resolved[0]), int(resolved[1]))
