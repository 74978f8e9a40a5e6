"""What `start postgres` and its benchmarks can be asked, and the server's settings as a person types them."""

import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aifbench.errors import UsageError
from aifbench.options import Option, count_option, duration_option, nearest, number_option
from aifbench.results.slo import Slo
from aifbench.units import parse_count, parse_duration_s

# Beyond PostgreSQL's own 100: a sweep over clients must not end at the server's door.
MAX_CONNECTIONS = 500
# More than our own engine opens by itself for operations at a rate; PgBouncer's own is 20.
POOL_SIZE = 50
# What a full pool leaves, at least, to the control connections of runs and to the pools of other data bases.
_NOT_FOR_THE_POOL = 10

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?", re.ASCII)
_NEXT = re.compile(
    r",(?=[A-Za-z_][\w.]*=)", re.ASCII
)  # a comma before another name=; others belong to the value
_HINT = "give name=value, several separated by blanks or commas: --set 'shared_buffers=4GB, max_wal_size=8GB'"

# What the deployment decides itself, and how it is said.
_OURS = {
    **dict.fromkeys(
        ("data_directory", "config_file", "hba_file", "ident_file", "external_pid_file"),
        "it belongs to the job's own directory: see --storage",
    ),
    "port": "use --port",
    "fsync": "use --fsync",
    "listen_addresses": "AIFBENCH_BIND in the environment sets the address",
    "unix_socket_directories": "it listens on the announced address only",
    "logging_collector": "its log goes to the job's log, which is read",
    "log_destination": "its log goes to the job's log, which is read",
    "lc_messages": "its log goes to the job's log, which is read",
}


def parse_settings(text: str) -> dict[str, str]:
    """Server settings from `a=1, b='x y'`, with the names that PostgreSQL gives them. Raises UsageError."""
    try:
        words = shlex.split(text)
    except ValueError:
        raise UsageError(f"--set {text!r} has an open quote", hint=_HINT) from None
    settings: dict[str, str] = {}
    for part in (part for word in words for part in _NEXT.split(word.strip(","))):
        name, equals, value = part.partition("=")
        name = name.lower()
        if not part:
            continue
        if not equals or not _NAME.fullmatch(name) or not value.isprintable():
            raise UsageError(f"--set {part!r} is no setting", hint=_HINT)
        if name in _OURS:
            raise UsageError(f"--set {name} is not for you to set", hint=_OURS[name])
        if settings.get(name, value) != value:
            raise UsageError(f"--set gives {name} twice: {settings[name]!r} and {value!r}")
        settings[name] = value
    return settings


def _checked(text: str) -> str:
    parse_settings(text)
    return text


START_POSTGRES = (
    Option(
        "storage",
        "where its data lies: the scratch file system, the node's own disk, or memory",
        default="scratch",
        choices=("scratch", "local", "ram"),
    ),
    Option(
        "fsync",
        "whether a commit waits for the disk; without, a power cut would lose data",
        default="on",
        choices=("on", "off"),
    ),
    Option(
        "set",
        "settings of the server, such as 'shared_buffers=4GB max_wal_size=8GB'",
        parse=_checked,
        default="",
        metavar="NAME=VALUE",
    ),
    Option(
        "pooler",
        "PgBouncer before it, which lends a connection for a session or for a transaction (default: none)",
        default="",
        choices=("session", "transaction"),
    ),
    count_option(
        "pool-size",
        f"--pooler: its connections to PostgreSQL for a data base (default: {POOL_SIZE})",
        maximum=10_000,
    ),
)


def server_settings(options: Mapping[str, Any]) -> dict[str, str]:
    """All settings that the server is started with, besides where it listens."""
    chosen = {"max_connections": str(MAX_CONNECTIONS), **parse_settings(options["set"])}
    return {**chosen, "fsync": options["fsync"]}


def pooler_variables(options: Mapping[str, Any]) -> dict[str, str]:
    """What the batch script needs to know of the pooler; nothing without one. Raises UsageError."""
    mode, size = options["pooler"], options["pool_size"]
    if not mode:
        if size is not None:
            raise UsageError("--pool-size is for a pooler", hint="give --pooler session or transaction too")
        return {}
    size = size or POOL_SIZE
    most = server_settings(options)["max_connections"]
    if most.isdigit() and size > int(most) - _NOT_FOR_THE_POOL:
        raise UsageError(
            f"a pool of {size:,} connections is too much for a server that takes {int(most):,}",
            hint=f"give a smaller --pool-size, or --set max_connections={size + 100}",
        )
    return {"AIFBENCH_POSTGRES_POOLER": mode, "AIFBENCH_POSTGRES_POOL_SIZE": str(size)}


# Benchmarks.

BENCHES = (
    "all", "tpcb", "simple-update", "select-only", "script", "load", "point", "range", "metadata",
    "analytics", "storm", "vector",
)  # fmt: skip
LOAD_METHODS = ("copy-binary", "copy-text", "multi-row", "pipeline", "single-row")
_SLO_SHARE = re.compile(r"p(\d{2}(?:\.\d+)?)")
_SLO_HINT = "give a percentile and a response time, such as p99=20ms"


def parse_response_slo(text: str) -> Slo:
    """An objective from `p99=20ms`: that share of transactions within that time. Raises UsageError."""
    name, equals, value = (part.strip() for part in text.partition("="))
    match = _SLO_SHARE.fullmatch(name)
    if not match or not equals or not 50 <= float(match[1]) <= 99.99:
        raise UsageError(f"--slo {text!r} is no objective", hint=_SLO_HINT)
    if re.fullmatch(r"[0-9.]+", value):
        raise UsageError(f"--slo {text!r} has no unit of time", hint=f"write {name}={value}ms")
    limit_s = parse_duration_s(value, "--slo")
    if limit_s <= 0:
        raise UsageError(f"--slo {text!r} allows no time at all", hint=_SLO_HINT)
    return Slo(e2e_ms=round(1e3 * limit_s, 6), share=round(float(match[1]) / 100, 6))


def parse_scripts(text: str) -> list[tuple[str, int]]:
    """(file, weight) from `a.sql:3,b.sql`; a file without a weight has 1. Raises UsageError."""
    found = []
    for part in text.split(","):
        name, colon, weight = part.strip().rpartition(":")
        if not colon:
            name, weight = part.strip(), "1"
        path = Path(name)
        if not name or not weight.isdigit() or not 1 <= int(weight) <= 10**6:
            raise UsageError(
                f"--file {part.strip()!r} cannot be used",
                hint="give FILE:WEIGHT, such as read.sql:9,write.sql:1",
            )
        if not path.is_file():
            raise UsageError(f"there is no SQL file {name}", hint="give the path of a pgbench script")
        found.append((str(path.resolve()), int(weight)))
    return found


def parse_methods(text: str) -> tuple[str, ...]:
    """Raises UsageError."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in LOAD_METHODS:
            raise UsageError(
                f"--methods {name!r} is not known{nearest(name, LOAD_METHODS)}",
                hint=f"valid: {', '.join(LOAD_METHODS)}",
            )
    return names


def parse_clients(text: str) -> tuple[int, ...]:
    """Numbers of clients in rising order, each once. Raises UsageError."""
    return tuple(
        sorted({parse_count(part.strip(), "--concurrency", maximum=100_000) for part in text.split(",")})
    )


def _kept(parse: Callable[[str], object]) -> Callable[[str], str]:
    """Checked when typed, and kept as text, which a recipe can hold."""

    def check(text: str) -> str:
        parse(text)
        return text

    return check


BENCH_OPTIONS = (
    duration_option("duration", "measured time of each timed phase (default: 60 s; all: 20 s a level)"),
    Option(
        "engine",
        "what makes the load: pgbench, or this program (default: pgbench where it is installed)",
        default="",
        choices=("pgbench", "own"),
    ),
    count_option("scale", "size of pgbench's tables: 100,000 accounts each", 10, maximum=20_000),
    Option(
        "query-mode",
        "pgbench: how it sends statements",
        default="prepared",
        choices=("simple", "extended", "prepared"),
    ),
    Option("reconnect", "pgbench: a new connection for every transaction", default=False, flag=True),
    count_option("max-tries", "pgbench: tries of a transaction that failed by a conflict", 1, maximum=1000),
    duration_option("latency-limit", "pgbench with --rate: skip what is later than this (default: never)"),
    Option(
        "file",
        "script: SQL files with their weights",
        parse=_kept(parse_scripts),
        default="",
        metavar="F:W,F:W",
    ),
    Option(
        "concurrency",
        "closed-loop levels, measured one after another, with a scaling law through them",
        parse=_kept(parse_clients),
        default="",
        metavar="N,N",
    ),
    Option(
        "slo",
        "search for the highest rate that meets this, such as p99=20ms",
        parse=_kept(parse_response_slo),
        default="",
        metavar="LIMIT",
    ),
    number_option("precision", "--slo: width of the bracket, as a share", 0.05, minimum=0.005, maximum=0.5),
    Option(
        "methods",
        f"load: {', '.join(LOAD_METHODS)}",
        parse=_kept(parse_methods),
        default="copy-binary,multi-row,single-row",
        metavar="M,M",
    ),
    count_option("rows", "load: rows by each method (single-row: a fiftieth)", 2_000_000, maximum=10**10),
    count_option("batch", "load, vector: rows in a batch", 1000, maximum=10**6),
    count_option("payload", "load: bytes of text in a row", 100, maximum=1 << 20),
    number_option(
        "skew", "point, metadata: popularity of keys; 0 is uniform, 1 web-like", 0.0, minimum=0, maximum=10
    ),
    count_option("span", "range: rows of a read", 100, maximum=10**6),
    count_option("runs", "metadata, analytics: runs on record at the start", 20_000, maximum=10**7),
    Option(
        "isolation",
        "metadata: isolation level (default: the server's)",
        default="",
        choices=("read committed", "repeatable read", "serializable"),
        metavar="LEVEL",
    ),
    count_option("vectors", "vector: how many (default: 20,000, or all of --dataset)", maximum=10**9),
    count_option("dim", "vector: dimensions (default: 128)", maximum=16_000),
    count_option("queries", "vector: distinct queries (default: 1,000, or all of --dataset)", maximum=10**7),
    count_option("k", "vector: neighbours per query", 10, maximum=1000),
    Option("metric", "vector: distance", default="", choices=("l2", "cosine", "ip"), metavar="M"),
    Option("filter", "vector: search only a part, such as bucket:10 (10 %)", default="", metavar="F"),
    Option("dataset", "vector: folder with vectors in files (default: synthetic)", default="", metavar="DIR"),
    number_option("recall-target", "vector: mean recall below this is a WARN", 0.9, minimum=0, maximum=1),
    Option("index", "vector: kind of index", default="hnsw", choices=("hnsw", "ivfflat", "none")),
    count_option("m", "vector: HNSW links (default: pgvector's)", maximum=100),
    count_option("ef-construction", "vector: HNSW build breadth (default: pgvector's)", maximum=1000),
    count_option("ef-search", "vector: HNSW search breadth (default: pgvector's)", maximum=1000),
    count_option("lists", "vector: IVFFlat lists (default: pgvector's)", maximum=32_768),
    count_option("probes", "vector: IVFFlat lists searched (default: pgvector's)", maximum=32_768),
)
