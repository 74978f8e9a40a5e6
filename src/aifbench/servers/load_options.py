"""From a benchmark's load options to arrivals and phase settings, the same for every service."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aifbench.errors import UsageError
from aifbench.load.arrivals import AnyArrivals, Closed, Constant, Gamma, Poisson, Ramp, Trace


def arrivals_of(options: Mapping[str, Any]) -> AnyArrivals:
    """Closed loop unless a rate or a trace is given.

    Raises UsageError for options that contradict, WorkloadError for a trace that cannot be used.
    """
    rate, trace = options["rate"], options["trace"]
    if rate is not None and trace:
        raise UsageError("--rate and --trace exclude each other", hint="give one of them")
    if trace:
        replay = Trace(str(Path(trace).absolute()))
        replay.offsets_s(math.inf)  # what is wrong with it is told before anything was started
        return replay
    if rate is None:
        _refuse_open_only(options)
        return Closed(options["clients"])
    return _open_arrivals(options["arrivals"], rate, options)


def _open_arrivals(kind: str, rate_per_s: float, options: Mapping[str, Any]) -> AnyArrivals:
    if kind == "constant":
        return Constant(rate_per_s)
    if kind == "gamma":
        return Gamma(rate_per_s, options["burstiness"], options["seed"])
    if kind == "ramp":
        return Ramp(rate_per_s, options["ramp_to"] or 4 * rate_per_s)
    if options["ramp_to"] is not None:
        raise UsageError(
            f"--ramp-to is for a ramp, and the arrivals are {kind}", hint="give --arrivals ramp with it"
        )
    return Poisson(rate_per_s, options["seed"])


def _refuse_open_only(options: Mapping[str, Any]) -> None:
    if options["arrivals"] != "poisson" or options["ramp_to"] is not None:
        raise UsageError(
            f"--arrivals {options['arrivals']} is open loop and needs a rate",
            hint="give --rate, such as --rate 50",
        )


def timing_of(options: Mapping[str, Any]) -> dict[str, float]:
    """The settings of a timed phase, by their names in PhasePlan."""
    return {
        "warmup_s": options["warmup"],
        "measure_s": options["duration"],
        "drain_s": options["drain"],
        "timeout_s": options["timeout"],
    }
