"""What tests of real models share: steps of a runner, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sglc.runtime.batch import Batch, Row
from sglc.runtime.model_runner import ModelRunner


def expected_logits(model: Any, ids: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([list(ids)])).logits[0]


def tokens(n: int, vocab: int = 96, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, vocab, n)


# One row of a step: its sequence's ids, how many came before, and the slot of every position.
Part = tuple[np.ndarray, int, np.ndarray]


def run(runner: ModelRunner, parts: Sequence[Part],
        outputs: Sequence[int] | None = None) -> torch.Tensor:
    """Logits of the step's tokens (or of those at `outputs`)."""
    rows, start = [], 0
    for ids, done, _ in parts:
        rows.append(Row(start, len(ids) - done, np.zeros(0)))
        start += len(ids) - done
    for row, (_, _, slots) in zip(rows, parts, strict=True):
        row.context = slots
    batch = Batch(ids=np.concatenate([ids[done:] for ids, done, _ in parts]),
                  positions=np.concatenate([np.arange(done, len(ids)) for ids, done, _ in parts]),
                  slots=np.concatenate([slots[done:] for _, done, slots in parts]),
                  rows=rows, outputs=np.arange(start) if outputs is None else np.array(outputs))
    return runner.logits(runner.forward(batch))


def alone(runner: ModelRunner, ids: np.ndarray) -> torch.Tensor:
    """Logits of every position of one sequence, prefilled at once into fresh slots."""
    runner.allocate(len(ids))
    return run(runner, [(ids, 0, np.arange(len(ids)))])


def close(a: torch.Tensor, b: torch.Tensor, limit: float = 2e-4) -> None:
    assert a.shape == b.shape
    assert torch.isfinite(a).all()
    assert (a - b).abs().max() <= limit
