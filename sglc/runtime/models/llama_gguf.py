"""The weights of a GGUF file under their Hugging Face names and in Hugging Face's row order.

Files of the llama architecture store the rows of each query and key head so that rope's pairs are
neighbours; here pairs are half a head apart.
"""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING

from sglc.runtime.models.shape import LlamaConfig
from sglc.runtime.weights.gguf import GGUFFile
from sglc.runtime.weights.source import Part

if TYPE_CHECKING:
    from torch import Tensor

_PARTS = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp", "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp", "mlp.shared_expert.down_proj": "ffn_down_shexp",
}
# With norms after attention and MLP, names mean other places.
_POST_NORMS = {
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_EXPERT_PARTS = {"gate_proj": "ffn_gate_exps", "up_proj": "ffn_up_exps",
                 "down_proj": "ffn_down_exps"}


class LlamaGGUF:
    """A `WeightSource` over a GGUF file of any architecture that `gguf_config.py` knows.

    Tensors that Hugging Face has no name for keep their own, so that they are not overlooked.
    """

    def __init__(self, file: GGUFFile, config: LlamaConfig) -> None:
        self._file = file
        self.path, self.mapped = file.path, False
        paired = config.family == "llama"
        self._heads = {"attn_q": config.heads, "attn_k": config.kv_heads} if paired else {}
        parts = {**_PARTS, **(_POST_NORMS if config.post_norms else {})}
        known = {"token_embd.weight": "model.embed_tokens.weight",
                 "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}
        self._own: dict[str, tuple[str, int | None]] = {}  # and which expert's part of it
        for n in range(config.layers):
            known |= {f"blk.{n}.{own}.{kind}": f"model.layers.{n}.{hf}.{kind}"
                      for hf, own in parts.items() for kind in ("weight", "bias")}
        for name in file.tensors:
            self._own[known.get(name, name)] = name, None
        if config.experts is not None:
            for n in range(config.layers):
                self._split_experts(n, config.experts.count)

    def names(self) -> Set[str]:
        return self._own.keys()

    def read(self, name: str, part: Part | None = None) -> Tensor:
        own, expert = self._own[name]
        weight = self._file.read(own, expert, part)
        heads = self._heads.get(own.split(".")[-2])
        rows = weight.shape[0] if weight.dim() else 0
        if heads is not None and part is not None:  # whole heads
            heads = max(1, heads * rows // part.whole[0])
        if heads is None or rows % (2 * heads):  # a wrong shape is for the reader to find
            return weight.reshape(1, -1) if _is_row(own) else weight
        return weight.view(heads, -1, 2, weight.numel() // rows).transpose(1, 2).reshape(
            weight.shape)

    def place(self, name: str) -> str:
        return str(self.path)

    def n_bytes(self, name: str) -> int:
        own, expert = self._own[name]
        info = self._file.tensors[own]
        return info.n_bytes if expert is None else info.n_bytes // info.shape[0]

    def _split_experts(self, layer: int, count: int) -> None:
        """Such files have one tensor for all experts of a layer."""
        for hf, own in _EXPERT_PARTS.items():
            name = f"blk.{layer}.{own}.weight"
            info = self._file.tensors.get(name)
            if info is not None and len(info.shape) == 3 and info.shape[0] == count:
                del self._own[name]
                self._own |= {f"model.layers.{layer}.mlp.experts.{k}.{hf}.weight": (name, k)
                              for k in range(count)}


def _is_row(own: str) -> bool:
    """Whether the file drops a first dimension of 1."""
    return own.endswith(".ffn_gate_inp_shexp.weight")
