"""An OpenAI-compatible server whose manners can be switched, with the answers of vLLM 0.32 as captured.

It generates the words of `WORDS` one after the other, one a token, and counts a token per word or id of a
prompt. `refuses` holds fields it answers 422 to; what is not in `paths` does not exist.
"""

import hashlib
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from test.fakes import tls

from aifbench.cluster.endpoint import Endpoint

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
GENERATING = frozenset({"/v1/models", CHAT, COMPLETIONS, "/tokenize", "/metrics", "/health", "/version"})
METRICS = '# HELP vllm:x x\n# TYPE vllm:x gauge\nvllm:x{engine="0"} 1.0\n'


@dataclass
class FakeOpenAI:
    """`status` answers a path with that status and text; `delay_s` is waited before each answer to a path."""

    models: tuple[str, ...] = ("tiny",)
    owned_by: str = "vllm"
    max_model_len: int | None = 2048
    key: str = ""
    prefix: str = ""
    uses_tls: bool = False
    paths: frozenset[str] = GENERATING
    refuses: frozenset[str] = frozenset()
    usage_in_stream: bool = True
    continuous_usage: bool = True
    takes_token_ids: bool = True
    structured: bool = True
    json_blanks: int = 0
    server_header: str = "uvicorn"
    version_answer: Mapping[str, Any] = field(default_factory=lambda: {"version": "0.32.0"})
    metrics: str = METRICS
    status: dict[str, tuple[int, str]] = field(default_factory=dict)
    delay_s: dict[str, float] = field(default_factory=dict)
    location: str = ""
    asked: list[tuple[str, str, Any]] = field(default_factory=list)

    def __enter__(self) -> Self:
        fake = self

        class Handler(_Handler):
            openai = fake

        self.closing = threading.Event()
        self.server = _Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if self.uses_tls:
            context: ssl.SSLContext = tls.server_context()
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def url(self) -> str:
        scheme = "https" if self.uses_tls else "http"
        return f"{scheme}://127.0.0.1:{self.server.server_port}{self.prefix}"

    def endpoint(self, *, secret_file: Path | None = None, ca_file: Path | None = None) -> Endpoint:
        return Endpoint(
            "127.0.0.1",
            self.server.server_port,
            "https" if self.uses_tls else "http",
            secret_file=secret_file,
            prefix=self.prefix,
            ca_file=ca_file,
        )

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        """Status, and a JSON value, a text, or an iterator of the events of a stream."""
        if path in self.status:
            return self.status[path]
        if path not in self.paths:
            return 404, {"detail": "Not Found"}
        fixed: dict[str, Any] = {
            "/v1/models": {"object": "list", "data": [self._model(name) for name in self.models]},
            "/health": "",
            "/version": self.version_answer,
            "/metrics": self.metrics,
        }
        return (200, fixed[path]) if path in fixed else self._asked(path, body)

    def _model(self, name: str) -> dict[str, Any]:
        told = {"max_model_len": self.max_model_len} if self.max_model_len else {}
        return {"id": name, "object": "model", "created": 1, "owned_by": self.owned_by, **told}

    def _asked(self, path: str, body: Any) -> tuple[int, Any]:
        if unknown := [name for name in body if name in self.refuses]:
            return 422, {"detail": [{"type": "extra_forbidden", "loc": ["body", unknown[0]]}]}
        if body.get("model") not in self.models:
            message = f"The model `{body.get('model')}` does not exist. Valid aliases: {self.models[0]}."
            return _error(404, message, "NotFoundError")
        limit = body.get("max_tokens", 16)
        if self.max_model_len and limit > self.max_model_len:
            return _error(
                400,
                f"max_tokens={limit} cannot be greater than max_model_len={self.max_model_len}."
                " Please request fewer output tokens. (parameter=max_tokens, value=4000)",
                "BadRequestError",
            )
        if path == "/tokenize":
            count = len(str(body.get("prompt", "a b c d e")).split())
            return 200, {"count": count, "max_model_len": 2048, "tokens": [7] * count, "token_strs": None}
        if path == EMBEDDINGS:
            texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
            data = [
                {"object": "embedding", "index": index, "embedding": _embedding(str(text))}
                for index, text in enumerate(texts)
            ]
            return 200, {"object": "list", "data": data, "model": body["model"]}
        if body.get("stream"):
            return 200, self._events(path == CHAT, body)
        return 200, self._whole(path == CHAT, body)

    def _prompt_tokens(self, body: Mapping[str, Any]) -> int:
        prompt = body.get("prompt", "a b c d e")
        if isinstance(prompt, list):
            return len(prompt) if self.takes_token_ids else len(str(prompt))
        return len(str(prompt).split())

    def _words(self, body: Mapping[str, Any]) -> list[str]:
        choice = body.get("structured_outputs", {}).get("choice")
        if choice and self.structured:
            return [choice[-1]]
        if self.structured and "response_format" in body:
            schema = body["response_format"]["json_schema"]["schema"]
            value = {name: rule["enum"][0] for name, rule in schema["properties"].items()}
            return [*("{", *("\n" for _ in range(self.json_blanks)), json.dumps(value)[1:])]
        return [WORDS[number % len(WORDS)] for number in range(body.get("max_tokens", 16))]

    def _whole(self, is_chat: bool, body: Mapping[str, Any]) -> dict[str, Any]:
        words = self._words(body)[: body.get("max_tokens", 16)]
        text = "".join(words)
        said = {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": "length"}
        usage = _usage(self._prompt_tokens(body), len(words))
        kind = "chat.completion" if is_chat else "text_completion"
        return {"id": "cmpl-1", "object": kind, "model": body["model"], "choices": [choice], "usage": usage}

    def _events(self, is_chat: bool, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        options = body.get("stream_options", {})
        wants, prompt_tokens = options.get("include_usage"), self._prompt_tokens(body)
        always = wants and options.get("continuous_usage_stats") and self.continuous_usage
        words = WORDS[: body.get("max_tokens", 16)]
        base = {"id": "cmpl-1", "object": "text_completion", "model": body["model"]}
        deltas: list[dict[str, Any]] = [{"text": word} for word in words]
        if is_chat:
            base["object"] = "chat.completion.chunk"
            deltas = [{"delta": {"content": word}} for word in words]
            deltas.insert(0, {"delta": {"role": "assistant", "content": ""}})
        for number, delta in enumerate(deltas, start=0 if is_chat else 1):
            finish = "length" if number == len(words) else None
            usage = {"usage": _usage(prompt_tokens, number)} if always else {}
            yield {**base, "choices": [{"index": 0, **delta, "finish_reason": finish}], **usage}
        if wants and self.usage_in_stream:
            yield {**base, "choices": [], "usage": _usage(prompt_tokens, len(words))}


def _embedding(text: str) -> list[float]:
    """Three numbers that differ from text to text."""
    digest = hashlib.sha256(text.encode()).digest()
    return [0.01 + digest[place] / 255 for place in range(3)]


def _usage(prompt_tokens: int, output_tokens: int) -> dict[str, int]:
    total = prompt_tokens + output_tokens
    return {"prompt_tokens": prompt_tokens, "total_tokens": total, "completion_tokens": output_tokens}


def _error(status: int, message: str, kind: str) -> tuple[int, Any]:
    return status, {"error": {"message": message, "type": kind, "param": None, "code": status}}


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # a client that connects to a full queue waits for a second

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or does not trust the certificate, is no failure of this server."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes
    openai: FakeOpenAI

    def do_GET(self) -> None:
        self._serve("GET", None)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self._serve("POST", json.loads(self.rfile.read(length) or b"null"))

    def _serve(self, method: str, body: Any) -> None:
        fake = self.openai
        path = self.path.removeprefix(fake.prefix) if self.path.startswith(f"{fake.prefix}/") else ""
        fake.asked.append((method, self.path, body))
        fake.closing.wait(fake.delay_s.get(path, 0.0))
        if fake.key and self.headers.get("Authorization") != f"Bearer {fake.key}":
            self._send(401, json.dumps({"error": "Unauthorized"}), "application/json")
            return
        status, said = fake.answer(path, body)
        if isinstance(said, str):
            kind = "text/html" if said.startswith("<") else "text/plain; charset=utf-8"
            self._send(status, said, kind)
        elif isinstance(said, Mapping):
            self._send(status, json.dumps(said), "application/json")
        else:
            text = "".join(f"data: {json.dumps(event)}\n\n" for event in said) + "data: [DONE]\n\n"
            self._send(status, text, "text/event-stream; charset=utf-8")

    def _send(self, status: int, text: str, kind: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if self.openai.location:
            self.send_header("Location", self.openai.location)
        self.end_headers()
        self.wfile.write(data)

    def version_string(self) -> str:
        return self.openai.server_header

    def log_message(self, *_: object) -> None:
        pass
