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
from sglc.kernels.registry import DeviceKernels
from sglc.kernels.row_masks import MaskRows
from sglc.runtime.cuda.device_tables import DeviceTables
from sglc.runtime.cuda.masked_rows import MaskedRows, Places
from sglc.runtime.cuda.staging import staging
from sglc.runtime.rules import Rule
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

PLAIN = NOISE  # what draws in a graph may have
_MASKED = PLAIN | WORDS | HOLD | ALLOW | REPORT
_SIZES = 256  # numbers of rows whose memory is kept


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
        self._rows: dict[int, MaskedRows] = {}

    def plain(self, logits: Tensor, draws: Tensor) -> Tensor:
        """Tokens, int64 (R,), of rows without masks, filters and penalties.

        logits: (R, V).  draws: int64 (3, R) from `plain_draws`, on the device.
        """
        rows = len(logits)
        if rows not in self._no_k:
            self._no_k[rows] = (torch.zeros(rows, dtype=torch.int32, device=self._device),
                                torch.ones(rows, dtype=torch.float64, device=self._device))
        none, ones = self._no_k[rows]
        heat = draws[2].view(torch.float64)
        return self._kernels.sample(logits, self._one, Draws(
            heat, draws[0], draws[1], none, ones, ones))

    def draw(self, logits: Tensor, draws: Sequence[Draw], after: Sequence[int],
             drawn: Tensor) -> Tensor:
        """Tokens, int64 (R,), of any rows; -1 where none is possible, -2 where the logits are
        not numbers.  `logits` are not changed.

        drawn: int64, tokens that the host does not know yet.  after: which of them comes before
        a row's draw; -1 for none.
        """
        early = [i >= 0 for i in after]
        flags = 0
        for draw in draws:
            flags |= draw.flags
        if not flags & ~PLAIN:
            return self.plain(logits, self._upload(plain_draws(draws, early)))
        how = noise = None
        if flags & ~_MASKED:
            if flags & BIAS:
                logits = logits.clone()
                add_bias(logits, draws)
            how = self._how(draws, flags, early)
        elif flags & NOISE:
            noise = plain_draws(draws, early)
        began = time.perf_counter()
        rows = self._rows.get(len(draws))
        if rows is None:
            if len(self._rows) >= _SIZES:
                self._rows.clear()
            rows = self._rows[len(draws)] = MaskedRows(len(draws), self._device)
        rules = dict.fromkeys([draw.rule for draw in draws]) if flags & WORDS else {}
        places = self._places(draws, rules, after) if rules else None
        if how is None or places is not None:
            rows.upload(noise, places)
        masks = self._one
        if flags & (WORDS | HOLD | ALLOW):
            masks = self._masks(draws, flags, rules, early, drawn,
                                rows if places is not None else None)
            self.mask_seconds += time.perf_counter() - began
        return self._kernels.sample(logits, masks, rows.draws if how is None else how)

    def _how(self, draws: Sequence[Draw], flags: int, early: Sequence[bool]) -> Draws:
        """Draws with all there is to them, on the device."""
        numbers = np.zeros((9, len(draws)), np.int64)
        numbers[:3] = plain_draws(draws, early)
        params = [draw.params for draw in draws]
        numbers[3:8].view(np.float64)[:] = np.array([
            (p.top_p, p.min_p, p.repetition_penalty, p.frequency_penalty, p.presence_penalty)
            for p in params]).T
        numbers[8] = [max(p.top_k, 0) if p.top_k < self._width else 0 for p in params]
        there = self._upload(numbers)
        real = there[3:8].view(torch.float64)
        penalties = tally = tally_row = None
        if flags & TALLY:
            penalties = real[2:5].t().contiguous()
            tally, tally_row = self._tally(draws)
        return Draws(there[2].view(torch.float64), there[0], there[1], there[8].int(), real[0],
                     real[1], penalties, tally, tally_row, bool(flags & FILTER))

    def _places(self, draws: Sequence[Draw], rules: dict[Rule | None, None],
                after: Sequence[int]) -> Places | None:
        """Each row's table, state and `after`; None if no row has a table.  rules: those of the
        rows."""
        self._tables.hold(rules)
        states = [draw.number for draw in draws]
        if len(rules) == 1:
            (rule,) = rules
            if rule is None or not rule.there:
                return None
            if min(states) < 0:
                states = list(map(_number, draws))
            return [self._tables.number(rule)] * len(draws), states, after
        tables = {rule: self._tables.number(rule) for rule in rules
                  if rule is not None and rule.there}
        if not tables:
            return None
        own = [tables.get(draw.rule, -1) for draw in draws]  # type: ignore[call-overload]
        return (own, [-1 if one < 0 else n if n >= 0 else _number(draw)
                      for draw, one, n in zip(draws, own, states, strict=True)],
                [-1 if one < 0 else i for i, one in zip(after, own, strict=True)])

    def _masks(self, draws: Sequence[Draw], flags: int, rules: dict[Rule | None, None],
               early: Sequence[bool], drawn: Tensor, placed: MaskedRows | None) -> Tensor:
        """int32 (R, words): what each row may draw.  flags: any row's.  placed: the rows' places,
        on the device."""
        spared = held = self._none(len(draws))
        if flags & ALLOW:
            spared = self._ids([[i for i in d.allow if i in self._never and i < self._vocab]
                                if d.flags & ALLOW else [] for d in draws])
        if flags & HOLD:
            held = self._ids([[i for i in d.hold if 0 <= i < self._vocab]
                              if d.flags & HOLD and d.index + more < d.params.min_tokens else []
                              for d, more in zip(draws, early, strict=True)])
        words = row_of = None
        if not all(rule is not None and rule.there for rule in rules):
            words, row_of = self._words_of(draws)
        tables = table = state = behind = None
        if placed is not None:
            tables = self._tables.packed
            table, state, behind = placed.table, placed.state, placed.after
        return self._kernels.row_masks(MaskRows(
            self._base, spared, held, tables, table, state, words, row_of, drawn, behind))

    def _words_of(self, draws: Sequence[Draw]) -> tuple[Tensor | None, Tensor | None]:
        """The masks of rows whose tables are not there, each once, and which is whose."""
        kept, row_of = _words(draws)
        if not kept:
            return None, None
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


def _number(draw: Draw) -> int:
    """The number of the draw's state in its rule's tables."""
    assert draw.rule is not None
    return draw.number if draw.number >= 0 else draw.rule.numbers[draw.state]


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
