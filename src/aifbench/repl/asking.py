"""Asking a person for options, one after another, when a command was typed without any."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from aifbench.errors import UsageError
from aifbench.options import Option
from aifbench.repl.parsers import help_of, path_completer
from aifbench.repl.topic import Interrupted

if TYPE_CHECKING:
    from aifbench.repl.shell import Shell


def ask(shell: "Shell", options: Iterable[Option]) -> dict[str, str]:
    """What was answered, by key; an empty line takes the default. Ctrl-C and the end of input stop it all.

    What cannot be used is asked for again.
    """
    try:
        answers = {option.key: _answer(shell, option) for option in options}
    except (KeyboardInterrupt, EOFError):
        raise Interrupted("nothing was started") from None
    return {key: text for key, text in answers.items() if text}


def _answer(shell: "Shell", option: Option) -> str:
    while True:
        text = _read(shell, option).strip()
        try:
            if text:
                option.value_of(text)
        except UsageError as error:
            shell.poutput(f"{error}")
        else:
            return text


def _read(shell: "Shell", option: Option) -> str:
    prompt = f"{option.name}: {help_of(option)}: "
    if option.choices:
        return shell.read_input(prompt, choices=option.choices)
    return shell.read_input(prompt, completer=path_completer(option))
