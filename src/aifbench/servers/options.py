"""The options every service and every benchmark has; a service adds its own."""

import re
from functools import partial

from aifbench.errors import UsageError
from aifbench.options import Option
from aifbench.units import parse_count, parse_duration_s, parse_rate_per_s

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
RESERVED_NAMES = ("all", "last")


def parse_name(text: str) -> str:
    """An instance name: becomes part of job and file names."""
    if not _NAME.fullmatch(text) or text in RESERVED_NAMES:
        raise UsageError(
            f"--name {text!r} cannot be used",
            hint="give a lower-case letter, then up to 30 letters, digits, - or _; not all or last",
        )
    return text


def parse_port(text: str) -> int:
    return parse_count(text, "--port", minimum=1024, maximum=65535)


def _positive_number(text: str, what: str) -> float:
    return parse_rate_per_s(text, what)


def _word(text: str, what: str) -> str:
    """A site name that ends up on the scheduler's command line."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.,:+-]{0,99}", text):
        raise UsageError(f"{what} {text!r} cannot be used", hint="give a name of letters, digits, - and _")
    return text


def _site(name: str, help_text: str) -> Option:
    return Option(name, help_text, parse=partial(_word, what=f"--{name}"), default="", metavar="NAME")


START_OPTIONS = (
    Option("name", "what to call this instance (default: its kind)", parse=parse_name, metavar="NAME"),
    Option(
        "nodes",
        "number of nodes",
        parse=partial(parse_count, what="--nodes", maximum=10_000),
        default=1,
        metavar="N",
    ),
    Option(
        "time",
        "time limit of the job, such as 30m or 2h",
        parse=partial(parse_duration_s, what="--time"),
        metavar="T",
    ),
    _site("partition", "Slurm partition"),
    _site("account", "Slurm account to be charged"),
    _site("qos", "Slurm quality of service"),
    _site("reservation", "Slurm reservation"),
    Option("port", "port to listen on (default: a free one)", parse=parse_port, metavar="PORT"),
)

LOAD_OPTIONS = (
    Option(
        "rate",
        "open loop: operations per second, such as 50 or 2k",
        parse=partial(parse_rate_per_s, what="--rate"),
        metavar="R",
    ),
    Option(
        "arrivals",
        "open-loop arrival process",
        default="poisson",
        choices=("poisson", "constant", "gamma", "ramp"),
        metavar="KIND",
    ),
    Option(
        "burstiness",
        "gamma arrivals: squared coefficient of variation of the gaps; 1 is poisson",
        parse=partial(_positive_number, what="--burstiness"),
        default=4.0,
        metavar="CV2",
    ),
    Option(
        "ramp-to",
        "ramp arrivals: the rate at the end (default: 4 times --rate)",
        parse=partial(parse_rate_per_s, what="--ramp-to"),
        metavar="R",
    ),
    Option("trace", "open loop: play the due times in FILE, in seconds, one a line", metavar="FILE"),
    Option(
        "clients",
        "closed loop: operations under way at any time",
        parse=partial(parse_count, what="--clients", maximum=100_000),
        default=4,
        metavar="N",
    ),
    Option(
        "duration",
        "measured time of a timed phase",
        parse=partial(parse_duration_s, what="--duration"),
        default=60.0,
        metavar="T",
    ),
    Option(
        "warmup",
        "time before the measured part of a timed phase",
        parse=partial(parse_duration_s, what="--warmup"),
        default=5.0,
        metavar="T",
    ),
    Option(
        "drain",
        "how long to wait for unfinished operations at the end",
        parse=partial(parse_duration_s, what="--drain"),
        default=10.0,
        metavar="T",
    ),
    Option(
        "timeout",
        "time limit of one operation",
        parse=partial(parse_duration_s, what="--timeout"),
        default=30.0,
        metavar="T",
    ),
    Option(
        "workers",
        "load-generating processes per stream",
        parse=partial(parse_count, what="--workers", maximum=4096),
        default=1,
        metavar="N",
    ),
    Option(
        "client-nodes",
        "nodes of the client job that makes the load (Slurm)",
        parse=partial(parse_count, what="--client-nodes", maximum=10_000),
        metavar="N",
    ),
    Option(
        "seed",
        "seed of data, queries and arrivals",
        parse=partial(parse_count, what="--seed", minimum=0, maximum=2**32 - 1),
        default=1,
        metavar="N",
    ),
    Option("note", "a remark to keep with the run", default="", metavar="TEXT"),
)
