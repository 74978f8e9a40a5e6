"""What S3's benchmarks can be asked."""

from aifbench.errors import UsageError
from aifbench.options import Option, count_option
from aifbench.units import parse_number
from aifbench.workloads.s3_objects import parse_size, parse_sizes

OPERATIONS = ("get", "range", "head", "put", "delete")
DEFAULT_MIX = "get:45,head:30,put:15,delete:10"
# S3 refuses smaller parts, but for the last one.
SMALLEST_PART_BYTES = 5 * 2**20


def parse_mix(text: str) -> dict[str, float]:
    """Weights by operation from `get:45,put:15`. Raises UsageError."""
    hint = f"give weights of {', '.join(OPERATIONS)}, such as {DEFAULT_MIX}"
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = (word.strip() for word in part.partition(":"))
        if name not in OPERATIONS or name in weights:
            raise UsageError(f"--mix {text!r} cannot be used: {name!r}", hint=hint)
        weights[name] = parse_number(weight or "", f"--mix {name}", minimum=0, maximum=1000)
    if not sum(weights.values()):
        raise UsageError(f"--mix {text!r} has no weight above 0", hint=hint)
    if weights.get("delete", 0) > weights.get("put", 0):
        raise UsageError(
            f"--mix {text!r} deletes more than it puts", hint="give put at least the weight of delete"
        )
    return weights


def _checked_sizes(text: str) -> str:
    parse_sizes(text)
    return text


def _checked_mix(text: str) -> str:
    parse_mix(text)
    return text


def _size(name: str, minimum: int = 1) -> "_SizeOf":
    return _SizeOf(f"--{name}", minimum)


class _SizeOf:
    """Parses one option's size in bytes."""

    def __init__(self, what: str, minimum: int) -> None:
        self._what = what
        self._minimum = minimum

    def __call__(self, text: str) -> int:
        size_bytes = parse_size(text, self._what)
        if size_bytes < self._minimum:
            raise UsageError(
                f"{self._what} {text!r} is too small", hint=f"give at least {self._minimum:,} bytes"
            )
        return size_bytes


BENCH_OPTIONS = (
    Option(
        "size",
        "object sizes: 4KiB, lognormal:1MiB:1.5, 4KiB:80,1MiB:20 (size:weight), loader-small, loader-medium, "
        "loader-large, checkpoint, parquet or metadata",
        parse=_checked_sizes,
        default="1MiB",
        metavar="SIZES",
    ),
    count_option(
        "objects", "objects stored before they are read (default: about 1 GiB, 16 to 1,000)", maximum=10**8
    ),
    Option("range-size", "range: bytes per read", parse=_size("range-size"), default=2**20, metavar="SIZE"),
    Option(
        "part-size",
        "multipart: bytes per part",
        parse=_size("part-size", SMALLEST_PART_BYTES),
        default=8 * 2**20,
        metavar="SIZE",
    ),
    count_option("page", "list: keys per page", 1000, maximum=1000),
    Option("mix", "mixed: weight of each operation", parse=_checked_mix, default=DEFAULT_MIX, metavar="MIX"),
    Option(
        "max-data",
        "put, mixed, multipart: new objects up to this much, then the same again",
        parse=_size("max-data"),
        default=10 * 2**30,
        metavar="SIZE",
    ),
    Option(
        "payload",
        "whether bodies are signed (SHA-256); auto: those up to 64 KiB",
        default="auto",
        choices=("auto", "signed", "unsigned"),
    ),
    Option("via", "client: plain HTTP, or boto3", default="http", choices=("http", "sdk")),
)
