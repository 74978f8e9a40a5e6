"""A tokenizer of the byte-pair kind: splits off words with their space, then takes the longest pieces."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

_PIECES = re.compile(r" ?[A-Za-z]+| ?[0-9]| ?[^\sA-Za-z0-9]+|\s+")
_FIRST, _LAST = 1, 2


class FakeTokenizer:
    """Knows `words` with and (unless in `only_after_space`) without a leading space, and all characters.

    `joins` are texts that become one token across a space. `adds` puts a first and a last token around.
    """

    name = "fake"

    def __init__(
        self,
        words: Iterable[str],
        *,
        only_after_space: Iterable[str] = (),
        joins: Iterable[str] = (),
        adds: bool = False,
        vocabulary: int | None = None,
    ) -> None:
        words, only_after_space = list(words), set(only_after_space)
        known = [f" {word}" for word in words] + [word for word in words if word not in only_after_space]
        self._joins = list(joins)
        self._ids = {piece: 300 + number for number, piece in enumerate([*known, *self._joins, " 0"])}
        self._longest = max((len(piece) for piece in self._ids), default=1)
        self._adds = adds
        self.vocabulary = vocabulary
        self.calls = 0

    def encode(self, text: str) -> list[int]:
        self.calls += 1
        ids = [each for piece in self._pieces(text) for each in self._split(piece)]
        return [_FIRST, *ids, _LAST] if self._adds else ids

    def _pieces(self, text: str) -> list[str]:
        if not self._joins:
            return _PIECES.findall(text)
        joined = "|".join(re.escape(each) + r"(?![A-Za-z])" for each in self._joins)
        return re.findall(f"{joined}|{_PIECES.pattern}", text)

    def _split(self, piece: str) -> list[int]:
        ids = []
        while piece:
            size = next((n for n in range(self._longest, 1, -1) if piece[:n] in self._ids), 1)
            ids.append(self._ids.get(piece[:size], ord(piece[0]) % 256))
            piece = piece[size:]
        return ids


class FakeTokenizeRoute:
    """vLLM 0.32's `POST /tokenize` over a FakeTokenizer."""

    def __init__(self, tokenizer: FakeTokenizer) -> None:
        self._tokenizer = tokenizer
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, body: dict[str, Any]) -> Mapping[str, Any]:
        self.bodies.append(body)
        tokens = self._tokenizer.encode(body["prompt"])
        return {"count": len(tokens), "max_model_len": 2048, "tokens": tokens, "token_strs": None}
