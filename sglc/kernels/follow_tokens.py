"""Where the tokens that rows have drawn lead them in their constraints' tables."""

from __future__ import annotations

import torch
from torch import Tensor

from sglc.kernels.fsm import DEAD, NO_TABLE, FsmTables, whereabouts


def follow_tokens_torch(tables: FsmTables, state: Tensor, before: Tensor, token: Tensor) -> Tensor:
    """int64 (2, R): the tokens, and where the rows are then (see `fsm`).

    state: int64 (R,), as a step takes it.  before: int64, where the rows of the step before are.
    token: int64 (R,); below 0 for none, which leads nowhere.
    """
    now, alive, table = whereabouts(state, before)
    moves = alive & (token >= 0)
    states, cells, _, *kinds = tables.base[table].unbind(1)
    info = tables.words[states + 2 * (now & DEAD).masked_fill(~moves, 0)]
    own = torch.where(info & 1 != 0, kinds[1], kinds[0])
    kind = tables.halves[own + token.masked_fill(~moves, 0)].long() & 0xFFFF
    after = tables.halves[cells + (info >> 2) + kind].long() & DEAD
    free = tables.words[states + 2 * after.masked_fill(after == DEAD, 0)] & 2 != 0
    to = table << 32 | after
    to = torch.where(free & (after != DEAD), to, ~to)
    to = torch.where(moves, to, ~now)
    return torch.stack((token, torch.where(now == NO_TABLE, now, to)))
