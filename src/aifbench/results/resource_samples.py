"""The samplers' files (see monitor.sampler) as stretches of time with rates; pure but for `read_files`.

Anything may be missing or torn: lines are taken one by one, differences only between two samples of one
sampler.
"""

import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

_TIME = re.compile(r'\{"t":(\d+\.?\d*),')
# Between samples further apart nobody knows when it was.
_LONGEST_S = 10.0
_LOOPBACK = "lo"
_EDGE_BYTES = 16_384

Values = dict[str, float]


@dataclass(frozen=True, slots=True)
class Stretch:
    """From one sample to the next, in seconds of the node's own wall clock: mean rates, and what was last
    seen.
    """

    begin_s: float
    end_s: float
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class NodeSamples:
    """What one node's sampler wrote about a time. `head` is its first line, `lines` what was used of the
    files.
    """

    head: Mapping[str, Any]
    stretches: tuple[Stretch, ...] = ()
    lines: tuple[str, ...] = field(default=(), repr=False)
    last_s: float | None = None

    @property
    def node(self) -> str:
        return str(self.head.get("host", ""))

    @property
    def boot_id(self) -> str:
        return str(self.head.get("boot_id", ""))

    def moved(self, offset_s: float) -> "NodeSamples":
        """On another clock, which this node's is `offset_s` ahead of."""
        moved = (replace(s, begin_s=s.begin_s - offset_s, end_s=s.end_s - offset_s) for s in self.stretches)
        return replace(self, stretches=tuple(moved))


def read_files(directory: Path, begin_s: float, end_s: float) -> list[NodeSamples]:
    """Of every sampler that wrote into `directory`, what it saw between two wall-clock instants."""
    found = []
    for path in sorted(directory.glob("resources-*.jsonl")):
        lines: list[str] = []
        for part in (path.with_name(f"{path.name}.1"), path):
            try:
                lines += part.read_text(encoding="utf-8", errors="replace").splitlines()
            except OSError:
                continue
        samples = parse(lines, begin_s, end_s)
        if samples is not None:
            found.append(samples)
    return found


def newest(directory: Path) -> list[NodeSamples]:
    """Who writes into `directory`, and when last: cheap, and without what was seen."""
    found = []
    for path in sorted(directory.glob("resources-*.jsonl")):
        try:
            with path.open("rb") as file:
                begin = file.read(_EDGE_BYTES)
                file.seek(max(0, path.stat().st_size - _EDGE_BYTES))
                end = file.read(_EDGE_BYTES)
        except OSError:
            continue
        lines = [*begin.decode(errors="replace").splitlines(), *end.decode(errors="replace").splitlines()]
        samples = parse(lines, 0.0, 0.0)
        if samples is not None:
            found.append(samples)
    return found


def parse(lines: Iterable[str], begin_s: float, end_s: float) -> NodeSamples | None:
    """The newest head, and what was seen between; None where no sampler has introduced itself."""
    head: Mapping[str, Any] | None = None
    kept: list[str] = []
    groups: list[list[Mapping[str, Any]]] = []
    last_s = None
    for line in lines:
        time = _TIME.match(line)
        if time is None:
            if (begun := _json(line)) is not None and "schema" in begun:
                head = begun
                kept.append(line)
                groups.append([])
            continue
        if groups and (sample := _sample(line)) is not None:
            last_s = sample["t"]
            if begin_s <= last_s <= end_s:
                kept.append(line)
                groups[-1].append(sample)
    if head is None:
        return None
    stretches = [stretch for group in groups for stretch in _stretches(group, head)]
    return NodeSamples(head, tuple(stretches), tuple(_without_idle_heads(kept)), last_s)


def _without_idle_heads(lines: Sequence[str]) -> list[str]:
    """Heads of samplers that saw nothing of the time are left out, but for the last one."""
    is_head = [not line.startswith('{"t":') for line in lines]
    following = [*is_head[1:], False]
    return [
        line
        for line, head, next_head in zip(lines, is_head, following, strict=True)
        if not (head and next_head)
    ]


def _json(line: str) -> Mapping[str, Any] | None:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _sample(line: str) -> Mapping[str, Any] | None:
    data = _json(line)
    times = (data.get("t"), data.get("m")) if data else ()
    return data if times and all(isinstance(t, int | float) for t in times) else None


def _stretches(samples: Sequence[Mapping[str, Any]], head: Mapping[str, Any]) -> list[Stretch]:
    """Placed by the clock that nobody steps; where that lies on the wall is the samples' common opinion."""
    if not samples:
        return []
    ahead_s = statistics.median(sample["t"] - sample["m"] for sample in samples)
    cpus = int(head.get("cpus") or 1)
    found = []
    for before, after in pairwise(samples):
        passed_s = after["m"] - before["m"]
        if 0 < passed_s <= _LONGEST_S:
            values = _rates(before, after, passed_s, cpus) | _levels(after)
            found.append(Stretch(before["m"] + ahead_s, after["m"] + ahead_s, values))
    return found


def _rates(before: Mapping[str, Any], after: Mapping[str, Any], passed_s: float, cpus: int) -> Values:
    """What grew between two samples, per second. One that went back was begun anew and tells nothing."""
    found: Values = {}
    cpu = _grown(before.get("cpu"), after.get("cpu"))
    if {"user", "system"} <= cpu.keys():
        whole_s = max(passed_s * cpus, sum(cpu.values()))  # the kernel's ticks are not quite ours
        found["cpu_percent"] = 100 * (cpu["user"] + cpu["system"]) / whole_s
        found |= {f"{name}_percent": 100 * cpu[name] / whole_s for name in ("iowait", "steal") if name in cpu}
    if (job := _grown_number(before.get("job_cpu"), after.get("job_cpu"))) is not None:
        found["job_cpu_cores"] = job / passed_s
    found |= _network(before, after, passed_s)
    for name, columns in _COLUMNS.items():
        if (grown := _summed(before.get(name), after.get(name))) is not None and len(grown) >= len(columns):
            found |= {column: value / passed_s for column, value in zip(columns, grown, strict=False)}
    if "disk_reads_per_s" in found:
        found["disk_operations_per_s"] = found.pop("disk_reads_per_s") + found.pop("disk_writes_per_s")
    rapl = _grown(before.get("rapl"), after.get("rapl"))
    if rapl and rapl.keys() == after["rapl"].keys() == before["rapl"].keys():
        found["cpu_power_w"] = sum(rapl.values()) / passed_s
    if (power_w := _gpu_power(before, after, passed_s)) is not None:
        found["gpu_power_w"] = power_w
    return found


_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "disk": ("disk_reads_per_s", "disk_read_bytes_per_s", "disk_writes_per_s", "disk_write_bytes_per_s"),
    "lustre": ("parallel_read_bytes_per_s", "parallel_write_bytes_per_s"),
}


def _network(before: Mapping[str, Any], after: Mapping[str, Any], passed_s: float) -> Values:
    found: Values = {}
    old, new = before.get("net"), after.get("net")
    if not isinstance(old, dict) or not isinstance(new, dict):
        return found
    if (loop := _summed(_only(old, _LOOPBACK), _only(new, _LOOPBACK))) is not None:
        found["loopback_bytes_per_s"] = loop[0] / passed_s
    pairs = ((_without(old, _LOOPBACK), _without(new, _LOOPBACK)), (before.get("ib"), after.get("ib")))
    parts = [_summed(*pair) for pair in pairs if any(pair)]
    if parts and all(part is not None for part in parts):
        known = [part for part in parts if part is not None]
        found["net_in_bytes_per_s"] = sum(part[0] for part in known) / passed_s
        found["net_out_bytes_per_s"] = sum(part[1] for part in known) / passed_s
    return found


def _gpu_power(before: Mapping[str, Any], after: Mapping[str, Any], passed_s: float) -> float | None:
    """By the energy counters of all GPUs, else the power that they told last."""
    old, new = before.get("gpu"), after.get("gpu")
    if not isinstance(new, dict) or not new or not all(isinstance(gpu, dict) for gpu in new.values()):
        return None
    if isinstance(old, dict) and old.keys() == new.keys() and _all_have("energy", old, new):
        # Each GPU was asked that much before its sample; where the driver is slow, twice for one answer.
        apart_s = {n: passed_s - gpu.get("age", 0.0) + old[n].get("age", 0.0) for n, gpu in new.items()}
        grown_j = {n: gpu["energy"] - old[n]["energy"] for n, gpu in new.items()}
        if min(apart_s.values()) >= passed_s / 2 and min(grown_j.values()) >= 0:
            return float(sum(grown_j[n] / apart_s[n] for n in new))
    if _all_have("power", new):
        return float(sum(gpu["power"] for gpu in new.values()))
    return None


def _all_have(name: str, *samples: Mapping[str, Any]) -> bool:
    return all(name in gpu for sample in samples for gpu in sample.values())


def _levels(sample: Mapping[str, Any]) -> Values:
    found: Values = {}
    memory, load, gpus = (sample.get(name) for name in ("memory", "load", "gpu"))
    if isinstance(memory, dict) and "used" in memory:
        found["memory_bytes"] = memory["used"]
    if isinstance(sample.get("job_memory"), int | float):
        found["job_memory_bytes"] = sample["job_memory"]
    if isinstance(load, dict) and "load_1min" in load:
        found["load_1min"] = load["load_1min"]
    if isinstance(gpus, dict) and gpus:
        busy = [gpu["busy"] for gpu in gpus.values() if isinstance(gpu, dict) and "busy" in gpu]
        used = [gpu["memory"] for gpu in gpus.values() if isinstance(gpu, dict) and "memory" in gpu]
        found |= {"gpu_percent": sum(busy) / len(busy)} if busy else {}
        found |= {"gpu_memory_bytes": sum(used)} if used else {}
    return found


def _grown(old: Any, new: Any) -> Values:
    """Growth of single counters, by name; of those that went back nothing."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return {}
    grown = {name: _grown_number(old.get(name), value) for name, value in new.items()}
    return {name: value for name, value in grown.items() if value is not None}


def _grown_number(old: Any, new: Any) -> float | None:
    if not isinstance(old, int | float) or not isinstance(new, int | float):
        return None
    # Idle and iowait of some kernels go back by a tick.
    return max(0.0, new - old) if new - old > -0.1 else None


def _summed(old: Any, new: Any) -> list[float] | None:
    """Growth of lists of counters, by column over all devices; None when one came, went or began anew."""
    if not isinstance(old, dict) or not isinstance(new, dict) or old.keys() != new.keys() or not new:
        return None
    columns: list[float] = []
    for name, counts in new.items():
        if not isinstance(counts, list) or not isinstance(old[name], list) or len(counts) != len(old[name]):
            return None
        grown = [_grown_number(a, b) for a, b in zip(old[name], counts, strict=True)]
        if any(each is None for each in grown) or (columns and len(columns) != len(grown)):
            return None
        known = [each or 0.0 for each in grown]
        columns = [a + b for a, b in zip(columns, known, strict=True)] if columns else known
    return columns


def _only(devices: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in devices.items() if key == name}


def _without(devices: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in devices.items() if key != name}
