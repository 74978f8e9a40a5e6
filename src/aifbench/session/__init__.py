"""Session: the Python API. Services, runs and reports as objects; every face of the program uses this.

Importing it is cheap: what measures and draws is imported when it is first needed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aifbench.errors import BenchError
from aifbench.load.progress import Progress
from aifbench.servers.registry import server_class
from aifbench.session.benchmarks import SessionBenchmarks
from aifbench.session.core import choose_scheduler
from aifbench.session.results import SessionResults

if TYPE_CHECKING:
    from aifbench.doctor import Finding
    from aifbench.results.record import RunRecord
    from aifbench.results.study import StudyRecord
    from aifbench.studies.plan import Plan
    from aifbench.studies.progress import StudyProgress
    from aifbench.studies.recipe import Recipe
    from aifbench.studies.recipe_files import RecipeSummary

__all__ = ["Session", "choose_scheduler"]

QUICKSTART_WAIT_S = 120.0

# Small enough for two cores and three minutes, at a rate that leaves them idle half of the time; the run
# says itself that it is short.
QUICKSTART_OPTIONS: Mapping[str, Any] = {
    "vectors": "20k",
    "batch": "50",
    "rate": "100/s",
    "ingest_rate": "250/s",
    "duration": "20s",
    "warmup": "3s",
    "note": "quickstart",
}


class Session(SessionBenchmarks, SessionResults):
    """One user's view of services and results. Safe to use from a background thread for `status`."""

    def recipe_files(self) -> dict[str, Path]:
        """The recipes that come with the program and those of the current directory, by name."""
        from aifbench.studies.recipe_files import recipe_files

        return recipe_files(self._recipe_folder, Path.cwd())

    def recipes(self) -> "list[RecipeSummary]":
        """Every recipe in a line, also those that cannot be used."""
        from aifbench.studies.recipe_files import summaries

        return summaries(self._recipe_folder, Path.cwd(), self)

    def recipe(self, ref: str) -> "Recipe":
        """The recipe that `ref`, a name or a file, means. Raises UsageError with line and key."""
        from aifbench.studies.recipe import load_recipe

        return load_recipe(self._recipe_path(ref), self)

    def recipe_text(self, ref: str) -> str:
        """The file as it is, valid or not."""
        from aifbench.studies.yaml_text import read_text

        return read_text(self._recipe_path(ref))

    def new_recipe(self, ref: str, kind: str) -> Path:
        """Write a recipe to begin with; never overwrites."""
        from aifbench.studies.recipe_files import write_new

        return write_new(ref, kind, self._recipe_folder, Path.cwd(), self)

    def plan_study(self, ref: str) -> "Plan":
        """What a recipe amounts to: points, trials in order, and their cost. Starts nothing."""
        from aifbench.studies.plan import plan

        return plan(self.recipe(ref), self)

    def study(
        self,
        recipe: str = "",
        *,
        progress: "StudyProgress | None" = None,
        resume: str = "",
        retry_failed: bool = False,
        may_exceed: bool = False,
    ) -> "StudyRecord":
        """Run a recipe (its name or file), or `resume` a study with the recipe it began with.

        The record returned is COMPLETE: every trial is DONE or FAILED. See StudyRunner.run for what happens
        when it ends early. Raises UsageError above the recipe's limit of node-hours, unless it `may_exceed`
        that, and ResultError for a study that is running already.
        """
        from aifbench.results.record import RunState
        from aifbench.studies.opening import new_study, resumed_study, what_is_left
        from aifbench.studies.progress import SilentStudy
        from aifbench.studies.runner import StudyRunner

        progress = progress or SilentStudy()
        if not resume:
            plan = self.plan_study(recipe)
            chosen, record = plan.recipe, new_study(self._studies, plan, may_exceed=may_exceed)
        else:
            file = self._recipe_path(recipe) if recipe else None
            chosen, record = resumed_study(
                self._studies, resume, self, retry_failed=retry_failed, may_exceed=may_exceed
            )
            progress.note(what_is_left(record, file))
            if record.state is not RunState.RUNNING:
                return record
        return StudyRunner(self, self._studies, self._site.clock, chosen, record, progress).run()

    def again(self, ref: str, *, progress: "StudyProgress | None" = None) -> "RunRecord":
        """Repeat a run: its point of a study's recipe, or its options; see studies.again."""
        from aifbench.studies.again import run_again
        from aifbench.studies.progress import SilentStudy

        return run_again(self, self.run(ref), progress or SilentStudy())

    @property
    def _recipe_folder(self) -> Path:
        return self.config.project_dir / "utils/recipes"

    def _recipe_path(self, ref: str) -> Path:
        from aifbench.studies.recipe_files import find_recipe

        return find_recipe(ref, self._recipe_folder, Path.cwd())

    def doctor(self) -> "list[Finding]":
        """What is right and wrong with this machine and set-up, with the remedy for each."""
        from aifbench.doctor import examine

        return examine(self.config, self._site.scheduler)

    def quickstart(self, progress: Progress) -> tuple["RunRecord", Path]:
        """Deploy Chroma, run all its benchmarks, stop it, save the run: the record and the zip."""
        name = self._free_name("quickstart")
        try:
            server = server_class("chroma").start(self._site, {"name": name})
            progress.phase("start", f"job {server.instance.job_id}")
            status = server.check(wait_s=QUICKSTART_WAIT_S)
            progress.note(f"chroma is ready at {status.endpoint.url if status.endpoint else '?'}")
            record = self.bench(name, "all", QUICKSTART_OPTIONS, progress)
        finally:
            self._stop_quietly(name, progress)
        return record, self.save(record.run_id)

    def _stop_quietly(self, name: str, progress: Progress) -> None:
        """Stop, also what Ctrl-C left half submitted, without hiding the error that may be on its way."""
        try:
            if name in self.instances():
                self.stop([name])
        except BenchError as error:
            progress.note(str(error))
