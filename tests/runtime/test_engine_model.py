"""The whole engine on the default model against transformers: greedy text, up to ties."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sglc.runtime.models.config import config_from_gguf
from sglc.runtime.models.llama_gguf import LlamaGGUF
from sglc.runtime.weights.gguf import GGUFFile

transformers = pytest.importorskip("transformers")

PROMPTS = [
    "The capital of France is", "Once upon a time,", "def fibonacci(n):", "1, 2, 3, 4,",
    "Water boils at", "The three primary colours are", "To be or not to be,",
    "List two fruits:\n1.", "In 1969, the first", "The opposite of hot is",
    "A haiku about rain:\n", "import numpy as np\n", "Dear Sir or Madam,", "The sun rises in the",
    "Q: What is 2 + 2?\nA:", "Shakespeare wrote", "An apple a day", "The largest planet is",
    "Photosynthesis is the process", "def add(a, b):\n    return",
]
NEW = 64
TIE = 1e-3


@pytest.fixture(scope="module")
def peer(engine: Any) -> Any:
    """transformers' Llama over the same weights."""
    file = GGUFFile(engine.model_path)
    c = config_from_gguf(file.metadata, {n: t.shape for n, t in file.tensors.items()})
    source = LlamaGGUF(file, c)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=c.vocab_size, hidden_size=c.hidden_size,
        intermediate_size=c.intermediate_size, num_hidden_layers=c.layers,
        num_attention_heads=c.heads, num_key_value_heads=c.kv_heads,
        max_position_embeddings=c.context_length, rms_norm_eps=c.rms_eps,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta}))
    model.load_state_dict({n: source.read(n) for n in source.names()}, strict=False)
    return model.eval()


def test_greedy_text_equals_transformers(engine: Any, peer: Any) -> None:
    """20 prompts x 64 tokens in one batch; under teacher forcing every token is the best, or a
    tie."""
    ours = engine.generate(PROMPTS, sampling={
        "temperature": 0, "max_new_tokens": NEW, "ignore_eos": True})
    control = list(engine.tokenizer.special_ids - engine.tokenizer.eos_ids)
    for prompt, got in zip(PROMPTS, ours, strict=True):
        assert len(got.ids) == NEW
        ids = engine.tokenizer.encode_raw(prompt)
        full = torch.tensor([ids + got.ids])
        with torch.no_grad():
            logits = peer(full).logits[0, len(ids) - 1: -1].float()
        logits[:, control] = float("-inf")  # the engine never samples control tokens
        for i, token in enumerate(got.ids):
            gap = float(logits[i].max() - logits[i, token])
            assert gap < TIE, f"{prompt!r}: token {i} is {gap} below the best"
