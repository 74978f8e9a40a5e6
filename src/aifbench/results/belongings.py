"""What a run makes elsewhere, such as a bucket: noted before it is made, struck out when it is gone.

So a run whose shell was killed leaves word of what nobody has removed. The notes are files in one directory,
`made/<run>.json` below the results: to look for them costs nothing, and they outlive a run that was pruned.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from aifbench.errors import ResultError
from aifbench.results.files import explained, read_json, write_json

FOLDER = "made"


@dataclass(frozen=True, slots=True)
class Belonging:
    """`name` says what and where it is, `remedy` what to type; `service` is ours and takes it along."""

    name: str
    remedy: str
    service: str = ""


class Belongings:
    """Those of one run; `service` is the name of one of ours, whose end takes along what is in it."""

    def __init__(self, note: Path | None = None, service: str = "") -> None:
        self._note = note
        self._service = service
        self._kept: dict[str, Belonging] = {}

    def of(self, service: str) -> "Belongings":
        """The same notes, for what is made in another service."""
        other = Belongings(self._note, service)
        other._kept = self._kept
        return other

    def add(self, name: str, remedy: str) -> None:
        """Raises ResultError when it cannot be noted."""
        if self._service:
            remedy = f"`stop {self._service}` removes it with the service"
        self._kept[name] = Belonging(name, remedy, self._service)
        if self._note:
            with explained(f"cannot make {self._note.parent}"):
                self._note.parent.mkdir(parents=True, exist_ok=True)
            self._write(self._note)

    def strike(self, name: str) -> None:
        """It is gone, or was never made."""
        if self._kept.pop(name, None) and self._note:
            with suppress(ResultError, OSError):  # at worst, what is gone is told to be left
                if self._kept:
                    self._write(self._note)
                else:
                    self._note.unlink()

    def _write(self, note: Path) -> None:
        write_json(note, {"made": [asdict(each) for each in self._kept.values()]})


@dataclass(frozen=True, slots=True)
class Left:
    """What a run that is over has left behind."""

    run_id: str
    made: Sequence[Belonging]
    is_told: bool = False

    def sentences(self) -> list[str]:
        return [f"run {self.run_id} may have left {each.name}; {each.remedy}" for each in self.made]


class LeftStore:
    """The notes of all runs of a results directory."""

    def __init__(self, results_dir: Path) -> None:
        self._dir = results_dir / FOLDER

    def note(self, run_id: str) -> Path:
        return self._dir / f"{run_id}.json"

    def of(self, run_id: str, services: Sequence[str]) -> Left:
        """What is noted of a run; `services` are the names of ours that live: others took theirs along."""
        with suppress(ResultError, KeyError, TypeError, AttributeError):
            data: Mapping[str, object] = read_json(self.note(run_id))
            made = [Belonging(**each) for each in data["made"]]  # type: ignore[attr-defined]
            kept = [each for each in made if not each.service or each.service in services]
            return Left(run_id, kept, bool(data.get("is_told")))
        return Left(run_id, ())

    def untold(self, services: Callable[[], Sequence[str]], is_over: Callable[[str], bool]) -> list[Left]:
        """What nobody has told of yet, oldest first; from now on it is told."""
        try:
            run_ids = sorted(path.stem for path in self._dir.iterdir() if path.suffix == ".json")
        except OSError:
            return []
        found = []
        for run_id in run_ids:
            left = self.of(run_id, services())
            if left.made and not left.is_told and is_over(run_id):
                with suppress(ResultError):
                    made = [asdict(each) for each in left.made]
                    write_json(self.note(run_id), {"made": made, "is_told": True})
                found.append(replace(left, is_told=True))
        return found
