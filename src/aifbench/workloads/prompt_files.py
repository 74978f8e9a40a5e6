"""Prompts from files: ShareGPT's JSON, a JSON array, or a JSON object a line.

An object is a conversation (`conversations` of `from` and `value`, as ShareGPT has them), or has `messages`
(`role` and `content`), `prompt` or `text`; and it may say how long the answer should be (`output_tokens`, or
`max_tokens`).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aifbench.errors import WorkloadError

_FORMS = '{"prompt": ...}, {"messages": [...]}, {"text": ...}, or ShareGPT\'s {"conversations": [...]}'
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant"}
_ROLES |= {"bard": "assistant", "assistant": "assistant", "system": "system"}
_OUTPUT_FIELDS = ("output_tokens", "max_tokens", "max_completion_tokens")

Message = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Turn:
    """What the user says, and what was answered when the file was made (may be empty)."""

    user: str
    answer: str = ""


@dataclass(frozen=True, slots=True)
class FileRow:
    """One entry of a file. Either `text`, or `messages`, or only `turns` (ShareGPT) is there.

    `turns` are the user's of any conversation; `system` is its first message of that role.
    """

    text: str = ""
    messages: tuple[Message, ...] = ()
    system: str = ""
    turns: tuple[Turn, ...] = ()
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class PromptFile:
    """`skipped` counts entries in which no user says anything; `rows` are all others."""

    rows: tuple[FileRow, ...]
    skipped: int


def read_prompts(path: Path) -> PromptFile:
    """Raises WorkloadError naming the file, and the line or entry."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise WorkloadError(f"cannot read the prompts in {path}", hint="give a JSON or JSONL file") from error
    return parse_prompts(text, str(path))


def parse_prompts(text: str, name: str) -> PromptFile:
    rows = []
    skipped = 0
    for where, entry in _entries(text, name):
        row = _row(entry, where)
        if row is None:
            skipped += 1
        else:
            rows.append(row)
    if not rows:
        found = f"none of the {skipped} entries has a user's turn" if skipped else "the file is empty"
        raise WorkloadError(f"no prompts in {name}: {found}", hint=f"give entries such as {_FORMS}")
    return PromptFile(tuple(rows), skipped)


def _entries(text: str, name: str) -> Iterator[tuple[str, Any]]:
    if text.lstrip().startswith("["):
        try:
            entries = json.loads(text)
        except ValueError as error:
            raise WorkloadError(f"{name} is no JSON: {error}", hint="is the file complete?") from None
        yield from ((f"{name}, entry {number}", entry) for number, entry in enumerate(entries, 1))
        return
    # Not splitlines: a JSON string may hold other line separators.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise WorkloadError(
                f"{name}, line {number} is no JSON: {error}",
                hint=f"give a JSON array, or one object on each line, such as {_FORMS}",
            ) from None
        yield f"{name}, line {number}", entry


def _row(entry: Any, where: str) -> FileRow | None:
    """None for an entry without anything that a user says."""
    if not isinstance(entry, dict):
        raise WorkloadError(f"{where} is no JSON object", hint=f"give {_FORMS}")
    output_tokens = _output_tokens(entry, where)
    if "conversations" in entry or "messages" in entry:
        is_sharegpt = "conversations" in entry
        messages = _messages(entry["conversations" if is_sharegpt else "messages"], where)
        turns = _turns(messages)
        if not turns:
            return None
        system = next((each["content"] for each in messages if each["role"] == "system"), "")
        return FileRow("", () if is_sharegpt else messages, system, turns, output_tokens)
    for field in ("prompt", "text"):
        if field in entry:
            text = _text(entry[field], f"{where}: {field}")
            return FileRow(text=text, turns=(Turn(text),), output_tokens=output_tokens) if text else None
    raise WorkloadError(f"{where} has no prompt", hint=f"give {_FORMS}")


def _messages(entries: Any, where: str) -> tuple[Message, ...]:
    """Messages with the roles of the OpenAI dialect; roles that are not known (tools) are left out."""
    if not isinstance(entries, list):
        raise WorkloadError(f"{where}: the messages are no list", hint=f"give {_FORMS}")
    messages = []
    for entry in entries:
        if not isinstance(entry, dict):
            raise WorkloadError(f"{where}: a message is no JSON object", hint=f"give {_FORMS}")
        role = _ROLES.get(str(entry.get("role", entry.get("from"))).lower())
        content = _text(entry.get("content", entry.get("value", "")), f"{where}: a message")
        if role and content:
            messages.append({"role": role, "content": content})
    return tuple(messages)


def _turns(messages: tuple[Message, ...]) -> tuple[Turn, ...]:
    """The user's messages, each with the answer that follows it. What comes before the first is left out."""
    turns: list[Turn] = []
    for message in messages:
        if message["role"] == "user":
            turns.append(Turn(message["content"]))
        elif message["role"] == "assistant" and turns and not turns[-1].answer:
            turns[-1] = Turn(turns[-1].user, message["content"])
    return tuple(turns)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise WorkloadError(f"{where} is no text but {type(value).__name__}", hint=f"give {_FORMS}")
    # Half a surrogate pair is legal in JSON, and cannot be sent.
    return value.encode("utf-8", "replace").decode("utf-8").strip()


def _output_tokens(entry: Mapping[str, Any], where: str) -> int | None:
    for field in _OUTPUT_FIELDS:
        value = entry.get(field)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise WorkloadError(f"{where}: {field} is {value!r}", hint="give a whole number from 1")
        return value
    return None
