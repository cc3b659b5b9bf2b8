"""What a decoder's layers add to, with what a norm of it needs."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Residual(NamedTuple):
    """x: (T, H).  squares: float32, (T, any), sums of squares of parts of each row, where the
    product that wrote x has made them; then the next one scales its own rows, which is a norm
    with weights of one, and no kernel stands between the two."""

    x: Tensor
    squares: Tensor | None = None
