"""AWS Signature Version 4 in the Authorization header: from a request's parts to its signed head. Pure.

Source: "Authenticating Requests: Using the Authorization Header (AWS Signature Version 4)" in the Amazon S3
API reference. Paths are encoded once and never normalised, as S3 wants it and other services do not.
"""

import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()

# A server refuses what was signed more than 15 minutes before or after its own time. Five of them are left
# for clocks that differ: a signature may be made ten minutes before it is sent, and is made anew after that.
FRESH_S = 600.0

_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key and its secret, which appears in no text of this object."""

    access_key: str
    secret_key: str = field(repr=False)


def encode_path(path: str) -> str:
    """A path as it goes on the wire and is signed: all bytes quoted but unreserved ones and slashes."""
    return quote(path, safe="/-_.~")


def encode_query(parameters: Mapping[str, str]) -> str:
    """A query string in the canonical order, which is the order of the encoded names."""
    pairs = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in parameters.items()
    )
    return "&".join(f"{name}={value}" for name, value in pairs)


def amz_date(wall_s: float) -> str:
    """A moment in seconds since 1970 as signatures have it: `20130524T000000Z`."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(wall_s))


class Signer:
    """Signs requests of one user in one region. Keeps the key derived for the last day it was asked for."""

    def __init__(self, credentials: Credentials, region: str, service: str = "s3") -> None:
        self._credentials = credentials
        self._region = region
        self._service = service
        self._day = ""
        self._key = b""

    def authorization(
        self,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        payload_hash: str,
        date: str,
    ) -> str:
        """The Authorization header over all of `headers`, whose names are lower-case.

        `path` and `query` are encoded already, `date` is as `amz_date` gives it.
        """
        names = sorted(headers)
        signed = ";".join(names)
        lines = [f"{name}:{' '.join(headers[name].split())}\n" for name in names]
        canonical = "\n".join((method, path, query, "".join(lines), signed, payload_hash))
        scope = f"{date[:8]}/{self._region}/{self._service}/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        to_sign = f"{_ALGORITHM}\n{date}\n{scope}\n{digest}"
        signature = hmac.digest(self._key_of(date[:8]), to_sign.encode(), "sha256").hex()
        user = f"{self._credentials.access_key}/{scope}"
        return f"{_ALGORITHM} Credential={user},SignedHeaders={signed},Signature={signature}"

    def head(
        self,
        method: str,
        host: str,
        path: str,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        *,
        payload_hash: str = EMPTY_SHA256,
        date: str,
    ) -> bytes:
        """Request line and signed headers, each with its line end; the blank line is left to the caller.

        So headers that need no signature (Content-Length, Range) can follow.
        """
        to_sign = {"host": host, "x-amz-content-sha256": payload_hash, "x-amz-date": date, **(headers or {})}
        authorization = self.authorization(method, path, query, to_sign, payload_hash, date)
        target = f"{path}?{query}" if query else path
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in to_sign.items())]
        return ("\r\n".join(lines) + f"\r\nauthorization: {authorization}\r\n").encode("latin-1")

    def _key_of(self, day: str) -> bytes:
        if day != self._day:
            key = f"AWS4{self._credentials.secret_key}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._day, self._key = day, key
        return self._key
