"""What differs between sides of a comparison: how the runs were made, and where.

Only entries that differ, also between the runs of one side; what differs always and explains nothing (ids,
dates, ports, job numbers, the load averages of the moment) is left out.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aifbench.results.record import RunRecord
from aifbench.units import format_number, format_size

ABSENT = "-"
_CLOSE = 0.05  # facts are measured; two estimates of one thing this close are the same
_MAX_SHOWN = 3  # different values of one side

# Of the recipe: what is no option. `facts` are a group of their own.
_NO_OPTION = {"bench", "facts", "given", "note", "study", "again", "recipe_text"}
_SERVICE = ("kind", "version", "scheduler", "authentication", "script_sha256")
_SOFTWARE_NOISE = {"python_path"}
_ENVIRONMENT_NOISE = {"SLURM_JOB_ID", "SLURM_JOB_NODELIST"}
# What a run or a job makes for itself, by the end of its name.
_OWN_FACTS = ("database", "bucket", "storage.path")
_OWN_ENDS = tuple(f".{name}" for name in _OWN_FACTS)
# When `--name` or a port differ, the service is still the same.
_START_NOISE = {"name", "port", "dry_run"}
_BYTES = "_bytes"


@dataclass(frozen=True, slots=True)
class Difference:
    """One entry: `values` has a text per side, of several values where its runs differ among themselves."""

    group: str
    name: str
    values: tuple[str, ...]
    is_mixed: bool = False


def differences(sides: Sequence[Sequence[RunRecord]]) -> list[Difference]:
    """Entries whose value is not the same in all runs of all sides, in groups, configuration first."""
    tables = [[_entries(record) for record in records] for records in sides]
    keys = dict.fromkeys(key for table in tables for entries in table for key in entries)
    found = []
    for group, name in sorted(keys, key=lambda key: _GROUPS.index(key[0])):
        columns = [[entries.get((group, name)) for entries in table] for table in tables]
        if not _is_same(group, [value for column in columns for value in column]):
            if len(columns) > 1 and _varies_alike(columns):
                continue
            if group == "facts" and _is_measured(columns):
                continue
            texts = tuple(_several(name, column) for column in columns)
            mixed = any(not _is_same(group, column) for column in columns)
            found.append(Difference(group, name, texts, mixed))
    return found


_GROUPS = ("start options", "bench options", "facts", "service", "software", "machine", "nodes")


def _entries(record: RunRecord) -> dict[tuple[str, str], Any]:
    """(group, name) to value, all that tells how and where a run was made."""
    service, recipe, provenance = record.service, record.recipe, record.provenance
    options = _mapping(service.get("options"))
    start = {key: value for key, value in options.items() if key not in _START_NOISE}
    bench = {key: value for key, value in recipe.items() if key not in _NO_OPTION}
    software = {**_mapping(provenance.get("project")), **_mapping(provenance.get("software"))}
    software = {key: value for key, value in software.items() if key not in _SOFTWARE_NOISE}
    machine = _mapping(provenance.get("machine"))
    groups: dict[str, Mapping[str, Any]] = {
        "start options": start,
        "bench options": bench,
        "facts": _mapping(recipe.get("facts")),
        "service": {key: service.get(key) for key in _SERVICE},
        "software": software,
        "machine": {key: value for key, value in machine.items() if key != "host"},
        "nodes": _nodes(record, machine),
    }
    return {
        (group, name): value
        for group, values in groups.items()
        for name, value in _flat(values)
        if _told(value) and not (group == "facts" and f".{name}".endswith(_OWN_ENDS))
    }


def _nodes(record: RunRecord, machine: Mapping[str, Any]) -> dict[str, Any]:
    """Where service and load ran."""
    environment = _mapping(record.provenance.get("environment"))
    kept = {key: value for key, value in environment.items() if key not in _ENVIRONMENT_NOISE}
    endpoint = _mapping(record.service.get("endpoint"))
    zone = _mapping(record.provenance.get("time")).get("time_zone")
    return {"service host": endpoint.get("host"), "host": machine.get("host"), "time zone": zone, **kept}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", tuple(map(str, value)) if isinstance(value, list | tuple) else value


def _told(value: Any) -> bool:
    """An option that was not there yet, and one that is off, are the same."""
    return value not in (None, "", (), False)


def _is_same(group: str, values: Sequence[Any]) -> bool:
    if group == "facts" and all(type(value) in (int, float) for value in values):
        low, high = min(values), max(values)
        return bool(high - low <= _CLOSE * max(abs(low), abs(high)))
    return len({_word("", value) for value in values}) <= 1


def _varies_alike(columns: Sequence[Sequence[Any]]) -> bool:
    """Every side has the same values as often as the others: such as seeds, one for each repeat."""
    counts = [Counter(_word("", value) for value in column) for column in columns]
    return all(count == counts[0] for count in counts)


def _is_measured(columns: Sequence[Sequence[Any]]) -> bool:
    """A number with decimals that differs between the runs of one side is a measurement, no configuration."""
    return all(isinstance(value, float) for column in columns for value in column) and any(
        len(set(column)) > 1 for column in columns
    )


def _several(name: str, values: Sequence[Any]) -> str:
    """`50`, or `50 (3 runs), 100 (2 runs)`."""
    counts = Counter(_word(name, value) for value in values)
    if len(counts) == 1:
        return next(iter(counts))
    shown = [
        f"{text} ({count} run{'s' if count > 1 else ''})" for text, count in counts.most_common(_MAX_SHOWN)
    ]
    more = len(counts) - len(shown)
    return ", ".join([*shown, *([f"{more} more"] if more else [])])


def _word(name: str, value: Any) -> str:
    if not _told(value):
        return ABSENT
    if value is True:
        return "yes"
    if isinstance(value, tuple):
        return ", ".join(value)
    if isinstance(value, int | float):
        return format_size(value) if name.endswith(_BYTES) else format_number(value, 6)
    text = " ".join(str(value).split())
    if name.endswith(("sha256", "git_commit")):
        return text[:12]
    return text if len(text) <= 80 else f"{text[:77]}..."
