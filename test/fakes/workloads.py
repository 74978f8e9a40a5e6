"""Workloads for the load engine's tests, named in plans as `test.fakes.workloads:Class`."""

import os
import time

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import WorkloadError
from aifbench.load.http import encode_request
from aifbench.load.workload import Outcome, OutcomeKind


class Numbered:
    """GET of `target`; every answer is judged by the operation's number."""

    def __init__(self, target: str = "/ok") -> None:
        self._request = encode_request("GET", target, "test")

    def open(self, endpoint: Endpoint) -> None: ...

    def request(self, index: int) -> bytes:  # noqa: ARG002 (the protocol's signature)
        return self._request

    def interpret(self, index: int, status: int, body: bytes) -> Outcome:
        assert (status, body) == (200, b"ok")
        if index % 10 == 3:
            return Outcome(OutcomeKind.WRONG, 0, error="ends in three")
        if index % 10 == 7:
            raise KeyError("an answer nobody thought of")
        return Outcome(items=index, qualities=(index / 1000, 1 - index / 1000))

    def close(self) -> None: ...


class Sleep:
    """Blocking operations of `seconds` each."""

    def __init__(self, seconds: float = 0.001) -> None:
        self._seconds = seconds

    def open(self, endpoint: Endpoint) -> None: ...

    def perform(self, index: int) -> Outcome:
        time.sleep(self._seconds)
        return Outcome(qualities=(index % 2,))

    def close(self) -> None: ...


class Bad(Sleep):
    """Cannot be opened: fails, hangs or ends the process, as `how` says."""

    def __init__(self, how: str = "fails") -> None:
        super().__init__()
        self._how = how

    def open(self, endpoint: Endpoint) -> None:  # noqa: ARG002
        if self._how == "hangs":
            time.sleep(3600)
        if self._how == "ends":
            os._exit(3)
        raise WorkloadError("no such collection", hint="create it")
