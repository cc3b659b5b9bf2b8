"""A small random Llama in a folder, with a tokenizer of bytes and a chat template of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.runtime.vision_models import save_tokenizer

_TEMPLATE = ("{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
             "{% if add_generation_prompt %}[assistant] {% endif %}")


def save_llama(path: Path, layers: int = 2, hidden: int = 32, inner: int = 48) -> Path:
    """Two heads of queries and of keys, so that it can be spread over two processes."""
    vocab, rng = 264, np.random.default_rng(5)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return rng.normal(0, 0.25, (rows, columns)).astype(np.float32)

    ones = np.ones(hidden, np.float32)
    tensors = {"model.embed_tokens.weight": matrix(vocab, hidden), "model.norm.weight": ones,
               "lm_head.weight": matrix(vocab, hidden)}
    for n in range(layers):
        at = f"model.layers.{n}"
        tensors |= {f"{at}.self_attn.{p}_proj.weight": matrix(hidden, hidden) for p in "qkvo"}
        tensors |= {f"{at}.mlp.gate_proj.weight": matrix(inner, hidden),
                    f"{at}.mlp.up_proj.weight": matrix(inner, hidden),
                    f"{at}.mlp.down_proj.weight": matrix(hidden, inner),
                    f"{at}.input_layernorm.weight": ones,
                    f"{at}.post_attention_layernorm.weight": ones}
    save_tokenizer(path)
    told = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps({**told, "chat_template": _TEMPLATE}))
    (path / "config.json").write_text(json.dumps({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": vocab,
        "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 10000.0,
        "tie_word_embeddings": False, "torch_dtype": "float32"}))
    save_file(tensors, path / "model.safetensors")
    return path
