"""An OpenAI-compatible server's control plane: what it serves, whether it works. Never on a measured path.

Each exchange ends within the time limit, follows no redirect and uses no proxy, as the load does.
"""

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import NotReady, ServiceError
from aifbench.load.tls import client_context, tls_text
from aifbench.options import nearest

if TYPE_CHECKING:
    import requests

API_ROOT = "/v1"

# More than the /metrics of the busiest server, and no more than a run-away answer may take.
_MAX_BYTES = 16 << 20
_TOO_LONG = re.compile(r"context length|max_model_len|context size|context window|max_total_tokens", re.I)
_ATTACH_KEY_HINT = "attach it with --key-file FILE or --key-env NAME"
# Where servers tell their version: vLLM and SGLang, Ollama, TGI.
_VERSION_PATHS = ("/version", "/api/version", "/info")
_GENERIC_SERVERS = ("uvicorn", "hypercorn", "nginx", "envoy", "istio-envoy", "cloudflare", "basehttp")


def bearer_headers(endpoint: Endpoint) -> dict[str, str]:
    """The header that carries the API key; none without one."""
    secret = endpoint.read_secret()
    return {"Authorization": f"Bearer {secret}"} if secret else {}


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, whatever its status."""

    status: int
    body: bytes
    content_type: str = ""
    server: str = ""
    location: str = ""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")

    def json(self) -> Any:
        """The decoded body, None when it is no JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def message(self) -> str:
        """What the server says went wrong: `error.message`, `detail`, or the beginning of the text."""
        data = self.json()
        if isinstance(data, dict):
            said = data.get("error") or data.get("detail") or data.get("message") or data
            said = said.get("message", said) if isinstance(said, dict) else said
            return str(said)[:300]
        return re.sub(r"<[^>]*>|\s+", " ", self.text)[:120].strip()


@dataclass(frozen=True, slots=True)
class Model:
    """A model as the server lists it; `max_model_len` is prompt and output together, where it tells."""

    id: str
    max_model_len: int | None = None
    owned_by: str = ""


@dataclass(frozen=True, slots=True)
class Generation:
    """What one short generation came to; `api` is `completions` or `chat`."""

    api: str
    text: str
    output_tokens: int | None


class OpenAIControl:
    """Asks one server; every method raises NotReady when it does not answer, ServiceError when it refuses."""

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = 30.0) -> None:
        import requests

        self._endpoint = endpoint
        self._url = endpoint.url
        self._timeout_s = timeout_s
        self._session: requests.Session = requests.Session()
        self._session.trust_env = False  # a site's web proxy must not see requests to compute nodes
        self._session.headers.update(bearer_headers(endpoint))
        if context := client_context(endpoint.scheme, endpoint.ca_file):
            self._session.mount("https://", _adapter(context))

    def close(self) -> None:
        self._session.close()

    def models(self) -> list[Model]:
        """Every model that is served. Raises ServiceError for what is no OpenAI-compatible server."""
        answer = self.exchange("GET", f"{API_ROOT}/models")
        data = answer.json()
        if answer.status == 404 or (answer.ok and not isinstance(data, dict)):
            kind = answer.content_type.partition(";")[0] or "nothing"
            raise ServiceError(
                f"{self._url} is no OpenAI-compatible server: {answer.status} with {kind}"
                f" to GET {API_ROOT}/models",
                hint=f"the address is what stands before {API_ROOT}/models",
            )
        listed = self._checked(answer, f"GET {API_ROOT}/models").get("data") or []
        return [_model(item) for item in listed if isinstance(item, dict) and item.get("id")]

    def resolve_model(self, asked: str = "") -> tuple[Model, tuple[str, ...]]:
        """The model `asked` for, or the first one, and the names of all. Raises ServiceError.

        A server that lists no models, or fails to, is believed to serve the one asked for.
        """
        try:
            served = self.models()
        except ServiceError as error:
            if not asked or not re.search(r" answered 50[01] ", error.message):
                raise
            served = []
        names = tuple(model.id for model in served)
        if not served and not asked:
            raise ServiceError(f"{self._url} lists no models", hint="name one with --model")
        if not served:
            return Model(asked), ()
        if not asked:
            return served[0], names
        found = next((model for model in served if model.id == asked), None)
        if found is None:
            raise self._unknown_model(asked, names)
        return found, names

    def health(self) -> bool:
        """Whether /health says that all is well; also False where there is none."""
        return self.exchange("GET", "/health").ok

    def version(self) -> str:
        """The server's own word, or its Server header when that names more than a web server, else empty."""
        header = ""
        for path in _VERSION_PATHS:
            answer = self.exchange("GET", path)
            data = answer.json()
            if answer.ok and isinstance(data, dict) and isinstance(data.get("version"), str):
                return str(data["version"])[:80]
            header = answer.server or header
        return "" if header.lower().startswith(_GENERIC_SERVERS) else header[:80]

    def metrics_text(self) -> str:
        """The Prometheus text of /metrics; empty where there is none."""
        answer = self.exchange("GET", "/metrics")
        return answer.text if answer.ok and "# TYPE" in answer.text else ""

    def tokenize(self, what: str | Sequence[Mapping[str, str]], model: str) -> list[int]:
        """The token ids of a text, or of chat messages as the model's template renders them.

        Speaks the /tokenize of vLLM and SGLang; special tokens are added as the server does by default.
        """
        key = "prompt" if isinstance(what, str) else "messages"
        path = "/tokenize"
        answer = self.exchange("POST", path, {"model": model, key: what})
        tokens = self._checked(answer, f"POST {path}", model).get("tokens")
        if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
            raise ServiceError(f"{self._url} told no token ids: {answer.text[:80]!r}")
        return tokens

    def generate_once(self, model: str, *, max_tokens: int = 1) -> Generation:
        """A real generation, by completions or, where there is none, by chat."""
        limits = {"model": model, "max_tokens": max_tokens, "temperature": 0}
        answer = self.exchange("POST", f"{API_ROOT}/completions", {**limits, "prompt": "Hello"})
        api = "completions"
        if answer.status in (400, 404, 405, 422, 501):
            body = {**limits, "messages": [{"role": "user", "content": "Hello"}]}
            by_chat = self.exchange("POST", f"{API_ROOT}/chat/completions", body)
            if by_chat.ok or by_chat.status not in (404, 405, 501):
                answer, api = by_chat, "chat"
        return self._generation(answer, api, model)

    def embeddings_once(self, model: str) -> int:
        """Embed one word; the number of dimensions."""
        path = f"{API_ROOT}/embeddings"
        answer = self.exchange("POST", path, {"model": model, "input": "Hello"})
        try:
            vector = self._checked(answer, f"POST {path}", model)["data"][0]["embedding"]
            return len(vector)
        except (KeyError, IndexError, TypeError):
            raise ServiceError(f"{self._url} answered no embedding: {answer.text[:80]!r}") from None

    def exchange(self, method: str, path: str, body: object = None) -> Answer:
        """One request and its whole answer, of any status but 401 and 403, which mean the key is wrong."""
        import requests

        deadline_s = time.monotonic() + self._timeout_s
        try:
            with self._session.request(
                method, self._url + path, json=body, timeout=self._timeout_s, stream=True,
                allow_redirects=False,
            ) as response:  # fmt: skip
                answer = Answer(
                    response.status_code,
                    self._read(response, deadline_s),
                    response.headers.get("Content-Type", ""),
                    response.headers.get("Server", ""),
                    response.headers.get("Location", ""),
                )
        except requests.exceptions.SSLError as error:
            raise ServiceError(tls_text(_innermost(error), self._endpoint.host)) from None
        except requests.Timeout:
            raise self._too_late() from None
        except requests.RequestException as error:
            raise NotReady(f"cannot reach {self._url}: {_reason(error)}") from None
        self._check_way(answer, method, path)
        return answer

    def _read(self, response: "requests.Response", deadline_s: float) -> bytes:
        data = bytearray()
        for chunk in response.iter_content(1 << 16):
            data += chunk
            if len(data) > _MAX_BYTES:
                raise ServiceError(f"{self._url} sends an answer without an end")
            if time.monotonic() > deadline_s:
                raise self._too_late()
        return bytes(data)

    def _too_late(self) -> NotReady:
        return NotReady(f"no answer from {self._url} in {self._timeout_s:g} s")

    def _check_way(self, answer: Answer, method: str, path: str) -> None:
        """Raises for answers that have nothing to do with what was asked."""
        if answer.status in (401, 403):
            file = self._endpoint.secret_file
            what = f"refuses the key in {file}" if file else "wants an API key"
            hint = "" if file else _ATTACH_KEY_HINT
            raise ServiceError(f"{self._url} {what} ({answer.status} to {method} {path})", hint=hint)
        if 300 <= answer.status < 400:
            raise ServiceError(
                f"{self._url} redirects {method} {path} to {answer.location or 'nowhere'}",
                hint="use the address it redirects to",
            )

    def _checked(self, answer: Answer, what: str, model: str = "") -> dict[str, Any]:
        """The answer's object. Raises with the best words for why there is none."""
        data = answer.json()
        if answer.ok and isinstance(data, dict) and "error" not in data:
            return data
        if answer.status == 404 and model and model in answer.message:
            raise self._unknown_model(model, tuple(found.id for found in self.models()))
        if _TOO_LONG.search(answer.message):
            raise ServiceError(f"{self._url}: more tokens than the model takes: {answer.message}")
        if answer.status in (429, 503):
            raise NotReady(f"{self._url} takes nothing now ({answer.status}): {answer.message}")
        if answer.ok and not isinstance(data, dict):
            raise ServiceError(f"the answer of {self._url} to {what} is no JSON: {answer.text[:80]!r}")
        raise ServiceError(f"{self._url} answered {answer.status} to {what}: {answer.message}")

    def _unknown_model(self, model: str, served: Sequence[str]) -> ServiceError:
        return ServiceError(
            f"{self._url} serves no model {model!r}{nearest(model, served)}",
            hint=f"it serves: {', '.join(served) or 'none'}",
        )

    def _generation(self, answer: Answer, api: str, model: str) -> Generation:
        path = "/chat/completions" if api == "chat" else "/completions"
        data = self._checked(answer, f"POST {API_ROOT}{path}", model)
        try:
            choice = data["choices"][0]
            text = choice["message"]["content"] if api == "chat" else choice["text"]
        except (KeyError, IndexError, TypeError):
            raise ServiceError(f"{self._url} generated nothing: {answer.text[:80]!r}") from None
        usage = data.get("usage")
        tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
        return Generation(api, str(text or ""), tokens if isinstance(tokens, int) else None)


def _model(item: Mapping[str, Any]) -> Model:
    length = item.get("max_model_len")
    if length is None and isinstance(item.get("meta"), dict):  # llama.cpp
        length = item["meta"].get("n_ctx")
    return Model(
        str(item["id"]),
        length if isinstance(length, int) and length > 0 else None,
        str(item.get("owned_by") or ""),
    )


def _adapter(context: Any) -> Any:
    """Verifies with `context` alone, and not with the certificates that `requests` brings along."""
    from requests.adapters import HTTPAdapter

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, ssl_context=context, **options)

        def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
            del url, verify, cert
            conn.cert_reqs, conn.ca_certs = "CERT_REQUIRED", None

    return Adapter()


def _innermost(error: BaseException) -> BaseException:
    """The error of the ssl module inside those of the HTTP libraries."""
    inner = getattr(error, "reason", None) or next(iter(error.args), None)
    return _innermost(inner) if isinstance(inner, BaseException) else error


def _reason(error: BaseException) -> str:
    """`Connection refused` instead of the libraries' nested texts."""
    cause: BaseException | None = _innermost(error)
    while cause is not None and not (isinstance(cause, OSError) and cause.strerror):
        cause = cause.__cause__ or cause.__context__
    text = cause.strerror if isinstance(cause, OSError) else ""
    return text or type(_innermost(error)).__name__
