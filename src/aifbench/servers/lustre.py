"""Parallel file systems: a directory of our own on one, made and looked at by a job that runs and ends."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

from aifbench.cluster.announce import Announcement
from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import UsageError
from aifbench.options import Option, count_option
from aifbench.servers.base import Probe, SlurmServer
from aifbench.servers.benchmark import Benchmark, BenchmarkContext
from aifbench.servers.deployment import Deployment
from aifbench.servers.log_news import LogNews
from aifbench.servers.lustre_options import (
    BENCH_OPTIONS,
    BENCHES,
    parse_ini,
    parse_path,
    parse_stripe_count,
    parse_stripe_size,
)
from aifbench.servers.lustre_room import free_bytes
from aifbench.servers.site import Site
from aifbench.servers.status import ServiceStatus
from aifbench.units import format_size

_SAYS = "aifbench: "
_MOST_NODES = 10_000
_PATH_HINT = "give --path DIR, a directory of yours on the file system to be measured, which all nodes see"


class LustreServer(SlurmServer):
    """A place on a file system, Lustre or any other, and what its benchmarks do there.

    There is no daemon to start: its job makes the directory, looks at the file system from every node, and
    ends. Each benchmark is a job of its own with `--nodes` and `--procs`; `stop` removes the directory.
    """

    kind: ClassVar[str] = "lustre"
    description: ClassVar[str] = "file storage (Lustre or any other): bandwidth, metadata, AI jobs, IO500"
    script: ClassVar[str] = "start_lustre.sh"
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            "path",
            "existing directory on the file system to be measured",
            parse=parse_path,
            default="",
            metavar="DIR",
            asked=True,
        ),
        replace(count_option("nodes", "nodes that benchmarks use", 1, maximum=_MOST_NODES), asked=True),
        replace(
            count_option("procs", "processes that benchmarks use, over all nodes", 1, maximum=1_000_000),
            asked=True,
        ),
        Option(
            "ini",
            "IO500 configuration for `bench lustre io500`, instead of a profile",
            parse=parse_ini,
            default="",
            metavar="FILE",
            asked=True,
        ),
        Option("fs-type", "refuse any other type of file system, such as lustre", default="", metavar="TYPE"),
        Option(
            "stripe-count",
            "Lustre: objects that a file is spread over, 1 to 2000 or all",
            parse=parse_stripe_count,
            metavar="N",
        ),
        Option(
            "stripe-size",
            "Lustre: bytes on one object before the next, such as 1m or 4m",
            parse=parse_stripe_size,
            metavar="SIZE",
        ),
    )
    benches: ClassVar[tuple[str, ...]] = BENCHES
    steady_benches: ClassVar[tuple[str, ...]] = ("random",)
    bench_options: ClassVar[tuple[Option, ...]] = BENCH_OPTIONS
    has_secret: ClassVar[bool] = False
    max_nodes: ClassVar[int] = _MOST_NODES
    runs_and_ends: ClassVar[bool] = True

    @classmethod
    def start_options(cls, site: Site) -> tuple[Option, ...]:
        scratch = str(site.config.scratch_dir)
        return tuple(
            replace(option, default=scratch) if option.name == "path" else option
            for option in super().start_options(site)
        )

    @classmethod
    def plan(cls, site: Site, given: Mapping[str, Any]) -> Deployment:
        if not given.get("path"):  # the site's scratch, which `start` makes
            return super().plan(site, {**given, "path": str(site.config.scratch_dir)})
        path = parse_path(str(given["path"]))
        if not Path(path).is_dir():
            raise UsageError(f"--path {path} is no directory here", hint=_PATH_HINT)
        if not os.access(path, os.W_OK | os.X_OK):
            raise UsageError(f"--path {path} is not writable for you", hint=_PATH_HINT)
        return super().plan(site, {**given, "path": path})

    @classmethod
    def start(cls, site: Site, given: Mapping[str, Any]) -> Self:
        if not given.get("path"):
            scratch = site.config.scratch_dir
            try:
                scratch.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(f"cannot make {scratch}: {error.strerror}", hint=_PATH_HINT) from None
        return super().start(site, given)

    @classmethod
    def environment(cls, options: Mapping[str, Any]) -> dict[str, str]:
        values = {
            "AIFBENCH_FS_PATH": options["path"],
            "AIFBENCH_FS_TYPE": options["fs_type"],
            "AIFBENCH_STRIPE_COUNT": options["stripe_count"],
            "AIFBENCH_STRIPE_SIZE": options["stripe_size"],
        }
        return {name: str(value) for name, value in values.items() if value}

    @property
    def target(self) -> Path:
        """The directory that is ours; the job's own data directory, which is on scratch, has another name."""
        return Path(str(self.instance.options["path"])) / f"{self.instance.job_name}-files"

    @property
    def bench_defaults(self) -> Mapping[str, Any]:
        """What was chosen at the start holds for every benchmark, unless it is told otherwise."""
        chosen = self.instance.options
        nodes = chosen.get("nodes", 1)
        return {
            "client_nodes": nodes if nodes > 1 else None,
            "workers": chosen.get("procs"),
            "ini": chosen.get("ini"),
        }

    def probe(self, endpoint: Endpoint) -> Probe:
        """Whether the directory is still there."""
        seen = next(iter(self.survey()), {})
        if not Path(endpoint.prefix).is_dir():
            return Probe(is_ready=False, detail=f"{endpoint.prefix} is gone")
        kind, (free, of) = str(seen.get("type", "unknown type")), free_bytes(seen)
        room = "free space unknown" if free is None else f"{format_size(free)} free"
        whose = f" by the quota of {of}" if of else ""
        return Probe(is_ready=True, version=kind, detail=f"{kind}, {room}{whose}")

    def read_log(self, lines: Sequence[str]) -> LogNews:
        said = [line.removeprefix(_SAYS) for line in lines if line.startswith(_SAYS)]
        cause, _, advice = said[-1].partition("; ") if said else ("", "", "")
        return LogNews(cause=cause, advice=advice)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "file_system": {"directory": str(self.target), "nodes": self.survey()}}

    def survey(self) -> list[dict[str, Any]]:
        """What each node saw of the file system; see workloads.file_survey."""
        found = []
        for path in sorted(self.directory.glob("survey-*.json")):
            with suppress(OSError, ValueError):
                found.append(json.loads(path.read_bytes()))
        return found

    def request_end(self) -> None:
        """Also removes the directory with everything in it, and nothing else. Raises WorkloadError."""
        is_open = self.instance.is_open
        super().request_end()
        if is_open:
            self._remove_target()

    def await_end(self) -> ServiceStatus:
        status = super().await_end()
        self._remove_target()  # a job that was under way may have made it meanwhile
        return status

    def _remove_target(self) -> None:
        from aifbench.workloads.file_own_directory import OwnDirectory

        if os.path.lexists(self.target):
            OwnDirectory.find(self.target).remove()

    def benchmark(self, bench: str, options: Mapping[str, Any], context: BenchmarkContext) -> Benchmark:
        from aifbench.servers.lustre_bench import FileBenchmark

        return FileBenchmark(bench, options, context, self.target, self.survey())

    def _endpoint(self, announced: Announcement) -> Endpoint:
        return Endpoint(announced.host, 0, scheme="file", prefix=str(self.target))
