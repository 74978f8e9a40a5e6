"""S3's control plane, by boto3: who may enter, a run's own bucket, what is in it. Never on a measured path.

Addresses are path-style, signatures version 4, and optional checksums are left out: servers that are not
AWS's answer a ranged read with the checksum of the whole object, which boto3 would call a mismatch.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any
from xml.etree import ElementTree

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import ConfigError, NotReady, ServiceError
from aifbench.workloads.sigv4 import Credentials

DEFAULT_REGION = "us-east-1"
# Of servers that we start: their secret is the job's own, and one fixed name is enough.
OWN_ACCESS_KEY = "aifbench"

BUCKET_PREFIX = "aifbench-"
_NOT_A_BUCKET = re.compile(r"[^a-z0-9-]")
_PAGE = 1000
# Pauses before a bucket that is said not to be empty is emptied again; None is the last try.
_EMPTY_AGAIN_S = (0.5, 2.0, None)

CLOCK_ADVICE = (
    "the clocks of client and server differ by more than the 15 minutes that S3 allows: "
    "set the clock of the one that is wrong (`date -u` shows it)"
)
_ADVICE = {
    "RequestTimeTooSkewed": CLOCK_ADVICE,
    "InvalidAccessKeyId": "the server does not know this access key",
    "SignatureDoesNotMatch": "the secret key is wrong, or a proxy changed the request (its path or Host)",
    "AccessDenied": "the key is known but may not do this",
    "SlowDown": "the server asks for less load",
    "NoSuchBucket": "somebody removed the bucket during the run",
    "AuthorizationHeaderMalformed": "give the server's --region when attaching it",
}
_CONNECTION = re.compile(r"^<?\w+\(host=[^)]*\)[^:]*: ")
_SKEW = re.compile(r"difference between the request time", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Stored:
    """One object as a listing shows it; `etag` is without its quotes."""

    key: str
    size_bytes: int
    etag: str


def parse_credentials(text: str) -> Credentials | None:
    """From a file's text: `access:secret`, or the two on lines of their own; None for anything else."""
    words = text.split()
    if len(words) == 1:
        access, colon, secret = words[0].partition(":")
        return Credentials(access, secret) if colon and access and secret else None
    return (
        Credentials(*words)
        if len(words) == 2 and all(w.isascii() and w.isprintable() for w in words)
        else None
    )


def credentials_of(endpoint: Endpoint) -> Credentials:
    """Of the user to sign as. Raises ServiceError for a file that holds none."""
    if endpoint.secret_file is None:
        raise ServiceError(f"no key for {endpoint.url}", hint="give a file with access key and secret key")
    try:
        text = endpoint.secret_file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no plain text"
        raise ServiceError(
            f"cannot read the key of {endpoint.url} from {endpoint.secret_file}: {why}"
        ) from None
    words = text.split()
    # A job's own secret is one word without a colon.
    if len(words) == 1 and ":" not in words[0]:
        return Credentials(OWN_ACCESS_KEY, words[0])
    found = parse_credentials(text)
    if found is None:
        raise ServiceError(
            f"{endpoint.secret_file} does not hold an access key and a secret key",
            hint="write them on two lines, or as access:secret on one",
        )
    return found


def error_line(body: bytes | str) -> str:
    """What an S3 error document says, in one line such as `SlowDown: Reduce your request rate`; else nothing.

    A document that was cut short gives its code at least.
    """
    text = body.decode(errors="replace") if isinstance(body, bytes) else body
    code = _element(text, "Code")
    if not code:
        return ""
    message = _element(text, "Message")
    if _SKEW.search(message):
        code, message = "RequestTimeTooSkewed", CLOCK_ADVICE
    return f"{code}: {message}" if message else code


def _element(text: str, name: str) -> str:
    match = re.search(rf"<{name}>([^<]*)", text)
    if match is None:
        return ""
    try:
        found = ElementTree.fromstring(f"<a>{match[1]}</a>").text or ""
    except ElementTree.ParseError:
        found = match[1]
    return " ".join(found.split())[:200]


def make_client(endpoint: Endpoint, region: str, *, timeout_s: float = 30.0, connections: int = 10) -> Any:
    """A client with these settings, keys and no proxies, whatever is configured elsewhere.

    Raises ConfigError and ServiceError.
    """
    try:
        from botocore.config import Config
    except ImportError as error:
        raise ConfigError("S3 needs boto3", hint="pip install -r requirements.txt") from error
    user = credentials_of(endpoint)
    settings = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path", "payload_signing_enabled": False},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"total_max_attempts": 1},
        connect_timeout=timeout_s,
        read_timeout=timeout_s,
        max_pool_connections=connections,
        proxies={},
    )
    return _session().client(
        "s3",
        endpoint_url=endpoint.url,
        region_name=region,
        aws_access_key_id=user.access_key,
        aws_secret_access_key=user.secret_key,
        verify=str(endpoint.ca_file) if endpoint.ca_file else True,
        config=settings,
    )


@cache
def _session() -> Any:
    """Its clients share the description of S3, which takes a tenth of a second to read."""
    from boto3.session import Session

    return Session()


class S3Control:
    """Asks one server. Every method raises NotReady or ServiceError, in the server's own words."""

    def __init__(self, endpoint: Endpoint, region: str = DEFAULT_REGION, *, timeout_s: float = 30.0) -> None:
        self._url = endpoint.url
        self.client = make_client(endpoint, region, timeout_s=timeout_s)

    def close(self) -> None:
        self.client.close()

    @contextmanager
    def asking(self, what: str) -> Iterator[None]:
        """Turns boto3's errors into ours."""
        from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

        try:
            yield
        except ClientError as error:
            raise ServiceError(f"{what}: {client_error_line(error)}", hint=advice_for(error)) from None
        except (ConnectionError, HTTPClientError) as error:
            raise NotReady(f"cannot reach {self._url}: {_plain(error)}") from None
        except BotoCoreError as error:
            raise ServiceError(f"{what}: {_plain(error)}") from None

    def heartbeat(self) -> str:
        """Return the server's name of itself, if it answers our signature."""
        with self.asking(f"{self._url} refused"):
            answer = self.client.list_buckets()
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        return str(headers.get("server", ""))

    def bucket_exists(self, bucket: str) -> bool:
        """True also for one that belongs to somebody else."""
        try:
            with self.asking(f"cannot look for the bucket {bucket}"):
                self.client.head_bucket(Bucket=bucket)
        except ServiceError as error:
            if isinstance(error, NotReady) or not re.search(
                r": (404|NoSuchBucket|NotFound)\b", error.message
            ):
                if re.search(r": (403|301|AccessDenied|Forbidden)\b", error.message):
                    return True
                raise
            return False
        return True

    def listing(self, bucket: str, prefix: str = "") -> Iterator[Stored]:
        """All objects, page after page."""
        more: dict[str, str] = {}
        while True:
            with self.asking(f"cannot list {bucket}"):
                page = self.client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=_PAGE, **more)
            for item in page.get("Contents", ()):
                yield Stored(item["Key"], int(item["Size"]), str(item.get("ETag", "")).strip('"'))
            token = page.get("NextContinuationToken")
            if not page.get("IsTruncated") or not token:
                return
            more = {"ContinuationToken": token}

    def read(self, bucket: str, key: str) -> bytes:
        with self.asking(f"cannot read {key}"):
            content: bytes = self.client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    def has(self, bucket: str, key: str) -> bool:
        """Asked of the object itself, as a listing may lag behind."""
        try:
            with self.asking(f"cannot look for {key}"):
                self.client.head_object(Bucket=bucket, Key=key)
        except NotReady:
            raise
        except ServiceError as error:
            if re.search(r": (404|NoSuchKey|NotFound)\b", error.message):
                return False
            raise
        return True

    def write(self, bucket: str, key: str, body: bytes) -> None:
        with self.asking(f"cannot store {key}"):
            self.client.put_object(Bucket=bucket, Key=key, Body=body)

    def begin_upload(self, bucket: str, key: str) -> str:
        """The id of a new multipart upload."""
        with self.asking(f"cannot begin the upload of {key}"):
            return str(self.client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"])


class RunBucket:
    """The bucket of one run: made by it, removed by it; no other is ever written to or emptied."""

    def __init__(
        self, control: S3Control, run_tag: str, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._control = control
        self._sleep = sleep
        self.name = bucket_name(run_tag)
        self._is_ours = False

    def create(self) -> None:
        """Raises ServiceError when there is one of that name, whoever it belongs to."""
        # Asked first: to its owner, some servers confirm the making of a bucket that was there already.
        if self._control.bucket_exists(self.name):
            raise ServiceError(
                f"the bucket {self.name} exists already, and this run did not make it", hint="run it again"
            )
        self._is_ours = True  # also if Ctrl-C comes before the answer
        try:
            with self._control.asking(f"cannot make the bucket {self.name}"):
                self._control.client.create_bucket(Bucket=self.name)
        except ServiceError as error:
            self._is_ours = isinstance(error, NotReady)  # it may have been made, and the answer been lost
            raise

    def clear(self, control: S3Control | None = None) -> int:
        """Remove the bucket and all in it: how many objects; none, if this run did not make the bucket."""
        if not self._is_ours:
            return 0
        control = control or self._control
        removed = 0
        for pause_s in _EMPTY_AGAIN_S:
            removed += self._empty(control)
            try:
                with control.asking(f"cannot remove the bucket {self.name}"):
                    control.client.delete_bucket(Bucket=self.name)
                break
            except ServiceError as error:  # a listing may lag behind, and so hide what is still there
                if pause_s is None or "BucketNotEmpty" not in error.message:
                    raise
            self._sleep(pause_s)
        self._is_ours = False
        return removed

    def _empty(self, control: S3Control) -> int:
        """Remove all that the server lists; how many objects."""
        self._abort_uploads(control)
        removed = 0
        while keys := [key.key for _, key in zip(range(_PAGE), control.listing(self.name), strict=False)]:
            removed += self._delete(control, keys)
        return removed

    def _delete(self, control: S3Control, keys: Sequence[str]) -> int:
        with control.asking(f"cannot empty the bucket {self.name}"):
            answer = control.client.delete_objects(
                Bucket=self.name, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
            )
        if errors := answer.get("Errors"):
            raise ServiceError(
                f"cannot empty the bucket {self.name}: {errors[0].get('Code')} {errors[0].get('Key')}"
            )
        return len(keys)

    def _abort_uploads(self, control: S3Control) -> None:
        uploads: Sequence[Any] = ()
        # Not every server can list them, and some call none an error. One that is left keeps the bucket from
        # being removed, which is told.
        with suppress(ServiceError), control.asking(f"cannot list the uploads of {self.name}"):
            uploads = control.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ())
        for upload in uploads:
            with control.asking(f"cannot end the upload of {upload['Key']}"):
                control.client.abort_multipart_upload(
                    Bucket=self.name, Key=upload["Key"], UploadId=upload["UploadId"]
                )


def bucket_name(run_tag: str) -> str:
    """A valid bucket's name (3 to 63 lower-case letters, digits and hyphens) that tells the run."""
    return (BUCKET_PREFIX + _NOT_A_BUCKET.sub("-", run_tag.lower())).rstrip("-")[:63]


def client_error_line(error: Any) -> str:
    """boto3's ClientError in one line, led by the server's code."""
    found = error.response.get("Error", {})
    code, message = str(found.get("Code", "")), " ".join(str(found.get("Message", "")).split())
    if _SKEW.search(message):
        code = "RequestTimeTooSkewed"
    return f"{code}: {message}" if message and message != code else code


def advice_for(error: Any) -> str:
    return _ADVICE.get(client_error_line(error).partition(":")[0], "")


def _plain(error: Exception) -> str:
    """The reason within boto3's sentence, which repeats the address and names its own classes."""
    text = " ".join(str(getattr(error, "kwargs", {}).get("error", error)).split())
    return _CONNECTION.sub("", text)[:200]
