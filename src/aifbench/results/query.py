"""Choosing and ordering runs: filters such as `service=chroma verdict=VALID,WARN since=2d words`.

A period is `since=`, `until=`, or both in one word: `2026-11-01..2026-11-10`, its last day included.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from aifbench.clock import utc_text
from aifbench.errors import UsageError
from aifbench.options import nearest
from aifbench.results.headline import headline_text
from aifbench.results.record import RunRecord, RunState, Verdict
from aifbench.results.tags import NO_TAGS, Tags
from aifbench.units import parse_duration_s

SORT_KEYS = ("created", "service", "verdict", "size")
FILTER_KEYS = ("service", "bench", "verdict", "state", "tag", "study", "since", "until")
_PERIOD = re.compile(r"([^=.]*)\.\.([^=.]*)")


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One line of the list of runs.

    `state` and `verdict` are None where unknown: the record is unreadable (`problem` says why), or,
    for the verdict, the run is still RUNNING. `study` and `point` are those the run was made for.
    """

    run_id: str
    created_utc: str
    state: RunState | None = None
    verdict: Verdict | None = None
    service: str = ""
    name: str = ""
    bench: str = ""
    headline: str = ""
    size_bytes: int = 0
    problem: str = ""
    tags: Tags = NO_TAGS
    study: str = ""
    study_id: str = ""
    point: str = ""

    @classmethod
    def of(cls, record: RunRecord, size_bytes: int, tags: Tags = NO_TAGS) -> "RunSummary":
        """`service` and `name` are the service's kind and instance name; `bench` is the recipe's."""
        study = study_of(record)
        return cls(
            run_id=record.run_id,
            created_utc=record.created_utc,
            state=record.state,
            verdict=None if record.state is RunState.RUNNING else record.verdict,
            service=str(record.service.get("kind", "")),
            name=str(record.service.get("name", "")),
            bench=str(record.recipe.get("bench", "")),
            headline=headline_text(record),
            size_bytes=size_bytes,
            tags=tags,
            study=str(study.get("name", "")),
            study_id=str(study.get("id", "")),
            point=str(study.get("label", "")),
        )


def study_of(record: RunRecord) -> Mapping[str, Any]:
    """What the run was made for: `id` and `name` of a study, `point`, `label`, `settings` and `repeat`."""
    study = record.recipe.get("study")
    return study if isinstance(study, Mapping) else {}


Matches = Callable[[RunSummary], bool]


def unreadable(run_id: str, size_bytes: int, problem: str) -> RunSummary:
    """What the id alone tells of a run whose record cannot be read."""
    day, time, *words = run_id.split("-")
    created = f"{day[:4]}-{day[4:6]}-{day[6:]}T{time[:2]}:{time[2:4]}:{time[4:]}Z"
    return RunSummary(run_id, created, service="-".join(words[:-1]), size_bytes=size_bytes, problem=problem)


def matcher(filters: Sequence[str], now_s: float) -> Matches:
    """A test for all of `filters`: `key=value[,value]`, or words to be found anywhere. Raises UsageError."""
    tests = [_test(text, now_s) for text in filters]
    return lambda summary: all(test(summary) for test in tests)


def sort_key(name: str) -> Callable[[RunSummary], tuple[str | int, ...]] | None:
    """The key to sort by, on top of newest first; None for `created`, the order runs are read in."""
    if name not in SORT_KEYS:
        raise UsageError(
            f"cannot sort by {name!r}{nearest(name, SORT_KEYS)}", hint=f"valid: {', '.join(SORT_KEYS)}"
        )
    return {"service": _by_service, "verdict": _by_verdict, "size": _by_size}.get(name)


def _by_service(summary: RunSummary) -> tuple[str | int, ...]:
    return (summary.service, summary.name)


def _by_verdict(summary: RunSummary) -> tuple[str | int, ...]:
    return (list(Verdict).index(summary.verdict) if summary.verdict else len(Verdict),)


def _by_size(summary: RunSummary) -> tuple[str | int, ...]:
    return (-summary.size_bytes,)


def _test(text: str, now_s: float) -> Matches:
    key, equals, value = text.partition("=")
    if not text.strip(". "):  # it would match every run, also where `prune` asks for a filter
        raise UsageError(
            f"{text!r} is no filter", hint="give one such as service=chroma, or words to search for"
        )
    if period := _PERIOD.fullmatch(text):
        first, last = period.groups()
        bounds = [*([f"since={first}"] if first else []), *([f"until={last}"] if last else [])]
        return matcher(bounds, now_s)
    if not equals:
        return lambda summary: text.lower() in _words(summary)
    if key not in FILTER_KEYS:
        raise UsageError(
            f"cannot filter by {key!r}{nearest(key, FILTER_KEYS)}",
            hint=f"valid: {', '.join(f'{k}=' for k in FILTER_KEYS)} or words to search for",
        )
    if key == "since":
        earliest = _moment(value, now_s, "since")
        return lambda summary: summary.created_utc >= earliest
    if key == "until":
        latest = _moment(value, now_s, "until")
        return lambda summary: summary.created_utc < latest
    wanted = _values(key, value)
    return lambda summary: bool(wanted & _field(summary, key))


def _values(key: str, text: str) -> set[str]:
    wanted = {value.strip().lower() for value in text.split(",")}
    known = {"verdict": Verdict, "state": RunState}.get(key)
    if known:
        valid = {member.value.lower(): member.value for member in known}
        for value in sorted(wanted - set(valid)):
            raise UsageError(f"no {key} is called {value!r}", hint=f"valid: {', '.join(valid.values())}")
    return wanted


def _field(summary: RunSummary, key: str) -> set[str]:
    if key == "service":
        return {summary.service.lower(), summary.name.lower()}
    if key == "bench":
        return {summary.bench.lower()}
    if key == "tag":
        return {word.lower() for word in summary.tags.words}
    if key == "study":
        return {summary.study.lower(), summary.study_id.lower(), summary.study_id[-4:].lower()} - {""}
    member = summary.verdict if key == "verdict" else summary.state
    return {member.value.lower()} if member else set()


def _words(summary: RunSummary) -> str:
    state = summary.state.value if summary.state else ""
    verdict = summary.verdict.value if summary.verdict else ""
    parts = (summary.run_id, state, verdict, summary.service, summary.name, summary.bench)
    said = (*summary.tags.words, summary.tags.note, summary.study, summary.point)
    return " ".join((*parts, *said, summary.headline, summary.problem)).lower()


def _moment(text: str, now_s: float, what: str) -> str:
    """A UTC time: an age such as 2d, or a day such as 2026-11-20: its begin, or its end for `until`."""
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        if re.fullmatch(r"\d{4}-.*", text):  # meant as a day: to be told so, and not that it is no duration
            raise UsageError(
                f"{what} {text!r} is no day", hint="give one such as 2026-11-20, or an age such as 2d"
            ) from None
        try:
            return utc_text(max(0.0, now_s - parse_duration_s(text, what)))
        except UsageError as error:
            raise UsageError(error.message, hint=f"{error.hint}, or a day such as 2026-11-20") from None
    return utc_text((day + timedelta(days=1) if what == "until" else day).timestamp())
