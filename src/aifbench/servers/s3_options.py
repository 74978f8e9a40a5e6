"""What S3's benchmarks can be asked."""

from aifbench.errors import UsageError
from aifbench.options import Option, count_option, size_option
from aifbench.units import parse_number
from aifbench.workloads.s3_objects import parse_sizes

OPERATIONS = ("get", "range", "head", "put", "delete")
DEFAULT_MIX = "get:45,head:30,put:15,delete:10"
_LEAST_SHARE = 0.01
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
    total = sum(weights.values())
    if not total:
        raise UsageError(f"--mix {text!r} has no weight above 0", hint=hint)
    rare = next((name for name, weight in weights.items() if 0 < weight < _LEAST_SHARE * total), "")
    if rare:
        raise UsageError(f"--mix {text!r} has less than 1 % {rare}, which is too little", hint=hint)
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
    size_option("range-size", "range: bytes per read", 2**20),
    size_option("part-size", "multipart: bytes per part", 8 * 2**20, minimum=SMALLEST_PART_BYTES),
    count_option("page", "list: keys per page", 1000, maximum=1000),
    Option("mix", "mixed: weight of each operation", parse=_checked_mix, default=DEFAULT_MIX, metavar="MIX"),
    size_option(
        "max-data", "put, mixed, multipart: new objects up to this much, then the same again", 10 * 2**30
    ),
    Option(
        "payload",
        "whether bodies are signed (SHA-256); auto: those up to 64 KiB",
        default="auto",
        choices=("auto", "signed", "unsigned"),
    ),
    Option("via", "client: plain HTTP, or boto3", default="http", choices=("http", "sdk")),
)
