"""Two kinds of service to write recipes for, with every sort of option; nothing can be started."""

from collections.abc import Mapping
from typing import Any

from aifbench.errors import UsageError
from aifbench.options import Option, count_option, duration_option, rate_option
from aifbench.studies.recipe import Recipe
from aifbench.studies.recipe_reader import read_recipe

_START = (
    Option("name", "name of this instance", metavar="NAME"),
    count_option("nodes", "nodes", 1, maximum=1000),
    duration_option("time", "time limit", 3600.0),
    Option("fsync", "wait for the disk", default="on", choices=("on", "off")),
)
_LOAD = (
    rate_option("rate", "operations per second"),
    count_option("clients", "operations under way", 4, maximum=4096),
    count_option("workers", "load processes", 1, maximum=4096),
    count_option("client-nodes", "nodes that make the load", maximum=1000),
    duration_option("duration", "measured time", 60.0),
    duration_option("warmup", "time before it", 5.0),
    duration_option("drain", "time after it", 10.0),
    Option("cold", "skip the preparation", flag=True, default=False),
    Option("note", "a remark", default=""),
)


def _slo(text: str) -> str:
    if not text.startswith("p99="):
        raise UsageError(f"--slo {text!r} is no limit", hint="give p99=TIME")
    return text


class FakeCatalog:
    """`store`, `model`, and `folder`, whose job ends; only `model`, and `rag`, take an `slo`."""

    def kinds(self) -> list[str]:
        return ["store", "model", "folder"]

    def start_options(self, _kind: str) -> tuple[Option, ...]:
        return _START

    def runs_and_ends(self, kind: str) -> bool:
        return kind == "folder"

    def bench_names(self, kind: str) -> tuple[str, ...]:
        return ("all", "generate") if kind == "model" else ("all", "search", "ingest")

    def bench_options(self, kind: str) -> tuple[Option, ...]:
        return _LOAD if kind != "model" else (*_LOAD, Option("slo", "limits", parse=_slo))

    def check_together(
        self,
        members: Mapping[str, tuple[str, str, Mapping[str, Any]]],
        together: str,
        given: Mapping[str, Any],
    ) -> None:
        """Ingesting cannot be repeated beside other loads."""
        del given
        if together == "interference" and any(bench == "ingest" for _, bench, _ in members.values()):
            raise UsageError("ingest cannot be repeated", hint="search can")

    def together_options(self, together: str) -> tuple[Option, ...]:
        own = (rate_option("rate", "questions per second", 1.0), duration_option("duration", "time", 30.0))
        return (*own, Option("slo", "limits", parse=_slo)) if together == "rag" else own


def recipe_of(text: str) -> Recipe:
    """`text` as a recipe in the file r.yaml."""
    return read_recipe(text, "r.yaml", FakeCatalog())


def recipe_with(text: str) -> Recipe:
    """The same, with a name and a service below `text` where it has none."""
    service = "" if "service" in text else "service: store\n"
    return recipe_of(f"{text.rstrip()}\nstudy: s\n{service}")
