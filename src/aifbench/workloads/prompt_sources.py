"""Prompts by number: each source is a pure function of its making and an index, alike in every process.

Lengths depend on the seed alone, texts on the seed and the salt: so the levels of a run ask for the same
work, in other words.
"""

import json
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from aifbench.errors import WorkloadError
from aifbench.workloads.common_words import COMMON_WORDS
from aifbench.workloads.draws import key_of, numbers_16, numbers_32
from aifbench.workloads.lengths import Lengths
from aifbench.workloads.token_words import WordList

_DESCRIBED_DRAWS = 2000
_TAG_WORDS = 4


@dataclass(frozen=True, slots=True)
class Prompt:
    """One of `text`, `token_ids` and `messages` is there.

    `prompt_tokens` is the exact number, None when it is not known; without the chat template.
    `output_tokens` is what to ask for, None to leave it to the model.
    """

    text: str = ""
    token_ids: tuple[int, ...] = ()
    messages: tuple[Mapping[str, str], ...] = ()
    prompt_tokens: int | None = None
    output_tokens: int | None = None


class PromptSource(Protocol):
    size: int | None
    """How many different prompts there are; None when endless."""

    def prompt(self, index: int) -> Prompt:
        """Prompt number `index`, any from 0; a source of `size` prompts starts again after the last."""

    def describe(self) -> dict[str, Any]:
        """For the record, as JSON."""


class Maker(Protocol):
    """Makes random text of a wanted length."""

    def make(
        self, key: bytes, index: int, tokens: int, output_tokens: int | None = None, prefix: Prompt = ...
    ) -> Prompt:
        """A prompt of `tokens` tokens, or as many more behind `prefix`."""

    def describe(self) -> dict[str, Any]: ...


_NOTHING = Prompt()


class WordMaker:
    """Texts of words that are one token each."""

    def __init__(self, words: WordList) -> None:
        self._list = words
        # As many places as a 16-bit number has values: drawing is a look-up. Words differ in frequency by
        # at most 1 in 65536 / len(words).
        repeats = -(-65536 // len(words.words))
        self._table = (words.words * repeats)[:65536]

    def make(
        self,
        key: bytes,
        index: int,
        tokens: int,
        output_tokens: int | None = None,
        prefix: Prompt = _NOTHING,
    ) -> Prompt:
        if prefix.text:
            count = self._words_in(tokens)
            total = prefix.prompt_tokens + count if prefix.prompt_tokens is not None else None
            text = f"{prefix.text} {self.text(key, index, count, opens=False)}"
            return Prompt(text=text, prompt_tokens=total, output_tokens=output_tokens)
        count = self._words_in(tokens - self._list.added)
        total = count + self._list.added if self._list.is_exact else None
        return Prompt(self.text(key, index, count), prompt_tokens=total, output_tokens=output_tokens)

    def message(self, key: bytes, index: int, tokens: int, output_tokens: int | None = None) -> Prompt:
        """The same as one message of several: what the tokenizer adds to a whole prompt is not counted."""
        count = self._words_in(tokens)
        exact = count if self._list.is_exact else None
        return Prompt(self.text(key, index, count), prompt_tokens=exact, output_tokens=output_tokens)

    def _words_in(self, tokens: int) -> int:
        if self._list.is_exact:
            return max(1, tokens)
        return max(1, round(tokens / self._list.tokens_per_word))

    def text(self, key: bytes, index: int, count: int, *, opens: bool = True) -> str:
        numbers = numbers_16(key, index, count)
        words = list(map(self._table.__getitem__, numbers))
        if opens:
            words[0] = self._list.starters[numbers[0] % len(self._list.starters)]
        return " ".join(words)

    def describe(self) -> dict[str, Any]:
        words = self._list
        return {
            "how": "words",
            "exact": words.is_exact,
            "added_tokens": words.added,
            "words": len(words.words),
            "note": words.note,
        }


class IdMaker:
    """Token ids from [low, high): exact without a tokenizer."""

    def __init__(self, low: int, high: int) -> None:
        self._low, self._high = low, high

    def make(
        self,
        key: bytes,
        index: int,
        tokens: int,
        output_tokens: int | None = None,
        prefix: Prompt = _NOTHING,
    ) -> Prompt:
        low, span = self._low, self._high - self._low
        ids = prefix.token_ids + tuple([low + n % span for n in numbers_32(key, index, tokens)])
        return Prompt(token_ids=ids, prompt_tokens=len(ids), output_tokens=output_tokens)

    def describe(self) -> dict[str, Any]:
        return {"how": "ids", "exact": True, "ids": [self._low, self._high - 1]}


@dataclass(frozen=True, slots=True)
class Sizes:
    """Lengths of prompts and of answers, independent of each other unless they are of one trace.

    `output` is None when a file or the model decides.
    """

    input: Lengths
    output: Lengths | None
    seed: int
    _input_key: bytes = field(init=False)
    _output_key: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_input_key", key_of(self.seed, "input lengths"))
        object.__setattr__(self, "_output_key", key_of(self.seed, "output lengths"))

    def input_tokens(self, index: int) -> int:
        return self.input.draw(index, self._input_key)

    def output_tokens(self, index: int) -> int | None:
        return None if self.output is None else self.output.draw(index, self._output_key)

    def describe_input(self) -> dict[str, Any]:
        return _drawn(self.input, self._input_key)

    def describe_output(self) -> dict[str, Any]:
        if self.output is None:
            return {"lengths": "as the file says, else as the model ends"}
        return _drawn(self.output, self._output_key)


def _drawn(lengths: Lengths, key: bytes) -> dict[str, Any]:
    return {"lengths": str(lengths), **summary([lengths.draw(i, key) for i in range(_DESCRIBED_DRAWS)])}


def summary(tokens: Sequence[int]) -> dict[str, Any]:
    """Of the first of many, or of all that there are."""
    ordered = sorted(tokens)
    last = len(ordered) - 1
    return {
        "mean": round(sum(ordered) / len(ordered), 2),
        "min": ordered[0],
        "p50": ordered[last // 2],
        "p99": ordered[last * 99 // 100],
        "max": ordered[-1],
    }


class SyntheticSource:
    """Endless different prompts. With `prefixes` > 0 each begins with one of a pool, `prefix_tokens` long."""

    size: int | None = None

    def __init__(
        self, maker: Maker, sizes: Sizes, salts: Sequence[str], prefixes: int = 0, prefix_tokens: int = 0
    ) -> None:
        self._maker, self._sizes = maker, sizes
        self._prefixes, self._prefix_tokens = prefixes, prefix_tokens
        self._key = key_of(sizes.seed, "texts", *salts)
        prefix_key = key_of(sizes.seed, "prefixes", *salts)
        self._choice_key = key_of(sizes.seed, "choice of prefix")
        self._prefix = cache(lambda number: maker.make(prefix_key, number, prefix_tokens))

    def prompt(self, index: int) -> Prompt:
        tokens, output_tokens = self._sizes.input_tokens(index), self._sizes.output_tokens(index)
        if not self._prefixes:
            return self._maker.make(self._key, index, tokens, output_tokens)
        number = numbers_32(self._choice_key, index, 1)[0] % self._prefixes
        return self._maker.make(self._key, index, tokens, output_tokens, self._prefix(number))

    def describe(self) -> dict[str, Any]:
        about = {"kind": "prefix" if self._prefixes else "synthetic", **self._maker.describe()}
        if self._prefixes:
            about |= {"prefixes": self._prefixes, "prefix_tokens": self._prefix_tokens}
        return about | {
            "seed": self._sizes.seed,
            "input": self._sizes.describe_input(),
            "output": self._sizes.describe_output(),
        }


class RepeatSource:
    """One prompt again and again; only how much to answer may differ."""

    size: int | None = 1

    def __init__(self, prompt: Prompt, sizes: Sizes, about: Mapping[str, Any]) -> None:
        self._prompt, self._sizes, self._about = prompt, sizes, about

    def prompt(self, index: int) -> Prompt:
        return replace(self._prompt, output_tokens=self._sizes.output_tokens(index))

    def describe(self) -> dict[str, Any]:
        tokens = self._prompt.prompt_tokens
        return {
            "kind": "repeat",
            **self._about,
            "seed": self._sizes.seed,
            "input": {"lengths": "unknown"}
            if tokens is None
            else {"lengths": str(tokens), **summary([tokens])},
            "output": self._sizes.describe_output(),
        }


class RowFile:
    """JSON lines, of which any can be read at once; the operating system keeps the pages for all workers."""

    def __init__(self, path: Path, offsets: Sequence[int]) -> None:
        """`offsets` are where each line begins, and where the last one ends. Raises WorkloadError."""
        try:
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise WorkloadError(f"cannot read the prepared prompts {path}") from error
        if len(self._bytes) != offsets[-1]:
            raise WorkloadError(f"the prepared prompts {path} are cut off", hint="start the benchmark again")
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> Any:
        return json.loads(self._bytes[self._offsets[index] : self._offsets[index + 1]])


def write_rows(path: Path, rows: Sequence[Any]) -> list[int]:
    """The file of a RowFile, and its offsets."""
    offsets = [0]
    with path.open("wb") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
            offsets.append(file.tell())
    return offsets


class Tag:
    """A few words before a given text, so that no server has seen its beginning."""

    def __init__(self, seed: int, salts: Sequence[str]) -> None:
        self._key = key_of(seed, "tags", *salts)

    def __call__(self, index: int, text: str) -> str:
        words = [COMMON_WORDS[n % len(COMMON_WORDS)] for n in numbers_16(self._key, index, _TAG_WORDS)]
        return f"{' '.join(words)}\n{text}"


class FileSource:
    """Prompts of a file in its order, each made unique by a tag unless `tag` is None."""

    def __init__(self, rows: RowFile, sizes: Sizes, tag: Tag | None, about: Mapping[str, Any]) -> None:
        self.size: int | None = len(rows)
        self._rows, self._sizes, self._tag, self._about = rows, sizes, tag, about

    def prompt(self, index: int) -> Prompt:
        row = self._rows[index % len(self._rows)]
        text, messages, prompt_tokens = row["text"], row["messages"], row["input"]
        if self._tag:
            prompt_tokens = None
            if messages:
                messages[0]["content"] = self._tag(index, messages[0]["content"])
            else:
                text = self._tag(index, text)
        output_tokens = self._sizes.output_tokens(index)
        if output_tokens is None:
            output_tokens = row["output"]
        return Prompt(text, (), tuple(messages), prompt_tokens, output_tokens)

    def describe(self) -> dict[str, Any]:
        about = {"kind": "file", **self._about, "tagged": self._tag is not None, "seed": self._sizes.seed}
        if self._sizes.output is not None:
            about["output"] = self._sizes.describe_output()
        return about
