"""The pipeline of `runtime/sampler.py` on the device: its inputs, packed on the host.

Tokens stay on the device.  A row that draws before the host knows its last token counts that token
all the same.  Steps and sequences are not known here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sglc.kernels.draws import IN_PROMPT, Draws
from sglc.kernels.fsm import NO_TABLE
from sglc.kernels.registry import DeviceKernels
from sglc.kernels.row_masks import MaskRows
from sglc.runtime.cuda.device_tables import DeviceTables
from sglc.runtime.cuda.staging import staging
from sglc.runtime.sampler import (
    ALLOW,
    BIAS,
    FILTER,
    HOLD,
    NOISE,
    REPORT,
    TALLY,
    WORDS,
    Draw,
    Sampler,
    add_bias,
)

PLAIN = NOISE  # what draws in a graph may have, besides masks from tables
_MASKED = PLAIN | WORDS | HOLD | ALLOW | REPORT


def plain_draws(draws: Sequence[Draw], early: Sequence[bool]) -> np.ndarray:
    """int64 (3, R): keys, counters, and temperatures as the bits of float64.

    early: whether a token that the host does not know yet comes before the row's draw.
    """
    out = np.zeros((3, len(draws)), np.int64)
    heat = out[2].view(np.float64)
    for i, (draw, more) in enumerate(zip(draws, early, strict=True)):
        if draw.flags & NOISE:
            key = draw.high << 32 | draw.low
            out[0, i] = key - (1 << 64) if key >> 63 else key
            out[1, i] = draw.index + more
            heat[i] = draw.params.temperature
    return out


class DeviceSampler:
    """Draws tokens from logits on one device, for a model of `width` logits.

    mask_seconds: what masks have cost the host, with what is uploaded for them.
    """

    def __init__(self, sampler: Sampler, width: int, kernels: DeviceKernels,
                 device: torch.device) -> None:
        self._kernels = kernels
        self._device = device
        self._never = sampler.never
        self._vocab = sampler.vocab_size
        self._width = width
        self._words = -(-width // 32)
        allowed = np.zeros(self._words * 32, np.uint8)
        allowed[:min(sampler.vocab_size, width)] = 1
        allowed[[i for i in sampler.never if i < width]] = 0
        base = np.packbits(allowed, bitorder="little").view(np.int32)
        self._base = torch.from_numpy(base).to(device)
        self._one = self._base[None]
        self._tables = DeviceTables(self._words, device)
        self.mask_seconds = 0.0
        self._no_k: dict[int, tuple[Tensor, Tensor]] = {}
        self._no_ids: dict[int, Tensor] = {}

    def close(self) -> None:
        """Frees the tables; nothing is drawn any more."""
        self._tables = DeviceTables(self._words, self._device, 0)

    def simple(self, logits: Tensor, draws: Tensor, before: Tensor | None) -> Tensor:
        """Tokens, int64 (1, R), of rows without filters, penalties and masks but from tables.
        With masks (2, R): also where they lead to, see `fsm`.

        logits: (R, V).  draws: int64 (4, R), see `simple_draws`, on the device.  before: int64,
        where the rows of the step before are; None for no masks.
        """
        rows = len(logits)
        none, ones = self._nothing(rows)
        key, index, heat, state = draws.unbind()
        masks = self._one
        if before is not None:
            nobody = self._none(rows)
            masks = self._kernels.row_masks(MaskRows(
                self._base, nobody, nobody, self._tables.packed, state, before))
        tokens = self._kernels.sample(logits, masks, Draws(
            heat.view(torch.float64), key, index, none, ones, ones))
        return tokens[None] if before is None else self._follow(state, before, tokens)

    def _follow(self, state: Tensor, before: Tensor, tokens: Tensor) -> Tensor:
        assert self._tables.packed is not None
        return self._kernels.follow_tokens(self._tables.packed, state, before, tokens)

    def states(self, draws: Sequence[Draw], after: Sequence[int]) -> tuple[list[int], bool]:
        """Where each row is, see `fsm`, and whether that tells all masks.  Takes the tables to the
        device, as far as there is room.

        after: by row, the number of the token, not known to the host yet, that comes before the
        row's draw; -1 for none.
        """
        rules = dict.fromkeys([draw.rule for draw in draws])
        self._tables.hold(rules)
        tables = {rule: self._tables.number(rule) << 32 for rule in rules
                  if rule is not None and rule.there}
        out, all_there = [NO_TABLE] * len(draws), True
        for i, (draw, drawn) in enumerate(zip(draws, after, strict=True)):
            rule = draw.rule
            if rule is None or not rule.there:
                all_there = all_there and not draw.flags & WORDS
            elif drawn >= 0:
                out[i] = -1 - drawn
            else:
                number = draw.number
                out[i] = tables[rule] | (number if number >= 0 else rule.numbers[draw.state])
        return out, all_there

    def draw(self, logits: Tensor, draws: Sequence[Draw], after: Sequence[int],
             before: Tensor) -> Tensor:
        """Tokens, int64 (1, R), of any rows; -1 where none is possible, -2 where the logits are
        not numbers.  (2, R) if a row has a table: also where they lead to.  `logits` are not
        changed.

        after: see `states`.  before: see `simple`.
        """
        early = [i >= 0 for i in after]
        flags = 0
        for draw in draws:
            flags |= draw.flags
        more = bool(flags & ~_MASKED)
        numbers = np.zeros((10 if more else 4, len(draws)), np.int64)
        numbers[:3] = plain_draws(draws, early)
        began = time.perf_counter()
        ruled, all_there = False, True
        numbers[3] = NO_TABLE
        if flags & WORDS:
            numbers[3], all_there = self.states(draws, after)
            ruled = bool((numbers[3] != NO_TABLE).any())
        self.mask_seconds += time.perf_counter() - began
        if not flags & ~(PLAIN | WORDS) and all_there:
            return self.simple(logits, self._upload(numbers), before if ruled else None)
        if more:
            self._more(numbers, draws)
        there = self._upload(numbers)
        if flags & BIAS:
            logits = logits.clone()
            add_bias(logits, draws)
        masks, state = self._one, there[3] if ruled else None
        if flags & (WORDS | HOLD | ALLOW):
            began = time.perf_counter()
            masks = self._masks(draws, flags, early, None if all_there else _words(draws), state,
                                before)
            self.mask_seconds += time.perf_counter() - began
        tokens = self._kernels.sample(logits, masks, self._how(there, draws, flags))
        return tokens[None] if state is None else self._follow(state, before, tokens)

    def _more(self, numbers: np.ndarray, draws: Sequence[Draw]) -> None:
        """Write what filters and penalties need into the last rows."""
        params = [draw.params for draw in draws]
        numbers[4:9].view(np.float64)[:] = np.array([
            (p.top_p, p.min_p, p.repetition_penalty, p.frequency_penalty, p.presence_penalty)
            for p in params]).T
        numbers[9] = [max(p.top_k, 0) if p.top_k < self._width else 0 for p in params]

    def _how(self, there: Tensor, draws: Sequence[Draw], flags: int) -> Draws:
        """Draws with all there is to them.  there: the numbers, on the device."""
        key, index, heat = there[0], there[1], there[2].view(torch.float64)
        if len(there) == 4:
            none, ones = self._nothing(len(draws))
            return Draws(heat, key, index, none, ones, ones)
        real = there[4:9].view(torch.float64)
        penalties = tally = tally_row = None
        if flags & TALLY:
            penalties = real[2:5].t().contiguous()
            tally, tally_row = self._tally(draws)
        return Draws(heat, key, index, there[9].int(), real[0], real[1], penalties, tally,
                     tally_row, bool(flags & FILTER))

    def _nothing(self, rows: int) -> tuple[Tensor, Tensor]:
        """int32 (R,) of zeros and float64 (R,) of ones."""
        if rows not in self._no_k:
            self._no_k[rows] = (torch.zeros(rows, dtype=torch.int32, device=self._device),
                                torch.ones(rows, dtype=torch.float64, device=self._device))
        return self._no_k[rows]

    def _masks(self, draws: Sequence[Draw], flags: int, early: Sequence[bool],
               words: tuple[list[np.ndarray], list[int]] | None, state: Tensor | None,
               before: Tensor) -> Tensor:
        """int32 (R, words): what each row may draw.  flags: any row's.  words: from `_words`."""
        spared = held = self._none(len(draws))
        if flags & ALLOW:
            spared = self._ids([[i for i in d.allow if i in self._never and i < self._vocab]
                                if d.flags & ALLOW else [] for d in draws])
        if flags & HOLD:
            held = self._ids([[i for i in d.hold if 0 <= i < self._vocab]
                              if d.flags & HOLD and d.index + more < d.params.min_tokens else []
                              for d, more in zip(draws, early, strict=True)])
        own = row_of = None
        if words is not None and words[0]:
            own, row_of = self._upload_words(*words)
        return self._kernels.row_masks(MaskRows(
            self._base, spared, held, None if state is None else self._tables.packed, state,
            before, own, row_of))

    def _upload_words(self, kept: list[np.ndarray], row_of: list[int]) -> tuple[Tensor, Tensor]:
        staged = staging(len(kept) * self._words, self._device, torch.int32)
        view = staged.numpy().reshape(len(kept), self._words)
        for line, mask in zip(view, kept, strict=True):
            n = min(len(mask), self._words)
            line[:n] = mask[:n].view(np.int32)
            line[n:] = 0
        words = staged.to(self._device, non_blocking=True).view(len(kept), self._words)
        return words, self._upload(np.array(row_of, np.int32))

    def _none(self, rows: int) -> Tensor:
        """int32 (R, 0)."""
        if rows not in self._no_ids:
            self._no_ids[rows] = torch.empty((rows, 0), dtype=torch.int32, device=self._device)
        return self._no_ids[rows]

    def _ids(self, lists: Sequence[Sequence[int]]) -> Tensor:
        """int32 (R, n), filled up with -1; n is 0 or a power of two."""
        most = max(map(len, lists), default=0)
        if not most:
            return self._none(len(lists))
        out = np.full((len(lists), 1 << (most - 1).bit_length()), -1, np.int32)
        for line, ids in zip(out, lists, strict=True):
            line[:len(ids)] = ids
        return self._upload(out)

    def _tally(self, draws: Sequence[Draw]) -> tuple[Tensor, Tensor]:
        """What penalised rows have, (P, V) and (R,), see `Draws`."""
        rows = np.full(len(draws), -1, np.int32)
        cells, counts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        n = 0
        for i, d in enumerate(draws):
            if d.tally is not None:
                known, seen = d.tally.known()
                rows[i] = n
                cells.append(n * self._width + known)
                counts.append(seen.astype(np.int64) | IN_PROMPT)
                n += 1
        tally = torch.zeros(n * self._width, dtype=torch.int32, device=self._device)
        at = self._upload(np.concatenate(cells))
        tally.index_copy_(0, at, self._upload(np.concatenate(counts)).int())
        return tally.view(n, self._width), self._upload(rows)

    def _upload(self, array: np.ndarray) -> Tensor:
        kind = torch.int64 if array.dtype == np.int64 else torch.int32
        staged = staging(array.size, self._device, kind)
        staged.numpy()[:] = array.reshape(-1)
        return staged.to(self._device, non_blocking=True).view(array.shape)


def _words(draws: Sequence[Draw]) -> tuple[list[np.ndarray], list[int]]:
    """The masks of rows whose tables are not there, each once, and which is whose, -1 for none."""
    of: dict[int, int] = {}
    kept: list[np.ndarray] = []
    row_of = [-1] * len(draws)
    for i, d in enumerate(draws):
        if (d.rule is None or not d.rule.there) and d.flags & WORDS:
            words = d.words
            if words is None:
                continue
            at = of.get(id(words))
            if at is None:
                at = of[id(words)] = len(kept)
                kept.append(words)
            row_of[i] = at
    return kept, row_of
