"""Slurm's host list expressions as host names: `node[1-3,07-10],x` is node1 node2 node3 node07 ... x."""

import re
from itertools import product

from aifbench.errors import SchedulerError

_NO_NODES = frozenset({"", "(null)", "None assigned", "N/A", "n/a"})
# A comma inside brackets separates ranges, one outside separates hosts.
_HOST = re.compile(r"(?:[^,\[\]]|\[[^\[\]]*\])+")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def expand(expression: str) -> tuple[str, ...]:
    """The hosts in Slurm's order; several brackets in one name multiply. SchedulerError if malformed."""
    expression = expression.strip()
    if expression in _NO_NODES:
        return ()
    parts = _HOST.findall(expression)
    if ",".join(parts) != expression:
        raise _unreadable(expression)
    return tuple(host for part in parts for host in _expand_part(part))


def _expand_part(part: str) -> list[str]:
    pieces = re.split(r"\[([^\]]*)\]", part)  # literal, ranges, literal, ranges, ..., literal
    choices = [_numbers(piece, part) if i % 2 else [piece] for i, piece in enumerate(pieces)]
    return ["".join(choice) for choice in product(*choices)]


def _numbers(ranges: str, part: str) -> list[str]:
    numbers: list[str] = []
    for text in ranges.split(","):
        match = _RANGE.fullmatch(text)
        if match is None:
            raise _unreadable(part)
        low, high = match[1], match[2] or match[1]
        numbers += [str(number).zfill(len(low)) for number in range(int(low), int(high) + 1)]
    return numbers


def _unreadable(expression: str) -> SchedulerError:
    return SchedulerError(f"the node list {expression!r} cannot be read")
