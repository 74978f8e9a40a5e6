"""Services: start, attach, watch and stop them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aifbench.cluster.tracker import REST_AGE_S
from aifbench.errors import BenchError, ServiceError, UnknownService, UsageError
from aifbench.options import Option, nearest
from aifbench.servers.attached import attach, attach_options
from aifbench.servers.base import SlurmServer
from aifbench.servers.instance import Instance
from aifbench.servers.log import ALL, Wanted
from aifbench.servers.options import LOAD_OPTIONS, with_own
from aifbench.servers.registry import kinds, server_class
from aifbench.servers.status import ServiceStatus
from aifbench.session.core import SessionCore

if TYPE_CHECKING:
    from aifbench.monitor.live import NodeView, RunWatch

# Services that ended are still shown for this long, so that a death is not overlooked.
SHOW_ENDED_S = 3600.0


class SessionServices(SessionCore):
    """Safe to use from a background thread for `status`."""

    def kinds(self) -> list[str]:
        return kinds()

    def describe(self, kind: str) -> str:
        """What a kind of service is, in one line."""
        return server_class(kind).description

    def start_options(self, kind: str) -> tuple[Option, ...]:
        return server_class(kind).start_options(self._site)

    def runs_and_ends(self, kind: str) -> bool:
        """Whether its job ends before it is measured, and its `nodes` are those that make the load."""
        return server_class(kind).runs_and_ends

    def bench_names(self, kind: str) -> tuple[str, ...]:
        return server_class(kind).benches

    def bench_options(self, kind: str) -> tuple[Option, ...]:
        return with_own(LOAD_OPTIONS, server_class(kind).bench_options)

    def instances(self) -> list[str]:
        """Names of this scheduler's services whose end has not been seen; no scheduler call."""
        return [
            instance.name for instance in self._site.instances.open_instances() if self._is_here(instance)
        ]

    def server(self, name: str) -> SlurmServer:
        """The living service of that name, else its latest. Raises UnknownService, naming the nearest."""
        known = {instance.name: instance for instance in self._site.instances.all()}
        if name in known:
            instance = known[name]
            return server_class(instance.kind)(self._site, instance)
        alive = self.instances()
        first = name if name in kinds() else kinds()[0]
        hint = f"running: {', '.join(alive)}" if alive else f"none is running; `start {first}` starts one"
        raise UnknownService(f"no service is called {name!r}{nearest(name, known)}", hint=hint)

    def kind_of(self, name: str) -> str:
        """The kind of the service called `name`."""
        return self.server(name).instance.kind

    def start(self, kind: str, given: Mapping[str, Any]) -> ServiceStatus:
        """Submit a service; it is QUEUED or STARTING when this returns. `detail` has the site's message."""
        status = server_class(kind).start(self._site, given).status(max_age_s=0)
        self.events.write("info", "start", service=status.name, kind=kind, job=status.job.job_id)
        message = self._site.scheduler.last_message.replace("\n", "; ")
        return replace(status, detail="; ".join(filter(None, (status.detail, message))))

    def attachable_kinds(self) -> list[str]:
        return [kind for kind in kinds() if server_class(kind).attachable]

    def attach_options(self, kind: str) -> tuple[Option, ...]:
        return attach_options(server_class(kind))

    def attach(self, kind: str, url: str, given: Mapping[str, Any]) -> ServiceStatus:
        """Use a service that somebody else started, by its address; it is READY when this returns.

        Raises UsageError for an address, name or key that cannot be used, ServiceError for a service that
        cannot.
        """
        server = server_class(kind)
        if not server.attachable:
            valid = ", ".join(self.attachable_kinds()) or "none yet"
            raise UsageError(f"{kind} cannot be attached", hint=f"kinds that can: {valid}")
        status = attach(server, self._site, url, given, self._environ).status()
        self.events.write("info", "attach", service=status.name, kind=kind, url=url)
        return status

    def dry_run(self, kind: str, given: Mapping[str, Any]) -> str:
        """What `start` would run: environment, script and command, as text."""
        return server_class(kind).dry_run(self._site, given)

    def status(self, *, max_age_s: float = REST_AGE_S) -> list[ServiceStatus]:
        """Every living service, and those that ended lately; one scheduler call for all of them."""
        earliest_s = self._site.clock.wall_s() - SHOW_ENDED_S
        shown = {
            instance.name: instance
            for instance in self._site.instances.all()
            if instance.kind in kinds() and (instance.is_open or instance.ended_wall_s > earliest_s)
        }.values()
        asked = [found.job_id for found in shown if _has_job(found) and self._is_here(found)]
        self._site.tracker.infos(asked, max_age_s=max_age_s)
        # What was just asked for is not asked for again, however long the probes take.
        max_age_s = max(max_age_s, REST_AGE_S)
        servers = [server_class(instance.kind)(self._site, instance) for instance in shown]
        self._cached = [server.status(max_age_s=max_age_s) for server in servers]
        return self._cached

    def status_of(self, name: str) -> ServiceStatus:
        """One service, as `status` has it."""
        return self.server(name).status()

    def cached_status(self) -> list[ServiceStatus]:
        """What `status` said last; never blocks."""
        return self._cached

    def check(
        self,
        name: str,
        *,
        wait_s: float = 0.0,
        progress: Callable[[ServiceStatus], None] = lambda _: None,
    ) -> ServiceStatus:
        """See SlurmServer.check."""
        return self.server(name).check(wait_s=wait_s, progress=progress)

    def logs(self, name: str, *, lines: int = 50, wanted: Wanted = ALL) -> list[str]:
        """The last lines of the service's logs, those that are `wanted`."""
        return self._with_log(name).chosen_log_lines(lines, wanted)

    def follow(self, name: str, *, wanted: Wanted = ALL) -> Iterator[str]:
        """The logs' lines as they come, until the service's job has ended."""
        return self._with_log(name).follow_log(wanted)

    def run_watch(self, name: str) -> "RunWatch":
        """To look at the benchmark that loads the service, from whatever shell it was started."""
        from aifbench.monitor.live import RunWatch

        return RunWatch(self._site.runs, name, self._site.clock)

    def nodes_now(self, name: str, run_id: str = "") -> "dict[str, list[NodeView]]":
        """What samplers see of the service's nodes, and of those that make the load of a run."""
        from aifbench.monitor.live import nodes_now

        now_s = self._site.clock.wall_s()
        clients = nodes_now(self._site.runs.path(run_id) / "phases", now_s) if run_id else []
        return {"service": nodes_now(self.server(name).directory, now_s), "clients": clients}

    def stop(self, names: Sequence[str]) -> list[ServiceStatus]:
        """Stop these services, or `all`; returns when their jobs have ended. Attached ones are forgotten.

        One that cannot be stopped does not keep the others; its error is raised at the end.
        """
        chosen = self.instances() if list(names) == ["all"] else dict.fromkeys(names)
        servers = [self.server(name) for name in chosen]
        errors: list[BenchError] = []
        asked, statuses = [], []
        for server in servers:
            with _noting(errors):
                server.request_end()
                asked.append(server)
        for server in asked:
            with _noting(errors):
                statuses.append(server.await_end())
                self.events.write("info", "stop", service=server.name, job=server.instance.job_id)
        if errors:
            raise errors[0]
        return statuses

    def keep_targets(self, note: Callable[[str], None] = print) -> None:
        """Keep Prometheus's target files as the services are, for ever: the monitors' job runs this."""
        from aifbench.servers.monitor_targets import keep_targets

        keep_targets(self._site, note)

    def _free_name(self, base: str) -> str:
        taken = {instance.name for instance in self._site.instances.open_instances()}
        names = [base, *(f"{base}-{number}" for number in range(2, 1000))]
        return next(name for name in names if name not in taken)

    def _is_here(self, instance: Instance) -> bool:
        return instance.is_attached or instance.scheduler in ("", self._site.scheduler.kind)

    def _with_log(self, name: str) -> SlurmServer:
        server = self.server(name)
        if server.instance.is_attached:
            raise ServiceError(f"{name} was attached: its log is with whoever started it")
        return server


def _has_job(instance: Instance) -> bool:
    """There is something to ask the scheduler about."""
    return bool(instance.is_open and instance.job_id and not instance.is_made)


@contextmanager
def _noting(errors: list[BenchError]) -> Iterator[None]:
    """Go on after an expected error, which is kept."""
    try:
        yield
    except BenchError as error:
        errors.append(error)
