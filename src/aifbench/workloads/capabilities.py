"""What an OpenAI-compatible server offers, asked once by tiny requests and kept with the run.

Servers differ in more than speed: some send no usage in streams, refuse fields they do not know, or take
the fields for structured output and ignore them. A field that is accepted is therefore not believed:
wherever an answer can show that it was honoured, the answer decides.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, TypeVar

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import NotReady, ServiceError
from aifbench.workloads.openai_control import API_ROOT, Answer, Model, OpenAIControl

PROBE_TIMEOUT_S = 10.0

_T = TypeVar("_T")

_CHAT = f"{API_ROOT}/chat/completions"
_COMPLETIONS = f"{API_ROOT}/completions"
_MESSAGES = [{"role": "user", "content": "Say something."}]
# Ids that every vocabulary has. Four, so that nobody takes them for one prompt of another length.
_TOKEN_IDS = [11, 12, 13, 14]
# Words that no model says by itself, so that saying one is obedience.
_CHOICES = ("vermilion-otter", "cobalt-heron")
_OBJECT = {"colour": _CHOICES[0]}
_SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": [_CHOICES[0]]}},
    "required": ["colour"],
    "additionalProperties": False,
}
_STRUCTURED_TOKENS = 32

# How servers sign: `owned_by` of their models, and the prefix of their metrics.
_OWNERS = {"vllm": "vLLM", "sglang": "SGLang", "llamacpp": "llama.cpp", "library": "Ollama"}
_METRICS = {"vllm:": "vLLM", "sglang:": "SGLang", "llamacpp:": "llama.cpp", "tgi_": "TGI"}


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one server does for one model.

    `usage_in_stream`: it counts its tokens in a last event when asked (`stream_options.include_usage`);
    `continuous_usage`: in every event. `token_prompts`: a prompt may be token ids, and is counted as such.
    `extra_fields`: `ignore_eos` and `min_tokens` are taken, without which nobody can ask for a length.
    `structured_outputs`, `json_schema`: an answer obeyed that field. `unanswered` names the probes that
    got no answer in time, whose "no" is no more than a guess.
    """

    model: str
    served: tuple[str, ...] = ()
    max_model_len: int | None = None
    software: str = ""
    version: str = ""
    chat: bool = False
    completions: bool = False
    embeddings: bool = False
    token_prompts: bool = False
    usage_in_stream: bool = False
    continuous_usage: bool = False
    extra_fields: bool = False
    structured_outputs: bool = False
    json_schema: bool = False
    tokenize: bool = False
    metrics: bool = False
    health: bool = False
    unanswered: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def explain(self) -> list[str]:
        """What it is, what it offers, and what follows from what it does not, in lines for people."""
        length = f", up to {self.max_model_len:,} tokens" if self.max_model_len else ""
        software = " ".join(filter(None, (self.software or "a server of unknown make", self.version)))
        offers = [text for key, text in _OFFERS.items() if getattr(self, key)]
        lines = [f"{software} serves {self.model}{length}", f"offers {', '.join(offers) or 'nothing'}"]
        if self.chat or self.completions:
            lines += [text for key, text in _LACKS.items() if not getattr(self, key)]
        if self.unanswered:
            lines.append(f"no answer in time to: {', '.join(self.unanswered)}")
        return lines


_OFFERS = {
    "chat": "chat",
    "completions": "completions",
    "embeddings": "embeddings",
    "token_prompts": "prompts of token ids",
    "structured_outputs": "structured_outputs",
    "json_schema": "response_format json_schema",
    "tokenize": "/tokenize",
    "metrics": "/metrics",
    "health": "/health",
}
_LACKS = {
    "usage_in_stream": "it sends no usage in streams: tokens are counted as chunks, which may hold several",
    "extra_fields": "it refuses ignore_eos and min_tokens: output lengths are the model's choice",
    "metrics": "it has no /metrics: there is no server's view beside the client's",
}


def probe_capabilities(
    endpoint: Endpoint, model: str = "", *, timeout_s: float = PROBE_TIMEOUT_S
) -> Capabilities:
    """Ask for everything, one tiny request each, with `timeout_s` for each.

    Raises NotReady where nobody answers; ServiceError where there is no OpenAI-compatible server, the key
    or `model` is wrong, or nothing at all can be generated. A "no" to a single probe never raises.
    """
    with closing(OpenAIControl(endpoint, timeout_s=timeout_s)) as control:
        return _Prober(control, *control.resolve_model(model)).run()


class _Prober:
    def __init__(self, control: OpenAIControl, model: Model, served: Sequence[str]) -> None:
        self._control = control
        self._model = model
        self._served = tuple(served)
        self._unanswered: list[str] = []
        self._refusals: list[str] = []

    def run(self) -> Capabilities:
        chat, usage = self._streams(_CHAT, {"messages": _MESSAGES})
        completions, usage_too = self._streams(_COMPLETIONS, {"prompt": "Say something."})
        embeddings = self._asks("embeddings", partial(self._control.embeddings_once, self._model.id))
        if not (chat or completions or embeddings):
            raise ServiceError(f"{self._model.id} generates nothing: {'; '.join(self._refusals)}")
        path, prompt = (_CHAT, {"messages": _MESSAGES}) if chat else (_COMPLETIONS, {"prompt": "Say it."})
        usage = usage and (usage_too or not completions) if chat else usage_too
        metrics = self._asks("metrics", self._control.metrics_text)
        return Capabilities(
            model=self._model.id,
            served=self._served,
            max_model_len=self._model.max_model_len,
            software=guess_software(self._model.owned_by, metrics or ""),
            version=self._asks("version", self._control.version) or "",
            chat=chat,
            completions=completions,
            embeddings=bool(embeddings),
            token_prompts=completions and self._takes_token_ids(),
            usage_in_stream=usage,
            continuous_usage=usage and self._counts_always(path, prompt),
            extra_fields=(chat or completions) and self._takes_extra_fields(path, prompt),
            # Completions first: there, no reasoning comes before what is constrained.
            structured_outputs=self._obeys_choice(completions, chat),
            json_schema=self._obeys_schema(completions, chat),
            tokenize=bool(self._asks("tokenize", partial(self._control.tokenize, "Hello", self._model.id))),
            metrics=bool(metrics),
            health=bool(self._asks("health", self._control.health)),
            unanswered=tuple(dict.fromkeys(self._unanswered)),
        )

    def _streams(self, path: str, prompt: Mapping[str, Any]) -> tuple[bool, bool]:
        """Whether it streams an answer there at all, and whether with usage when asked."""
        name = path.removeprefix(f"{API_ROOT}/")
        asked = {**prompt, "stream": True, "stream_options": {"include_usage": True}}
        answer = self._post(name, path, asked, max_tokens=2)
        if answer and answer.ok:
            events = stream_events(answer.text)
            return _has_choices(events), any(_usage(event) for event in events)
        if answer and answer.status in (400, 422):
            plain = self._post(name, path, {**prompt, "stream": True}, max_tokens=2)
            if plain and plain.ok:
                return _has_choices(stream_events(plain.text)), False
        if answer:
            self._refusals.append(f"{answer.status} to {path}: {answer.message}")
        return False, False

    def _counts_always(self, path: str, prompt: Mapping[str, Any]) -> bool:
        options = {"include_usage": True, "continuous_usage_stats": True}
        asked = {**prompt, "stream": True, "stream_options": options}
        answer = self._post("continuous usage", path, asked, max_tokens=2)
        events = stream_events(answer.text) if answer and answer.ok else []
        told = [bool(_usage(event)) for event in events if event.get("choices")]
        return bool(told) and all(told)

    def _takes_token_ids(self) -> bool:
        answer = self._post("token prompts", _COMPLETIONS, {"prompt": _TOKEN_IDS}, max_tokens=1)
        data = answer.json() if answer and answer.ok else None
        if not isinstance(data, dict) or len(data.get("choices") or ()) != 1:
            return False
        return _usage(data).get("prompt_tokens") == len(_TOKEN_IDS)

    def _takes_extra_fields(self, path: str, prompt: Mapping[str, Any]) -> bool:
        asked = {**prompt, "ignore_eos": True, "min_tokens": 1}
        answer = self._post("extra fields", path, asked, max_tokens=1)
        return bool(answer and answer.ok)

    def _obeys_choice(self, completions: bool, chat: bool) -> bool:
        asked = {"structured_outputs": {"choice": list(_CHOICES)}}
        return self._constrained("structured outputs", completions, chat, asked).strip() in _CHOICES

    def _obeys_schema(self, completions: bool, chat: bool) -> bool:
        schema = {"name": "colour", "schema": _SCHEMA, "strict": True}
        asked = {"response_format": {"type": "json_schema", "json_schema": schema}}
        # Most servers know response_format in chat only.
        return any(
            obeys_object(self._constrained("json schema", *apis, asked), _OBJECT)
            for apis in ((False, chat), (completions, False))
        )

    def _constrained(self, name: str, completions: bool, chat: bool, asked: Mapping[str, Any]) -> str:
        """What is generated under a constraint; nothing where neither API is to be used."""
        if not (completions or chat):
            return ""
        path = _COMPLETIONS if completions else _CHAT
        prompt: Mapping[str, Any] = {"prompt": "Say: "} if completions else {"messages": _MESSAGES}
        answer = self._post(name, path, {**prompt, **asked}, max_tokens=_STRUCTURED_TOKENS)
        data = answer.json() if answer and answer.ok else None
        return _text(data)

    def _post(self, name: str, path: str, body: Mapping[str, Any], max_tokens: int) -> Answer | None:
        """The answer, of any status; None where none came."""
        whole = {"model": self._model.id, "max_tokens": max_tokens, "temperature": 0, **body}
        return self._asks(name, partial(self._control.exchange, "POST", path, whole))

    def _asks(self, name: str, ask: Callable[[], _T]) -> _T | None:
        try:
            return ask()
        except NotReady as error:
            self._unanswered.append(name)
            self._refusals.append(error.message)
        except ServiceError as error:
            self._refusals.append(error.message)
        return None


def stream_events(text: str) -> list[dict[str, Any]]:
    """The JSON objects of a whole event stream; empty when it is none."""
    events = []
    for line in text.splitlines():
        if line.startswith("data:"):
            try:
                event = json.loads(line[5:])
            except (ValueError, RecursionError):
                continue  # [DONE]
            if isinstance(event, dict):
                events.append(event)
    return events


def guess_software(owned_by: str, metrics_text: str) -> str:
    """What the server is by its signatures; empty when it has none that is known."""
    if owned_by.lower() in _OWNERS:
        return _OWNERS[owned_by.lower()]
    lines = metrics_text.splitlines()
    found = (name for prefix, name in _METRICS.items() if any(line.startswith(prefix) for line in lines))
    return next(found, "")


def obeys_object(text: str, expected: Mapping[str, Any]) -> bool:
    """Whether `text` is the JSON of `expected`, or, blanks aside, a beginning of it beyond its first name.

    A model may spend its tokens on blanks, which JSON allows, and be cut before the end.
    """
    packed, whole = re.sub(r"\s", "", text), json.dumps(expected, separators=(",", ":"))
    first_name = len(next(iter(expected))) + len('{""')
    return whole == packed or (whole.startswith(packed) and len(packed) >= first_name)


def _has_choices(events: Sequence[Mapping[str, Any]]) -> bool:
    return any(event.get("choices") for event in events)


def _usage(data: Mapping[str, Any]) -> Mapping[str, Any]:
    usage = data.get("usage")
    return usage if isinstance(usage, dict) else {}


def _text(data: Any) -> str:
    """The generated text of a chat or completions answer; empty where it has none."""
    try:
        choice = data["choices"][0]
        return str((choice["message"]["content"] if "message" in choice else choice["text"]) or "")
    except (KeyError, IndexError, TypeError):
        return ""
