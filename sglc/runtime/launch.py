"""Running one prepared step: forward pass, LM head, sampler and scores.

What comes in is data, what goes out is data: nothing here touches the tree, the pool or a
sequence's progress, so a step can run while the next one is prepared.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from sglc.runtime.batch import Runner
from sglc.runtime.few import FewTokens, draw_few
from sglc.runtime.sampler import Draw, Sampler, Top
from sglc.runtime.step import Step
from sglc.tokens.images import in_vocabulary

_SCORE_ROWS = 128  # rows of log-probabilities in memory at once


@dataclass(slots=True)
class Outcome:
    """What a step gave.

    hidden: states of the outputs and, after them, of the cached ones the step named; shape
        (K + cached, H), so that index `k < 0` of the step's names means here what it meant there.
    tokens, reports: of `step.samples`.  scores: of `step.scores`.
    states: of `step.samples`, see `following`; none where nobody but the host knows constraints.
    """

    hidden: Any
    tokens: list[int] = field(default_factory=list)
    reports: dict[int, tuple[float, Top]] = field(default_factory=dict)
    scores: list[float] = field(default_factory=list)
    states: list[int] = field(default_factory=list)


class Launcher:
    """Runs steps on one model.  `model_seconds`: time spent inside it so far.

    A runner may have `logits_of(hidden, ids)`: the logits of some tokens alone, (K, len(ids)).
    """

    def __init__(self, runner: Runner, sampler: Sampler) -> None:
        self.runner = runner
        self.sampler = sampler
        self._few = FewTokens(sampler)
        self._logits_of: Callable[[Any, np.ndarray], torch.Tensor] | None = getattr(
            runner, "logits_of", None)
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
            self._draw(hidden, step, out)
        if step.scores:
            out.scores = self._scores(hidden, step)
        return out

    def _draw(self, hidden: Any, step: Step, out: Outcome) -> None:
        """A token for each of the step's samples."""
        draws = [seq.draw for seq, _ in step.samples]
        rows = [k for _, k in step.samples]
        out.tokens = [-1] * len(rows)
        few = self._draw_few(hidden, rows, draws, out.tokens)
        rest = [i for i in range(len(rows)) if i not in few] if few else range(len(rows))
        if rest:
            logits = self._logits(hidden, [rows[i] for i in rest])
            drawn = self.sampler.draw(logits, [draws[i] for i in rest])
            for i, token in zip(rest, drawn.ids, strict=True):
                out.tokens[i] = token
            out.reports = {rest[r]: report for r, report in drawn.reports.items()}

    def _draw_few(self, hidden: Any, rows: list[int], draws: list[Draw],
                  tokens: list[int]) -> set[int]:
        """Draw the samples that few tokens are allowed for; returns which they are."""
        if self._logits_of is None:
            return set()
        groups: dict[int, tuple[np.ndarray, list[int]]] = {}
        for i, draw in enumerate(draws):
            ids = self._few.of(draw)
            if ids is not None:
                groups.setdefault(id(ids), (ids, []))[1].append(i)
        for ids, members in groups.values():
            started = time.perf_counter()
            logits = self._logits_of(hidden[[rows[i] for i in members]], ids)
            self.model_seconds += time.perf_counter() - started
            for i, row in zip(members, logits, strict=True):
                tokens[i] = draw_few(row, ids, draws[i])
        return {i for _, members in groups.values() for i in members}

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
        wanted = [(k, in_vocabulary(seq.ids[at + 1])) for seq, at, k in step.scores]
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
