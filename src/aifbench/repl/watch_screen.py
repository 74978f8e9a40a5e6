"""What `watch` shows: values in, lines of plain text out; and a terminal that is drawn over and over."""

import re
import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from aifbench.repl.wording import clock_text, status_line
from aifbench.units import format_duration, format_number, format_size

if TYPE_CHECKING:
    from aifbench.monitor.live import NodeView, PhaseView, RunView
    from aifbench.servers.status import ServiceStatus

_BARS = "▁▂▃▄▅▆▇█"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_OLD_S = 5.0
_ALTERNATE, _NORMAL = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _ERASE_LINE, _ERASE_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


class Screen:
    """The whole of a terminal for the time of a `with`; what was there before comes back after it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __enter__(self) -> "Screen":
        self._write(_ALTERNATE)
        return self

    def __exit__(self, *_: object) -> None:
        self._write(_NORMAL)

    @property
    def height(self) -> int:
        """Lines that are shown."""
        return shutil.get_terminal_size().lines - 1

    def draw(self, lines: Sequence[str]) -> None:
        """Over what is shown, without a flicker; what does not fit is cut."""
        width, height = shutil.get_terminal_size()
        shown = [line.expandtabs()[: width - 1] + _ERASE_LINE for line in lines[: height - 1]]
        self._write(_HOME + "\r\n".join([*shown, _ERASE_BELOW]))

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def watch_lines(
    status: "ServiceStatus",
    run: "RunView | None",
    nodes: Mapping[str, Sequence["NodeView"]],
    log: Sequence[str],
    *,
    height: int,
    bars: str = _BARS,
) -> list[str]:
    """Service, benchmark, resources by role, and as much of the log as fits into `height`."""
    lines = [status_line(status)]
    left_s = status.job.time_left_s
    if status.is_alive and left_s is not None:
        lines.append(f"  {clock_text(left_s)} of its job's time left")
    lines += ["", *run_lines(run, bars), "", *_node_lines(nodes)]
    room = max(3, height - len(lines) - 3)
    tail = [_printable(line) for line in log[-room:]]
    return [*lines, "", "log", *(f"  {line}" for line in tail or ["nothing in it yet"])]


def run_lines(run: "RunView | None", bars: str = _BARS) -> list[str]:
    if run is None:
        return ["no benchmark of it runs now"]
    head = f"bench {run.bench}  {run.run_id}"
    head += f"  with {', '.join(run.services)}" if len(run.services) > 1 else ""
    if run.phase is None:
        return [head, "  between two phases, or before the first"]
    if run.phase.stage == "preparing":
        return [head, f"  {run.phase.name}: load workers prepare"]
    return [head, *_phase_lines(run.phase, bars)]


def _phase_lines(phase: "PhaseView", bars: str) -> list[str]:
    first = [phase.name, phase.stage, _time_text(phase)]
    if phase.planned_operations:
        done = f"{phase.operations:,} of {phase.planned_operations:,} operations"
        first += [done, f"{min(1.0, phase.operations / phase.planned_operations):.0%}".replace("%", " %")]
    else:
        first.append(f"{phase.operations:,} operations")
    offered = f" of {format_number(phase.offered_per_s, 3)}/s" if phase.offered_per_s is not None else ""
    at_least = "at least " if phase.has_more_errors else ""
    rows = [
        (
            "rate",
            f"{format_number(phase.rate_per_s, 3)}/s{offered}  {spark(phase.rates_per_s, bars)}".rstrip(),
        ),
        ("p50", _ms(phase.p50_ms)),
        ("p99", _ms(phase.p99_ms)),
        ("errors", f"{at_least}{phase.errors:,}, {phase.recent_errors:,} in the last seconds"),
        ("in flight", "-" if phase.in_flight is None else f"{phase.in_flight:,}"),
    ]
    return ["  " + "  ".join(first), *(f"  {name:10}{value}" for name, value in rows)]


def _time_text(phase: "PhaseView") -> str:
    if phase.planned_s is None:
        return clock_text(phase.elapsed_s)
    left_s = max(0.0, phase.planned_s - phase.elapsed_s)
    return f"{clock_text(phase.elapsed_s)}/{clock_text(phase.planned_s)}  {clock_text(left_s)} left"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{format_number(value, 3)} ms"


def spark(values: Sequence[float], bars: str = _BARS) -> str:
    """One bar for each value, the highest full; nothing for fewer than two."""
    highest = max(values, default=0.0)
    if len(values) < 2 or highest <= 0 or not bars:
        return ""
    return "".join(bars[min(len(bars) - 1, int(value / highest * (len(bars) - 1) + 0.5))] for value in values)


def _node_lines(nodes: Mapping[str, Sequence["NodeView"]]) -> list[str]:
    lines = [
        f"  {role:8}{node.node}  " + "  ".join([*_use(node.values), *_age(node)])
        for role, found in nodes.items()
        for node in found
    ]
    return ["resources", *(lines or ["  nothing samples them now"])]


def _use(values: Mapping[str, float]) -> list[str]:
    """What there is; what is not known is left out."""
    parts = []
    if (cpu := values.get("cpu_percent")) is not None:
        parts.append(f"CPU {cpu:.0f} %")
    if (used := values.get("memory_bytes")) is not None:
        parts.append(f"memory {format_size(used)}")
    for name, key in (
        ("net in", "net_in"),
        ("net out", "net_out"),
        ("read", "disk_read"),
        ("write", "disk_write"),
    ):
        if (rate := values.get(f"{key}_bytes_per_s")) is not None and rate >= 1024:
            parts.append(f"{name} {format_size(rate)}/s")
    if (gpu := values.get("gpu_percent")) is not None:
        parts.append(f"GPU {gpu:.0f} %")
    if (used := values.get("gpu_memory_bytes")) is not None:
        parts.append(f"GPU memory {format_size(used)}")
    if (power := values.get("gpu_power_w")) is not None:
        parts.append(f"{power:.0f} W")
    return parts


def _age(node: "NodeView") -> list[str]:
    return [f"({format_duration(node.age_s)} ago)"] if node.age_s > _OLD_S else []


def _printable(line: str) -> str:
    """A log may hold what would move the cursor or colour the rest."""
    return "".join(c if c.isprintable() or c == "\t" else "·" for c in _COLOUR.sub("", line))
