"""One run once more, from what its record says: the same point of its recipe, or the same options."""

import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from aifbench.errors import ResultError, UsageError
from aifbench.options import Option
from aifbench.results.record import RunRecord
from aifbench.results.study import Point, Trial
from aifbench.studies.crew import Crew
from aifbench.studies.matrix import Settings, settings_for
from aifbench.studies.progress import Services, StudyProgress, TrialNews
from aifbench.studies.recipe import Member, Value
from aifbench.studies.runner import bench_settings, with_seeds


def run_again(services: Services, record: RunRecord, progress: StudyProgress) -> RunRecord:
    """A run like `record`, which names that one under `again` in its recipe, and is part of no study.

    A study's run gets services of its own, started as they were; any other a running service of its kind,
    or one started with the same options. What is started here is stopped. Raises BenchError.
    """
    part = record.recipe.get("study") or record.recipe.get("again")
    kept: dict[str, Any] = {"again": {"run": record.run_id}}
    together = ""
    if isinstance(part, Mapping) and "settings" in part:
        kept = {"again": {**part, "run": record.run_id}, "recipe_text": record.recipe.get("recipe_text")}
        together, settings = _of_study(services, record, part)
    else:
        settings = Settings((_like(services, record, progress),), {})
    crew = Crew(services, "again", secrets.token_hex(2), progress)
    try:
        names = crew.ensure(settings.members)
        news = TrialNews(1, 1, f"like {record.run_id}", Trial(0, 1))
        return bench_settings(services, together, settings, names, progress.begins(news), kept)
    finally:
        crew.stop()


def _of_study(services: Services, record: RunRecord, part: Mapping[str, Any]) -> tuple[str, Settings]:
    """The benchmark over several services, if it was one, and all settings of the run's point."""
    from aifbench.studies.recipe_reader import read_recipe

    text, file = str(record.recipe.get("recipe_text", "")), f"the recipe in {record.run_id}"
    recipe = read_recipe(text, file, services)
    point = Point(part["settings"], str(part.get("label", "")))
    return recipe.together, with_seeds(
        recipe, settings_for(recipe, point), int(part.get("repeat", 1)), services
    )


def _like(services: Services, record: RunRecord, progress: StudyProgress) -> Member:
    """The service and benchmark of a plain run; `attach` names the service where one is running."""
    kind, bench = str(record.service.get("kind", "")), str(record.recipe.get("bench", ""))
    if kind not in services.kinds() or bench not in services.bench_names(kind):
        raise ResultError(
            f"run {record.run_id} cannot be repeated: it is {bench or 'nothing'} of {kind or 'no service'}",
            hint="runs of one service, and those of studies, can",
        )
    asked = set(record.recipe.get("given", record.recipe))
    options = _as_typed(services.bench_options(kind), record.recipe, asked)
    running = _running(services, kind, str(record.service.get("name", "")))
    if running:
        progress.note(f"on {running}, which is running")
        return Member("", kind, {}, bench, options, attach=running)
    if record.service.get("scheduler") == "attached":
        raise UsageError(
            f"run {record.run_id} was of a {kind} that somebody else runs",
            hint=f"`attach {kind} URL` first; its address is in `show {record.run_id} --full`",
        )
    started = record.service.get("options")
    start = _as_typed(
        [option for option in services.start_options(kind) if option.key != "name"],
        started if isinstance(started, Mapping) else {},
    )
    return Member("", kind, start, bench, options)


def _running(services: Services, kind: str, name: str) -> str:
    """The running service of that kind: of that name, or the only one; empty when there is none."""
    found = [each for each in services.instances() if services.kind_of(each) == kind]
    if name in found:
        return name
    if len(found) > 1:
        raise UsageError(
            f"several {kind} are running: {', '.join(found)}",
            hint=f"stop all but the one that is meant, or call it {name}",
        )
    return found[0] if found else ""


def _as_typed(
    options: Iterable[Option], values: Mapping[str, Any], keys: set[str] | None = None
) -> dict[str, Value]:
    """Recorded values as text that their options take again; those of `keys` only, when given."""
    found: dict[str, Value] = {}
    for option in options:
        value = values.get(option.key)
        if value in (None, "", False) or (keys is not None and option.key not in keys):
            continue
        if isinstance(value, list | tuple):
            found[option.key] = ",".join(map(str, value))
        else:
            found[option.key] = value if value is True else str(value)
    return found
