"""What the reference server shall do: timing and faults, as one value that is also its command line."""

import argparse
import enum
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from aifbench.errors import UsageError


class Fault(enum.StrEnum):
    """What the server does wrong on purpose. A request has one fault at most."""

    THROTTLE = "throttle"  # 429 with Retry-After, at once
    ERROR = "error"  # 500, at once
    CUT = "cut"  # the connection ends half-way through the answer
    EVENT_ERROR = "event_error"  # an error event half-way through a stream of status 200
    HANG = "hang"  # nothing more after half the answer, connection and slot held
    EMPTY_DELTA = "empty_delta"  # every second event without text, which comes with the next one
    WRONG_LENGTH = "wrong_length"  # half the tokens that were asked for, finish_reason "stop"


def _option(default: object, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True)
class ReferencePlan:
    """Every option of the server with its default. Raises UsageError for a value that cannot be used.

    An event that carries k tokens is due k times `itl_s` after the one before, so the time per output token
    is `itl_s` for every number of tokens per event.
    """

    ttft_s: float = _option(0.05, "first token, after the whole request or after its slot is free")
    itl_s: float = _option(0.005, "time per further token")
    output_tokens: int = _option(128, "tokens of an answer whose request names no number")
    tokens_per_chunk: int = _option(1, "tokens in one event")
    role_first: bool = _option(False, "send the role of a chat at once, not with the first token")
    jitter: float = _option(0.0, "width of a uniform deviation of each event but the first, in itl")
    seed: int = _option(0, "of the jitter")
    slots: int | None = _option(None, "answers made at a time; more requests wait in order")
    throttle_share: float = _option(0.0, "answers 429 with Retry-After")
    error_share: float = _option(0.0, "answers 500")
    cut_share: float = _option(0.0, "ends the connection half-way")
    event_error_share: float = _option(0.0, "sends an error event half-way")
    hang_share: float = _option(0.0, "stops sending half-way, for good")
    empty_delta_share: float = _option(0.0, "sends every second event without text")
    wrong_length_share: float = _option(0.0, "ends after half the tokens")
    stamps: bool = _option(False, "write the instant of sending into each event")
    model: str = _option("reference", "name of the model")
    max_model_len: int = _option(131072, "tokens of prompt and answer together")
    dimensions: int = _option(64, "length of an embedding")
    key_file: Path | None = field(default=None, metadata={"help": "file that holds the API key"})

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise UsageError(f"{_flag(name)} is {value}", hint=f"at least {least} is needed")
        for name in (*(_share_name(fault) for fault in Fault), "jitter"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{_flag(name)} is {getattr(self, name)}", hint="between 0 and 1 is valid")

    def fault_of(self, number: int) -> Fault | None:
        """The fault of request `number` (counted from 1): a share s hits every round(1/s)-th request.

        Several shares are shifted by one request each, so that equal ones do not fall together; where two
        still do, the first in the order of `Fault` counts.
        """
        shares = [(fault, share) for fault in Fault if (share := getattr(self, _share_name(fault))) > 0]
        for shift, (fault, share) in enumerate(shares):
            if (number + shift) % round(1 / share) == 0:
                return fault
        return None

    def argv(self) -> list[str]:
        """The options that differ from their defaults, as the server's command line."""
        words: list[str] = []
        for option in fields(self):
            value = getattr(self, option.name)
            if value is True:
                words.append(_flag(option.name))
            elif value != option.default:
                words += [_flag(option.name), str(value)]
        return words

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        for option in fields(cls):
            if option.type is bool:
                parser.add_argument(_flag(option.name), action="store_true", help=option.metadata["help"])
            else:
                parser.add_argument(
                    _flag(option.name),
                    type=_TYPES[option.name],
                    default=option.default,
                    help=f"{option.metadata['help']} (default: {option.default})",
                )

    @classmethod
    def from_options(cls, options: argparse.Namespace) -> Self:
        parsed = vars(options)
        return cls(
            **{option.name: parsed[_flag(option.name)[2:].replace("-", "_")] for option in fields(cls)}
        )


def _share_name(fault: Fault) -> str:
    return f"{fault.value}_share"


def _flag(name: str) -> str:
    """`ttft_s` is `--ttft`: on the command line, times are in seconds."""
    return "--" + name.removesuffix("_s").replace("_", "-")


_LEAST = {
    "ttft_s": 0,
    "itl_s": 0,
    "output_tokens": 1,
    "tokens_per_chunk": 1,
    "slots": 1,
    "max_model_len": 2,
    "dimensions": 1,
}
_TYPES: dict[str, type] = {
    **{option.name: type(option.default) for option in fields(ReferencePlan)},
    "slots": int,
    "key_file": Path,
}


def parse(argv: Sequence[str]) -> tuple[ReferencePlan, argparse.Namespace]:
    """The plan, and the options of the process itself: port, cpu, realtime."""
    parser = argparse.ArgumentParser(
        prog="python -m aifbench.workloads.reference_server",
        description="An OpenAI-compatible server of exactly known timing, to measure load clients against.",
    )
    ReferencePlan.add_options(parser)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one (default)")
    parser.add_argument("--cpu", type=int, help="run on this core only")
    parser.add_argument("--realtime", action="store_true", help="try to run before all ordinary processes")
    options = parser.parse_args(argv)
    try:
        return ReferencePlan.from_options(options), options
    except UsageError as error:
        parser.error(str(error))
