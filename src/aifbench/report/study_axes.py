"""The settings of a study as numbers, and its points in order along one of them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from aifbench.report.study_points import PointView, StudyView

_NUMBER = re.compile(r"([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)(/s)?", re.IGNORECASE)
_FACTORS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1.0, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}
_MOST_SERIES = 3
RATES = ("rate",)
SIZES = ("size",)
PARALLEL = ("clients", "concurrency", "workers", "nodes", "client_nodes", "tensor_parallel", "processes")


@dataclass(frozen=True, slots=True)
class Series:
    """Points that differ in `axis` alone, in rising order; `others` says what the rest is set to."""

    axis: str
    others: str
    at: tuple[tuple[float, PointView], ...]

    @property
    def points(self) -> list[PointView]:
        return [point for _, point in self.at]


def number_of(value: Any) -> float | None:
    """50 of 50, `50`, `50/s`; 20,000 of `20k`; 4,096 of `4KiB`; None for what is no amount."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    match = _NUMBER.fullmatch(str(value).strip())
    if match is None or match[2].lower() not in _FACTORS:
        return None
    return float(match[1]) * _FACTORS[match[2].lower()]


def short_key(key: str) -> str:
    """`nodes` of `start.nodes`, `client_nodes` of `client-nodes`."""
    return key.rpartition(".")[2].replace("-", "_")


def series(study: StudyView, wanted: Sequence[str], least: int = 2) -> list[Series]:
    """Along each axis of these names, for the commonest settings of the others; at least so many points."""
    found = []
    for axis in study.axes:
        if short_key(axis) in wanted:
            found += [each for each in _along(study, axis) if len(each.at) >= least]
    return found


def _along(study: StudyView, axis: str) -> list[Series]:
    groups: dict[str, list[tuple[float, PointView]]] = {}
    for point in study.shown:
        at = number_of(point.settings.get(axis))
        if at is not None:
            others = {
                key: value for key, value in point.settings.items() if key != axis and key in study.axes
            }
            groups.setdefault(_words(others), []).append((at, point))
    made = [Series(axis, others, tuple(sorted(at, key=_position))) for others, at in groups.items()]
    return sorted(made, key=lambda each: -len(each.at))[:_MOST_SERIES]


def _position(pair: tuple[float, PointView]) -> float:
    return pair[0]


def _words(settings: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in settings.items())


def recipe_value(study: StudyView, key: str) -> Any:
    """A top-level value of the recipe as it was typed, None where it has none or is no YAML any more."""
    try:
        data = yaml.load(study.record.recipe_text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError):
        return None
    return data.get(key) if isinstance(data, Mapping) else None


def baseline(study: StudyView, point: PointView) -> PointView | None:
    """The point that this one is compared with; None for a baseline itself, or where there is none."""
    index = study.record.baseline_of(point.index)
    return None if index is None or index == point.index else study.points[index]
