"""A connection storm: every operation connects, authenticates, asks for 1 and leaves."""

import psycopg

from aifbench.cluster.endpoint import Endpoint
from aifbench.load.workload import Outcome, OutcomeKind
from aifbench.workloads.sql_connection import connect, outcome_of


class Storm:
    """What applications without a pool do; scram alone costs client and server milliseconds each time."""

    def __init__(self, timeout_s: float = 30.0) -> None:
        self._timeout_s = timeout_s
        self._endpoint: Endpoint

    def open(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def perform(self, index: int) -> Outcome:  # noqa: ARG002 (the protocol's signature)
        try:
            with connect(self._endpoint, timeout_s=self._timeout_s, bare=True) as connection:
                row = connection.execute("SELECT 1", prepare=False).fetchone()
        except psycopg.Error as error:
            return outcome_of(error)
        return Outcome() if row == (1,) else Outcome(OutcomeKind.WRONG, 0, error=f"{row} instead of 1")

    def close(self) -> None: ...
