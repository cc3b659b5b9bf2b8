"""`gen_ai.client.token.usage`: what calls of remote APIs took, for OpenTelemetry."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import sglc as sgl
from sglc.backends.api.usage import TokenUsage
from tests.backends.api_stub import Stub, serve

sdk = pytest.importorskip("opentelemetry.sdk.metrics")


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    yield from serve()


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What holds the metrics of the process."""
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    provider = sdk.MeterProvider([reader])
    monkeypatch.setattr(metrics, "get_meter", provider.get_meter)
    return reader


@pytest.mark.parametrize(("kind", "provider", "operation"), [
    ("openai", "openai", "chat"), ("completion", "openai", "text_completion"),
    ("anthropic", "anthropic", "chat"), ("gemini", "gcp.gemini", "chat")])
def test_calls_are_reported(stub: Stub, numbers: Any, kind: str, provider: str,
                            operation: str) -> None:
    @sgl.program
    def ask(s: Any) -> None:
        s += sgl.user("How are you?")
        s += sgl.assistant(sgl.gen("a", max_tokens=8))

    stub.reset()
    backend: Any = {
        "openai": lambda: sgl.OpenAI("stub", base_url=stub.url + "/v1", api_key="k"),
        "completion": lambda: sgl.OpenAI("stub", api_type="completion",
                                         base_url=stub.url + "/v1", api_key="k"),
        "anthropic": lambda: sgl.Anthropic("stub", base_url=stub.url, api_key="k"),
        "gemini": lambda: sgl.VertexAI("stub", base_url=stub.url, api_key="k")}[kind]()
    with backend:
        ask.run_batch([{}, {}], backend=backend)
        stats = backend.stats()
    (metric,) = [m for r in json.loads(numbers.get_metrics_data().to_json())["resource_metrics"]
                 for s in r["scope_metrics"] for m in s["metrics"]]
    assert metric["name"] == "gen_ai.client.token.usage" and metric["unit"] == "{token}"
    points = {p["attributes"].pop("gen_ai.token.type"): p for p in metric["data"]["data_points"]}
    assert {k: p["sum"] for k, p in points.items()} == {
        "input": stats.prompt_tokens, "output": stats.completion_tokens}
    assert all(p["count"] == 2 and p["attributes"] == {
        "gen_ai.provider.name": provider, "gen_ai.operation.name": operation,
        "gen_ai.request.model": "stub"} for p in points.values())


def test_without_it_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.metrics", raising=False)
    TokenUsage("OpenAI", "m", True).add(3, 4)
    assert "opentelemetry.metrics" not in sys.modules
