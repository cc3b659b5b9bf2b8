"""`embed` as a Triton kernel."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _kernel(ids_ptr, table_ptr, features_ptr, feature_of_ptr, out_ptr, width, scale,
            BLOCK: tl.constexpr, MERGE: tl.constexpr, SCALED: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    row = tl.load(ids_ptr + token).to(tl.int64)
    if MERGE:
        feature = tl.load(feature_of_ptr + token).to(tl.int64)
        source = tl.where(feature < 0, table_ptr + row * width, features_ptr + feature * width)
    else:
        source = table_ptr + row * width
    x = tl.load(source + at, mask=inside, other=0.0)
    if SCALED:
        x = (x.to(tl.float32) * scale).to(x.dtype)
    tl.store(out_ptr + token * width + at, x, mask=inside)


def embed_triton(ids: Tensor, table: Tensor, features: Tensor | None = None,
                 feature_of: Tensor | None = None, scale: float = 1.0) -> Tensor:
    """As `embed_torch`, of contiguous tensors."""
    tokens, width = len(ids), table.shape[1]
    out = table.new_empty(tokens, width)
    merge = features is not None and feature_of is not None
    if tokens:
        block = min(2048, triton.next_power_of_2(width))
        _kernel[(tokens, triton.cdiv(width, block))](
            ids, table, features if merge else table, feature_of if merge else ids, out, width,
            scale, BLOCK=block, MERGE=merge, SCALED=scale != 1, num_warps=4)
    return out
