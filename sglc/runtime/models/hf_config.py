"""A model's shape from the `config.json` of a Hugging Face folder.

Each family is a function that says how it differs from Llama.  Fields and their defaults are
those of transformers' configuration classes; nothing of the folder but its config.json is looked
at, and code that comes with a model is never run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from sglc.runtime.models.fields import Fields, naming
from sglc.runtime.models.quantization import int4_scheme
from sglc.runtime.models.shape import Experts, LlamaConfig, RopeScaling

_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh",
                "gelu_tanh": "gelu_tanh"}
_ROPES = ("default", "linear", "dynamic", "llama3", "yarn")
_ORIGINAL = "original_max_position_embeddings"
_QWEN = {  # names of the first Qwen's own code -> those that all others have
    "kv_channels": "head_dim", "layer_norm_epsilon": "rms_norm_eps",
    "rotary_emb_base": "rope_theta", "rotary_pct": "partial_rotary_factor",
}


def config_from_hf(config: Mapping[str, Any], path: object = "config.json") -> LlamaConfig:
    """The configuration of a `config.json`, already parsed; `path` names it in errors.

    Raises ModelError (SGLC504) where the architecture or a feature of it is not supported.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str) or (read := FAMILIES.get(kind)) is None:
        named = config.get("architectures")
        Fields({}, path).refuse(
            f"the model type is {str(kind)[:60]!r} (architectures: {str(named)[:80]}); known are "
            + ", ".join(FAMILIES) + ", and with vision llava, llava_next")
    c = Fields(_as_later(config) if kind == "qwen" else config, path)
    return naming(path, lambda: _config(c, kind, read))


def _config(c: Fields, kind: str, read: Callable[[Fields], dict[str, Any]]) -> LlamaConfig:
    for name, neutral in (("partial_rotary_factor", 1.0), ("use_bidirectional_attention", False),
                          ("use_cross_attention", False)):
        c.only(name, neutral)
    int4_scheme(c.values, c.path)  # refuses what is not read
    heads, hidden = c.integer("num_attention_heads"), c.integer("hidden_size")
    head_dim = c.integer("head_dim", hidden // heads if heads > 0 else 0)
    theta, scaling, context = _rope(c, 1e6 if kind == "mixtral" else 1e4,
                                    c.integer("max_position_embeddings", 2048))
    values: dict[str, Any] = {
        "vocab_size": c.integer("vocab_size"), "hidden_size": hidden,
        "intermediate_size": c.integer("intermediate_size"),
        "layers": c.integer("num_hidden_layers"), "heads": heads,
        "kv_heads": c.integer("num_key_value_heads", heads), "head_dim": head_dim,
        "rms_eps": c.number("rms_norm_eps", 1e-6), "rope_theta": theta, "rope_scaling": scaling,
        "context_length": context, "tied": c.flag("tie_word_embeddings"), "family": kind,
        "activation": _activation(c, "hidden_act", "silu"),
    }
    return LlamaConfig(**{**values, **read(c)})


# -- the families --------------------------------------------------------------------------------


def _llama(c: Fields) -> dict[str, Any]:
    c.only("sliding_window")
    bias = c.flag("attention_bias")
    return {"qkv_bias": bias, "out_bias": bias, "mlp_bias": c.flag("mlp_bias")}


def _mistral(c: Fields) -> dict[str, Any]:
    return {"windows": _windows(c, lambda n: True)}


def _mixtral(c: Fields) -> dict[str, Any]:
    experts = Experts(c.integer("num_local_experts", 8), c.integer("num_experts_per_tok", 2),
                      c.integer("intermediate_size"))
    return {"windows": _windows(c, lambda n: True), "experts": experts}


def _qwen(c: Fields) -> dict[str, Any]:
    c.only("no_bias", True)
    # Both halves of the gated MLP together are what the file calls its size.
    return {"qkv_bias": True, "intermediate_size": c.integer("intermediate_size") // 2}


def _qwen2(c: Fields) -> dict[str, Any]:
    first = c.integer("max_window_layers", 28)
    return {"qkv_bias": True, "windows": _optional_windows(c, lambda n: n >= first)}


def _qwen2_moe(c: Fields) -> dict[str, Any]:
    last = c.integer("max_window_layers", 28)
    return {
        "qkv_bias": c.flag("qkv_bias", True),
        "windows": _optional_windows(c, lambda n: n % 2 == 0 and n < last),
        "experts": _sparse(c, 60, 4, 1408, c.integer("shared_expert_intermediate_size", 5632)),
    }


def _qwen3(c: Fields) -> dict[str, Any]:
    bias, first = c.flag("attention_bias"), c.integer("max_window_layers", 28)
    return {"head_dim": c.integer("head_dim", 128), "qk_norm": True, "qkv_bias": bias,
            "out_bias": bias, "windows": _optional_windows(c, lambda n: n >= first)}


def _qwen3_moe(c: Fields) -> dict[str, Any]:
    bias = c.flag("attention_bias")
    return {"qk_norm": True, "qkv_bias": bias, "out_bias": bias,
            "windows": _optional_windows(c, lambda n: True),
            "experts": _sparse(c, 128, 8, 768, 0)}


def _gemma(c: Fields) -> dict[str, Any]:
    bias = c.flag("attention_bias")
    # "gelu" in these files means the approximation: the models were trained with it.
    return {"head_dim": c.integer("head_dim", 256), "tied": c.flag("tie_word_embeddings", True),
            "qkv_bias": bias, "out_bias": bias, "activation": "gelu_tanh", "norm_offset": 1.0,
            "embedding_scale": math.sqrt(c.integer("hidden_size"))}


def _gemma2(c: Fields) -> dict[str, Any]:
    def cap(name: str, default: float) -> float:
        return 0.0 if c.has(name) and c.get(name) is None else c.number(name, default)

    scalar = c.number("query_pre_attn_scalar", 256)
    if scalar <= 0:
        c.refuse(f"query_pre_attn_scalar is {scalar}")
    return {**_gemma(c), "activation": _activation(c, "hidden_activation", "gelu_pytorch_tanh"),
            "post_norms": True, "attention_scale": scalar ** -0.5,
            "attention_cap": cap("attn_logit_softcapping", 50.0),
            "logit_cap": cap("final_logit_softcapping", 30.0),
            "windows": _windows(c, lambda n: n % 2 == 0)}


# model_type -> what differs from Llama.
FAMILIES: dict[str, Callable[[Fields], dict[str, Any]]] = {
    "llama": _llama, "mistral": _mistral, "mixtral": _mixtral, "qwen": _qwen, "qwen2": _qwen2,
    "qwen2_moe": _qwen2_moe, "qwen3": _qwen3, "qwen3_moe": _qwen3_moe, "gemma": _gemma,
    "gemma2": _gemma2,
}


# -- parts of several families -------------------------------------------------------------------


def _as_later(config: Mapping[str, Any]) -> dict[str, Any]:
    """The first Qwen's fields under later names.  Its code changes rope and scores of tokens past
    `seq_length`, so the context ends there."""
    later = {_QWEN.get(name, name): value for name, value in config.items()}
    if config.get("seq_length") is not None:
        later["max_position_embeddings"] = config["seq_length"]
    return later


def _activation(c: Fields, name: str, default: str) -> str:
    value = c.text(name, default)
    if value not in _ACTIVATIONS:
        c.refuse(f"{name} is {value[:60]!r}; known are {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[value]


def _windows(c: Fields, slides: Callable[[int], bool]) -> tuple[int, ...]:
    """The window of each layer: `sliding_window` where `layer_types`, or else `slides`, says so."""
    if c.get("sliding_window") is None and c.has("sliding_window"):
        return ()
    size, layers = c.integer("sliding_window", 4096), c.integer("num_hidden_layers")
    if size == 0 or not 0 < layers < 1 << 12:  # how many there are is checked elsewhere
        return ()
    kinds = c.items("layer_types", str, layers)
    if kinds is None:
        return tuple(size if slides(n) else 0 for n in range(layers))
    if other := set(kinds) - {"sliding_attention", "full_attention"}:
        c.refuse(f"layer_types has {min(other)[:60]!r}, which is not supported")
    return tuple(size if kind == "sliding_attention" else 0 for kind in kinds)


def _optional_windows(c: Fields, slides: Callable[[int], bool]) -> tuple[int, ...]:
    return _windows(c, slides) if c.flag("use_sliding_window") else ()


def _sparse(c: Fields, count: int, used: int, size: int, shared: int) -> Experts:
    step, layers = c.integer("decoder_sparse_step", 1), c.integer("num_hidden_layers")
    if step < 1 or layers >= 1 << 12:
        c.refuse(f"decoder_sparse_step is {step} and num_hidden_layers {layers}")
    dense = set(c.items("mlp_only_layers", int) or ())
    dense |= {n for n in range(layers) if (n + 1) % step}
    count = c.integer("num_experts", c.integer("num_local_experts", count))
    return Experts(count, c.integer("num_experts_per_tok", used),
                   c.integer("moe_intermediate_size", size), c.flag("norm_topk_prob"), shared,
                   frozenset(dense))


def _rope(c: Fields, theta: float, context: int) -> tuple[float, RopeScaling | None, int]:
    """Theta, scaling, and the context length that results.

    Older files have `rope_theta` and `rope_scaling`, newer ones `rope_parameters`.
    """
    theta = c.number("rope_theta", theta)
    scaling = None
    for name in ("rope_scaling", "rope_parameters"):
        values = c.get(name)
        if values is None:
            continue
        if not isinstance(values, dict):
            c.refuse(f"{name} is {repr(values)[:60]}, not an object")
        part = Fields(values, f"{c.path}: {name}")
        part.only("partial_rotary_factor", 1.0)
        theta = part.number("rope_theta", theta)
        kind = part.text("rope_type", part.text("type", "default"))
        if kind not in _ROPES:
            part.refuse(f"the type {kind[:60]!r} is not supported; known are {', '.join(_ROPES)}")
        if kind != "default":
            scaling, context = _scaling(part, kind, c, context)
    return theta, scaling, context


def _scaling(r: Fields, kind: str, c: Fields, context: int) -> tuple[RopeScaling, int]:
    place = c if c.get(_ORIGINAL) is not None else r
    original = place.integer(_ORIGINAL, context)
    if kind == "llama3":
        return RopeScaling(kind, r.number("factor"), original, low=r.number("low_freq_factor"),
                           high=r.number("high_freq_factor")), context
    if kind == "dynamic":
        original = context  # as transformers has it, whatever the file says
    factor = r.number("factor", context / original if kind == "yarn" and original > 0 else None)
    longer = max(context, int(min(original * factor, 1 << 31)))
    if kind != "yarn":
        return RopeScaling(kind, factor, original), longer
    return RopeScaling(kind, factor, original, attention=_yarn_attention(r, factor),
                       low=r.number("beta_slow", 1.0), high=r.number("beta_fast", 32.0),
                       truncate=r.flag("truncate", True)), longer


def _yarn_attention(r: Fields, factor: float) -> float:
    """What cosines and sines are multiplied with: stated, or from the factor."""
    def of(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1 if factor > 1 else 1.0

    if r.get("attention_factor") is not None:
        return r.number("attention_factor")
    one, all_dims = r.number("mscale", 0.0), r.number("mscale_all_dim", 0.0)
    return of(one) / of(all_dims) if one and all_dims else of(1.0)
