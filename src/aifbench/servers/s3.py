"""S3, object storage: versitygw in a container or `rclone serve s3`, on one node; or what is attached."""

from collections.abc import Mapping
from contextlib import closing
from typing import Any, ClassVar

from aifbench.cluster.endpoint import Endpoint
from aifbench.errors import BenchError
from aifbench.options import Option
from aifbench.servers.attached import KeyFile
from aifbench.servers.base import Probe, SlurmServer
from aifbench.servers.benchmark import Benchmark, BenchmarkContext
from aifbench.servers.s3_options import BENCH_OPTIONS

_PROBE_TIMEOUT_S = 2.0
_DEFAULT_REGION = "us-east-1"


def _are_credentials(text: str) -> bool:
    from aifbench.workloads.s3_control import parse_credentials

    return parse_credentials(text) is not None


class S3Server(SlurmServer):
    """One S3 gateway over a directory, and its put, get, range, head, list, delete, multipart ones."""

    kind: ClassVar[str] = "s3"
    description: ClassVar[str] = "S3 object storage: put, get, ranges, lists, multipart and mixed load"
    script: ClassVar[str] = "start_s3.sh"
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            "software",
            "gateway: versitygw (from its image), rclone, or what is there",
            default="auto",
            choices=("auto", "versitygw", "rclone"),
            metavar="NAME",
        ),
    )
    benches: ClassVar[tuple[str, ...]] = (
        *("all", "put", "get", "range", "head", "list", "delete", "multipart", "mixed"),
    )
    steady_benches: ClassVar[tuple[str, ...]] = ("get", "range", "head", "list")
    bench_options: ClassVar[tuple[Option, ...]] = BENCH_OPTIONS
    attachable: ClassVar[bool] = True
    attach_options: ClassVar[tuple[Option, ...]] = (
        Option("region", "region to sign for", default=_DEFAULT_REGION, metavar="NAME"),
    )

    attach_key: ClassVar[KeyFile | None] = KeyFile(
        Option(
            "access-key-file",
            "file with access key and secret key, on two lines or as access:secret, readable by you alone",
            default="",
            metavar="FILE",
        ),
        is_valid=_are_credentials,
        holds="an access key and a secret key, on two lines or as access:secret",
    )

    @classmethod
    def environment(cls, options: Mapping[str, Any]) -> dict[str, str]:
        return {"AIFBENCH_S3_SOFTWARE": options["software"]}

    @property
    def region(self) -> str:
        return str(self.instance.options.get("region") or _DEFAULT_REGION)

    def probe(self, endpoint: Endpoint) -> Probe:
        """Lists the buckets, signed: a server that does not check signatures well would not get this far."""
        from aifbench.workloads.s3_control import S3Control

        try:
            with closing(S3Control(endpoint, self.region, timeout_s=_PROBE_TIMEOUT_S)) as control:
                return Probe(is_ready=True, version=control.heartbeat())
        except BenchError as error:
            return Probe(is_ready=False, detail=str(error))

    def describe(self) -> dict[str, Any]:
        key = {"key_option": "access-key-file"} if self.instance.is_attached else {}
        return {**super().describe(), **key}

    def benchmark(self, bench: str, options: Mapping[str, Any], context: BenchmarkContext) -> Benchmark:
        from aifbench.servers.s3_bench import S3Benchmark

        return S3Benchmark(bench, options, context, self.region)
