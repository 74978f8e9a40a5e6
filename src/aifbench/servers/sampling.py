"""What the machines did during a run: one sampler where load is made here, and the joining of all samples.

On the nodes of jobs the batch scripts start samplers. Whatever is missing in the end is told, and never in
the way of the run.
"""

import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from aifbench.clock import Clock, utc_text
from aifbench.cluster.jobs import Scheduler
from aifbench.errors import SchedulerError
from aifbench.load.clocksync import boot_id
from aifbench.load.plan import WorkerReport
from aifbench.results.record import Measurement, RunRecord
from aifbench.results.resource_samples import NodeSamples, newest, read_files
from aifbench.results.resource_use import MIN_COVERED, energy_metrics, node_use, series_step_s
from aifbench.results.resources import JobUse, NodeUse, PhaseSpan, Resources
from aifbench.servers.base import SlurmServer

SAMPLER = "aifbench.monitor.sampler"
SERVER = "server"
CLIENT = "client"
# How long before the run quiet seconds are looked for.
_BEFORE_S = 120.0
# A sampler that writes has written within this time; a shared file system may show it that late.
_ALIVE_S = 3.0
_STOP_S = 2.0

Key = tuple[str, str]  # host and boot id: nodes may share a name, and in tests a kernel


@dataclass(frozen=True, slots=True)
class _Seen:
    """One phase: when it began on the load's clock, and which of the record's measurements are of it."""

    span: PhaseSpan
    start_s: float
    measurements: range


@dataclass(slots=True)
class _Node:
    """`samples` are on the load's clock; their lines are to be kept in `folder`, None where they are."""

    samples: NodeSamples
    roles: list[str]
    offset_s: float | None
    folder: Path | None = None
    note: str = ""


class Sampling:
    """Of one run, whose directory is `directory`; to be made when the run begins."""

    def __init__(self, services: Mapping[str, SlurmServer], directory: Path, clock: Clock) -> None:
        self._services = {role: s for role, s in services.items() if not s.instance.is_attached}
        self._directory = directory
        self._clock = clock
        self._begun_s = clock.wall_s()
        self._first_lags = self._lags()
        self._seen: list[_Seen] = []
        self._offsets: dict[str, float] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def start_here(self, python: str, root: Path) -> None:
        """Sample this machine into `root`, unless a service's sampler does so already."""
        if self._is_sampled_here():
            return
        source = str(Path(__file__).resolve().parents[2])
        with suppress(OSError):  # then there are no samples
            root.mkdir(parents=True, exist_ok=True)
            self._process = subprocess.Popen(
                [python, "-S", "-m", SAMPLER, str(root), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": source},
                start_new_session=True,
            )

    def _is_sampled_here(self) -> bool:
        """By a process that lives: what it wrote a moment ago tells nothing of now."""
        here = (socket.gethostname(), boot_id())
        heads = [
            known.head
            for s in self._services.values()
            for known in newest(s.directory)
            if _key(known) == here
        ]
        return any(_is_sampler(head.get("pid")) for head in heads)

    def stop(self) -> None:
        """End the sampler that was started here; it takes a last sample."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def saw(
        self,
        phase: str,
        start_wall_s: float,
        reports: Sequence[WorkerReport],
        measurements: Sequence[Measurement],
        before: int,
        *,
        is_measured: bool,
    ) -> None:
        """A phase has just ended; `measurements` are what it added to the `before` that there were."""
        self._offsets |= {report.host: report.clock_offset_s for report in reports if report.host}
        begin_s, end_s = start_wall_s, self._clock.wall_s()
        if measurements:
            begin_s = start_wall_s + min(m.window_s[0] for m in measurements)
            end_s = start_wall_s + max(m.window_s[1] for m in measurements)
        start_s, stop_s = (round(s - self._begun_s, 3) for s in (begin_s, max(begin_s, end_s)))
        span = PhaseSpan(phase, start_s, stop_s, is_measured)
        self._seen.append(_Seen(span, start_wall_s, range(before, before + len(measurements))))

    def join(self, record: RunRecord, scheduler: Scheduler, client_job_id: str) -> RunRecord:
        """The record with its `resources`, and energies among its metrics. What was used is kept with the
        run.
        """
        nodes = self._nodes()
        spans = tuple(seen.span for seen in self._seen)
        step_s = series_step_s(spans)
        uses = [
            node_use(n.samples, n.roles, spans, self._begun_s, step_s, offset_s=n.offset_s) for n in nodes
        ]
        resources = Resources(
            started_utc=utc_text(self._begun_s),
            phases=spans,
            nodes=tuple(uses),
            jobs=self._jobs(scheduler, client_job_id),
            series_step_s=step_s,
            notes=tuple(self._notes(nodes, uses)),
        )
        samples = [node.samples for node in nodes]
        measurements = self._with_energy(record.measurements, list(zip(uses, samples, strict=True)))
        for node in nodes:
            _keep(node)
        return replace(record, resources=resources, measurements=measurements)

    def _with_energy(
        self, measurements: Sequence[Measurement], nodes: Sequence[tuple[NodeUse, NodeSamples]]
    ) -> tuple[Measurement, ...]:
        """Where it is clear what the energy was for: one service, all of whose nodes were seen, one load."""
        found = list(measurements)
        servers = [pair for pair in nodes if any(role.startswith(SERVER) for role in pair[0].roles)]
        if len(self._services) != 1 or len(servers) != sum(map(_node_count, self._services.values())):
            return tuple(found)
        for seen in self._seen:
            if len(seen.measurements) == 1:
                at = seen.measurements.start
                more = energy_metrics(found[at], servers, seen.start_s)
                found[at] = replace(found[at], metrics=(*found[at].metrics, *more))
        return tuple(found)

    def _nodes(self) -> list[_Node]:
        """Every node that was seen, once, with all its roles."""
        begin_s, end_s = self._begun_s - _BEFORE_S, self._clock.wall_s()
        found: dict[Key, _Node] = {}
        for role, server in self._services.items():
            for known in newest(server.directory):
                key = _key(known)
                if key in found:
                    found[key].roles.append(_server_role(role))
                    continue
                offset_s, note = self._offset(known, end_s)
                moved_s = offset_s or 0.0
                for samples in read_files(server.directory, begin_s + moved_s, end_s + moved_s):
                    if samples.stretches and _key(samples) == key:
                        folder = self._directory / "service" / role
                        found[key] = _Node(
                            samples.moved(moved_s), [_server_role(role)], offset_s, folder, note
                        )
        for samples in read_files(self._directory / "phases", begin_s, end_s):
            offset_s = self._offsets.get(samples.node)
            if samples.stretches:
                found.setdefault(_key(samples), _Node(samples.moved(offset_s or 0.0), [], offset_s))
        for node in found.values():
            if node.samples.node in self._offsets:
                node.roles.append(CLIENT)
        return [node for node in found.values() if node.roles]

    def _offset(self, known: NodeSamples, now_s: float) -> tuple[float | None, str]:
        """How far a server node's clock is ahead of the load's: told by a load worker there, else guessed
        from how late its lines come, both at the run's begin and at its end: what has stopped comes later and
        later.
        """
        if known.node in self._offsets:
            return self._offsets[known.node], ""
        first_s, lag_s = self._first_lags.get(_key(known)), now_s - (known.last_s or 0.0)
        is_steady = first_s is not None and abs(first_s - lag_s) <= _ALIVE_S
        if lag_s < -_ALIVE_S / 2 or (lag_s > 2 * _ALIVE_S and is_steady):
            way = "ahead" if lag_s < 0 else "behind"
            return (
                -lag_s,
                f"the clock of {known.node} is about {abs(lag_s):.0f} s {way}; its samples were moved",
            )
        return None, ""

    def _lags(self) -> dict[Key, float]:
        """How long ago the newest line of each server node was written, by that node's own clock."""
        now_s = self._clock.wall_s()
        return {
            _key(known): now_s - known.last_s
            for server in self._services.values()
            for known in newest(server.directory)
            if known.last_s is not None
        }

    def _jobs(self, scheduler: Scheduler, client_job_id: str) -> tuple[JobUse, ...]:
        roles = {s.instance.job_id: _server_role(role) for role, s in self._services.items()}
        roles |= {client_job_id: CLIENT}
        roles.pop("", None)
        with suppress(SchedulerError):
            return tuple(
                JobUse(u.job_id, roles[u.job_id], u.source, u.max_rss_bytes, u.cpu_s, u.energy_j)
                for u in scheduler.usage(list(roles))
            )
        return ()

    def _notes(self, nodes: Sequence[_Node], uses: Sequence[NodeUse]) -> Iterator[str]:
        for role, server in self._services.items():
            seen = sum(_server_role(role) in node.roles for node in nodes)
            if seen < _node_count(server):
                yield f"no samples of {_node_count(server) - seen} of {server.name}'s nodes"
        clients = {node.samples.node for node in nodes if CLIENT in node.roles}
        if unseen := sorted(self._offsets.keys() - clients):
            yield f"no samples of {', '.join(unseen)}, where load was made"
        yield from (node.note for node in nodes if node.note)
        for use in uses:
            if len(use.roles) > 1:
                yield f"{' and '.join(use.roles)} share {use.node}: what is told of it is of all together"
            for phase in use.phases:
                if phase.covered < MIN_COVERED:
                    yield f"{use.node} was seen for {100 * phase.covered:.0f} % of {phase.phase}"


def _is_sampler(pid: object) -> bool:
    """Numbers are used again: the process has to be one."""
    try:
        return SAMPLER.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _key(samples: NodeSamples) -> Key:
    return samples.node, samples.boot_id


def _server_role(role: str) -> str:
    return f"{SERVER} {role}".strip()


def _node_count(server: SlurmServer) -> int:
    """Where every "node" is a process of this machine there is one."""
    return 1 if server.instance.scheduler == "local" else int(server.instance.options.get("nodes") or 1)


def _keep(node: _Node) -> None:
    """The lines that were used, beside the other files of the service."""
    if node.folder is None:
        return
    with suppress(OSError):
        node.folder.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{line}\n" for line in node.samples.lines)
        (node.folder / f"resources-{node.samples.node}.jsonl").write_text(text, encoding="utf-8")
