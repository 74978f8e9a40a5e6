"""The wire dialect of OpenAI-compatible servers: request bodies, and what streamed and whole answers say.

Everything that another dialect would do differently is here; the workloads above know none of it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from aifbench.errors import WorkloadError
from aifbench.load.workload import Finish

DONE = b"[DONE]"
_FINISHES = {"stop": Finish.STOP, "length": Finish.LENGTH}


@dataclass(slots=True)
class Reading:
    """What a generated answer says.

    `content_ends` says where in the body each piece with content ends; `answer_at` is the number of the first
    one that is not reasoning. Token counts are None where the server does not tell; `first_tokens` is the
    number of tokens in the first piece.
    """

    content_ends: list[int] = field(default_factory=list)
    answer_at: int | None = None
    text: str = ""
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    first_tokens: int | None = None
    finish: Finish = Finish.NONE
    error: str = ""
    is_done: bool = False


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
        """What a stream says, as far as it came. Raises ValueError for an event that is no JSON object."""
        reading = Reading()
        for end, data in events:
            if data == DONE:
                reading.is_done = True
                break
            event = json.loads(data)
            if not isinstance(event, dict):
                raise ValueError(f"an event is {data[:60]!r}, not an object")
            if event.get("error"):
                reading.error = error_text(event["error"])
                break
            self.read_event(reading, event, end)
        return reading

    def read_whole(self, body: bytes) -> Reading:
        """What an answer that was not streamed says; it has no pieces. Raises ValueError."""
        answer = json.loads(body)
        reading = Reading(is_done=True)
        if not isinstance(answer, dict) or answer.get("error"):
            reading.error = error_text(answer.get("error") if isinstance(answer, dict) else answer)
            return reading
        choice: dict[str, Any] = next(iter(answer.get("choices") or ()), {})
        reading.text = self._whole_text(choice)
        reading.finish = _finish(choice)
        _read_usage(reading, answer.get("usage"))
        return reading

    def read_event(self, reading: Reading, event: Mapping[str, Any], end: int = 0) -> None:
        """Add what one event says, which ends there in the body."""
        choice = next(iter(event.get("choices") or ()), None)
        if choice:
            answer, reasoning = self._piece(choice)
            if answer or reasoning:
                if not reading.content_ends:
                    reading.first_tokens = _tokens_so_far(choice, event.get("usage"))
                if answer and reading.answer_at is None:
                    reading.answer_at = len(reading.content_ends)
                reading.content_ends.append(end)
                reading.text += answer
            reading.finish = _finish(choice) or reading.finish
        _read_usage(reading, event.get("usage"))

    def _piece(self, choice: Mapping[str, Any]) -> tuple[str, str]:
        """The answer's text and the reasoning in one streamed choice."""
        raise NotImplementedError

    def _whole_text(self, choice: Mapping[str, Any]) -> str:
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
        # Servers differ in the name; a call of a tool is an answer, too.
        reasoning = delta.get("reasoning") or delta.get("reasoning_content") or ""
        answer = delta.get("content") or ""
        calls = "".join(
            (call.get("function") or {}).get("arguments") or "" for call in delta.get("tool_calls") or ()
        )
        return answer + calls, reasoning

    def _whole_text(self, choice: Mapping[str, Any]) -> str:
        return str((choice.get("message") or {}).get("content") or "")


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

    def _whole_text(self, choice: Mapping[str, Any]) -> str:
        return str(choice.get("text") or "")


DIALECTS: Mapping[str, type[OpenAIDialect]] = {"chat": ChatDialect, "completions": CompletionDialect}


def error_text(error: Any) -> str:
    """What an error object, of whatever shape, says in one line."""
    if isinstance(error, Mapping):
        error = error.get("message") or error
    return " ".join(str(error).split())[:200]


def read_embeddings(body: bytes) -> tuple[int, int]:
    """(vectors, prompt tokens) of an answer of `/v1/embeddings`. Raises ValueError when it is none."""
    answer = json.loads(body)
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list) or not all(isinstance(row, dict) and row.get("embedding") for row in data):
        raise ValueError("the answer holds no embeddings")
    return len(data), int((answer.get("usage") or {}).get("prompt_tokens") or 0)


def _finish(choice: Mapping[str, Any]) -> Finish:
    reason = choice.get("finish_reason")
    return _FINISHES.get(reason, Finish.OTHER) if reason else Finish.NONE


def _tokens_so_far(choice: Mapping[str, Any], usage: Any) -> int | None:
    """Tokens in a piece that is the first one: by its ids, or by a usage that is told along the way."""
    ids = choice.get("token_ids")
    if isinstance(ids, list) and ids:
        return len(ids)
    return (
        int(usage["completion_tokens"])
        if isinstance(usage, Mapping) and usage.get("completion_tokens")
        else None
    )


def _read_usage(reading: Reading, usage: Any) -> None:
    if not isinstance(usage, Mapping):
        return
    if usage.get("prompt_tokens") is not None:
        reading.prompt_tokens = int(usage["prompt_tokens"])
    if usage.get("completion_tokens") is not None:
        reading.output_tokens = int(usage["completion_tokens"])
    details = usage.get("prompt_tokens_details")
    if isinstance(details, Mapping) and details.get("cached_tokens") is not None:
        reading.cached_tokens = int(details["cached_tokens"])
