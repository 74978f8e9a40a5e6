"""Keeps the files of scrape targets as the services are: the loop that runs inside every monitors job.

It needs nobody's shell: a service is a target from its announcement on, and is none any more when its job has
ended, however it ended. It reads logs and asks the scheduler; no service is asked anything.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from aifbench.cluster.announce import Announcement, read_announcement
from aifbench.cluster.endpoint import Endpoint
from aifbench.cluster.jobs import JobInfo, JobState
from aifbench.cluster.targets import (
    BENCH,
    BENCH_EXPIRY_S,
    EXPORTER,
    SERVICE,
    TARGETS_DIR,
    Target,
    remove_targets,
    write_targets,
)
from aifbench.servers.base import SlurmServer
from aifbench.servers.instance import Instance
from aifbench.servers.registry import kinds, server_class
from aifbench.servers.site import Site

SYNC_S = 2.0
# The end of a job may be seen so much later; a scheduler is not to be asked more often by a loop.
_JOB_AGE_S = 15.0
# Ports that an announcement has for exporters.
_EXPORTERS = ("node", "gpu")


class TargetKeeper:
    """`sync` makes the directory say what is true now; it forgets nothing between calls but what is gone."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._directory = site.config.services_dir / TARGETS_DIR
        self._beats: dict[str, tuple[int, float]] = {}

    def sync(self) -> None:
        """Write and remove files. Raises OSError where the disk takes nothing."""
        wanted: dict[str, Sequence[Target]] = {}
        servers = list(self._servers())
        jobs = [server.instance.job_id for server in servers if not server.instance.is_attached]
        infos = self._site.tracker.infos([job_id for job_id in jobs if job_id], max_age_s=_JOB_AGE_S)
        for server in servers:
            wanted |= self._targets(server, infos.get(server.instance.job_id))
        for name, targets in wanted.items():
            write_targets(self._directory, name, targets)
        for name in self._stored():
            if name not in wanted and not (name.startswith(BENCH) and self._beats_still(name)):
                remove_targets(self._directory, name)

    def _servers(self) -> Iterator[SlurmServer]:
        for instance in self._site.instances.open_instances():
            is_here = instance.is_attached or instance.scheduler == self._site.scheduler.kind
            if is_here and instance.kind in kinds():
                yield server_class(instance.kind)(self._site, instance)

    def _targets(self, server: SlurmServer, job: JobInfo | None) -> dict[str, Sequence[Target]]:
        """Its files by name; none for one that is not announced, and for one whose job has ended."""
        instance = server.instance
        if instance.is_attached:
            endpoint = Endpoint.from_json(instance.endpoint)
            labels = _labels(instance, endpoint.host, instance.kind)
            return _files(instance, _labelled(server.metrics_targets(endpoint), labels), ())
        if job is None or not self._may_live(job):
            return {}
        announced = read_announcement(server.log_path, instance.job_id)
        if announced is None or announced.restarts < job.restarts:
            return {}
        endpoint = Endpoint(announced.host, announced.port, ports=announced.ports)
        labels = _labels(instance, announced.node or announced.host, instance.kind)
        exporters = [*_announced_exporters(instance, announced), *_told_exporters(server, announced)]
        return _files(instance, _labelled(server.metrics_targets(endpoint), labels), exporters)

    def _may_live(self, job: JobInfo) -> bool:
        """A job that the scheduler cannot tell of is believed to live; one it does not know has ended."""
        if job.state is JobState.UNKNOWN:
            return bool(self._site.tracker.problem or job.advice)
        return not job.state.is_final and not (job.state.is_waiting and job.restarts)

    def _stored(self) -> list[str]:
        return [path.stem for path in self._directory.glob("*.json") if _is_ours(path.stem)]

    def _beats_still(self, name: str) -> bool:
        """Whether its writer has touched it lately, by our clock: those of other nodes may differ."""
        now_s = self._site.clock.monotonic_s()
        try:
            beat = (self._directory / f"{name}.json").stat().st_mtime_ns
        except OSError:
            return False
        if self._beats.get(name, (0, 0.0))[0] != beat:
            self._beats[name] = beat, now_s
        if now_s - self._beats[name][1] < BENCH_EXPIRY_S:
            return True
        del self._beats[name]
        return False


def keep_targets(site: Site, note: Callable[[str], None]) -> None:
    """Sync for ever. A disk that takes nothing is told once, until it does again."""
    keeper, problem = TargetKeeper(site), ""
    while True:
        try:
            keeper.sync()
            now = ""
        except OSError as error:
            now = f"targets cannot be written: {error.strerror or error}"
        if now and now != problem:
            note(now)
        problem = now
        site.clock.sleep(SYNC_S)


def _is_ours(name: str) -> bool:
    return name.startswith((SERVICE, EXPORTER, BENCH))


def _files(
    instance: Instance, own: Sequence[Target], exporters: Sequence[Target]
) -> dict[str, Sequence[Target]]:
    named = {f"{SERVICE}{instance.job_name}": own, f"{EXPORTER}{instance.job_name}": exporters}
    return {name: targets for name, targets in named.items() if targets}


def _labels(instance: Instance, node: str, job: str) -> dict[str, str]:
    return {
        "job": job,
        "service": instance.name,
        "kind": instance.kind,
        "job_id": instance.job_id or "none",
        "node": node,
    }


def _labelled(targets: Sequence[Target], labels: Mapping[str, str]) -> list[Target]:
    return [
        Target(target.address, {**labels, **target.labels}, target.scheme, target.path) for target in targets
    ]


def _announced_exporters(instance: Instance, announced: Announcement) -> Iterator[Target]:
    for label in _EXPORTERS:
        if port := announced.ports.get(label):
            address = Endpoint(announced.host, port, scheme="none").authority
            yield Target(address, _labels(instance, announced.node or announced.host, label))


def _told_exporters(server: SlurmServer, announced: Announcement) -> Iterator[Target]:
    """Those on further nodes of the job, which lib/exporters.sh tells of in files."""
    for path in sorted((server.directory / "exporters").glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            told = json.loads(path.read_bytes())
            if told["restarts"] != announced.restarts:
                continue
            for label in _EXPORTERS:
                if port := told["ports"].get(label):
                    address = Endpoint(str(told["host"]), int(port), scheme="none").authority
                    yield Target(address, _labels(server.instance, str(told["node"]), label))
