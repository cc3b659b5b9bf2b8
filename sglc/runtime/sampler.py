"""From logits to tokens: masks, penalties, filters and order-free sampling, a row at a time in
meaning, all rows at once in code.

The pipeline of a row (design section 3): logit bias, never-sampled ids, constraint mask,
`min_tokens`, penalties, then the best token (greedy), or temperature, top-k, top-p, min-p and
Gumbel-max (see `noise.py`).  Ties go to the lowest id.  A row's outcome depends on its own logits
and `Draw` only, never on the other rows; what decides is computed in float64.

This module knows neither requests nor the scheduler.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sglc.runtime.noise import gumbel_max
from sglc.runtime.request import SamplingParams

if TYPE_CHECKING:
    from sglc.runtime.rules import Rule

NOISE, FILTER, TALLY, WORDS, HOLD, ALLOW, REPORT, BIAS = (1 << i for i in range(8))

_BLOCK = 1 << 17  # elements of float64 scores made at once: what a cache holds
_INF = float("inf")

Top = tuple[tuple[float, int], ...]


class Tally:
    """Which tokens a sequence has, and how often it has generated them: what penalties need."""

    __slots__ = ("_counts", "_ids", "_index", "_n")

    def __init__(self, prompt: Iterable[int] = ()) -> None:
        known = list(dict.fromkeys(prompt))
        self._index = {token: i for i, token in enumerate(known)}
        self._n = len(known)
        self._ids = np.zeros(max(64, 2 * self._n), dtype=np.int64)
        self._ids[:self._n] = known
        self._counts = np.zeros(len(self._ids))

    def add(self, token: int) -> None:
        """Count one generated token."""
        i = self._index.get(token)
        if i is None:
            i = self._index[token] = self._n
            if i == len(self._ids):
                self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
                self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
            self._ids[i] = token
            self._n += 1
        self._counts[i] += 1

    def known(self) -> tuple[np.ndarray, np.ndarray]:
        """The tokens that count, int64, and how often each was generated, float64."""
        return self._ids[:self._n], self._counts[:self._n]

    def apply(self, row: torch.Tensor, params: SamplingParams,
              columns: np.ndarray | None = None) -> None:
        """Penalise one row of logits in place: repetition (Keskar et al. 2019: prompt and
        output, divide if positive, else multiply), then frequency and presence (output).
        `columns`: the ids, ascending, that the row is of; None for all."""
        known, seen = self.known()
        if columns is not None:
            at = np.searchsorted(columns, known).clip(max=len(columns) - 1)
            there = columns[at] == known
            known, seen = at[there], seen[there]
        ids = torch.from_numpy(known).to(row.device)
        counts = torch.from_numpy(seen).to(row.device)
        values = row[ids]
        penalty = params.repetition_penalty
        if penalty != 1.0:
            values = torch.where(values > 0, values / penalty, values * penalty)
        row[ids] = values - (params.frequency_penalty * counts
                             + params.presence_penalty * (counts > 0))


class Draw:
    """How one sequence draws its next token.  `index` counts the tokens drawn so far.

    number: the constraint's state, where it is known by its number in the tables of `rule` alone:
    `state` and `words` are looked up when they are asked for; -1 where they were set.
    """

    __slots__ = ("_state", "_words", "allow", "flags", "high", "hold", "index", "low", "number",
                 "params", "rule", "tally")

    def __init__(self, params: SamplingParams, key: int = 0, *, stop_ids: Iterable[int] = (),
                 constrained: bool = False, prompt: Iterable[int] = ()) -> None:
        """`stop_ids`: EOS and the stop tokens, held back for `min_tokens`.  With
        `constrained`, `words` must be set to the constraint's mask before each draw; if `rule` is
        set, it is that of the rule's `state`."""
        self.params = params
        self.low = key & 0xFFFFFFFF
        self.high = (key >> 32) & 0xFFFFFFFF
        self.index = 0
        self.rule: Rule | None = None
        self.number = -1
        self._state: Any = None
        self._words: np.ndarray | None = None
        self.tally: Tally | None = None
        self.allow = params.stop_token_ids
        self.hold = tuple(stop_ids) if params.min_tokens > 0 else ()
        flags = 0
        if not params.greedy:
            flags |= NOISE
            if params.top_k > 0 or params.top_p < 1.0 or params.min_p > 0.0:
                flags |= FILTER
        if params.frequency_penalty or params.presence_penalty \
                or params.repetition_penalty != 1.0:
            flags |= TALLY
            self.tally = Tally(prompt if params.repetition_penalty != 1.0 else ())
        if constrained:
            flags |= WORDS
        if self.hold:
            flags |= HOLD
        if self.allow:
            flags |= ALLOW
        if params.logit_bias:
            flags |= BIAS
        if params.logprobs or params.top_logprobs > 0:
            flags |= REPORT
        self.flags = flags

    @property
    def state(self) -> Any:
        """The constraint's state."""
        if self.number < 0 or self.rule is None:
            return self._state
        return self.rule.state_of(self.number)

    @state.setter
    def state(self, state: Any) -> None:
        self.number, self._state = -1, state

    @property
    def words(self) -> np.ndarray | None:
        """The mask of that state; None for none."""
        if self.number < 0 or self.rule is None:
            return self._words
        return self.rule.words_of(self.number)

    @words.setter
    def words(self, words: np.ndarray | None) -> None:
        self.enter(self.state, words)

    def enter(self, state: Any, words: np.ndarray | None) -> None:
        """Draw in this state next."""
        self.number, self._state, self._words = -1, state, words

    @property
    def reports(self) -> bool:
        """Whether log-probabilities are wanted."""
        return bool(self.flags & REPORT)


@dataclass(slots=True)
class Drawn:
    """The outcome of a batch of draws, a row each.

    ids: the token; -1 where no token is possible, -2 where the logits are not numbers.
    reports: row -> (log-probability of the token, the best tokens), of the raw logits.
    """

    ids: list[int]
    reports: dict[int, tuple[float, Top]] = field(default_factory=dict)


class Sampler:
    """Draws tokens from logits.

    vocab_size: ids from here on (padding of the model's vocabulary) are never drawn.
    never: ids never drawn unless they are among a row's `stop_token_ids`.
    """

    def __init__(self, vocab_size: int, never: Iterable[int] = ()) -> None:
        self.vocab_size = vocab_size
        self.never = frozenset(never)
        self._never = torch.tensor(sorted(i for i in self.never if 0 <= i < vocab_size),
                                   dtype=torch.int64)

    @torch.inference_mode()
    def draw(self, logits: torch.Tensor, draws: Sequence[Draw]) -> Drawn:
        """Draw one token a row.  `logits`: float32, (rows, V); overwritten."""
        flags = 0
        for draw in draws:
            flags |= draw.flags
        raw = None
        if flags & REPORT:
            reported = [r for r, d in enumerate(draws) if d.flags & REPORT]
            raw = torch.log_softmax(logits[reported], dim=-1)
        if flags & BIAS:
            add_bias(logits, draws)
        if flags & TALLY:
            logits = logits.double()
        self._mask(logits, draws, flags)
        if flags & NOISE:
            ids = _noisy(logits, draws)
        else:
            ids = best(logits)
        out = Drawn(ids)
        if raw is not None:
            for i, r in enumerate(reported):
                if ids[r] >= 0:
                    out.reports[r] = _report(raw[i], ids[r], draws[r].params.top_logprobs)
        return out

    def _mask(self, logits: torch.Tensor, draws: Sequence[Draw], flags: int) -> None:
        """Masks and penalties, in place."""
        spared: list[tuple[int, list[int], torch.Tensor]] = []
        if flags & ALLOW:
            for r, d in enumerate(draws):
                allowed = [i for i in d.allow if i in self.never and i < self.vocab_size]
                if allowed:
                    spared.append((r, allowed, logits[r, allowed]))
        if len(self._never):
            logits.index_fill_(1, self._never.to(logits.device), -_INF)
        for r, allowed, values in spared:
            logits[r, allowed] = values
        if logits.shape[1] > self.vocab_size:
            logits[:, self.vocab_size:] = -_INF
        if not flags & (WORDS | HOLD | TALLY):
            return
        for r, d in enumerate(draws):
            if d.flags & WORDS and d.words is not None:
                forbidden = torch.from_numpy(~unpack(d.words, logits.shape[1]))
                logits[r].masked_fill_(forbidden.to(logits.device), -_INF)
            if d.flags & HOLD and d.index < d.params.min_tokens:
                row = logits[r]
                held = [i for i in d.hold if 0 <= i < self.vocab_size]
                values = row[held]
                row[held] = -_INF
                if row.max().item() == -_INF:  # nothing else is possible: they are not held
                    row[held] = values
            if d.tally is not None:
                d.tally.apply(logits[r], d.params)


def add_bias(logits: torch.Tensor, draws: Sequence[Draw]) -> None:
    """Add each row's `logit_bias` to its logits, in place; ids that there are not are left out."""
    cells = [(r, token, value) for r, d in enumerate(draws) for token, value in d.params.logit_bias
             if token < logits.shape[1]]
    if cells:
        rows, ids, values = zip(*cells, strict=True)
        where = (torch.tensor(rows, device=logits.device), torch.tensor(ids, device=logits.device))
        logits.index_put_(where, torch.tensor(values, dtype=logits.dtype, device=logits.device),
                          accumulate=True)


def _noisy(logits: torch.Tensor, draws: Sequence[Draw]) -> list[int]:
    """One token a row, of which at least one is sampled."""
    ids = [-1] * len(draws)
    greedy = [r for r, d in enumerate(draws) if not d.flags & NOISE]
    if greedy:
        for r, token in zip(greedy, best(logits[greedy]), strict=True):
            ids[r] = token
    noisy = [r for r, d in enumerate(draws) if d.flags & NOISE]
    block = max(1, _BLOCK // logits.shape[1])
    for at in range(0, len(noisy), block):
        rows = noisy[at:at + block]
        part = [draws[r] for r in rows]
        heat = torch.tensor([[d.params.temperature] for d in part], dtype=torch.float64,
                            device=logits.device)
        scores = (logits if len(rows) == len(draws) else logits[rows]).double() / heat
        filtered = [i for i, d in enumerate(part) if d.flags & FILTER]
        if filtered:
            scores[filtered] = keep_likely(scores[filtered],
                                           [part[i].params for i in filtered])
        counters = np.array([(d.index, d.low, d.high) for d in part], dtype=np.uint64)
        for r, token in zip(rows, gumbel_max(scores, counters), strict=True):
            ids[r] = token
    return ids


def keep_likely(scores: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor:
    """Scores with what top-k, then top-p, then min-p exclude set to -inf; float64, (rows, V).

    top-p keeps the fewest best tokens whose probabilities, renormalised after top-k, reach p;
    min-p those at least p times as likely as the best.  Of equals, low ids are kept first.
    """
    vocab = scores.shape[1]
    counts = [p.top_k if 0 < p.top_k < vocab else vocab for p in params]
    scores = _keep_best(scores, counts)
    nucleus = [r for r, p in enumerate(params) if p.top_p < 1.0]
    if nucleus:
        probs = torch.softmax(scores[nucleus], dim=1)
        mass = torch.tensor([[params[r].top_p] for r in nucleus], dtype=torch.float64,
                            device=scores.device)
        size = min(vocab, 256)
        while True:  # most nuclei are small; the full sort is for the flat ones
            likely = torch.topk(probs, size, dim=1).values
            inside = torch.cumsum(likely, dim=1) - likely < mass
            if size == vocab or not bool(inside[:, -1].any()):
                break
            size = min(vocab, size * 8)
        counts = [max(1, n) for n in inside.sum(dim=1).tolist()]
        scores[nucleus] = _keep_best(scores[nucleus], counts)
    ratios = torch.tensor([p.min_p for p in params], dtype=torch.float64, device=scores.device)
    if bool((ratios > 0).any()):
        floors = scores.amax(dim=1) + ratios.log()
        scores = scores.masked_fill(scores < floors[:, None], -_INF)
    return scores


def _keep_best(scores: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """All but the `counts[r]` best of each row set to -inf; of equals, low ids are better."""
    vocab = scores.shape[1]
    most = max((n for n in counts if n < vocab), default=0)
    if not most:
        return scores.clone()
    ordered = torch.topk(scores, most, dim=1).values
    wanted = torch.tensor(counts, device=scores.device)[:, None]
    floors = ordered.gather(1, wanted.clamp(max=most) - 1)
    floors.masked_fill_(wanted >= vocab, -_INF)
    kept = scores >= floors
    if bool((kept.sum(dim=1, keepdim=True) > wanted).any()):  # equals at the border
        above = scores > floors
        equal = kept & ~above
        equal &= equal.cumsum(dim=1) <= wanted - above.sum(dim=1, keepdim=True)
        kept = above | equal
    return scores.masked_fill(~kept, -_INF)


def unpack(words: np.ndarray, vocab: int) -> np.ndarray:
    """Packed int32 words as `vocab` booleans (bit `t & 31` of word `t >> 5`)."""
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), bitorder="little")[:vocab]
    if len(bits) < vocab:
        bits = np.concatenate([bits, np.zeros(vocab - len(bits), dtype=np.uint8)])
    return bits.view(bool)


def best(scores: torch.Tensor) -> list[int]:
    """The first best index of each row; -1 where all are -inf, -2 where the best is NaN."""
    values, ids = scores.max(dim=1)
    found: list[Any] = ids.tolist()
    if not bool(values.isfinite().all()):
        for r, value in enumerate(values.tolist()):
            if value != value:
                found[r] = -2
            elif value == -_INF:
                found[r] = -1
    return found


def _report(raw: torch.Tensor, token: int, top: int) -> tuple[float, Top]:
    likely: Top = ()
    if top > 0:
        values, ids = torch.topk(raw, min(top, len(raw)))
        pairs = zip(values.tolist(), ids.tolist(), strict=True)
        likely = tuple(sorted(pairs, key=lambda pair: (-pair[0], pair[1])))
    return float(raw[token]), likely
