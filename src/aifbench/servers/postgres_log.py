"""What PostgreSQL's log says: how far a start is, why it ended, where its data lies, what pools. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from aifbench.servers.log_news import LogNews

_STORAGE = re.compile(r"aifbench: storage (\w+): (.+) on (\S+), (\d+) MiB free")
_POOLER = re.compile(r"aifbench: pooler PgBouncer (\S+): (\w+), (\d+) connections, (\d+) clients")
_SET = "see --set, and https://www.postgresql.org/docs/current/runtime-config.html"
_SPACE = "use a smaller --scale, or a --storage with more space"
_MEMORY = "give less of it: --set shared_buffers=, or fewer --set max_connections="

# The last line that matches any tells how far a start is.
_STEPS = tuple(
    (re.compile(pattern), text)
    for pattern, text in (
        (r"aifbench: running ", "looking at its version"),
        (r"files belonging to this database system", "making its data directory"),
        (r"^(?:creating|running|performing|syncing) ", "making its data directory"),
        (r"LOG:  starting PostgreSQL", "starting"),
        (r"LOG:  database system was (?:shut down|interrupted)", "opening its data"),
        (r"LOG:  database system is ready to accept connections", "accepting connections"),
    )
)  # fmt: skip
# Pattern, cause, advice; the most telling first. `{0}` is what the pattern's group found.
_CAUSES = tuple(
    (re.compile(pattern), cause, advice)
    for pattern, cause, advice in (
        (r"aifbench: (PostgreSQL cannot run as root.+)", "{0}", ""),
        (r"No space left on device", "its disk is full", _SPACE),
        (r"[Dd]isk quota exceeded", "its disk quota is used up", _SPACE),
        (
            r"(?:root\" execution of the PostgreSQL server is not permitted|cannot be run as root)",
            "PostgreSQL refuses to run as root",
            "start it as another user, or install setpriv (util-linux), which the batch script uses for that",
        ),
        (r"unrecognized configuration parameter \"([^\"]+)\"", "this PostgreSQL has no setting {0}", _SET),
        (r"invalid value for parameter (.+)", "PostgreSQL refuses a setting: {0}", _SET),
        (r"(\S+ is outside the valid range for parameter .+)", "PostgreSQL refuses a setting: {0}", _SET),
        (r"parameter \"([^\"]+)\" cannot be changed", "{0} cannot be set", _SET),
        (
            r"could not access file \"([^\"]+)\"",
            "there is no library {0} on the server",
            "leave it out of --set shared_preload_libraries=",
        ),
        (
            r"could not (?:map anonymous|create|resize) shared memory",
            "there is not enough memory for its shared buffers",
            _MEMORY,
        ),
        (
            r"was terminated by signal 9",
            "one of its processes was killed, which for want of memory the kernel does",
            _MEMORY,
        ),
        (
            r"could not bind \S+ address \"([^\"]+)\": Cannot assign",
            "{0} is no address of its node",
            "AIFBENCH_BIND and AIFBENCH_INTERFACE choose the address",
        ),
        (
            r"could not bind .*Address already in use|found its port taken",
            "somebody else took its port meanwhile",
            "start it again",
        ),
        (r"aifbench: ((?:port \d+ is taken|cannot|secret file|AIFBENCH_\w+ is).+)", "{0}", ""),
        (r"PANIC:  (.+)", "PostgreSQL says: {0}", ""),
        # Those of a server that did not start; what a client was told says whom it is about.
        (
            r"FATAL:  (?!.*(?:user|role|database|connection|administrator|system is))(.+)",
            "PostgreSQL says: {0}",
            "",
        ),
        (r"initdb: error: (.+)", "initdb says: {0}", ""),
        (r"\[\d+\] FATAL (.+)", "PgBouncer says: {0}", ""),
    )
)  # fmt: skip
_LONGEST = 300


@dataclass(frozen=True, slots=True)
class Storage:
    """Where the data lies, as the batch script saw it; `file_system` is the kernel's name for its kind."""

    asked: str
    path: str
    file_system: str
    free_mib: int

    @property
    def is_memory(self) -> bool:
        return self.file_system in ("tmpfs", "ramfs")


@dataclass(frozen=True, slots=True)
class Pooler:
    """PgBouncer between clients and server: `connections` to each data base at most, and `clients` in all."""

    version: str
    mode: str
    connections: int
    clients: int

    def __str__(self) -> str:
        return f"PgBouncer {self.version} ({self.mode} mode, at most {self.connections:,} connections)"


def read_log(lines: Sequence[str]) -> LogNews:
    """The news of a log, or of the end of one."""
    for pattern, cause, advice in _CAUSES:
        found = next((match for line in lines if (match := pattern.search(line))), None)
        if found:
            told = found[1].strip()[:_LONGEST] if pattern.groups else ""
            return LogNews(_progress(lines), cause.replace("{0}", told), advice)
    return LogNews(_progress(lines))


def read_storage(text: str) -> Storage | None:
    """Of the run that said it last."""
    found = _STORAGE.findall(text)
    if not found:
        return None
    asked, path, file_system, free_mib = found[-1]
    return Storage(asked, path, file_system, int(free_mib))


def read_pooler(text: str) -> Pooler | None:
    """Of the run that said it last; None for clients that connect to PostgreSQL itself."""
    found = _POOLER.findall(text)
    if not found:
        return None
    version, mode, connections, clients = found[-1]
    return Pooler(version, mode, int(connections), int(clients))


def _progress(lines: Sequence[str]) -> str:
    for line in reversed(lines):
        for pattern, text in _STEPS:
            if pattern.search(line):
                return text
    return ""
