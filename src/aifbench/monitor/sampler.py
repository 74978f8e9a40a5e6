"""What one node does, a line of JSON a second: `python -m aifbench.monitor.sampler DIRECTORY [PARENT]`.

Writes DIRECTORY/resources-<host>.jsonl: first a line that says what is read and what cannot be, then samples
with the counters as they are (see proc, gpu, energy) and both clocks. Ends with the process PARENT (by
default the one that started it), with its directory, or on SIGTERM. Uses the standard library only, and as
little of it as it can.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from aifbench.monitor.energy import Rapl
from aifbench.monitor.gpu import Gpus, find_gpus
from aifbench.monitor.proc import Machine

SCHEMA = "aifbench.resources/1"
INTERVAL_S = 1.0
RING_BYTES = 32 << 20
_NICEST = 19


def file_name(host: str) -> str:
    return f"resources-{host}.jsonl"


class Ring:
    """Two files of at most `limit_bytes`: when one is full it becomes `<name>.1` and another is begun.

    A file is opened for each line, so that other nodes see it soon, and so that a directory which is gone is
    noticed. `head` opens every file.
    """

    def __init__(self, path: Path, head: str, *, limit_bytes: int = RING_BYTES) -> None:
        self._path = path
        self._head = head
        self._limit_bytes = limit_bytes
        self._begin = True

    def write(self, line: str) -> None:
        """Raises OSError; the line is lost then, and the next one tries anew."""
        with suppress(FileNotFoundError):
            if self._path.stat().st_size + len(line) > self._limit_bytes:
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
                self._begin = True
        text = f"{self._head}\n{line}\n" if self._begin else f"{line}\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            # What a full disk has cut off before must not swallow this line.
            os.write(descriptor, text.encode() if self._begin is False else f"\n{text}".encode())
        finally:
            os.close(descriptor)
        self._begin = False


class Sampler:
    """Reads everything once per `sample`."""

    def __init__(self, machine: Machine, gpus: Gpus | None, rapl: Rapl) -> None:
        self._machine = machine
        self._gpus = gpus
        self._rapl = rapl

    def sample(self) -> dict[str, Any]:
        wall_s, monotonic_s = time.time(), time.monotonic()
        values = {"t": round(wall_s, 4), "m": round(monotonic_s, 4), **self._machine.read()}
        if self._gpus is not None and (gpus := self._gpus.read()):
            values["gpu"] = gpus
        if joules := self._rapl.read():
            values["rapl"] = joules
        return values


def describe(machine: Machine, gpus: Gpus | None, no_gpus: str, rapl: Rapl) -> dict[str, Any]:
    """The first line: of what machine and job the samples are, and what is not among them."""
    missing = dict(machine.missing)
    if gpus is None:
        missing["gpu"] = no_gpus
    if rapl.missing:
        missing["rapl"] = rapl.missing
    return {
        "schema": SCHEMA,
        "host": socket.gethostname(),
        "boot_id": _boot_id(),
        "pid": os.getpid(),
        "job_id": os.environ.get("SLURM_JOB_ID", ""),
        "interval_s": INTERVAL_S,
        "cpus": os.cpu_count() or 1,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "interfaces": machine.interfaces,
        "disks": machine.disks,
        "gpus": dict(gpus.names) if gpus else {},
        "gpu_source": gpus.source if gpus else "",
        "rapl_zones": rapl.zones,
        "missing": missing,
    }


def run(
    sample: Callable[[], Mapping[str, Any]],
    ring: Ring,
    *,
    is_over: Callable[[], bool],
    wait: Callable[[float], bool],
    now_s: Callable[[], float] = time.monotonic,
) -> None:
    """One line per interval until `is_over`, or `wait` (of seconds) says that the end was asked for.

    Seconds that were missed, as by a machine that stood still, are not made up for.
    """
    due_s = now_s()
    while not is_over():
        try:
            ring.write(json.dumps(sample(), separators=(",", ":")))
        except FileNotFoundError:
            return  # the directory is gone, and with it whoever wanted to know
        except OSError:
            pass  # a full disk may have room again
        due_s += INTERVAL_S
        if due_s < now_s():
            due_s = now_s() + INTERVAL_S
        if wait(max(0.0, due_s - now_s())):
            break
    with suppress(OSError):  # up to the very end
        ring.write(json.dumps(sample(), separators=(",", ":")))


def _boot_id() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def _stay_out_of_the_way() -> None:
    """Yield to whatever is measured; and leave the processor that the starting process is bound to."""
    with suppress(OSError):
        os.nice(_NICEST)
    with suppress(OSError):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def main(argv: list[str]) -> int:
    directory = Path(argv[0])
    parent = int(argv[1]) if len(argv) > 1 else os.getppid()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who started this
    _stay_out_of_the_way()
    machine, rapl = Machine(), Rapl()
    gpus, no_gpus = find_gpus(os.environ)
    head = json.dumps(describe(machine, gpus, no_gpus, rapl))
    sampler = Sampler(machine, gpus, rapl)
    ring = Ring(directory / file_name(socket.gethostname()), head)
    run(sampler.sample, ring, is_over=lambda: os.getppid() != parent, wait=ended.wait)
    if gpus is not None:
        gpus.close()
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)  # not waiting for a thread that a driver may hold for ever
