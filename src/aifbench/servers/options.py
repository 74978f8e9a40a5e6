"""The options every service and every benchmark has; a service adds its own."""

import re
from collections.abc import Iterable
from functools import partial

from aifbench.errors import UsageError
from aifbench.options import Option, count_option, duration_option, number_option, rate_option
from aifbench.units import parse_count

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


def parse_port(text: str, what: str = "--port") -> int:
    return parse_count(text, what, minimum=1024, maximum=65535)


_metrics_port = partial(parse_port, what="--metrics-port")


def _word(text: str, what: str) -> str:
    """A site name that ends up on the scheduler's command line."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.,:+-]{0,99}", text):
        raise UsageError(f"{what} {text!r} cannot be used", hint="give a name of letters, digits, - and _")
    return text


def _site(name: str, help_text: str) -> Option:
    return Option(name, help_text, parse=partial(_word, what=f"--{name}"), default="", metavar="NAME")


def with_own(general: Iterable[Option], own: Iterable[Option]) -> tuple[Option, ...]:
    """General options and a service's own, which replace those of the same name."""
    return tuple({option.key: option for option in (*general, *own)}.values())


START_OPTIONS = (
    Option("name", "what to call this instance (default: its kind)", parse=parse_name, metavar="NAME"),
    count_option("nodes", "number of nodes", 1, maximum=10_000),
    duration_option("time", "time limit of the job, such as 30m or 2h"),
    _site("partition", "Slurm partition"),
    _site("account", "Slurm account to be charged"),
    _site("qos", "Slurm quality of service"),
    _site("reservation", "Slurm reservation"),
    Option(
        "exporters",
        "node and GPU exporters beside the service; auto: while monitors run",
        default="auto",
        choices=("auto", "yes", "no"),
    ),
    Option("port", "port to listen on (default: a free one)", parse=parse_port, metavar="PORT"),
)

LOAD_OPTIONS = (
    rate_option("rate", "open loop: operations per second, such as 50 or 2k"),
    Option(
        "arrivals",
        "open-loop arrival process",
        default="poisson",
        choices=("poisson", "constant", "gamma", "ramp"),
        metavar="KIND",
    ),
    number_option(
        "burstiness",
        "gamma arrivals: squared coefficient of variation of the gaps; 1 is poisson",
        4.0,
        minimum=0.01,
        maximum=1000,
    ),
    rate_option("ramp-to", "ramp arrivals: the rate at the end (default: 4 times --rate)"),
    Option("trace", "open loop: play the due times in FILE, in seconds, one a line", metavar="FILE"),
    count_option("clients", "closed loop: operations under way at any time", 4, maximum=100_000),
    duration_option("duration", "measured time of a timed phase", 60.0),
    duration_option(
        "warmup", "time before the measured part of a timed phase; 0 for none", 5.0, may_be_zero=True
    ),
    duration_option("drain", "how long to wait for unfinished operations at the end", 10.0),
    duration_option("timeout", "time limit of one operation", 30.0),
    count_option("workers", "load-generating processes per stream", 1, maximum=4096),
    count_option("client-nodes", "nodes of the client job that makes the load (Slurm)", maximum=10_000),
    count_option("seed", "seed of data, queries and arrivals", 1, minimum=0, maximum=2**32 - 1),
    Option("note", "a remark to keep with the run", default="", metavar="TEXT"),
    Option(
        "metrics-port",
        "serve bench_* metrics on this port of 127.0.0.1 while the benchmark runs",
        parse=_metrics_port,
        metavar="PORT",
    ),
)

# Of the client's own error; nothing here is of a service.
CALIBRATE_OPTIONS = (
    rate_option("rate", "open loop: requests per second (default: closed loop)"),
    count_option("clients", "closed loop: answers under way at any time", 64, maximum=100_000),
    duration_option("ttft", "true time to the first token", 0.05),
    duration_option("itl", "true time between two tokens", 0.005),
    count_option("input-tokens", "length of a prompt", 512, maximum=10**6),
    count_option("output-tokens", "length of an answer", 128, maximum=10**6),
    duration_option("duration", "measured time", 10.0),
    count_option("workers", "load-generating processes", 1, maximum=4096),
)
