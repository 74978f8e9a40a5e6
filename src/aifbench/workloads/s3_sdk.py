"""S3 by boto3, to be compared with plain HTTP: the same operations on the same objects, at its own cost.

Every answer is read whole; what a sample of them holds is compared as part of the operation, because a
blocking operation has no afterwards.
"""

import io
from collections.abc import Mapping
from typing import Any

from aifbench.cluster.endpoint import Endpoint
from aifbench.load.workload import Outcome, OutcomeKind
from aifbench.workloads import s3_http
from aifbench.workloads.s3_control import DEFAULT_REGION, client_error_line, make_client
from aifbench.workloads.s3_objects import ObjectSet

_CONNECTIONS = 256
_CODES = {503: OutcomeKind.THROTTLED, 429: OutcomeKind.THROTTLED}


class _SdkWorkload:
    """Performs by boto3 what its `plain` counterpart asks for by HTTP."""

    def __init__(
        self, plain: Any, bucket: str, objects: Mapping[str, Any], region: str = DEFAULT_REGION
    ) -> None:
        self._plain = plain
        self._bucket = bucket
        self._objects = ObjectSet.from_json(objects)
        self._region = region
        self._client: Any = None

    def open(self, endpoint: Endpoint) -> None:
        self._client = make_client(endpoint, self._region, connections=_CONNECTIONS)

    def perform(self, index: int) -> Outcome:
        try:
            return self._perform(index)
        except Exception as error:  # boto3's are of many classes
            return outcome_of(error)

    def keeps(self, index: int) -> bool:
        return bool(self._plain.keeps(index))

    def operation(self, index: int) -> tuple[str, int]:
        kind: tuple[str, int] = self._plain.operation(index)
        return kind

    def size(self, index: int) -> int:
        size: int = self._plain.size(index)
        return size

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _perform(self, index: int) -> Outcome:
        raise NotImplementedError

    def _names(self, index: int) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._objects.key(self._plain.number(index))}


class Get(_SdkWorkload):
    """`s3_http.Get` by the SDK."""

    def __init__(
        self, bucket: str, objects: Mapping[str, Any], count: int, region: str = DEFAULT_REGION
    ) -> None:
        super().__init__(s3_http.Get(bucket, objects, count, region), bucket, objects, region)

    def _perform(self, index: int) -> Outcome:
        body = self._client.get_object(**self._names(index))["Body"].read()
        return _counted(self._plain.interpret(index, 200, body), bytes_in=len(body))


class RangeGet(_SdkWorkload):
    """`s3_http.RangeGet` by the SDK."""

    def __init__(
        self,
        bucket: str,
        objects: Mapping[str, Any],
        count: int,
        range_bytes: int = 2**20,
        region: str = DEFAULT_REGION,
    ) -> None:
        plain = s3_http.RangeGet(bucket, objects, count, range_bytes, region)
        super().__init__(plain, bucket, objects, region)

    def _perform(self, index: int) -> Outcome:
        start, stop = self._plain.span(index)
        answer = self._client.get_object(Range=f"bytes={start}-{max(start, stop - 1)}", **self._names(index))
        body = answer["Body"].read()
        status = int(answer["ResponseMetadata"]["HTTPStatusCode"])
        return _counted(self._plain.interpret(index, status, body), bytes_in=len(body))


class Head(_SdkWorkload):
    """`s3_http.Head` by the SDK, which also tells the size."""

    def __init__(
        self, bucket: str, objects: Mapping[str, Any], count: int, region: str = DEFAULT_REGION
    ) -> None:
        super().__init__(s3_http.Head(bucket, objects, count, region), bucket, objects, region)

    def _perform(self, index: int) -> Outcome:
        told = int(self._client.head_object(**self._names(index))["ContentLength"])
        stored = self._objects.size(self._plain.number(index))
        if told != stored:
            return Outcome(OutcomeKind.WRONG, error=f"{told} bytes instead of {stored}")
        return Outcome()


class Put(_SdkWorkload):
    """`s3_http.Put` by the SDK, which chooses by itself whether to sign the payload."""

    def __init__(
        self,
        bucket: str,
        objects: Mapping[str, Any],
        count: int,
        payload: str = "auto",
        region: str = DEFAULT_REGION,
    ) -> None:
        super().__init__(s3_http.Put(bucket, objects, count, payload, region), bucket, objects, region)

    def _perform(self, index: int) -> Outcome:
        body = self._objects.body(self._plain.number(index))
        self._client.put_object(Body=io.BytesIO(body), **self._names(index))
        return Outcome(bytes_out=len(body))


class List(_SdkWorkload):
    """`s3_http.List` by the SDK; checked for the number of keys alone, as it decodes them itself."""

    def __init__(
        self,
        bucket: str,
        objects: Mapping[str, Any],
        count: int,
        page: int = 1000,
        region: str = DEFAULT_REGION,
    ) -> None:
        super().__init__(s3_http.List(bucket, objects, count, page, region), bucket, objects, region)
        self._page = page
        self._keys = sorted(self._objects.key(number) for number in range(count))

    def _perform(self, index: int) -> Outcome:
        first = self._plain.number(index)
        after = {"StartAfter": self._keys[first - 1]} if first else {}
        answer = self._client.list_objects_v2(
            Bucket=self._bucket, Prefix=self._objects.prefix, MaxKeys=self._page, **after
        )
        found = [item["Key"] for item in answer.get("Contents", ())]
        expected = self._keys[first : first + self._page]
        if found != expected:
            return Outcome(OutcomeKind.WRONG, error=f"a listing has {len(found)} keys, not {len(expected)}")
        return Outcome(items=len(found))


class Delete(_SdkWorkload):
    """`s3_http.Delete` by the SDK."""

    def __init__(
        self, bucket: str, objects: Mapping[str, Any], count: int, region: str = DEFAULT_REGION
    ) -> None:
        super().__init__(s3_http.Delete(bucket, objects, count, region), bucket, objects, region)

    def _perform(self, index: int) -> Outcome:
        self._client.delete_object(**self._names(index))
        return Outcome()


def _counted(outcome: Outcome, *, bytes_in: int) -> Outcome:
    return Outcome(outcome.kind, outcome.items, error=outcome.error, bytes_in=bytes_in)


def outcome_of(error: Exception) -> Outcome:
    """boto3's exception as an outcome; raised again when it is not about the exchange."""
    from botocore import exceptions as aws

    if isinstance(error, aws.ClientError):
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        kind = _CODES.get(status, OutcomeKind.SERVER_ERROR if status >= 500 else OutcomeKind.CLIENT_ERROR)
        return Outcome(kind, 0, error=f"HTTP {status} {client_error_line(error)}")
    for classes, kind in _kinds(aws):
        if isinstance(error, classes):
            return Outcome(kind, 0, error=" ".join(str(error).split())[:200])
    raise error


def _kinds(aws: Any) -> tuple[tuple[tuple[type[Exception], ...], OutcomeKind], ...]:
    return (
        ((aws.ReadTimeoutError, aws.ConnectTimeoutError), OutcomeKind.TIMEOUT),
        ((aws.EndpointConnectionError, aws.SSLError), OutcomeKind.CONNECT),
        ((aws.ConnectionError, aws.IncompleteReadError, aws.ResponseStreamingError), OutcomeKind.BROKEN),
        ((aws.HTTPClientError,), OutcomeKind.BROKEN),
    )
