"""What makes a PostgreSQL result mean less than it seems, as checks of plain numbers."""

from collections.abc import Mapping

from aifbench.results.record import Check, Verdict
from aifbench.servers.postgres_log import Storage
from aifbench.units import format_number, format_size
from aifbench.workloads.postgres_control import Sizes

# Rounding of what pgbench prints: three decimals of a millisecond.
_LATENCY_STEP_MS = 0.001
_LATENCY_SHARE = 0.001
# Data must be so many times as large as what may hold it for the disk to be measured.
_OUT_OF_MEMORY = 2.0


def check_agreement(notes: Mapping[str, float]) -> Check:
    """PGBENCH: whether pgbench's log, from which everything is computed, agrees with its own printed totals.

    `notes` are those of `workloads.pgbench.PgbenchLoad`, of one worker.
    """
    wrong = [
        f"{name} {notes[name]:,.0f} printed, {notes[f'logged_{name}']:,.0f} logged"
        for name in ("processed", "failed", "skipped", "retries")
        if name in notes and notes[name] != notes.get(f"logged_{name}")
    ]
    printed, logged = notes.get("latency_mean_ms"), notes.get("logged_latency_mean_ms")
    difference = 0.0
    if printed is not None and logged is not None:
        difference = abs(logged - printed)
        if difference > _LATENCY_STEP_MS + _LATENCY_SHARE * printed:
            wrong.append(f"mean latency {printed:.3f} ms printed, {logged:.3f} ms logged")
    if "processed" not in notes:
        return Check("PGBENCH", Verdict.WARN, "pgbench printed no totals to compare its log with")
    if wrong:
        return Check(
            "PGBENCH",
            Verdict.INVALID,
            f"pgbench's log and its summary disagree: {'; '.join(wrong)}",
            advice="look at its output in the run's directory: was it ended early, or a disk full?",
        )
    text = f"pgbench's summary and its log agree on {notes['processed']:,.0f} transactions and their mean"
    return Check("PGBENCH", Verdict.VALID, text, difference, _LATENCY_STEP_MS, "ms")


def check_scale(scale: int, clients: int, *, writes: bool) -> Check | None:
    """SCALE: TPC-B updates one of `scale` branch rows per transaction, so that more clients wait in line."""
    if not writes:
        return None
    share = scale / clients
    if scale >= clients:
        text = f"scale {scale} is not below {clients} clients: they seldom wait for each other's rows"
        return Check("SCALE", Verdict.VALID, text, share, 1.0)
    return Check(
        "SCALE",
        Verdict.WARN,
        f"scale {scale} is below {clients} clients: they wait for each other's row locks",
        share,
        1.0,
        advice=f"use --scale {clients} or more, or simple updates, which leave the branches alone",
    )


def check_cached(sizes: Sizes, *, grow: str = "--scale") -> Check:
    """CACHED: whether reading measures the disk, the memory, or only PostgreSQL's own buffers.

    `grow` is the option that makes the data larger.
    """
    advice = f"use a larger {grow} to measure the disk"
    database, buffers, memory = sizes.database, sizes.shared_buffers, sizes.memory
    told = f"{format_size(database)} of data"
    if database <= buffers:
        ratio = database / buffers
        text = f"{told} are {format_number(ratio, 2)} times the {format_size(buffers)} of buffers: all fit"
        return Check("CACHED", Verdict.WARN, text, ratio, 1.0, advice=advice)
    if memory is None:
        ratio = database / buffers
        text = f"{told} are {format_number(ratio, 2)} times the shared buffers; its memory is not known"
        return Check("CACHED", Verdict.VALID, text, ratio, 1.0)
    ratio = database / memory
    text = f"{told} are {format_number(ratio, 2)} times the {format_size(memory)} of memory"
    if ratio >= _OUT_OF_MEMORY:
        return Check("CACHED", Verdict.VALID, text, ratio, _OUT_OF_MEMORY)
    return Check(
        "CACHED", Verdict.WARN, f"{text}: reads come from memory", ratio, _OUT_OF_MEMORY, advice=advice
    )


def check_connections(*, reconnects: bool, pooler: str = "") -> Check:
    """CONNECTION: how clients are connected, which moves rates by a hundred times."""
    by = f"through {pooler}" if pooler else "directly"
    if not reconnects:
        return Check("CONNECTION", Verdict.VALID, f"each client keeps its connection, {by}")
    return Check(
        "CONNECTION",
        Verdict.WARN,
        f"each transaction makes a connection of its own, {by}: connecting is what is measured",
        advice="keep connections, unless connecting is the question",
    )


def check_durability(settings: Mapping[str, str], storage: Storage | None) -> Check:
    """DURABLE: whether a commit is on a disk when it is answered."""
    reasons = [f"{name} is off" for name in ("fsync", "synchronous_commit") if settings.get(name) == "off"]
    if storage and storage.is_memory:
        asked = "" if storage.asked == "ram" else f", though {storage.asked} storage was asked for"
        reasons.append(f"the data lies in memory ({storage.file_system}){asked}")
    if not reasons:
        where = f" on {storage.file_system}" if storage else ""
        return Check("DURABLE", Verdict.VALID, f"a commit waits for its write-ahead log to be written{where}")
    return Check(
        "DURABLE",
        Verdict.WARN,
        f"a commit does not wait for a disk: {', '.join(reasons)}",
        advice="compare only with results of the same kind",
    )
