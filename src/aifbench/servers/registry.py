"""The service kinds, each a line here; their modules are imported when first asked for."""

import importlib

from aifbench.errors import UnknownService
from aifbench.options import nearest
from aifbench.servers.base import SlurmServer

_CLASSES = {
    "chroma": "aifbench.servers.chroma:ChromaServer",
    "lustre": "aifbench.servers.lustre:LustreServer",
    "monitors": "aifbench.servers.monitors:MonitorServer",
    "postgres": "aifbench.servers.postgres:PostgresServer",
    "s3": "aifbench.servers.s3:S3Server",
    "vllm": "aifbench.servers.vllm:VLLMServer",
}


def kinds() -> list[str]:
    return list(_CLASSES)


def server_class(kind: str) -> type[SlurmServer]:
    """Raises UnknownService, naming the nearest kind."""
    if kind not in _CLASSES:
        raise UnknownService(
            f"no service kind is called {kind!r}{nearest(kind, _CLASSES)}",
            hint=f"valid: {', '.join(_CLASSES)}",
        )
    module, _, name = _CLASSES[kind].partition(":")
    found: type[SlurmServer] = getattr(importlib.import_module(module), name)
    return found
