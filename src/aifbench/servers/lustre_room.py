"""Room for new data: what the file system has free or what a quota leaves, whichever is less."""

from collections.abc import Mapping
from typing import Any


def free_bytes(node: Mapping[str, Any]) -> tuple[int | None, str]:
    """As `node` saw it, see workloads.file_survey; and whose quota decides, or nothing."""
    # Some file systems count nothing, and say 0.
    return _least(node, node.get("free_bytes") or None, "free_bytes")


def free_files(node: Mapping[str, Any]) -> tuple[int | None, str]:
    return _least(node, node.get("free_inodes") or None, "free_files")


def _least(node: Mapping[str, Any], free: int | None, name: str) -> tuple[int | None, str]:
    least, of = free, ""
    for quota in node.get("quotas", ()):
        left = quota.get(name)
        if left is not None and (least is None or left < least):
            least, of = left, str(quota["of"])
    return least, of
