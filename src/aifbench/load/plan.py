"""What the coordinator asks of its workers and what they answer, as JSON files in one directory."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from aifbench.cluster.endpoint import Endpoint

PLAN_SCHEMA = "aifbench.plan/1"


@dataclass(frozen=True, slots=True)
class Quality:
    """A per-operation value in [0, 1] that a workload reports, and the run's verdict limits on its mean."""

    name: str
    warn_below: float = 0.0
    invalid_below: float = 0.0


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """One kind of operation under one arrival process, on `workers` processes.

    `workload` is `module:Class`, built with `params`; both must survive JSON. `arrivals` is what
    `arrivals.to_json` returned. Exactly as many operations as `limit` are issued when it is set;
    otherwise the phase's duration ends the stream. `items` names the unit counted by Outcome.items.
    `is_stationary` is False where the operations change what they meet, as data that grows does: then
    latency drifts by nature. In closed loop a client does `chain` operations of consecutive index, `think_s`
    apart, before it takes others; one that fails ends its chain. An open loop with more than `max_in_flight`
    operations under way is ended: the service is overloaded, and more waiting would tell nothing new.
    `endpoint` is the stream's own, where it is of another service than the phase's.
    """

    name: str
    workload: str
    params: Mapping[str, Any]
    arrivals: Mapping[str, Any]
    workers: int = 1
    limit: int | None = None
    items: str = ""
    qualities: tuple[Quality, ...] = ()
    via: str = "http"
    is_stationary: bool = True
    chain: int = 1
    think_s: float = 0.0
    max_in_flight: int | None = None
    endpoint: Endpoint | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "StreamPlan":
        endpoint = data.get("endpoint")
        made = {
            "qualities": tuple(Quality(**quality) for quality in data["qualities"]),
            "endpoint": Endpoint.from_json(endpoint) if endpoint else None,
        }
        return cls(**{**data, **made})


@dataclass(frozen=True, slots=True)
class PhasePlan:
    """Streams that run at the same time, from one wall-clock start.

    `measure_s` is None when every stream is closed loop and has a limit. Samples of the first `warmup_s` are
    kept; `drain_s` is how long unfinished operations are waited for after the end.
    """

    name: str
    streams: tuple[StreamPlan, ...]
    endpoint: Endpoint
    warmup_s: float = 0.0
    measure_s: float | None = None
    drain_s: float = 10.0
    timeout_s: float = 30.0
    seed: int = 1

    def endpoint_of(self, stream: StreamPlan) -> Endpoint:
        """Where the stream's operations go."""
        return stream.endpoint or self.endpoint

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        data["endpoint"] = self.endpoint.to_json()
        for stored, stream in zip(data["streams"], self.streams, strict=True):
            stored["endpoint"] = stream.endpoint.to_json() if stream.endpoint else None
        data["schema"] = PLAN_SCHEMA
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "PhasePlan":
        streams = tuple(StreamPlan.from_json(stream) for stream in data["streams"])
        rest = {k: v for k, v in data.items() if k not in ("schema", "streams", "endpoint")}
        return cls(streams=streams, endpoint=Endpoint.from_json(data["endpoint"]), **rest)


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What one worker says of itself after its part. Times in seconds.

    `cpu_s` and `wall_s` cover the load itself (not preparation, interpretation or waiting awake).
    `loop_delay_max_s` is the longest the worker was away from its clock. `clock_offset_s` is its wall
    clock minus worker 0's, and `clock_step_s` how far its wall clock moved against its monotonic one
    during the load. `errors` maps an error text to its count. `limited_by` is set when the worker itself
    could not follow the plan, `overloaded` when it ended early because too much was under way, and
    `terminated` when a signal ended it before its part was done.
    `notes` are what the workload found out itself, as numbers by name. `sent_anew` operations met a kept
    connection that the service had just closed.
    """

    stream: str
    worker: int
    host: str
    pid: int
    operations: int
    cpu_s: float
    wall_s: float
    loop_delay_max_s: float = 0.0
    clock_offset_s: float = 0.0
    clock_offset_error_s: float = 0.0
    clock_step_s: float = 0.0
    errors: Mapping[str, int] = field(default_factory=dict)
    interpreted: int = 0
    limited_by: str = ""
    failure: str = ""
    overloaded: bool = False
    notes: Mapping[str, float] = field(default_factory=dict)
    sent_anew: int = 0
    terminated: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "WorkerReport":
        return cls(**data)
