"""Benchmarks through an instrumented client: only when asked for, and told in the record."""

from collections.abc import Mapping
from typing import Any

from aifbench.errors import UsageError
from aifbench.load.plan import StreamPlan
from aifbench.options import Option
from aifbench.results.record import Check, Verdict

INSTRUMENT_OPTION = Option(
    "instrument", "with --via sdk: trace the client by OpenLIT, which slows it", default=False, flag=True
)


def instrument_params(options: Mapping[str, Any]) -> dict[str, Any]:
    """What the workload is told: `instrument` is where its telemetry goes, and absent without --instrument.

    Raises UsageError where there is nothing to instrument.
    """
    if not options.get("instrument"):
        return {}
    if options["via"] != "sdk":
        raise UsageError("--instrument is about the vendor's client", hint="add --via sdk")
    return {"instrument": dict(options.get("telemetry") or {})}


def via_of(options: Mapping[str, Any]) -> str:
    """The client as a record names it."""
    return f"{options['via']}, instrumented" if options.get("instrument") else str(options["via"])


def traced_checks(stream: StreamPlan) -> tuple[Check, ...]:
    """A warning with every stream whose client was instrumented."""
    telemetry = stream.params.get("instrument")
    if telemetry is None:
        return ()
    where = f"spans went to {telemetry['url']}" if telemetry.get("url") else "nobody received the spans"
    return (
        Check(
            "TRACED",
            Verdict.WARN,
            f"OpenLIT instrumented the client ({where}), which adds tenths of a millisecond to an operation,"
            " more to long streams: these are not the service's latencies",
            advice="measure without --instrument; python -m test.perf.trace_cost tells the cost here",
        ),
    )
