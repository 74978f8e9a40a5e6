"""What an inference benchmark can be asked, the same for every server that speaks a dialect we know."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from aifbench.errors import UsageError
from aifbench.options import Option, count_option, duration_option, number_option
from aifbench.results.slo import Slo, parse_slo
from aifbench.servers.instrumented import INSTRUMENT_OPTION
from aifbench.units import parse_count, parse_rate_per_s

BENCHES = ("all", "generate", "sweep", "capacity", "structured", "conversation", "embed", "average")


def parse_levels(
    text: str, what: str, parse: Callable[[str, str], float] = parse_rate_per_s
) -> tuple[float, ...]:
    """Numbers between commas, each once, in rising order."""
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise UsageError(f"{what} {text!r} is no list", hint="give numbers with commas, such as 1,4,16")
    return tuple(sorted({parse(word, what) for word in words}))


# What a recipe keeps is text that can be typed again: parsed to be checked, and once more where it is used.


def _levels(text: str, what: str, parse: Callable[[str, str], float]) -> str:
    return ",".join(f"{level:.12g}" for level in parse_levels(text, what, parse))


def slo_of(options: Mapping[str, Any]) -> Slo | None:
    """The objective of a recipe."""
    return parse_slo(options["slo"]) if options["slo"] else None


def _slo(text: str) -> str:
    slo = parse_slo(text)
    return slo.name or str(slo)


_counts = partial(_levels, what="--concurrency", parse=partial(parse_count, maximum=100_000))
_rates = partial(_levels, what="--rates", parse=parse_rate_per_s)

BENCH_OPTIONS = (
    # These replace the options of the same name that all services have: answers take longer here.
    count_option("clients", "closed loop: requests under way at any time", 16, maximum=100_000),
    duration_option("duration", "measured time of each timed phase (default: by the benchmark)"),
    duration_option("drain", "how long to wait for unfinished requests at the end", 60.0),
    duration_option("timeout", "time limit of one request", 300.0),
    Option("quick", "one minute in all: fewer levels, shorter phases", default=False, flag=True),
    Option("model", "model to ask for (default: the first one that is served)", default="", metavar="NAME"),
    Option(
        "api", "endpoint (default: chat where it is offered)", default="", choices=("chat", "completions")
    ),
    Option(
        "prompts",
        "synthetic, repeat, prefix, or a file: ShareGPT's JSON, or JSON lines",
        default="synthetic",
        metavar="KIND|FILE",
    ),
    Option(
        "input-tokens",
        "prompt lengths: 512, uniform:100:800, normal:512:128, lognormal:512:0.5, trace:FILE",
        default="512",
        metavar="LENGTHS",
    ),
    Option("output-tokens", "answer lengths, likewise", default="128", metavar="LENGTHS"),
    Option("ids", "send prompts as token ids, exact without a tokenizer", default=False, flag=True),
    Option(
        "tokenizer", "folder with the model's tokenizer (default: the server's)", default="", metavar="DIR"
    ),
    count_option("prefixes", "prefix: how many shared beginnings", 8, maximum=10**6),
    count_option(
        "prefix-tokens", "prefix: their length; conversation: of the system text", 256, maximum=10**6
    ),
    Option("stop-early", "let the model end its answers when it likes", default=False, flag=True),
    number_option("temperature", "of sampling; 0 takes the likeliest token", 0.0, minimum=0, maximum=2),
    Option(
        "slo",
        "limits, such as ttft=500ms,tpot=50ms,share=99% or mlperf:llama3.1-8b",
        parse=_slo,
        metavar="LIMITS",
    ),
    Option("concurrency", "sweep: closed-loop levels", parse=_counts, metavar="N,N"),
    Option("rates", "sweep: open-loop levels, requests per second", parse=_rates, metavar="R,R"),
    number_option(
        "precision", "capacity: width of the bracket, as a share", 0.05, minimum=0.005, maximum=0.5
    ),
    count_option("requests", "average, structured: how many", 40, maximum=100_000),
    count_option("turns", "conversation: turns of each", 4, minimum=2, maximum=100),
    duration_option("think", "conversation: pause before a further turn (default: none)"),
    count_option("batch", "embed: texts in a request", 8, maximum=4096),
    Option(
        "constraint",
        "structured: what answers have to follow",
        default="json",
        choices=("json", "regex", "choice", "grammar"),
    ),
    Option("cases", "structured: JSON lines with own prompts and constraints", default="", metavar="FILE"),
    Option(
        "via",
        "client: plain HTTP, or the openai package (generate only)",
        default="http",
        choices=("http", "sdk"),
    ),
    INSTRUMENT_OPTION,
    Option("no-calibration", "do not measure the client's own error at the end", default=False, flag=True),
)
