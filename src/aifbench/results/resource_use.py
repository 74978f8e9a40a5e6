"""From samples and phases to a record's `resources`, and to energy per useful unit. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from aifbench.results.record import Measurement, Metric
from aifbench.results.resource_samples import NodeSamples, Stretch
from aifbench.results.resources import NodeUse, PhaseSpan, PhaseUse
from aifbench.units import format_number

# Below this share of a window the samples do not speak for it.
MIN_COVERED = 0.8
# A node whose processors and GPUs are used less than this is idle; so many such seconds tell its power.
IDLE_PERCENT = 5.0
IDLE_MIN_S = 5.0
SERIES_POINTS = 120
_SHORTEST_S = 0.5  # below, a tick of the kernel more or less makes a maximum
_SERIES = (
    "cpu_percent", "memory_bytes", "net_in_bytes_per_s", "net_out_bytes_per_s", "loopback_bytes_per_s",
    "disk_read_bytes_per_s", "disk_write_bytes_per_s", "parallel_read_bytes_per_s",
    "parallel_write_bytes_per_s",
    "gpu_percent", "gpu_memory_bytes", "gpu_power_w", "cpu_power_w",
)  # fmt: skip
POWERS = {"gpu": "gpu_power_w", "cpu": "cpu_power_w"}
_USEFUL = {"throughput": "operation", "item_rate": "item", "output_rate": "output token"}
_RAPL = "RAPL counters of processors and memory"


@dataclass(frozen=True, slots=True)
class Use:
    """Of a window: means and maxima by quantity, and how many seconds of it were seen."""

    mean: Mapping[str, float]
    max: Mapping[str, float]
    seen_s: float


def use_of(stretches: Iterable[Stretch], begin_s: float, end_s: float) -> Use:
    """Weighted by time; a maximum is of the stretches that lie in the window for the most part."""
    sums: dict[str, tuple[float, float]] = {}
    highest: dict[str, float] = {}
    seen_s = 0.0
    for stretch in stretches:
        inside_s = min(stretch.end_s, end_s) - max(stretch.begin_s, begin_s)
        if inside_s <= 0:
            continue
        seen_s += inside_s
        length_s = stretch.end_s - stretch.begin_s
        counts = length_s >= _SHORTEST_S and 2 * inside_s >= length_s
        for name, value in stretch.values.items():
            total, weight = sums.get(name, (0.0, 0.0))
            sums[name] = total + value * inside_s, weight + inside_s
            if counts:
                highest[name] = max(value, highest.get(name, value))
    means = {name: total / weight for name, (total, weight) in sums.items()}
    return Use(means, {name: max(mean, highest.get(name, mean)) for name, mean in means.items()}, seen_s)


def node_use(
    samples: NodeSamples, roles: Sequence[str], spans: Sequence[PhaseSpan], start_s: float, step_s: float,
    *, offset_s: float | None,
) -> NodeUse:  # fmt: skip
    """One node. `samples` are on the load's clock already; `start_s` is when the run began, spans' zero."""
    head, stretches = samples.head, samples.stretches
    end_s = max((span.end_s for span in spans), default=0.0)
    names = {name for stretch in stretches for name in stretch.values}
    sources = {"gpu": str(head.get("gpu_source", "")), "cpu": _RAPL if "cpu_power_w" in names else ""}
    return NodeUse(
        node=samples.node,
        roles=tuple(roles),
        cpus=int(head.get("cpus") or 0),
        memory_bytes=int(head.get("memory_bytes") or 0),
        gpus=_texts(head.get("gpus")),
        phases=tuple(_phase_use(stretches, span, start_s) for span in spans),
        series=_series(stretches, start_s, start_s + end_s, step_s),
        idle_w=idle_power(stretches, start_s),
        sources={name: text for name, text in sources.items() if text and POWERS[name] in names},
        missing=_texts(head.get("missing")),
        clock_offset_s=offset_s,
    )


def series_step_s(spans: Sequence[PhaseSpan]) -> float:
    """Whole seconds, so that the whole run has at most SERIES_POINTS of them."""
    end_s = max((span.end_s for span in spans), default=0.0)
    return float(max(1, math.ceil(end_s / SERIES_POINTS)))


def idle_power(stretches: Iterable[Stretch], before_s: float) -> dict[str, float]:
    """Mean power in W by source in the quiet seconds before an instant; nothing where too few were seen."""
    quiet = [
        s for s in stretches
        if s.end_s <= before_s
        and max(s.values.get(busy, 0.0) for busy in ("cpu_percent", "gpu_percent")) <= IDLE_PERCENT
    ]  # fmt: skip
    if sum(s.end_s - s.begin_s for s in quiet) < IDLE_MIN_S:
        return {}
    mean = use_of(quiet, -math.inf, before_s).mean
    return {name: _rounded(mean[power]) for name, power in POWERS.items() if power in mean}


def energy_metrics(
    measurement: Measurement, servers: Sequence[tuple[NodeUse, NodeSamples]], phase_start_s: float
) -> list[Metric]:
    """Energy of all server nodes per operation, item and output token of the measurement's window.

    Nothing where a node's power was not seen for most of the window, or is not known of the same parts.
    """
    begin_s, end_s = (phase_start_s + edge_s for edge_s in measurement.window_s)
    if not servers or end_s <= begin_s:
        return []
    uses = [use_of(samples.stretches, begin_s, end_s) for _, samples in servers]
    parts = [tuple(n for n, power in POWERS.items() if power in use.mean and n in node.sources)
             for use, (node, _) in zip(uses, servers, strict=True)]  # fmt: skip
    if not parts[0] or len(set(parts)) > 1 or any(u.seen_s < MIN_COVERED * (end_s - begin_s) for u in uses):
        return []
    power_w = sum(use.mean[POWERS[part]] for use in uses for part in parts[0])
    idles = [node.idle_w.get(part) for node, _ in servers for part in parts[0]]
    idle_w = sum(idle for idle in idles if idle is not None) if None not in idles else None
    note = _power_note(power_w, parts[0], servers)
    found = []
    for rate_name, unit in _USEFUL.items():
        rate = measurement.metric(rate_name)
        if rate is None or not rate.value:
            continue
        name = f"energy_per_{unit.replace(' ', '_')}"
        found.append(Metric(name, power_w / rate.value, f"J/{unit}", "lower", n=rate.n, note=note))
        if idle_w is not None:
            above = max(0.0, power_w - idle_w) / rate.value
            said = f"{format_number(idle_w)} W subtracted, the mean of quiet seconds before the run"
            found.append(Metric(f"{name}_above_idle", above, f"J/{unit}", "lower", n=rate.n, note=said))
    return found


def _power_note(power_w: float, parts: Sequence[str], servers: Sequence[tuple[NodeUse, NodeSamples]]) -> str:
    nodes = ", ".join(node.node for node, _ in servers)
    sources = "; ".join(dict.fromkeys(node.sources[part] for node, _ in servers for part in parts))
    shared = any("client" in node.roles for node, _ in servers) and "cpu" in parts
    more = ", the load's share included" if shared else ""
    return f"mean {format_number(power_w)} W on {nodes}{more} ({sources})"


def _phase_use(stretches: Sequence[Stretch], span: PhaseSpan, start_s: float) -> PhaseUse:
    use = use_of(stretches, start_s + span.start_s, start_s + span.end_s)
    length_s = max(span.end_s - span.start_s, 1e-9)
    energy = {name: _rounded(use.mean[p] * use.seen_s) for name, p in POWERS.items() if p in use.mean}
    return PhaseUse(
        span.phase, _all(use.mean), _all(use.max), energy, round(min(1.0, use.seen_s / length_s), 3)
    )


def _series(
    stretches: Sequence[Stretch], begin_s: float, end_s: float, step_s: float
) -> dict[str, list[float | None]]:
    count = math.ceil((end_s - begin_s) / step_s - 1e-9)
    sums: dict[str, list[list[float]]] = {}
    for stretch in stretches:
        first = max(0, math.floor((stretch.begin_s - begin_s) / step_s))
        for row in range(first, min(count, math.ceil((stretch.end_s - begin_s) / step_s))):
            low_s = begin_s + row * step_s
            inside_s = min(stretch.end_s, low_s + step_s) - max(stretch.begin_s, low_s)
            if inside_s <= 0:
                continue
            for name in _SERIES:
                if name in stretch.values:
                    cell = sums.setdefault(name, [[0.0, 0.0] for _ in range(count)])[row]
                    cell[0] += stretch.values[name] * inside_s
                    cell[1] += inside_s
    return {
        name: [_rounded(total / weight) if weight else None for total, weight in cells]
        for name, cells in sums.items()
    }


def _all(values: Mapping[str, float]) -> dict[str, float]:
    return {name: _rounded(value) for name, value in sorted(values.items())}


def _rounded(value: float) -> float:
    """Five digits: records are read often, and no counter is truer."""
    return float(f"{value:.5g}")


def _texts(value: object) -> dict[str, str]:
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}
