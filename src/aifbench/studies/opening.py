"""A study that is about to run: a new one of a recipe, or one that goes on where it was interrupted."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from aifbench.errors import BenchError, UsageError
from aifbench.results.study import StudyRecord, Trial, TrialState
from aifbench.studies.estimate import Estimate, estimate
from aifbench.studies.plan import Plan
from aifbench.studies.recipe import Catalog, Recipe
from aifbench.studies.store import RECIPE_FILE, StudyStore, count
from aifbench.studies.yaml_text import read_text


def new_study(store: StudyStore, plan: Plan, *, may_exceed: bool) -> StudyRecord:
    """All trials PENDING. Raises UsageError above the recipe's limit, unless it `may_exceed` that."""
    recipe = plan.recipe
    if plan.is_over_limit and not may_exceed:
        raise over_limit(recipe, plan.estimate)
    return store.create(
        recipe.name,
        (recipe.text, recipe.file),
        plan.points,
        plan.trials,
        note=recipe.note,
        baselines=plan.baselines,
    )


def resumed_study(
    store: StudyStore, ref: str, catalog: Catalog, *, retry_failed: bool, may_exceed: bool
) -> tuple[Recipe, StudyRecord]:
    """What is left of a study; FAILED trials only to `retry_failed`. The recipe is the one it began with.

    Only a study with PENDING trials is owned by this process afterwards. Raises ResultError when it is
    running already, UsageError above the recipe's limit.
    """
    from aifbench.studies.recipe_reader import read_recipe

    study_id = store.resolve(ref)
    record = _to_do(store.load(study_id), retry_failed)
    file = str(store.path(study_id) / RECIPE_FILE)
    recipe = read_recipe(record.recipe_text, file, catalog)
    pending = [trial for trial in record.trials if trial.state is TrialState.PENDING]
    limit, cost = recipe.limits.node_hours, estimate(recipe, record.points, pending, catalog)
    if limit is not None and cost.node_hours > limit and not may_exceed:
        raise over_limit(recipe, cost)
    if pending:
        record = _to_do(store.take_over(study_id), retry_failed)
    return recipe, record


def what_is_left(record: StudyRecord, file: Path | None = None) -> str:
    """How much of a study is still to be done, and whether the recipe's file has changed since it began."""
    pending, failed = (count(record.trials, state) for state in (TrialState.PENDING, TrialState.FAILED))
    text = f"{pending} of {len(record.trials)} trials are left" if pending else "no trial is left to run"
    if failed:
        text += f", {failed} failed (--retry-failed runs these again)"
    now = file or Path(record.recipe_file)
    with suppress(BenchError):
        if read_text(now) != record.recipe_text:
            text += f"; {now} is different now: the study goes on with the recipe it began with"
    return text


def over_limit(recipe: Recipe, cost: Estimate) -> UsageError:
    needed, limit = cost.node_hours, recipe.limits.node_hours
    return UsageError(
        f"{recipe.name} needs at least {needed:.3g} node-hours, and its limit is {limit:g}",
        hint=f"--yes runs it all the same; `limits: {{node_hours: {needed * 1.01:.3g}}}` would allow it",
    )


def _to_do(record: StudyRecord, retry_failed: bool) -> StudyRecord:
    if not retry_failed:
        return record
    trials = tuple(
        Trial(trial.point, trial.repeat) if trial.state is TrialState.FAILED else trial
        for trial in record.trials
    )
    return replace(record, trials=trials)
