"""Benchmarks: load one service, or several at once."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aifbench.load.progress import Progress
from aifbench.options import Option
from aifbench.session.services import SessionServices

if TYPE_CHECKING:
    from aifbench.results.record import RunRecord
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
        recipe = resolve_bench(type(server), bench, {**server.bench_defaults, **asked})
        return BenchRun(self._site, server, {**recipe, **(study or {})}, progress).run()

    def together_options(self, together: str) -> tuple[Option, ...]:
        """Options of a benchmark of several services at once: `interference` or `rag`."""
        from aifbench.servers.together import together_options

        return together_options(together)

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
        asked = {role: Member(servers[role], bench, options) for role, (_, bench, options) in members.items()}
        recipe = {**resolve_together(asked, together, given), **(study or {})}
        return BenchRun(self._site, ServerGroup(servers), recipe, progress).run()

    def calibrate(self, given: Mapping[str, Any], progress: Progress) -> "Calibration":
        """What this machine's load client adds to the times it reports; see servers.calibrate."""
        from aifbench.servers.calibrate import calibrate

        if self.scheduler_kind != "local" and not self._site.inside_allocation:
            progress.note("this is about the machine you are on; load for services is made on compute nodes")
        return calibrate(given, progress)
