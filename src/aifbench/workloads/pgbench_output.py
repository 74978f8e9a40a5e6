"""What pgbench prints, as numbers. Pure: text in, values out; of versions 9.6 to 18, and of runs cut short.

The formats are those of `printResults` and `printProgressReport` in PostgreSQL's src/bin/pgbench/pgbench.c.
"""

import re
from dataclasses import dataclass

_NUMBER = r"(-?[0-9.]+|-?nan|-?inf)"


@dataclass(frozen=True, slots=True)
class ScriptSummary:
    """One of several scripts. `processed` counts what succeeded, where that is told."""

    name: str
    weight: int
    transactions: int
    processed: int | None = None
    failed: int = 0
    latency_mean_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """One line of `--progress`: since the line before it."""

    at_s: float
    tps: float
    latency_ms: float
    failed: int = 0
    lag_ms: float | None = None
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run says of itself; None for what it does not say.

    `processed` are the transactions that succeeded: failed and skipped ones come on top. `latency_mean_ms`
    was measured where `is_measured`, else computed from the run time, connecting included. `tps` leaves
    connecting out unless `reconnects`. `errors` are its error lines in order, client and script left out.
    """

    version: str = ""
    transaction_type: str = ""
    scale: int | None = None
    query_mode: str = ""
    clients: int | None = None
    threads: int | None = None
    max_tries: int | None = None
    duration_s: float | None = None
    transactions_per_client: int | None = None
    processed: int | None = None
    asked: int | None = None
    failed: int = 0
    serialization_failures: int | None = None
    deadlock_failures: int | None = None
    retried: int = 0
    retries: int = 0
    skipped: int = 0
    late: int | None = None
    latency_limit_ms: float | None = None
    latency_mean_ms: float | None = None
    latency_stddev_ms: float | None = None
    lag_mean_ms: float | None = None
    lag_max_ms: float | None = None
    connection_ms: float | None = None
    reconnects: bool = False
    tps: float | None = None
    scripts: tuple[ScriptSummary, ...] = ()
    progress: tuple[Progress, ...] = ()
    errors: tuple[str, ...] = ()
    aborted_clients: int = 0
    was_aborted: bool = False

    @property
    def is_measured(self) -> bool:
        return self.latency_stddev_ms is not None

    @property
    def is_complete(self) -> bool:
        return self.processed is not None and self.tps is not None and not self.was_aborted


@dataclass(frozen=True, slots=True)
class InitSummary:
    """What `pgbench -i` says: seconds in all, and of each step by name."""

    total_s: float
    steps_s: dict[str, float]


def parse_output(text: str) -> Summary:
    """The last run in `text`, which may be any part of standard output and standard error together."""
    head, _, scripts = text.partition("SQL script 1:")
    errors = [_error_text(match[1] or match[2]) for match in _ERROR.finditer(text)]
    return Summary(
        version=_word(r"^pgbench \(([0-9][^\s,)]*)", head),
        transaction_type=_word(r"^transaction type: (.+)", head),
        scale=_whole(r"^scaling factor: (\d+)", head),
        query_mode=_word(r"^query mode: (\w+)", head),
        clients=_whole(r"^number of clients: (\d+)", head),
        threads=_whole(r"^number of threads: (\d+)", head),
        max_tries=_whole(r"^maximum number of tries: (\d+)", head),
        duration_s=_number(r"^duration: (\d+) s", head),
        transactions_per_client=_whole(r"^number of transactions per client: (\d+)", head),
        processed=_whole(r"^number of transactions actually processed: (\d+)", head),
        asked=_whole(r"^number of transactions actually processed: \d+/(\d+)", head),
        failed=_whole(r"^number of failed transactions: (\d+)", head) or 0,
        serialization_failures=_whole(r"^number of serialization failures: (\d+)", head),
        deadlock_failures=_whole(r"^number of deadlock failures: (\d+)", head),
        retried=_whole(r"^number of transactions retried: (\d+)", head) or 0,
        retries=_whole(r"^total number of retries: (\d+)", head) or 0,
        skipped=_whole(r"^number of transactions skipped: (\d+)", head) or 0,
        late=_whole(r"^number of transactions above the [0-9.]+ ms latency limit: (\d+)", head),
        latency_limit_ms=_number(r"^number of transactions above the ([0-9.]+) ms", head),
        latency_mean_ms=_number(rf"^latency average(?: =|:) {_NUMBER} ms", head),
        latency_stddev_ms=_number(rf"^latency stddev(?: =|:) {_NUMBER} ms", head),
        lag_mean_ms=_number(rf"^rate limit schedule lag: avg {_NUMBER} ", head),
        lag_max_ms=_number(r"^rate limit schedule lag: avg \S+ \(max ([0-9.]+)\) ms", head),
        connection_ms=_number(rf"^(?:initial|average) connection time = {_NUMBER} ms", head),
        reconnects="(including reconnection times)" in head,
        tps=_tps(head),
        scripts=_scripts("SQL script 1:" + scripts) if scripts else (),
        progress=tuple(_progress(match) for match in _PROGRESS.finditer(text)),
        errors=tuple(error for error in errors if not error.startswith("Run was aborted")),
        aborted_clients=len(set(re.findall(r"client (\d+) (?:script \d+ )?aborted", text))),
        was_aborted="Run was aborted" in text,
    )


def parse_init(text: str) -> InitSummary | None:
    """None when it did not come to its end."""
    found = re.search(r"(?m)^done in ([0-9.]+) s \((.*)\)\.$", text)
    if not found:
        return None
    steps = re.findall(r"([a-z][\w -]*?) ([0-9.]+) s(?:, |$)", found[2])
    return InitSummary(float(found[1]), {name: float(seconds) for name, seconds in steps})


def parse_version(text: str) -> int:
    """The main version from `pgbench --version`, such as 15; 0 when it is none."""
    found = re.search(r"\(PostgreSQL\) (\d+)", text)
    return int(found[1]) if found else 0


_ERROR = re.compile(
    r"(?m)^(?:\S*pgbench: )?(?:error|fatal): (.+)|^(?:\S*/)?pgbench: ((?:unrecognized|invalid) option.+)"
)
_PROGRESS = re.compile(
    r"(?m)^progress: (?P<at>[0-9.]+) s, (?P<tps>[0-9.]+) tps, lat (?P<latency>\S+) ms stddev \S+?"
    r"(?:, (?P<failed>\d+) failed)?(?:, lag (?P<lag>\S+) ms)?(?:, (?P<skipped>\d+) skipped)?(?:, .*)?$"
)
_SCRIPT = re.compile(r"(?m)^SQL script \d+: (.+)\n - weight: (\d+) .*\n - (\d+) transactions \(")
_CLIENT = re.compile(
    r"^client \d+ (?:script \d+ )?aborted in (?:command \d+ (?:\([^)]*\) of script \d+; |query \d+: ))?"
)


def _error_text(text: str) -> str:
    return _CLIENT.sub("", text.strip())


def _progress(match: re.Match[str]) -> Progress:
    return Progress(
        at_s=float(match["at"]),
        tps=float(match["tps"]),
        latency_ms=_float(match["latency"]),
        failed=int(match["failed"] or 0),
        lag_ms=_float(match["lag"]) if match["lag"] else None,
        skipped=int(match["skipped"] or 0),
    )


def _scripts(text: str) -> tuple[ScriptSummary, ...]:
    found = list(_SCRIPT.finditer(text))
    ends = [*(match.start() for match in found[1:]), len(text)]
    return tuple(_script(match, text[match.end() : end]) for match, end in zip(found, ends, strict=True))


def _script(match: re.Match[str], rest: str) -> ScriptSummary:
    return ScriptSummary(
        name=match[1].strip(),
        weight=int(match[2]),
        transactions=int(match[3]),
        processed=_whole(r"^ - number of transactions actually processed: (\d+)", rest),
        failed=_whole(r"^ - number of failed transactions: (\d+)", rest) or 0,
        latency_mean_ms=_number(rf"^ - latency average = {_NUMBER} ms", rest),
    )


def _tps(text: str) -> float | None:
    """The rate without connecting, which versions before 14 print last."""
    found = re.findall(rf"(?m)^tps = {_NUMBER} \(", text)
    return _float(found[-1]) if found else None


def _last(pattern: str, text: str) -> str | None:
    found = re.findall(f"(?m){pattern}", text)
    return found[-1] if found else None


def _word(pattern: str, text: str) -> str:
    return (_last(pattern, text) or "").strip()


def _whole(pattern: str, text: str) -> int | None:
    found = _last(pattern, text)
    return int(found) if found is not None else None


def _number(pattern: str, text: str) -> float | None:
    """None also for what is not a number: an average over nothing."""
    found = _last(pattern, text)
    value = _float(found) if found is not None else float("nan")
    return value if value == value else None


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
