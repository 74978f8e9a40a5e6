"""A client for the monitors: whether each part answers, and what Prometheus has seen."""

import base64
import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import NotReady, ServiceError

USER = "aifbench"
_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Series:
    """One time series: its labels with its name as `__name__`, and (time in s, value as text) in order."""

    labels: Mapping[str, str]
    samples: Sequence[tuple[float, str]]


class MonitorsControl:
    """Asks Prometheus with the job's secret, and the other parts without: that they answer is enough."""

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = 30.0) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s

    def answers(self, port: int, path: str, *, with_secret: bool = False) -> str:
        """Empty when GET `path` at that port is answered, else why not. Any answer below 500 will do."""
        try:
            status, _ = self._ask("GET", port, path, with_secret=with_secret)
        except ServiceError as error:
            return error.message
        return "" if status < 500 else f"it answers {status}"

    def ready(self) -> str:
        """Empty when Prometheus is ready, else why not."""
        try:
            status, text = self._ask("GET", self._endpoint.port, "/-/ready", with_secret=True)
        except ServiceError as error:
            return error.message
        return "" if status == 200 else f"it answers {status} {text.decode(errors='replace')[:100].strip()}"

    def query(self, expression: str, at_s: float | None = None) -> list[Series]:
        """An instant query, now or at a time in s since 1970; a range selector gives all of its samples.

        Series of native histograms alone have no number to tell, and are left out.
        Raises NotReady and ServiceError.
        """
        form = {"query": expression, **({} if at_s is None else {"time": f"{at_s:.3f}"})}
        data = self._api("/api/v1/query", form)
        return [_series(found) for found in data["result"] if found.keys() & {"value", "values"}]

    def targets(self) -> list[Mapping[str, Any]]:
        """The active targets, as Prometheus describes them. Raises NotReady and ServiceError."""
        found: list[Mapping[str, Any]] = self._api("/api/v1/targets?state=active", None)["activeTargets"]
        return found

    def _api(self, path: str, form: Mapping[str, str] | None) -> Any:
        body = urlencode(form) if form else None
        status, text = self._ask("POST" if form else "GET", self._endpoint.port, path, body, with_secret=True)
        try:
            answer = json.loads(text)
            if answer["status"] == "success":
                return answer["data"]
            why = f"{answer.get('errorType')}: {answer.get('error')}"
        except (ValueError, KeyError, TypeError, AttributeError):
            why = text.decode(errors="replace")[:100].strip()
        raise ServiceError(f"Prometheus answers {status} {why}")

    def _ask(
        self, method: str, port: int, path: str, body: str | None = None, *, with_secret: bool = False
    ) -> tuple[int, bytes]:
        headers = {"Content-Type": _FORM} if body else {}
        if with_secret and (secret := self._endpoint.read_secret()):
            word = base64.b64encode(f"{USER}:{secret}".encode()).decode()
            headers["Authorization"] = f"Basic {word}"
        connection = http.client.HTTPConnection(self._endpoint.host, port, timeout=self._timeout_s)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise NotReady(f"{self._endpoint.host}:{port} does not answer: {error}") from None
        finally:
            connection.close()


def _series(found: Mapping[str, Any]) -> Series:
    samples = found["values"] if "values" in found else [found["value"]]
    return Series(found["metric"], [(float(at_s), str(value)) for at_s, value in samples])


def up(found: Sequence[Series]) -> Iterator[bool]:
    """Whether each target that `up` told of answers."""
    return (float(series.samples[-1][1]) == 1 for series in found)
