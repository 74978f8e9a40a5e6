"""Documents and questions of a synthetic library: plain words, a pure function of seed and number."""

from collections.abc import Sequence

from aifbench.workloads.common_words import COMMON_WORDS
from aifbench.workloads.draws import key_of, numbers_16, numbers_32

_QUESTION_WORDS = 8


def document(seed: int, number: int, words: int) -> str:
    """Document `number`, of so many words."""
    draws = numbers_16(key_of("rag-document", seed), number, words)
    return " ".join(COMMON_WORDS[draw % len(COMMON_WORDS)] for draw in draws)


def question(seed: int, number: int, words: int, documents: int) -> str:
    """Question `number`: about some words that stand together in one of the documents."""
    about, place = numbers_32(key_of("rag-question", seed), number, 2)
    text = document(seed, about % documents, words).split()
    first = place % max(1, len(text) - _QUESTION_WORDS)
    return f"Which text speaks of {' '.join(text[first : first + _QUESTION_WORDS])}?"


def prompt(tag: str, documents: Sequence[str], asked: str) -> str:
    """What the model is asked. The tag stands first, so that no answer comes from a cache of prefixes."""
    texts = "\n\n".join(f"[{number}] {text}" for number, text in enumerate(documents, 1))
    return f"Request {tag}. Answer from these texts only.\n\n{texts}\n\nQuestion: {asked}"
