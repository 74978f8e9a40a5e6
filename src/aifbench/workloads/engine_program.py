"""One run of somebody else's file system benchmark as a worker's part of a phase.

The program measures itself: what it prints and writes is kept in the phase's directory, and read there.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from aifbench.cluster.endpoint import Endpoint
from aifbench.cluster.nodelist import expand
from aifbench.errors import WorkloadError
from aifbench.load.program_loop import ProgramCommand, ProgramPart, ProgramResult
from aifbench.load.workload import OutcomeKind
from aifbench.workloads.file_engines import ENGINES, EngineCommand, EngineJob
from aifbench.workloads.io500_ini import with_directories
from aifbench.workloads.mpi_launch import launcher, look_around, one_per_node

_SERVER_START_S = 1.0
_SERVER_END_S = 5.0


class EngineProgram:
    """Starts `engine` for `processes` ranks on `nodes` nodes of this job; `job` are fields of EngineJob."""

    is_program: ClassVar[bool] = True

    def __init__(
        self, engine: str, job: Mapping[str, Any], processes: int, nodes: int, launcher: str = "auto"
    ) -> None:
        self._engine = ENGINES[engine]
        self._asked = job
        self._processes = processes
        self._nodes = nodes
        self._launcher = launcher
        self._words: tuple[str, ...] = ()
        self._servers: subprocess.Popen[bytes] | None = None
        self._command = EngineCommand(())

    def open(self, endpoint: Endpoint) -> None:
        """Finds the program. Raises WorkloadError, saying how to get it."""
        del endpoint
        self._words = self._engine.find(os.environ)
        directory = Path(self._asked["directory"])
        bad = next((text for text in self._engine.not_in_paths if text in str(directory)), "")
        if bad:
            raise WorkloadError(
                f"{self._engine.name} cannot work in {directory}: {bad!r} means something else to it",
                hint="start lustre with another --path",
            )
        try:
            directory.mkdir(exist_ok=True)
        except OSError as error:
            raise WorkloadError(f"cannot make {directory}: {error.strerror}") from error

    def command(self, part: ProgramPart) -> ProgramCommand:
        hosts = _hosts(os.environ)
        several = hosts if len(hosts) > 1 else ()
        words: tuple[str, ...] = ()
        if self._engine.uses_mpi:
            words = launcher(
                self._launcher, look_around(), processes=self._processes, nodes=self._nodes, hosts=several
            )
        asked = {**self._asked, "operations": tuple(self._asked.get("operations", ("write", "read")))}
        job = EngineJob(**{**asked, "directory": Path(asked["directory"])}, output=part.directory)
        job = replace(job, launcher=words, hosts=several, processes=self._processes)
        if job.ini:
            job = replace(job, ini=with_directories(job.ini, job.directory, part.directory / "io500"))
        self._command = self._engine.command(self._words, job)
        for name, text in self._command.files.items():
            (part.directory / name).write_text(text, encoding="utf-8")
        if several and self._command.server:
            self._start_servers(part.directory)
        return ProgramCommand(self._command.argv, self._command.environment)

    def operations(self, part: ProgramPart, exit_code: int, output: str) -> ProgramResult:
        """The run as one operation: whether it is any good is for those to say who read what it wrote."""
        del output
        started_ns, ended_ns = (np.array([at_ns], np.int64) for at_ns in (part.started_ns, time.time_ns()))
        kind = OutcomeKind.OK if exit_code == 0 else OutcomeKind.SERVER_ERROR
        errors = {} if exit_code == 0 else {f"{self._engine.name} ended with {_ending(exit_code)}": 1}
        return ProgramResult(started_ns, started_ns, ended_ns, np.array([kind], np.uint16), errors=errors)

    def close(self) -> None:
        self._stop_servers()

    def _start_servers(self, directory: Path) -> None:
        """One on each node, by Slurm, living as long as the step that holds them."""
        words = one_per_node(self._nodes)
        with (directory / "servers").open("wb") as log:
            self._servers = subprocess.Popen(
                [*words, *self._command.server],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=directory,
            )
        time.sleep(_SERVER_START_S)  # they accept connections at once; clients have no wait of their own
        if self._servers.poll() is not None:
            said = (directory / "servers").read_text(encoding="utf-8", errors="replace").strip()[-300:]
            raise WorkloadError(f"the servers of {self._engine.name} did not start: {said}")

    def _stop_servers(self) -> None:
        if self._servers is None:
            return
        if self._command.stop:
            with suppress(OSError, subprocess.SubprocessError):
                subprocess.run(self._command.stop, timeout=_SERVER_END_S, check=False, capture_output=True)
        self._servers.terminate()
        try:
            self._servers.wait(_SERVER_END_S)
        except subprocess.TimeoutExpired:
            self._servers.kill()
            self._servers.wait()


def _hosts(environ: Mapping[str, str]) -> tuple[str, ...]:
    nodes = environ.get("SLURM_JOB_NODELIST", "")
    return tuple(expand(nodes)) if nodes and shutil.which("srun") else ()


def _ending(exit_code: int) -> str:
    return f"signal {-exit_code}" if exit_code < 0 else f"exit status {exit_code}"
