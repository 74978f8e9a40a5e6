"""What an IO500 run printed or wrote, as values: every layout from 2017 to today. Pure: text in, values out.

- `result_summary.txt` of the C version (2020 on): `[RESULT] ior-easy-write 1.0 GiB/s : time 300.0 seconds`,
  `[      ]` for what is not scored, `[SCORE ]`, `[SCOREX]` (extended), `[INVALID]` marks; with the label GB/s
  (which meant GiB/s) and `[SCORE INVALID]` in its first releases;
- of the shell version (2017 to 2020): `[RESULT] BW   phase 1   ior_easy_write ...`, `[SCORE]`;
- `result.txt` of the C version: an ini file, whose comments say why a run is invalid.

The same lines are found in a job's log, after the prefixes of `srun --label` and between other output.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from aifbench.workloads.io500_score import SCORED_PHASES, Printed


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase: GiB/s or kIOPS by its name. `stonewall` is the rate when time was called, if told.

    `time_s` is None in a file that does not say it.
    """

    name: str
    score: Printed
    time_s: float | None
    is_invalid: bool = False
    is_scored: bool = True
    stonewall: float | None = None

    @property
    def unit(self) -> str:
        return unit_of(self.name)


@dataclass(frozen=True, slots=True)
class Totals:
    """A score line as printed: GiB/s, kIOPS, and their score."""

    bandwidth: Printed
    metadata: Printed
    total: Printed


@dataclass(frozen=True, slots=True)
class Summary:
    """A run as it describes itself; the last one where a text holds several.

    `repeated` are phases with different values within one run: the mark of processes that each believed to
    be alone. `damaged` counts result lines that could not be read. `reasons` say why it is invalid.
    """

    version: str = ""
    mode: str = ""
    phases: tuple[Phase, ...] = ()
    totals: Totals | None = None
    extended_totals: Totals | None = None
    is_marked_invalid: bool = False
    reasons: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    damaged: int = 0
    processes: int | None = None
    config_hash: str = ""
    score_hash: str = ""

    @property
    def is_complete(self) -> bool:
        """It came to its score, with a line for each phase that counts."""
        names = {phase.name for phase in self.phases}
        return self.totals is not None and names.issuperset(SCORED_PHASES)

    @property
    def values(self) -> dict[str, float]:
        return {phase.name: phase.score.value for phase in self.phases}

    @property
    def printed(self) -> dict[str, Printed]:
        return {phase.name: phase.score for phase in self.phases}

    def phase(self, name: str) -> Phase | None:
        return next((phase for phase in self.phases if phase.name == name), None)


def unit_of(phase: str) -> str:
    return "GiB/s" if phase.startswith("ior-") else "kIOPS"


def decode(data: bytes) -> str:
    """A log as text, whatever bytes are in it."""
    return data.decode("utf-8", errors="replace").replace("\x00", "")


def parse_summary(text: str) -> Summary:
    """Of `result_summary.txt`, or of a job's log that holds its lines."""
    return _Reader(_last_run(text)).summary()


def parse_result(text: str) -> Summary:
    """Of `result.txt`. An entry that is not a number is left out."""
    sections = dict(_sections(text))
    run = {**sections.get("", {}), **sections.get("run", {})}
    phases = tuple(
        phase for name, entries in sections.items() if (phase := _phase_of_section(name, entries)) is not None
    )
    return Summary(
        version=run.get("version", ""),
        mode=run.get("mode", ""),
        phases=phases,
        totals=_totals_of_section(sections.get("SCORE", {})),
        extended_totals=_totals_of_section(sections.get("SCOREX", {})),
        is_marked_invalid="[INVALID]" in text or bool(_reasons(text)),
        reasons=_reasons(text),
        processes=int(run["procs"]) if run.get("procs", "").isdigit() else None,
        config_hash=run.get("config-hash", ""),
        score_hash=sections.get("SCORE", {}).get("hash", ""),
    )


def joined(summary: Summary, details: Summary) -> Summary:
    """`summary` and what only `result.txt` (`details`) tells: reasons, stonewall rates, processes, hashes."""
    known = {phase.name: phase for phase in details.phases}
    phases = [
        replace(phase, stonewall=known[phase.name].stonewall) if phase.name in known else phase
        for phase in summary.phases
    ]
    names = {phase.name for phase in phases}
    return replace(
        summary,
        version=summary.version or details.version,
        mode=summary.mode or details.mode,
        phases=(*phases, *(phase for phase in details.phases if phase.name not in names)),
        totals=summary.totals or details.totals,
        is_marked_invalid=summary.is_marked_invalid or details.is_marked_invalid,
        reasons=tuple(dict.fromkeys((*summary.reasons, *details.reasons))),
        processes=details.processes,
        config_hash=details.config_hash,
        score_hash=details.score_hash,
    )


_NUMBER = r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf)"
_HEADER = re.compile(r"IO500 version\s+(?P<version>\S*?)\s*\((?P<mode>\w+)\)", re.IGNORECASE)
_TAG = re.compile(r"\[(?:RESULT[ -]*(?:invalid)?| {6})\]", re.IGNORECASE)
_RESULT = re.compile(
    r"\[(?P<tag>RESULT[ -]*(?:invalid)?| {6})\]\s+(?:(?:BW|IOPS)\s+phase\s+\d+\s+)?(?P<name>[a-z][\w-]*)\s+"
    rf"(?P<score>{_NUMBER})\s+(?:Gi?B/s|kIOPS)\s*:\s*time\s+(?P<time>{_NUMBER})\s+sec(?P<rest>.*)",
    re.IGNORECASE,
)
_SCORE = re.compile(
    rf"\[SCORE(?P<extended>X)?[ -]*(?P<invalid>invalid)?\s*\]\s+Bandwidth\s+(?P<bw>{_NUMBER})\s+Gi?B/s\s*:"
    rf"\s*IOPS\s+(?P<md>{_NUMBER})\s+kiops\s*:\s*TOTAL\s+(?P<total>{_NUMBER})(?P<rest>.*)",
    re.IGNORECASE,
)
_REASON = re.compile(r"ERROR INVALID:?\s*(?:\([^)]*\))?:?\s*(.+)")
_SECTION = re.compile(r"^\s*\[\s*([\w-]+)\s*\]")
_ENTRY = re.compile(r"^\s*([\w-]+)\s*=\s*(.*?)\s*$")
_LABEL = re.compile(r"(?m)^\s*\d+:\s?")  # srun --label


class _Reader:
    """Line by line over one run's text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._phases: dict[str, Phase] = {}
        self._repeated: dict[str, None] = {}
        self._damaged = 0
        self._totals: dict[bool, Totals] = {}
        self._is_invalid = False

    def summary(self) -> Summary:
        for line in self._text.splitlines():
            if found := _RESULT.search(line):
                self._add_phase(found)
            elif found := _SCORE.search(line):
                self._add_score(found)
            elif _TAG.search(line):
                self._damaged += 1
        header = _HEADER.search(self._text)
        reasons = _reasons(self._text)
        return Summary(
            version=header["version"] if header else "",
            mode=header["mode"].lower() if header else "",
            phases=tuple(self._phases.values()),
            totals=self._totals.get(False),
            extended_totals=self._totals.get(True),
            is_marked_invalid=self._is_invalid or bool(reasons),
            reasons=reasons,
            repeated=tuple(self._repeated),
            damaged=self._damaged,
        )

    def _add_phase(self, found: re.Match[str]) -> None:
        phase = Phase(
            name=found["name"].replace("_", "-"),
            score=Printed.of(found["score"]),
            time_s=Printed.of(found["time"]).value,
            is_invalid="invalid" in (found["tag"] + found["rest"]).lower(),
            is_scored=found["tag"].strip() != "",
        )
        before = self._phases.get(phase.name)
        if before is not None and before.score != phase.score:
            self._repeated[phase.name] = None
        self._phases[phase.name] = phase
        self._is_invalid |= phase.is_invalid

    def _add_score(self, found: re.Match[str]) -> None:
        totals = Totals(*(Printed.of(found[name]) for name in ("bw", "md", "total")))
        extended = bool(found["extended"])
        if self._totals.get(extended, totals) != totals:
            self._repeated["score"] = None
        self._totals[extended] = totals
        self._is_invalid |= bool(found["invalid"]) or "invalid" in found["rest"].lower()


def _last_run(text: str) -> str:
    """The text from its last header on, if it holds results; else all of it."""
    for header in reversed(list(_HEADER.finditer(text))):
        if _RESULT.search(text, header.end()):
            return text[header.start() :]
    return text


def _reasons(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(found[1].strip() for found in _REASON.finditer(text)))


def _sections(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(name, entries) in order; before the first section the name is empty. Comments are skipped."""
    name, entries = "", dict[str, str]()
    for line in _LABEL.sub("", text).splitlines():
        if found := _SECTION.match(line):
            yield name, entries
            name, entries = found[1], {}
        elif found := _ENTRY.match(line):
            entries[found[1]] = found[2]
    yield name, entries


def _phase_of_section(name: str, entries: Mapping[str, str]) -> Phase | None:
    if name in ("", "run", "SCORE", "SCOREX"):
        return None
    score = _printed(entries.get("score"))
    if score is None:
        return None
    stonewall = _printed(entries.get("throughput-stonewall") or entries.get("rate-stonewall"))
    time = _printed(entries.get("t_delta"))
    return Phase(
        name=name,
        score=score,
        time_s=time.value if time else None,
        is_scored=name in SCORED_PHASES,
        stonewall=stonewall.value if stonewall else None,
    )


def _totals_of_section(entries: Mapping[str, str]) -> Totals | None:
    bandwidth, metadata, total = (_printed(entries.get(key)) for key in ("BW", "MD", "SCORE"))
    return Totals(bandwidth, metadata, total) if bandwidth and metadata and total else None


def _printed(text: str | None) -> Printed | None:
    """A number that a mark may follow: `7.096374  [INVALID]`."""
    found = re.match(_NUMBER, text or "", re.IGNORECASE)
    return Printed.of(found[0]) if found else None
