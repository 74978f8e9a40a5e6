"""What the machines did over time: small multiples below one another, with the phases behind them."""

from collections.abc import Mapping, Sequence

from aifbench.report.level_figures import LEFT, RIGHT, WIDTH, Figure
from aifbench.report.resources import busiest, name_of, resource_findings, shown_phases
from aifbench.report.svg import CHAR_PX, Panel, Point, Scale, figure, linear, thinned
from aifbench.results.record import RunRecord
from aifbench.results.resources import NodeUse
from aifbench.units import format_count

_NODES = 6  # lines that can be told apart
_TOP, _HEIGHT, _GAP = 66.0, 62.0, 40.0
_SCALES = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))
# Title, its quantities added up, and the unit in bytes or another.
_STRIPS = (
    ("CPU busy (%)", ("cpu_percent",)),
    ("memory in use ({})", ("memory_bytes",)),
    ("network, in and out ({}/s)", ("net_in_bytes_per_s", "net_out_bytes_per_s")),
    ("loopback ({}/s)", ("loopback_bytes_per_s",)),
    ("disks, read and written ({}/s)", ("disk_read_bytes_per_s", "disk_write_bytes_per_s")),
    (
        "parallel file system, read and written ({}/s)",
        ("parallel_read_bytes_per_s", "parallel_write_bytes_per_s"),
    ),
    ("GPU busy (%)", ("gpu_percent",)),
    ("GPU memory in use ({})", ("gpu_memory_bytes",)),
    ("power of GPUs and processors (W)", ("gpu_power_w", "cpu_power_w")),
)
_LEAST = 1e5  # B or B/s: below, a strip shows noise


def resource_figure(record: RunRecord) -> Figure | None:
    """A strip per quantity, a line per node, the measured phases shaded; None where nobody sampled."""
    resources = record.resources
    nodes = [node for node in busiest(resources.nodes, _NODES) if node.series]
    end_s = max((span.end_s for span in resources.phases), default=0.0)
    if not nodes or end_s <= 0:
        return None
    x = Scale(0.0, end_s, LEFT, RIGHT)
    strips = [
        (title, lines) for title, names in _STRIPS if (lines := _lines(nodes, names, resources.series_step_s))
    ]
    panels: list[Panel] = []
    top = _TOP
    for i, (title, lines) in enumerate(strips):
        panels.append(_strip(record, x, title, lines, top, is_lowest=i == len(strips) - 1))
        top += _HEIGHT + _GAP
    if not panels:
        return None
    panels[0].legend([(name_of(node), f"c{i + 1}") for i, node in enumerate(nodes)], 18)
    _name_phases(record, panels[0])
    caption = _caption(record, len(resources.nodes) - len(nodes))
    title = "What the machines did"
    return Figure(title, figure(WIDTH, int(panels[-1].y.start_px) + 40, title, caption, panels), caption)


def _lines(nodes: Sequence[NodeUse], names: Sequence[str], step_s: float) -> Mapping[str, list[Point]]:
    """Points by style; empty where no node knows the quantity, or it is next to nothing."""
    found = {}
    for i, node in enumerate(nodes):
        columns = [node.series[name] for name in names if name in node.series]
        if columns:
            sums = [sum(v for v in row if v is not None) if any(v is not None for v in row) else None
                    for row in zip(*columns, strict=True)]  # fmt: skip
            found[f"c{i + 1}"] = [((row + 0.5) * step_s, value) for row, value in enumerate(sums)]
    values = [value for points in found.values() for _, value in points if value is not None]
    in_bytes = "_bytes" in names[0]
    return found if len(values) > 1 and (not in_bytes or max(values) >= _LEAST) else {}


def _strip(
    record: RunRecord, x: Scale, title: str, lines: Mapping[str, list[Point]], top: float, *, is_lowest: bool
) -> Panel:
    values = [value for points in lines.values() for _, value in points if value is not None]
    highest = max(values)
    scale, unit = next(each for each in _SCALES if highest >= each[0] or each[0] == 1.0)
    if "{}" not in title:
        scale = 1.0
    y = linear([value / scale for value in values], top + _HEIGHT, top)
    panel = Panel(x, y, title.format(unit), "seconds since the run began")
    for span in record.resources.phases:
        if span.is_measured:
            panel.band(span.start_s, span.end_s, "bracket")
    panel.grid(x_labels=is_lowest)
    for css, points in lines.items():
        panel.line(thinned([(at, None if v is None else v / scale) for at, v in points]), css)
    return panel


def _name_phases(record: RunRecord, panel: Panel) -> None:
    """In a row of their own above the strips; a name without room is left out."""
    free_px = 0.0
    for i in shown_phases(record):
        span = record.resources.phases[i]
        middle_px = (panel.x.at(span.start_s) + panel.x.at(span.end_s)) / 2
        half_px = len(span.phase) * CHAR_PX / 2
        if middle_px - half_px > free_px:
            panel.text(min(middle_px, RIGHT - half_px), 38, span.phase, "tick mid")
            free_px = middle_px + half_px


def _caption(record: RunRecord, left_out: int) -> str:
    told = resource_findings(record)[:2]
    more = (
        f" {format_count(left_out, 'less busy node')} {'is' if left_out == 1 else 'are'} not drawn."
        if left_out
        else ""
    )
    return (
        f"{'. '.join(told)}. Shaded: the measured phases.{more}"
        if told
        else f"Shaded: the measured phases.{more}"
    )
