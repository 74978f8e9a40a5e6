"""What a service's own log says of its start or its end, in words for a person."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogNews:
    """`progress`: how far a start has come. `cause` and `advice`: why it ended, and what to do about that.

    Each is empty when the log does not tell.
    """

    progress: str = ""
    cause: str = ""
    advice: str = ""
