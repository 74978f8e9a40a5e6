"""Where recipes are: those that come with the program, those of the current directory, and new ones."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aifbench.errors import BenchError, ConfigError, UsageError
from aifbench.options import nearest
from aifbench.studies.matrix import points
from aifbench.studies.recipe import Catalog, load_recipe

_SUFFIXES = (".yaml", ".yml")
_BEGINNING_BYTES = 4096  # in which a recipe has said `study:`


@dataclass(frozen=True, slots=True)
class RecipeSummary:
    """A line of the list of recipes; `problem` is why it cannot be used, and then there is only the name."""

    name: str
    path: Path
    services: tuple[str, ...] = ()
    points: int = 0
    repeats: int = 0
    note: str = ""
    problem: str = ""


def recipe_files(folder: Path, here: Path) -> dict[str, Path]:
    """The recipes of the current directory `here` and of `folder`, by name; a name in `here` comes first."""
    own = {path.stem: path for path in _yaml_files(here) if _looks_like_a_recipe(path)}
    return own | {path.stem: path for path in _yaml_files(folder) if path.stem not in own}


def find_recipe(ref: str, folder: Path, here: Path) -> Path:
    """The file that `ref`, a path or the name of a recipe, means. Raises UsageError, naming the nearest."""
    path = here / Path(ref).expanduser()
    if path.is_file():
        return path
    known = recipe_files(folder, here)
    if ref in known:
        return known[ref]
    if path.is_dir():
        raise UsageError(f"{ref} is a directory", hint="name a recipe in it")
    stem = ref.removesuffix(".yaml").removesuffix(".yml")
    raise UsageError(
        f"no recipe is called {ref!r}{nearest(stem, known)}",
        hint=f"known: {', '.join(sorted(known))}; or give the path of a file",
    )


def summaries(folder: Path, here: Path, catalog: Catalog) -> list[RecipeSummary]:
    """Every recipe by name, also those that cannot be used."""
    return [_summary(name, path, catalog) for name, path in sorted(recipe_files(folder, here).items())]


def write_new(ref: str, kind: str, folder: Path, here: Path, catalog: Catalog) -> Path:
    """Write a recipe to begin with, with remarks; `ref` is a name or a path. Never overwrites.

    Raises UsageError for a name or kind that cannot be used, ConfigError when it cannot be written.
    """
    from aifbench.studies.recipe_reader import read_recipe

    kinds = [each for each in catalog.kinds() if catalog.bench_names(each)]
    if kind not in kinds:
        raise UsageError(
            f"no service with benchmarks is called {kind!r}{nearest(kind, kinds)}",
            hint=f"valid: {', '.join(kinds)}",
        )
    path = here / Path(ref).expanduser()
    if path.suffix not in _SUFFIXES:
        path = path.with_name(f"{path.name}.yaml")
    text = new_text(path.stem, kind, _usual_bench(kind, folder, catalog), catalog)
    read_recipe(text, str(path), catalog)  # of a name that cannot be used
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} exists", hint="choose another name, or remove it first") from None
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    return path


def _usual_bench(kind: str, folder: Path, catalog: Catalog) -> str:
    """That of the kind's own recipe in `folder`, else the first."""
    path = folder / f"{kind}.yaml"
    return load_recipe(path, catalog).members[0].bench if path.is_file() else catalog.bench_names(kind)[0]


def new_text(name: str, kind: str, bench: str, catalog: Catalog) -> str:
    """A valid recipe for a benchmark of a kind of service, with remarks on what else there is."""
    start = [option.key for option in catalog.start_options(kind) if option.key != "name"]
    return _NEW.format(
        name=name,
        kind=kind,
        bench=bench,
        benches=", ".join(catalog.bench_names(kind)),
        start=_remark(start),
        options=_remark([option.key for option in catalog.bench_options(kind)]),
    )


def _remark(words: Sequence[str]) -> str:
    lines = textwrap.wrap(", ".join(words), 96, break_long_words=False, break_on_hyphens=False)
    return "\n".join(f"#   {line}" for line in lines)


def _summary(name: str, path: Path, catalog: Catalog) -> RecipeSummary:
    try:
        recipe = load_recipe(path, catalog)
    except BenchError as error:
        return RecipeSummary(name, path, problem=error.message)
    note = recipe.note.partition("\n")[0]
    services = tuple(member.kind for member in recipe.members)
    return RecipeSummary(name, path, services, len(points(recipe)), recipe.repeats, note)


def _yaml_files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file())
    except OSError:
        return []


def _looks_like_a_recipe(path: Path) -> bool:
    """The current directory may hold other YAML."""
    try:
        with path.open("rb") as file:
            beginning = file.read(_BEGINNING_BYTES)
    except OSError:
        return False
    return any(line.startswith(b"study:") for line in beginning.splitlines())


_NEW = """\
# A study: what is started, what is asked of it, what varies, and how often all of it is repeated.
# `recipe check {name}` says what it amounts to, `run {name}` runs it.
study: {name}
note: |
  What this study is to find out, in one line.

service: {kind}

# For `start {kind}`. Options:
{start}
start:
  time: 1h

# One of: {benches}
bench: {bench}

# For `bench {kind}`; what does not vary. Options:
{options}
options:
  duration: 30s

# Every combination of these is a point. A key `start.X` is of the service, which is then started anew.
matrix:
  clients: [1, 4, 16]

# Lists that move together count as one: zip: {{clients: [1, 4], workers: [1, 2]}}
# Combinations to leave out: exclude: [{{clients: 16}}]

repeats: 5  # the run is the unit of comparison: fewer than 5 seldom decide anything
order: shuffled  # or interleaved (A B B A), or sequential
seed: 1  # of the order; repeat n of every point draws its data and arrivals from seed + n - 1
baseline: {{clients: 1}}  # what the other points are compared with
limits: {{trials: 100, node_hours: 10}}
"""
