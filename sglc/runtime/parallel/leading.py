"""A model on the CPU in several processes, as one `Runner`."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from sglc.runtime.batch import Batch
from sglc.runtime.model_runner import ModelRunner
from sglc.runtime.parallel.records import ALLOCATE, STEP, pack_batch
from sglc.runtime.parallel.team import Team


class ParallelRunner:
    """Rank 0's part of a model and the workers of the others, which it owns.

    Everything that is not a step of all ranks is rank 0's: logits and images are computed there
    alone, and `bytes_per_token` is of its part.
    """

    def __init__(self, runner: ModelRunner, team: Team) -> None:
        self._runner, self._team = runner, team

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._runner, name)

    @property
    def lost(self) -> bool:
        """Whether a worker has ended: then no step works any more."""
        return self._team.error is not None

    def allocate(self, slots: int) -> None:
        self._team.tell(ALLOCATE, np.array([slots]))
        self._runner.allocate(slots)
        self._team.answers()

    def forward(self, batch: Batch) -> Any:
        """As `ModelRunner.forward`.  Raises EngineError (SGLC503) once a worker has ended."""
        self._team.tell(STEP, *pack_batch(batch))
        with self._team.guard():
            hidden: Tensor = self._runner.forward(batch)
        return hidden

    def close(self) -> None:
        self._runner.close()
        self._team.close()
