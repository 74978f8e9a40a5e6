"""The wire dialect of OpenAI-compatible servers: request bodies, and what streamed answers say.

Everything that another dialect would do differently is here; the workloads above know none of it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar

from aifbench.errors import WorkloadError
from aifbench.load.workload import Finish

DONE = b"[DONE]"
_decode = json.JSONDecoder().raw_decode
_FINISHES = {"stop": Finish.STOP, "length": Finish.LENGTH}


@dataclass(slots=True)
class Reading:
    """What a generated answer says.

    `content_ends` says where in the body each piece with content ends; `answer_at` is the number of the first
    one that is not reasoning. Token counts are None where the server does not tell; `first_tokens` is the
    number of tokens in the first piece. `error` is what the server says instead, `fault` what cannot be read.
    """

    content_ends: list[int] = field(default_factory=list)
    answer_at: int | None = None
    texts: list[str] = field(default_factory=list)
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    first_tokens: int | None = None
    finish: Finish = Finish.NONE
    error: str = ""
    fault: str = ""
    is_done: bool = False

    @property
    def text(self) -> str:
        """All of the answer but the reasoning."""
        return "".join(self.texts)


class OpenAIDialect:
    """Generation by chat or plain completions; `path` follows the endpoint's prefix."""

    path: ClassVar[str]

    def __init__(self, model: str, extra: Mapping[str, Any] | None = None) -> None:
        fields = {
            "model": model,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **(extra or {}),  # None takes a field out
        }
        self._fixed = {name: value for name, value in fields.items() if value is not None}

    def body(self, prompt: Mapping[str, Any], output_tokens: int | None, more: Mapping[str, Any]) -> bytes:
        """The request's JSON; `prompt` is what `text_prompt` and its like return."""
        limit = {} if output_tokens is None else {"max_tokens": output_tokens}
        return json.dumps({**self._fixed, **prompt, **limit, **more}, separators=(",", ":")).encode()

    def text_prompt(self, text: str) -> dict[str, Any]:
        raise NotImplementedError

    def message_prompt(self, messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        raise NotImplementedError

    def ids_prompt(self, ids: Sequence[int]) -> dict[str, Any]:
        raise NotImplementedError

    def read_stream(self, events: Iterable[tuple[int, bytes]]) -> Reading:
        """What a stream says, as far as it came and can be read."""
        reading = Reading()
        for end, data in events:
            if data == DONE:
                reading.is_done = True
                break
            if not data:
                continue
            try:
                event = _decoded(data)
                if event.get("error"):
                    reading.error = error_text(event["error"])
                    break
                self.read_event(reading, event, end)
            except (ValueError, TypeError, AttributeError, LookupError):
                reading.fault = f"an event that cannot be read: {data[:60]!r}"
                break
        return reading

    def read_event(self, reading: Reading, event: Mapping[str, Any], end: int = 0) -> None:
        """Add what one event says, which ends there in the body."""
        choices, usage = event.get("choices"), event.get("usage")
        if choices:
            choice = choices[0]
            answer, reasoning = self._piece(choice)
            if answer or reasoning:
                if not reading.content_ends:
                    reading.first_tokens = _tokens_so_far(choice, usage)
                if answer:
                    if reading.answer_at is None:
                        reading.answer_at = len(reading.content_ends)
                    reading.texts.append(answer)
                reading.content_ends.append(end)
            if reason := choice.get("finish_reason"):
                reading.finish = _FINISHES.get(reason, Finish.OTHER)
        if usage:
            _read_usage(reading, usage)

    def _piece(self, choice: Mapping[str, Any]) -> tuple[str, str]:
        """The answer's text and, where there is none, the reasoning in one streamed choice."""
        raise NotImplementedError


class ChatDialect(OpenAIDialect):
    """`/v1/chat/completions`."""

    path: ClassVar[str] = "/v1/chat/completions"

    def text_prompt(self, text: str) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": text}]}

    def message_prompt(self, messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        return {"messages": list(messages)}

    def ids_prompt(self, ids: Sequence[int]) -> dict[str, Any]:  # noqa: ARG002
        raise WorkloadError("chat takes no token ids", hint="use --api completions with --prompts ids")

    def _piece(self, choice: Mapping[str, Any]) -> tuple[str, str]:
        delta = choice.get("delta") or {}
        answer = delta.get("content") or ""
        if calls := delta.get("tool_calls"):  # an answer, too
            answer += "".join(map(_call_text, calls))
        if answer:
            return answer, ""
        return "", delta.get("reasoning") or delta.get("reasoning_content") or ""  # servers differ


class CompletionDialect(OpenAIDialect):
    """`/v1/completions`: a plain prompt, as text or as token ids."""

    path: ClassVar[str] = "/v1/completions"

    def text_prompt(self, text: str) -> dict[str, Any]:
        return {"prompt": text}

    def message_prompt(self, messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        return {"prompt": "\n".join(f"{message['role']}: {message['content']}" for message in messages)}

    def ids_prompt(self, ids: Sequence[int]) -> dict[str, Any]:
        return {"prompt": list(ids)}

    def _piece(self, choice: Mapping[str, Any]) -> tuple[str, str]:
        return choice.get("text") or "", ""


DIALECTS: Mapping[str, type[OpenAIDialect]] = {"chat": ChatDialect, "completions": CompletionDialect}


def error_text(error: Any) -> str:
    """What an error object, of whatever shape, says in one line."""
    if isinstance(error, Mapping):
        error = error.get("message") or error
    return " ".join(str(error).split())[:200]


def read_embeddings(body: bytes) -> tuple[int, int]:
    """(vectors, prompt tokens) of an answer of `/v1/embeddings`. Raises ValueError when it is none."""
    answer, data = _embeddings(body)
    return len(data), int((answer.get("usage") or {}).get("prompt_tokens") or 0)


def read_vectors(body: bytes) -> list[list[float]]:
    """The vectors of such an answer, in the order of the texts. Raises ValueError when it is none."""
    _, data = _embeddings(body)
    return [row["embedding"] for row in sorted(data, key=lambda row: row.get("index", 0))]


def _embeddings(body: bytes) -> tuple[Mapping[str, Any], list[Any]]:
    answer = json.loads(body)
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list) or not all(isinstance(row, dict) and row.get("embedding") for row in data):
        raise ValueError("the answer holds no embeddings")
    return answer, data


def _decoded(data: bytes) -> Any:
    """The JSON value; faster than `json.loads` for text that holds it and nothing else."""
    text = str(data, "utf-8")
    with suppress(ValueError):
        value, end = _decode(text)
        if end == len(text):
            return value
    return json.loads(text)


def _call_text(call: Mapping[str, Any]) -> str:
    function = call.get("function") or {}
    return (function.get("name") or "") + (function.get("arguments") or "")


def _tokens_so_far(choice: Mapping[str, Any], usage: Any) -> int | None:
    """Tokens in a piece that is the first one: by its ids, or by a usage that is told along the way."""
    ids = choice.get("token_ids")
    if isinstance(ids, list) and ids:
        return len(ids)
    return (_count(usage, "completion_tokens") or None) if usage else None


def _read_usage(reading: Reading, usage: Any) -> None:
    prompt_tokens, output_tokens = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if prompt_tokens is not None:
        reading.prompt_tokens = prompt_tokens
    if output_tokens is not None:
        reading.output_tokens = output_tokens
    if details := usage.get("prompt_tokens_details"):
        reading.cached_tokens = _count(details, "cached_tokens")


def _count(counts: Any, name: str) -> int | None:
    """A number of tokens; None for what cannot be one."""
    value = counts.get(name)
    return value if type(value) is int and 0 <= value < 2**32 else None
