"""Ship the logs of all services to Loki, for as long as this runs, and ask nothing of anybody else.

    python -m aifbench.monitor.shipper SERVICES_DIR LOKI_URL STATE_FILE

The files are the buffer: while Loki is away only their growth is noted, and afterwards everything is sent, in
order. Labels: `job` (its id), `service` (its name), `kind`, `node`, and `stream`: `job` for the job's own
output, else the file's name. What is on its way is in STATE_FILE before it is sent: so also a shipper which
was killed repeats a request as it was, and Loki knows the lines again. SIGTERM ends it after a last look.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aifbench.cluster.announce import read_announcement
from aifbench.errors import ResultError
from aifbench.monitor.loki_push import Answer, LokiPush, push_body
from aifbench.monitor.tailed_log import PIECE_BYTES, Piece, Place, TailedLog, read_piece, timed
from aifbench.results.masking import secret_values

LOOK_S = 0.25
_FIND_S = 2.0
_REQUEST_BYTES = 2 * PIECE_BYTES
_RETRY_S = (0.25, 0.5, 1.0, 2.0, 5.0)
# A job says where it runs soon after its start; without that, its node is unknown.
_NODE_WAIT_S = 15.0
# How long a log may grow after its service's end.
_LAST_WORDS_S = 60.0
_LAST_TRIES = 3
UNKNOWN_NODE = "unknown"

Push = Callable[[bytes], tuple[Answer, str]]
Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Source:
    """A log file and the labels of its lines, `node` left empty as long as it is not known."""

    path: Path
    labels: Mapping[str, str]
    has_ended: bool


def find_sources(services_dir: Path) -> list[Source]:
    """The logs of every service that has a job; foreign and torn files are left alone."""
    found = []
    for path in sorted(services_dir.glob("*/service.json")):
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            service = json.loads(path.read_bytes())
            if service["job_id"]:
                logs = sorted(path.parent.glob("*.log"))
                found += [Source(log, _labels(service, log), bool(service["seen_end"])) for log in logs]
    return found


def _labels(service: Mapping[str, Any], log: Path) -> dict[str, str]:
    own = f"job-{service['job_id']}"
    return {
        "job": str(service["job_id"]),
        "service": str(service["name"]),
        "kind": str(service["kind"]),
        "node": log.stem.removeprefix(f"{own}-") if log.stem.startswith(f"{own}-") else "",
        "stream": "job" if log.stem.startswith(own) else log.stem,
    }


def node_of(source: Source) -> str:
    """The node that the source's job has announced, or nothing."""
    job_id = source.labels["job"]
    announced = read_announcement(source.path.parent / f"job-{job_id}.log", job_id)
    return announced.node if announced else ""


class Shipper:
    """`step` does what is due now and never waits; `lines_sent` and `lines_refused` count."""

    def __init__(
        self,
        services_dir: Path,
        push: Push,
        state_file: Path,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
        note: Note = lambda _: None,
    ) -> None:
        self._services_dir, self._push, self._state_file = services_dir, push, state_file
        self._monotonic_s, self._wall_ns, self._note = monotonic_s, wall_ns, note
        self._places, self._nodes, self._pending = _read_state(state_file)
        self._logs: dict[str, tuple[Source, TailedLog]] = {}
        self._first_seen_s: dict[str, float] = {}
        self._ended_s: dict[str, float] = {}
        self._secrets: dict[Path, Sequence[bytes]] = {}  # by the service's directory
        self._held: set[Path] = set()
        self._find_at_s = self._retry_at_s = monotonic_s()
        self._failures = 0
        self.lines_sent = 0
        self.lines_refused = 0

    @property
    def is_waiting(self) -> bool:
        """Loki is away."""
        return self._failures > 0

    def step(self) -> bool:
        """Look, and send one request when there is something to send; whether there may be more at once."""
        now_s, now_ns = self._monotonic_s(), self._wall_ns()
        if now_s >= self._find_at_s:
            self._find_at_s = now_s + _FIND_S
            self._find(now_s)
        for _, log in self._logs.values():
            log.look(now_ns)
        if self._failures and now_s < self._retry_at_s:
            return False
        if not self._sendable:
            self._pending |= self._collect(now_ns)
            if not self._sendable:
                return False
            self._write_state()
        return self._send()

    def _find(self, now_s: float) -> None:
        """Services that had ended before anybody looked are left out."""
        found = {}
        for source in find_sources(self._services_dir):
            key = str(source.path)
            known = self._logs.get(key)
            log = known[1] if known else TailedLog(source.path, self._places.get(key))
            is_new = known is None and key not in self._places and key not in self._pending
            if source.has_ended and (is_new or self._is_done(key, log, now_s)):
                continue
            if self._has_node(source, now_s):
                found[key] = (source, log)
        for gone in self._places.keys() - {str(path) for path in self._services_dir.glob("*/*.log")}:
            del self._places[gone]
        self._logs = found
        self._read_secrets()

    def _read_secrets(self) -> None:
        """What a secret that cannot be read is, nobody knows: the lines of its service wait until it can."""
        values: dict[Path, Sequence[bytes]] = {}
        held = set()
        for path in self._services_dir.glob("*/secret"):
            folder = path.parent
            if not path.is_file():
                continue
            try:
                values[folder] = secret_values([path])
            except ResultError:
                values[folder] = self._secrets.get(folder, ())
                held.add(folder)
        for folder in sorted(held - self._held):
            self._note(f"the secret in {folder} cannot be read; its lines stay in their files until it can")
        self._secrets, self._held = values, held

    def _is_held(self, key: str) -> bool:
        return Path(key).parent in self._held

    @property
    def _sendable(self) -> dict[str, Piece]:
        return {key: piece for key, piece in self._pending.items() if not self._is_held(key)}

    def _is_done(self, key: str, log: TailedLog, now_s: float) -> bool:
        """Nothing more is to be expected: its service ended a while ago."""
        since_s = now_s - self._ended_s.setdefault(key, now_s)
        return since_s > _LAST_WORDS_S and log.is_taken

    def _has_node(self, source: Source, now_s: float) -> bool:
        """Decides on the `node` label once: another one would make another stream of the same log."""
        key = str(source.path)
        if key not in self._nodes:
            node = source.labels["node"] or node_of(source)
            late = now_s - self._first_seen_s.setdefault(key, now_s) >= _NODE_WAIT_S
            if not node and not late and not source.has_ended:
                return False
            self._nodes[key] = node or UNKNOWN_NODE
        return True

    def _collect(self, now_ns: int) -> dict[str, Piece]:
        """What is new, of as many logs as a request holds; the others' turn is next."""
        pieces: dict[str, Piece] = {}
        size = 0
        for key in [*self._logs]:
            if key in self._pending or self._is_held(key):
                continue
            if size < _REQUEST_BYTES and (piece := self._logs[key][1].piece(now_ns)):
                pieces[key] = piece
                size += piece.end - piece.place.offset
                self._logs[key] = self._logs.pop(key)  # to the end of the queue
        return pieces

    def _send(self) -> bool:
        streams, places = [], {}
        values = {value for each in self._secrets.values() for value in each}
        secrets = sorted(values, key=len, reverse=True)  # one may be a part of another
        for key, piece in self._sendable.items():
            lines_of, key_bytes = read_piece(Path(key), piece, secrets)
            entries, places[key] = timed(lines_of, piece, key_bytes)
            if key in self._logs and entries:
                labels = {**self._logs[key][0].labels, "node": self._nodes[key]}
                streams.append((labels, entries))
        lines = sum(len(entries) for _, entries in streams)
        answer, reason = self._push(push_body(streams)) if streams else (Answer.TAKEN, "")
        if answer is Answer.AWAY:
            self._put_off(reason)
            return False
        if self._failures:
            self._note("Loki takes lines again; what it missed is sent now")
        self._failures = 0
        if answer is Answer.REFUSED:
            self.lines_refused += lines
            self._note(f"Loki refuses some of {lines} lines: {reason}")
        else:
            self.lines_sent += lines
        for key, place in places.items():
            self._places[key] = place
            if key in self._logs:
                self._logs[key][1].took(place)
            del self._pending[key]
        return True

    def _put_off(self, reason: str) -> None:
        if not self._failures:
            self._note(f"Loki takes no lines now ({reason}); they stay in their files until it does")
        self._retry_at_s = self._monotonic_s() + _RETRY_S[min(self._failures, len(_RETRY_S) - 1)]
        self._failures += 1

    def _write_state(self) -> None:
        state = {
            "places": {key: asdict(place) for key, place in self._places.items()},
            "nodes": {key: node for key, node in self._nodes.items() if key in self._logs},
            "pending": {key: asdict(piece) for key, piece in self._pending.items()},
        }
        partial = self._state_file.with_name(f"{self._state_file.name}.part")
        with suppress(OSError):  # at worst, lines are sent twice after a restart
            partial.write_text(json.dumps(state), encoding="utf-8")
            partial.replace(self._state_file)

    def close(self) -> None:
        """Send what is left, as long as Loki takes it, and keep the place."""
        self._find_at_s = self._monotonic_s()
        tries = _LAST_TRIES
        while tries and (self.step() or self._sendable):
            tries -= self.is_waiting
        self._write_state()


def _read_state(path: Path) -> tuple[dict[str, Place], dict[str, str], dict[str, Piece]]:
    """Places, nodes and what was on its way; nothing when there is no state that can be read."""
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        state = json.loads(path.read_bytes())
        places = {key: Place(**place) for key, place in state["places"].items()}
        pending = {
            key: Piece(**{**piece, "place": Place(**piece["place"])})
            for key, piece in state["pending"].items()
        }
        return places, {**state["nodes"]}, pending
    return {}, {}, {}


def run(shipper: Shipper, ended: threading.Event) -> None:
    """Until `ended`, or until whoever started this process is gone."""
    parent = os.getppid()
    while not ended.is_set() and os.getppid() == parent:
        if not shipper.step():
            ended.wait(LOOK_S)
    shipper.close()


def main(argv: Sequence[str]) -> int:
    try:
        services_dir, url, state_file = argv
        push = LokiPush(url)
    except ValueError as error:
        sys.stderr.write(f"{__doc__}\n{error}\n")
        return 2
    os.umask(0o077)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    run(Shipper(Path(services_dir), push, Path(state_file), note=_note), ended)
    return 0


def _note(text: str) -> None:
    sys.stderr.write(f"aifbench: log shipper: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
