"""Where prompts come from: what is asked for, its preparation by the coordinator, and its use by workers.

The coordinator calls `prepare` on a directory that all workers see; each worker then opens what it wrote with
`load_source`.
"""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aifbench.errors import UsageError, WorkloadError
from aifbench.workloads import token_words
from aifbench.workloads.conversations import ConversationSource, FileConversations, SyntheticConversations
from aifbench.workloads.draws import key_of
from aifbench.workloads.lengths import Lengths
from aifbench.workloads.prompt_files import FileRow, read_prompts
from aifbench.workloads.prompt_sources import (
    FileSource,
    IdMaker,
    Maker,
    Prompt,
    PromptSource,
    RepeatSource,
    RowFile,
    Sizes,
    SyntheticSource,
    Tag,
    WordMaker,
    summary,
    write_rows,
)
from aifbench.workloads.tokenizer import FolderTokenizer, ServerTokenizer, Tokenizer

__all__ = [
    "ConversationSource",
    "FolderTokenizer",
    "Prompt",
    "PromptSource",
    "PromptSpec",
    "ServerTokenizer",
    "Tokenizer",
    "load_source",
    "prepare",
]

SCHEMA = "aifbench.prompts/1"
KINDS = ("synthetic", "repeat", "file", "prefix", "conversation")
HOWS = ("words", "ids")


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """What to ask. Lengths are texts as `Lengths.parse` takes them.

    kind          synthetic     random prompts without end
                  prefix        the same behind one of `prefixes` shared beginnings of `prefix_tokens`
                  repeat        `text`, or one random prompt, again and again
                  file          the entries of `path`; of ShareGPT's conversations the first question
                  conversation  `turns` turns, random, or (0: all) those of the entries of `path`; random ones
                                behind a system text of `prefix_tokens`, one of `prefixes`, or (0) its own
    output_tokens empty means as the file says; where none does, the model decides.
    seed          decides lengths and choices, `salt` and `seed` the words. Give each run its own salt.
    limit         a random part of a longer file, in its order; None means all.
    is_unique     puts a few random words before each entry of a file: no cache knows its beginning.
    how           words, or ids: token ids, exact without a tokenizer once `vocabulary` is known.
    tokenizer     a folder; used by `prepare` where no other tokenizer is passed.
    """

    kind: str = "synthetic"
    input_tokens: str = "512"
    output_tokens: str = ""
    seed: int = 1
    salt: str = ""
    path: str = ""
    limit: int | None = 5000
    is_unique: bool = True
    text: str = ""
    prefixes: int = 0
    prefix_tokens: int = 0
    turns: int = 3
    how: str = "words"
    vocabulary: int | None = None
    tokenizer: str = ""

    def __post_init__(self) -> None:
        _one_of("the kind of prompts", self.kind, KINDS)
        _one_of("how prompts are sent", self.how, HOWS)
        for name, minimum in (("seed", 0), ("limit", 1), ("prefixes", 0), ("prefix_tokens", 0), ("turns", 0)):
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise UsageError(f"{name} of the prompts is {value}", hint=f"give {minimum} or more")
        if self.vocabulary is not None and self.vocabulary < 16:
            raise UsageError(f"the vocabulary is {self.vocabulary}", hint="give the model's vocab_size")
        self._check_kind()

    def _check_kind(self) -> None:
        if self.kind == "file" and not self.path:
            raise UsageError("no file of prompts is named", hint="give the path of a JSON or JSONL file")
        if self.path and self.kind not in ("file", "conversation"):
            raise UsageError(f"{self.kind} prompts do not come from a file", hint="use the kind file")
        if self.text and self.kind != "repeat":
            raise UsageError(f"{self.kind} prompts take no text", hint="use the kind repeat")
        if self.kind == "prefix" and not (self.prefixes and self.prefix_tokens):
            raise UsageError(
                f"{self.prefixes} shared prefixes of {self.prefix_tokens} tokens", hint="give both, from 1"
            )
        if (self.prefixes or self.prefix_tokens) and (
            self.path or self.kind not in ("prefix", "conversation")
        ):
            raise UsageError(
                f"{self.prefixes} shared prefixes of {self.prefix_tokens} tokens for {self.kind} prompts",
                hint="use the kind prefix, or random conversations",
            )
        if self.kind == "conversation" and not self.path and not self.turns:
            raise UsageError("random conversations of 0 turns", hint="give 1 or more")
        if self.how == "ids" and (self.path or self.text or self.kind == "conversation"):
            raise UsageError("only random prompts can be sent as token ids", hint="send words")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "PromptSpec":
        """The inverse of `to_json`. Raises WorkloadError for what is no such thing."""
        try:
            return cls(**data)
        except TypeError as error:
            raise WorkloadError("cannot use the description of the prompts") from error


def prepare(spec: PromptSpec, folder: Path, tokenizer: Tokenizer | None = None) -> Path:
    """Check everything and write what workers need; returns the path for `load_source`. May take seconds.

    Raises UsageError, WorkloadError (a file that cannot be used), or ConfigError (no tokenizer).
    """
    header: dict[str, Any] = {"schema": SCHEMA, "spec": spec.to_json()}
    header["input"] = Lengths.parse(spec.input_tokens, "--input-tokens", "input").to_json()
    if spec.output_tokens:
        header["output"] = Lengths.parse(spec.output_tokens, "--output-tokens", "output").to_json()
    if tokenizer is None and spec.tokenizer:
        tokenizer = FolderTokenizer(Path(spec.tokenizer))
    digest = hashlib.sha256(json.dumps(header).encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    if spec.path:
        header |= _prepare_file(spec, folder / f"prompts-{digest}.rows", tokenizer)
    elif spec.text:
        header["about"] = {"tokenizer": tokenizer.name if tokenizer else ""}
        header["text_tokens"] = len(tokenizer.encode(spec.text)) if tokenizer else None
    else:
        header |= _prepare_random(spec, tokenizer)
    path = folder / f"prompts-{digest}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(header), encoding="utf-8")
    partial.replace(path)
    return path


def _prepare_random(spec: PromptSpec, tokenizer: Tokenizer | None) -> dict[str, Any]:
    name = tokenizer.name if tokenizer else ""
    if spec.how == "ids":
        vocabulary = spec.vocabulary or (tokenizer and tokenizer.vocabulary)
        if not vocabulary and tokenizer:
            vocabulary = token_words.vocabulary_seen(tokenizer)
        if not vocabulary:
            raise UsageError(
                "token ids need the size of the vocabulary", hint="give it, or a tokenizer folder"
            )
        return {"ids": token_words.safe_ids(vocabulary), "about": {"vocabulary": vocabulary}}
    words = (
        token_words.find_words(tokenizer, spec.seed)
        if tokenizer
        else token_words.unverified_words("length approximate: no tokenizer to count with")
    )
    return {"words": words.to_json(), "about": {"tokenizer": name}}


def _prepare_file(spec: PromptSpec, rows_path: Path, tokenizer: Tokenizer | None) -> dict[str, Any]:
    path = Path(spec.path)
    found = read_prompts(path)
    chosen = _sample(found.rows, spec.limit, spec.seed)
    by_turn = spec.kind == "conversation"
    rows = [_conversation_row(row, tokenizer) if by_turn else _prompt_row(row, tokenizer) for row in chosen]
    partial = rows_path.with_suffix(".partial-rows")
    offsets = write_rows(partial, rows)
    partial.replace(rows_path)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    about: dict[str, Any] = {"file": path.name, "sha256": sha256, "prompts": len(rows)}
    about |= {"in_file": len(found.rows), "skipped": found.skipped}
    about["tokenizer"] = tokenizer.name if tokenizer else ""
    counts = [row["input"] for row in rows if row.get("input")]
    if counts:
        about["input"] = summary(counts)
    return {"rows": rows_path.name, "offsets": offsets, "about": about}


def _sample(rows: Sequence[FileRow], limit: int | None, seed: int) -> Sequence[FileRow]:
    if limit is None or len(rows) <= limit:
        return rows
    return [rows[place] for place in sorted(random.Random(seed).sample(range(len(rows)), limit))]


def _prompt_row(row: FileRow, tokenizer: Tokenizer | None) -> dict[str, Any]:
    text = "" if row.messages else row.text or row.turns[0].user
    counted = _count(text, tokenizer) if text else None
    output = row.output_tokens
    if output is None and not row.messages:
        output = _count_answer(row.turns[0].answer, tokenizer)
    return {"text": text, "messages": row.messages, "input": counted, "output": output}


def _conversation_row(row: FileRow, tokenizer: Tokenizer | None) -> dict[str, Any]:
    turns = [
        (turn.user, _count(turn.user, tokenizer), row.output_tokens or _count_answer(turn.answer, tokenizer))
        for turn in row.turns
    ]
    return {"system": row.system, "turns": turns, "input": turns[0][1]}


def _count(text: str, tokenizer: Tokenizer | None) -> int | None:
    return len(tokenizer.encode(text)) if tokenizer else None


def _count_answer(text: str, tokenizer: Tokenizer | None) -> int | None:
    """What a model would have had to generate for it: without what the tokenizer adds to a prompt."""
    if not text or tokenizer is None:
        return None
    return max(1, len(tokenizer.encode(text)) - len(tokenizer.encode("")))


def load_source(path: Path, *, salt: str = "") -> PromptSource:
    """Open what `prepare` wrote. `salt` tells the phases and levels of a run apart: no two share words.

    A source of conversations is a ConversationSource. Raises WorkloadError.
    """
    try:
        header: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if header["schema"] != SCHEMA:
            raise WorkloadError(f"{path} was prepared by another version", hint="remove it")
        return _source(header, path.parent, salt)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkloadError(f"cannot use the prepared prompts in {path}") from error


def _source(header: Mapping[str, Any], folder: Path, salt: str) -> PromptSource:
    spec = PromptSpec.from_json(header["spec"])
    output = Lengths.from_json(header["output"]) if "output" in header else None
    sizes = Sizes(Lengths.from_json(header["input"]), output, spec.seed)
    salts = (spec.salt, salt)
    if spec.path:
        rows = RowFile(folder / header["rows"], header["offsets"])
        tag = Tag(spec.seed, salts) if spec.is_unique else None
        if spec.kind == "conversation":
            return FileConversations(rows, sizes, tag, spec.turns, header["about"])
        return FileSource(rows, sizes, tag, header["about"])
    if spec.text:
        return RepeatSource(
            Prompt(text=spec.text, prompt_tokens=header["text_tokens"]), sizes, header["about"]
        )
    if spec.kind == "conversation":
        return SyntheticConversations(
            _word_maker(header), sizes, salts, spec.turns, spec.prefixes, spec.prefix_tokens
        )
    maker: Maker = IdMaker(*header["ids"]) if spec.how == "ids" else _word_maker(header)
    if spec.kind == "repeat":
        prompt = maker.make(key_of(spec.seed, "repeat", *salts), 0, sizes.input_tokens(0))
        return RepeatSource(prompt, sizes, maker.describe() | header["about"])
    prefixes = spec.prefixes if spec.kind == "prefix" else 0
    return SyntheticSource(maker, sizes, salts, prefixes, spec.prefix_tokens)


def _word_maker(header: Mapping[str, Any]) -> WordMaker:
    return WordMaker(token_words.WordList.from_json(header["words"]))


def _one_of(what: str, value: str, valid: Sequence[str]) -> None:
    if value not in valid:
        raise UsageError(f"{what} is {value!r}", hint=f"valid: {', '.join(valid)}")
