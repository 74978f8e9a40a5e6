"""Tokenizers to count with: a folder's own, or a server's. Only for preparation, never under load."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from aifbench.errors import ConfigError, WorkloadError


class Tokenizer(Protocol):
    name: str
    vocabulary: int | None
    """How many token ids there are; None when unknown."""

    def encode(self, text: str) -> list[int]:
        """Token ids, with what the tokenizer adds by itself (such as a first token), as in a completion."""


class FolderTokenizer:
    """The tokenizer of a model folder (`tokenizer.json`, or whatever transformers can read).

    Raises ConfigError when a package or the file is missing.
    """

    vocabulary: int | None

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        file = folder / "tokenizer.json"
        try:
            if file.is_file():
                self._load_fast(file)
            else:
                self._load_any(folder)
        except ImportError as error:
            raise ConfigError(
                f"the package {error.name} is needed to use the tokenizer in {folder}",
                hint=f"type: pip install {error.name}; or count with the server, or send token ids",
            ) from error
        except Exception as error:  # both packages raise plain Exception for a file they cannot read
            raise ConfigError(
                f"cannot use the tokenizer in {folder}", hint="give a folder that holds a tokenizer.json"
            ) from error

    def _load_fast(self, file: Path) -> None:
        tokenizer = importlib.import_module("tokenizers").Tokenizer.from_file(str(file))
        # A file may ask for cutting and filling, which no inference server does.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.vocabulary = tokenizer.get_vocab_size(with_added_tokens=False)
        self._encode: Callable[[str], list[int]] = lambda text: list(tokenizer.encode(text).ids)

    def _load_any(self, folder: Path) -> None:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder")
        auto = importlib.import_module("transformers").AutoTokenizer
        tokenizer = auto.from_pretrained(str(folder), local_files_only=True)
        self.vocabulary = tokenizer.vocab_size
        self._encode = lambda text: list(tokenizer.encode(text, truncation=False))

    def encode(self, text: str) -> list[int]:
        return self._encode(text)


class ServerTokenizer:
    """vLLM's `/tokenize`; `post` sends one JSON body there and returns the answer."""

    vocabulary: int | None = None

    def __init__(self, post: Callable[[dict[str, Any]], Mapping[str, Any]], model: str = "") -> None:
        self.name = "/tokenize"
        self._post = post
        self._model = {"model": model} if model else {}

    def encode(self, text: str) -> list[int]:
        answer = self._post({**self._model, "prompt": text, "add_special_tokens": True})
        tokens = answer.get("tokens")
        if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
            raise WorkloadError(
                "the server's /tokenize answered without tokens",
                hint="give a tokenizer folder, or send token ids",
            )
        return tokens
