"""What the machines did, in a table and in sentences that say no more than was seen."""

from collections.abc import Iterator, Sequence

from aifbench.report.content import Cell, Table
from aifbench.results.headline import main_measurement
from aifbench.results.record import RunRecord
from aifbench.results.resources import JobUse, NodeUse, PhaseUse
from aifbench.units import format_number, format_size

# More phases than this, and only the first, the last and the run's main one are shown.
_MANY = 6
# From these means on a part of a node is worth a sentence.
BUSY_CPU_PERCENT = 85.0
BUSY_GPU_PERCENT = 90.0
WAITING_PERCENT = 20.0
STOLEN_PERCENT = 5.0
FULL_MEMORY_PERCENT = 90.0

# Heading, unit, quantity, whether the maximum stands beside the mean, and how the value is written.
_COLUMNS = (
    ("CPU", "% mean", "cpu_percent", True),
    ("memory", "most", "memory_bytes", False),
    ("net in", "/s", "net_in_bytes_per_s", False),
    ("net out", "/s", "net_out_bytes_per_s", False),
    ("loopback", "/s", "loopback_bytes_per_s", False),
    ("disk read", "/s", "disk_read_bytes_per_s", False),
    ("disk written", "/s", "disk_write_bytes_per_s", False),
    ("parallel FS read", "/s", "parallel_read_bytes_per_s", False),
    ("parallel FS written", "/s", "parallel_write_bytes_per_s", False),
    ("GPU", "% mean", "gpu_percent", True),
    ("GPU memory", "most", "gpu_memory_bytes", False),
    ("GPU power", "W mean", "gpu_power_w", False),
    ("CPU power", "W mean", "cpu_power_w", False),
)
_LITTLE_BYTES_PER_S = 1000.0  # everywhere: a column that says nothing


def resource_table(record: RunRecord) -> Table:
    """A row per node and phase; without columns that nobody could read. Empty where nobody sampled."""
    shown = shown_phases(record)
    uses = [(node, node.phases[i]) for node in record.resources.nodes for i in shown if i < len(node.phases)]
    columns = [column for column in _COLUMNS if any(_matters(use, column[2]) for _, use in uses)]
    if not columns:
        return Table((), ())
    rows = []
    for node, use in uses:
        cells = [_cell(use, name, with_max=with_max) for _, _, name, with_max in columns]
        rows.append((Cell(use.phase, name_of(node)), *cells, _energy_cell(use)))
    has_energy = any(row[-1].text for row in rows)
    heads = [Cell(""), *(Cell(words, unit) for words, unit, _, _ in columns), Cell("energy", "kJ")]
    return Table(tuple(heads if has_energy else heads[:-1]), tuple(r if has_energy else r[:-1] for r in rows))


def shown_phases(record: RunRecord) -> list[int]:
    """Which phases are shown: what was measured, of many only the first, the last and the main one."""
    found = [i for i, span in enumerate(record.resources.phases) if span.is_measured]
    if len(found) <= _MANY:
        return found
    main = main_measurement(record)
    return [
        i for i in found
        if i in (found[0], found[-1]) or (main and record.resources.phases[i].phase == main.phase)
    ]  # fmt: skip


def name_of(node: NodeUse) -> str:
    """`node3 (server, client)`."""
    return f"{node.node} ({', '.join(node.roles)})"


def resource_sentences(record: RunRecord) -> list[str]:
    """What was scarce, or how far from it all was; then accounting, idle power, and what is not known."""
    resources = record.resources
    found = resource_findings(record)
    found += [_job_sentence(job) for job in resources.jobs]
    for node in resources.nodes:
        if node.idle_w:
            watts = ", ".join(f"{part.upper()} {format_number(w, 3)} W" for part, w in node.idle_w.items())
            found.append(f"{node.node} idle, in quiet seconds before the run: {watts}")
    sources = dict.fromkeys(f"{p.upper()} energy: {s}" for n in resources.nodes for p, s in n.sources.items())
    return [*found, *sources, *resources.notes]


def resource_findings(record: RunRecord) -> list[str]:
    """What was scarce in a measured phase; where nothing was, how busy the busiest was."""
    return list(_scarce(record)) or list(_ample(record))


def _scarce(record: RunRecord) -> Iterator[str]:
    """A sentence per node and kind, over all phases in which it was scarce."""
    for node in record.resources.nodes:
        found: dict[str, list[tuple[float, str]]] = {}
        for i in shown_phases(record):
            if i < len(node.phases):
                for words, percent in _scarce_in(node, node.phases[i]):
                    found.setdefault(words, []).append((percent, node.phases[i].phase))
        for words, where in found.items():
            ends = dict.fromkeys(format_number(end(where)[0], 2) for end in (min, max))
            phases = ", ".join(phase for _, phase in where)
            text = words.format(" to ".join(ends))
            yield f"{name_of(node)}: {text} in phase{'s' if len(where) > 1 else ''} {phases}"


def _scarce_in(node: NodeUse, use: PhaseUse) -> Iterator[tuple[str, float]]:
    """Words with a place for the percentage, and the percentage."""
    mean = use.mean
    for name, limit, words in (
        ("cpu_percent", BUSY_CPU_PERCENT, "CPU {} % busy"),
        ("gpu_percent", BUSY_GPU_PERCENT, "GPU {} % busy"),
        ("iowait_percent", WAITING_PERCENT, "processors waited for disks {} % of the time"),
        ("steal_percent", STOLEN_PERCENT, "{} % of the processors' time went to other virtual machines"),
    ):
        if mean.get(name, 0.0) >= limit:
            yield words, mean[name]
    share = 100 * use.max.get("memory_bytes", 0.0) / node.memory_bytes if node.memory_bytes else 0.0
    if share >= FULL_MEMORY_PERCENT:
        yield "memory {} % full", share


def _ample(record: RunRecord) -> Iterator[str]:
    """The busiest of each kind, where nothing was scarce."""
    uses = [
        (node, node.phases[i])
        for node in record.resources.nodes for i in shown_phases(record) if i < len(node.phases)
    ]  # fmt: skip
    for name, words in (("cpu_percent", "CPU"), ("gpu_percent", "GPU")):
        known = [(use.mean[name], node, use) for node, use in uses if name in use.mean]
        if known:
            value, node, use = max(known, key=lambda each: each[0])
            yield f"{words} at most {format_number(value, 2)} % busy: {name_of(node)} in phase {use.phase}"


def _job_sentence(job: JobUse) -> str:
    known = []
    if job.max_rss_bytes is not None:
        known.append(f"a task's memory at most {format_size(job.max_rss_bytes)}")
    if job.cpu_s is not None:
        known.append(f"processor time {format_number(job.cpu_s)} s")
    if job.energy_j is not None:
        known.append(f"energy of its nodes {format_number(job.energy_j / 1e3)} kJ")
    return f"job {job.job_id} ({job.role}) by {job.source}: {', '.join(known)}"


def _matters(use: PhaseUse, name: str) -> bool:
    value = use.mean.get(name)
    return value is not None and (not name.endswith("_bytes_per_s") or value >= _LITTLE_BYTES_PER_S)


def _cell(use: PhaseUse, name: str, *, with_max: bool) -> Cell:
    source = use.max if name.endswith("_bytes") else use.mean
    if name not in source:
        return Cell("-")
    if with_max:
        return Cell(format_number(source[name], 3), f"max {format_number(use.max[name], 3)}")
    is_size = "_bytes" in name
    return Cell(format_size(source[name]) if is_size else format_number(source[name], 4))


def _energy_cell(use: PhaseUse) -> Cell:
    total_j = sum(use.energy_j.values())
    return Cell(format_number(total_j / 1e3)) if use.energy_j else Cell("")


def busiest(nodes: Sequence[NodeUse], limit: int) -> list[NodeUse]:
    """At most that many nodes: servers first, then by how busy their processors were."""

    def weight(node: NodeUse) -> tuple[bool, float]:
        highest = max((use.mean.get("cpu_percent", 0.0) for use in node.phases), default=0.0)
        return not any(role.startswith("server") for role in node.roles), -highest

    return sorted(nodes, key=weight)[:limit]
