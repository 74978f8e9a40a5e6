"""What the log of a monitors job says: which parts are missing, and why Prometheus did not start. Pure."""

import re
from collections.abc import Mapping, Sequence

from aifbench.servers.log_news import LogNews

_PART = re.compile(r"aifbench: part ([a-z-]+) (missing|failed): (.+)")
_REFUSED = re.compile(r"aifbench: prometheus refuses its configuration: (.+)")
_NOTHING = re.compile(r"aifbench: (nothing to monitor with): (.+)")
_PORT = re.compile(r"aifbench: (port \d+ is taken|monitors found a port taken .+)")
_ENDED = re.compile(r"aifbench: (prometheus ended (?:\d+ times|at once))")
# Prometheus's own last words, in logfmt.
_ERROR = re.compile(r'level=(?:error|ERROR)\b.*?\berr="?((?:[^"\\]|\\.)+)"?')


def read_parts(lines: Sequence[str]) -> Mapping[str, str]:
    """Why each part that does not run does not, by part: `missing: ...` or `failed: ...`."""
    found = (_PART.fullmatch(line.strip()) for line in lines)
    return {match[1]: f"{match[2]}: {match[3]}" for match in found if match}


def read_log(lines: Sequence[str]) -> LogNews:
    for line in reversed(lines):
        text = line.strip()
        if match := _REFUSED.fullmatch(text):
            return LogNews(cause=f"prometheus refuses its configuration: {match[1]}")
        if match := _NOTHING.fullmatch(text):
            return LogNews(cause=match[1], advice=match[2])
        if match := _PORT.search(text):
            return LogNews(cause=match[1], advice="start it without --port to have a free one")
        if match := _ENDED.fullmatch(text):
            return LogNews(cause=_with_error(match[1], lines))
    return LogNews()


def _with_error(cause: str, lines: Sequence[str]) -> str:
    for line in reversed(lines):
        if match := _ERROR.search(line):
            return f"{cause}: {match[1]}"
    return cause
