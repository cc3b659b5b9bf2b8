"""Attention of steps that have no graph: by work lists, or, where rows are long, by FlashInfer
beside them.  What a step is for is not known here.
"""

from __future__ import annotations

import logging
import re
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sglc.errors import ModelError
from sglc.kernels.attention_shape import PLAIN
from sglc.kernels.flashinfer_prefill import (
    DIMS,
    DTYPES,
    FASTER,
    MEASURED,
    FlashInferPrefill,
    backend_for,
)
from sglc.kernels.long_rows import long_span, ragged, split
from sglc.kernels.paged_attention import Rows
from sglc.runtime.cuda.attending import UnitSteps, attend_torch, scores_of
from sglc.runtime.models.config import LlamaConfig

if TYPE_CHECKING:
    from sglc.runtime.cuda.layers import Attend
    from sglc.runtime.cuda.page_table import PageTable

_log = logging.getLogger("sglc.runtime")


class EagerSteps:
    """Attention of a whole step of at most `size` tokens.

    units: who attends for rows of few tokens; None: the reference does, for all rows.
    long: who attends for rows of many; None: the same as for few.
    """

    def __init__(self, config: LlamaConfig, size: int, units: UnitSteps | None,
                 long: FlashInferPrefill | None) -> None:
        self._config, self._size = config, size
        self._units, self._long = units, long

    def attend(self, rows: Rows, table: PageTable, tokens: int) -> Attend:
        """Attention of these rows, which have all `tokens` tokens of the step."""
        if self._units is None:
            return attend_torch(table, rows, self._config)
        span = None if self._long is None else long_span(rows, self._long.worth)
        if self._long is None or span is None:
            return self._by_units(self._units, rows, table, tokens)
        mine, others = split(rows, span)
        launch = self._long.plan(ragged(mine, table.host))
        rest = self._by_units(self._units, others, table, tokens) if len(others.starts) else None

        def attend(q: Tensor, pool: Tensor, layer: int) -> Tensor:
            out = torch.empty_like(q) if rest is None else rest(q, pool, layer)
            launch(q[span.start:span.stop], pool, out[span.start:span.stop])
            return out

        return attend

    def _by_units(self, steps: UnitSteps, rows: Rows, table: PageTable, tokens: int) -> Attend:
        units = steps.plan(rows, table, self._size)
        assert units is not None, "a step of at most this size always fits"
        steps.load(units, self._size)
        return steps.attend(table.device, self._size, tokens, units.grid)


def long_rows(choice: str, units: UnitSteps | None, config: LlamaConfig, dtype: torch.dtype,
              device: torch.device) -> FlashInferPrefill | None:
    """FlashInfer for rows of many tokens, its kernels compiled; None where work lists do them too.

    choice: `DeviceKernels.long_rows`.  It computes plain attention in 16 bits with heads of 64 or
    128.  Raises ModelError (SGLC504) if it was insisted on and does not work here.
    """
    if choice == "units" or units is None or device.type != "cuda" or not fits(config, dtype):
        return None
    backend = backend_for(torch.cuda.get_device_capability(device))
    if backend is None or (choice == "auto" and (backend not in FASTER or not recent())):
        return None
    try:
        return FlashInferPrefill(units.shape, dtype, device, backend)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # its compiler is missing, or fails
        if choice == "auto":
            _log.warning("FlashInfer does not work here, so it is not used", exc_info=error)
            return None
        raise ModelError("SGLC504", "FlashInfer does not work here", why=str(error)[:400],
                         fixes=('use kernels="auto"',
                                "install nvcc and ninja, with which it compiles")) from error


def recent() -> bool:
    """Whether FlashInfer's version is the one that was measured, or a later one."""
    try:
        numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", version("flashinfer-python"))
    except PackageNotFoundError:
        return False
    return numbers is not None and tuple(map(int, numbers.groups())) >= MEASURED


def fits(config: LlamaConfig, dtype: torch.dtype) -> bool:
    """Whether FlashInfer's form computes the attention of every layer of this model."""
    return (dtype in DTYPES and config.head_dim in DIMS
            and all(how == PLAIN for how in scores_of(config)))
