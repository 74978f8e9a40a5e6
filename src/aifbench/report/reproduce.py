"""The commands that make a run like this one."""

import shlex
from collections.abc import Mapping
from typing import Any

from aifbench.results.record import RunRecord

_DEFAULT_PORTS = {"http": 80, "https": 443}
NOT_ASKED = ("bench", "facts", "given", "study", "again", "recipe_text")


def commands(record: RunRecord) -> str:
    """A shell command that makes a run like this one, option by option; empty for an unknown service."""
    kind, name = (str(record.service.get(key) or "") for key in ("kind", "name"))
    if "members" in record.service:
        return _again(record)
    bench = f"bench {name or kind} {record.recipe.get('bench', '')}{_flags(asked(record.recipe))}"
    steps = (*_deployment(record.service, kind, name or kind), bench, f"stop {name or kind}")
    return " \\\n  ".join(["aifbench", *map(shlex.quote, steps)]) if kind else ""


def bench_command(record: RunRecord, changes: Mapping[str, Any]) -> str:
    """The `bench` command of a run with some options changed, as it is typed at the prompt."""
    name = str(record.service.get("name") or record.service.get("kind") or "")
    bench = str(record.recipe.get("bench") or "")
    if "members" in record.service:
        return ""
    return f"bench {name} {bench}{_flags({**asked(record.recipe), **changes})}" if name and bench else ""


def _again(record: RunRecord) -> str:
    """Several services at once are described by a recipe, which the record holds where there was one."""
    return f"aifbench 'run --again {record.run_id}'" if record.recipe.get("recipe_text") else ""


def asked(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, also to each of several services; all of them where no record tells."""
    given = recipe.get("given")
    wanted = (key for key in recipe if key not in NOT_ASKED and (given is None or key in given))
    found = {key: recipe[key] for key in wanted}
    if isinstance(members := recipe.get("members"), Mapping):
        found["members"] = {role: asked(one) for role, one in members.items() if isinstance(one, Mapping)}
    return found


def is_attached(service: Mapping[str, Any]) -> bool:
    """Whether somebody else had started the service."""
    return service.get("scheduler") == "attached"


def address(endpoint: Any) -> str:
    """`http://node7:8000/prefix`, without the port that the scheme implies; empty where it is not known."""
    if not isinstance(endpoint, Mapping) or "host" not in endpoint:
        return ""
    scheme, host = str(endpoint.get("scheme") or "http"), str(endpoint["host"])
    if scheme == "file":
        return f"file://{endpoint.get('prefix') or ''}"
    port = endpoint.get("port")
    at = f"[{host}]" if ":" in host else host
    at += "" if port in (None, "", _DEFAULT_PORTS.get(scheme)) else f":{port}"
    return f"{scheme}://{at}{endpoint.get('prefix') or ''}"


def _deployment(service: Mapping[str, Any], kind: str, name: str) -> tuple[str, ...]:
    options = service.get("options")
    flags = _flags(options) if isinstance(options, Mapping) else ""
    if not is_attached(service):
        return (f"start {kind}{flags}", f"check {name} --wait 600")
    own_name = f" --name {shlex.quote(name)}" if name != kind else ""
    key = (
        f" --{service.get('key_option', 'key-file')} FILE" if service.get("authentication") == "token" else ""
    )
    return (f"attach {kind} {shlex.quote(address(service.get('endpoint')))}{own_name}{key}{flags}",)


def _flags(options: Mapping[str, Any]) -> str:
    """` --rate 50 --seed 7`: only what was given and can be typed."""
    given = (
        (key, v) for key, v in options.items() if v not in (None, "", False) and not isinstance(v, Mapping)
    )
    return "".join(f" --{key.replace('_', '-')}{_argument(value)}" for key, value in given)


def _argument(value: Any) -> str:
    if value is True:
        return ""
    if isinstance(value, list | tuple):
        return f" {shlex.quote(','.join(_word(item) for item in value))}"
    return f" {shlex.quote(_word(value))}"


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
