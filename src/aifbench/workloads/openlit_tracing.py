"""OpenLIT around a vendor's client, in a load worker that was asked for it: it costs time at every call.

Nothing is fetched from the network (no price list), no prompt or answer is kept, and nothing is printed:
without a receiver, spans and metrics are made and thrown away. A process stays instrumented until it ends.
"""

import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from aifbench.errors import ConfigError, ServiceError

# By the vendor's client; everything else that OpenLIT knows, HTTP libraries included, is left alone.
CHROMA, OPENAI = "chroma", "openai"
_EXPORT_TIMEOUT_S = 2.0


def instrument(client: str, telemetry: Mapping[str, str]) -> None:
    """Instrument the client library `client`, once in this process. Before the library makes a client.

    `telemetry` has the `url` of an OTLP/HTTP receiver and the `token_file` that it asks for, or neither.
    Raises ConfigError, and ServiceError for a token that cannot be read.
    """
    _instrument(client, telemetry.get("url", ""), telemetry.get("token_file", ""))


def tell_address(chroma_api: Any, url: str) -> None:
    """Let OpenLIT name Chroma's real address: it looks for a `base_url`, which Chroma's client lacks."""
    chroma_api.base_url = url


@cache
def _instrument(client: str, url: str, token_file: str) -> None:
    try:
        import openlit
        from openlit._instrumentors import MODULE_NAME_MAP
    except ImportError as error:
        raise ConfigError(
            "--instrument needs openlit", hint="pip install 'aifbench[otel]', or leave it out"
        ) from error
    _set_providers(url, _headers(token_file))
    with tempfile.NamedTemporaryFile("w", suffix=".json") as prices:
        prices.write("{}")
        prices.flush()
        openlit.init(
            application_name="aifbench",
            environment="benchmark",
            pricing_json=prices.name,
            capture_message_content=False,
            disable_events=True,
            disabled_instrumentors=[name for name in MODULE_NAME_MAP if name != client],
        )


def _headers(token_file: str) -> dict[str, str]:
    if not token_file:
        return {}
    try:
        token = Path(token_file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise ServiceError(f"cannot read the monitors' secret from {token_file}") from None
    return {"Authorization": f"Bearer {token}"}


def _set_providers(url: str, headers: dict[str, str]) -> None:
    """OpenLIT uses the providers that it finds; its own would print every span where there is no receiver."""
    from opentelemetry import _logs, metrics, trace
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider

    resource = Resource.create({SERVICE_NAME: "aifbench"})
    tracer = TracerProvider(resource=resource)
    readers = []
    if url:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        base = url.rstrip("/")
        spans = OTLPSpanExporter(f"{base}/v1/traces", headers=headers, timeout=_EXPORT_TIMEOUT_S)
        tracer.add_span_processor(BatchSpanProcessor(spans))
        values = OTLPMetricExporter(f"{base}/v1/metrics", headers=headers, timeout=_EXPORT_TIMEOUT_S)
        readers.append(PeriodicExportingMetricReader(values, export_interval_millis=5000))
    trace.set_tracer_provider(tracer)
    metrics.set_meter_provider(MeterProvider(readers, resource=resource))
    _logs.set_logger_provider(LoggerProvider(resource=resource))
