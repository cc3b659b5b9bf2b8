"""A regular constraint as a few arrays, for decoding without the CPU.

Tokens that lead every state to the same place form a class.  A vocabulary of 50,000 or 130,000
tokens has a few to some hundred classes under one pattern, so next states and masks of all states
fit in a few megabytes.  Knows no device.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

import numpy as np

from sglc.grammar.fsm import FsmConstraint

MAX_STATES = 20_000
MAX_BYTES = 64 << 20
_MAX_MOVES = 40_000_000  # (state, token) pairs looked at while the tables are made


@dataclass(frozen=True, slots=True)
class TokenTables:
    """Where S states are those that tokens lead to, numbered from the start state 0.

    Attributes:
        class_of_token: uint16 [vocabulary]; class 0 are the tokens that are never allowed, class
            1 the EOS ids.
        next: int16 [S, classes], the state after a token of the class, -1 where not allowed; for
            EOS the same state where the text may end.
        row_id: int16 [S], the row of `rows` that is the state's mask.
        rows: int32 [rows, ceil(vocabulary / 32)], masks as `Constraint.mask` packs them.
        states: int64 [S], the constraint's own name of each state.
        accepting: bool [S], whether the text may end.
    """

    class_of_token: np.ndarray
    next: np.ndarray
    row_id: np.ndarray
    rows: np.ndarray
    states: np.ndarray
    accepting: np.ndarray

    @property
    def nbytes(self) -> int:
        """Bytes of what decoding needs: all but `states`."""
        return sum(a.nbytes for a in (self.class_of_token, self.next, self.row_id, self.rows,
                                      self.accepting))


def token_tables(constraint: FsmConstraint, max_states: int = MAX_STATES,
                 max_bytes: int = MAX_BYTES) -> TokenTables | None:
    """The tables of `constraint`, from a file if they have been made before; None where they
    would be too large (then masks stay lazy)."""
    disk = constraint.index.disk
    key = f"tables {max_states} {max_bytes} {_fingerprint(constraint)}"
    arrays = disk.load(key)
    if arrays is not None:
        if not arrays:
            return None
        if arrays.keys() == {f.name for f in fields(TokenTables)}:
            return TokenTables(**arrays)
    made = _made(constraint, max_states, max_bytes)
    disk.store(key, {} if made is None else
               {f.name: getattr(made, f.name) for f in fields(TokenTables)})
    return made


def _fingerprint(constraint: FsmConstraint) -> str:
    h = hashlib.sha256(constraint.index.vocab.fingerprint.encode())
    automaton = constraint.automaton
    for array in (automaton.step, automaton.front.table, np.array(automaton.accepting)):
        h.update(repr(array.shape).encode() + array.tobytes())
    return h.hexdigest()


def _made(constraint: FsmConstraint, max_states: int, max_bytes: int) -> TokenTables | None:
    vocab, nodes = constraint.index.vocab, constraint.nodes
    index = {constraint.start(): 0}
    order = [constraint.start()]
    moves: list[tuple[np.ndarray, np.ndarray]] = []
    sums = np.zeros((2, vocab.words * 32), dtype=np.uint64)
    total = 0
    for number, state in enumerate(order):  # grows while it is read
        found: list[np.ndarray] = []
        states: list[tuple[np.ndarray, np.ndarray]] = []
        constraint.walker.tokens(constraint.walker.root(*divmod(state, nodes)), found, states)
        ids = np.concatenate(found) if found else np.zeros(0, np.int32)
        ends = (np.concatenate([q * nodes + u for q, u in states]) if states
                else np.zeros(0, np.int64))
        if not constraint.liveness.everything:
            live = constraint.liveness.filter(ends)
            ids, ends = ids[live], ends[live]
        kinds, where = np.unique(ends, return_inverse=True)
        for end in kinds.tolist():
            if end not in index:
                index[end] = len(order)
                order.append(end)
        total += len(ids)
        if len(order) > max_states or total > _MAX_MOVES:
            return None
        numbered = np.array([index[end] for end in kinds.tolist()], dtype=np.int16)[where]
        moves.append((ids, numbered))
        # Each (state, next state) has its number; a token's sum of them tells its class.
        key = (np.uint64(number) << np.uint64(32)) + numbered.astype(np.uint64)
        for row, salt in enumerate((0x9E3779B97F4A7C15, 0xD1B54A32D192ED03)):
            sums[row, ids] += _mixed(key, salt)
    class_of_token, classes = _classes(constraint, sums)
    if len(order) * classes * 2 > max_bytes or classes > 0xFFFF:
        return None
    after = np.full((len(order), classes), -1, dtype=np.int16)
    for number, (ids, numbered) in enumerate(moves):
        after[number, class_of_token[ids]] = numbered
    accepting = np.array([constraint.accepting(state) for state in order])
    after[accepting, 1] = np.flatnonzero(accepting)
    allowed, row_id = np.unique(np.packbits(after >= 0, axis=1), axis=0, return_inverse=True)
    if len(allowed) * vocab.words * 4 > max_bytes:
        return None
    padded = np.zeros(vocab.words * 32, dtype=np.uint16)
    padded[:vocab.size] = class_of_token
    rows = np.stack([vocab.pack(np.unpackbits(bits, count=classes).astype(bool)[padded])
                     for bits in allowed])
    made = TokenTables(class_of_token, after, row_id.ravel().astype(np.int16), rows,
                       np.array(order, dtype=np.int64), accepting)
    return made if made.nbytes <= max_bytes else None


def _classes(constraint: FsmConstraint, sums: np.ndarray) -> tuple[np.ndarray, int]:
    """(class of each token, number of classes) from what its moves sum up to."""
    vocab = constraint.index.vocab
    sums[:, vocab.twins] = sums[:, vocab.twin_of]
    sums = sums[:, :vocab.size]
    eos = np.zeros(vocab.size, dtype=bool)
    eos[list(vocab.eos)] = True
    live = np.flatnonzero((sums != 0).any(axis=0) & ~eos)
    order = np.lexsort(sums[:, live])
    tokens = live[order]
    fresh = np.ones(len(tokens), dtype=bool)
    fresh[1:] = (sums[:, tokens[1:]] != sums[:, tokens[:-1]]).any(axis=0)
    number = np.cumsum(fresh) - 1
    # Classes are numbered by their first token, so that the same tables come out every time.
    firsts = np.full(int(fresh.sum()), vocab.size)
    np.minimum.at(firsts, number, tokens)
    rank = np.empty(len(firsts), dtype=np.int64)
    rank[np.argsort(firsts)] = np.arange(len(firsts))
    out = np.zeros(vocab.size, dtype=np.int64)
    out[tokens] = rank[number] + 2
    out[eos] = 1
    return out.astype(np.uint16), len(firsts) + 2


def _mixed(key: np.ndarray, salt: int) -> np.ndarray:
    """The finalizer of SplitMix64."""
    x = key + np.uint64(salt)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed
