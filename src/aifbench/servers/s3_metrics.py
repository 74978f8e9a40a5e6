"""What S3's measurements say beyond the usual: first bytes, data rates, and all of it by kind of object.

Computed from the samples of a phase: which object an operation was about follows from its index.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifbench.load.samples import Samples
from aifbench.load.workload import NOT_SEEN
from aifbench.results.metrics import metric_of
from aifbench.results.record import Metric
from aifbench.stats.intervals import quantile, rate
from aifbench.workloads.s3_objects import bucket_label

_PERCENTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
_NS_TO_MS = 1e-6
_PER_NS_TO_MIB_PER_S = 1e9 / 2**20


def object_metrics(
    samples: Samples,
    window_s: tuple[float, float],
    size_of: Callable[[int], int],
    kind_of: Callable[[int], str],
    *,
    open_loop: bool,
) -> Iterator[Metric]:
    """ttfb_..., data_rate, and each kind's and size's own rate and latencies where there are several.

    All of operations that succeeded and were intended within the window, as the latencies are.
    """
    start_ns, end_ns = (edge * 1e9 for edge in window_s)
    chosen = samples.select(samples.ok & (samples.intended_ns >= start_ns) & (samples.intended_ns <= end_ns))
    sizes = np.array([size_of(int(index)) for index in chosen.index], np.int64)
    yield from _first_bytes("ttfb", chosen, np.ones(len(chosen), bool), open_loop=open_loop)
    if sizes.any():
        yield _data_rate("data_rate", chosen.finished_ns, sizes, start_ns, end_ns)
    kinds = np.array([kind_of(int(index)) for index in chosen.index], str)
    # What moves no content, such as a deletion, has no size.
    labels = np.array([bucket_label(int(size)) if size else "" for size in sizes], str)
    for names, order in ((kinds, np.argsort(kinds)), (labels, np.argsort(sizes))):
        found = [name for name in dict.fromkeys(names[order].tolist()) if name]
        for name in found if len(found) > 1 else []:
            group = (chosen, sizes, names == name, start_ns, end_ns)
            yield from _of_group(f" [{name}]", *group, open_loop=open_loop)


def host_balance(samples: Samples, window_s: tuple[float, float], hosts: Sequence[str]) -> Iterator[Metric]:
    """host_balance, where several hosts made the load; `hosts` names that of each worker.

    By worker, as hosts may have more or fewer of them.
    """
    names = sorted(set(hosts) - {""})  # a worker that was lost has none
    if len(names) < 2:
        return
    start_ns, end_ns = (edge * 1e9 for edge in window_s)
    counted = samples.ok & (samples.finished_ns >= start_ns) & (samples.finished_ns <= end_ns)
    each = np.bincount(samples.worker[counted], minlength=len(hosts))[: len(hosts)]
    per_worker = {
        name: float(np.mean([done for done, host in zip(each, hosts, strict=True) if host == name]))
        for name in names
    }
    slowest, fastest = (choose(names, key=per_worker.__getitem__) for choose in (min, max))
    if not per_worker[fastest]:
        return
    rates = (f"{host} {per_worker[host] * 1e9 / (end_ns - start_ns):,.4g}" for host in (slowest, fastest))
    yield Metric(
        "host_balance",
        per_worker[slowest] / per_worker[fastest],
        "x",
        "higher",
        n=int(counted.sum()),
        note=f"operations/s of a worker: {', '.join(rates)}",
    )


def chain_metrics(name: str, samples: Samples, steps: int) -> Iterator[Metric]:
    """name_p50, ...: from sending the first of so many steps to the end of the last, where both succeeded."""
    sent, ended = (np.full(samples.index.max(initial=-1) // steps + 1, NOT_SEEN, np.int64) for _ in range(2))
    good = samples.select(samples.ok)
    chain, step = np.divmod(good.index, steps)
    sent[chain[step == 0]] = good.sent_ns[step == 0]
    ended[chain[step == steps - 1]] = good.finished_ns[step == steps - 1]
    ordered = np.sort((ended - sent)[(sent != NOT_SEEN) & (ended != NOT_SEEN)])
    for percentile, q in _PERCENTILES:
        estimate = quantile(ordered, q)
        if estimate is not None:
            yield metric_of(f"{name}_{percentile}", "ms", "lower", estimate, _NS_TO_MS)


def _of_group(
    suffix: str,
    samples: Samples,
    sizes: NDArray[np.int64],
    mask: NDArray[np.bool_],
    start_ns: float,
    end_ns: float,
    *,
    open_loop: bool,
) -> Iterator[Metric]:
    finished = samples.finished_ns[mask]
    yield metric_of(f"throughput{suffix}", "ops/s", "higher", rate(finished, start_ns, end_ns), 1e9)
    if sizes[mask].any():
        yield _data_rate(f"data_rate{suffix}", finished, sizes[mask], start_ns, end_ns)
    from_ns = samples.intended_ns if open_loop else samples.sent_ns
    ordered = np.sort((samples.finished_ns - from_ns)[mask])
    kind = "response" if open_loop else "service"
    for name, q in _PERCENTILES:
        estimate = quantile(ordered, q)
        if estimate is not None:
            yield metric_of(f"{kind}_{name}{suffix}", "ms", "lower", estimate, _NS_TO_MS)
    yield from _first_bytes("ttfb", samples, mask, suffix, open_loop=open_loop)


def _first_bytes(
    name: str, samples: Samples, mask: NDArray[np.bool_], suffix: str = "", *, open_loop: bool
) -> Iterator[Metric]:
    """From when the request was sent or, in open loop, intended, to the first byte of its answer."""
    from_ns = samples.intended_ns if open_loop else samples.sent_ns
    seen = mask & (samples.first_byte_ns != NOT_SEEN)
    ordered = np.sort((samples.first_byte_ns - from_ns)[seen])
    for percentile, q in _PERCENTILES:
        estimate = quantile(ordered, q)
        if estimate is not None:
            yield metric_of(f"{name}_{percentile}{suffix}", "ms", "lower", estimate, _NS_TO_MS)


def _data_rate(name: str, finished_ns: Any, sizes: Any, start_ns: float, end_ns: float) -> Metric:
    estimate = rate(finished_ns, start_ns, end_ns, amounts=sizes)
    return metric_of(name, "MiB/s", "higher", estimate, _PER_NS_TO_MIB_PER_S)
