"""OpenTelemetry, where it is asked for: a span for each model request, and three histograms.

Names are those of the GenAI semantic conventions (repository `semantic-conventions-genai`; in
development).  No prompts and no answers.  A caller's `traceparent` makes the span a part of its
trace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic, time_ns
from typing import Any

from sglc.config import RunOptions
from sglc.errors import LanguageError
from sglc.serve.context import Context

OPERATIONS = {"/generate": "text_completion", "/v1/completions": "text_completion",
              "/v1/chat/completions": "chat", "/v1/programs": "invoke_agent"}
_REQUEST = {"max_tokens": "max_tokens", "temperature": "temperature", "top_p": "top_p",
            "top_k": "top_k", "seed": "seed", "stop": "stop_sequences", "n": "choice.count",
            "frequency_penalty": "frequency_penalty", "presence_penalty": "presence_penalty"}
_DEFAULT = RunOptions()


class Telemetry:
    """Reports requests to a tracer and a meter.

    tracers, meters: OpenTelemetry's providers; None for those that the process has set up.
    close: called at the end, to send what has not been sent.
    """

    def __init__(self, model: str, address: str, tracers: Any = None, meters: Any = None,
                 close: Callable[[], None] | None = None) -> None:
        from opentelemetry import metrics, propagate, trace

        self._trace = trace
        self._extract = propagate.extract
        self._tracer = trace.get_tracer("sglc.serve", tracer_provider=tracers)
        meter = metrics.get_meter("sglc.serve", meter_provider=meters)
        self._duration = meter.create_histogram(
            "gen_ai.server.request.duration", "s", "How long model requests took.")
        self._first = meter.create_histogram(
            "gen_ai.server.time_to_first_token", "s", "Until a stream's first text.")
        self._each = meter.create_histogram(
            "gen_ai.server.time_per_output_token", "s", "Of a stream's tokens after the first.")
        self._always = {"gen_ai.provider.name": "sglc", "gen_ai.request.model": model,
                        "gen_ai.response.model": model, "server.address": address}
        self._close = close

    def request(self, path: str, status: int, ended: float, context: Context,
                headers: Mapping[str, str], port: int | None = None) -> None:
        """Report a request that has been answered; `ended`: a `monotonic()` time."""
        operation = OPERATIONS.get(path)
        if operation is None:
            return
        common: dict[str, Any] = {**self._always, "gen_ai.operation.name": operation}
        if port is not None:
            common["server.port"] = port
        if status >= 400:
            common["error.type"] = context.code or str(status)
        span = self._tracer.start_span(
            f"{operation} {self._always['gen_ai.request.model']}", self._extract(headers),
            self._trace.SpanKind.SERVER, {**common, **_attributes(status, context)},
            start_time=_clock(context.began))
        if status >= 400:
            span.set_status(self._trace.StatusCode.ERROR)
        span.end(_clock(ended))
        self._duration.record(ended - context.began, common)
        if context.first is not None:
            self._first.record(context.first - context.began, common)
            if (tokens := context.completion_tokens or 0) > 1:
                self._each.record((ended - context.first) / (tokens - 1), common)

    def close(self) -> None:
        """Send what has not been sent."""
        if self._close is not None:
            self._close()


def _attributes(status: int, context: Context) -> dict[str, Any]:
    out: dict[str, Any] = {"http.response.status_code": status, "sglc.request.id": context.id}
    if context.options is not None:
        for ours, theirs in _REQUEST.items():
            value = getattr(context.options, ours)
            if value != getattr(_DEFAULT, ours):
                out[f"gen_ai.request.{theirs}"] = value
    for name, value in (("response.id", context.response_id),
                        ("response.finish_reasons", context.finish_reasons or None),
                        ("usage.input_tokens", context.prompt_tokens),
                        ("usage.output_tokens", context.completion_tokens),
                        ("usage.cache_read.input_tokens", context.cached_tokens)):
        if value is not None:
            out[f"gen_ai.{name}"] = value
    return out


def _clock(moment: float) -> int:
    """A `monotonic()` time as nanoseconds since 1970."""
    return time_ns() - int((monotonic() - moment) * 1e9)


def exporting(model: str, address: str, endpoint: str) -> Telemetry:
    """Telemetry sent to a collector by OTLP over HTTP.  LanguageError SGLC008 without the SDK."""
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise LanguageError("SGLC008", "--otlp-endpoint needs the 'otel' extra", why=str(error),
                            fixes=("pip install 'sglc[otel]'",)) from None
    base = endpoint.rstrip("/")
    resource = Resource.create({"service.name": "sglc"})
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(base + "/v1/traces")))
    meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter(
        base + "/v1/metrics"))], resource)

    def close() -> None:
        tracers.shutdown()
        meters.shutdown()

    return Telemetry(model, address, tracers, meters, close)
