"""The client's numbers beside the server's own, and what both say of each other."""

from collections.abc import Sequence

from aifbench.report.content import Cell, Table, interval_text, label, measured, value_text
from aifbench.report.numbers import Line, line_of, rows_table
from aifbench.results.headline import is_open_loop, main_measurement
from aifbench.results.record import Measurement, Metric, RunRecord

# Words, the client's metric in closed and in open loop, the server's.
_VIEW = (
    ("TTFT mean", ("ttft_mean", "ttft_send_mean"), "server_ttft_mean"),
    ("TTFT p50", ("ttft_p50", "ttft_send_p50"), "server_ttft_p50"),
    ("TTFT p99", ("ttft_p99", "ttft_send_p99"), "server_ttft_p99"),
    ("queue mean", None, "server_queue_mean"),
    ("prefill mean", None, "server_prefill_mean"),
    ("TPOT mean", ("tpot_mean", "tpot_mean"), "server_tpot_mean"),
    ("output", ("output_rate", "output_rate"), "server_output_rate"),
    ("prompts", ("prompt_rate", "prompt_rate"), "server_prompt_rate"),
    ("running, mean", None, "server_running_mean"),
    ("running, most", None, "server_running_max"),
    ("waiting, mean", None, "server_waiting_mean"),
    ("waiting, most", None, "server_waiting_max"),
    ("KV cache in use, most", None, "kv_cache_max"),
    ("prompt tokens from cache", None, "prefix_hit_share"),
    ("preemptions", None, "preemptions"),
)
_VIEW_OF_MANY = (
    ("TTFT mean, client", ("ttft_mean", "ttft_send_mean")),
    ("TTFT mean, server", "server_ttft_mean"),
    ("outside", "outside_ttft"),
    ("queue mean", "server_queue_mean"),
    ("output, client", "output_rate"),
    ("output, server", "server_output_rate"),
    ("running, mean", "server_running_mean"),
    ("waiting, most", "server_waiting_max"),
    ("KV cache, most", "kv_cache_max"),
    ("from cache", "prefix_hit_share"),
    ("preemptions", "preemptions"),
)


def view_table(record: RunRecord) -> Table:
    """The client's numbers beside the server's; empty where the server was not asked."""
    measurements = [m for m in measured(record) if any(x.name.startswith("server_") for x in m.metrics)]
    if not measurements:
        return Table((), ())
    if len(measurements) > 2:
        return _view_of_many(record, measurements)
    heads = [Cell("")]
    for measurement in measurements:
        where = label(record, measurement) if len(measurements) > 1 else ""
        heads += [Cell("client", where), Cell("server", where)]
    rows = []
    for words, clients, server in _VIEW:
        theirs = [m.metric(server) for m in measurements]
        if not any(theirs):
            continue
        ours = [m.metric(clients[is_open_loop(m)]) if clients else None for m in measurements]
        unit = next(metric.unit for metric in theirs if metric)
        pairs = [
            cell
            for our, their in zip(ours, theirs, strict=True)
            for cell in (_view_cell(our), _view_cell(their, "bucket "))
        ]
        rows.append((Cell(f"{words} ({unit})" if unit else words), *pairs))
    return Table(tuple(heads), tuple(rows))


def _view_of_many(record: RunRecord, measurements: Sequence[Measurement]) -> Table:
    lines = []
    for words, name in _VIEW_OF_MANY:
        found = [m.metric(name if isinstance(name, str) else name[is_open_loop(m)]) for m in measurements]
        if any(found):
            line = line_of(words, found)
            lines.append(Line(line.name, line.unit, tuple(Cell(cell.text) for cell in line.cells)))
    return rows_table(record, measurements, lines)


def _view_cell(metric: Metric | None, what: str = "") -> Cell:
    """The server counts in buckets: what is known of its percentiles is the bucket in which they lie."""
    if metric is None:
        return Cell("")
    return Cell(value_text(metric), f"{what}{interval_text(metric)}" if interval_text(metric) else "")


_SAID = ("CAPACITY", "SERVER", "CLIENT", "LIMIT")


def statements(measurement: Measurement) -> list[str]:
    """What checks that held found out about server and client, in sentences."""
    return [c.message for code in _SAID for c in measurement.checks if c.code == code and not c.advice]


def sentences(record: RunRecord) -> list[str]:
    """The same of both measurements, or of more only of the one to remember the run by."""
    measurements, main = measured(record), main_measurement(record)
    told = measurements if len(measurements) <= 2 else [main] if main else []
    alone = len(measurements) == 1
    return [
        text if alone else f"{label(record, measurement)}: {text}"
        for measurement in told
        for text in statements(measurement)
    ]
