"""Other load tools for LLM servers, run as their users run them, on the cores of this process.

Each is a virtual environment of its own; what it reports is read from the files that it writes.
"""

import itertools
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

_TIMEOUT_S = 180.0
_SAMPLE_S = 0.1
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Load:
    """A closed loop of `users`, until `requests` are done, against a server of this plan."""

    users: int
    requests: int
    plan: Mapping[str, Any]
    output_tokens: int = 128
    input_tokens: int = 32


@dataclass(frozen=True, slots=True)
class Report:
    """What a client said of a load, and what it cost. NaN for what it does not tell.

    `load_cpu_s` is CPU time between its first request and the end of its last, `whole_cpu_s` all that it
    spent from its start to its end; `peak_mb` the largest sum of resident memory of its processes.
    """

    ok: int
    failed: int
    tokens: int
    tokens_per_s: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    gap_p50_ms: float
    gap_p99_ms: float
    tpot_p50_ms: float
    load_cpu_s: float = NAN
    whole_cpu_s: float = NAN
    peak_mb: float = NAN


@dataclass(slots=True)
class Usage:
    """Of a process with all its descendants of the same session: sampled while it runs."""

    session: int
    at_s: list[float] = field(default_factory=list)  # time.perf_counter
    cpu_s: list[float] = field(default_factory=list)
    peak_mb: float = 0.0

    def look(self) -> None:
        at_s, cpu_ticks, pages = time.perf_counter(), 0, 0
        for folder in Path("/proc").iterdir():
            fields = _stat(folder) if folder.name.isdigit() else []
            if fields and int(fields[3]) == self.session:
                cpu_ticks += sum(map(int, fields[11:15]))  # with what its ended children took
                pages += int(fields[21])
        self.at_s.append(at_s)
        self.cpu_s.append(cpu_ticks / _TICKS_PER_S)
        self.peak_mb = max(self.peak_mb, pages * _PAGE_BYTES / 1e6)

    def between_s(self, start_s: float, end_s: float) -> float:
        """CPU time between two instants, from the samples around them."""
        return self._until(end_s) - self._until(start_s)

    def _until(self, instant_s: float) -> float:
        pairs = list(zip(self.at_s, self.cpu_s, strict=True))
        for (a_s, a_cpu_s), (b_s, b_cpu_s) in itertools.pairwise(pairs):
            if instant_s <= b_s:
                share = max(0.0, instant_s - a_s) / (b_s - a_s)
                return a_cpu_s + share * (b_cpu_s - a_cpu_s)
        return pairs[-1][1]


def _stat(folder: Path) -> list[str]:
    """The fields of /proc/PID/stat from the state on; none when the process has ended."""
    try:
        return (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


@dataclass(frozen=True, slots=True)
class Found:
    """What a tool's files say; the load lasted from `start_s` to `end_s` by time.perf_counter."""

    report: Report
    start_s: float
    end_s: float


class Peer:
    """One tool in its environment. `package` is what its version is asked of."""

    name: ClassVar[str]
    package: ClassVar[str]
    environment: ClassVar[Mapping[str, str]] = {}

    def __init__(self, folder: Path, tokenizer: Path) -> None:
        self._folder = folder
        self._tokenizer = tokenizer

    @property
    def python(self) -> Path:
        return self._folder / "bin" / "python"

    def version(self) -> str:
        """Empty when it is not there."""
        if not self.python.exists():
            return ""
        ask = f"import importlib.metadata as m; print(m.version({self.package!r}))"
        asked = subprocess.run([self.python, "-c", ask], capture_output=True, text=True, check=False)
        return asked.stdout.strip()

    def command(self, load: Load, url: str, folder: Path) -> list[str]:
        raise NotImplementedError

    def read(self, folder: Path) -> Found:
        """Raises OSError, ValueError or KeyError when it left nothing to read."""
        raise NotImplementedError

    def run(self, load: Load, url: str, folder: Path) -> Report | None:
        """None when it failed; its output is in `folder` then."""
        folder.mkdir()
        with (folder / "output").open("wb") as output:
            process = subprocess.Popen(
                self.command(load, url, folder),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": "", **self.environment},
                start_new_session=True,
            )
        usage = Usage(process.pid)
        whole_cpu_s = _watch(process, usage)
        try:
            found = self.read(folder)
        except (OSError, ValueError, KeyError, IndexError, StopIteration):
            return None
        return _with_cost(found, usage, whole_cpu_s)


def _watch(process: subprocess.Popen[bytes], usage: Usage) -> float:
    """Until it has ended: seconds of CPU that it took. What hangs is killed."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_SAMPLE_S):
            usage.look()

    usage.look()
    watcher = threading.Thread(target=look)
    watcher.start()
    killer = threading.Timer(_TIMEOUT_S, os.killpg, (process.pid, signal.SIGKILL))
    killer.start()
    try:
        _, status, spent = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        killer.cancel()
        ended.set()
        watcher.join()
    return spent.ru_utime + spent.ru_stime


def _with_cost(found: Found, usage: Usage, whole_cpu_s: float) -> Report:
    told = found.report
    return Report(
        told.ok, told.failed, told.tokens, told.tokens_per_s, told.ttft_p50_ms, told.ttft_p99_ms,
        told.gap_p50_ms, told.gap_p99_ms, told.tpot_p50_ms,
        load_cpu_s=usage.between_s(found.start_s, found.end_s), whole_cpu_s=whole_cpu_s,
        peak_mb=usage.peak_mb,
    )  # fmt: skip


class Vllm(Peer):
    name = "vllm bench serve"
    package = "vllm"
    environment: ClassVar[Mapping[str, str]] = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}

    def command(self, load: Load, url: str, folder: Path) -> list[str]:
        return [
            *(str(self.python), "-m", "vllm.entrypoints.cli.main", "bench", "serve"),
            *("--backend", "openai-chat", "--base-url", url, "--endpoint", "/v1/chat/completions"),
            *("--model", "reference", "--tokenizer", str(self._tokenizer), "--dataset-name", "random"),
            *("--random-input-len", str(load.input_tokens), "--random-output-len", str(load.output_tokens)),
            *("--num-prompts", str(load.requests), "--max-concurrency", str(load.users)),
            *("--ignore-eos", "--temperature", "0", "--ready-check-timeout-sec", "0", "--disable-tqdm"),
            *("--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,99"),
            *("--save-result", "--save-detailed", "--result-dir", str(folder)),
            *("--result-filename", "result.json"),
        ]

    def read(self, folder: Path) -> Found:
        told = json.loads((folder / "result.json").read_text())
        starts_s: Sequence[float] = told["start_times"]
        report = Report(
            ok=told["completed"],
            failed=told["failed"],
            tokens=told["total_output_tokens"],
            tokens_per_s=told["output_throughput"],
            ttft_p50_ms=told["median_ttft_ms"],
            ttft_p99_ms=told["p99_ttft_ms"],
            gap_p50_ms=told["median_itl_ms"],
            gap_p99_ms=told["p99_itl_ms"],
            tpot_p50_ms=told["median_tpot_ms"],
        )
        return Found(report, min(starts_s), min(starts_s) + told["duration"])


class Aiperf(Peer):
    name = "aiperf"
    package = "aiperf"

    def command(self, load: Load, url: str, folder: Path) -> list[str]:
        return [
            *(str(self.python.with_name("aiperf")), "profile", "--model", "reference", "--url", url),
            *("--endpoint-type", "chat", "--streaming", "--tokenizer", str(self._tokenizer)),
            *("--concurrency", str(load.users), "--request-count", str(load.requests)),
            *("--isl", str(load.input_tokens), "--isl-stddev", "0"),
            *("--osl", str(load.output_tokens), "--osl-stddev", "0"),
            *("--extra-inputs", "ignore_eos:true", "--extra-inputs", "temperature:0"),
            *("--use-server-token-count", "--artifact-dir", str(folder), "--ui", "none"),
            *("--no-gpu-telemetry", "--no-server-metrics", "--random-seed", "1"),
        ]

    def read(self, folder: Path) -> Found:
        told = json.loads(next(folder.rglob("profile_export_aiperf.json")).read_text())
        lines = next(folder.rglob("profile_export.jsonl")).read_text().splitlines()
        marks = [json.loads(line)["metadata"] for line in lines]
        shift_s = time.perf_counter() - time.time()
        report = Report(
            ok=round(told["request_count"]["avg"]),
            failed=round((told.get("error_request_count") or {}).get("avg", 0)),
            tokens=round(told["total_output_tokens"]["avg"]),
            tokens_per_s=told["output_token_throughput"]["avg"],
            ttft_p50_ms=told["time_to_first_token"]["p50"],
            ttft_p99_ms=told["time_to_first_token"]["p99"],
            gap_p50_ms=told["inter_chunk_latency"]["p50"],
            gap_p99_ms=told["inter_chunk_latency"]["p99"],
            tpot_p50_ms=told["inter_token_latency"]["p50"],
        )
        start_s = min(mark["request_start_ns"] for mark in marks) / 1e9 + shift_s
        return Found(report, start_s, max(mark["request_end_ns"] for mark in marks) / 1e9 + shift_s)


class Guidellm(Peer):
    name = "guidellm"
    package = "guidellm"
    environment: ClassVar[Mapping[str, str]] = {"HF_HUB_OFFLINE": "1"}

    def command(self, load: Load, url: str, folder: Path) -> list[str]:
        data = f"prompt_tokens={load.input_tokens},output_tokens={load.output_tokens}"
        return [
            *(str(self.python.with_name("guidellm")), "run", "--disable-console"),
            *("--backend", f"kind=openai_http,target={url},model=reference"),
            *("--profile", f"kind=concurrent,streams={load.users}"),
            *("--constraint", f"kind=max_requests,count={load.requests}"),
            *("--tokenizer", f"kind=huggingface_auto,model={self._tokenizer}"),
            *("--data", f"kind=synthetic_text,{data}"),
            *("--output", f"kind=json,path={folder / 'result.json'}"),
        ]

    def read(self, folder: Path) -> Found:
        told = json.loads((folder / "result.json").read_text())["benchmarks"][0]
        metrics, requests = told["metrics"], told["requests"]
        shift_s = time.perf_counter() - time.time()

        def stat(name: str, which: str) -> float:
            return float(metrics[name]["successful"]["percentiles"][which])

        report = Report(
            ok=len(requests["successful"]),
            failed=len(requests["errored"]),
            tokens=round(metrics["output_token_count"]["successful"]["total_sum"]),
            tokens_per_s=metrics["output_tokens_per_second"]["successful"]["mean"],
            ttft_p50_ms=stat("time_to_first_token_ms", "p50"),
            ttft_p99_ms=stat("time_to_first_token_ms", "p99"),
            gap_p50_ms=stat("inter_token_latency_ms", "p50"),
            gap_p99_ms=stat("inter_token_latency_ms", "p99"),
            tpot_p50_ms=stat("time_per_output_token_ms", "p50"),
        )
        return Found(report, told["start_time"] + shift_s, told["end_time"] + shift_s)


PEERS: Mapping[str, type[Peer]] = {"vllm": Vllm, "aiperf": Aiperf, "guidellm": Guidellm}
