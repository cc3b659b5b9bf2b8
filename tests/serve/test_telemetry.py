"""OpenTelemetry spans and metrics, by the names of the GenAI conventions."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sglc.errors import LanguageError
from sglc.serve import telemetry
from tests.serve.servers import Running, running

sdk = pytest.importorskip("opentelemetry.sdk.trace")


@pytest.fixture
def reporting() -> Iterator[tuple[Running, Any, Any]]:
    """(a server, what holds its spans, what holds its metrics)."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans, numbers = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = sdk.TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    with running() as server:
        server.service.telemetry = telemetry.Telemetry(
            "hash", "127.0.0.1", tracers, MeterProvider([numbers]))
        yield server, spans, numbers


def eventually(what: Callable[[], Any], size: int) -> Any:
    """What is there once it has `size` parts: a client may have its answer a moment before the
    report is made."""
    end = time.monotonic() + 10
    while len(found := what()) < size and time.monotonic() < end:
        time.sleep(0.01)
    return found


def test_a_span_for_each_model_request(reporting: Any) -> None:
    server, spans, _ = reporting
    secret = "the-secret-of-the-prompt"
    server.get("/health")
    trace = "0af7651916cd43dd8448eb211c80319c"
    _, answer, _ = server.post("/v1/chat/completions", {
        "messages": [{"role": "user", "content": secret}], "max_tokens": 5, "temperature": 0.5,
        "top_p": 0.9, "seed": 3, "stop": ["zz"], "n": 2},
        {"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    server.post("/generate", {"text": secret, "stream": True})
    server.post("/v1/completions", {"prompt": secret, "temperature": 9})
    chat, native, failed = eventually(spans.get_finished_spans, 3)
    seen = dict(chat.attributes)
    assert chat.name == "chat hash" and chat.kind.name == "SERVER"
    assert f"{chat.context.trace_id:032x}" == trace
    assert chat.end_time > chat.start_time
    assert {k: seen[k] for k in seen if k.startswith(("gen_ai.", "server."))} == {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "sglc",
        "gen_ai.request.model": "hash", "gen_ai.response.model": "hash",
        "gen_ai.request.max_tokens": 5, "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9, "gen_ai.request.seed": 3,
        "gen_ai.request.stop_sequences": ("zz",), "gen_ai.request.choice.count": 2,
        "gen_ai.response.id": answer["id"],
        "gen_ai.response.finish_reasons": seen["gen_ai.response.finish_reasons"],
        "gen_ai.usage.input_tokens": answer["usage"]["prompt_tokens"],
        "gen_ai.usage.output_tokens": answer["usage"]["completion_tokens"],
        "gen_ai.usage.cache_read.input_tokens": seen["gen_ai.usage.cache_read.input_tokens"],
        "server.address": "127.0.0.1", "server.port": int(server.url.rpartition(":")[2])}
    assert len(seen["gen_ai.response.finish_reasons"]) == 2
    assert native.attributes["gen_ai.operation.name"] == "text_completion"
    assert failed.attributes["error.type"] == "invalid_value" and not failed.status.is_ok
    assert secret not in "".join(s.to_json() for s in spans.get_finished_spans())


def test_metrics(reporting: Any) -> None:
    server, _, numbers = reporting
    server.post("/generate", {"text": "x", "stream": True, "sampling_params": {
        "max_new_tokens": 8, "ignore_eos": True}})

    def reported() -> dict[str, Any]:
        data = numbers.get_metrics_data()
        return {} if data is None else {
            m["name"]: m for r in json.loads(data.to_json())["resource_metrics"]
            for s in r["scope_metrics"] for m in s["metrics"]}

    found = eventually(reported, 3)
    assert set(found) == {"gen_ai.server.request.duration", "gen_ai.server.time_to_first_token",
                          "gen_ai.server.time_per_output_token"}
    for metric in found.values():
        (point,) = metric["data"]["data_points"]
        assert point["count"] == 1 and point["sum"] > 0
        assert point["attributes"]["gen_ai.operation.name"] == "text_completion"
        assert metric["unit"] == "s"


def test_without_the_exporter_the_flag_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter", None)
    with pytest.raises(LanguageError, match="otel"):
        telemetry.exporting("m", "127.0.0.1", "http://localhost:4318")
