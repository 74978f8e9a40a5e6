"""Where a service listens and how to authenticate. The secret itself stays in its file."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from aifbench.errors import ServiceError, UsageError

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]+(%[\w.-]+)?", re.ASCII)
# What a path may hold unquoted or quoted (RFC 3986, section 3.3): it becomes part of a request line.
_PATH = re.compile(r"(/[\w.~!$&'()*+,;=:@%-]+)*", re.ASCII)
_URL_HINT = "give an address such as http://node7:8000 or https://host/some/prefix"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address, further named ports, and the 0600 file that holds the secret, if any.

    `prefix` is the path that all of the service's own paths follow, empty or with a leading slash;
    `ca_file` holds the certificates to trust instead of the system's. The scheme `file` is of a directory
    that the service works in, which `prefix` names. Safe to print, log and store: it never carries the
    secret.
    """

    host: str
    port: int
    scheme: str = "http"
    ports: Mapping[str, int] = field(default_factory=dict)
    secret_file: Path | None = None
    prefix: str = ""
    ca_file: Path | None = None

    @property
    def authority(self) -> str:
        """`host:port` as an HTTP Host header has it: without the scheme's own port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS.get(self.scheme) else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The address that the service's own paths are appended to."""
        if self.scheme == "file":
            return f"file://{self.prefix}"
        return f"{self.scheme}://{self.authority}{self.prefix}"

    def read_secret(self) -> str | None:
        """The secret, or None for a service without one. Read at each use, never kept.

        Raises ServiceError for a file that cannot be read, or holds more than one printable word: it
        becomes part of a header.
        """
        if self.secret_file is None:
            return None
        try:
            secret = self.secret_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no plain text"
            raise ServiceError(
                f"cannot read the secret of {self.url} from {self.secret_file}: {why}"
            ) from None
        if not secret.isprintable() or " " in secret:
            raise ServiceError(f"the secret of {self.url} in {self.secret_file} is not one word")
        return secret or None

    def to_json(self) -> dict[str, object]:
        return {
            "host": self.host,
            "port": self.port,
            "scheme": self.scheme,
            "ports": dict(self.ports),
            "secret_file": str(self.secret_file) if self.secret_file else None,
            "prefix": self.prefix,
            "ca_file": str(self.ca_file) if self.ca_file else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> "Endpoint":
        ports = data.get("ports") or {}
        secret, ca_file = data.get("secret_file"), data.get("ca_file")
        assert isinstance(ports, Mapping)
        return cls(
            host=str(data["host"]),
            port=int(str(data["port"])),
            scheme=str(data.get("scheme", "http")),
            ports={str(name): int(port) for name, port in ports.items()},
            secret_file=Path(str(secret)) if secret else None,
            prefix=str(data.get("prefix") or ""),
            ca_file=Path(str(ca_file)) if ca_file else None,
        )

    @classmethod
    def from_url(cls, text: str) -> "Endpoint":
        """The endpoint of an http or https address that a person typed. Raises UsageError.

        An address with a password in it is refused without being repeated.
        """
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise UsageError(f"{text!r} is no address", hint=_URL_HINT) from None
        if "@" in text:
            raise UsageError("an address must hold no user name or key", hint="give a key in a file")
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise UsageError(f"{text!r} is no http or https address", hint=_URL_HINT)
        prefix = parts.path.rstrip("/")
        if parts.query or parts.fragment or port == 0 or not text.isprintable():
            raise UsageError(f"{text!r} is no plain address", hint=_URL_HINT)
        if not _HOST.fullmatch(parts.hostname) or not _PATH.fullmatch(prefix):
            raise UsageError(f"{text!r} has characters that no address has", hint=_URL_HINT)
        return cls(parts.hostname, port or _DEFAULT_PORTS[parts.scheme], parts.scheme, prefix=prefix)
