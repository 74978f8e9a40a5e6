"""Conversations of several turns: what the user says is known before, what was answered only at run time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from aifbench.errors import WorkloadError
from aifbench.workloads.draws import key_of, numbers_32
from aifbench.workloads.prompt_sources import Prompt, RowFile, Sizes, Tag, WordMaker

# More turns than a conversation has; prime, so that every row of a trace of lengths comes to use.
_TURNS_ROOM = 1009


@dataclass(frozen=True, slots=True)
class Conversation:
    """`turns` are what the user says, each with its own token counts and the answer to ask for."""

    system: str
    turns: tuple[Prompt, ...]

    def request(self, answers: Sequence[str]) -> Prompt:
        """The prompt of the turn after `answers`, with everything said before it.

        Its `prompt_tokens` is known only for the first turn without a system text. Raises WorkloadError after
        the last turn.
        """
        number = len(answers)
        if number >= len(self.turns):
            raise WorkloadError(f"the conversation has {len(self.turns)} turns and {number} answers")
        messages: list[Mapping[str, str]] = []
        if self.system:
            messages.append({"role": "system", "content": self.system})
        for turn, answer in zip(self.turns, answers, strict=False):
            messages.append({"role": "user", "content": turn.text})
            messages.append({"role": "assistant", "content": answer})
        turn = self.turns[number]
        messages.append({"role": "user", "content": turn.text})
        tokens = turn.prompt_tokens if len(messages) == 1 else None
        return Prompt(messages=tuple(messages), prompt_tokens=tokens, output_tokens=turn.output_tokens)


class ConversationSource(Protocol):
    """A PromptSource whose `prompt(index)` is the first request of conversation `index`."""

    size: int | None

    def conversation(self, index: int) -> Conversation: ...

    def prompt(self, index: int) -> Prompt: ...

    def describe(self) -> dict[str, Any]: ...


class SyntheticConversations:
    """`turns` turns each, behind a system text: one of `systems` shared ones, or (0) each its own."""

    size: int | None = None

    def __init__(
        self,
        maker: WordMaker,
        sizes: Sizes,
        salts: Sequence[str],
        turns: int,
        systems: int = 0,
        system_tokens: int = 0,
    ) -> None:
        self._maker, self._sizes, self._turns = maker, sizes, turns
        self._systems, self._system_tokens = systems, system_tokens
        self._key = key_of(sizes.seed, "turns", *salts)
        self._system_key = key_of(sizes.seed, "systems", *salts)
        self._choice_key = key_of(sizes.seed, "choice of system")

    def conversation(self, index: int) -> Conversation:
        first = index * self._turns
        turns = tuple(self._turn(number) for number in range(first, first + self._turns))
        return Conversation(self._system(index), turns)

    def _turn(self, number: int) -> Prompt:
        tokens, output_tokens = self._sizes.input_tokens(number), self._sizes.output_tokens(number)
        return self._maker.message(self._key, number, tokens, output_tokens)

    def _system(self, index: int) -> str:
        if not self._system_tokens:
            return ""
        number = numbers_32(self._choice_key, index, 1)[0] % self._systems if self._systems else index
        return self._maker.message(self._system_key, number, self._system_tokens).text

    def prompt(self, index: int) -> Prompt:
        return self.conversation(index).request(())

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "conversation",
            **self._maker.describe(),
            "turns": self._turns,
            "systems": self._systems,
            "system_tokens": self._system_tokens,
            "seed": self._sizes.seed,
            "input": self._sizes.describe_input(),
            "output": self._sizes.describe_output(),
        }


class FileConversations:
    """The users' turns of a file's conversations, at most `turns` of each (0: all)."""

    def __init__(
        self, rows: RowFile, sizes: Sizes, tag: Tag | None, turns: int, about: Mapping[str, Any]
    ) -> None:
        self.size: int | None = len(rows)
        self._rows, self._sizes, self._tag, self._turns, self._about = rows, sizes, tag, turns, about

    def conversation(self, index: int) -> Conversation:
        row = self._rows[index % len(self._rows)]
        system = row["system"]
        turns = [
            Prompt(text=text, prompt_tokens=tokens, output_tokens=self._output_tokens(index, number, output))
            for number, (text, tokens, output) in enumerate(row["turns"][: self._turns or None])
        ]
        if self._tag and system:
            system = self._tag(index, system)
        elif self._tag:
            turns[0] = replace(turns[0], text=self._tag(index, turns[0].text), prompt_tokens=None)
        return Conversation(system, tuple(turns))

    def _output_tokens(self, index: int, number: int, given: int | None) -> int | None:
        # Conversations of a file have no fixed number of turns.
        drawn = self._sizes.output_tokens(index * _TURNS_ROOM + number)
        return given if drawn is None else drawn

    def prompt(self, index: int) -> Prompt:
        return self.conversation(index).request(())

    def describe(self) -> dict[str, Any]:
        about = {"kind": "conversation", **self._about, "tagged": self._tag is not None}
        about |= {"turns": self._turns or "all", "seed": self._sizes.seed}
        if self._sizes.output is not None:
            about["output"] = self._sizes.describe_output()
        return about
