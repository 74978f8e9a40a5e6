"""Whether a dashboard's JSON is one that Grafana shows as meant: rules of structure, none of taste. Pure.

Grafana itself says little of a bad dashboard: it leaves out what it does not understand.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from aifbench.monitor.promql import BUILT_IN, variables

_UID = re.compile(r"[a-zA-Z0-9_-]{1,40}")
_PANEL_TYPES = {"row", "timeseries", "stat", "table", "heatmap", "state-timeline", "logs"}
_SOURCES = {"prometheus", "loki"}
_MIN_SCHEMA = 39
_COLUMNS = 24
_TOP_LEVEL = {
    "uid": str, "title": str, "tags": list, "schemaVersion": int, "graphTooltip": int, "time": dict,
    "templating": dict, "annotations": dict, "panels": list, "links": list,
}  # fmt: skip
_CLOSING = {")": "(", "]": "[", "}": "{"}


def problems(dashboard: Mapping[str, Any]) -> list[str]:
    """Everything that is wrong, each in a line; empty for a good one."""
    wrong_types = [
        f"{key}: no {kind.__name__}"
        for key, kind in _TOP_LEVEL.items()
        if not isinstance(dashboard.get(key), kind)
    ]
    if wrong_types:
        return wrong_types
    return [
        *_head(dashboard),
        *_variables(dashboard),
        *_grid(dashboard["panels"]),
        *(f"panel {p.get('title')!r}: {problem}" for p in dashboard["panels"] for problem in _panel(p)),
    ]


def _head(dashboard: Mapping[str, Any]) -> Iterator[str]:
    if not _UID.fullmatch(dashboard["uid"]):
        yield f"uid {dashboard['uid']!r}: give 1 to 40 letters, digits, - or _"
    if not dashboard["title"]:
        yield "no title"
    if dashboard["schemaVersion"] < _MIN_SCHEMA:
        yield f"schemaVersion {dashboard['schemaVersion']} is older than {_MIN_SCHEMA}"
    if dashboard["graphTooltip"] != 1:
        yield "no shared crosshair (graphTooltip 1)"
    if not any(link.get("includeVars") and link.get("keepTime") for link in dashboard["links"]):
        yield "no link to other dashboards that keeps time and variables"


def _variables(dashboard: Mapping[str, Any]) -> Iterator[str]:
    defined = [variable.get("name") for variable in dashboard["templating"].get("list", [])]
    yield from (
        f"variable {name!r} is defined twice" for name, times in Counter(defined).items() if times > 1
    )
    used = {
        name
        for text in _texts({key: value for key, value in dashboard.items() if key != "templating"})
        for name in variables(text)
    }
    unknown = used - set(defined) - BUILT_IN
    yield from (f"variable ${name} is used and not defined" for name in sorted(unknown))
    idle = (
        set(defined) - used - {name for text in _texts(dashboard["templating"]) for name in variables(text)}
    )
    yield from (f"variable ${name} is defined and not used" for name in sorted(idle))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def _grid(panels: list[Mapping[str, Any]]) -> Iterator[str]:
    ids = Counter(panel.get("id") for panel in panels)
    yield from (f"id {number} is that of {times} panels" for number, times in ids.items() if times > 1)
    places = []
    for panel in panels:
        place = panel.get("gridPos", {})
        if not all(isinstance(place.get(key), int) for key in "hwxy"):
            yield f"panel {panel.get('title')!r}: no place in the grid"
            continue
        if place["x"] < 0 or place["x"] + place["w"] > _COLUMNS or place["w"] < 1 or place["h"] < 1:
            yield f"panel {panel.get('title')!r}: outside of the {_COLUMNS} columns"
        places.append((panel.get("title"), place))
    for (name, a), (other, b) in combinations(places, 2):
        if _overlap(a["x"], a["w"], b["x"], b["w"]) and _overlap(a["y"], a["h"], b["y"], b["h"]):
            yield f"panels {name!r} and {other!r} overlap"


def _overlap(start: int, size: int, other_start: int, other_size: int) -> bool:
    return start < other_start + other_size and other_start < start + size


def _panel(panel: Mapping[str, Any]) -> Iterator[str]:
    if panel.get("type") not in _PANEL_TYPES:
        yield f"type {panel.get('type')!r} is none that is used here"
    if not panel.get("title"):
        yield "no title"
    if panel.get("type") == "row":
        return
    defaults = panel.get("fieldConfig", {}).get("defaults", {})
    if not defaults.get("unit") and panel["type"] != "logs":
        yield "no unit"
    if not defaults.get("noValue"):
        yield "nothing is shown where there is no data"
    if not panel.get("description"):
        yield "no description"
    yield from _source(panel.get("datasource"))
    targets = panel.get("targets") or []
    if not targets:
        yield "no query"
    letters = Counter(target.get("refId") for target in targets)
    yield from (f"query {letter!r} is there {times} times" for letter, times in letters.items() if times > 1)
    for target in targets:
        yield from _source(target.get("datasource"))
        expr = target.get("expr") or ""
        if not expr.strip():
            yield f"query {target.get('refId')!r} is empty"
        elif not _is_balanced(expr):
            yield f"query {target.get('refId')!r} has brackets or quotes that do not match: {expr}"


def _source(source: Any) -> Iterator[str]:
    if not isinstance(source, Mapping) or source.get("type") not in _SOURCES:
        yield "no data source"
    elif not str(source.get("uid", "")).startswith("${"):
        yield f"data source {source.get('uid')!r} is no variable"


def _is_balanced(expr: str) -> bool:
    """Brackets close in order, outside of quotes, and quotes end."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"|`[^`]*`', "", expr)
    if '"' in bare or "`" in bare:
        return False
    open_ones: list[str] = []
    for letter in bare:
        if letter in "([{":
            open_ones.append(letter)
        elif letter in _CLOSING and (not open_ones or open_ones.pop() != _CLOSING[letter]):
            return False
    return not open_ones
