"""The background look at services: keeps the toolbar current and tells what became ready or died."""

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from aifbench.errors import BenchError
from aifbench.repl.wording import ready_text
from aifbench.servers.status import ServiceStatus, Stage
from aifbench.units import format_duration

if TYPE_CHECKING:
    from aifbench.session import Session

_POLL_S = 5.0
_POLL_STARTING_S = 1.0  # probes are cheap; the scheduler itself is still asked every 5 s only
_ENDS_SOON_S = 300.0


class Poller:
    """Looks at the services of `session` while `is_idle()`, and gives each news line to `alert`."""

    def __init__(self, session: "Session", alert: Callable[[str], None], is_idle: Callable[[], bool]) -> None:
        self._session = session
        self._alert = alert
        self._is_idle = is_idle
        self._last: dict[str, ServiceStatus] = {}
        self._shown_count = 0
        self._is_stopped = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="poller", daemon=True)
        self.trouble = ""

    @property
    def statuses(self) -> list[ServiceStatus]:
        """The services as last seen, by the poller or by the user."""
        return list(self._last.values())

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask for the end; a look under way may still finish, harmlessly."""
        self._is_stopped = True
        self._wake.set()

    def has_shown(self, statuses: Iterable[ServiceStatus]) -> None:
        """The user has just seen `statuses`: they are no news, and the next look is due now."""
        self._last = self._last | {status.name: status for status in statuses}
        self._shown_count += 1
        self._wake.set()

    def poll(self) -> float:
        """Look once. Seconds until the next look is due."""
        if not self._is_idle():
            return _POLL_STARTING_S
        shown_before = self._shown_count
        try:
            statuses = self._session.status(max_age_s=_POLL_S) if self._session.instances() else []
        except BenchError as error:
            self.trouble = error.message
            return _POLL_S
        self.trouble = ""
        if self._shown_count != shown_before:  # what was seen meanwhile is newer
            return _POLL_STARTING_S
        for line in news(self._last, statuses):
            self._alert(line)
        self._last = {status.name: status for status in statuses}
        starting = any(status.stage is Stage.STARTING for status in statuses)
        return _POLL_STARTING_S if starting else _POLL_S

    def _run(self) -> None:
        while not self._is_stopped:
            self._wake.clear()
            self._wake.wait(self.poll())


def news(before: Mapping[str, ServiceStatus], now: Iterable[ServiceStatus]) -> list[str]:
    """A line for each service that became ready, fell silent, ended, or soon will; what is new is no news."""
    lines = [_change(before[status.name], status) for status in now if status.name in before]
    return [line for line in lines if line]


def _change(old: ServiceStatus, new: ServiceStatus) -> str:
    if new.stage is not old.stage:
        return _arrival(new)
    left_s, left_before_s = new.job.time_left_s, old.job.time_left_s
    if (
        new.is_alive
        and left_s is not None
        and left_before_s is not None
        and left_s <= _ENDS_SOON_S < left_before_s
    ):
        return f"{new.name} (job {new.job.job_id}) reaches its time limit in {format_duration(left_s)}"
    return ""


def _arrival(status: ServiceStatus) -> str:
    reason = f": {status.detail}" if status.detail else ""
    if status.stage is Stage.READY:
        return ready_text(status)
    if status.stage is Stage.FAILED:
        return f"{status.name} died{reason}; see `logs {status.name}`"
    if status.stage is Stage.SILENT:
        return f"{status.name} does not answer any more{reason}; see `check {status.name}`"
    if status.stage is Stage.ENDED:
        return f"{status.name} has ended{reason}"
    return ""
