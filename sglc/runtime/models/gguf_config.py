"""A model's shape from the metadata of a GGUF file.

Keys and their defaults are those of llama.cpp; the file itself is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from sglc.runtime.models.fields import Fields, naming
from sglc.runtime.models.shape import ROPE_FACTORS, Experts, LlamaConfig, RopeScaling

Shapes = Mapping[str, tuple[int, ...]]


def config_from_gguf(metadata: Mapping[str, Any], shapes: Shapes,
                     path: object = "the GGUF file") -> LlamaConfig:
    """The configuration of a GGUF file, given its metadata and its tensors' (row-major) shapes.

    Raises ModelError (SGLC504), which names `path`, where the architecture or a feature of it is
    not supported.
    """
    arch = metadata.get("general.architecture")
    if not isinstance(arch, str) or (read := ARCHITECTURES.get(arch)) is None:
        Fields({}, path).refuse(f"the architecture is {str(arch)[:60]!r}; known are "
                                + ", ".join(ARCHITECTURES))
    f = Fields(metadata, path, f"{arch}.")
    return naming(path, lambda: _config(f, arch, shapes, read))


def _config(f: Fields, arch: str, shapes: Shapes,
            read: Callable[[Fields], dict[str, Any]]) -> LlamaConfig:
    heads, hidden = f.integer("attention.head_count"), f.integer("embedding_length")
    head_dim = f.integer("attention.key_length", hidden // heads if heads > 0 else 0)
    f.only("attention.value_length", head_dim)
    f.only("rope.dimension_count", head_dim)
    embedding = shapes.get("token_embd.weight")
    if embedding is None:
        f.refuse("there is no tensor token_embd.weight")
    scaling, context = _scaling(f, shapes, f.integer("context_length"))
    values: dict[str, Any] = {
        "vocab_size": embedding[0], "hidden_size": hidden,
        "intermediate_size": f.integer("feed_forward_length"), "layers": f.integer("block_count"),
        "heads": heads, "kv_heads": f.integer("attention.head_count_kv", heads),
        "head_dim": head_dim, "rms_eps": f.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": f.number("rope.freq_base", 10000.0), "rope_scaling": scaling,
        "context_length": context, "tied": "output.weight" not in shapes, "family": arch,
        "qkv_bias": "blk.0.attn_q.bias" in shapes, "out_bias": "blk.0.attn_output.bias" in shapes,
    }
    return LlamaConfig(**{**values, **read(f)})


# -- the architectures ---------------------------------------------------------------------------


def _llama(f: Fields) -> dict[str, Any]:
    """Also Mistral and Mixtral, which have no names of their own in such files."""
    size = f.integer("attention.sliding_window", 0)
    used = f.integer("expert_count", 0) > 0
    return {"windows": _windows(f, size, 1) if size else (),
            "experts": _experts(f, True) if used else None}


def _qwen(f: Fields) -> dict[str, Any]:
    f.only("attention.sliding_window", 0)
    return {}


def _qwen2_moe(f: Fields) -> dict[str, Any]:
    # The shared expert of a file that does not state its size is as wide as the dense MLP.
    width = f.integer("expert_shared_feed_forward_length", f.integer("feed_forward_length"))
    return {**_qwen(f), "experts": _experts(f, False, width)}


def _qwen3(f: Fields) -> dict[str, Any]:
    return {**_qwen(f), "qk_norm": True}


def _qwen3_moe(f: Fields) -> dict[str, Any]:
    return {**_qwen3(f), "experts": _experts(f, True)}


def _gemma(f: Fields) -> dict[str, Any]:
    """The offset of norms is already in the weights of such files."""
    return {"activation": "gelu_tanh",
            "embedding_scale": math.sqrt(max(1, f.integer("embedding_length")))}


def _gemma2(f: Fields) -> dict[str, Any]:
    layers, heads = f.integer("block_count"), f.integer("attention.head_count")
    # Gemma 2 27B alone scales by the hidden size; files do not say so.
    scale = (f.integer("embedding_length") / heads) ** -0.5 if layers == 46 and heads else 0.0
    return {**_gemma(f), "post_norms": True, "attention_scale": scale,
            "attention_cap": f.number("attn_logit_softcapping", 50.0),
            "logit_cap": f.number("final_logit_softcapping", 30.0),
            "windows": _windows(f, f.integer("attention.sliding_window", 4096), 2)}


ARCHITECTURES: dict[str, Callable[[Fields], dict[str, Any]]] = {
    "llama": _llama, "qwen2": _qwen, "qwen2moe": _qwen2_moe, "qwen3": _qwen3,
    "qwen3moe": _qwen3_moe, "gemma": _gemma, "gemma2": _gemma2,
}


# -- parts of several ----------------------------------------------------------------------------


def _windows(f: Fields, size: int, every: int) -> tuple[int, ...]:
    """A window in the first of every `every` layers."""
    layers = f.integer("block_count")
    if not 0 < layers < 1 << 12:  # refused where all sizes are checked
        return ()
    return tuple(size if n % every == 0 else 0 for n in range(layers))


def _experts(f: Fields, normalised: bool, shared: int = 0) -> Experts:
    size = f.integer("expert_feed_forward_length", f.integer("feed_forward_length"))
    f.only("expert_gating_func", 1)
    f.only("expert_weights_scale", 0.0, 1.0)
    return Experts(f.integer("expert_count"), f.integer("expert_used_count"), size,
                   f.flag("expert_weights_norm", normalised), shared)


def _scaling(f: Fields, shapes: Shapes, context: int) -> tuple[RopeScaling | None, int]:
    """The rope scaling, and the context length that results."""
    factor = f.number("rope.scaling.factor", f.number("rope.scale_linear", 1.0)) or 1.0
    kind = f.text("rope.scaling.type", "linear")
    if kind not in ("none", "linear", "yarn"):
        f.refuse(f"{f.prefix}rope.scaling.type is {kind[:60]!r}, which is not supported")
    scaled = kind != "none" and factor != 1.0
    if ROPE_FACTORS in shapes:
        if scaled:
            f.refuse(f"rope is scaled by both a factor and the tensor {ROPE_FACTORS}")
        return RopeScaling("factors"), context
    if not scaled:
        return None, context
    original = f.integer("rope.scaling.original_context_length", context)
    longer = max(context, int(min(max(original * factor, 0), 1 << 31)))
    if kind == "linear":
        return RopeScaling(kind, factor, original), longer
    attention = f.number("rope.scaling.attn_factor", 1.0)
    attention *= 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
    return RopeScaling(kind, factor, original, attention,
                       f.number("rope.scaling.yarn_beta_slow", 1.0),
                       f.number("rope.scaling.yarn_beta_fast", 32.0)), longer
