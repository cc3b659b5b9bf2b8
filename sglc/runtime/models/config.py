"""The Llama architecture's shape, from GGUF metadata or a Hugging Face `config.json`.

What the forward pass does not compute (scaled rope, biases, experts, sliding windows) is refused
here rather than ignored.  Nothing is known of tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from sglc.errors import ModelError


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """Sizes and constants of one Llama model; `tied`: the output head is the embedding."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rms_eps: float
    rope_theta: float
    context_length: int
    tied: bool

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "intermediate_size", "layers", "heads",
                     "kv_heads", "head_dim", "context_length"):
            if not 0 < getattr(self, name) < 1 << 31:
                _refuse(f"{name} is {getattr(self, name)}")
        if self.heads % self.kv_heads:
            _refuse(f"{self.heads} heads do not divide among {self.kv_heads} key/value heads")
        if self.head_dim % 2:
            _refuse(f"rope needs an even head size, not {self.head_dim}")
        if not (self.rms_eps > 0 and self.rope_theta > 0):
            _refuse(f"rms_eps is {self.rms_eps} and rope_theta {self.rope_theta}")

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the model by its Hugging Face name; the head only where not tied."""
        h, i = self.hidden_size, self.intermediate_size
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab_size, h)}
        for n in range(self.layers):
            shapes |= {f"model.layers.{n}.{name}.weight": shape for name, shape in (
                ("input_layernorm", (h,)), ("post_attention_layernorm", (h,)),
                ("self_attn.q_proj", (q, h)), ("self_attn.k_proj", (kv, h)),
                ("self_attn.v_proj", (kv, h)), ("self_attn.o_proj", (h, q)),
                ("mlp.gate_proj", (i, h)), ("mlp.up_proj", (i, h)), ("mlp.down_proj", (h, i)))}
        shapes["model.norm.weight"] = (h,)
        if not self.tied:
            shapes["lm_head.weight"] = (self.vocab_size, h)
        return shapes


def config_from_gguf(metadata: Mapping[str, Any],
                     shapes: Mapping[str, tuple[int, ...]]) -> LlamaConfig:
    """The configuration of a GGUF file, given its metadata and its tensors' (row-major) shapes.

    Raises ModelError (SGLC504) where the architecture or a feature of it is not supported.
    """
    if (arch := metadata.get("general.architecture")) != "llama":
        _refuse(f"the architecture is {arch!r}; only 'llama' is supported")

    def get(key: str, default: Any = None) -> Any:
        value = metadata.get(f"llama.{key}", default)
        if value is None:
            _refuse(f"the metadata has no llama.{key}")
        if isinstance(value, (str, list)) is not isinstance(default, str):
            _refuse(f"llama.{key} is {str(value)[:60]!r}")
        return value

    heads, hidden = get("attention.head_count"), get("embedding_length")
    head_dim = get("attention.key_length", hidden // heads if heads else 0)
    off = {  # key: the value that means "not used"
        "expert_count": 0, "attention.sliding_window": 0, "rope.scale_linear": 1.0,
        "attention.value_length": head_dim, "rope.dimension_count": head_dim,
        "rope.scaling.type": "none", "rope.scaling.factor": 1.0,
    }
    for key, neutral in off.items():
        if (value := get(key, neutral)) != neutral:
            _refuse(f"llama.{key} is {value!r}, which is not supported")
    embedding = shapes.get("token_embd.weight")
    if embedding is None:
        _refuse("there is no tensor token_embd.weight")
    return LlamaConfig(
        vocab_size=embedding[0], hidden_size=hidden, intermediate_size=get("feed_forward_length"),
        layers=get("block_count"), heads=heads, kv_heads=get("attention.head_count_kv", heads),
        head_dim=head_dim, rms_eps=get("attention.layer_norm_rms_epsilon"),
        rope_theta=get("rope.freq_base", 10000.0), context_length=get("context_length"),
        tied="output.weight" not in shapes)


def config_from_hf(config: Mapping[str, Any]) -> LlamaConfig:
    """The configuration of a Hugging Face `config.json`, already parsed.

    Raises ModelError (SGLC504) where the architecture or a feature of it is not supported.
    """
    if (kind := config.get("model_type")) != "llama":
        _refuse(f"the model type is {kind!r}; only 'llama' is supported")
    for key, neutral in (("attention_bias", False), ("mlp_bias", False), ("hidden_act", "silu"),
                         ("partial_rotary_factor", 1.0), ("quantization_config", None),
                         ("sliding_window", None)):
        if (value := config.get(key, neutral)) != neutral and value is not None:
            _refuse(f"{key} is {str(value)[:60]!r}, which is not supported")

    def get(key: str, default: Any = None) -> Any:
        value = config.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            _refuse(f"config.json has no number for {key}")
        return value

    heads, hidden = get("num_attention_heads"), get("hidden_size")
    return LlamaConfig(
        vocab_size=get("vocab_size"), hidden_size=hidden,
        intermediate_size=get("intermediate_size"), layers=get("num_hidden_layers"), heads=heads,
        kv_heads=get("num_key_value_heads", heads),
        head_dim=get("head_dim", hidden // heads if heads else 0),
        rms_eps=get("rms_norm_eps", 1e-6), rope_theta=_hf_rope_theta(config),
        context_length=get("max_position_embeddings", 2048),
        tied=bool(config.get("tie_word_embeddings", False)))


def _hf_rope_theta(config: Mapping[str, Any]) -> float:
    """Older files have `rope_theta` and `rope_scaling`, newer ones `rope_parameters`."""
    theta = config.get("rope_theta")
    for key in ("rope_scaling", "rope_parameters"):
        rope = config.get(key)
        if rope is None:
            continue
        if not isinstance(rope, dict):
            _refuse(f"{key} is {str(rope)[:60]!r}")
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default" or rope.get("factor", 1.0) != 1.0:
            _refuse(f"{key} is {str(rope)[:80]}: scaled rope is not supported")
        if rope.get("partial_rotary_factor", 1.0) != 1.0:
            _refuse(f"{key} rotates only a part of each head, which is not supported")
        theta = rope.get("rope_theta", theta)
    theta = 10000.0 if theta is None else theta
    if isinstance(theta, bool) or not isinstance(theta, (int, float)):
        _refuse(f"rope_theta is {str(theta)[:60]!r}")
    return float(theta)


def _refuse(why: str) -> NoReturn:
    raise ModelError("SGLC504", "the model cannot be used", why=why)
