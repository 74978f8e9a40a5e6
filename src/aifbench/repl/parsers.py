"""Command-line parsers: words in, words out. Quantities are checked by their Option, never by argparse."""

import os
from argparse import Action, Namespace
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import takewhile
from typing import Any, NoReturn

from cmd2 import Choices, Cmd, Cmd2ArgparseError, Cmd2ArgumentParser, Completions
from cmd2.rich_utils import Cmd2HelpFormatter, TextGroup
from rich.console import Group
from rich.table import Table

from aifbench.errors import UsageError
from aifbench.options import Option, nearest

# What an option's value is called when it is a path, and which paths fit.
PATHS: dict[str, Callable[[str], bool] | None] = {"DIR": os.path.isdir, "FILE": None}


class Parser(Cmd2ArgumentParser):
    """A cmd2 parser that raises UsageError with the nearest valid word, instead of printing its usage.

    `listed`: words and what they mean, in a section of the help that is called `listed_as`.
    """

    def __init__(
        self,
        description: str,
        example: str,
        prog: str | None = None,
        *,
        listed_as: str = "",
        listed: Iterable[tuple[str, str]] = (),
    ) -> None:
        sections = [TextGroup(listed_as, _columns(listed))] if listed_as else []
        super().__init__(
            prog=prog,
            description=description,
            epilog=_Sections(*sections, TextGroup("Example", example)),
            allow_abbrev=False,
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._refuse_unknown_options(args or [])
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            raise self._unknown(unknown[0].partition("=")[0])
        return found, unknown

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}", hint=f"see `help {self.prog}`")

    def _check_value(self, action: Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            valid = [str(choice) for choice in action.choices]
            raise UsageError(
                f"{self.prog}: unknown {action.metavar or action.dest} {value!r}" + nearest(value, valid),
                hint=f"valid: {', '.join(valid)}",
            )

    def _refuse_unknown_options(self, words: Sequence[str]) -> None:
        """Before argparse takes the value of a misspelt option for something else."""
        for word in takewhile(lambda word: word != "--", words):
            name = word.partition("=")[0]
            # A word with a blank is a value, as argparse has it: --engine-args '--max-num-seqs 64'.
            if name.startswith("--") and " " not in word and name not in self._option_string_actions:
                raise self._unknown(name)

    def _unknown(self, word: str) -> UsageError:
        if not word.startswith("-"):
            return UsageError(f"{self.prog}: unexpected {word!r}", hint=f"see `help {self.prog}`")
        close = nearest(word, self._option_string_actions)
        return UsageError(f"{self.prog}: unknown option {word}{close}", hint=f"see `help {self.prog}`")


class _Sections:
    """Sections of a help text, one below the other."""

    def __init__(self, *sections: TextGroup) -> None:
        self._sections = sections

    def __cmd2_argparse_help__(self, formatter: Cmd2HelpFormatter) -> Group:
        parts = [section.__cmd2_argparse_help__(formatter) for section in self._sections]
        return Group(*(part for each in parts[:-1] for part in (each, "")), parts[-1])


def _columns(rows: Iterable[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for row in rows:
        table.add_row(*row)
    return table


def add_options(parser: Parser, options: Iterable[Option]) -> None:
    """One `--name` per option. Values stay text; what is not given is None."""
    for option in options:
        if option.flag:
            parser.add_argument(
                f"--{option.name}", dest=option.key, action="store_const", const=True, help=_escaped(option)
            )
        else:
            parser.add_argument(
                f"--{option.name}",
                dest=option.key,
                metavar=option.metavar or option.name.rpartition("-")[2].upper(),
                help=_escaped(option),
                choices_provider=_provider(option.choices) if option.choices else None,
                completer=path_completer(option),
            )


def path_completer(option: Option) -> Callable[..., Completions] | None:
    """Completes the value of an option that is a path; None for any other."""
    if option.metavar not in PATHS:
        return None
    return partial(Cmd.path_complete, path_filter=PATHS[option.metavar])


def given(arguments: Namespace, options: Iterable[Option]) -> dict[str, Any]:
    """What was typed of `options`, by key."""
    values = {option.key: getattr(arguments, option.key) for option in options}
    return {key: value for key, value in values.items() if value is not None}


def parse(shell: Cmd, parser: Parser, words: Sequence[str]) -> Namespace:
    """What cmd2's decorator does, for a command that chose its parser itself; `--help` ends it."""
    with parser.output_to(shell.stdout):
        try:
            return parser.parse_args(list(words))
        except SystemExit as done:
            raise Cmd2ArgparseError from done


def wants_help(words: Sequence[str]) -> bool:
    return "-h" in words or "--help" in words


def help_of(option: Option) -> str:
    """What it is for, its choices and its default."""
    text = option.help
    if option.choices:
        text += f": {', '.join(option.choices)}"
    if option.default not in (None, "", False):
        text += f" (default {_plain(option.default)}{option.unit})"
    return text


def _escaped(option: Option) -> str:
    return help_of(option).replace("%", "%%")


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _provider(valid: Sequence[str]) -> Callable[[Cmd], Choices]:
    def provide(_: Cmd) -> Choices:
        return Choices.from_values(valid, is_sorted=True)

    return provide
