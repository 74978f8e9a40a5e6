"""How soon a service that answers is noticed, and what many services at rest ask of the scheduler.

Real jobs of the local scheduler, run by the real batch script; the service is a stand-in that answers as
Chroma does, so that nothing else takes time. Noticing is from the first answer that somebody who asks
without a pause gets, to `check --wait` returning, or to the shell's background poller telling of it.
"""

import os
import socket
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from test.fakes.programs import install_module
from test.perf.claims import Line, options, show

from aifbench.cluster.jobs import JobInfo, JobSpec
from aifbench.cluster.local import LocalProcess
from aifbench.config import load_config
from aifbench.repl.poller import Poller
from aifbench.session import Session

SERVICES = 10
WINDOW_S = 10.0
REST_S = 5.0
TIMEOUT_S = 60.0


class Counting(LocalProcess):
    """The local scheduler, with a list of when it was asked for anything."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, grace_s=1.0)
        self.asked_s: list[float] = []

    def poll(self, job_ids: Iterable[str]) -> dict[str, JobInfo]:
        self.asked_s.append(time.monotonic())
        return super().poll(job_ids)

    def find(self, name: str) -> list[JobInfo]:
        self.asked_s.append(time.monotonic())
        return super().find(name)

    def submit(self, spec: JobSpec) -> str:
        self.asked_s.append(time.monotonic())
        return super().submit(spec)


@contextmanager
def shell() -> Iterator[tuple[Session, Counting]]:
    """A session of its own, with a `chroma` that starts at once; everything has ended afterwards."""
    with tempfile.TemporaryDirectory() as name:
        venv = Path(name) / "venv"
        install_module("chroma", "chroma", venv / "bin")
        os.environ |= {"AIFBENCH_VENV": str(venv), "AIFBENCH_BIND": "127.0.0.1", "AIFBENCH_RESULTS": name}
        config = load_config(os.environ)
        scheduler = Counting(config.services_dir / ".local")
        session = Session(config, scheduler=scheduler, environ={})
        try:
            yield session, scheduler
        finally:
            session.stop(["all"])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class FirstAnswer:
    """Asks without a pause, from now on, until the service answers."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v2/heartbeat"
        self.at_s = 0.0
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        deadline_s = time.monotonic() + TIMEOUT_S
        while not self.at_s and time.monotonic() < deadline_s:
            with suppress(OSError), urllib.request.urlopen(self._url, timeout=1):
                self.at_s = time.monotonic()
            time.sleep(0.002)

    def until(self, noticed_s: float) -> float:
        self._thread.join()
        assert self.at_s, "the service never answered"
        return max(0.0, noticed_s - self.at_s)


def noticed_by_check(session: Session) -> float:
    port = free_port()
    session.start("chroma", {"port": str(port)})
    first = FirstAnswer(port)
    session.check("chroma", wait_s=TIMEOUT_S)
    noticed_s = time.monotonic()
    session.stop(["chroma"])
    return first.until(noticed_s)


def noticed_by_poller(session: Session) -> float:
    port, told = free_port(), threading.Event()
    noticed: list[float] = []

    def alert(_: str) -> None:
        noticed.append(time.monotonic())
        told.set()

    poller = Poller(session, alert, is_idle=lambda: True)
    poller.start()
    poller.has_shown([session.start("chroma", {"port": str(port)})])
    first = FirstAnswer(port)
    assert told.wait(TIMEOUT_S)
    poller.stop()
    session.stop(["chroma"])
    return first.until(noticed[0])


def calls_at_rest(session: Session, scheduler: Counting, windows: int) -> list[float]:
    """Scheduler calls per 5 s of one shell's poller, over windows that each begin with a call."""
    for number in range(SERVICES):
        session.start("chroma", {"name": f"s{number}"})
    for number in range(SERVICES):
        session.check(f"s{number}", wait_s=TIMEOUT_S)
    assert len(session.instances()) == SERVICES
    poller = Poller(session, lambda _: None, is_idle=lambda: True)
    scheduler.asked_s.clear()
    poller.start()
    counts = []
    for _ in range(windows):
        seen = len(scheduler.asked_s)
        wait_until(lambda seen=seen: len(scheduler.asked_s) > seen)  # type: ignore[misc]
        begin_s = scheduler.asked_s[-1]
        time.sleep(WINDOW_S + 0.1)
        asked = [asked_s for asked_s in scheduler.asked_s if begin_s <= asked_s < begin_s + WINDOW_S]
        counts.append(len(asked) * REST_S / WINDOW_S)
    poller.stop()
    return counts


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def main(argv: Sequence[str]) -> int:
    repeats = options(str(__doc__)).parse_args(argv).repeats
    by_check = Line("from the first answer to `check --wait`", "s", at_most=1.0)
    by_poller = Line("from the first answer to the shell's own news", "s")
    with shell() as (session, scheduler):
        for _ in range(repeats):
            by_check.values.append(noticed_by_check(session))
            by_poller.values.append(noticed_by_poller(session))
        calls = calls_at_rest(session, scheduler, repeats)
    at_rest = Line(f"scheduler calls per 5 s, {SERVICES} services at rest", "", calls, at_most=1.0)
    naive = Line("  if each service were asked for", "", [float(SERVICES)])
    return show("readiness", [by_check, by_poller, at_rest, naive])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
