"""Running one prepared step: forward pass, LM head, sampler and scores.

What comes in is data, what goes out is data: nothing here touches the tree, the pool or a
sequence's progress, so a step can run while the next one is prepared.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch

from sglc.runtime.batch import Runner
from sglc.runtime.sampler import Sampler, Top
from sglc.runtime.step import Step

_SCORE_ROWS = 128  # rows of log-probabilities in memory at once


@dataclass(slots=True)
class Outcome:
    """What a step gave.

    hidden: states of the outputs and, after them, of the cached ones the step named; shape
        (K + cached, H), so that index `k < 0` of the step's names means here what it meant there.
    tokens, reports: of `step.samples`.  scores: of `step.scores`.
    """

    hidden: Any
    tokens: list[int] = field(default_factory=list)
    reports: dict[int, tuple[float, Top]] = field(default_factory=dict)
    scores: list[float] = field(default_factory=list)


class Launcher:
    """Runs steps on one model.  `model_seconds`: time spent inside it so far."""

    def __init__(self, runner: Runner, sampler: Sampler) -> None:
        self.runner = runner
        self.sampler = sampler
        self.model_seconds = 0.0

    @torch.inference_mode()
    def launch(self, step: Step) -> Outcome:
        """Run the step.  Whatever the model raises is raised."""
        parts = []
        if step.size:
            started = time.perf_counter()
            parts.append(self.runner.forward(step.batch()))
            self.model_seconds += time.perf_counter() - started
        if step.cached:  # named -1, -2, ...: so in reverse, at the end
            parts.append(torch.stack(step.cached[::-1]))
        hidden = torch.cat(parts) if len(parts) > 1 else parts[0] if parts else None
        out = Outcome(hidden)
        if step.samples:
            logits = self._logits(hidden, [k for _, k in step.samples])
            drawn = self.sampler.draw(logits, [seq.draw for seq, _ in step.samples])
            out.tokens, out.reports = drawn.ids, drawn.reports
        if step.scores:
            out.scores = self._scores(hidden, step)
        return out

    def _logits(self, hidden: Any, rows: list[int]) -> torch.Tensor:
        """Logits of these hidden states, a row each, computed once where a state is shared."""
        distinct = list(dict.fromkeys(rows))
        logits = self._head(hidden, distinct)
        if len(distinct) == len(rows):
            return logits
        place = {k: i for i, k in enumerate(distinct)}
        return logits[[place[k] for k in rows]]

    def _head(self, hidden: Any, rows: list[int]) -> torch.Tensor:
        if rows != list(range(len(hidden))):
            hidden = hidden[rows]
        started = time.perf_counter()
        logits: torch.Tensor = self.runner.logits(hidden)
        self.model_seconds += time.perf_counter() - started
        return logits

    def _scores(self, hidden: Any, step: Step) -> list[float]:
        wanted = [(k, seq.ids[at + 1]) for seq, at, k in step.scores]
        by_row: dict[int, list[int]] = {}
        for i, (k, _) in enumerate(wanted):
            by_row.setdefault(k, []).append(i)
        rows = list(by_row)
        scores = [0.0] * len(wanted)
        for at in range(0, len(rows), _SCORE_ROWS):
            block = rows[at:at + _SCORE_ROWS]
            logs = torch.log_softmax(self._head(hidden, block), dim=-1)
            cells = [(r, i) for r, k in enumerate(block) for i in by_row[k]]
            picked = logs[[r for r, _ in cells], [wanted[i][1] for _, i in cells]].tolist()
            for (_, i), value in zip(cells, picked, strict=True):
                scores[i] = value
        return scores
