"""StudyRunner: the trials of a study, one after another, kept whatever happens on the way."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from aifbench.clock import Clock, utc_text
from aifbench.errors import BenchError, ResultError, ServiceError, ending_words
from aifbench.load.progress import Progress
from aifbench.options import Option
from aifbench.results.record import RunRecord, RunState
from aifbench.results.study import Point, StudyRecord, Trial, TrialState
from aifbench.studies.crew import Crew
from aifbench.studies.matrix import Settings, settings_for
from aifbench.studies.progress import Services, StudyProgress, TrialNews
from aifbench.studies.recipe import Catalog, Recipe, Value
from aifbench.studies.store import StudyStore

MAX_FAILED_STARTS = 3
_SEEDS = 2**32


class StudyRunner:
    """Runs the PENDING trials of one study that this process owns. Use once."""

    def __init__(
        self,
        services: Services,
        store: StudyStore,
        clock: Clock,
        recipe: Recipe,
        record: StudyRecord,
        progress: StudyProgress,
    ) -> None:
        self._services = services
        self._store = store
        self._clock = clock
        self._recipe = recipe
        self._record = record
        self._progress = progress
        self._crew = Crew(services, record.name, record.study_id[-4:], progress)
        self._failed_starts = 0
        self._longest_s = 0.0

    def run(self) -> StudyRecord:
        """The COMPLETE study: no trial is PENDING, some may be FAILED.

        Whatever ends it early is raised after the services have been stopped: KeyboardInterrupt and
        SystemExit leave the study INTERRUPTED, an error FAILED, and the trials left PENDING.
        """
        with self._store.kept_alive(self._record.study_id):
            try:
                self._progress.opened(self._record)
                try:
                    self._run_trials()
                finally:
                    self._crew.stop()
            except BaseException as error:
                self._end_early(error)
                raise
            self._end(RunState.COMPLETE, "")
        return self._record

    def _run_trials(self) -> None:
        for index, trial in enumerate(self._record.trials):
            if trial.state is TrialState.PENDING:
                self._run_trial(index)

    def _run_trial(self, index: int) -> None:
        trial = self._record.trials[index]
        point = self._record.points[trial.point]
        news = TrialNews(index + 1, len(self._record.trials), point.label, trial)
        progress = self._progress.begins(news)
        run = None
        try:
            run = self._measure(point, trial, progress)
            ended = replace(trial, state=TrialState.DONE, run_id=run.run_id)
        except BenchError as error:
            ended = replace(trial, state=TrialState.FAILED, run_id=error.run_id, error=str(error))
        trials = (*self._record.trials[:index], ended, *self._record.trials[index + 1 :])
        self._record = replace(self._record, trials=trials)
        self._store.write(self._record)
        self._progress.ended(replace(news, trial=ended, run=run))
        if self._failed_starts >= MAX_FAILED_STARTS:
            raise ServiceError(
                f"{self._failed_starts} trials in a row had no service: {ended.error}",
                hint=f"once that is mended: `run --resume {self._record.study_id} --retry-failed`; "
                "a study keeps the recipe it began with: `run RECIPE` begins one with a changed recipe",
            )

    def _measure(self, point: Point, trial: Trial, progress: Progress) -> RunRecord:
        settings = with_seeds(self._recipe, settings_for(self._recipe, point), trial.repeat, self._services)
        self._failed_starts += 1
        names = self._crew.ensure(settings.members, self._longest_s)
        self._failed_starts = 0
        started_s = self._clock.monotonic_s()
        kept = {"study": self._part(point, trial), "recipe_text": self._record.recipe_text}
        run = bench_settings(self._services, self._recipe.together, settings, names, progress, kept)
        self._longest_s = max(self._longest_s, self._clock.monotonic_s() - started_s)
        return run

    def _part(self, point: Point, trial: Trial) -> dict[str, Any]:
        """What a run's record says of the study that it is part of."""
        return {
            "id": self._record.study_id,
            "name": self._record.name,
            "point": trial.point,
            "label": point.label,
            "settings": dict(point.settings),
            "repeat": trial.repeat,
        }

    def _end_early(self, error: BaseException) -> None:
        """Keep what there is, as far as the disk takes it, without hiding why the study ends."""
        try:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                self._end(RunState.INTERRUPTED, ending_words(error))
            elif isinstance(error, BenchError):
                self._end(RunState.FAILED, str(error))
            else:
                self._end(RunState.FAILED, f"{type(error).__name__}: {error}")
        except ResultError as problem:
            self._progress.note(str(problem))

    def _end(self, state: RunState, error: str) -> None:
        ended = utc_text(self._clock.wall_s())
        self._record = replace(self._record, state=state, error=error, ended_utc=ended)
        self._store.write(self._record)


def bench_settings(
    services: Services,
    together: str,
    settings: Settings,
    names: Mapping[str, str],
    progress: Progress,
    kept: Mapping[str, Any],
) -> RunRecord:
    """One run at `settings` of READY services, whose `names` are by role. `kept` goes into its recipe."""
    if not together:
        (member,) = settings.members
        return services.bench(names[member.role], member.bench, member.options, progress, study=kept)
    members = {member.role: (names[member.role], member.bench, member.options) for member in settings.members}
    return services.bench_together(members, together, settings.options, progress, study=kept)


def with_seeds(recipe: Recipe, settings: Settings, repeat: int, catalog: Catalog) -> Settings:
    """Each benchmark that has a `seed`, and was given none, gets the recipe's plus `repeat` - 1.

    So the repeats of a point differ in data and arrivals, as runs on different days would, and the points of
    one repeat share them: what differs between those is the point (common random numbers).
    """
    seed = str((recipe.seed + repeat - 1) % _SEEDS)

    def seeded(options: Mapping[str, Value], keys: set[str]) -> Mapping[str, Value]:
        return {"seed": seed, **options} if "seed" in keys else options

    members = tuple(
        replace(member, options=seeded(member.options, _keys(catalog.bench_options(member.kind))))
        for member in settings.members
    )
    general = _keys(catalog.together_options(recipe.together)) if recipe.together else set()
    return Settings(members, seeded(settings.options, general))


def _keys(options: Iterable[Option]) -> set[str]:
    return {option.key for option in options}
