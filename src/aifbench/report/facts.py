"""What was measured, how and where, as labelled lines: the facts of a run without its numbers."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from aifbench.report.content import MANY, label, measured
from aifbench.report.reproduce import NOT_ASKED, address, asked, is_attached
from aifbench.results.headline import measures_itself
from aifbench.results.record import Measurement, RunRecord
from aifbench.units import format_duration, format_number, format_size

LOAD = "load"  # the name of a line that tells of several measurements


def facts(record: RunRecord) -> list[tuple[str, str]]:
    """What was measured: service, benchmark, load and time, as labelled lines."""
    lines = [
        ("service", _service(record.service)),
        *((role, _service(_mapping(one))) for role, one in _mapping(record.service.get("members")).items()),
        ("started as", _pairs(_mapping(record.service.get("options")))),
        *_benchmark(record.recipe),
        *_found(_mapping(record.recipe.get("facts"))),
        ("when", when(record)),
        *_loads(record),
        *(("note", note) for note in record.notes),
    ]
    return [(name, text) for name, text in lines if text]


def brief_facts(record: RunRecord) -> list[tuple[str, str]]:
    """The same for a reader in a hurry: what was asked for, without defaults and findings."""
    known = _mapping(record.recipe.get("facts"))
    told = {name for name, _ in (*_found(known), *_loads(record))}
    lines = dict(facts(record)) | dict(_benchmark(asked(record.recipe)))
    return [(name, text) for name, text in lines.items() if text and name not in told]


def _benchmark(recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was asked for; of several services at once a line for each."""
    members = _mapping(recipe.get("members"))
    loose = {name: value for name, value in recipe.items() if name != "members"}
    return [
        ("benchmark", _pairs(loose, skip=NOT_ASKED)),
        *((f"benchmark: {role}", _pairs(_mapping(m), skip=_NOT_OF_MEMBER)) for role, m in members.items()),
    ]


_NOT_OF_MEMBER = ("service", "facts", "given")


def _found(known: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was found out about service and data; a line for each group of it."""
    groups = [
        (f"found: {_words(name)}", _text(name, part)) for name, v in known.items() for part in _parts(v)
    ]
    loose = {name: value for name, value in known.items() if not _parts(value)}
    return [("found", _pairs(loose)), *groups]


def _parts(value: Any) -> list[Mapping[str, Any]]:
    """The group of facts that a value is, or the several of a list."""
    found = value if isinstance(value, list | tuple) else [value]
    return [each for each in found if isinstance(each, Mapping)]


def _loads(record: RunRecord) -> list[tuple[str, str]]:
    """How each was loaded; of many measurements with few loads a line for each load."""
    measurements = measured(record)
    groups: dict[str, list[str]] = {}
    for m in measurements:
        groups.setdefault(_load_words(m), []).append(label(record, m))
    if len(measurements) <= MANY or 2 * len(groups) > len(measurements):
        return [(label(record, m), load_text(m)) for m in measurements]
    return [(LOAD, text if len(groups) == 1 else f"{text}: {', '.join(n)}") for text, n in groups.items()]


def _service(service: Mapping[str, Any]) -> str:
    """As one says it: kind, version, own name and address, then authentication and job."""
    kind, name = (str(service.get(key) or "") for key in ("kind", "name"))
    own_name = f"({name})" if name != kind and name else ""
    url = address(_mapping(service.get("endpoint")))
    at = f"at {url}" if url else ""
    head = " ".join(filter(None, (kind, str(service.get("version") or ""), own_name, at)))
    rest = {
        key: service[key]
        for key in ("authentication", "scheduler", "job_id", "ready_after_s")
        if key in service and not (key == "authentication" and url.startswith("file:"))
    }
    if isinstance(ready_s := rest.get("ready_after_s"), int | float):
        rest["ready_after_s"] = format_duration(ready_s)
    if is_attached(service):
        return ", ".join(filter(None, (head, _pairs(rest, skip=("scheduler", "ready_after_s")), "attached")))
    return ", ".join(filter(None, (head, _pairs(rest))))


def when(record: RunRecord) -> str:
    return span(record.created_utc, record.ended_utc)


def span(begin_utc: str, end_utc: str) -> str:
    """`2026-11-20 13:14:55 to 13:17:21 UTC (02:26)`, or only the beginning."""
    begin, end = _instant(begin_utc), _instant(end_utc)
    if begin is None:
        return begin_utc
    text = f"{begin:%Y-%m-%d %H:%M:%S} UTC"
    if end is None or end < begin:
        return text
    until = f"{end:%H:%M:%S}" if end.date() == begin.date() else f"{end:%Y-%m-%d %H:%M:%S}"
    return f"{text[:-4]} to {until} UTC ({_lasted((end - begin).total_seconds())})"


def _lasted(whole_s: float) -> str:
    """Between two instants that are known to the second."""
    if whole_s >= 60:
        return format_duration(whole_s)
    return f"{whole_s:.0f} s" if whole_s >= 1 else "under 1 s"


def load_text(measurement: Measurement) -> str:
    """`poisson 200/s, 2 workers by http, measured 5 s to 65 s of the phase`."""
    start_s, end_s = measurement.window_s
    measured = f"measured {format_number(start_s, 3)} s to {format_number(end_s, 3)} s of the phase"
    return f"{_load_words(measurement)}, {measured}"


def _load_words(measurement: Measurement) -> str:
    count = measurement.workers
    is_ours = not measures_itself(measurement)  # else its own processes are in `arrivals`
    by = f"{count} worker{'s' if count != 1 else ''} by" if is_ours else "by"
    return f"{measurement.arrivals}, {by} {measurement.via}"


def provenance(record: RunRecord) -> list[tuple[str, list[tuple[str, str]]]]:
    """The facts of machine and software in their groups."""
    groups = ((group, _lines(_mapping(facts))) for group, facts in record.provenance.items())
    loose = [(name, v) for name, v in record.provenance.items() if not isinstance(v, Mapping)]
    found = [(group, lines) for group, lines in groups if lines]
    return [*found, *([("other", _lines(dict(loose)))] if loose else [])]


def recipe_text(record: RunRecord) -> str:
    """The recipe as it was recorded, for reading and copying."""
    return json.dumps(dict(record.recipe), indent=2, default=str)


def _lines(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(_words(name), _text(name, value)) for name, value in values.items()]


def _pairs(values: Mapping[str, Any], skip: Sequence[str] = ()) -> str:
    kept = ((name, v) for name, v in values.items() if name not in skip and v not in (None, "", [], {}))
    return ", ".join(f"{_words(name)} {_text(name, value)}" for name, value in kept)


def _words(name: str) -> str:
    return re.sub(r"^is_|_(s|mib|bytes|bytes_per_s)$", "", name).replace("_", " ")


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _number_text(name, value)
    if isinstance(value, Mapping):
        return _pairs(
            {f"{key}_bytes": each for key, each in value.items()} if name.endswith("_bytes") else value
        )
    if isinstance(value, list | tuple):
        return ", ".join(_text(name, item) for item in value)
    return str(value)


# Options whose values are recorded in bytes, in seconds and per second.
_SIZES = ("size", "block", "data", "max_data", "file_size", "range_size", "part_size", "stripe_size")
_TIMES = ("time", "duration", "warmup", "drain", "timeout", "think", "latency_limit", "ttft", "itl")
_RATES = ("rate", "rates", "ramp_to", "ingest_rate")


def _number_text(name: str, value: float) -> str:
    if name.endswith("_bytes_per_s"):
        return f"{format_size(value)}/s"
    if name.endswith("_mib"):
        return format_size(value * 2**20)
    if name.endswith("_bytes") or name in _SIZES:
        return format_size(value)
    if name.endswith("_s") or name in _TIMES:
        return f"{format_number(value) if value >= 0.001 else f'{value:g}'} s"
    text = str(value) if isinstance(value, int) else f"{value:.6g}"
    return f"{text}/s" if name in _RATES else text


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _instant(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
