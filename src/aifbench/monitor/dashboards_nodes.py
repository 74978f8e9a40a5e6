"""Panels of machines, by Brendan Gregg's USE method: utilisation, saturation, errors of each resource."""

from aifbench.monitor.dashboards_bench import RATE
from aifbench.monitor.dashboards_model import Dashboard, Needs, Panel, Query, Row, Variable

# Services on one node may have an exporter each, which tell the same: hence `max` over them, never `sum`.
_AT = 'service=~"$service", node=~"$node"'
_SOFTWARE_DISKS = 'device!~"loop.*|ram.*|dm-.*|sr.*"'
_CORES = f"count by (node) (count by (node, cpu) (node_cpu_seconds_total{{{_AT}}}))"
_KEPT = ', fstype!~"tmpfs|overlay|squashfs"'
_NODES = Needs.NODES


def rate(metric: str, by: str = "node", more: str = "") -> str:
    return f"max by ({by}) (rate({metric}{{{_AT}{more}}}{RATE}))"


def gauge(metric: str, by: str = "node", more: str = "") -> str:
    return f"max by ({by}) ({metric}{{{_AT}{more}}})"


def _network(way: str) -> Query:
    return Query(
        rate(f"node_network_{way}_bytes_total", "node, device", ', device!="lo"'),
        f"{{{{node}}}} {{{{device}}}} {way}",
        _NODES,
    )


def _stalled(resource: str, how: str) -> Query:
    return Query(rate(f"node_pressure_{resource}_{how}_seconds_total"), "{{node}}", _NODES)


CPU = Panel(
    "CPU: utilisation",
    "The share of all cores' time that was not idle.",
    (
        Query(
            f'1 - avg by (node) (rate(node_cpu_seconds_total{{{_AT}, mode="idle"}}{RATE}))',
            "{{node}}",
            _NODES,
        ),
    ),
    "percentunit",
    is_share=True,
)
CPU_WAIT = Panel(
    "CPU: saturation",
    "The share of time in which some task had to wait for a core (pressure stall information).",
    (_stalled("cpu", "waiting"),),
    "percentunit",
)
LOAD = Panel(
    "Processes that run or wait",
    "The load average of a minute, for each core.",
    (
        Query(
            f"{gauge('node_load1')} / {_CORES}",
            "{{node}}",
            _NODES,
        ),
    ),
)
MEMORY = Panel(
    "Memory: utilisation",
    "The share that is not available to programs; the page cache counts as available.",
    (
        Query(
            f"1 - {gauge('node_memory_MemAvailable_bytes')} / {gauge('node_memory_MemTotal_bytes')}",
            "{{node}}",
            _NODES,
        ),
    ),
    "percentunit",
    is_share=True,
)
MEMORY_WAIT = Panel(
    "Memory: saturation",
    "The share of time in which some task waited for memory, and pages read from disk for a task that waits.",
    (_stalled("memory", "waiting"),),
    "percentunit",
)
FAULTS = Panel(
    "Memory: major faults and out-of-memory kills",
    "Pages per second that had to be read from disk, and processes that the kernel ended for want of memory.",
    (
        Query(rate("node_vmstat_pgmajfault"), "{{node}} major faults", _NODES),
        Query(rate("node_vmstat_oom_kill"), "{{node}} kills", _NODES),
    ),
    "ops",
)
DISK = Panel(
    "Disk: utilisation",
    "The share of time in which a disk was busy. One that serves many at once can do more at 1.",
    (
        Query(
            rate("node_disk_io_time_seconds_total", "node, device", f", {_SOFTWARE_DISKS}"),
            "{{node}} {{device}}",
            _NODES,
        ),
    ),
    "percentunit",
    is_share=True,
)
DISK_WAIT = Panel(
    "Disk: saturation",
    "The share of time in which some task waited for input or output (pressure stall information).",
    (_stalled("io", "waiting"),),
    "percentunit",
)
DISK_BYTES = Panel(
    "Disk: bytes per second",
    "Read and written by the node's own disks; a network's file system is not among them.",
    tuple(
        Query(
            rate(f"node_disk_{way}_bytes_total", "node, device", f", {_SOFTWARE_DISKS}"),
            f"{{{{node}}}} {{{{device}}}} {way}",
            _NODES,
        )
        for way in ("read", "written")
    ),
    "Bps",
)
SPACE = Panel(
    "Disk: space in use",
    "The share of each file system that is used.",
    (
        Query(
            f"1 - {gauge('node_filesystem_avail_bytes', 'node, mountpoint', _KEPT)}"
            f" / ({gauge('node_filesystem_size_bytes', 'node, mountpoint', _KEPT)} > 0)",
            "{{node}} {{mountpoint}}",
            _NODES,
        ),
    ),
    "percentunit",
    is_share=True,
)
NETWORK = Panel(
    "Network: bytes per second",
    "Received and sent by each interface.",
    (_network("receive"), _network("transmit")),
    "Bps",
)
NETWORK_ERRORS = Panel(
    "Network: errors and drops",
    "Packets per second that were damaged or thrown away.",
    tuple(
        Query(
            rate(f"node_network_{way}_{what}_total", "node, device", ', device!="lo"'),
            f"{{{{node}}}} {{{{device}}}} {way} {what}",
            _NODES,
        )
        for way in ("receive", "transmit")
        for what in ("errs", "drop")
    ),
    "pps",
)
INFINIBAND = Panel(
    "InfiniBand: bytes per second",
    "Received and sent by each port.",
    tuple(
        Query(
            rate(f"node_infiniband_port_data_{way}_bytes_total", "node, device, port"),
            f"{{{{node}}}} {{{{device}}}} {way}",
            Needs.INFINIBAND,
        )
        for way in ("received", "transmitted")
    ),
    "Bps",
)


def _gpu(title: str, about: str, unit: str, *metrics: tuple[str, str], is_share: bool = False) -> Panel:
    """`metrics` are (expression over a matcher `AT`, what to call it)."""
    queries = tuple(
        Query(
            f"max by (node, gpu) ({expr.replace('AT', '{' + _AT + '}')})",
            f"{{{{node}}}} GPU {{{{gpu}}}} {name}".rstrip(),
            Needs.GPU,
        )
        for expr, name in metrics
    )
    return Panel(title, about, queries, unit, is_share=is_share)


GPU_BUSY = _gpu(
    "GPU: utilisation",
    "The share of time in which any kernel ran, however little of the GPU it used.",
    "percent",
    ("DCGM_FI_DEV_GPU_UTIL AT", ""),
)
GPU_WORK = _gpu(
    "GPU: what it does",
    "The share of time in which tensor cores and memory were active. Not every user may read these counters.",
    "percentunit",
    ("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE AT", "tensor cores"),
    ("DCGM_FI_PROF_DRAM_ACTIVE AT", "memory"),
    is_share=True,
)
GPU_MEMORY = _gpu(
    "GPU: memory in use",
    "Of its own memory; an inference server takes nearly all of it at its start.",
    "percentunit",
    ("DCGM_FI_DEV_FB_USED AT / (DCGM_FI_DEV_FB_USED AT + DCGM_FI_DEV_FB_FREE AT)", ""),
    is_share=True,
)
GPU_POWER = _gpu(
    "GPU: power", "What the GPU takes from its supply.", "watt", ("DCGM_FI_DEV_POWER_USAGE AT", "")
)
GPU_HEAT = _gpu(
    "GPU: temperature and clock",
    "A clock that falls while the temperature is high is a GPU that protects itself.",
    "none",
    ("DCGM_FI_DEV_GPU_TEMP AT", "°C"),
    ("DCGM_FI_DEV_SM_CLOCK AT", "MHz"),
)
GPU_ERRORS = _gpu(
    "GPU: last error",
    "The number of the last XID error; 0 is none.",
    "none",
    ("DCGM_FI_DEV_XID_ERRORS AT", ""),
)

NODES = Dashboard(
    "nodes",
    "Nodes and GPUs",
    "Utilisation, saturation and errors of every machine that a service runs on.",
    (
        Variable("service", "Service", "node_uname_info"),
        Variable("node", "Node", 'node_uname_info{service=~"$service"}'),
    ),
    (
        Row("Processors", (CPU, CPU_WAIT, LOAD)),
        Row("Memory", (MEMORY, MEMORY_WAIT, FAULTS)),
        Row("Disks", (DISK, DISK_WAIT, DISK_BYTES, SPACE)),
        Row("Network", (NETWORK, NETWORK_ERRORS, INFINIBAND)),
        Row("GPUs", (GPU_BUSY, GPU_WORK, GPU_MEMORY, GPU_POWER, GPU_HEAT, GPU_ERRORS)),
    ),
)
