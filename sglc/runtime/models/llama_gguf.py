"""Llama weights in a GGUF file, under their Hugging Face names and in Hugging Face's row order.

GGUF stores the rows of each query and key head so that rope's pairs are neighbours; here pairs
are half a head apart.
"""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING

from sglc.runtime.models.config import LlamaConfig
from sglc.runtime.weights.gguf import GGUFFile

if TYPE_CHECKING:
    from torch import Tensor

_PARTS = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


class LlamaGGUF:
    """A `WeightSource` over a GGUF file of the llama architecture.

    Tensors that Hugging Face has no name for keep their own, so that they are not overlooked.
    """

    def __init__(self, file: GGUFFile, config: LlamaConfig) -> None:
        self._file = file
        self._heads = {"attn_q": config.heads, "attn_k": config.kv_heads}
        known = {"token_embd.weight": "model.embed_tokens.weight",
                 "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}
        for n in range(config.layers):
            known |= {f"blk.{n}.{own}.weight": f"model.layers.{n}.{hf}.weight"
                      for hf, own in _PARTS.items()}
        self._own = {known.get(name, name): name for name in file.tensors}

    def names(self) -> Set[str]:
        return self._own.keys()

    def read(self, name: str) -> Tensor:
        own = self._own[name]
        weight = self._file.read(own)
        heads = self._heads.get(own.split(".")[-2])
        if heads is None:
            return weight
        rows, columns = weight.shape
        return weight.view(heads, -1, 2, columns).transpose(1, 2).reshape(rows, columns)
