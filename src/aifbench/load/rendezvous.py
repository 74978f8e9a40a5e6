"""How a coordinator and its workers meet: small JSON files in a directory both can see.

A reader sees a file complete or not at all. The names here are the whole protocol:
`phase-NN/` per phase with `plan.json` (coordinator), `ready-K.json` (worker K has prepared),
`start.json` (the common start), `report-K.json` (worker K is done), and at the top `alive` (touched by the
coordinator), `stop` (end the current phase early) and `end` (no more phases).
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PLAN = "plan.json"
START = "start.json"
ALIVE = "alive"
STOP = "stop"
END = "end"


def phase_dir(root: Path, number: int) -> Path:
    return root / f"phase-{number:02d}"


def ready_file(worker: int) -> str:
    return f"ready-{worker}.json"


def report_file(worker: int) -> str:
    return f"report-{worker}.json"


def rows_name(stream: str, worker: int) -> str:
    """The stem of a worker's recorder files."""
    return f"{stream}-{worker}"


def program_folder(directory: Path, name: str) -> Path:
    """Where a program that makes a worker's load writes what it has to tell."""
    return directory / f"{name}.program"


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write so that a reader never sees half a file."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(data), encoding="utf-8")
    partial.replace(path)


def read_json(path: Path) -> dict[str, Any] | None:
    """The file's content, or None while it does not exist."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    assert isinstance(data, dict)
    return data
