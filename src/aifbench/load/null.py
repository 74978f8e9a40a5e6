"""A workload that does nothing: what remains is the cost of the engine itself."""

from aifbench.cluster.endpoint import Endpoint
from aifbench.load.workload import Outcome

_DONE = Outcome()


class Null:
    """Blocking operations that end at once."""

    def open(self, endpoint: Endpoint) -> None: ...

    def perform(self, index: int) -> Outcome:  # noqa: ARG002 (the protocol's signature)
        return _DONE

    def close(self) -> None: ...
