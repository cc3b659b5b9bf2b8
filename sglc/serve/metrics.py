"""Counters and timings for Prometheus, by the names that other engines use (prefix `sglc:`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from sglc.passes.manager import PassRecord
from sglc.runtime.request import Result

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_PASSES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3)
_GAPS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """One server's metrics, in a registry of their own."""

    def __init__(self, model: str, service: Any) -> None:
        self.registry = CollectorRegistry()
        self._model = model
        label = ["model_name"]

        def counter(name: str, text: str, *labels: str) -> Any:
            made = Counter(f"sglc:{name}", text, [*label, *labels], registry=self.registry)
            return made if labels else made.labels(model)

        def histogram(name: str, text: str, buckets: tuple[float, ...] = _SECONDS) -> Any:
            return Histogram(f"sglc:{name}", text, label, buckets=buckets,
                             registry=self.registry).labels(model)

        self.http = counter("http_requests", "Answers, by route and status.", "path", "status")
        self.http_active: Any = Gauge("sglc:http_requests_active", "Requests being answered.",
                                      label, registry=self.registry).labels(model)
        self.success = counter("request_success", "Model requests that ended well.",
                               "finished_reason")
        self.aborted = counter("aborted", "Requests given up.", "reason")
        self.rejected = counter("rejected", "Requests turned away.", "code")
        self.generated = counter("generation_tokens", "Tokens generated, forced ones included.")
        self.prompt = counter("prompt_tokens", "Tokens of prompts.")
        self.first_token = histogram("time_to_first_token_seconds", "Of streams.")
        self.gap = histogram("inter_token_latency_seconds", "Mean of a stream's tokens.", _GAPS)
        self.latency = histogram("e2e_request_latency_seconds", "Requests for generation.")
        self.queue = histogram("queue_time_seconds", "Until the engine takes a request up.")
        self.passes: Any = Histogram(
            "sglc:compile_pass_seconds", "Of the compiler, for programs that were posted.",
            [*label, "pass"], buckets=_PASSES, registry=self.registry)
        self.grammar_seconds = histogram("grammar_compilation_seconds",
                                         "Constraints and programs.")
        self.registry.register(_EngineCollector(model, service))

    def ended(self, result: Result) -> None:
        """Count a result."""
        self.success.labels(self._model, result.finish_reason).inc()
        self.generated.inc(result.output_tokens)
        self.prompt.inc(result.prompt_tokens)

    def lowered(self, records: Iterable[PassRecord]) -> None:
        """Count what the compiler's passes took."""
        for record in records:
            self.passes.labels(self._model, record.name).observe(record.seconds)

    def answered(self, path: str, status: int) -> None:
        self.http.labels(self._model, path, str(status)).inc()

    def gave_up(self, reason: str) -> None:
        self.aborted.labels(self._model, reason).inc()

    def turned_away(self, code: str) -> None:
        self.rejected.labels(self._model, code).inc()

    def text(self) -> bytes:
        """The exposition format.  Takes the engine's lock for a moment."""
        return generate_latest(self.registry)


class _EngineCollector:
    """The engine's own numbers, read when they are asked for."""

    def __init__(self, model: str, service: Any) -> None:
        self._model = model
        self._service = service

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        stats = self._service.backend.stats()
        running, waiting = self._service.backend.core.load()
        for name, text, value in (
                ("num_running_reqs", "Sequences in the running batch.", running),
                ("num_queue_reqs", "Requests that wait for the engine.", waiting),
                ("kv_cache_usage_perc", "Share of the KV pool in use by running sequences.",
                 stats.kv_in_use / stats.kv_total),
                ("kv_tokens_free", "Free KV slots.", stats.kv_free),
                ("kv_tokens_cached", "KV slots kept for reuse.", stats.kv_cached)):
            gauge = GaugeMetricFamily(f"sglc:{name}", text, labels=["model_name"])
            gauge.add_metric([self._model], value)
            yield gauge
        for name, text, value in (
                ("prefix_cache_queries", "Prompt tokens looked up.",
                 stats.cached_tokens + stats.prefill_tokens),
                ("prefix_cache_hits", "Prompt tokens found.", stats.cached_tokens),
                ("prefill_tokens", "Prompt tokens computed.", stats.prefill_tokens),
                ("forced_tokens", "Tokens appended without sampling.", stats.forced_tokens),
                ("forward_passes", "Steps of the model.", stats.forward_passes),
                ("failed_steps", "Steps of the model that ended in an error.",
                 stats.failed_steps),
                ("retracted", "Sequences sent back to wait.", stats.retractions),
                ("worker_restarts", "Times the server was started again (--restart).",
                 self._service.restarts)):
            counter = CounterMetricFamily(f"sglc:{name}", text, labels=["model_name"])
            counter.add_metric([self._model], value)
            yield counter
