"""TLS on a nonblocking socket, with the calls and the manners of a plain one."""

import socket
import ssl
from pathlib import Path

from aifbench.errors import ConfigError


def client_context(scheme: str, ca_file: Path | None = None) -> ssl.SSLContext | None:
    """What verifies servers reached by `scheme`: against `ca_file` alone where one is given, else against
    the certificates of the system. None for http. Raises ConfigError for a file without certificates.
    """
    if scheme != "https":
        return None
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise ConfigError(f"{ca_file} holds no certificates", hint="--ca-file wants a PEM file") from None
    except OSError as error:
        raise ConfigError(f"cannot read --ca-file {ca_file}: {error.strerror}") from error
    context.set_alpn_protocols(["http/1.1"])
    return context


class TlsSocket:
    """Takes over `sock`, which is connected; its descriptor stays the same, so epoll goes on watching it.

    Blocks no more than `sock` does: BlockingIOError means that nothing can be done until the descriptor is
    readable, or, while `wants_write`, writable. Every other failure is a ConnectionError in words (the
    numbers of TLS errors are no errno).
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._host = host
        self.wants_write = False
        self._sock = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def setblocking(self, flag: bool) -> None:
        self._sock.setblocking(flag)

    def setsockopt(self, level: int, name: int, value: int) -> None:
        self._sock.setsockopt(level, name, value)

    def do_handshake(self) -> bool:
        """One step; whether it is complete. To be called again when the descriptor is ready."""
        try:
            self._sock.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as wait:
            self.wants_write = isinstance(wait, ssl.SSLWantWriteError)
            return False
        except OSError as error:
            raise ConnectionError(tls_text(error, self._host)) from error
        self.wants_write = False
        return True

    def send(self, data: bytes | memoryview) -> int:
        """How much was taken. What was refused must be offered again as it was."""
        try:
            count = self._sock.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as wait:
            self.wants_write = isinstance(wait, ssl.SSLWantWriteError)
            raise BlockingIOError from None
        except ssl.SSLError as error:
            raise ConnectionError(tls_text(error, self._host)) from error
        self.wants_write = False
        return count

    def recv(self, size: int) -> bytes:
        """At most one TLS record (16 KiB); empty at the end. With a smaller `size`, see `pending`."""
        try:
            data = self._sock.recv(size)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as wait:
            self.wants_write = isinstance(wait, ssl.SSLWantWriteError)
            raise BlockingIOError from None
        except ssl.SSLError as error:
            raise ConnectionError(tls_text(error, self._host)) from error
        self.wants_write = False
        return data

    def pending(self) -> int:
        """Bytes that are here decrypted, and that no epoll will tell of: read on while there are some.

        Whole records that were not begun are left in the kernel, where a level-triggered epoll sees them.
        """
        return self._sock.pending()


def tls_text(error: BaseException, host: str) -> str:
    """Why a TLS connection to `host` failed, in one line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message or "it does not verify"
        return f"the certificate of {host} is not trusted: {why} (--ca-file FILE names the CA to trust)"
    if isinstance(error, ssl.SSLEOFError):
        return f"{host} closed the connection during TLS"
    if isinstance(error, ssl.SSLError):
        if error.reason == "WRONG_VERSION_NUMBER":
            return f"{host} does not speak TLS here: http instead of https?"
        return f"TLS with {host} failed: {(error.reason or str(error)).lower().replace('_', ' ')}"
    return f"TLS with {host} failed: {getattr(error, 'strerror', None) or error}"
