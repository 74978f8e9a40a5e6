"""Token lengths of recorded traffic: CSV or JSON lines, with the column names of the published traces."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aifbench.errors import UsageError

# Far beyond any context; keeps a heavy tail and a typing error from asking for gigabytes.
MAX_TOKENS = 10_000_000

# Mooncake; plain; Azure; BurstGPT; as `_simple` makes them.
_INPUT = ("inputlength", "inputtokens", "input", "prompttokens", "contexttokens", "requesttokens")
_OUTPUT = ("outputlength", "outputtokens", "output", "completiontokens", "generatedtokens", "responsetokens")


def read_trace(path: str, option: str) -> dict[str, list[int]]:
    """The columns "input" and "output" of a trace file. Raises UsageError naming option, file and line."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{option}: cannot read the trace {path}", hint="give a CSV or JSONL file"
        ) from error
    return parse_trace(text, f"{option} trace:{path}")


def parse_trace(text: str, what: str) -> dict[str, list[int]]:
    """CSV (two columns, or more under a header that names them), or a JSON object a line."""
    rows = _json_rows(text, what) if text.lstrip().startswith("{") else _csv_rows(text, what)
    columns: dict[str, list[int]] = {"input": [], "output": []}
    for number, pair in rows:
        for column, value in zip(columns.values(), pair, strict=True):
            column.append(_tokens(value, f"{what}, line {number}"))
    if not columns["input"]:
        raise UsageError(f"{what} holds no lengths", hint="one line per request: input,output tokens")
    return columns


def _json_rows(text: str, what: str) -> Iterator[tuple[int, tuple[Any, Any]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise UsageError(f"{what}, line {number} is no JSON object", hint="one object per line")
        names = {_simple(name): name for name in row}
        found = _find(tuple(names))
        if found is None:
            raise UsageError(f"{what}, line {number} lacks a length", hint="input_length and output_length")
        yield number, (row[names[found[0]]], row[names[found[1]]])


def _csv_rows(text: str, what: str) -> Iterator[tuple[int, tuple[Any, Any]]]:
    places: tuple[int, int] | None = None
    for number, cells in enumerate(csv.reader(text.splitlines()), 1):
        if not "".join(cells).strip() or cells[0].lstrip().startswith("#"):
            continue
        if places is None:
            places, is_header = _places(cells, f"{what}, line {number}")
            if is_header:
                continue
        if len(cells) <= max(places):
            raise UsageError(f"{what}, line {number} has {len(cells)} columns", hint="input,output tokens")
        yield number, (cells[places[0]], cells[places[1]])


def _places(cells: list[str], what: str) -> tuple[tuple[int, int], bool]:
    """Where input and output are, from the first line, and whether that line is a header."""
    simple = [_simple(cell) for cell in cells]
    found = _find(tuple(simple))
    if found is not None:
        return (simple.index(found[0]), simple.index(found[1])), True
    if len(cells) == 2:
        return (0, 1), not any(character.isdigit() for character in "".join(cells))
    raise UsageError(
        f"{what} has {len(cells)} columns that name no lengths",
        hint="two columns, input,output tokens, or a header with input_length and output_length",
    )


def _find(names: tuple[str, ...]) -> tuple[str, str] | None:
    given_input = next((name for name in _INPUT if name in names), None)
    given_output = next((name for name in _OUTPUT if name in names), None)
    return (given_input, given_output) if given_input and given_output else None


def _simple(name: str) -> str:
    return name.strip().lower().replace("_", "").replace(" ", "")


def _tokens(value: Any, what: str) -> int:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (number.is_integer() and 1 <= number <= MAX_TOKENS):
        raise UsageError(f"{what}: {value!r} is no number of tokens", hint="whole numbers from 1")
    return int(number)
