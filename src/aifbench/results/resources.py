"""What nodes did while a run lasted, as its record keeps it: light, plain values.

Quantities by name, units in the names: `cpu_percent`, `iowait_percent` and `steal_percent` of all processors
of the node, `job_cpu_cores` of the batch job alone; `memory_bytes` (not available to others),
`job_memory_bytes`; `net_in_bytes_per_s` and `net_out_bytes_per_s` of real interfaces and InfiniBand ports,
`loopback_bytes_per_s`; `disk_read_bytes_per_s`, `disk_write_bytes_per_s`, `disk_operations_per_s`;
`parallel_read_bytes_per_s`, `parallel_write_bytes_per_s`; `gpu_percent` (mean over GPUs), and over all GPUs
`gpu_memory_bytes` and `gpu_power_w`; `cpu_power_w` of processors and memory. What nobody could read is not
there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PhaseSpan:
    """One phase on the run's own time, in seconds since `Resources.started_utc`; of what is measured, that
    part.
    """

    phase: str
    start_s: float
    end_s: float
    is_measured: bool = True


@dataclass(frozen=True, slots=True)
class PhaseUse:
    """One node in the phase of that place among the spans. `covered` is the share of it that samples exist
    of; means and energies are over that share, `energy_j` by `gpu` and `cpu`.
    """

    phase: str
    mean: Mapping[str, float]
    max: Mapping[str, float]
    energy_j: Mapping[str, float] = field(default_factory=dict)
    covered: float = 1.0


@dataclass(frozen=True, slots=True)
class NodeUse:
    """One node: its roles (`server`, `client`; `server NAME` where there were several services), and its use.

    `sources` names where `gpu` and `cpu` energy come from, `missing` why something is not told. `idle_w` is
    the power in quiet seconds before the run, by the same names. `clock_offset_s` has been taken off the
    samples' times: the node's clock minus that of the load; None where nothing was known about it.
    `series` has one value per `Resources.series_step_s` from the run's start on.
    """

    node: str
    roles: tuple[str, ...]
    cpus: int = 0
    memory_bytes: int = 0
    gpus: Mapping[str, str] = field(default_factory=dict)
    phases: tuple[PhaseUse, ...] = ()
    series: Mapping[str, list[float | None]] = field(default_factory=dict)
    idle_w: Mapping[str, float] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    clock_offset_s: float | None = None


@dataclass(frozen=True, slots=True)
class JobUse:
    """What the scheduler's accounting says of a job so far. Energy is of whole nodes, and so of a job alone
    only where it had them to itself.
    """

    job_id: str
    role: str
    source: str
    max_rss_bytes: int | None = None
    cpu_s: float | None = None
    energy_j: float | None = None


@dataclass(frozen=True, slots=True)
class Resources:
    """Everything that is known of the machines; empty in records of runs that nobody watched."""

    started_utc: str = ""
    phases: tuple[PhaseSpan, ...] = ()
    nodes: tuple[NodeUse, ...] = ()
    jobs: tuple[JobUse, ...] = ()
    series_step_s: float = 1.0
    notes: tuple[str, ...] = ()
