"""What TAB offers: names and runs with a word about each. Never asks the scheduler."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cmd2 import Choices, CompletionError, CompletionItem

from aifbench.errors import BenchError
from aifbench.repl.wording import summary_line

if TYPE_CHECKING:
    from aifbench.repl.shell import Shell

_MAX_RUNS = 50


def kinds(shell: "Shell") -> Choices:
    return _choices([(kind, shell.session.describe(kind)) for kind in shell.session.kinds()])


def instances(shell: "Shell") -> Choices:
    stages = {status.name: f"{status.kind} {status.stage.value}" for status in shell.session.cached_status()}
    return _choices([(name, stages.get(name, "")) for name in shell.session.instances()])


def instances_or_all(shell: "Shell") -> Choices:
    return _choices(
        [*((item.text, item.display_meta) for item in instances(shell)), ("all", "every service")]
    )


def targets(shell: "Shell") -> Choices:
    """What may follow `bench`: a service, or a workload of the only one."""
    names = [*instances(shell)]
    if len(names) != 1:
        return Choices(names, is_sorted=True)
    benches = shell.session.bench_names(shell.session.kind_of(names[0].text))
    return Choices([*names, *(CompletionItem(bench) for bench in benches)], is_sorted=True)


def runs(shell: "Shell") -> Choices:
    """`last`, then run ids from the newest on."""
    try:
        found = shell.session.runs(limit=_MAX_RUNS)
    except BenchError as error:
        raise CompletionError(str(error)) from error
    return _choices([("last", "the newest run"), *((run.run_id, summary_line(run)) for run in found)])


def instances_or_runs(shell: "Shell") -> Choices:
    return Choices([*instances(shell), *runs(shell)], is_sorted=True)


def recipes(shell: "Shell") -> Choices:
    """By name; of no recipe more than its path is looked at."""
    return _choices([(name, str(path)) for name, path in shell.session.recipe_files().items()])


def studies(shell: "Shell") -> Choices:
    """`last`, then study ids from the newest on."""
    try:
        found = shell.session.studies()
    except BenchError as error:
        raise CompletionError(str(error)) from error
    lines = [(study.study_id, f"{study.done} done, {study.pending} left") for study in found[:_MAX_RUNS]]
    return _choices([("last", "the newest study"), *lines])


def filters(shell: "Shell") -> Choices:
    fixed = ["verdict=VALID", "verdict=WARN", "verdict=INVALID", "state=INTERRUPTED"]
    fixed += ["since=", "until=", "tag=", "study="]
    return Choices.from_values(
        [*fixed, *(f"service={kind}" for kind in shell.session.kinds())], is_sorted=True
    )


def _choices(items: Sequence[tuple[str, str]]) -> Choices:
    return Choices([CompletionItem(text, display_meta=meta) for text, meta in items], is_sorted=True)
