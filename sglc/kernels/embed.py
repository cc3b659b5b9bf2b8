"""Embedding lookup, with rows that come from elsewhere (image features)."""

from __future__ import annotations

from torch import Tensor


def embed_torch(ids: Tensor, table: Tensor, features: Tensor | None = None,
                feature_of: Tensor | None = None, scale: float = 1.0) -> Tensor:
    """table[ids] * scale, (T, H); where `feature_of[t] >= 0`, features[feature_of[t]] instead of
    table[ids].

    ids: int64 (T,); where a feature stands, any number.  features: (F, H), of the table's type.
    feature_of: int32 or int64 (T,), -1 for an ordinary token.  Both or neither are given.
    """
    if features is None or feature_of is None:
        return table[ids] if scale == 1 else table[ids] * scale
    from_elsewhere = feature_of >= 0
    out = table[ids.masked_fill(from_elsewhere, 0)]
    out[from_elsewhere] = features[feature_of[from_elsewhere].long()]
    return out if scale == 1 else out * scale
