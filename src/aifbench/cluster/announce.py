"""How a service says where it listens: a block of lines that its batch script prints to the job's log.

    SLURM_JOB_ID: 4711
    SLURM_RESTART_COUNT: 0
    NODE: mel2001
    IP ADDRESS: 10.3.0.7
    PORT: 23817
    PORT metrics: 23818
    SERVICE VERSION: 1.5.9
    AUTH: token
    ANNOUNCED: chroma

The first and the last line frame it; id, IP ADDRESS and PORT are required, and `PORT: none` is of a service
that listens nowhere, such as a directory of a file system. The service writes to the
same log, so a foreign line in between, an impossible value, a line said twice or a missing end makes the
block void. Nothing here is secret.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

# A block is printed soon after each (re)start: near the beginning of a log, or near the end when last seen.
_WINDOW_BYTES = 1 << 20

_LINE = re.compile(
    r"(SLURM_JOB_ID|SLURM_RESTART_COUNT|NODE|IP ADDRESS|PORT(?: [\w.-]+)?"
    r"|SERVICE VERSION|AUTH|ANNOUNCED): (.+)",
    re.ASCII,
)
_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Announcement:
    """One complete block. `host` is the IP address, `node` the host name; `auth` is `token` or `none`.

    `port` is 0 for a service that listens nowhere.
    """

    job_id: str
    restarts: int
    host: str
    port: int
    service: str
    node: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)
    version: str = ""
    auth: str = "none"


def parse_announcement(text: str, job_id: str, restarts: int | None = None) -> Announcement | None:
    """What job `job_id` announced in `text` in its run number `restarts`; when None, in its latest.

    The first complete block counts: whatever looks like one later was printed by the service, not by
    its script.
    """
    found: Announcement | None = None
    for block in _blocks(text):
        candidate = _announcement(block)
        if candidate is None or candidate.job_id != job_id or restarts not in (None, candidate.restarts):
            continue
        if found is None or candidate.restarts > found.restarts:
            found = candidate
    return found


def read_announcement(path: Path, job_id: str, restarts: int | None = None) -> Announcement | None:
    """The same from a log file that may be missing, of any size and not text at all."""
    try:
        with path.open("rb") as file:
            head = file.read(_WINDOW_BYTES)
            size = file.seek(0, 2)
            file.seek(max(len(head), size - _WINDOW_BYTES))
            tail = file.read(_WINDOW_BYTES)
    except OSError:
        return None
    if size > len(head) + len(tail):
        head, tail = head + b"\n\n", tail.partition(b"\n")[2]
    return parse_announcement((head + tail).decode(errors="replace"), job_id, restarts)


def _blocks(text: str) -> Iterator[dict[str, str]]:
    """Contiguous known lines from SLURM_JOB_ID to ANNOUNCED, each key once."""
    block: dict[str, str] = {}
    # Only "\n" ends a line: splitlines() knows others, which a service could smuggle in.
    for line in text.split("\n")[:-1]:
        match = _LINE.fullmatch(line.rstrip("\r"))
        key, value = (match[1], match[2].strip()) if match else ("", "")
        if key == "SLURM_JOB_ID":
            block = {key: value}
        elif not block or not key or key in block:
            block = {}
        else:
            block[key] = value
            if key == "ANNOUNCED":
                yield block
                block = {}


def _announcement(block: Mapping[str, str]) -> Announcement | None:
    ports = {
        key.removeprefix("PORT").strip(): _port(value)
        for key, value in block.items()
        if key.startswith("PORT")
    }
    host = _address(block.get("IP ADDRESS", ""))
    restarts = block.get("SLURM_RESTART_COUNT", "0")
    auth = block.get("AUTH", "none")
    valid = {name: port for name, port in ports.items() if port is not None}
    if host is None or len(valid) < len(ports) or "" not in valid:
        return None
    if not _NUMBER.fullmatch(restarts) or auth not in ("token", "none"):
        return None
    return Announcement(
        job_id=block["SLURM_JOB_ID"],
        restarts=int(restarts),
        host=host,
        port=valid.pop(""),
        service=block["ANNOUNCED"],
        node=block.get("NODE", ""),
        ports=valid,
        version=block.get("SERVICE VERSION", ""),
        auth=auth,
    )


def _port(text: str) -> int | None:
    if text == "none":
        return 0
    return int(text) if _NUMBER.fullmatch(text) and 1 <= int(text) <= 65535 else None


def _address(text: str) -> str | None:
    """A usable unicast address in its canonical spelling; an interface scope (`%ib0`) is refused."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if "%" in text or address.is_unspecified or address.is_multicast:
        return None
    return str(address)
