"""GGUF files of transformers' models, as llama.cpp's converter writes them, in float32."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp", "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp", "mlp.gate": "ffn_gate_inp",
}
GEMMA2 = {"post_attention_layernorm": "post_attention_norm",
          "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm"}
ARCHITECTURES = {"mistral": "llama", "mixtral": "llama", "qwen2_moe": "qwen2moe",
                 "qwen3_moe": "qwen3moe"}


def write_gguf(path: Path, model: Any, tokenizer: dict[str, Any] | None = None) -> Path:
    """tokenizer: metadata, as a reader gives it."""
    c = model.config
    arch = ARCHITECTURES.get(c.model_type, c.model_type)
    w = gguf.GGUFWriter(path, arch)
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_block_count(c.num_hidden_layers)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads)
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    w.add_key_length(head_dim)
    w.add_value_length(head_dim)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    w.add_rope_freq_base(c.rope_parameters["rope_theta"])
    if count := getattr(c, "num_local_experts", None) or getattr(c, "num_experts", None):
        w.add_expert_count(count)
        w.add_expert_used_count(c.num_experts_per_tok)
        if hasattr(c, "moe_intermediate_size"):
            w.add_expert_feed_forward_length(c.moe_intermediate_size)
        if hasattr(c, "shared_expert_intermediate_size"):
            w.add_expert_shared_feed_forward_length(c.shared_expert_intermediate_size)
    if getattr(c, "sliding_window", None):
        w.add_sliding_window(c.sliding_window)
    if arch == "gemma2":
        w.add_attn_logit_softcapping(c.attn_logit_softcapping)
        w.add_final_logit_softcapping(c.final_logit_softcapping)
    _add_rope(w, c.rope_parameters, head_dim)
    for key, value in (tokenizer or {}).items():
        kind = gguf.GGUFValueType.UINT32 if type(value) is int else gguf.GGUFValueType.get_type(
            value)
        w.add_key_value(key, value, kind)
    names = {**NAMES, **(GEMMA2 if arch == "gemma2" else {})}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        for own, value in _tensors(name, tensor, names):
            if arch == "llama" and (".attn_q." in own or ".attn_k." in own):
                heads = c.num_attention_heads if ".attn_q." in own else c.num_key_value_heads
                value = value.view(heads, 2, -1, *value.shape[1:]).transpose(1, 2).reshape(
                    value.shape)
            if arch.startswith("gemma") and own.endswith("norm.weight"):
                value = value + 1
            w.add_tensor(own, np.ascontiguousarray(value.numpy()))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


def _tensors(name: str, tensor: torch.Tensor, names: dict[str, str]
             ) -> list[tuple[str, torch.Tensor]]:
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight":
             "output_norm.weight", "lm_head.weight": "output.weight"}
    if name in whole:
        return [(whole[name], tensor)]
    _, _, layer, rest = name.split(".", 3)
    at = f"blk.{layer}"
    if rest == "mlp.experts.gate_up_proj":
        gate, up = tensor.chunk(2, 1)
        return [(f"{at}.ffn_gate_exps.weight", gate), (f"{at}.ffn_up_exps.weight", up)]
    if rest == "mlp.experts.down_proj":
        return [(f"{at}.ffn_down_exps.weight", tensor)]
    part, kind = rest.rsplit(".", 1)
    return [(f"{at}.{names[part]}.{kind}", tensor[0] if part == "mlp.shared_expert_gate"
             else tensor)]


def _add_rope(w: gguf.GGUFWriter, rope: dict[str, Any], head_dim: int) -> None:
    kind = rope["rope_type"]
    if kind in ("linear", "yarn"):
        w.add_rope_scaling_type(gguf.RopeScalingType(kind))
        w.add_rope_scaling_factor(rope["factor"])
    if kind == "yarn":
        w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if kind == "llama3":  # as a tensor of divisors
        factors = []
        for i in range(0, head_dim, 2):
            wave = 2 * math.pi * rope["rope_theta"] ** (i / head_dim)
            fits = rope["original_max_position_embeddings"] / wave
            low, high = rope["low_freq_factor"], rope["high_freq_factor"]
            share = min(max((fits - low) / (high - low), 0.0), 1.0)
            factors.append(1 / ((1 - share) / rope["factor"] + share))
        w.add_tensor("rope_freqs.weight", np.array(factors, np.float32))
