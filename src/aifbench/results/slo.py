"""Service level objectives: what a request has to meet, which requests did, and how many per second.

Light to import (no numpy): options are parsed at the prompt.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from aifbench.errors import UsageError
from aifbench.options import nearest
from aifbench.units import parse_duration_s

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from aifbench.stats.intervals import Estimate

_LIMITS = ("ttft", "tpot", "e2e")
_LOWEST_SHARE, _HIGHEST_SHARE = 0.5, 0.9999
_SHAPE = "limits such as `ttft=2s,tpot=200ms,e2e=10s,share=99%`, or a preset such as `mlperf:llama2-70b`"


@dataclass(frozen=True, slots=True)
class Slo:
    """Limits in milliseconds (None: not limited) and the share of requests that has to meet all of them.

    `str()` gives the text that `parse_slo` reads.
    """

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None
    share: float = 0.99
    name: str = field(default="", compare=False)

    @property
    def limits_ms(self) -> dict[str, float]:
        """Those that are given, by name."""
        values = zip(_LIMITS, (self.ttft_ms, self.tpot_ms, self.e2e_ms), strict=True)
        return {name: value for name, value in values if value is not None}

    @property
    def words(self) -> str:
        """`TTFT <= 2 s and TPOT <= 200 ms for 99 % of requests`, and the preset's name where there is one."""
        limits = " and ".join(f"{name.upper()} <= {_time(ms, ' ')}" for name, ms in self.limits_ms.items())
        source = f" ({self.name})" if self.name else ""
        return f"{limits} for {100 * self.share:g} % of requests{source}"

    def __str__(self) -> str:
        limits = (f"{name}={_time(ms)}" for name, ms in self.limits_ms.items())
        return ",".join((*limits, f"share={100 * self.share:g}%"))

    def met(
        self,
        ttft_ms: "NDArray[Any]",
        tpot_ms: "NDArray[Any]",
        e2e_ms: "NDArray[Any]",
        ok: "NDArray[np.bool_]",
    ) -> "NDArray[np.bool_]":
        """Which requests met every limit; arrays of one shape, NaN where a request has no such value.

        A request that failed, or lacks a value that a limit needs, did not. The one exception: an answer that
        came at once (one token, or all in one event) has no TPOT. It meets the TPOT limit if its E2E, all of
        it time to the first token, is within the TTFT and E2E limits there are; with neither of them nothing
        speaks for it, and it does not. Tools differ: vLLM counts such an answer's TPOT as 0, which is good;
        AIPerf counts it as bad; GuideLLM leaves it out.
        """
        import numpy as np

        good = np.asarray(ok, bool).copy()
        for limit_ms, values_ms in ((self.ttft_ms, ttft_ms), (self.e2e_ms, e2e_ms)):
            if limit_ms is not None:
                good &= values_ms <= limit_ms
        if self.tpot_ms is not None:
            whole_ms = [limit_ms for limit_ms in (self.ttft_ms, self.e2e_ms) if limit_ms is not None]
            at_once = np.isnan(tpot_ms) & (e2e_ms <= min(whole_ms, default=-1.0))
            good &= (tpot_ms <= self.tpot_ms) | at_once
        return good

    @staticmethod
    def attainment(met: int, requests: int) -> "Estimate | None":
        """The share of requests that met the objective, with Wilson's interval; None without requests."""
        from aifbench.stats.intervals import proportion

        return proportion(met, requests)


# MLCommons, MLPerf Inference rules (inference_rules.adoc in mlcommons/inference_policies), constraints of the
# Server and Interactive scenarios on the 99th percentile; a valid run lasts 600 s at least.
PRESETS: Mapping[str, Slo] = {
    name: Slo(ttft_ms=ttft_ms, tpot_ms=tpot_ms, share=0.99, name=name)
    for name, ttft_ms, tpot_ms in (
        ("mlperf:llama2-70b", 2000, 200),
        ("mlperf:llama2-70b-interactive", 450, 40),
        ("mlperf:llama3.1-8b", 2000, 100),
        ("mlperf:llama3.1-8b-interactive", 500, 30),
        ("mlperf:llama3.1-405b", 6000, 175),
        ("mlperf:llama3.1-405b-interactive", 4500, 80),
        ("mlperf:mixtral-8x7b", 2000, 200),
        ("mlperf:deepseek-r1", 2000, 80),
        ("mlperf:deepseek-r1-interactive", 1500, 15),
        ("mlperf:gpt-oss-120b", 3000, 80),
        ("mlperf:gpt-oss-120b-interactive", 2000, 15),
    )
}


def parse_slo(text: str, what: str = "--slo") -> Slo:
    """An objective from `ttft=2s,tpot=200ms,e2e=10s,share=99%` or a preset's name. Raises UsageError.

    Times need a unit: tools differ in whether a bare number means seconds or milliseconds. The share is a
    percentage, a percentile (`p99`) or a number below 1, and 99 % when not given.
    """
    typed = text.strip()
    if typed.lower() in PRESETS:
        return PRESETS[typed.lower()]
    if "=" not in typed:
        near = nearest(typed.lower(), PRESETS)
        raise UsageError(
            f"{what} {text!r} is no known objective{near}", hint=f"presets: {', '.join(PRESETS)}"
        )
    slo, given = Slo(), set[str]()
    for part in typed.split(","):
        name, _, value = (piece.strip() for piece in part.lower().partition("="))
        if name in given:
            raise UsageError(f"{what} {text!r} gives {name} twice", hint=f"give {_SHAPE}")
        given.add(name)
        slo = _with(slo, name, value, what)
    if not slo.limits_ms:
        raise UsageError(f"{what} {text!r} limits nothing", hint=f"give {_SHAPE}")
    return slo


def _with(slo: Slo, name: str, value: str, what: str) -> Slo:
    if name == "share":
        return replace(slo, share=_share(value, what))
    if name not in _LIMITS:
        known = (*_LIMITS, "share")
        raise UsageError(f"{what} has the unknown part {name!r}{nearest(name, known)}", hint=f"give {_SHAPE}")
    if re.fullmatch(r"[0-9.]+", value):
        raise UsageError(
            f"{what} {name}={value} has no unit", hint=f"write {name}={value}ms or {name}={value}s"
        )
    given: dict[str, Any] = {f"{name}_ms": round(1000 * parse_duration_s(value, f"{what} {name}"), 6)}
    return replace(slo, **given)


def _share(value: str, what: str) -> float:
    match = re.fullmatch(r"(?P<percentile>p?)(?P<number>\d+(?:\.\d*)?|\.\d+)\s*(?P<percent>%?)", value)
    share = float(match["number"]) if match else 0.0
    if match and (match["percentile"] or match["percent"]):
        share = round(share / 100, 9)
    if not _LOWEST_SHARE <= share <= _HIGHEST_SHARE:
        hint = f"give {100 * _LOWEST_SHARE:g}% to {100 * _HIGHEST_SHARE:g}%, such as 99%, p99 or 0.99"
        raise UsageError(f"{what} share={value} is out of range", hint=hint)
    return share


def _time(value_ms: float, space: str = "") -> str:
    if value_ms >= 1000:
        return f"{value_ms / 1000:.12g}{space}s"
    return f"{value_ms:.12g}{space}ms"


def goodput(
    met: "NDArray[np.bool_]", finished_ns: "NDArray[np.int64]", start_ns: int, end_ns: int
) -> "Estimate | None":
    """Requests per second that finished in (start, end] and met the objective, with interval.

    `met` and `finished_ns` are of the same requests. None for an empty window.
    """
    from aifbench.stats.intervals import Estimate, rate

    per_ns = rate(finished_ns[met], start_ns, end_ns)
    if per_ns is None:
        return None
    low, high = (None if edge is None else 1e9 * edge for edge in (per_ns.low, per_ns.high))
    return Estimate(1e9 * per_ns.value, low, high, per_ns.n)
