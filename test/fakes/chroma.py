"""An in-memory Chroma v2 server on a thread: the JSON of chromadb 1.5.9, exact search, faults on request."""

import argparse
import base64
import contextlib
import json
import re
import threading
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import numpy as np

from aifbench.cluster.endpoint import Endpoint

DATABASE = "/api/v2/tenants/default_tenant/databases/default_database"
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,510}[a-zA-Z0-9]")
HNSW = {
    "space": "l2",
    "ef_construction": 100,
    "ef_search": 100,
    "max_neighbors": 16,
    "resize_factor": 1.2,
    "sync_threshold": 1000,
}
PLANTED = {
    422: '{"error":"ChromaError","message":"planted"}',
    500: '{"error":"InternalError","message":"planted"}',
}


@dataclass
class Faults:
    """What goes wrong, for requests whose path matches `where`."""

    where: str = r"/(query|add|delete)$"
    wrong_neighbors: bool = False
    short_answers: bool = False
    garbage: bool = False
    status: int = 0
    hang: bool = False
    delay_s: float = 0.0
    drop: bool = False
    lose_every: int = 0


@dataclass
class Stored:
    name: str
    hnsw: dict[str, Any]
    metadata: dict[str, Any] | None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    metadatas: dict[str, dict[str, Any]] = field(default_factory=dict)
    documents: dict[str, str | None] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        dimension = len(next(iter(self.vectors.values()))) if self.vectors else None
        configuration = {"hnsw": self.hnsw, "spann": None, "embedding_function": None}
        return {
            "id": self.id,
            "name": self.name,
            "configuration_json": configuration,
            "schema": None,
            "metadata": self.metadata,
            "dimension": dimension,
            "tenant": "default_tenant",
            "database": "default_database",
            "log_position": 0,
            "version": 0,
        }


class Refused(Exception):
    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": error, "message": message}


class FakeChroma:
    """`with FakeChroma() as chroma:` serves at `chroma.endpoint`; change `chroma.faults` at any time.

    With `token`, requests need it in either header that Chroma may be configured to read.
    """

    def __init__(self, *, token: str | None = None, secret_file: Path | None = None, port: int = 0) -> None:
        self.port = port
        self.faults = Faults()
        self.token = token
        self.secret_file = secret_file
        self.max_batch_size = 5461
        self.base64 = True
        self.index_settings_ignored = False
        self.collections: dict[str, Stored] = {}
        self.requests: list[tuple[str, str]] = []
        self.closing = threading.Event()
        self.lock = threading.Lock()

    def __enter__(self) -> Self:
        fake = self

        class Handler(_Handler):
            chroma = fake

        self.server = _Server(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        # A short poll interval, because shutdown waits for one.
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", self.server.server_port, secret_file=self.secret_file)

    def named(self, name: str) -> Stored:
        return next(c for c in self.collections.values() if c.name == name)

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        fixed = {
            "/api/v2/heartbeat": {"nanosecond heartbeat": 1795187889979545783},
            "/api/v2/version": "1.0.0",
            "/api/v2/healthcheck": {"is_executor_ready": True, "is_log_client_ready": True},
            "/api/v2/auth/identity": {
                "user_id": "",
                "tenant": "default_tenant",
                "databases": ["default_database"],
            },
            "/api/v2/tenants/default_tenant": {"name": "default_tenant", "resource_name": None},
            DATABASE: {
                "id": "00000000-0000-0000-0000-000000000000",
                "name": "default_database",
                "tenant": "default_tenant",
            },
            "/api/v2/pre-flight-checks": {
                "max_batch_size": self.max_batch_size,
                "supports_base64_encoding": self.base64,
            },
        }
        path, _, query = path.partition("?")
        if method == "GET" and path in fixed:
            return 200, fixed[path]
        parts = path.removeprefix(DATABASE + "/collections").strip("/").split("/")
        with self.lock:
            if parts == [""]:
                return self.create(body) if method == "POST" else (200, self.page(query))
            if len(parts) == 1:
                return self.by_name(method, parts[0])
            return self.operate(self.by_id(parts[0]), parts[1], body)

    def create(self, body: dict[str, Any]) -> tuple[int, Any]:
        name = body["name"]
        if not NAME.fullmatch(name):
            rule = "Expected a name containing 3-512 characters from [a-zA-Z0-9._-]"
            raise Refused(400, "InvalidArgumentError", f"Validation error: name: {rule}. Got: {name}")
        if any(c.name == name for c in self.collections.values()):
            raise Refused(409, "ChromaError", f"Collection [{name}] already exists")
        asked = (body.get("configuration") or {}).get("hnsw") or {}
        hnsw = dict(HNSW) if self.index_settings_ignored else {**HNSW, **asked}
        made = Stored(name, hnsw, body.get("metadata"))
        self.collections[made.id] = made
        return 200, made.to_json()

    def page(self, query: str) -> list[dict[str, Any]]:
        numbers = dict(pair.split("=") for pair in query.split("&")) if query else {}
        start, size = int(numbers.get("offset", 0)), int(numbers.get("limit", 100))
        return [c.to_json() for c in list(self.collections.values())[start : start + size]]

    def by_id(self, key: str) -> Stored:
        if key not in self.collections:
            raise Refused(404, "NotFoundError", f"Collection [{key}] does not exist.")
        return self.collections[key]

    def by_name(self, method: str, name: str) -> tuple[int, Any]:
        found = [c for c in self.collections.values() if c.name == name]
        if not found:
            raise Refused(404, "NotFoundError", f"Collection [{name}] does not exist")
        if method == "DELETE":
            del self.collections[found[0].id]
            return 200, {}
        return 200, found[0].to_json()

    def operate(self, stored: Stored, verb: str, body: dict[str, Any]) -> tuple[int, Any]:
        if verb == "count":
            return 200, len(stored.vectors)
        if verb == "add":
            return 201, self.add(stored, body)
        if verb == "delete":
            for key in body["ids"]:
                stored.vectors.pop(key, None)
            return 200, {"deleted": len(body["ids"])}
        if verb == "query":
            return 200, self.query(stored, body)
        raise Refused(500, "InternalError", "Method scout_logs is not implemented")

    def add(self, stored: Stored, body: dict[str, Any]) -> dict[str, Any]:
        metadatas = body.get("metadatas") or [{}] * len(body["ids"])
        for key, embedding, metadata in zip(body["ids"], body["embeddings"], metadatas, strict=True):
            vector = (
                np.frombuffer(base64.b64decode(embedding), "<f4")
                if isinstance(embedding, str)
                else np.asarray(embedding, np.float32)
            )
            if self.faults.lose_every and int(key) % self.faults.lose_every == 0:
                continue
            stored.vectors.setdefault(key, vector)
            stored.metadatas.setdefault(key, metadata)
        for key, document in zip(body["ids"], body.get("documents") or (), strict=False):
            stored.documents.setdefault(key, document)
        return {}

    def query(self, stored: Stored, body: dict[str, Any]) -> dict[str, Any]:
        keys = [key for key in stored.vectors if _passes(stored.metadatas[key], body.get("where"))]
        ids, distances = [], []
        for embedding in body["query_embeddings"]:
            if isinstance(embedding, str):
                raise Refused(422, "ChromaError", "invalid type: string, expected a sequence")
            near = _distances(stored.hnsw["space"], np.asarray(embedding), [stored.vectors[k] for k in keys])
            order = np.argsort(-near if self.faults.wrong_neighbors else near, kind="stable")
            order = order[: body["n_results"] - self.faults.short_answers]
            ids.append([keys[i] for i in order])
            distances.append([float(near[i]) for i in order])
        empty = dict.fromkeys(("embeddings", "documents", "uris", "metadatas"))
        told = body.get("include", ["distances"])
        if "documents" in told:
            empty["documents"] = [[stored.documents.get(key) for key in keys] for keys in ids]
        return {"ids": ids, **empty, "distances": distances, "include": told}


def _passes(metadata: dict[str, Any], where: dict[str, Any] | None) -> bool:
    return all(metadata.get(key, 1 << 30) < rule["$lt"] for key, rule in (where or {}).items())


def _distances(space: str, query: np.ndarray, vectors: list[np.ndarray]) -> np.ndarray:
    matrix = np.asarray(vectors).reshape(len(vectors), -1)
    if space == "l2":
        return ((matrix - query) ** 2).sum(axis=1)
    dot = matrix @ query
    if space == "cosine":
        dot = dot / (np.linalg.norm(matrix, axis=1) * np.linalg.norm(query))
    return 1 - dot


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # a client that connects to a full queue waits for a second

    def handle_error(self, *_: object) -> None: ...  # clients that are killed are part of the tests


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    chroma: FakeChroma

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.chroma.requests.append((self.command, self.path))
        faults = self.chroma.faults if re.search(self.chroma.faults.where, self.path) else Faults()
        self.chroma.closing.wait(None if faults.hang else faults.delay_s)
        if faults.drop or faults.hang:
            self.close_connection = True
        elif faults.garbage:
            self.reply(200, b"<html>proxy</html>")
        elif faults.status:
            self.reply(faults.status, PLANTED.get(faults.status, "planted by a proxy").encode())
        else:
            status, answer = self.result(body)
            self.reply(status, json.dumps(answer, separators=(",", ":")).encode())

    do_GET = do_POST = do_DELETE = handle_any

    def result(self, body: bytes) -> tuple[int, Any]:
        try:
            self.authorize()
            return self.chroma.answer(self.command, self.path, json.loads(body) if body else None)
        except Refused as refused:
            return refused.status, refused.body
        except ValueError as error:
            text = f"Failed to parse the request body as JSON: {error}"
            return 400, {"error": "InvalidArgumentError", "message": text}

    def authorize(self) -> None:
        token = self.chroma.token
        given = (self.headers.get("x-chroma-token"), self.headers.get("Authorization"))
        if token and token != given[0] and f"Bearer {token}" != given[1]:
            raise Refused(403, "ChromaError", "Forbidden")

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        with contextlib.suppress(ConnectionError):  # a client that gave up is part of the tests
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


def main() -> None:
    """As the program: `chroma run --path DIR --host 127.0.0.1 --port N`."""
    parser = argparse.ArgumentParser("chroma")
    run = parser.add_subparsers(required=True).add_parser("run")
    run.add_argument("--path", type=Path, required=True)
    run.add_argument("--host", required=True)
    run.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    (options.path / "chroma.sqlite3").touch()
    with FakeChroma(port=options.port) as chroma:
        chroma.thread.join()
