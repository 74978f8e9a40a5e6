"""RunRecord: everything a run is and found, as plain JSON with a published, versioned schema.

Light to import (no numpy): listing results must be fast.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from aifbench.errors import SchemaMismatch
from aifbench.results.decode import decode
from aifbench.results.resources import Resources

SCHEMA = "aifbench.run/1"


class Verdict(Enum):
    """How far a number can be relied on. INVALID numbers are shown, and must not be quoted."""

    VALID = "VALID"
    WARN = "WARN"
    INVALID = "INVALID"


_ORDER = (Verdict.VALID, Verdict.WARN, Verdict.INVALID)


def worst(verdicts: "list[Verdict]") -> Verdict:
    """The most severe verdict; VALID when there is none."""
    return max(verdicts, key=_ORDER.index, default=Verdict.VALID)


class Role(Enum):
    """What a measurement is for."""

    MEASURE = "measure"
    PROBE = "probe"  # one step of a search: meant to fail sometimes, and no part of the run's verdict


class RunState(Enum):
    """RUNNING as stored may read INTERRUPTED when its owner is gone: see store."""

    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    FAILED = "FAILED"
    INTERRUPTED = "INTERRUPTED"


@dataclass(frozen=True, slots=True)
class Metric:
    """One number: unit, direction (`higher`, `lower` is better, or `none`), sample count, 95 % interval.

    `value` is None when the sample cannot carry it, and `note` then says why.
    """

    name: str
    value: float | None
    unit: str
    direction: str = "none"
    low: float | None = None
    high: float | None = None
    n: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One validity rule applied: what was seen, against which limit, and what to do about it."""

    code: str
    verdict: Verdict
    message: str
    value: float | None = None
    limit: float | None = None
    unit: str = ""
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One stream of one phase: how it was loaded, what came out, and how far to believe it.

    `window_s` is the (start, end) that the numbers describe, in seconds since the phase's start,
    after warm-up and steady-state cut. `outcomes` counts the operations of that window by
    outcome name; `errors` holds distinct error texts with counts over the whole phase. `series`
    is a coarse time series for figures: column name to values, one row per `series_step_s`.
    """

    phase: str
    stream: str
    arrivals: str
    via: str
    workers: int
    window_s: tuple[float, float]
    metrics: tuple[Metric, ...]
    checks: tuple[Check, ...]
    outcomes: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    series: Mapping[str, list[float | None]] = field(default_factory=dict)
    series_step_s: float = 1.0
    latency_quantiles: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    samples_file: str = ""
    started_utc: str = ""
    role: Role = Role.MEASURE

    @property
    def verdict(self) -> Verdict:
        return worst([check.verdict for check in self.checks])

    def metric(self, name: str) -> Metric | None:
        return next((m for m in self.metrics if m.name == name), None)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run: what was asked (`recipe`), of which service, where (`provenance`), and what was measured.

    `service` describes the deployed service (kind, name, version, url, options, job, authentication)
    and `recipe` is verbatim what `bench` was asked, defaults filled in. `owner` is (host, pid,
    process start) of the writing shell.
    """

    run_id: str
    created_utc: str
    state: RunState
    service: Mapping[str, Any]
    recipe: Mapping[str, Any]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    measurements: tuple[Measurement, ...] = ()
    notes: tuple[str, ...] = ()
    error: str = ""
    ended_utc: str = ""
    owner: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)

    @property
    def verdict(self) -> Verdict:
        """The worst of all but probes; INVALID when the run is not COMPLETE or measured nothing."""
        counted = [m.verdict for m in self.measurements if m.role is Role.MEASURE]
        if self.state is not RunState.COMPLETE or not counted:
            return Verdict.INVALID
        return worst(counted)

    def to_json(self) -> dict[str, Any]:
        data = asdict(self, dict_factory=_plain)
        data["schema"] = SCHEMA
        if self.resources == Resources():  # as in records from before there were any
            del data["resources"]
        data["verdict"] = self.verdict.value
        for stored, measurement in zip(data["measurements"], self.measurements, strict=True):
            stored["verdict"] = measurement.verdict.value
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "RunRecord":
        """Raises SchemaMismatch for another schema version, or naming the field that is missing or wrong."""
        schema = data.get("schema") if isinstance(data, Mapping) else None
        if schema != SCHEMA:
            raise SchemaMismatch(
                f"record schema is {schema!r}, this version reads {SCHEMA!r}",
                hint="open it with the aifbench version that wrote it",
            )
        rest = _without_verdict({k: v for k, v in data.items() if k != "schema"})
        measurements = rest.get("measurements")
        if isinstance(measurements, list):
            rest["measurements"] = [_without_verdict(m) for m in measurements]
        record = decode(cls, rest)
        assert isinstance(record, cls)
        return record


def _plain(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value.value if isinstance(value, Enum) else value for key, value in pairs}


def _without_verdict(data: Any) -> Any:
    """Verdicts are stored for other readers; here they follow from the checks."""
    return {k: v for k, v in data.items() if k != "verdict"} if isinstance(data, Mapping) else data
