"""The sampling kernels against the sampler of the CPU, which is the definition, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sglc.kernels.draws import IN_PROMPT, Draws
from sglc.kernels.follow_tokens import follow_tokens_torch
from sglc.kernels.follow_tokens_triton import follow_tokens_triton
from sglc.kernels.fsm import DEAD, NO_TABLE, FsmTables, pack_tables
from sglc.kernels.logprobs import logprobs_torch
from sglc.kernels.logprobs_triton import logprobs_triton
from sglc.kernels.row_masks import MaskRows, row_masks_torch
from sglc.kernels.row_masks_triton import row_masks_triton
from sglc.kernels.sample import sample_torch
from sglc.kernels.sample_triton import sample_triton
from sglc.runtime.request import SamplingParams
from sglc.runtime.sampler import Draw, Sampler
from tests.kernels.triton.places import Place, close

pytestmark = pytest.mark.gpu

FORMS = [{"temperature": 0.0}, {"temperature": 0.7}, {"top_k": 5}, {"top_p": 0.6},
         {"top_p": 0.97, "temperature": 1.5}, {"min_p": 0.05}, {"top_k": 40, "top_p": 0.3},
         {"top_k": 7, "top_p": 0.9, "min_p": 0.3, "temperature": 2.0}, {"top_p": 1e-9},
         {"top_k": 10**6}, {"top_k": 1}, {"min_p": 1.0}, {"top_p": 0.999999}]
PENALTIES = [{}, {"repetition_penalty": 1.3}, {"frequency_penalty": 0.4, "presence_penalty": -0.2},
             {"repetition_penalty": 0.8, "presence_penalty": 0.5}]


def make_draws(place: Place, params: list[SamplingParams], seed: int, vocab: int,
               history: list[tuple[list[int], list[int]]] | None,
               ) -> tuple[list[Draw], Draws]:
    """The same rows for the sampler and for the kernels.  history: prompt and output of each."""
    rng = np.random.default_rng(seed)
    keys = rng.integers(0, 2**64, len(params), dtype=np.uint64)
    index = rng.integers(0, 1000, len(params))
    rows = []
    tally = torch.zeros(len(params), vocab, dtype=torch.int32)
    tally_row = torch.full((len(params),), -1, dtype=torch.int32)
    for r, p in enumerate(params):
        prompt, output = history[r] if history else ([], [])
        draw = Draw(p, int(keys[r]), prompt=prompt)
        draw.index = int(index[r])
        if draw.tally is not None:
            tally_row[r] = r
            if p.repetition_penalty != 1.0:
                tally[r, prompt] = IN_PROMPT
            for token in output:
                draw.tally.add(token)
                tally[r, token] += 1
        rows.append(draw)

    def column(name: str, kind: torch.dtype) -> torch.Tensor:
        return torch.tensor([getattr(p, name) for p in params], dtype=kind, device=place.device)

    heat = torch.tensor([0.0 if p.greedy else p.temperature for p in params], dtype=torch.float64)
    draws = Draws(
        heat.to(place.device), torch.from_numpy(keys.view(np.int64)).to(place.device),
        torch.from_numpy(index).to(place.device), column("top_k", torch.int32).clamp(min=0),
        column("top_p", torch.float64), column("min_p", torch.float64), filtered=True)
    if history:
        penalties = torch.stack([column(n, torch.float64) for n in (
            "repetition_penalty", "frequency_penalty", "presence_penalty")], 1)
        draws = replace(draws, penalties=penalties.contiguous(), tally=tally.to(place.device),
                        tally_row=tally_row.to(place.device))
    return rows, draws


def some_logits(place: Place, rows: int, vocab: int) -> torch.Tensor:
    """Flat, peaked, and coarse rows: the last have many equals."""
    logits = place.randn(rows, vocab) * (1 + 6 * (torch.arange(rows) % 3)[:, None].to(place.device))
    logits[::4] = (logits[::4] * 4).round() / 4
    return logits


def everything(vocab: int, device: str) -> torch.Tensor:
    words = np.full((vocab + 31) // 32, -1, dtype=np.int32)
    if vocab % 32:
        words[-1] = (1 << vocab % 32) - 1
    return torch.from_numpy(words)[None].to(device)


@pytest.mark.parametrize("penalised", [False, True])
def test_sample(place: Place, penalised: bool) -> None:
    vocab = place.pick(301, 128256)
    params = [SamplingParams(**f, **(PENALTIES[i % 4] if penalised else {}))
              for i, f in enumerate(FORMS * place.pick(1, 3))]
    seed = int(place.integers(0, 10**9, 1))
    rng = np.random.default_rng(seed)
    history = [(rng.integers(0, vocab, 20).tolist(), rng.integers(0, vocab, 20).tolist())
               for _ in params]
    rows, draws = make_draws(place, params, seed, vocab, history if penalised else None)
    logits = some_logits(place, len(params), vocab)
    never = [3, 4, vocab - 1]
    mask = everything(vocab, "cpu")
    for token in never:
        mask[0, token >> 5] &= ~(1 << (token & 31))
    mask = mask.to(place.device)
    expected = Sampler(vocab, never).draw(logits.cpu(), rows).ids
    before = logits.clone()
    assert sample_torch(logits, mask, draws).tolist() == expected
    assert sample_triton(logits, mask, draws).tolist() == expected
    assert torch.equal(logits, before)
    plain = replace(draws, filtered=False, top_k=draws.top_k * 0, top_p=draws.top_p * 0 + 1,
                    min_p=draws.min_p * 0)
    assert sample_triton(logits, mask, plain).tolist() \
        == sample_torch(logits, mask, plain).tolist()


def test_sample_of_half_types_and_few_tokens(place: Place) -> None:
    vocab, count = place.pick(301, 50_000), place.pick(40, 1000)
    params = [SamplingParams(**f) for f in FORMS[:place.pick(7, 99)]]
    _, draws = make_draws(place, params, 5, vocab, None)
    for dtype in (torch.bfloat16, torch.float16) if not place.tiny else (torch.float16,):
        logits = some_logits(place, len(params), vocab).to(dtype)
        mask = everything(vocab, place.device)
        whole = sample_triton(logits, mask, draws).tolist()
        assert whole == sample_triton(logits.float(), mask, draws).tolist()
    logits = logits.float()
    ids = torch.full((len(params), count), -1, dtype=torch.int32)
    forbidden = torch.full_like(logits, -float("inf"))
    for r in range(len(params)):
        n = count - 3 * r % count
        ids[r, :n] = torch.randperm(vocab, generator=place.generator)[:n].sort().values
        forbidden[r, ids[r, :n].long()] = logits[r, ids[r, :n].long()]
    ids = ids.to(place.device)
    few = logits.gather(1, ids.clamp(min=0).long())
    expected = sample_torch(forbidden, mask, draws).tolist()
    assert sample_torch(few, mask, draws, ids).tolist() == expected
    assert sample_triton(few, mask, draws, ids).tolist() == expected


def test_nothing_possible_and_not_a_number(place: Place) -> None:
    vocab = place.pick(70, 5000)
    params = [SamplingParams(temperature=t, top_p=p) for t in (0.0, 1.0) for p in (1.0, 0.5)]
    _, draws = make_draws(place, params, 5, vocab, None)
    logits = place.randn(4, vocab)
    mask = everything(vocab, place.device)
    assert sample_triton(logits, mask * 0, draws).tolist() == [-1] * 4
    logits[:, 7] = float("nan")
    assert sample_triton(logits, mask, draws).tolist() == [-2] * 4
    mask[0, 0] &= ~(1 << 7)
    assert min(sample_triton(logits, mask, draws).tolist()) >= 0
    logits[:] = 1.5
    assert sample_triton(logits, mask, draws).tolist()[:2] == [0, 0]


def some_tables(place: Place, vocab: int, count: int) -> tuple[FsmTables, list[SimpleNamespace]]:
    """Random tables of 6 states, whose masks agree with their moves."""
    made = []
    words = (vocab + 31) // 32
    for _ in range(count):
        states, classes = 6, (9, 4)
        kinds = np.stack([place.integers(0, c, vocab).cpu().numpy() for c in classes])
        group = place.integers(0, 2, states).cpu().numpy()
        widths = np.array(classes)[group]
        offset = np.cumsum(widths) - widths
        after = place.integers(-3, states, int(widths.sum())).cpu().numpy().clip(min=-1)
        bits = np.zeros((states, words * 32), dtype=np.uint8)
        for s in range(states):
            bits[s, :vocab] = after[offset[s] + kinds[group[s]]] >= 0
        order = place.integers(0, 10**6, states).cpu().numpy().argsort()
        rows = np.packbits(bits[order], axis=1, bitorder="little").view(np.int32)
        made.append(SimpleNamespace(
            class_of_token=kinds.astype(np.uint16), group=group.astype(np.uint8),
            offset=offset.astype(np.int32), next=after.astype(np.int16), rows=rows,
            row_id=order.argsort().astype(np.int16),
            free=place.integers(0, 2, states).cpu().numpy().astype(bool)))
    return pack_tables(made, words, place.device), made


def step_of(tables: list[SimpleNamespace], now: int, token: int) -> int:
    """Where a token leads, one row at a time and word for word."""
    if now == NO_TABLE or token < 0 or now & DEAD == DEAD:
        return now if now == NO_TABLE else ~now
    table, state = tables[now >> 32], now & DEAD
    kind = int(table.class_of_token[table.group[state], token])
    after = int(table.next[table.offset[state] + kind])
    if after < 0:
        return ~(now >> 32 << 32 | DEAD)
    to = now >> 32 << 32 | after
    return to if table.free[after] else ~to


def some_states(place: Place, rows: int) -> torch.Tensor:
    """Where rows of `some_tables` (3) may be."""
    table, state = place.integers(0, 4, rows), place.integers(0, 7, rows)
    state = state.masked_fill(state == 6, DEAD)
    return torch.where(table == 3, NO_TABLE, table << 32 | state)


def test_masks_and_the_next_step(place: Place) -> None:
    """Random rows, some with a table, masks, held and spared tokens; then a step of each."""
    vocab, rows = place.pick(77, 128256), place.pick(9, 300)
    tables, made = some_tables(place, vocab, 3)
    words = everything(vocab, place.device).shape[1]
    base = everything(vocab, place.device)[0]
    base[1] = 0

    def some(low: int, high: int, *size: int) -> torch.Tensor:
        return place.integers(low, high, *size, dtype=torch.int32)

    now = some_states(place, rows)
    told = place.integers(0, 2, rows).bool() & (now != NO_TABLE)
    masks = MaskRows(base, some(-1, vocab, rows, 2), some(-1, vocab, rows, 4), tables,
                     now, torch.where(told, ~now, now).flip(0),
                     some(-2**31, 2**31 - 1, 4, words), some(-1, 4, rows))
    found = row_masks_triton(masks)
    assert torch.equal(found, row_masks_torch(masks))
    # Rows that are where others of the step before have come to.
    stand = -rows + torch.arange(rows, device=place.device)
    again = replace(masks, state=torch.where(place.integers(0, 2, rows).bool(), stand, now))
    assert torch.equal(row_masks_triton(again), found)
    assert torch.equal(row_masks_torch(again), found)
    narrow = replace(masks, words=None, words_row=None, tables=None, state=None, before=None)
    assert torch.equal(row_masks_triton(narrow), row_masks_torch(narrow))
    # Rows of which only what is held back remains, and rows of which nothing does.
    only = replace(narrow, base=base * 0)
    only.spared[:, 0] = torch.arange(rows)
    only.held[:, 0] = torch.arange(rows)
    only.spared[:, 1] = torch.arange(rows) + 1
    only.spared[::2, 1] = -1
    only.held[:, 1:] = -1
    found = row_masks_triton(only)
    assert torch.equal(found, row_masks_torch(only))
    assert bool((found != 0).any(dim=1).all())

    free = replace(narrow, tables=tables, state=masks.state, before=masks.before,
                   spared=masks.spared * 0 - 1, held=masks.held * 0 - 1)
    bits = (row_masks_torch(free)[:, :, None] >> torch.arange(32, device=place.device)) & 1
    allowed = bits.view(rows, -1)
    for tokens in (place.integers(-2, vocab, rows),
                   allowed.argmax(dim=1).masked_fill((allowed == 0).all(dim=1), -1)):
        for state in (masks.state, again.state):
            found = follow_tokens_triton(tables, state, masks.before, tokens)
            assert torch.equal(found, follow_tokens_torch(tables, state, masks.before, tokens))
            assert found[0].tolist() == tokens.tolist()
            assert found[1].tolist() == [step_of(made, *row) for row in zip(
                now.tolist(), tokens.tolist(), strict=True)]
    alive = (now != NO_TABLE) & (now & DEAD != DEAD) & (tokens >= 0)
    to = torch.where(found[1] < 0, ~found[1], found[1])  # allowed tokens lead somewhere
    assert bool((to & DEAD != DEAD)[alive].all())


def test_logprobs(place: Place) -> None:
    vocab, rows = place.pick(130, 128256), place.pick(3, 65)
    logits = some_logits(place, rows, vocab)
    logits[0, 5:] = -float("inf")
    tokens = place.integers(0, 5, rows)
    tokens[1] = -1
    found, exact = logprobs_triton(logits, tokens, 8), logprobs_torch(logits, tokens, 8)
    assert torch.equal(found[2][1:], exact[2][1:])
    assert torch.equal(found[2][0, :5], exact[2][0, :5])
    for f, e in zip(found[:2], exact[:2], strict=True):
        assert torch.equal(f.isinf(), e.isinf())
        close(f.masked_fill(f.isinf(), 0), e.masked_fill(e.isinf(), 0), torch.float32)
    close(logprobs_triton(logits[2:], tokens[2:])[0], exact[0][2:], torch.float32)
