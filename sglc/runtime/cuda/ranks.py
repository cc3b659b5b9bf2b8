"""A model on several GPUs: the runner of rank 0, and those that follow it.

Rank 0 finds out where rows lie in the page tables, and sends that along; everything else about a
step follows from it in the same way in each rank, the choice and the capture of its graph
included.  Hosts do not wait for each other: a record is sent when the step is launched.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sglc.errors import ModelError
from sglc.kernels.paged_attention import Rows
from sglc.kernels.registry import DeviceKernels
from sglc.runtime.cuda.model import DeviceLlama
from sglc.runtime.cuda.runner import DeviceRunner
from sglc.runtime.cuda.simple_draws import Drawing
from sglc.runtime.parallel.records import ALLOCATE, ROOM, STEP
from sglc.runtime.parallel.team import Team

_POLL_SECONDS = 2e-5


class RankRunner(DeviceRunner):
    """What all ranks have in common."""

    def __init__(self, model: DeviceLlama, kernels: DeviceKernels, **sizes: Any) -> None:
        super().__init__(model, kernels, **sizes)
        if self._graphs is not None:
            self._graphs.must = True  # else others would wait for this rank's sums

    def facts(self) -> np.ndarray:
        """What has to be the same in all ranks for steps to be launched alike."""
        if self.device.type != "cuda":
            return np.zeros(2, np.int64)
        found = torch.cuda.get_device_properties(self.device)
        return np.array([found.multi_processor_count, 10 * found.major + found.minor], np.int64)


class LeadingRunner(RankRunner):
    """Rank 0's: a `DeviceRunner` of the whole model.  It owns the team."""

    def __init__(self, model: DeviceLlama, kernels: DeviceKernels, *, team: Team,
                 **sizes: Any) -> None:
        super().__init__(model, kernels, **sizes)
        self._team = team

    def join(self) -> None:
        """Connect the ranks, once each has loaded its part."""
        mine = self.facts().tolist()
        for rank, (facts,) in enumerate(self._team.answers(), 1):
            if facts.tolist() != mine:
                raise ModelError(
                    "SGLC504", f"the GPU of rank {rank} is another than that of rank 0",
                    why=f"multiprocessors and version: {facts.tolist()} and {mine}",
                    fixes=("use GPUs of one kind (CUDA_VISIBLE_DEVICES)",))
        self._team.connect()

    def room(self, mem_fraction: float) -> int:
        """KV slots that fit in every rank."""
        self._team.tell(ROOM, np.array([int(mem_fraction * 1e6)]))
        mine = super().room(mem_fraction)
        return min(mine, *(int(found[0][0]) for found in self._team.answers()))

    @property
    def lost(self) -> bool:
        """Whether a worker has ended: then no step works any more."""
        return self._team.error is not None

    def allocate(self, slots: int) -> None:
        self._team.tell(ALLOCATE, np.array([slots]))
        super().allocate(slots)
        self._team.answers()

    def wait(self, event: Any) -> None:
        """Wait for an event, or for the end of a worker, which it may then wait for forever.

        Raises EngineError (SGLC503) for the latter.
        """
        # CUDA's own wait has no timeout, and a thread for it would cost two switches a step.  The
        # pause lets other threads have the interpreter's lock, which is not so with none.
        while not event.query():
            self._team.check()
            time.sleep(_POLL_SECONDS)
        self._team.check()

    def close(self) -> None:
        if self._team.error is not None:  # the device may never come to the end of its work
            self._model = None
        super().close()
        self._team.close()

    def _execute(self, rows: Rows, arrays: tuple[Any, ...], every: bool
                 ) -> tuple[Tensor, Tensor | None]:
        table = self._table
        assert table is not None
        *integers, draws = arrays
        pieces = table.pieces
        self._team.tell(
            STEP, np.array([every, draws is not None, draws is not None and draws.masked,
                            table.version]), *integers, rows.starts, rows.tokens, rows.lengths,
            rows.offsets,
            np.array([at for at, _ in pieces], np.int64),
            np.array([len(piece) for _, piece in pieces], np.int64),
            np.concatenate([piece for _, piece in pieces]) if pieces else np.empty(0, np.int64))
        with self._team.guard():
            return super()._execute(rows, arrays, every)


class FollowingRunner(RankRunner):
    """Another rank's: it runs the steps that it is told, and draws nothing."""

    @torch.inference_mode()
    def follow(self, arrays: list[np.ndarray]) -> None:
        """Let a step run, as `LeadingRunner` sends it."""
        (every, draws, masked, version), *integers = arrays[:6]
        *of_rows, places, sizes, entries = arrays[6:]
        _, _, slots, at, outputs = integers
        table = self._table
        assert table is not None
        if len(places):
            table.upload(list(zip(places.tolist(), np.split(entries, sizes.cumsum()[:-1]),
                                  strict=True)))
        table.version = int(version)
        table.host[at] = slots
        nothing = Drawing(np.zeros((4, len(outputs)), np.int64), bool(masked)) if draws else None
        self._execute(Rows(*of_rows), (*integers, nothing), bool(every))

    def _compute(self, tokens: int, rows: int, every: bool, draws: bool, masked: bool, *more: Any
                 ) -> tuple[Tensor, Tensor | None]:
        return super()._compute(tokens, rows, every, False, False, *more)
