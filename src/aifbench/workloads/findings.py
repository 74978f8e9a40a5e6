"""What a reader of another program's output has to say about it, besides the numbers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One remark: `code` is stable and upper case; fatal ones make the numbers unfit to quote."""

    code: str
    is_fatal: bool
    message: str
    advice: str = ""
