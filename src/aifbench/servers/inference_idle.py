"""When a server has done with earlier load: a trial must not wait in the queue that the one before left."""

import time
from collections.abc import Callable
from contextlib import closing

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import ServiceError
from aifbench.workloads.engine_metrics import DIALECTS
from aifbench.workloads.openai_control import OpenAIControl
from aifbench.workloads.prometheus_text import parse

_PERIOD_S = 0.25
_GRACE_S = 3.0  # of a server that does not tell
_LONGEST_S = 60.0


def requests_inside(page: str) -> float | None:
    """Requests that a server computes or keeps waiting, by its /metrics; None when they do not tell."""
    values = parse(page).values
    for dialect in DIALECTS:
        names = {*dialect.running, *dialect.waiting}
        found = [value for series, value in values.items() if series.name in names]
        if found:
            return sum(found)
    return None


def await_idle(
    endpoint: Endpoint,
    *,
    has_metrics: bool,
    sleep: Callable[[float], None] = time.sleep,
    monotonic_s: Callable[[], float] = time.monotonic,
) -> bool:
    """Wait until nothing is under way, for a minute at most; whether the server said that it is so.

    Requests whose client has gone are dropped by most servers, though not at once. One that does not tell
    what it does is left alone for a moment.
    """
    if has_metrics:
        deadline_s = monotonic_s() + _LONGEST_S
        with closing(OpenAIControl(endpoint)) as control:
            while monotonic_s() < deadline_s:
                try:
                    inside = requests_inside(control.metrics_text())
                except ServiceError:
                    break
                if inside is None:
                    break
                if not inside:
                    return True
                sleep(_PERIOD_S)
            else:
                return False
    sleep(_GRACE_S)
    return False
