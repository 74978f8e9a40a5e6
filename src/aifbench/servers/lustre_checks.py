"""What makes a number of a file system mean less than it seems, as checks of plain numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from aifbench.results.record import Check, Verdict
from aifbench.units import format_number, format_size

# Of the bytes about to be read, as found in this node's memory just before.
_CACHED_WARN, _CACHED_INVALID = 0.01, 0.10
_OUT_OF_MEMORY = 2.0
_STRAGGLER = 2.0
# Memory that calls itself a file system.
MEMORY_TYPES = frozenset({"tmpfs", "ramfs", "hugetlbfs"})


def check_type(seen: Sequence[Mapping[str, Any]]) -> Check | None:
    """STORAGE: the file system is memory."""
    kind = next((str(node.get("type", "")) for node in seen), "")
    if kind not in MEMORY_TYPES:
        return None
    return Check(
        "STORAGE",
        Verdict.WARN,
        f"{kind} is memory: no storage is measured here",
        advice="start lustre with --path on another file system",
    )


def check_cache(
    *, direct: bool, cached_share: float | None, data_bytes: int, memory_bytes: int | None, how: str
) -> Check:
    """CACHE: whether what was read came from the storage or from this machine's own memory.

    `cached_share` of the data was in the page cache of the client just before the reading, None where that
    cannot be told; `how` names what was done against it. Servers have caches too, which nobody sees.
    """
    if direct:
        return Check("CACHE", Verdict.VALID, "reads went past the page cache (O_DIRECT)", 0.0, unit="share")
    advice = "leave out --buffered, or read more data than the nodes have memory"
    if cached_share is not None:
        percent = format_number(100 * cached_share, 3)
        share = f"{percent} % of the data was in the page cache before the reading ({how})"
        limits = ((_CACHED_INVALID, Verdict.INVALID), (_CACHED_WARN, Verdict.WARN))
        for limit, verdict in limits:
            if cached_share > limit:
                return Check("CACHE", verdict, share, cached_share, limit, "share", advice)
        return Check("CACHE", Verdict.VALID, share, cached_share, _CACHED_WARN, "share")
    if memory_bytes is None:
        return Check("CACHE", Verdict.WARN, "how much came from the page cache is not known", advice=advice)
    ratio = data_bytes / memory_bytes
    text = f"the data is {format_number(ratio, 2)} times the clients' memory ({format_size(memory_bytes)})"
    verdict = Verdict.VALID if ratio >= _OUT_OF_MEMORY else Verdict.WARN if ratio >= 1 else Verdict.INVALID
    return Check(
        "CACHE", verdict, text, ratio, _OUT_OF_MEMORY, "x", "" if verdict is Verdict.VALID else advice
    )


def check_sync(policy: str, *, direct: bool) -> Check | None:
    """SYNC: written is what the storage holds, not what memory promises to write."""
    if policy != "none" or direct:
        return None
    return Check(
        "SYNC",
        Verdict.WARN,
        "without fsync the writes may still have been in memory when the time was taken",
        advice="use --sync end",
    )


def check_link(rate_per_node: float, link_bytes_per_s: float | None, *, is_read: bool) -> Check | None:
    """LINK: nothing comes faster than the node's link carries; `rate_per_node` in bytes/s."""
    if link_bytes_per_s is None:
        return None
    text = f"{format_size(rate_per_node)}/s a node, over a link of {format_size(link_bytes_per_s)}/s"
    if rate_per_node <= link_bytes_per_s:
        return Check("LINK", Verdict.VALID, text, rate_per_node, link_bytes_per_s, "B/s")
    verdict = Verdict.INVALID if is_read else Verdict.WARN
    advice = "a cache answered: read data that another node wrote, more than memory holds, or by O_DIRECT"
    return Check(
        "LINK", verdict, f"faster than possible: {text}", rate_per_node, link_bytes_per_s, "B/s", advice
    )


def check_stragglers(slowest: float | None) -> Check | None:
    """STRAGGLER: one rank decides the result; `slowest` is its time by the median rank's."""
    if slowest is None:
        return None
    text = f"the slowest rank took {format_number(slowest, 3)} times as long as the median one"
    if slowest <= _STRAGGLER:
        return Check("STRAGGLER", Verdict.VALID, text, slowest, _STRAGGLER, "x")
    advice = "look for a slow node or storage target: `logs`, `lfs getstripe`, or repeat on other nodes"
    return Check("STRAGGLER", Verdict.WARN, text, slowest, _STRAGGLER, "x", advice)


def check_whole(done: int, blocks: int) -> Check:
    """WHOLE: every block was written or read. A rank that fails leaves its other blocks out."""
    if done == blocks:
        return Check("WHOLE", Verdict.VALID, f"all {blocks:,} blocks", done, blocks, "blocks")
    text = f"{done:,} of {blocks:,} blocks: the rest was given up"
    return Check("WHOLE", Verdict.INVALID, text, done, blocks, "blocks", "see the errors above")


def check_verified(verified: float, every: int) -> Check | None:
    """CONTENT: blocks that were read hold what was written; one that does not is an error of its own."""
    if not every:
        return None
    text = f"{verified:,.0f} blocks compared with what was written"
    if verified:
        return Check("CONTENT", Verdict.VALID, text, verified, unit="blocks")
    return Check(
        "CONTENT", Verdict.WARN, "no block was compared", 0.0, unit="blocks", advice="use --verify 1"
    )
