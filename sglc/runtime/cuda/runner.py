"""A model on a GPU behind the engine: its KV pool and page tables, and steps, eager or by graph.

Steps are let run and not waited for.  Tokens that one step draws are inputs of the next without
having been on the host.  Requests, caches and schedules are not known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sglc.errors import ModelError
from sglc.kernels.attention_shape import Grid
from sglc.kernels.paged_attention import Rows
from sglc.kernels.registry import DeviceKernels
from sglc.runtime.batch import Batch
from sglc.runtime.cuda.attending import UnitSteps
from sglc.runtime.cuda.device_sampler import DeviceSampler
from sglc.runtime.cuda.eager import EagerSteps, long_rows
from sglc.runtime.cuda.graphs import Graphs, bucket
from sglc.runtime.cuda.layers import Attend
from sglc.runtime.cuda.model import DeviceLlama, Images
from sglc.runtime.cuda.page_table import PageTable
from sglc.runtime.cuda.simple_draws import Drawing
from sglc.runtime.cuda.staging import Inputs, lay_out, staging
from sglc.runtime.vision.tower import VisionModel
from sglc.tokens.images import FIRST_ID

if TYPE_CHECKING:
    from sglc.runtime.cuda.launcher import DeviceLauncher
    from sglc.runtime.sampler import Sampler
    from sglc.runtime.weights.metered import LoadReport

_SPARE_BYTES = 1 << 30  # for CUDA's libraries and captured graphs


@dataclass(frozen=True, slots=True)
class Shape:
    """What a graph is captured for: room for tokens and rows of output, whether all tokens are
    outputs, whether rows draw and by masks, and the launch of attention."""

    tokens: int
    rows: int
    all: bool
    draws: bool
    masked: bool
    grid: Grid


class DeviceRunner:
    """A `Runner` (see `batch.py`) whose weights, KV and activations are of one type on a device.

    max_tokens: of a step.  max_rows: rows of sequences in a step.  graphs: whether small steps
    are captured and replayed; those with images are not.  `vision` computes what images stand
    for, if the model has any.  fixed: a token's result does not depend on the step around it, of
    which the kernels must be capable (see `resolve_device`).  A CPU device computes the same
    without graphs.
    """

    def __init__(self, model: DeviceLlama, kernels: DeviceKernels, *, max_tokens: int = 8192,
                 max_rows: int = 1024, graphs: bool = True, fixed: bool = False,
                 loaded: LoadReport | None = None) -> None:
        c = model.config
        self.config = c
        self.kernels = kernels
        self.loaded = loaded
        self.dtype, self.device = model.dtype, model.device
        self.vocab_size = c.vocab_size
        self.context_length = c.context_length
        self.bytes_per_token = c.layers * 2 * c.kv_heads * c.head_dim * self.dtype.itemsize
        self.max_tokens, self.max_rows = max_tokens, max_rows
        self.vision: VisionModel | None = None
        self._model: DeviceLlama | None = model
        self._pools = torch.empty(0)
        self._table: PageTable | None = None
        by_units = dict(kernels.backends)["sample"] == "triton"
        self._units = UnitSteps(c, self.dtype, self.device, fixed,
                                kernels.wide_units == "cuda") if by_units else None
        self._eager = EagerSteps(c, max_tokens, self._units, long_rows(
            kernels.long_rows, self._units, c, self.dtype, self.device))
        on_gpu = self.device.type == "cuda"
        self._graphs = Graphs(self.device) if graphs and by_units and on_gpu else None
        self._sampler: DeviceSampler | None = None
        self._inputs = torch.zeros(Inputs.size(max_tokens, max_tokens), dtype=torch.int64,
                                   device=self.device)
        # What rows have drawn in the last step, and where that led them (see `kernels/fsm.py`).
        self.drawn = torch.zeros(2, max_tokens, dtype=torch.int64, device=self.device)

    # -- memory ------------------------------------------------------------------------------

    def room(self, mem_fraction: float) -> int:
        """KV slots that fit if this process uses at most this part of the GPU's memory.

        Raises ModelError (SGLC504) if there is no room at all.
        """
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(self.device)
        budget = int(mem_fraction * total) - (total - free) - self._working_bytes()
        slots = budget // (self.bytes_per_token + 1)
        if slots < self.context_length:  # the page table is then smaller as well
            slots = budget // (self.bytes_per_token + 4 * self.max_rows)
        else:
            budget -= PageTable.nbytes(self.max_rows, self.context_length)
            slots = max(budget // self.bytes_per_token, 0)
        if slots < 16:
            raise ModelError(
                "SGLC504", "the model leaves no room for KV on this GPU",
                why=f"of {total >> 20} MiB, {(total - free) >> 20} are taken, a step needs "
                    f"{self._working_bytes() >> 20}, and mem_fraction is {mem_fraction}",
                fixes=("raise mem_fraction", "lower max_batch_tokens", "use a smaller model"))
        return slots

    def _working_bytes(self) -> int:
        """What a step needs beside weights and KV, at most, about."""
        c, size = self.config, self.dtype.itemsize
        wide = (c.heads + 2 * c.kv_heads) * c.head_dim
        middle = 3 * c.intermediate_size
        if c.experts is not None:
            middle = max(middle, c.experts.used * (c.experts.size + c.hidden_size)
                         + 3 * c.experts.shared_size)
        step = self.max_tokens * size * (5 * c.hidden_size + 2 * wide + middle)
        heads = self.max_rows * c.vocab_size * 4 * 2
        attention = self._units.nbytes(self.max_tokens) if self._units else 0
        return int(1.2 * (step + heads + 2 * attention)) + _SPARE_BYTES + (
            self._open().scratch_bytes)

    def allocate(self, slots: int) -> None:
        """Makes room for `slots` token positions; what was stored before is lost.

        Raises ModelError (SGLC504) if they do not fit the device.
        """
        c = self.config
        self._pools, self._table = torch.empty(0), None
        try:
            self._pools = torch.zeros(c.layers, slots, 2, c.kv_heads, c.head_dim,
                                      dtype=self.dtype, device=self.device)
            stride = min(self.context_length, slots)
            self._table = PageTable(self.max_rows, stride, self.device)
        except torch.OutOfMemoryError as error:
            raise ModelError(
                "SGLC504", f"a KV pool of {slots} tokens does not fit the GPU",
                why=f"it takes {slots * self.bytes_per_token >> 20} MiB",
                fixes=("lower kv_tokens, or leave it out", "lower mem_fraction")) from error

    def close(self) -> None:
        """Frees the weights, the pool and the graphs."""
        if self.device.type == "cuda" and self._model is not None:
            torch.cuda.synchronize(self.device)
        if self._sampler is not None:
            self._sampler.close()
        self._model = self._table = self._graphs = None
        self._pools = self._inputs = self.drawn = torch.empty(0)

    # -- steps -------------------------------------------------------------------------------

    def launcher(self, sampler: Sampler) -> DeviceLauncher:
        """What runs an engine's steps on this model."""
        from sglc.runtime.cuda.launcher import DeviceLauncher

        self._sampler = DeviceSampler(sampler, self.vocab_size, self.kernels, self.device)
        return DeviceLauncher(self, self._sampler)

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Tensor:
        """Writes the step's KV; normed hidden states of `batch.outputs`, (K, H)."""
        return self.run(batch, None)[0]

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """float32 (K, vocab_size) of hidden states (K, H)."""
        return self._open().logits(hidden)

    @torch.inference_mode()
    def logits_of(self, hidden: Tensor, ids: np.ndarray) -> Tensor:
        """float32 (K, len(ids)): `logits(hidden)[:, ids]` up to rounding, of these rows of the
        LM head alone."""
        wanted = torch.from_numpy(np.ascontiguousarray(ids, np.int32)).to(self.device)
        return self._open().logits_of(hidden, wanted.expand(len(hidden), -1).contiguous())

    @torch.inference_mode()
    def run(self, batch: Batch, draws: Drawing | None) -> tuple[Tensor, Tensor | None]:
        """Let a step run: hidden states as `forward` gives them, and what rows have drawn, as
        `DeviceSampler.simple` does, maybe more rows than outputs; it is there until the next step.

        draws: of the outputs.  Row i's is then `drawn[:, i]`, where the next step finds it.
        """
        n, k = len(batch.ids), len(batch.outputs)
        table = self._table
        if table is None:
            raise ModelError("SGLC503", "the model was closed")
        count = len(batch.rows)
        rows = Rows(
            np.fromiter([r.start for r in batch.rows], np.int64, count),
            np.fromiter([r.n for r in batch.rows], np.int64, count),
            np.fromiter([len(r.context) for r in batch.rows], np.int64, count),
            table.offsets(batch.rows))
        at = np.repeat(rows.offsets, rows.tokens) + batch.positions
        table.host[at] = batch.slots
        every = k == n and bool((batch.outputs == np.arange(n)).all())
        return self._execute(
            rows, (batch.ids, batch.positions, batch.slots, at, batch.outputs, draws), every)

    def wait(self, event: Any) -> None:
        """Wait until the device has come to an event."""
        event.synchronize()

    def _execute(self, rows: Rows, arrays: tuple[Any, ...], every: bool
                 ) -> tuple[Tensor, Tensor | None]:
        """`run` of a step whose slots are in the page table.  arrays: ids, positions, slots, at,
        outputs (see `Inputs`) and draws."""
        table = self._table
        assert table is not None
        n, k = len(arrays[0]), len(arrays[4])
        pictured = n > 0 and int(arrays[0].max()) >= FIRST_ID
        images: Images | None = None
        if pictured:
            images = self._merged(arrays[0])
            arrays = (np.where(arrays[0] >= FIRST_ID, 0, arrays[0]), *arrays[1:])
        if self._graphs is not None and n <= self._graphs.tokens and not pictured:
            replayed = self._replay(rows, arrays, every)
            if replayed is not None:
                return replayed
        attend = self._eager.attend(rows, table, n)
        self._stage(n, k, arrays)
        hidden, drawn = self._compute(n, k, every, *_ways(arrays[5]), attend, images)
        if drawn is not None:
            self.drawn[:len(drawn), :k] = drawn
        return hidden, drawn

    def _merged(self, ids: np.ndarray) -> Images | None:
        """What stands for images: features, and which of them for each token; None in ranks that
        do not embed."""
        merged = None if self.vision is None else self.vision.merged(ids)
        return None if merged is None else (
            merged[0], torch.from_numpy(merged[1]).to(self.device))

    def _replay(self, rows: Rows, arrays: tuple[Any, ...], every: bool
                ) -> tuple[Tensor, Tensor | None] | None:
        """The same by a captured graph; None if this step cannot have one."""
        graphs, units, table = self._graphs, self._units, self._table
        assert graphs is not None and units is not None and table is not None
        n, k = len(arrays[0]), len(arrays[4])
        draws, masked = _ways(arrays[5])
        size = bucket(n)
        room = size if every else min(size, bucket(max(k, 1), coarse=True))
        work = units.plan(rows, table, size)
        if work is None:
            return None
        units.load(work, size)
        grid = units.full(work, size)
        self._stage(size, room, arrays)
        attend = units.attend(table.device, size, size, grid)
        graph = graphs.get(Shape(size, room, every, draws, masked, grid),
                           lambda: self._compute(size, room, every, draws, masked, attend))
        if graph is None:
            return None
        hidden, drawn = graph.replay()
        if drawn is not None:
            self.drawn[:len(drawn), :k] = drawn[:, :k]
        return hidden[:k].clone(), drawn

    def _stage(self, tokens: int, rows: int, arrays: tuple[Any, ...]) -> None:
        """Copy a step's integers to the device, in stream order."""
        assert self._table is not None
        size = Inputs.size(tokens, rows)
        staged = staging(size, self.device)
        ids, positions, slots, at, outputs, draws = arrays
        lay_out(staged.numpy(), tokens, rows, self._table.spare, ids, positions, slots, at, outputs,
                None if draws is None else draws.numbers)
        self._inputs[:size].copy_(staged, non_blocking=True)

    def _compute(self, tokens: int, rows: int, every: bool, draws: bool, masked: bool,
                 attend: Attend, images: Images | None = None) -> tuple[Tensor, Tensor | None]:
        """The step that is staged: hidden states, and what the rows draw."""
        model, table = self._open(), self._table
        assert table is not None
        step = Inputs.of(self._inputs, tokens, rows)
        drawn = self.drawn[0][(-1 - step.ids).clamp_(min=0)].clamp_(min=0)
        ids = torch.where(step.ids < 0, drawn, step.ids)
        table.device.index_copy_(0, step.at, step.slots.int())
        hidden = model.forward(ids, step.positions, step.slots, self._pools, attend,
                               None if every else step.outputs, images)
        if not draws or not rows:
            return hidden, None
        assert self._sampler is not None
        return hidden, self._sampler.simple(model.logits(hidden), step.draws,
                                            self.drawn[1] if masked else None)

    def _open(self) -> DeviceLlama:
        if self._model is None:
            raise ModelError("SGLC503", "the model was closed")
        return self._model


def _ways(draws: Drawing | None) -> tuple[bool, bool]:
    """Whether rows draw, and by masks."""
    return draws is not None, draws is not None and draws.masked
