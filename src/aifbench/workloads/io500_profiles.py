"""IO500 configurations that come with this program, as values and as the text of an ini file.

`list-valid` is what a submission needs (300 s of writing), `student-cluster` follows the rules of the
Student Cluster Competition (30 s), and `quick` tells in a few minutes whether all of it works: IO500
itself calls its score invalid.
"""

from dataclasses import dataclass
from pathlib import Path

from aifbench.errors import UsageError
from aifbench.options import nearest
from aifbench.workloads.io500_ini import LIST_STONEWALL_S, STUDENT_STONEWALL_S, with_directories


@dataclass(frozen=True, slots=True)
class Profile:
    """Sizes and counts are of each process; writing stops after `stonewall_s`, or when they are reached.

    After the stonewall every process does as much as the fastest one has, which on disks can take far
    longer than the stonewall itself.
    """

    name: str
    help: str
    stonewall_s: int
    block_mib: int = 9_920_000
    segments: int = 10_000_000
    files: int = 1_000_000
    is_student_cluster: bool = False


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("quick", "a few minutes, not valid for any list", 5, 2048, 20_000, 20_000),
        Profile("student-cluster", "30 s of writing", STUDENT_STONEWALL_S, is_student_cluster=True),
        Profile("list-valid", "300 s of writing: an hour or more", LIST_STONEWALL_S),
    )
}


def profile(name: str) -> Profile:
    """Raises UsageError."""
    if name not in PROFILES:
        raise UsageError(
            f"there is no IO500 profile {name!r}" + nearest(name, PROFILES),
            hint=f"valid: {', '.join(PROFILES)}",
        )
    return PROFILES[name]


def ini_of(
    chosen: Profile,
    datadir: Path,
    resultdir: Path,
    *,
    block_mib: int | None = None,
    segments: int | None = None,
    files: int | None = None,
) -> str:
    """The text of an ini file; what is given limits what each process writes at most."""
    lines = [
        "[global]",
        "api = POSIX",
        *(["scc = TRUE"] if chosen.is_student_cluster else []),
        "",
        "[debug]",
        f"stonewall-time = {chosen.stonewall_s}",
        "",
        "[ior-easy]",
        "transferSize = 2m",
        f"blockSize = {_even(block_mib or chosen.block_mib)}m",
        "filePerProc = TRUE",
        "",
        "[ior-hard]",
        f"segmentCount = {segments or chosen.segments}",
        "",
        "[mdtest-easy]",
        f"n = {files or chosen.files}",
        "",
        "[mdtest-hard]",
        f"n = {files or chosen.files}",
    ]
    return with_directories("\n".join(lines), datadir, resultdir)


def _even(mib: int) -> int:
    """Whole transfers only."""
    return max(2, mib - mib % 2)
