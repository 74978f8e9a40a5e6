"""pgbench's per-transaction logs as operations.

One line per transaction, `client number time script seconds microseconds [lag] [retries]`: `time` in
microseconds, or a word for one that failed or was skipped; then the wall clock at its end. With a rate the
time counts from when the transaction was due, so that it includes the lag (`doLog` in PostgreSQL's
src/bin/pgbench/pgbench.c).

What the log does not tell is taken as follows. A failed transaction began when its client's one before it
ended (closed loop), or is placed at its end (with a rate: then it has no latency). A skipped one, which was
due for longer than the latency limit and so never sent, is placed at the moment it was given up, due a limit
before that: a TIMEOUT, with the limit as its lower bound. Transactions still due when the time was over leave
no trace in the log: `never_started` counts them.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aifbench.errors import WorkloadError
from aifbench.load.workload import NOT_SEEN, OutcomeKind

Int64 = NDArray[np.int64]

SKIPPED = "skipped"
_FIXED_COLUMNS = 6
# A gap in a Poisson process as long as this many mean gaps does not happen by itself (e^-10).
_MISSING_GAPS = 10

ERROR_TEXTS = {
    SKIPPED: "skipped: it was due for longer than the latency limit, and never sent",
    "failed": "serialization failure or deadlock",
    "serialization": "could not serialize access",
    "deadlock": "deadlock detected",
}


@dataclass(frozen=True, slots=True)
class LogColumns:
    """Transactions in the order of the log; times in nanoseconds, instants those of the wall clock.

    `latency_ns` is NOT_SEEN for one that did not succeed, and `word` then its place in `words`, else 0.
    `thread` tells the log's files apart.
    """

    thread: NDArray[np.int64]
    client: Int64
    script: Int64
    at_ns: Int64
    latency_ns: Int64
    lag_ns: Int64
    retries: Int64
    word: Int64
    words: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.at_ns)

    @property
    def ok(self) -> NDArray[np.bool_]:
        return np.not_equal(self.latency_ns, NOT_SEEN)

    def counts(self) -> dict[str, int]:
        """How many ended with each word."""
        found = np.bincount(self.word, minlength=len(self.words))
        return {word: int(n) for word, n in zip(self.words, found, strict=True) if word and n}

    @property
    def mean_latency_ms(self) -> float | None:
        chosen = self.latency_ns[self.ok]
        return float(chosen.mean()) / 1e6 if len(chosen) else None


def read_logs(directory: Path, prefix: str, *, has_lag: bool, has_retries: bool) -> LogColumns:
    """All of one run's files. Raises WorkloadError for one that is no such log.

    A line cut short at the end, as a killed run leaves it, is left out.
    """
    paths = sorted(directory.glob(f"{prefix}.*"))
    parts = [parse_log(path.read_bytes(), has_lag=has_lag, has_retries=has_retries) for path in paths]
    return _joined(parts)


def parse_log(data: bytes, *, has_lag: bool, has_retries: bool) -> LogColumns:
    """One file's transactions, as thread 0. Raises WorkloadError."""
    data = data[: data.rfind(b"\n") + 1]
    words = [""]

    def code(match: re.Match[bytes]) -> bytes:
        word = match[0].decode()
        if word not in words:
            words.append(word)
        return b"-%d" % words.index(word)

    numbers = re.sub(rb"[a-z]+", code, data)
    columns = _FIXED_COLUMNS + has_lag + has_retries
    lines = data.count(b"\n")
    if re.search(rb"[^0-9 \n-]", numbers) or len(words) > 20:
        raise WorkloadError("pgbench's log holds something else than transactions")
    flat = np.fromstring(numbers.decode(), dtype=np.int64, sep=" ") if lines else np.empty(0, np.int64)
    first = data.partition(b"\n")[0].split()
    if len(flat) != lines * columns or (lines and len(first) != columns):
        raise WorkloadError(
            f"pgbench's log has lines of other than {columns} columns", hint=f"such as {first!r}"
        )
    table = flat.reshape(lines, columns)
    is_word = table[:, 2] < 0
    zeros = np.zeros(lines, np.int64)
    return LogColumns(
        thread=zeros,
        client=table[:, 0],
        script=table[:, 3],
        at_ns=table[:, 4] * 10**9 + table[:, 5] * 1000,
        latency_ns=np.where(is_word, NOT_SEEN, table[:, 2] * 1000),
        lag_ns=table[:, 6] * 1000 if has_lag else zeros,
        retries=table[:, -1] if has_retries else zeros,
        word=np.where(is_word, -table[:, 2], 0),
        words=tuple(words),
    )


def instants(log: LogColumns, *, limit_ns: int = 0, is_open_loop: bool) -> tuple[Int64, Int64, Int64]:
    """When each transaction was intended, sent and finished."""
    ok, skipped = log.ok, is_skipped(log)
    intended_ns = log.at_ns - np.where(ok, log.latency_ns, np.where(skipped, limit_ns, 0))
    sent_ns = np.where(ok, intended_ns + log.lag_ns, log.at_ns)
    if not is_open_loop:
        began_ns = _ends_before(log)
        intended_ns, sent_ns = (np.where(ok, column, began_ns) for column in (intended_ns, sent_ns))
    return intended_ns, sent_ns, log.at_ns


def outcomes(log: LogColumns) -> NDArray[np.uint16]:
    kinds = np.full(len(log), OutcomeKind.SERVER_ERROR, np.uint16)
    kinds[log.ok] = OutcomeKind.OK
    kinds[is_skipped(log)] = OutcomeKind.TIMEOUT
    return kinds


def is_skipped(log: LogColumns) -> NDArray[np.bool_]:
    code = log.words.index(SKIPPED) if SKIPPED in log.words else -1
    return np.equal(log.word, code)


def never_started(log: LogColumns, intended_ns: Int64, sent_ns: Int64, rate_per_s: float) -> Int64:
    """When those were due that nobody had time for before the end: evenly after the last that was begun.

    Every thread has its share of the rate and its own schedule; the run ended when the last transaction of
    any thread began, which in an overloaded run is its end.
    """
    threads = np.unique(log.thread)
    if not len(log):
        return np.empty(0, np.int64)
    gap_ns = len(threads) / rate_per_s * 1e9
    end_ns = int(sent_ns.max())
    missing = []
    for thread in threads:
        last_ns = int(intended_ns[log.thread == thread].max())
        count = int((end_ns - last_ns) / gap_ns)
        if count >= _MISSING_GAPS:
            missing.append(last_ns + np.rint(np.arange(1, count + 1) * gap_ns).astype(np.int64))
    return np.concatenate(missing) if missing else np.empty(0, np.int64)


def _ends_before(log: LogColumns) -> Int64:
    """When the same client's transaction before it ended; its own end for a client's first."""
    order = np.lexsort((log.at_ns, log.client, log.thread))
    at_ns, client, thread = log.at_ns[order], log.client[order], log.thread[order]
    previous = at_ns.copy()
    if len(at_ns) > 1:
        follows = (client[1:] == client[:-1]) & (thread[1:] == thread[:-1])
        previous[1:] = np.where(follows, at_ns[:-1], at_ns[1:])
    result = np.empty_like(previous)
    result[order] = previous
    return result


def _joined(parts: list[LogColumns]) -> LogColumns:
    words = tuple(dict.fromkeys(["", *(word for part in parts for word in part.words)]))
    empty = np.empty(0, np.int64)

    def column(name: str) -> Int64:
        return np.concatenate([empty, *(getattr(part, name) for part in parts)])

    places = [np.array([words.index(word) for word in part.words], np.int64)[part.word] for part in parts]
    return LogColumns(
        thread=np.concatenate([empty, *(np.full(len(part), number) for number, part in enumerate(parts))]),
        client=column("client"),
        script=column("script"),
        at_ns=column("at_ns"),
        latency_ns=column("latency_ns"),
        lag_ns=column("lag_ns"),
        retries=column("retries"),
        word=np.concatenate([empty, *places]),
        words=words,
    )
