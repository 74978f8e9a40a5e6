"""The reference server as a process beside this one: started, waited for, and always ended."""

import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Self

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import WorkloadError
from aifbench.workloads.reference_plan import ReferencePlan
from aifbench.workloads.reference_truth import Truth

_START_S = 20.0
_STOP_S = 5.0


class ReferenceServer:
    """A context manager; `port` is set inside. Raises WorkloadError when it does not start or end well."""

    port: int

    def __init__(self, plan: ReferencePlan, *, cpu: int | None = None, realtime: bool = False) -> None:
        self._options = plan.argv()
        if cpu is not None:
            self._options += ["--cpu", str(cpu)]
        if realtime:
            self._options.append("--realtime")
        self._key_file = plan.key_file

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", self.port, secret_file=self._key_file)

    def __enter__(self) -> Self:
        source = str(Path(__file__).resolve().parents[2])
        # Without a name, so that nothing is left when this process is killed.
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "aifbench.workloads.reference_server", *self._options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": source},
            start_new_session=True,
        )
        try:
            self.port = self._read_port()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _read_port(self) -> int:
        line = _line(self._output, _START_S)
        if not line.startswith(b"PORT: "):
            raise WorkloadError(
                f"the reference server did not start{self._last_words()}", hint="`doctor` checks this machine"
            )
        return int(line.removeprefix(b"PORT: "))

    def stop(self) -> Truth:
        """End the server and say what it really did."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
            return Truth.from_line(self._output.read())
        except (subprocess.TimeoutExpired, ValueError) as error:
            raise WorkloadError(f"the reference server did not end well{self._last_words()}") from error
        finally:
            self._end()

    @property
    def _output(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""

    def _end(self) -> None:
        """Nothing is left afterwards; a second time does nothing."""
        self._process.kill()
        self._process.wait()
        self._output.close()
        self._log.close()


def _line(stream: IO[bytes], timeout_s: float) -> bytes:
    """A line, or nothing when none comes in time."""
    return stream.readline() if select.select([stream], [], [], timeout_s)[0] else b""
