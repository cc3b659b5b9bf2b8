"""What one decoder model is: its sizes, its constants, and which of the families' differences it
has.  Where these come from (`hf_config.py`, `gguf_config.py`) and how they are computed with is
not known here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NoReturn

from sglc.errors import ModelError

# Names of tensors are made from these, so a damaged file must not ask for billions of them.
_MOST = {"layers": 1 << 12, "count": 1 << 12}


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary frequencies are changed for contexts longer than the pretraining's.

    kind: "linear"; "dynamic" (NTK by the position); "llama3"; "yarn" (Peng et al., 2023); or
        "factors", divisors that are a tensor of the model.
    original: the context length of the pretraining.  attention: what cosines and sines are
        multiplied with.  low, high: of "llama3", how often a wave has to fit into `original` to
        be half-way and not scaled; of "yarn", beta_slow and beta_fast.  truncate: of "yarn".
    """

    kind: str
    factor: float = 1.0
    original: int = 0
    attention: float = 1.0
    low: float = 1.0
    high: float = 4.0
    truncate: bool = True

    def __post_init__(self) -> None:
        for name in ("factor", "attention", "low", "high"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                refuse(f"the rope scaling's {name} is {value}")
        if self.kind == "llama3" and self.high <= self.low:
            refuse(f"the rope scaling's low_freq_factor is {self.low} and its high_freq_factor "
                   f"{self.high}")
        if self.kind in ("dynamic", "llama3", "yarn") and not 0 < self.original < 1 << 31:
            refuse(f"the rope scaling's original context length is {self.original}")


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts: `used` of `count` MLPs of width `size` compute each token.

    normalised: the weights of the used ones are scaled to a sum of 1.  shared_size: the width of
    an MLP that computes every token besides, with a gate of its own; 0 for none.
    dense: layers that have an ordinary MLP instead.
    """

    count: int
    used: int
    size: int
    normalised: bool = True
    shared_size: int = 0
    dense: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        check_sizes(self, "count", "used", "size")
        if self.used > self.count:
            refuse(f"{self.used} of {self.count} experts are used")
        if not 0 <= self.shared_size < 1 << 31:
            refuse(f"the shared expert's size is {self.shared_size}")


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """Sizes and constants of one model; `tied`: the output head is the embedding.

    Every field after `tied` is a difference from Llama 2.
    windows: how many keys, its own included, a token sees in each layer; 0 is all of them; empty
        if all layers see all.  norm_offset: added to the weights of norms as they are stored.
    attention_scale: of the scores; 0 means 1 / sqrt(head_dim).
    attention_cap, logit_cap: c of c * tanh(x / c); 0 for none.
    """

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
    family: str = "llama"
    rope_scaling: RopeScaling | None = None
    windows: tuple[int, ...] = ()
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    experts: Experts | None = None
    activation: str = "silu"
    post_norms: bool = False
    norm_offset: float = 0.0
    embedding_scale: float = 1.0
    attention_scale: float = 0.0
    attention_cap: float = 0.0
    logit_cap: float = 0.0

    def __post_init__(self) -> None:
        check_sizes(self, "vocab_size", "hidden_size", "intermediate_size", "layers", "heads",
                    "kv_heads", "head_dim", "context_length")
        if self.heads % self.kv_heads:
            refuse(f"{self.heads} heads do not divide among {self.kv_heads} key/value heads")
        if self.head_dim % 2:
            refuse(f"rope needs an even head size, not {self.head_dim}")
        if self.rope_scaling is not None and (self.head_dim < 4 or self.rope_theta <= 1):
            refuse(f"rope with a head size of {self.head_dim} and a theta of {self.rope_theta} "
                   "cannot be scaled")
        for name in ("rms_eps", "rope_theta", "embedding_scale"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                refuse(f"{name} is {value}")
        for name in ("attention_scale", "attention_cap", "logit_cap"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                refuse(f"{name} is {value}")
        if self.windows and len(self.windows) != self.layers:
            refuse(f"{len(self.windows)} layers have a window or none, of {self.layers}")
        if min(self.windows, default=0) < 0:
            refuse(f"a sliding window is {min(self.windows)}")
        if self.activation not in ("silu", "gelu_tanh"):
            refuse(f"the activation {self.activation!r} is not supported")

    def window(self, layer: int) -> int:
        """How many keys a token sees in this layer; 0 is all."""
        return self.windows[layer] if self.windows else 0

    def has_experts(self, layer: int) -> bool:
        return self.experts is not None and layer not in self.experts.dense

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the model by its Hugging Face name; the head only where not tied."""
        shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocab_size, self.hidden_size)}
        for n in range(self.layers):
            part = self._attention_shapes() | self._norm_shapes() | (
                self._expert_shapes() if self.has_experts(n) else
                self._mlp_shapes("mlp", self.intermediate_size, self.mlp_bias))
            shapes |= {f"model.layers.{n}.{name}": shape for name, shape in part.items()}
        shapes["model.norm.weight"] = (self.hidden_size,)
        if not self.tied:
            shapes["lm_head.weight"] = (self.vocab_size, self.hidden_size)
        if self.rope_scaling is not None and self.rope_scaling.kind == "factors":
            shapes[ROPE_FACTORS] = (self.head_dim // 2,)
        return shapes

    def _attention_shapes(self) -> dict[str, tuple[int, ...]]:
        h, q, kv = self.hidden_size, self.heads * self.head_dim, self.kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {}
        for name, rows, columns, bias in (("q", q, h, self.qkv_bias), ("k", kv, h, self.qkv_bias),
                                          ("v", kv, h, self.qkv_bias), ("o", h, q, self.out_bias)):
            shapes[f"self_attn.{name}_proj.weight"] = (rows, columns)
            if bias:
                shapes[f"self_attn.{name}_proj.bias"] = (rows,)
        if self.qk_norm:
            shapes |= {f"self_attn.{name}_norm.weight": (self.head_dim,) for name in "qk"}
        return shapes

    def _norm_shapes(self) -> dict[str, tuple[int, ...]]:
        names = ["input_layernorm", "post_attention_layernorm"]
        if self.post_norms:
            names += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
        return {f"{name}.weight": (self.hidden_size,) for name in names}

    def _mlp_shapes(self, at: str, width: int, bias: bool = False) -> dict[str, tuple[int, ...]]:
        h = self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for name, rows, columns in (("gate", width, h), ("up", width, h), ("down", h, width)):
            shapes[f"{at}.{name}_proj.weight"] = (rows, columns)
            if bias:
                shapes[f"{at}.{name}_proj.bias"] = (rows,)
        return shapes

    def _expert_shapes(self) -> dict[str, tuple[int, ...]]:
        e, h = self.experts, self.hidden_size
        assert e is not None
        shapes: dict[str, tuple[int, ...]] = {"mlp.gate.weight": (e.count, h)}
        for k in range(e.count):
            shapes |= self._mlp_shapes(f"mlp.experts.{k}", e.size)
        if e.shared_size:
            shapes |= self._mlp_shapes("mlp.shared_expert", e.shared_size)
            shapes["mlp.shared_expert_gate.weight"] = (1, h)
        return shapes


ROPE_FACTORS = "rope_freqs.weight"
"""The tensor of a model whose rope scaling is of the kind "factors", float32 (head_dim / 2,)."""


def check_sizes(config: object, *names: str) -> None:
    """Refuses sizes that are no positive integers of a plausible size."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) \
                or not 0 < value < _MOST.get(name, 1 << 31):
            refuse(f"{name} is {value}")


class ShapeError(ModelError):
    """A shape is not possible, or not supported; where it is from is not known."""


def refuse(why: str) -> NoReturn:
    raise ShapeError("SGLC504", "the model cannot be used", why=why)
