"""Benchmarks: load one service, or several at once."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aifbench.cluster.endpoint import Endpoint
from aifbench.cluster.targets import TARGETS_DIR
from aifbench.errors import BenchError
from aifbench.load.progress import Progress
from aifbench.options import Option
from aifbench.servers.registry import server_class
from aifbench.session.services import SessionServices

if TYPE_CHECKING:
    from aifbench.results.record import RunRecord
    from aifbench.servers.benchmark import Target
    from aifbench.servers.calibrate import Calibration


class SessionBenchmarks(SessionServices):
    """What measures."""

    def bench(
        self,
        name: str,
        bench: str,
        given: Mapping[str, Any],
        progress: Progress,
        *,
        study: Mapping[str, Any] | None = None,
    ) -> "RunRecord":
        """Run a benchmark on a ready service; see BenchRun.run for what happens when it ends early.

        `study` is added to the record's recipe.
        """
        from aifbench.servers.run import BenchRun, resolve_bench

        server = self.server(name)
        asked = {key: value for key, value in given.items() if value is not None}
        recipe = {**resolve_bench(type(server), bench, {**server.bench_defaults, **asked}), **(study or {})}
        if other := self.run_watch(name).look():
            progress.note(f"run {other.run_id} loads {name} now, too: each of the two measures both loads")
        with self._watched(server, server.instance.kind, recipe, progress) as (told, watched):
            return self._noted(BenchRun(self._site, server, told, watched).run())

    def together_options(self, together: str) -> tuple[Option, ...]:
        """Options of a benchmark of several services at once: `interference` or `rag`."""
        from aifbench.servers.together import together_options

        return together_options(together)

    def check_together(
        self,
        members: Mapping[str, tuple[str, str, Mapping[str, Any]]],
        together: str,
        given: Mapping[str, Any],
    ) -> None:
        """Raises UsageError for what `bench_together` would refuse; `members` are (kind, bench, options)."""
        from aifbench.servers.together import Member, resolve_together

        asked = {
            role: Member(server_class(kind), bench, options)
            for role, (kind, bench, options) in members.items()
        }
        resolve_together(asked, together, given)

    def bench_together(
        self,
        members: Mapping[str, tuple[str, str, Mapping[str, Any]]],
        together: str,
        given: Mapping[str, Any],
        progress: Progress,
        *,
        study: Mapping[str, Any] | None = None,
    ) -> "RunRecord":
        """Load several ready services at once, in one record: see servers.together.

        `members` are (instance name, bench, its options) by role. `study` is added to the record's recipe.
        """
        from aifbench.servers.run import BenchRun
        from aifbench.servers.together import Member, ServerGroup, resolve_together

        servers = {role: self.server(name) for role, (name, _, _) in members.items()}
        asked = {
            role: Member(type(servers[role]), bench, options, name)
            for role, (name, bench, options) in members.items()
        }
        recipe = {**resolve_together(asked, together, given), **(study or {})}
        group = ServerGroup(servers)
        with self._watched(group, "together", recipe, progress) as (told, watched):
            return self._noted(BenchRun(self._site, group, told, watched).run())

    def _noted(self, record: "RunRecord") -> "RunRecord":
        verdict = record.verdict.value if record.verdict else ""
        self.events.write("info", "run", run=record.run_id, state=record.state.value, verdict=verdict)
        return record

    @contextmanager
    def _watched(
        self, target: "Target", kind: str, recipe: Mapping[str, Any], progress: Progress
    ) -> Iterator[tuple[Mapping[str, Any], Progress]]:
        """The recipe and the progress of a run that monitors, or whoever asked for metrics, can watch.

        What may cost something is in the recipe: that `monitors` watch, and `telemetry`, where traces go.
        """
        self.events.write("info", "bench", service=target.name, bench=recipe["bench"])
        progress = self.events.progress(progress, service=target.name)
        monitors, port = self._monitors(), recipe.get("metrics_port")
        if recipe.get("instrument"):
            recipe = {**recipe, "telemetry": self._telemetry(monitors)}
        if monitors is None and port is None:
            yield recipe, progress
            return
        from aifbench.monitor.bench_export import LOOPBACK, exported
        from aifbench.results.provenance import project_facts, run_quietly

        commit = str(project_facts(self.config.project_dir, None, run_quietly).get("git_commit", ""))
        with exported(
            progress,
            service=target.name,
            kind=kind,
            experiment=str(recipe.get("study") or ""),
            commit=commit[:12],
            targets_dir=self.config.services_dir / TARGETS_DIR if monitors else None,
            seen_from=monitors.host if monitors else LOOPBACK,
            port=port,
        ) as watched:
            yield ({**recipe, "monitors": True} if monitors else recipe), watched

    def _monitors(self) -> Endpoint | None:
        """Where monitors of this user's listen, if any do."""
        from aifbench.servers.monitors import ready_monitors

        with suppress(BenchError):
            return next(ready_monitors(self._site), None)
        return None

    def _telemetry(self, monitors: Endpoint | None) -> dict[str, str]:
        """Where an instrumented client's traces go: where the environment says, else to the monitors."""
        if url := self._environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
            return {"url": url}
        if monitors is None or "otlp" not in monitors.ports:
            return {}
        receiver = replace(monitors, port=monitors.ports["otlp"])
        secret = {"token_file": str(receiver.secret_file)} if receiver.secret_file else {}
        return {"url": receiver.url, **secret}

    def calibrate(self, given: Mapping[str, Any], progress: Progress) -> "Calibration":
        """What this machine's load client adds to the times it reports; see servers.calibrate."""
        from aifbench.servers.calibrate import calibrate

        if self.scheduler_kind != "local" and not self._site.inside_allocation:
            progress.note("this is about the machine you are on; load for services is made on compute nodes")
        return calibrate(given, progress)
