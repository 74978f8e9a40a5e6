"""What benchmarks of file systems can be asked. Light: parsed at the prompt."""

from functools import partial
from pathlib import Path

from aifbench.errors import UsageError
from aifbench.options import Option, count_option, nearest, size_option
from aifbench.units import parse_count, parse_number, parse_size_bytes
from aifbench.workloads.file_cache import CACHES
from aifbench.workloads.file_checkpoint import MODELS, parse_model

BUILT_IN = ("file", "bandwidth", "random", "metadata", "loader", "checkpoint", "storm")
ENGINES = ("io500", "ior", "mdtest", "fio", "elbencho")
BENCHES = ("all", *BUILT_IN, *ENGINES)

PROFILES = ("quick", "student-cluster", "list-valid")
LOADERS = ("unet3d", "resnet50", "cosmoflow", "llm-tokens")


def parse_path(text: str) -> str:
    """An absolute path; whether it exists is for the nodes of the job to say."""
    if not text or "\0" in text or "\n" in text:
        raise UsageError(f"--path {text!r} cannot be used", hint="give a directory")
    return str(Path(text).expanduser().absolute())


def parse_stripe_count(text: str) -> int:
    """-1 for `all`, as Lustre has it."""
    return -1 if text == "all" else parse_count(text, "--stripe-count", minimum=1, maximum=2000)


def parse_stripe_size(text: str) -> int:
    """Lustre takes multiples of 64 KiB, below 4 GiB."""
    size_bytes = parse_size_bytes(text, "--stripe-size", minimum=65536, maximum=2**32 - 65536)
    if size_bytes % 65536:
        raise UsageError(f"--stripe-size {text!r} is no multiple of 64 KiB", hint="give one such as 1m or 4m")
    return size_bytes


def _sync(text: str) -> str:
    words = ("none", "end", "dsync")
    if text in words or (text.isascii() and text.isdigit() and int(text) > 0):
        return text
    raise UsageError(
        f"--sync {text!r} is not known{nearest(text, words)}",
        hint="give none, end (of each file), dsync (each write), or a number of blocks",
    )


def _checkpoint(text: str) -> str:
    parse_model(text)
    return text


def parse_ini(text: str) -> str:
    path = Path(text).expanduser().absolute()
    if not path.is_file():
        raise UsageError(f"--ini {text} is no file", hint="give an IO500 configuration, or --profile quick")
    return str(path)


BENCH_OPTIONS = (
    count_option("workers", "processes that do the work, over all nodes: MPI's ranks", 1, maximum=1_000_000),
    count_option(
        "clients", "built-in: operations under way at any time, over all processes", 1, maximum=10**6
    ),
    size_option(
        "size",
        "bytes of each client (default: what takes 20 s by a short try; random and other engines 1 GiB)",
    ),
    size_option(
        "block", "bytes of one read or write (default: 1 MiB; random 4 KiB)", minimum=512, maximum=2**30
    ),
    Option("shared", "bandwidth, random: one file for all processes, not one each", flag=True, default=False),
    Option("buffered", "go through the page cache, not past it (O_DIRECT)", flag=True, default=False),
    Option("sync", "writes: fsync at none, end, dsync, or every N blocks", parse=_sync, default="end"),
    Option(
        "cache",
        "before reading: auto (drop where allowed, else fadvise), drop, fadvise, keep",
        default="auto",
        choices=CACHES,
        metavar="HOW",
    ),
    count_option("verify", "read back and compare every N-th block; 0: none", 64, minimum=0, maximum=10**9),
    count_option(
        "files", "metadata, storm, mdtest: files of each client (default: 20 s by a try)", maximum=10**8
    ),
    size_option("file-size", "metadata: bytes written into each file", 0, minimum=0, maximum=2**30),
    Option("one-directory", "metadata: all files in one directory, not one each", flag=True, default=False),
    Option(
        "loader",
        "loader: the training job, by its samples",
        default="resnet50",
        choices=LOADERS,
        metavar="MODEL",
    ),
    size_option("data", "loader: bytes of the data set", 2**30),
    count_option("steps", "loader: batches per process", 50, maximum=10**7),
    Option(
        "checkpoint",
        f"checkpoint: {', '.join(MODELS)}, or parameters such as 13b",
        parse=_checkpoint,
        default="llama3-8b",
        metavar="MODEL",
    ),
    Option(
        "scale",
        "loader, checkpoint: this part of the real sizes (default: loader 1, checkpoint 20 s by a try)",
        parse=partial(parse_number, what="--scale", minimum=1e-6, maximum=1.0),
        metavar="X",
    ),
    Option("profile", "io500: how long", default="quick", choices=PROFILES, metavar="NAME"),
    Option("ini", "io500: a configuration of your own instead", parse=parse_ini, default="", metavar="FILE"),
    Option(
        "launcher",
        "io500, ior, mdtest: what starts MPI's ranks",
        default="auto",
        choices=("auto", "srun", "mpirun", "none"),
    ),
    size_option(
        "link", "fastest that a node can move in a second; faster reads are the cache's", minimum=10**6
    ),
)
