"""What other people's file system benchmarks have in common: what they are asked, and what they answer.

Nothing here starts a process: an engine says what to run, with which files beside it, and reads what came
out. The verdict follows the output, never the exit status: IO500 ends with 0 when it is INVALID.
"""

import json
import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from aifbench.errors import WorkloadError
from aifbench.workloads.findings import Finding

IO_OPERATIONS = ("write", "read")
METADATA_OPERATIONS = ("create", "stat", "read", "remove")
ASKED_FILE = "asked.json"
_CONTAINER_TOOLS = ("apptainer", "singularity")


@dataclass(frozen=True, slots=True)
class EngineResult:
    """One phase. `value` is judged at the last process's end wherever the program tells it apart.

    `first_done` is the rate when the first process ended (or when time was called: a stonewall), `last_done`
    that when all had ended; None where the program does not say. `direction` is `higher` or `lower`.
    """

    name: str
    value: float
    unit: str
    time_s: float | None = None
    direction: str = "higher"
    first_done: float | None = None
    last_done: float | None = None
    low: float | None = None
    high: float | None = None
    repeats: int = 1
    is_valid: bool = True


@dataclass(frozen=True, slots=True)
class EngineReading:
    """Everything one run of an engine says. It can be quoted when no finding is fatal."""

    engine: str
    version: str = ""
    results: tuple[EngineResult, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def is_valid(self) -> bool:
        return bool(self.results) and not any(finding.is_fatal for finding in self.findings)

    def result(self, name: str) -> EngineResult | None:
        return next((result for result in self.results if result.name == name), None)


@dataclass(frozen=True, slots=True)
class EngineJob:
    """What an engine is asked. `directory` is ours alone, on the file system under test, `output` elsewhere.

    `launcher` are the words that start one process per rank (`srun --mpi=pmix -n 8`); `processes` is over all
    `hosts`. Sizes and counts are of each process; `files` and `file_bytes` are of metadata. `operations` are
    of IO_OPERATIONS, or of METADATA_OPERATIONS for mdtest. `ini` is an IO500 configuration, for it alone.
    """

    directory: Path
    output: Path
    launcher: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    processes: int = 1
    operations: tuple[str, ...] = ("write", "read")
    block_bytes: int = 2**20
    size_bytes: int = 2**30
    files: int = 1000
    file_bytes: int = 0
    depth: int = 1
    repeats: int = 1
    duration_s: int | None = None
    is_random: bool = False
    is_shared: bool = False
    is_direct: bool = False
    ini: str = ""

    @property
    def processes_per_host(self) -> int:
        return max(1, self.processes // max(1, len(self.hosts)))


@dataclass(frozen=True, slots=True)
class EngineCommand:
    """What to run in `job.output`, after writing `files` (name to text) there; the directory exists.

    `server` is started on each host before, where there are several, and `stop` run after. `outputs` are
    the names, under `job.output`, of the files whose texts `parse` wants.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    server: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run was asked, as far as its judgement needs it; 0 and empty where nobody knows."""

    operations: tuple[str, ...] = ()
    processes: int = 0
    hosts: int = 0
    repeats: int = 1
    duration_s: int = 0
    is_random: bool = False
    files: int = 0  # of each process, where it is about metadata

    @classmethod
    def of(cls, job: EngineJob) -> "Asked":
        return cls(
            operations=job.operations,
            processes=job.processes,
            hosts=max(1, len(job.hosts)),
            repeats=job.repeats,
            duration_s=job.duration_s or 0,
            is_random=job.is_random,
            files=job.files,
        )

    @classmethod
    def within(cls, files: Mapping[str, str]) -> "Asked":
        """As it was written beside a run; the defaults where it was not, or is damaged."""
        try:
            stored = json.loads(files.get(ASKED_FILE, "{}"))
            return cls(**{**stored, "operations": tuple(stored.get("operations", ()))})
        except (json.JSONDecodeError, TypeError, AttributeError):
            return cls()

    def as_file(self) -> dict[str, str]:
        return {ASKED_FILE: json.dumps(asdict(self)) + "\n"}


class FileEngine(Protocol):
    """`find` raises WorkloadError, whose hint says how to get the program. What is `not_in_paths` has another
    meaning there, and cannot be quoted.

    `parse` takes what it printed, and the texts of the files beside it by name, those of `command` included;
    an imported run, of which nobody knows what was asked, is judged by less.
    """

    @property
    def name(self) -> str: ...

    @property
    def uses_mpi(self) -> bool: ...

    @property
    def not_in_paths(self) -> tuple[str, ...]: ...

    def find(self, environ: Mapping[str, str] = os.environ) -> tuple[str, ...]: ...

    def command(self, words: tuple[str, ...], job: EngineJob) -> EngineCommand: ...

    def parse(self, text: str, files: Mapping[str, str]) -> EngineReading: ...


def find_program(name: str, environ: Mapping[str, str], how: str) -> tuple[str, ...]:
    """The words that run it: AIFBENCH_<NAME>, PATH, or an image <name>.sif of ours. Raises WorkloadError."""
    if given := environ.get(f"AIFBENCH_{name.upper()}"):
        return tuple(shlex.split(given))
    if program := shutil.which(name, path=environ.get("PATH")):
        return (program,)
    home = Path(environ.get("AIFBENCH_HOME", "."))
    image = Path(environ.get("AIFBENCH_IMAGES") or home / "utils/sif-images") / f"{name}.sif"
    tool = next(
        filter(None, (shutil.which(tool, path=environ.get("PATH")) for tool in _CONTAINER_TOOLS)), None
    )
    if tool and image.exists():
        return (tool, "exec", str(image), name)
    raise WorkloadError(f"there is no {name} on this machine", hint=how)


def inside(words: tuple[str, ...], job: EngineJob) -> tuple[str, ...]:
    """`words`, with both directories visible in a container."""
    if len(words) > 2 and words[1] == "exec":
        return (*words[:2], "--bind", f"{job.directory},{job.output}", *words[2:])
    return words
