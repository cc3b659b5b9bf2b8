"""Attention of rows of many queries by FlashInfer (Ye et al., 2025), over the pool as it is, with
pages of one slot: FlashAttention 3 (Shah et al., 2024) on compute capability 9.0, 2 elsewhere.

Kernels are compiled when the first object of their shape is made, and kept on disk.  The torch
reference is `paged_attention_torch`; which rows come here is `long_rows`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sglc.kernels.attention_shape import Shape
from sglc.kernels.long_rows import Ragged, Worth

DIMS = (64, 128)
DTYPES = (torch.bfloat16, torch.float16)

# Backends that were measured to be faster than the kernels here (`bench/gpu_attention.py`), so
# that kernels="auto" takes them where the package is installed.
FASTER: frozenset[str] = frozenset({"fa3"})
MEASURED = (0, 6, 14)  # the version of the package; older ones are taken only where asked for

_WORK_HEADS = 64  # query heads for which the package's memory for work lists is surely enough
_WORK_BYTES = 8 << 20

# (queries, one layer's pool, where to write)
Launch = Callable[[Tensor, Tensor, Tensor], None]


def backend_for(capability: tuple[int, int]) -> str | None:
    """FlashInfer's backend on GPUs of this compute capability; None below 8.0."""
    if capability == (9, 0):
        return "fa3"
    return "fa2" if capability >= (8, 0) else None


def worth(backend: str, shape: Shape) -> Worth:
    """Which rows this backend is given.  fa3 has the query heads of a KV head in tiles of their
    own, fa2 together in one."""
    if backend == "fa3":
        return Worth(128, 192 if shape.dim == 64 else 128, 1.1)
    return Worth(256, max(1, 128 // shape.group), 1.15)


class FlashInferPrefill:
    """FlashInfer's kernels for one shape and type, and its memory for work lists."""

    def __init__(self, shape: Shape, dtype: torch.dtype, device: torch.device,
                 backend: str) -> None:
        """Compiles the kernels, or loads them.  Raises what FlashInfer raises."""
        from flashinfer import BatchPrefillWithPagedKVCacheWrapper

        self.shape, self.backend, self.worth = shape, backend, worth(backend, shape)
        self._dtype, self._device = dtype, device
        # Keys are never split among programs, so there are no partial results to keep.
        space = torch.empty(1 << 10, dtype=torch.uint8, device=device)
        # Its work list is copied from pinned memory of its own while the host goes on: two, so
        # that the host writes one when the other's copy may be still to come.
        self._turns: list[tuple[Any, torch.cuda.Event]] = []
        for _ in range(2):
            wrapper = BatchPrefillWithPagedKVCacheWrapper(space, "NHD", backend=backend)
            if shape.heads > _WORK_HEADS:
                size = _WORK_BYTES * -(-shape.heads // _WORK_HEADS)
                wrapper.reset_workspace_buffer(
                    space, torch.empty(size, dtype=torch.uint8, device=device))
            self._turns.append((wrapper, torch.cuda.Event()))
        ends = np.arange(2, dtype=np.int32)
        self.plan(Ragged(ends, ends, ends[:1]))

    def plan(self, rows: Ragged) -> Launch:
        """The launch of one layer for these rows, which copies made here come before in stream
        order; of no use after the second `plan` from here.

        It writes the attention of q (tokens of the rows, heads, D) into a tensor of that shape;
        both are contiguous.  pool: contiguous (slots, 2, kv_heads, D), of the type of q.
        """
        wrapper, copied = turn = self._turns.pop(0)
        self._turns.append(turn)
        copied.synchronize()
        count = len(rows.q_ends)
        sizes = (count, count, count - 1, len(rows.slots))
        staged = torch.empty(sum(sizes), dtype=torch.int32, pin_memory=True)
        q_ends, k_ends, last, slots = staged.split(sizes)
        q_ends.numpy()[:] = rows.q_ends
        k_ends.numpy()[:] = rows.k_ends
        last.fill_(1)  # of every last page, one key is there
        slots.numpy()[:] = rows.slots
        shape = self.shape
        wrapper.plan(
            q_ends, k_ends, slots.to(self._device, non_blocking=True), last, shape.heads,
            shape.kv_heads, shape.dim, 1, causal=True, q_data_type=self._dtype,
            max_token_per_sequence=int((rows.q_ends[1:] - rows.q_ends[:-1]).max()),
            disable_split_kv=True)
        copied.record()

        def launch(q: Tensor, pool: Tensor, out: Tensor) -> None:
            # Without programmatic launch it waits for whatever is before it in the stream.
            wrapper.run(q, pool.unsqueeze(2), out=out, enable_pdl=False)

        return launch
