"""Reading of the reference server's requests: from bytes to what is asked, or to vLLM's refusal.

Tokens are words: a text has as many as it has words between blanks, a list of token ids one for each.
"""

import enum
import json
from dataclasses import dataclass
from typing import Any

# What a chat template adds to the words of the messages.
TEMPLATE_TOKENS = 8


class Kind(enum.Enum):
    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"


class Refusal(Exception):
    """A request that vLLM answers with an error."""

    def __init__(self, message: str, param: str, *, status: int = 400, kind: str = "BadRequestError") -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.status = status
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Request:
    """What one request asks for."""

    kind: Kind
    prompt_tokens: int
    output_tokens: int = 0
    stream: bool = False
    usage: bool = False  # at the end of a stream
    usage_always: bool = False  # in every event
    inputs: int = 1  # texts to embed
    base64: bool = False  # of the embeddings


@dataclass(frozen=True, slots=True)
class HttpRequest:
    method: bytes
    path: bytes
    body: bytes
    authorization: bytes
    close: bool


def split_request(data: bytes) -> tuple[HttpRequest, bytes] | None:
    """The first request of `data` and what follows it; None as long as it is not complete. Raises Refusal."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    first, *lines = data[:end].split(b"\r\n")
    fields = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)
    }
    words = first.split(b" ")
    length = fields.get(b"content-length", b"0")
    if len(words) != 3 or not length.isdigit() or b"transfer-encoding" in fields:
        raise Refusal("Invalid HTTP request received.", "request")
    begin = end + 4
    if len(data) < begin + int(length):
        return None
    request = HttpRequest(
        words[0],
        words[1].partition(b"?")[0],
        data[begin : begin + int(length)],
        fields.get(b"authorization", b""),
        fields.get(b"connection", b"").lower() == b"close",
    )
    return request, data[begin + int(length) :]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request is held against."""

    model: str
    max_model_len: int
    default_output_tokens: int


def read_request(kind: Kind, body: bytes, limits: Limits) -> Request:
    """Raises Refusal."""
    asked = _object(body)
    _check_model(asked, limits.model)
    if kind is Kind.EMBEDDING:
        return _embedding(asked, limits)
    options = asked.get("stream_options") or {}
    stream = bool(asked.get("stream"))
    if options and not stream:
        raise _wrong("Stream options can only be defined when `stream=True`.", "stream_options")
    if asked.get("n", 1) not in (None, 1):
        raise _wrong(f"n must be 1 at this server, got {asked['n']}.", "n")
    prompt_tokens = _chat_tokens(asked) if kind is Kind.CHAT else _prompt_tokens(asked)
    usage = bool(options.get("include_usage"))
    return Request(
        kind,
        prompt_tokens,
        _output_tokens(asked, prompt_tokens, limits),
        stream,
        usage,
        usage and bool(options.get("continuous_usage_stats")),
    )


def count_tokens(body: bytes, model: str) -> int:
    """For /tokenize: of a prompt, or of messages with the template. Raises Refusal."""
    asked = _object(body)
    _check_model(asked, model)
    return _chat_tokens(asked) if "messages" in asked else _prompt_tokens(asked)


def _object(body: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(body)
    except ValueError as error:
        raise Refusal(
            f"1 validation error:\n  JSON decode error: {error}", "body", kind="Bad Request"
        ) from None
    if not isinstance(asked, dict):
        raise Refusal("1 validation error:\n  the body is no object", "body", kind="Bad Request")
    return asked


def _wrong(message: str, param: str) -> Refusal:
    return Refusal(f"{message} (parameter={param})", param)


def _check_model(asked: dict[str, Any], model: str) -> None:
    if asked.get("model") not in (None, "", model):
        raise Refusal(
            f"The model `{asked['model']}` does not exist. Valid aliases: {model}.",
            "model",
            status=404,
            kind="NotFoundError",
        )


def _missing(name: str) -> Refusal:
    return Refusal(f"1 validation error:\n  body.{name}: Field required", f"body.{name}", kind="Bad Request")


def _chat_tokens(asked: dict[str, Any]) -> int:
    messages = asked.get("messages")
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        raise _missing("messages")
    return TEMPLATE_TOKENS + sum(_content_tokens(message.get("content")) for message in messages)


def _content_tokens(content: object) -> int:
    if isinstance(content, str):
        return len(content.split())
    if isinstance(content, list):  # parts, of which only the texts count
        return sum(len(str(part.get("text", "")).split()) for part in content if isinstance(part, dict))
    return 0


def _prompt_tokens(asked: dict[str, Any]) -> int:
    if "prompt" not in asked:
        raise _missing("prompt")
    texts = _texts(asked["prompt"], "prompt")
    if len(texts) != 1:
        raise _wrong("One prompt a request is answered at this server.", "prompt")
    return texts[0]


def _texts(given: object, param: str) -> list[int]:
    """The tokens of each text of a text, of token ids, or of a list of either."""
    if isinstance(given, str):
        return [len(given.split())]
    if isinstance(given, list) and given:
        if all(isinstance(each, int) for each in given):
            return [len(given)]
        if all(isinstance(each, str) for each in given):
            return [len(each.split()) for each in given]
        if all(isinstance(each, list) for each in given):
            return [len(each) for each in given]
    raise _wrong("A text, token ids, or a list of either is needed.", param)


def _embedding(asked: dict[str, Any], limits: Limits) -> Request:
    if "input" not in asked:
        raise _missing("input")
    tokens = _texts(asked["input"], "input")
    _check_length(max(tokens), limits)
    return Request(
        Kind.EMBEDDING, sum(tokens), inputs=len(tokens), base64=asked.get("encoding_format") == "base64"
    )


def _check_length(prompt_tokens: int, limits: Limits) -> None:
    if prompt_tokens > limits.max_model_len:
        raise Refusal(
            f"This model's maximum context length is {limits.max_model_len} tokens. However, your prompt "
            f"contains {prompt_tokens} input tokens, which exceeds this limit even without any output "
            "tokens. Please reduce the length of the input prompt. "
            f"(parameter=input_tokens, value={prompt_tokens})",
            "input_tokens",
        )


def _output_tokens(asked: dict[str, Any], prompt_tokens: int, limits: Limits) -> int:
    _check_length(prompt_tokens, limits)
    wanted = asked.get("max_completion_tokens")
    wanted = asked.get("max_tokens") if wanted is None else wanted
    wanted = limits.default_output_tokens if wanted is None else wanted
    if not isinstance(wanted, int):
        raise _wrong(f"max_tokens must be a number, got {wanted!r}.", "max_tokens")
    if wanted > limits.max_model_len:
        raise Refusal(
            f"max_tokens={wanted} cannot be greater than max_model_len={limits.max_model_len}. "
            f"Please request fewer output tokens. (parameter=max_tokens, value={wanted})",
            "max_tokens",
        )
    possible = min(wanted, limits.max_model_len - prompt_tokens)
    if possible < 1:
        raise Refusal(
            f"max_tokens must be at least 1, got {possible}. (parameter=max_tokens, value={possible})",
            "max_tokens",
        )
    return possible
