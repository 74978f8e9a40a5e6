"""The reference server's answers as bytes, and as scripts: what is sent how long after the start.

The wire format is that of vLLM 0.32 behind uvicorn, as captured from one: the head of a stream comes at once,
before there is a token; the role of a chat comes with the first token, as an event of its own; each event is
one HTTP chunk; usage and `[DONE]` follow the last token, which carries the finish reason.
"""

import base64
import enum
import json
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import formatdate
from functools import cache
from http import HTTPStatus
from itertools import accumulate

from aifbench.workloads.reference_plan import Fault, ReferencePlan
from aifbench.workloads.reference_requests import Kind, Refusal, Request

VERSION = "0.32.0"
RETRY_AFTER_S = 1

_FINGERPRINT = f"vllm-{VERSION}-reference"
_DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
_WORD = "token "
# Places for what differs from answer to answer, as wide as what takes them, so that sizes stay the same.
# JSON allows blanks before a number.
_ID = "~~~~~~id~~~~~~~~"
_SENT, _RECEIVED = "~~~sent~~~~~~~~~~~~", "~~~received~~~~~~~~"
_TOTAL, _MADE = "~~total~", "~~made~~"
_STAMP = b"%%%dd" % len(_SENT)


class End(enum.Enum):
    """What follows the last event of a script."""

    KEEP = "keep"
    CLOSE = "close"
    HANG = "hang"


_ENDS: dict[Fault | None, End] = {Fault.CUT: End.CLOSE, Fault.HANG: End.HANG}


@dataclass(frozen=True, slots=True)
class Script:
    """An answer: `head` at once, then `events[i]`, `offsets_ns[i]` after the answer's start.

    With `stamped`, an event is a format for the instant of sending.
    """

    head: bytes
    events: list[bytes]
    offsets_ns: Sequence[int]
    tokens: int
    tokens_per_event: int
    end: End = End.KEEP
    streamed: bool = False
    stamped: bool = False

    def tokens_after(self, events: int) -> int:
        """Tokens in the first `events` events."""
        return min(self.tokens, events * self.tokens_per_event)


@dataclass(frozen=True, slots=True)
class Dialect:
    """What all events of an endpoint have in common."""

    chat: bool
    model: str
    created: int
    stamps: bool


def head(status: int, fields: str) -> bytes:
    """Status line and headers as uvicorn writes them, with vLLM's `vary`."""
    date = formatdate(usegmt=True)
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ndate: {date}\r\nserver: uvicorn\r\n{fields}"
        "vary: Origin\r\n"
    ).encode()


def whole(status: int, body: bytes, *, content_type: str = "application/json", extra: str = "") -> bytes:
    """An answer of known length."""
    kind = f"content-type: {content_type}\r\n" if body else ""
    return head(status, f"{extra}content-length: {len(body)}\r\n{kind}") + b"\r\n" + body


def stream_head() -> bytes:
    return (
        head(200, "content-type: text/event-stream; charset=utf-8\r\n")
        + b"transfer-encoding: chunked\r\n\r\n"
    )


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def json_answer(value: object, status: int = 200, extra: str = "") -> bytes:
    return whole(status, _json(value).encode(), extra=extra)


def error(message: str, kind: str, param: str | None, status: int, extra: str = "") -> bytes:
    return json_answer(_error(message, kind, param, status), status, extra)


def _error(message: str, kind: str, param: str | None, status: int) -> dict[str, object]:
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def refusal(refused: Refusal) -> bytes:
    return error(refused.message, refused.kind, refused.param, refused.status)


def throttled() -> bytes:
    return error("Too many requests", "RateLimitError", None, 429, f"retry-after: {RETRY_AFTER_S}\r\n")


def failed() -> bytes:
    return error("Internal server error", "InternalServerError", None, 500)


def _usage(prompt_tokens: int, output_tokens: int) -> dict[str, object]:
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + output_tokens,
        "completion_tokens": output_tokens,
    }


def _chunk(text: str) -> bytes:
    data = f"data: {text}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


def _opening(dialect: Dialect) -> str:
    prefix, kind = ("chatcmpl", "chat.completion.chunk") if dialect.chat else ("cmpl", "text_completion")
    return (
        f'{{"id":"{prefix}-{_ID}","object":"{kind}","created":{dialect.created},'
        f'"model":{_json(dialect.model)},"choices":'
    )


def _usage_place(prompt_tokens: int) -> str:
    return (
        f',"usage":{{"prompt_tokens":{prompt_tokens},"total_tokens":{_TOTAL},"completion_tokens":{_MADE},'
        '"completion_tokens_details":null}'
    )


@cache
def role_event(dialect: Dialect, prompt_tokens: int | None = None) -> bytes:
    """The first event of a chat; with usage when told the prompt's tokens."""
    usage = (
        _usage_place(prompt_tokens).replace(_TOTAL, str(prompt_tokens)) if prompt_tokens is not None else ""
    )
    return _chunk(
        _opening(dialect)
        + '[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]'
        + usage.replace(_MADE, "0")
        + ',"prompt_token_ids":null,"prompt_text":null}'
    )


@cache
def token_event(
    dialect: Dialect,
    words: int,
    finish: str | None = None,
    *,
    fingerprint: bool = False,
    first: bool = False,
    usage_of: int | None = None,
) -> bytes:
    """An event with `words` words of text, with places for what `_fill` knows.

    `fingerprint` is for the last event of a stream without usage.
    """
    text, reason = _WORD * words, _json(finish)
    if dialect.chat:
        stop = ',"stop_reason":null' if finish else ""
        choice = (
            f'[{{"index":0,"delta":{{"content":"{text}"}},"logprobs":null,"finish_reason":{reason}{stop},'
            '"token_ids":null}]'
        )
    else:
        choice = (
            f'[{{"index":0,"text":"{text}","logprobs":null,"finish_reason":{reason},"stop_reason":null,'
            '"prompt_token_ids":null,"token_ids":null}]'
        )
    usage = _usage_place(usage_of) if usage_of is not None else ""
    mark = f',"system_fingerprint":"{_FINGERPRINT}"' if fingerprint else ""
    return _chunk(f"{_opening(dialect)}{choice}{usage}{mark}{_stamps(dialect, first=first)}}}")


def _stamps(dialect: Dialect, *, first: bool) -> str:
    if not dialect.stamps:
        return ""
    received = f',"aifbench_received_ns":{_RECEIVED}' if first else ""
    return f',"aifbench_sent_ns":{_SENT}{received}'


def usage_event(dialect: Dialect, prompt_tokens: int, output_tokens: int) -> bytes:
    usage = _json(_usage(prompt_tokens, output_tokens))
    return _chunk(f'{_opening(dialect)}[],"usage":{usage},"system_fingerprint":"{_FINGERPRINT}"}}')


def error_event() -> bytes:
    return _chunk(_json(_error("EngineCore encountered an issue.", "InternalServerError", None, 500)))


class Author:
    """Writes the script of each request of a plan. `created_s` is the time that all answers claim."""

    def __init__(self, plan: ReferencePlan, created_s: int) -> None:
        self._plan = plan
        self._dialects = {
            kind: Dialect(kind is Kind.CHAT, plan.model, created_s, plan.stamps)
            for kind in (Kind.CHAT, Kind.COMPLETION)
        }
        self._ttft_ns = round(plan.ttft_s * 1e9)
        self._itl_ns = round(plan.itl_s * 1e9)
        self._random = random.Random(plan.seed)

    def models(self) -> object:
        created = self._dialects[Kind.CHAT].created
        card = {
            "id": self._plan.model,
            "object": "model",
            "created": created,
            "owned_by": "vllm",
            "root": self._plan.model,
            "parent": None,
            "max_model_len": self._plan.max_model_len,
        }
        return {"object": "list", "data": [card]}

    def script(self, request: Request, number: int, fault: Fault | None, received_ns: int) -> Script:
        """Of a request that is answered with 200, in full or in part."""
        output_tokens = request.output_tokens
        if fault is Fault.WRONG_LENGTH:
            output_tokens = (output_tokens + 1) // 2
        finish = "length" if output_tokens == request.output_tokens else "stop"
        if request.stream:
            return self._stream(request, number, fault, received_ns, output_tokens, finish)
        return self._single(request, number, fault, output_tokens, finish)

    def _single(
        self, request: Request, number: int, fault: Fault | None, output_tokens: int, finish: str
    ) -> Script:
        """An answer in one piece, when its last token would have been sent."""
        due_ns = self._ttft_ns + max(0, output_tokens - 1) * self._itl_ns
        if request.kind is Kind.EMBEDDING:
            answer = json_answer(self._embeddings(request, number))
        else:
            answer = json_answer(self._completion(request, number, output_tokens, finish))
        end = _ENDS.get(fault, End.KEEP)
        if end is not End.KEEP:
            answer = answer[: len(answer) // 2]
        return Script(b"", [answer], [due_ns], output_tokens, output_tokens, end)

    def _stream(
        self,
        request: Request,
        number: int,
        fault: Fault | None,
        received_ns: int,
        output_tokens: int,
        finish: str,
    ) -> Script:
        per_event = self._plan.tokens_per_chunk
        if fault in (Fault.CUT, Fault.HANG, Fault.EVENT_ERROR):
            output_tokens = max(1, output_tokens // per_event // 2) * per_event
            finish = ""
        events = self._events(request, fault, output_tokens, finish)
        role = self._role(request)
        start = stream_head()
        if self._plan.role_first:
            start += _named(role, number)
        else:
            events[0] = role + events[0]
        if finish and request.usage:
            events[-1] += usage_event(self._dialects[request.kind], request.prompt_tokens, output_tokens)
        if fault is Fault.EVENT_ERROR:
            events[-1] += error_event()
        if finish or fault is Fault.EVENT_ERROR:
            events[-1] += _DONE
        final = {event: self._final(event, number, received_ns) for event in set(events)}
        return Script(
            start,
            [final[event] for event in events],
            self._offsets_ns(output_tokens),
            output_tokens,
            per_event,
            _ENDS.get(fault, End.KEEP),
            streamed=True,
            stamped=self._plan.stamps,
        )

    def _role(self, request: Request) -> bytes:
        if request.kind is not Kind.CHAT:
            return b""
        return role_event(self._dialects[Kind.CHAT], request.prompt_tokens if request.usage_always else None)

    def _events(self, request: Request, fault: Fault | None, output_tokens: int, finish: str) -> list[bytes]:
        """The tokens' events, one or more tokens each."""
        dialect = self._dialects[request.kind]
        prompt_tokens = request.prompt_tokens if request.usage_always else None
        words = _words(output_tokens, self._plan.tokens_per_chunk, held_back=fault is Fault.EMPTY_DELTA)
        kinds = {each: token_event(dialect, each, usage_of=prompt_tokens) for each in set(words)}
        events = [kinds[each] for each in words]
        events[0] = token_event(dialect, words[0], first=True, usage_of=prompt_tokens)
        if finish:
            first, fingerprint = len(words) == 1, not request.usage
            events[-1] = token_event(
                dialect, words[-1], finish, fingerprint=fingerprint, first=first, usage_of=prompt_tokens
            )
        if prompt_tokens is not None:
            made = accumulate(tokens_per_event(output_tokens, self._plan.tokens_per_chunk))
            events = [_counted(event, prompt_tokens, done) for event, done in zip(events, made, strict=True)]
        return events

    def _final(self, event: bytes, number: int, received_ns: int) -> bytes:
        event = _named(event, number)
        if not self._plan.stamps:
            return event
        received = b"%*d" % (len(_RECEIVED), received_ns)
        return (
            event.replace(b"%", b"%%").replace(_SENT.encode(), _STAMP).replace(_RECEIVED.encode(), received)
        )

    def _offsets_ns(self, output_tokens: int) -> Sequence[int]:
        offsets_ns = _exact_offsets_ns(
            self._ttft_ns, self._itl_ns, output_tokens, self._plan.tokens_per_chunk
        )
        if not self._plan.jitter:
            return offsets_ns
        half_ns = self._plan.jitter * self._itl_ns / 2
        uniform = self._random.uniform
        return [offsets_ns[0], *(due_ns + round(uniform(-half_ns, half_ns)) for due_ns in offsets_ns[1:])]

    def _completion(self, request: Request, number: int, output_tokens: int, finish: str) -> object:
        text = (_WORD * output_tokens).rstrip()
        chat = request.kind is Kind.CHAT
        message = {
            "role": "assistant",
            "content": text,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "reasoning": None,
        }
        choice = {
            "index": 0,
            **({"message": message} if chat else {"text": text}),
            "logprobs": None,
            "finish_reason": finish,
            "stop_reason": None,
            "token_ids": None,
        }
        return {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{number:016x}",
            "object": "chat.completion" if chat else "text_completion",
            "created": self._dialects[request.kind].created,
            "model": self._plan.model,
            "choices": [choice],
            "service_tier": None,
            "system_fingerprint": _FINGERPRINT,
            "usage": {
                **_usage(request.prompt_tokens, output_tokens),
                "prompt_tokens_details": None,
                "completion_tokens_details": None,
            },
        }

    def _embeddings(self, request: Request, number: int) -> object:
        """Unit vectors, all alike."""
        size = self._plan.dimensions
        vector = [1 / size**0.5] * size
        shown = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode() if request.base64 else vector
        return {
            "id": f"embd-{number:016x}",
            "object": "list",
            "created": self._dialects[Kind.CHAT].created,
            "model": self._plan.model,
            "data": [
                {"index": index, "object": "embedding", "embedding": shown} for index in range(request.inputs)
            ],
            "usage": {**_usage(request.prompt_tokens, 0), "prompt_tokens_details": None},
        }


def _named(event: bytes, number: int) -> bytes:
    return event.replace(_ID.encode(), b"%016x" % number)


def _counted(event: bytes, prompt_tokens: int, made: int) -> bytes:
    total = b"%*d" % (len(_TOTAL), prompt_tokens + made)
    return event.replace(_TOTAL.encode(), total).replace(_MADE.encode(), b"%*d" % (len(_MADE), made))


def tokens_per_event(output_tokens: int, per_event: int) -> list[int]:
    """`per_event` each, and what is left in the last."""
    full, rest = divmod(output_tokens, per_event)
    return [per_event] * full + ([rest] if rest else [])


def _words(output_tokens: int, per_event: int, *, held_back: bool) -> list[int]:
    """Words in each event; with `held_back`, those of every second event come one event later."""
    words = tokens_per_event(output_tokens, per_event)
    if held_back:
        for index in range(1, len(words) - 1, 2):
            words[index + 1] += words[index]
            words[index] = 0
    return words


@cache
def _exact_offsets_ns(ttft_ns: int, itl_ns: int, output_tokens: int, per_event: int) -> tuple[int, ...]:
    made = list(accumulate(tokens_per_event(output_tokens, per_event)))
    return tuple(ttft_ns + itl_ns * (done - made[0]) for done in made)
