"""Options as data: what a service or benchmark can be asked, for shells, recipes and Python alike."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from aifbench.errors import UsageError
from aifbench.units import parse_count, parse_duration_s, parse_number, parse_rate_per_s, parse_size_bytes


@dataclass(frozen=True, slots=True)
class Option:
    """One named choice. `parse` turns typed text into the value, raising UsageError; `name` uses hyphens.

    A `flag` takes no value on a command line and is True when given. `unit` follows the default in help.
    A person who gives no option at all is asked for those that are `asked`.
    """

    name: str
    help: str
    parse: Callable[[str], Any] = str
    default: Any = None
    metavar: str = ""
    unit: str = ""
    choices: tuple[str, ...] = ()
    flag: bool = False
    asked: bool = False

    @property
    def key(self) -> str:
        """The name as a Python identifier and as a key of recipes and records."""
        return self.name.replace("-", "_")

    def value_of(self, given: Any) -> Any:
        """`given` as this option's value: text is parsed, other types are checked through their text."""
        if given is None or self.flag:
            return given if given is not None else self.default
        text = given if isinstance(given, str) else str(given)
        if self.choices and text not in self.choices:
            raise UsageError(
                f"--{self.name} {text!r} is not known" + nearest(text, self.choices),
                hint=f"valid: {', '.join(self.choices)}",
            )
        return self.parse(text)


def count_option(
    name: str, help_text: str, default: int | None = None, *, minimum: int = 1, maximum: int
) -> Option:
    parse = partial(parse_count, what=f"--{name}", minimum=minimum, maximum=maximum)
    return Option(name, help_text, parse=parse, default=default, metavar="N")


def duration_option(
    name: str, help_text: str, default_s: float | None = None, *, may_be_zero: bool = False
) -> Option:
    parse = partial(parse_duration_s, what=f"--{name}", may_be_zero=may_be_zero)
    return Option(name, help_text, parse=parse, default=default_s, metavar="T", unit=" s")


def rate_option(name: str, help_text: str, default_per_s: float | None = None) -> Option:
    parse = partial(parse_rate_per_s, what=f"--{name}")
    return Option(name, help_text, parse=parse, default=default_per_s, metavar="R", unit="/s")


def number_option(name: str, help_text: str, default: float, *, minimum: float, maximum: float) -> Option:
    parse = partial(parse_number, what=f"--{name}", minimum=minimum, maximum=maximum)
    return Option(name, help_text, parse=parse, default=default, metavar="X")


def size_option(
    name: str, help_text: str, default_bytes: int | None = None, *, minimum: int = 1, maximum: int = 10**18
) -> Option:
    parse = partial(parse_size_bytes, what=f"--{name}", minimum=minimum, maximum=maximum)
    return Option(name, help_text, parse=parse, default=default_bytes, metavar="SIZE", unit=" B")


def nearest(text: str, valid: Iterable[str]) -> str:
    """` (did you mean 'x'?)` when a valid word is close to `text`, else nothing.

    The dashes that all options begin with make none of them closer.
    """
    words = {word.lstrip("-"): word for word in valid}
    matches = difflib.get_close_matches(text.lstrip("-"), words, n=1)
    return f" (did you mean {words[matches[0]]!r}?)" if matches else ""


def resolve_options(options: Iterable[Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """Every option's value: as given (None counts as not given) or its default, keyed by `Option.key`.

    Raises UsageError for a key that is no option, naming the nearest one.
    """
    table = {option.key: option for option in options}
    for key in given:
        if key not in table:
            raise UsageError(
                f"unknown option {key!r}" + nearest(key, table), hint=f"valid: {', '.join(table)}"
            )
    return {
        key: option.value_of(given[key]) if given.get(key) is not None else option.default
        for key, option in table.items()
    }
