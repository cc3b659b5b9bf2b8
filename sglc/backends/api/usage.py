"""How many tokens calls of remote APIs took, for a process that has OpenTelemetry set up.

The histogram is `gen_ai.client.token.usage` of the GenAI semantic conventions (repository
`semantic-conventions-genai`; in development).  A process that has not imported
`opentelemetry.metrics` reports nothing, and nothing is imported for it.
"""

from __future__ import annotations

import sys
from typing import Any

_PROVIDERS = {"OpenAI": "openai", "Anthropic": "anthropic", "Gemini": "gcp.gemini",
              "Vertex AI": "gcp.vertex_ai"}


class TokenUsage:
    """Reports one backend's calls.

    name: of the API, in `Capabilities`; model: as it is asked for; chat: whether it takes
    messages.
    """

    def __init__(self, name: str, model: str | None, chat: bool) -> None:
        kind = next((p for n, p in _PROVIDERS.items() if name.startswith(n)), "sglc")
        self._about: dict[str, Any] = {
            "gen_ai.provider.name": kind,
            "gen_ai.operation.name": "chat" if chat else "text_completion"}
        if model is not None:
            self._about["gen_ai.request.model"] = model
        self._histogram: Any = None

    def add(self, input_tokens: int, output_tokens: int) -> None:
        """Report what a call took; 0 of what the API does not count."""
        metrics = sys.modules.get("opentelemetry.metrics")
        if metrics is None:
            return
        if self._histogram is None:
            self._histogram = metrics.get_meter("sglc.backends").create_histogram(
                "gen_ai.client.token.usage", "{token}", "Tokens that calls took.")
        for kind, count in (("input", input_tokens), ("output", output_tokens)):
            if count:
                self._histogram.record(count, {**self._about, "gen_ai.token.type": kind})
