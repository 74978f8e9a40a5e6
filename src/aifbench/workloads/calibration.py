"""The client's own error: the same load against a server of known timing, on the same machine.

Each worker starts a server of its own on the loopback interface. Every event carries the instant at which it
was sent, by the clock that all processes of a machine share, so what the client makes of it can be held
against it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifbench.cluster.endpoint import Endpoint
from aifbench.load.workload import Outcome, StreamedAnswer, TokenTimes
from aifbench.workloads.inference import Generate
from aifbench.workloads.reference_plan import ReferencePlan
from aifbench.workloads.reference_process import ReferenceServer
from aifbench.workloads.sse import events

_SENT = re.compile(rb'"aifbench_sent_ns": *(\d+)')
_RECEIVED = re.compile(rb'"aifbench_received_ns": *(\d+)')
_MODEL = "reference"


class Calibrated(Generate):
    """Generate, against a reference server that this worker starts; `plan` is its timing.

    `notes` has, in milliseconds and by quantile, what was true and the error: what was reported less what was
    true, for the time to the first token and the gaps; and the way of an event from the server's send to the
    client's stamp.
    """

    address: tuple[str, int]

    def __init__(self, source: str, *, plan: Mapping[str, Any], **options: Any) -> None:
        super().__init__(source, _MODEL, **options)
        self._server = ReferenceServer(ReferencePlan(**plan, stamps=True, model=_MODEL))
        self._is_running = False
        # Of every answer: the time to its first token, reported and true; when its events arrived, and when
        # they were sent, as two rows.
        self._ttft_ns: list[tuple[int, int]] = []
        self._stamps_ns: list[NDArray[np.int64]] = []

    def open(self, endpoint: Endpoint) -> None:
        del endpoint
        self._server.__enter__()
        self._is_running = True
        super().open(self._server.endpoint)
        self.address = ("127.0.0.1", self._server.port)

    def close(self) -> None:
        if self._is_running:
            self._is_running = False
            self._server.__exit__()

    def interpret_stream(self, index: int, status: int, answer: StreamedAnswer) -> tuple[Outcome, TokenTimes]:
        outcome, times = super().interpret_stream(index, status, answer)
        stamped = [data for _, data in events(answer.body) if _SENT.search(data)]
        sent_ns = [int(match[1]) for data in stamped if (match := _SENT.search(data))]
        received = next((match for data in stamped if (match := _RECEIVED.search(data))), None)
        if received is not None and len(sent_ns) == len(times.content_ns) and sent_ns:
            self._compare(int(received[1]), sent_ns, times.content_ns)
        return outcome, times

    def _compare(self, received_ns: int, sent_ns: Sequence[int], arrived_ns: Sequence[int]) -> None:
        # From when the server had the request: the way there is the network's, a few microseconds here.
        self._ttft_ns.append((arrived_ns[0] - received_ns, sent_ns[0] - received_ns))
        self._stamps_ns.append(np.array([arrived_ns, sent_ns], np.int64))

    def notes(self) -> dict[str, float]:
        """Empty when nothing was answered."""
        if not self._ttft_ns:
            return {}
        ttft = np.array(self._ttft_ns, np.float64) / 1e6
        reported, true = np.concatenate([np.diff(stamps) for stamps in self._stamps_ns], axis=1) / 1e6
        ways_ns = np.concatenate([arrived - sent for arrived, sent in self._stamps_ns])
        found = {"answers": float(len(ttft)), "tokens": float(len(ways_ns))}
        for name, ours, truth in (("ttft", ttft[:, 0], ttft[:, 1]), ("gap", reported, true)):
            for suffix, q in (("p50", 0.5), ("p99", 0.99)):
                if len(ours):
                    true_ms = float(np.quantile(truth, q))
                    found[f"{name}_true_{suffix}_ms"] = true_ms
                    found[f"{name}_error_{suffix}_ms"] = float(np.quantile(ours, q)) - true_ms
        found["way_p99_ms"] = float(np.quantile(ways_ns, 0.99) / 1e6)
        return found
