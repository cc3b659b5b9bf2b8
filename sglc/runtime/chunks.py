"""What one prefilling sequence adds to a step: rows for the tokens that the tree does not have,
and hidden states where they are wanted.

New tokens enter the tree here, when they are issued, or are noted to enter it later (the policy
says which).  A hidden state comes from wherever it is cheapest: the tree keeps those at the ends
of its nodes, other rows of the same step make some, and what nobody has is run again over its
KV.  This module decides nothing about memory or order.
"""

from __future__ import annotations

import numpy as np

from sglc.runtime.kv_cache import KvCache
from sglc.runtime.policies.base import Policy
from sglc.runtime.sequence import Sequence
from sglc.runtime.step import Step


class ChunkBuilder:
    """Adds sequences to steps."""

    def __init__(self, kv: KvCache, policy: Policy) -> None:
        self._kv = kv
        self._tree = kv.tree
        self._policy = policy

    def advance(self, seq: Sequence, step: Step, budget: int) -> int:
        """Add what a prefilling sequence computes in this step, at most `budget` tokens;
        returns how many.  The sequence must have walked the tree."""
        step.members[seq] = None
        walked = seq.pos
        used = self._cached_hidden(seq, step, budget) if seq.want < walked else 0
        if walked < seq.target and seq.want >= walked and used < budget:
            n = min(seq.target - walked, budget - used, self._kv.available)
            if n > 0:
                self._compute(seq, step, n)
                used += n
        if seq.want >= seq.target:
            if seq.limit:
                step.samples.append((seq, seq.last))
            else:
                step.done.append(seq)
        return used

    def _compute(self, seq: Sequence, step: Step, n: int) -> None:
        """The next `n` tokens: a row, and nodes for them, now or when the step is over."""
        pos = seq.pos
        end = pos + n
        slots = self._kv.take(n)
        context = seq.own_slots(slots)
        flat = step.add_row(seq, seq.ids[pos:end], pos, slots, context)
        prompt = max(0, min(end, seq.prompt_len) - pos)
        step.prefilled += n if seq.retracted else prompt  # what is forced first is no prefill
        seq.computed += prompt
        wanted = seq.want < end
        if wanted:
            for at in range(max(seq.want, pos), end):
                self._give(seq, step, at, step.output(flat + at - pos))
        if self._policy.exact:
            self._share(seq, step, slots, flat, wanted)
        elif self._policy.at_issue:
            self._share_blocks(seq, step, end)
        else:
            step.unshared.append(seq)

    def _share(self, seq: Sequence, step: Step, slots: np.ndarray, flat: int,
               wanted: bool) -> None:
        """Put new tokens, which the tree does not have, into it."""
        tree, node = self._tree, seq.node
        end = seq.pos
        n = len(slots)
        key = seq.ids[end - n:end]
        cut = seq.border - (end - n)
        if 0 < cut < n:  # the first wanted hidden state gets a node of its own to be kept in
            node = tree.extend(node, key[:cut], slots[:cut], step.number, flat)
            step.keep.append((node, step.output(flat + cut - 1)))
            node = tree.extend(node, key[cut:], slots[cut:], step.number, flat + cut)
        else:
            node = tree.extend(node, key, slots, step.number, flat)
        if wanted:
            step.keep.append((node, step.output(flat + n - 1)))
        seq.node = node
        seq.own = end

    def _share_blocks(self, seq: Sequence, step: Step, end: int) -> None:
        """Put the whole blocks that are the sequence's own into the tree, unless it has one: it
        is then found out when the step is over what it has."""
        tree, own = self._tree, seq.own
        end -= end % tree.grain
        if end <= own:
            return
        if tree.knows(seq.node, seq.ids, own):
            step.unshared.append(seq)
            return
        seq.node = tree.extend(seq.node, seq.ids[own:end], seq.context[own:end].copy(),
                               step.number, 0)
        seq.own = end

    def _cached_hidden(self, seq: Sequence, step: Step, budget: int) -> int:
        """Hidden states of positions whose KV is there: from the tree, from other rows of this
        step, or else from rows that compute them again.  Returns the tokens taken."""
        path = []
        node, end = seq.node, seq.pos
        while end > seq.want:
            path.append((node, end))
            end -= len(node.key)
            node = node.parent  # type: ignore[assignment]
        used = 0
        for node, end in reversed(path):
            first = max(seq.want, end - len(node.key))
            if node.step == step.number:
                flat = node.flat - end + len(node.key)
                for at in range(first, end):
                    self._give(seq, step, at, step.output(flat + at))
                step.keep.append((node, step.output(flat + end - 1)))
                continue
            known = node.hidden is not None
            used += self._recompute(seq, step, first, end - known, budget - used)
            if seq.want < end - known:
                break  # out of budget
            if known:
                self._give(seq, step, end - 1, step.known(node.hidden))
            else:
                step.keep.append((node, seq.last))
        return used

    def _recompute(self, seq: Sequence, step: Step, first: int, end: int, budget: int) -> int:
        """Rows for positions that have KV but no hidden state.  They write the same KV to the
        same slots again."""
        slots = seq.context[first:end].tolist()
        at = first
        used = 0
        while at < end:
            flat = step.recomputed.get(slots[at - first])
            if flat is None:
                if used == budget:
                    break
                stop = at + 1
                while stop < end and stop - at < budget - used \
                        and slots[stop - first] not in step.recomputed:
                    stop += 1
                flat = step.add_row(seq, seq.ids[at:stop], at, seq.context[at:stop],
                                    seq.context[:stop])
                for i in range(at, stop):
                    step.recomputed[slots[i - first]] = flat + i - at
                used += stop - at
            self._give(seq, step, at, step.output(flat))
            at += 1
        step.recomputed_tokens += used
        return used

    def _give(self, seq: Sequence, step: Step, at: int, hidden: int) -> None:
        if at < seq.score_end:
            step.scores.append((seq, at, hidden))
        seq.want = at + 1
        seq.last = hidden
