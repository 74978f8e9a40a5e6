"""Where a service listens and how to authenticate. The secret itself stays in its file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aifbench.errors import ServiceError


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address, further named ports, and the 0600 file that holds the secret, if any.

    Safe to print, log and store: it never carries the secret.
    """

    host: str
    port: int
    scheme: str = "http"
    ports: Mapping[str, int] = field(default_factory=dict)
    secret_file: Path | None = None

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def read_secret(self) -> str | None:
        """The secret, or None for a service without one. Read at each use, never kept."""
        if self.secret_file is None:
            return None
        try:
            return self.secret_file.read_text(encoding="ascii").strip() or None
        except (OSError, UnicodeDecodeError) as error:
            raise ServiceError(f"cannot read the secret of {self.url}") from error

    def to_json(self) -> dict[str, object]:
        return {
            "host": self.host,
            "port": self.port,
            "scheme": self.scheme,
            "ports": dict(self.ports),
            "secret_file": str(self.secret_file) if self.secret_file else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> "Endpoint":
        ports = data.get("ports") or {}
        secret = data.get("secret_file")
        assert isinstance(ports, Mapping)
        return cls(
            host=str(data["host"]),
            port=int(str(data["port"])),
            scheme=str(data.get("scheme", "http")),
            ports={str(name): int(port) for name, port in ports.items()},
            secret_file=Path(str(secret)) if secret else None,
        )
