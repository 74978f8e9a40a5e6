"""Small reads by other S3 clients: run in an environment that has them, and print what they cost.

    python s3_peers.py boto3|awscrt PORT CONCURRENCY REQUESTS PATH...

Prints one JSON object: requests, seconds of CPU and of time from the first request to the last answer, and
the client's version. Needs nothing of the project.
"""

import itertools
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

ACCESS_KEY, SECRET_KEY, REGION = "aifbench", "opensesame", "us-east-1"
_WARM_UP = 200
Load = Callable[[int], None]


def boto3_load(port: int, concurrency: int, paths: Sequence[str]) -> tuple[str, Load]:
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(
            s3={"addressing_style": "path"},
            max_pool_connections=concurrency,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    names = [path.lstrip("/").split("/", 1) for path in paths]

    def work(count: int) -> None:
        for bucket, key in itertools.islice(itertools.cycle(names), count):
            client.get_object(Bucket=bucket, Key=key)["Body"].read()

    def load(count: int) -> None:
        if concurrency == 1:
            work(count)
            return
        with ThreadPoolExecutor(concurrency) as pool:
            list(pool.map(work, [count // concurrency] * concurrency))

    return f"boto3 {boto3.__version__}", load


def awscrt_load(port: int, concurrency: int, paths: Sequence[str]) -> tuple[str, Load]:
    import awscrt
    from awscrt import auth, http, io, s3

    loops = io.EventLoopGroup(1)
    bootstrap = io.ClientBootstrap(loops, io.DefaultHostResolver(loops))
    user = auth.AwsCredentialsProvider.new_static(ACCESS_KEY, SECRET_KEY)
    client = s3.S3Client(
        bootstrap=bootstrap,
        region=REGION,
        tls_mode=s3.S3RequestTlsMode.DISABLED,
        signing_config=s3.create_default_s3_signing_config(region=REGION, credential_provider=user),
    )

    def load(count: int) -> None:
        free, failed = threading.Semaphore(concurrency), list[object]()

        def done(error: object, **_: object) -> None:
            if error:
                failed.append(error)
            free.release()

        for path in itertools.islice(itertools.cycle(paths), count):
            free.acquire()
            request = http.HttpRequest("GET", path, http.HttpHeaders([("host", f"127.0.0.1:{port}")]))
            client.make_request(
                type=s3.S3RequestType.DEFAULT,
                operation_name="GetObject",
                request=request,
                on_body=lambda **_: None,
                on_done=done,
            )
        for _ in range(concurrency):
            free.acquire()
        assert not failed, failed[0]

    return f"awscrt {awscrt.__version__}", load


def main(words: Sequence[str]) -> None:
    name, port, concurrency, count, *paths = words
    make = {"boto3": boto3_load, "awscrt": awscrt_load}[name]
    version, load = make(int(port), int(concurrency), paths)
    load(_WARM_UP)
    began_s, cpu_s = time.perf_counter(), time.process_time()
    load(int(count))
    spent = {"cpu_s": time.process_time() - cpu_s, "wall_s": time.perf_counter() - began_s}
    sys.stdout.write(json.dumps({"version": version, "requests": int(count), **spent}))


if __name__ == "__main__":
    main(sys.argv[1:])
