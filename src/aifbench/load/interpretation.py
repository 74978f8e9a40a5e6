"""What kept answers mean: read once the load is over, row by row, and corrected in the recorder's files."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifbench.load.call_loop import outcome_of
from aifbench.load.http import ProtocolError, header_of, split_response
from aifbench.load.recorder import (
    DROPPED,
    READ,
    ErrorTally,
    Rows,
    answers_path,
    partial_path,
    read_rows,
    reads_path,
    rows_path,
    save_tokens,
)
from aifbench.load.tokens import Tokens
from aifbench.load.workload import Outcome, OutcomeKind, StreamedAnswer, TokenTimes

# Beyond this many answers a worker interprets an evenly spread part; the rest count as unchecked. Streams are
# all read: the sums of their tokens are results.
MAX_INTERPRETED = 200_000

_TORN = "the chunks of an answer do not add up"


def interpret(
    directory: Path, name: str, workload: Any, errors: ErrorTally, *, limit: int = MAX_INTERPRETED
) -> int:
    """Read kept answers; correct outcomes, items and qualities, and keep the token times of streams.

    How many were read: those of good status, of more than `limit` an evenly spread part; and all streams,
    those cut short too. The answers are removed.
    """
    whole = read_rows(rows_path(directory, name))
    if len(whole) > 1 and getattr(workload, "is_stream", False):
        read = _interpret_streams(directory, name, workload, whole, errors)
    else:
        read = _interpret_answers(directory, name, workload, whole[1:], errors, limit)
    path = rows_path(directory, name)
    partial = partial_path(path)
    whole.tofile(partial)
    partial.replace(path)
    for used in (answers_path(directory, name), reads_path(directory, name)):
        used.unlink(missing_ok=True)
    return read


def _interpret_answers(
    directory: Path, name: str, workload: Any, rows: Rows, errors: ErrorTally, limit: int
) -> int:
    ends = np.cumsum(np.maximum(rows["answer_bytes"], 0)).tolist()
    readable = (rows["outcome"] == OutcomeKind.OK) & (rows["answer_bytes"] != DROPPED)
    chosen = _spread(np.flatnonzero(readable), limit)
    with answers_path(directory, name).open("rb") as file:
        for number in chosen:
            row = rows[number]
            size = int(row["answer_bytes"])
            file.seek(ends[number] - size)
            outcome = _try(workload.interpret, int(row["index"]), int(row["status"]), file.read(size))
            _correct(row, outcome, errors)
    return len(chosen)


def _interpret_streams(directory: Path, name: str, workload: Any, whole: Rows, errors: ErrorTally) -> int:
    times = _read_streams(directory, name, workload, whole[1:], errors)
    save_tokens(directory, name, Tokens.of(times, int(whole["intended_ns"][0])))
    return int(np.count_nonzero(whole["answer_bytes"][1:]))


def _read_streams(
    directory: Path, name: str, workload: Any, rows: Rows, errors: ErrorTally
) -> Iterator[TokenTimes]:
    """Of each row. Rows, answers and reads are in the same order, so one pass over the files is enough."""
    with (
        answers_path(directory, name).open("rb") as answers,
        reads_path(directory, name).open("rb") as stamps,
    ):
        for row in rows:
            raw = answers.read(int(row["answer_bytes"]))
            reads = np.frombuffer(stamps.read(int(row["reads"]) * READ.itemsize), READ)
            outcome, times = _read_stream(workload, row, raw, reads)
            if row["outcome"] == OutcomeKind.OK:
                _correct(row, outcome, errors)
            yield times


def _read_stream(workload: Any, row: Any, raw: bytes, reads: Rows) -> tuple[Outcome, TokenTimes]:
    """What one stream means, cut or not. One that was never whole keeps the outcome it has."""
    try:
        head, body, pieces, is_complete = split_response(raw)
        if not head[9:12].startswith(b"2"):
            return Outcome(OutcomeKind(int(row["outcome"])), 0), TokenTimes()
        if row["outcome"] == OutcomeKind.OK and not is_complete:
            return Outcome(OutcomeKind.PROTOCOL, 0, error=_TORN), TokenTimes()
        coding = header_of(head.lower(), b"content-encoding")
        if coding not in (b"", b"identity"):
            why = f"an answer is compressed ({coding.decode('latin-1')}), which nobody asked for"
            return Outcome(OutcomeKind.PROTOCOL, 0, error=why), TokenTimes()
        answer = StreamedAnswer(body, head, pieces, reads["end"].tolist(), reads["at_ns"].tolist())
        outcome, times = workload.interpret_stream(int(row["index"]), int(head[9:12]), answer)
    except ProtocolError as error:
        return Outcome(OutcomeKind.PROTOCOL, 0, error=str(error)), TokenTimes()
    except Exception as error:  # an answer nobody thought of must not cost the other ones
        return outcome_of(error), TokenTimes()
    return outcome, times


def _correct(row: Any, outcome: Outcome, errors: ErrorTally) -> None:
    row["outcome"], row["items"] = outcome.kind, outcome.items
    row["qualities"][: len(outcome.qualities)] = outcome.qualities
    if outcome.error:
        errors.add(outcome.error)


def _spread(places: NDArray[np.int64], limit: int) -> list[int]:
    """All, or `limit` of them at most, evenly spread."""
    chosen: list[int] = places[:: max(1, -(-len(places) // limit))].tolist()
    return chosen


def _try(meaning: Callable[[int, int, bytes], Outcome], index: int, status: int, body: bytes) -> Outcome:
    try:
        return meaning(index, status, body)
    except Exception as error:  # an answer nobody thought of must not cost the other ones
        return outcome_of(error)
