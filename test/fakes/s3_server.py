"""A small S3 server in memory that checks signatures, and misbehaves on request.

Faults apply to requests whose `METHOD /path` matches `where`: `code` answers that error instead, `shorten`
takes bytes off bodies of reads, `corrupt` changes them, `hide` leaves keys out of listings.
"""

import hashlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from test.fakes.tls import CA_FILE

from aifbench.cluster.endpoint import Endpoint
from aifbench.workloads.sigv4 import UNSIGNED_PAYLOAD, Credentials, Signer, encode_query

MAX_SKEW_S = 900.0  # between a signature's time and the server's, as Amazon S3 has it

_STATUS = {
    "NoSuchKey": 404,
    "NoSuchBucket": 404,
    "NoSuchUpload": 404,
    "SlowDown": 503,
    "InternalError": 500,
    "BucketNotEmpty": 409,
    "BucketAlreadyExists": 409,
}


@dataclass
class Faults:
    where: str = "$^"
    code: str = ""
    shorten: int = 0
    corrupt: bool = False
    hide: int = 0


@dataclass
class FakeS3:
    """Serves from `with` on; `buckets` maps names to what is in them."""

    folder: Path
    buckets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    uploads: dict[str, tuple[str, str, dict[int, bytes]]] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    user: Credentials = field(default_factory=lambda: Credentials("aifbench", "opensesame"))
    clock_ahead_s: float = 0.0
    requests: list[str] = field(default_factory=list)
    ignores_ranges: bool = False
    host: str = "127.0.0.1"
    prefix: str = ""
    tls: ssl.SSLContext | None = None

    def __enter__(self) -> Self:
        server_class = _IPv6Server if ":" in self.host else ThreadingHTTPServer
        server, fake = server_class((self.host, 0), _Handler), self
        if self.tls is not None:
            server.socket = self.tls.wrap_socket(server.socket, server_side=True)
        server.daemon_threads = True
        server.fake = fake  # type: ignore[attr-defined]
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def secret_file(self) -> Path:
        return self.folder / "s3-secret"

    @property
    def endpoint(self) -> Endpoint:
        if not self.secret_file.exists():
            self.secret_file.write_text(f"{self.user.secret_key}\n")
            self.secret_file.chmod(0o600)
        port = self._server.server_address[1]
        scheme, ca_file = ("https", CA_FILE) if self.tls else ("http", None)
        return Endpoint(
            self.host, port, scheme, secret_file=self.secret_file, prefix=self.prefix, ca_file=ca_file
        )


class _IPv6Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6


class _Error(Exception):
    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(code)
        self.code, self.message = code, message


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    @property
    def fake(self) -> FakeS3:
        fake: FakeS3 = self.server.fake  # type: ignore[attr-defined]
        return fake

    def log_message(self, *_: Any) -> None: ...

    def handle_expect_100(self) -> bool:
        goes_on = super().handle_expect_100()
        self.wfile.flush()
        return goes_on

    def _serve(self) -> None:
        url = urlsplit(self.path)
        self.query = dict(parse_qsl(url.query, keep_blank_values=True))
        self.body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = url.path.removeprefix(self.fake.prefix)
        _, self.bucket, self.key = (*unquote(path).split("/", 2), "", "")[:3]
        self.fake.requests.append(f"{self.command} {self.path}")
        try:
            self._check(url.path)
            if re.search(self.fake.faults.where, f"{self.command} {self.path}"):
                self.is_faulty = True
                if self.fake.faults.code:
                    raise _Error(self.fake.faults.code, "so it was asked for")
            else:
                self.is_faulty = False
            self._answer()
        except _Error as error:
            self._send_error(error)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

    def _check(self, path: str) -> None:
        given = self.headers.get("authorization", "")
        match = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=([^/]+)/\d+/([^/]+)/s3/aws4_request, ?"
            r"SignedHeaders=([^,]+), ?Signature=(\w+)",
            given,
        )
        if match is None:
            raise _Error("AccessDenied", "no signature")
        if match[1] != self.fake.user.access_key:
            raise _Error("InvalidAccessKeyId", "unknown")
        date = self.headers["x-amz-date"]
        moment_s = time.mktime(time.strptime(date, "%Y%m%dT%H%M%SZ")) - time.timezone
        if abs(moment_s - time.time() - self.fake.clock_ahead_s) > MAX_SKEW_S:
            raise _Error(
                "RequestTimeTooSkewed",
                "The difference between the request time and the server's is too large",
            )
        digest = self.headers["x-amz-content-sha256"]
        if digest not in (UNSIGNED_PAYLOAD, hashlib.sha256(self.body).hexdigest()):
            raise _Error("XAmzContentSHA256Mismatch", "another body")
        headers = {name: self.headers[name] for name in match[3].split(";")}
        signer = Signer(self.fake.user, match[2])
        ours = signer.authorization(self.command, path, encode_query(self.query), headers, digest, date)
        if ours.rpartition("=")[2] != match[4]:
            raise _Error("SignatureDoesNotMatch", "the signature differs")

    def _answer(self) -> None:
        if not self.bucket:
            self._send(200, b"<ListAllMyBucketsResult><Buckets></Buckets></ListAllMyBucketsResult>")
        elif not self.key:
            self._bucket_request()
        elif "uploadId" in self.query or "uploads" in self.query:
            self._upload_request()
        else:
            self._object_request()

    @property
    def _objects(self) -> dict[str, bytes]:
        if self.bucket not in self.fake.buckets:
            raise _Error("NoSuchBucket")
        return self.fake.buckets[self.bucket]

    def _bucket_request(self) -> None:
        if self.command == "PUT":
            self.fake.buckets.setdefault(self.bucket, {})
            self._send(200)
        elif self.command == "DELETE":
            if self._objects:
                raise _Error("BucketNotEmpty")
            del self.fake.buckets[self.bucket]
            self._send(204)
        elif self.command == "POST":
            for key in re.findall(r"<Key>([^<]*)</Key>", self.body.decode()):
                self._objects.pop(key, None)
            self._send(200, b"<DeleteResult></DeleteResult>")
        elif self.command == "HEAD":
            self._send(200 if self._objects is not None else 404)
        elif "uploads" in self.query:
            mine = [
                (key, name) for name, (bucket, key, _) in self.fake.uploads.items() if bucket == self.bucket
            ]
            listed = "".join(f"<Upload><Key>{k}</Key><UploadId>{u}</UploadId></Upload>" for k, u in mine)
            self._send(200, f"<ListMultipartUploadsResult>{listed}</ListMultipartUploadsResult>".encode())
        else:
            self._list()

    def _list(self) -> None:
        after = self.query.get("continuation-token") or self.query.get("start-after", "")
        size, prefix = int(self.query.get("max-keys", "1000")), self.query.get("prefix", "")
        keys = [key for key in sorted(self._objects) if key > after and key.startswith(prefix)]
        page = keys[:size]
        is_cut = len(keys) > size
        if self.is_faulty:
            page = page[self.fake.faults.hide :]
        items = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self._objects[key])}</Size>"
            f"<ETag>&quot;{hashlib.md5(self._objects[key]).hexdigest()}&quot;</ETag></Contents>"
            for key in page
        )
        more = f"<NextContinuationToken>{page[-1]}</NextContinuationToken>" if is_cut else ""
        state = f"<IsTruncated>{str(is_cut).lower()}</IsTruncated>{more}"
        self._send(200, f"<ListBucketResult>{items}{state}</ListBucketResult>".encode())

    def _upload_request(self) -> None:
        name = self.query.get("uploadId", "")
        if not name:
            name = f"u{len(self.fake.uploads)}"
            self.fake.uploads[name] = (self.bucket, self.key, {})
            text = (
                f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
            )
            self._send(200, text.encode())
            return
        if name not in self.fake.uploads:
            raise _Error("NoSuchUpload")
        parts = self.fake.uploads[name][2]
        if self.command == "PUT":
            parts[int(self.query["partNumber"])] = self.body
            self._send(200, headers={"ETag": f'"{hashlib.md5(self.body).hexdigest()}"'})
        elif self.command == "DELETE":
            del self.fake.uploads[name]
            self._send(204)
        elif self.command == "GET":
            listed = "".join(
                f"<Part><PartNumber>{n}</PartNumber><ETag>e{n}</ETag></Part>" for n in sorted(parts)
            )
            self._send(200, f"<ListPartsResult>{listed}</ListPartsResult>".encode())
        else:
            wanted = [int(n) for n in re.findall(rb"<PartNumber>(\d+)</PartNumber>", self.body)]
            self._objects[self.key] = b"".join(parts[n] for n in wanted)
            del self.fake.uploads[name]
            text = b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
            self._send(200, text)

    def _object_request(self) -> None:
        objects = self._objects
        if self.command == "PUT":
            objects[self.key] = self.body
            self._send(200, headers={"ETag": f'"{hashlib.md5(self.body).hexdigest()}"'})
        elif self.command == "DELETE":
            objects.pop(self.key, None)
            self._send(204)
        elif self.key not in objects:
            raise _Error("NoSuchKey", "it is not there")
        else:
            self._read(objects[self.key])

    def _read(self, content: bytes) -> None:
        faults, status = self.fake.faults, 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        if asked and not self.fake.ignores_ranges:
            content, status = content[int(asked[1]) : int(asked[2]) + 1], 206
        if self.is_faulty:
            content = content[: len(content) - faults.shorten]
            if faults.corrupt:
                content = content[:-1] + bytes([content[-1] ^ 1])
        self._send(status, content)

    def _send_error(self, error: _Error) -> None:
        text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{error.code}</Code>'
        text += f"<Message>{escape(error.message)}</Message></Error>"
        self._send(_STATUS.get(error.code, 403), text.encode())

    def _send(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
