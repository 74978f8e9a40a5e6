"""What a side of a comparison may be called, and which runs that means.

A run (`last`, an id, a unique part of one); `tag=baseline` and any other filter of `results`, joined by
commas; a period, `2026-11-01..2026-11-10`; a study, or a point of it: `STUDY:rate=50`, `STUDY:2`; a zip made
by `save`, a run's directory, or a record.json.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aifbench.errors import UnknownRun, UsageError
from aifbench.options import nearest
from aifbench.results.evidence import read_evidence, verify
from aifbench.results.query import study_of
from aifbench.results.record import RunRecord
from aifbench.results.store import RunStore

_POINT = re.compile(r"(?P<study>[A-Za-z0-9][A-Za-z0-9-]*):(?P<point>.+)")
_HINT = "give a run, tag=NAME, a study or STUDY:POINT, filters such as service=KIND,since=2d, or a file"


@dataclass(frozen=True, slots=True)
class Side:
    """Runs that are compared as one. `label` is how they are called; `problems` are told, not hidden.

    With `by_point` they are of several points of one study, each compared with its own counterpart.
    """

    label: str
    records: tuple[RunRecord, ...]
    problems: tuple[str, ...] = ()
    by_point: bool = False


def point_of(record: RunRecord) -> str:
    """The label of the study's point that a run was made for; nothing for other runs."""
    return str(study_of(record).get("label", ""))


def select_sides(store: RunStore, texts: Sequence[str], *, verified: bool = False) -> list[Side]:
    """Two sides or more. A study of several points alone means its points, each against the first.

    `verified`: the files of stored runs are read and held against their checksums, too. Raises UsageError,
    UnknownRun or ResultError.
    """
    if not texts:
        raise UsageError("nothing to compare", hint=_HINT)
    sides = [select_side(store, text, verified=verified) for text in texts]
    if len(sides) == 1 and sides[0].by_point:
        sides = _points(sides[0])
    if len(sides) == 1:
        raise UsageError(f"{texts[0]} is only one side", hint="name two or more, the base first")
    return _named(sides)


def select_side(store: RunStore, text: str, *, verified: bool = False) -> Side:
    """The runs that `text` means; see the module. Raises UsageError, UnknownRun or ResultError."""
    if not text.strip():
        raise UsageError("a side without a name", hint=_HINT)
    if _is_path(text):
        records, problems = read_evidence(Path(text).expanduser())
        side = Side(Path(text).name or text, tuple(records), tuple(problems))
        return _study_side(side) if len(records) > 1 else side
    side = _select_stored(store, text)
    if verified:
        problems = [line for record in side.records for line in verify(store.path(record.run_id), record)]
        side = replace(side, problems=(*side.problems, *problems))
    return side


def stored_runs(store: RunStore, text: str) -> tuple[RunRecord, ...]:
    """The runs of this results folder that `text` means, of all points of a study. Raises as select_side."""
    if _is_path(text):
        raise UsageError(
            f"{text} is a file", hint="unpack it into the results folder to make its runs one's own"
        )
    return _select_stored(store, text).records


def split_filters(text: str) -> list[str]:
    """`service=chroma,verdict=VALID,WARN,2d..1d` as filters: what has no `=` goes on the list before it."""
    found: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        if found and "=" not in part and ".." not in part:
            found[-1] += f",{part}"
        elif part:
            found.append(part)
    return found


def _is_path(text: str) -> bool:
    return "/" in text or text.endswith((".zip", ".json")) or text.startswith("~")


def _select_stored(store: RunStore, text: str) -> Side:
    if match := _POINT.fullmatch(text):
        return _select_point(store, match["study"], match["point"])
    if "=" in text or ".." in text:
        return _select_filtered(store, text)
    try:
        return _of_run(store.load(text))
    except UnknownRun as error:
        if "matches" in error.message and "no run matches" not in error.message:
            raise
        return _study_side(_select_study(store, text, error))


def _of_run(record: RunRecord) -> Side:
    return Side(record.run_id, (record,))


def _select_filtered(store: RunStore, text: str) -> Side:
    records = tuple(record for record, _ in store.records(split_filters(text)))
    if not records:
        raise UnknownRun(f"no run matches {text!r}", hint="`results` lists them")
    return Side(text, records)


def _select_study(store: RunStore, text: str, cause: UnknownRun | None = None) -> Side:
    """The newest study of that name, or the one whose id, or unique part of it, it is."""
    studies: dict[str, list[RunRecord]] = {}
    for record, _ in store.records():
        if study_id := str(study_of(record).get("id", "")):
            studies.setdefault(study_id, []).append(record)
    names = {key: str(study_of(records[0]).get("name", "")) for key, records in studies.items()}
    of_name = sorted((key for key, name in names.items() if name == text), reverse=True)
    parts = [key for key in studies if text == key or key.startswith(text) or key.endswith(text)]
    found = of_name[:1] or parts
    if len(found) > 1:
        raise UnknownRun(f"{text!r} matches {len(found)} studies", hint=f"give one of: {', '.join(found)}")
    if not found:
        close = nearest(text, [*names.values(), *studies])
        if cause is not None and not close:
            raise UnknownRun(cause.message, hint=_HINT)
        raise UnknownRun(f"no run or study is called {text!r}{close}", hint=_HINT)
    return Side(found[0] if len(of_name) > 1 else text, tuple(studies[found[0]]))


def _study_side(side: Side) -> Side:
    return replace(side, by_point=len({point_of(record) for record in side.records}) > 1)


def _points(side: Side) -> list[Side]:
    return [
        Side(label, tuple(record for record in side.records if point_of(record) == label), side.problems)
        for label in _labels(side.records)
    ]


def _labels(records: Sequence[RunRecord]) -> list[str]:
    """The points' labels in the order of the study."""
    points = {point_of(record): _number(study_of(record)) for record in records}
    return sorted(points, key=lambda label: points[label])


def _number(study: Mapping[str, Any]) -> int:
    point = study.get("point")
    return point if isinstance(point, int) else 0


def _select_point(store: RunStore, study: str, text: str) -> Side:
    """A point by its number, counted from 1, or by enough of its settings to mean only one."""
    side = _select_study(store, study)
    labels = _labels(side.records)
    if text.isdecimal() and 1 <= int(text) <= len(labels):
        chosen = [labels[int(text) - 1]]
    else:
        wanted = {part.strip() for part in re.split(r"[,\s]+", text) if part.strip()}
        chosen = [label for label in labels if wanted <= set(label.split())]
    if len(chosen) != 1:
        some = f"{len(chosen)} points match" if chosen else "no point matches"
        raise UsageError(
            f"{some} {text!r} in study {side.label}{nearest(text, labels)}",
            hint="its points: " + "; ".join(f"{i}: {label}" for i, label in enumerate(labels, 1)),
        )
    records = tuple(record for record in side.records if point_of(record) == chosen[0])
    return Side(f"{side.label}:{chosen[0]}", records)


def _named(sides: Sequence[Side]) -> list[Side]:
    """No two of one name, no run on two sides, and points only against points."""
    if len({side.by_point for side in sides}) > 1:
        many = next(side for side in sides if side.by_point)
        raise UsageError(
            f"{many.label} has several points",
            hint=f"name one, such as {many.label}:{_labels(many.records)[0]}",
        )
    taken: dict[str, int] = {}
    for number, side in enumerate(sides):
        for record in side.records:
            if taken.setdefault(record.run_id, number) != number:
                raise UsageError(
                    f"run {record.run_id} is on both sides",
                    hint="a comparison needs runs of its own per side",
                )
    labels = [side.label for side in sides]
    return [
        replace(
            side,
            label=f"{side.label} ({labels[: i + 1].count(side.label)})"
            if side.label in labels[:i]
            else side.label,
        )
        for i, side in enumerate(sides)
    ]
