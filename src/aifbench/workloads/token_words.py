"""Words that are one token each, so that a text of N words is a text of N tokens.

Which words are depends on the tokenizer, so they are searched with it: candidates that are single tokens
after a space, then whole random texts, until every text has the length it should.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise, product
from typing import Any

from aifbench.workloads.common_words import COMMON_WORDS
from aifbench.workloads.tokenizer import Tokenizer

ENOUGH_WORDS = 256
MIN_WORDS = 8  # 8 words in a block of 16 tokens still give 2.8e14 different first blocks
MIN_STARTERS = 4

_STARTERS = 64
_BATCH_WORDS = 250
_SAMPLE_WORDS = (1, 2, 3, 5, 8, 17, 33, 64, 129, 300, 1000)
_MAX_DROPPED = 200

# Never part of a word, so its token separates the words of a batch from each other.
_SEPARATOR = "0"


@dataclass(frozen=True, slots=True)
class WordList:
    """What texts are made of: a first word from `starters`, then `words`, joined by single spaces.

    `added` tokens are what the tokenizer puts around any text. A text of n words has exactly n + `added`
    tokens when `is_exact`, else about n * `tokens_per_word` + `added`, and `note` says why.
    """

    words: tuple[str, ...]
    starters: tuple[str, ...]
    added: int = 0
    is_exact: bool = False
    tokens_per_word: float = 1.0
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "WordList":
        return cls(**{**data, "words": tuple(data["words"]), "starters": tuple(data["starters"])})


def unverified_words(note: str, tokens_per_word: float = 1.0, added: int = 0) -> WordList:
    """The plain word list, for when nothing can be or was verified."""
    return WordList(COMMON_WORDS, COMMON_WORDS, added, False, tokens_per_word, note)


def find_words(tokenizer: Tokenizer, seed: int = 1) -> WordList:
    """Verified words for this tokenizer; `is_exact` is False where there are none."""
    added = len(tokenizer.encode(""))
    words: list[str] = []
    for candidates in (COMMON_WORDS, tuple(_other_candidates())):
        words = list(dict.fromkeys(words + _single_tokens(tokenizer, candidates)))
        if len(words) >= ENOUGH_WORDS:
            break
    starters = _starters(tokenizer, words, added)
    if len(words) >= MIN_WORDS and len(starters) >= MIN_STARTERS:
        found = _verified(tokenizer, words, starters, added, random.Random(seed))
        if found is not None:
            return found
    return unverified_words(
        f"length approximate: {tokenizer.name} makes one token each of too few words",
        _tokens_per_word(tokenizer, added),
        added,
    )


def safe_ids(vocabulary: int) -> tuple[int, int]:
    """[low, high) of token ids that are ordinary text in the usual vocabularies.

    Control tokens stand first (up to 1,000 of them) or last (up to 1 %, with padding), for images too.
    """
    return min(1000, vocabulary // 10), max(1, vocabulary - vocabulary // 50)


def vocabulary_seen(tokenizer: Tokenizer) -> int:
    """A vocabulary size that is certainly not too large: the highest id of some plain text, plus one."""
    return 1 + max(tokenizer.encode(" ".join(COMMON_WORDS)), default=0)


def _other_candidates() -> Iterator[str]:
    yield from (word.capitalize() for word in COMMON_WORDS)
    letters = "abcdefghijklmnopqrstuvwxyz"
    yield from letters
    yield from letters.upper()
    yield from ("".join(pair) for pair in product(letters, repeat=2))
    vowels = "aeiou"
    yield from ("".join(three) for three in product(letters, vowels, letters))


def _single_tokens(tokenizer: Tokenizer, candidates: Sequence[str]) -> list[str]:
    """The candidates that are one token after a space, with one question for a batch of them."""
    # The mark is the token that comes with every separator; `between` counts what a separator alone takes.
    separators = tokenizer.encode(" ".join(_SEPARATOR * 4))
    mark = next((token for token in reversed(separators) if separators.count(token) >= 3), None)
    if mark is None:
        return []
    places = [place for place, token in enumerate(separators) if token == mark]
    between = places[-1] - places[-2]
    single: list[str] = []
    for start in range(0, len(candidates), _BATCH_WORDS):
        batch = candidates[start : start + _BATCH_WORDS]
        single += _single_in_batch(tokenizer, batch, mark, between)
    return single


def _single_in_batch(tokenizer: Tokenizer, batch: Sequence[str], mark: int, between: int) -> list[str]:
    # Two at the start: the one that opens the text may be another token than those after a space.
    text = f" {_SEPARATOR} ".join((_SEPARATOR, *batch, "")).strip()
    text = f"{_SEPARATOR} {text}"
    places = [place for place, token in enumerate(tokenizer.encode(text)) if token == mark]
    places = places[-len(batch) - 1 :]
    if len(places) <= len(batch):
        return []
    lengths = (after - before for before, after in pairwise(places))
    return [word for word, length in zip(batch, lengths, strict=True) if length == between + 1]


def _starters(tokenizer: Tokenizer, words: Iterable[str], added: int) -> list[str]:
    """Words that are one token also where no space stands before them."""
    starters: list[str] = []
    for word in words:
        if len(starters) == _STARTERS:
            break
        if len(tokenizer.encode(word)) == 1 + added:
            starters.append(word)
    return starters


def _verified(
    tokenizer: Tokenizer, words: list[str], starters: list[str], added: int, generator: random.Random
) -> WordList | None:
    """Drops words that join with a neighbour until a whole round of texts is right; None if too few stay."""
    for _ in range(_MAX_DROPPED):
        if len(words) < MIN_WORDS or len(starters) < MIN_STARTERS:
            return None
        wrong = next(
            (text for text in _samples(words, starters, generator) if not _is_exact(tokenizer, text, added)),
            None,
        )
        if wrong is None:
            return WordList(tuple(words), tuple(starters), added, True)
        offender = _first_offender(tokenizer, wrong, added)
        words = [word for word in words if word != offender]
        starters = [word for word in starters if word != offender]
    return None


def _samples(words: list[str], starters: list[str], generator: random.Random) -> Iterator[list[str]]:
    """Random texts of many lengths, and every word once."""
    yield [generator.choice(starters), *generator.sample(words, len(words))]
    for size in _SAMPLE_WORDS:
        for _ in range(2):
            yield [generator.choice(starters), *generator.choices(words, k=size - 1)]


def _is_exact(tokenizer: Tokenizer, text: Sequence[str], added: int) -> bool:
    return len(tokenizer.encode(" ".join(text))) == len(text) + added


def _first_offender(tokenizer: Tokenizer, text: Sequence[str], added: int) -> str:
    """The word that ends the shortest beginning of wrong length, by bisection."""
    right, wrong = 0, len(text)
    while wrong - right > 1:
        middle = (right + wrong) // 2
        if _is_exact(tokenizer, text[:middle], added):
            right = middle
        else:
            wrong = middle
    return text[wrong - 1]


def _tokens_per_word(tokenizer: Tokenizer, added: int) -> float:
    tokens = len(tokenizer.encode(" ".join(COMMON_WORDS))) - added
    return max(tokens / len(COMMON_WORDS), 0.01)
