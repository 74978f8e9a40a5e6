"""Chroma's control plane: what a server is, and the collections of one run. Never on a measured path.

Speaks the v2 HTTP API (Chroma 0.6 and later). There is nothing to wait for after ingest: a single-node
server indexes on the write path and lets a query read the not yet indexed rest of the log (measured:
recall and latency right after 20,000 inserts as two seconds later), and it does not implement
`indexing_status`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import NotReady, ServiceError

if TYPE_CHECKING:
    import requests

DATABASE_PATH = "/api/v2/tenants/default_tenant/databases/default_database"
COLLECTIONS_PATH = f"{DATABASE_PATH}/collections"

_PAGE = 200


def auth_headers(endpoint: Endpoint) -> dict[str, str]:
    """Both headers that Chroma's token authentication may be set to read; none without a secret."""
    secret = endpoint.read_secret()
    return {"Authorization": f"Bearer {secret}", "x-chroma-token": secret} if secret else {}


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection as the server describes it; `index` is the effective index configuration."""

    id: str
    name: str
    metric: str
    index: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server says it accepts."""

    max_batch_size: int
    base64: bool


class ChromaControl:
    """Asks one server; changes nothing. Every method raises NotReady or ServiceError."""

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = 30.0) -> None:
        import requests

        self._url = endpoint.url
        self._timeout_s = timeout_s
        self._session: requests.Session = requests.Session()
        self._session.trust_env = False  # a site's web proxy must not see requests to compute nodes
        self._session.headers.update(auth_headers(endpoint))

    def close(self) -> None:
        self._session.close()

    def heartbeat(self) -> None:
        """Return if the server answers."""
        answer = self.request("GET", "/api/v2/heartbeat")
        if not isinstance(answer, dict) or "nanosecond heartbeat" not in answer:
            raise ServiceError(f"{self._url} does not answer like a Chroma server: {str(answer)[:80]}")

    def version(self) -> str:
        """The server's own word; it is `1.0.0` for all of 1.x, so record the package or image as well."""
        return str(self.request("GET", "/api/v2/version"))

    def limits(self) -> Limits:
        answer = _object(self.request("GET", "/api/v2/pre-flight-checks"))
        return Limits(
            max_batch_size=int(answer.get("max_batch_size") or 0) or 2**31,
            base64=bool(answer.get("supports_base64_encoding")),
        )

    def collections(self) -> list[Collection]:
        """All collections of the server, whoever made them."""
        found: list[Collection] = []
        while True:
            page = self.request("GET", f"{COLLECTIONS_PATH}?limit={_PAGE}&offset={len(found)}")
            if not isinstance(page, list):
                raise ServiceError(f"{self._url} listed no collections: {str(page)[:80]}")
            found += [_collection(item) for item in page]
            if len(page) < _PAGE:
                return found

    def collection(self, name: str) -> Collection:
        return _collection(self.request("GET", f"{COLLECTIONS_PATH}/{name}"))

    def count(self, collection: Collection) -> int:
        """Vectors stored now, those not yet indexed included."""
        return int(str(self.request("GET", f"{COLLECTIONS_PATH}/{collection.id}/count")))

    def request(self, method: str, path: str, body: object = None) -> Any:
        """The decoded JSON answer of one exchange."""
        import requests

        try:
            response = self._session.request(method, self._url + path, json=body, timeout=self._timeout_s)
        except requests.Timeout as error:
            raise NotReady(f"no answer from {self._url} in {self._timeout_s:g} s") from error
        except requests.RequestException as error:
            raise NotReady(f"cannot reach {self._url}", hint="`check chroma` shows its state") from error
        return self._decode(response, f"{method} {path.removeprefix(DATABASE_PATH)}")

    def _decode(self, response: "requests.Response", what: str) -> Any:
        if response.status_code in (401, 403):
            raise ServiceError(f"{self._url} refused the credentials ({response.status_code} to {what})")
        if not response.ok:
            raise ServiceError(f"Chroma answered {response.status_code} to {what}: {_message(response)}")
        try:
            return response.json()
        except ValueError as error:
            raise ServiceError(f"Chroma's answer to {what} is not JSON: {response.text[:80]!r}") from error


class ChromaNamespace:
    """The collections of one run, all named `<prefix>_<suffix>`; no other is ever changed."""

    def __init__(self, control: ChromaControl, run_id: str) -> None:
        self._control = control
        self.prefix = f"aifb_{run_id}"

    def name(self, suffix: str) -> str:
        return f"{self.prefix}_{suffix}"

    def create(
        self,
        suffix: str,
        metric: str,
        *,
        index: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Collection:
        """A new collection; `index` holds hnsw settings such as ef_construction, ef_search, max_neighbors.

        Raises ServiceError if one of that name exists, or if the server ignored a setting.
        """
        asked = {**(index or {}), "space": metric}
        body = {
            "name": self.name(suffix),
            "metadata": dict(metadata) if metadata else None,
            "configuration": {"hnsw": asked},
            "get_or_create": False,
        }
        made = _collection(self._control.request("POST", COLLECTIONS_PATH, body))
        effective = {**made.index, "space": made.metric}
        ignored = {key: value for key, value in asked.items() if effective.get(key) != value}
        if ignored:
            raise ServiceError(f"this Chroma ignored the index settings {ignored}; it has {dict(made.index)}")
        return made

    def delete(self, name: str) -> None:
        if not name.startswith(f"{self.prefix}_"):
            raise ServiceError(f"the collection {name} does not belong to this run ({self.prefix})")
        self._control.request("DELETE", f"{COLLECTIONS_PATH}/{name}")

    def names(self) -> list[str]:
        """This run's collections on the server, those that measured operations created included."""
        return [c.name for c in self._control.collections() if c.name.startswith(f"{self.prefix}_")]

    def clear(self) -> int:
        """Delete all of this run's collections; how many there were."""
        names = self.names()
        for name in names:
            self.delete(name)
        return len(names)


def _object(answer: object) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise ServiceError(f"Chroma answered {str(answer)[:80]!r} where an object was due")
    return answer


def _collection(answer: object) -> Collection:
    data = _object(answer)
    configuration = data.get("configuration_json") or {}
    index = dict(configuration.get("hnsw") or {})
    try:
        metadata = data.get("metadata") or {}
        return Collection(data["id"], data["name"], index.pop("space", ""), index, metadata)
    except KeyError as error:
        raise ServiceError(f"Chroma described a collection without {error}") from error


def _message(response: "requests.Response") -> str:
    try:
        return str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200] or response.reason
