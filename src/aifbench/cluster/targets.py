"""Scrape targets: files in which Prometheus finds, by itself, what to ask for metrics (file_sd).

services/targets/service-<job name>.json    what a service itself tells
services/targets/exporter-<job name>.json   node and GPU exporters beside a service, asked with a password
services/targets/bench-<run id>.json        a benchmark while it runs, asked every second; whoever writes it
                                            touches it at least every BENCH_EXPIRY_S / 3, and removes it

Labels of every target: `job` (the service's kind, `node`, `gpu` or `bench`), `service` (the instance's name),
`kind`, `job_id` and `node`.
"""

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

# Below the directory of all services.
TARGETS_DIR = "targets"
SERVICE, EXPORTER, BENCH = "service-", "exporter-", "bench-"
BENCH_EXPIRY_S = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """One address, `host:port`, that answers with metrics at `path`."""

    address: str
    labels: Mapping[str, str] = field(default_factory=dict)
    scheme: str = "http"
    path: str = "/metrics"


def targets_text(targets: Sequence[Target]) -> str:
    """The targets in the format of Prometheus's file_sd, where special labels say how to ask."""
    entries = [
        {
            "targets": [target.address],
            "labels": {"__scheme__": target.scheme, "__metrics_path__": target.path, **target.labels},
        }
        for target in targets
    ]
    return json.dumps(entries, indent=1) + "\n"


def write_targets(directory: Path, name: str, targets: Sequence[Target]) -> Path:
    """Write `name`.json, seen complete or not at all; nothing happens when it says that already.

    `name` begins with SERVICE, EXPORTER or BENCH. Raises OSError.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / f"{name}.json"
    text = targets_text(targets)
    with suppress(OSError, UnicodeDecodeError):
        if path.read_text(encoding="utf-8") == text:
            return path
    # Not ending in .json, so that Prometheus does not take it for a list.
    partial = directory / f".{name}.{os.getpid()}.{secrets.token_hex(2)}.part"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)
    return path


def remove_targets(directory: Path, name: str) -> None:
    """Remove `name`.json where it is."""
    with suppress(OSError):
        (directory / f"{name}.json").unlink()
