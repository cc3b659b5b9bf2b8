"""A regular constraint as a few arrays, for decoding without the CPU.

Tokens that lead every state to the same place form a class.  A vocabulary of 50,000 or 130,000
tokens has a few to some hundred classes under one pattern, so next states and masks of all states
fit in a few megabytes.  States inside of a character, mostly many, tell few tokens apart: they
have classes of their own.  Knows no device.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

import numpy as np

from sglc.grammar.fsm import FsmConstraint

MAX_STATES = 32_000
MAX_BYTES = 64 << 20
_MAX_MOVES = 40_000_000  # (state, token) pairs looked at while the tables are made
_TOGETHER = 2_000  # states inside of characters, walked at once
_NEVER, _EOS = 0, 1  # classes in both groups


@dataclass(frozen=True, slots=True)
class TokenTables:
    """S states, those that tokens lead to, numbered from the start state 0.

    The state after token t in state s is `next[offset[s] + class_of_token[group[s], t]]`, -1
    where t is not allowed; for EOS ids it is s where the text may end.

    Attributes:
        class_of_token: uint16 [2, vocabulary]; class 0 are the tokens that are never allowed,
            class 1 the EOS ids.
        group: uint8 [S], 1 for the states inside of a character.
        offset: int32 [S].
        next: int16 [cells].
        row_id: int16 [S], the row of `rows` that is the state's mask.
        rows: int32 [rows, ceil(vocabulary / 32)], masks as `Constraint.mask` packs them.
        states: int64 [S], the constraint's own name of each state.
        accepting: bool [S], whether the text may end.
    """

    class_of_token: np.ndarray
    group: np.ndarray
    offset: np.ndarray
    next: np.ndarray
    row_id: np.ndarray
    rows: np.ndarray
    states: np.ndarray
    accepting: np.ndarray

    @property
    def nbytes(self) -> int:
        """Bytes of what decoding needs: all but `states`."""
        return sum(getattr(self, f.name).nbytes for f in fields(self) if f.name != "states")

    @property
    def classes(self) -> tuple[int, int]:
        """Classes between characters, and inside of one."""
        one, two = self.class_of_token.max(axis=1, initial=_EOS)
        return int(one) + 1, int(two) + 1


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
    moves: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # states, tokens, next states
    sums = np.zeros((2, 2, vocab.words * 32), dtype=np.uint64)
    total = done = 0
    while done < len(order):
        fresh, done = np.arange(done, len(order)), len(order)
        inner = np.array([state % nodes > 0 for state in order[fresh[0]:]])
        parts = [(0, fresh[~inner][i:i + 1]) for i in range(int((~inner).sum()))]
        parts += [(1, fresh[inner][i:i + _TOGETHER])
                  for i in range(0, int(inner.sum()), _TOGETHER)]
        for group, numbers in parts:
            states = np.array([order[n] for n in numbers.tolist()], dtype=np.int64)
            origin, ids, ends = (_tokens_inside(constraint, states) if group else
                                 _tokens(constraint, int(states[0])))
            kinds, where = np.unique(ends, return_inverse=True)
            for end in kinds.tolist():
                if end not in index:
                    index[end] = len(order)
                    order.append(end)
            total += len(ids)
            if len(order) > max_states or total > _MAX_MOVES:
                return None
            after = np.array([index[end] for end in kinds.tolist()], dtype=np.int16)[where]
            source = numbers[origin]
            moves.append((source.astype(np.int16), ids, after))
            # Each (state, next state) has its number; a token's sum of them tells its class.
            key = (source.astype(np.uint64) << np.uint64(32)) + after.astype(np.uint64)
            for row, salt in enumerate((0x9E3779B97F4A7C15, 0xD1B54A32D192ED03)):
                if group:
                    np.add.at(sums[group, row], ids, _mixed(key, salt))
                else:  # of one state, so no token comes twice
                    sums[group, row, ids] += _mixed(key, salt)
    group_of = (np.array(order, dtype=np.int64) % nodes > 0).astype(np.uint8)
    found = [_classes(constraint, sums[g]) for g in (0, 1)]
    class_of_token = np.stack([kinds for kinds, _ in found])
    widths = np.array([count for _, count in found], dtype=np.int64)[group_of]
    cells = int(widths.sum())
    if cells * 2 > max_bytes or max(count for _, count in found) > 0xFFFF:
        return None
    offset = (np.cumsum(widths) - widths).astype(np.int32)
    table = np.full(cells, -1, dtype=np.int16)
    for source, ids, after in moves:
        table[offset[source] + class_of_token[group_of[source], ids].astype(np.int64)] = after
    accepting = np.array([constraint.accepting(state) for state in order])
    table[offset[accepting] + _EOS] = np.flatnonzero(accepting)
    masks = _rows(constraint, class_of_token, group_of, offset, table, max_bytes)
    if masks is None:
        return None
    made = TokenTables(class_of_token, group_of, offset, table, *masks,
                       np.array(order, dtype=np.int64), accepting)
    return made if made.nbytes <= max_bytes else None


_Moves = tuple[np.ndarray, np.ndarray, np.ndarray]


def _tokens(constraint: FsmConstraint, state: int) -> _Moves:
    """(zeros, the allowed tokens, of twins one, and the states that they lead to)."""
    nodes = constraint.nodes
    found: list[np.ndarray] = []
    states: list[tuple[np.ndarray, np.ndarray]] = []
    constraint.walker.tokens(constraint.walker.root(*divmod(state, nodes)), found, states)
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int64)
    ids, ends = np.concatenate(found), np.concatenate([q * nodes + u for q, u in states])
    return _live(constraint, np.zeros(len(ids), np.int64), ids, ends)


def _tokens_inside(constraint: FsmConstraint, states: np.ndarray) -> _Moves:
    """The same for several states inside of a character, each by its place in `states`.

    Few tokens go on with the rest of a character, so the walks of many states are one.
    """
    walker, vocab, nodes = constraint.walker, constraint.index.vocab, constraint.nodes
    origin = np.arange(len(states))
    q, u = states // nodes, states % nodes
    at = np.zeros(len(states), dtype=np.int64)
    out: list[_Moves] = []
    while len(origin):
        begin = vocab.first[at]
        counts = vocab.first[at + 1] - begin
        ends = np.cumsum(counts)
        owner = np.repeat(np.arange(len(at)), counts)
        children = np.repeat(begin - (ends - counts), counts) + np.arange(len(owner))
        code = walker.table[(u[owner] << 8) + vocab.byte[children]]
        after = walker.step[q[owner] * walker.codes + code]
        alive = np.flatnonzero(after >= 0)
        owner = owner[alive]
        at, origin = children[alive], origin[owner]
        q = after[alive].astype(np.int64)
        u = np.maximum(code[alive].astype(np.int64) - (walker.atoms - 1), 0)
        tokens = vocab.token[at]
        real = np.flatnonzero(tokens >= 0)
        out.append((origin[real], tokens[real], q[real] * nodes + u[real]))
    return _live(constraint, *(np.concatenate([o[i] for o in out]) for i in range(3)))


def _live(constraint: FsmConstraint, origin: np.ndarray, ids: np.ndarray,
          ends: np.ndarray) -> _Moves:
    if constraint.liveness.everything:
        return origin, ids, ends
    live = constraint.liveness.filter(ends)
    return origin[live], ids[live], ends[live]


def _rows(constraint: FsmConstraint, class_of_token: np.ndarray, group: np.ndarray,
          offset: np.ndarray, after: np.ndarray, max_bytes: int,
          ) -> tuple[np.ndarray, np.ndarray] | None:
    """(row_id, rows); None where there are too many rows."""
    vocab = constraint.index.vocab
    numbers: dict[bytes, int] = {}
    rows: list[np.ndarray] = []
    row_id = np.empty(len(group), dtype=np.int16)
    ends = np.append(offset[1:], len(after))
    padded = np.full(vocab.words * 32, _NEVER, dtype=np.int64)
    known: dict[bytes, int] = {}
    for state, (start, end) in enumerate(zip(offset.tolist(), ends.tolist(), strict=True)):
        allowed = after[start:end] >= 0
        key = bytes([group[state]]) + allowed.tobytes()
        row = known.get(key)
        if row is None:
            padded[:vocab.size] = class_of_token[group[state]]
            packed = vocab.pack(allowed[padded])
            row = known[key] = numbers.setdefault(packed.tobytes(), len(rows))
            if row == len(rows):
                if (row + 1) * packed.nbytes > max_bytes:
                    return None
                rows.append(packed)
        row_id[state] = row
    return row_id, np.stack(rows)


def _classes(constraint: FsmConstraint, sums: np.ndarray) -> tuple[np.ndarray, int]:
    """(class of each token, number of classes) from what its moves sum up to."""
    vocab = constraint.index.vocab
    sums[:, vocab.twins] = sums[:, vocab.twin_of]
    sums = sums[:, :vocab.size]
    live = np.flatnonzero((sums != 0).any(axis=0))
    tokens = live[np.lexsort(sums[:, live])]
    fresh = np.ones(len(tokens), dtype=bool)
    fresh[1:] = (sums[:, tokens[1:]] != sums[:, tokens[:-1]]).any(axis=0)
    number = np.cumsum(fresh) - 1
    # Classes are numbered by their first token, so that the same tables come out every time.
    firsts = np.full(int(fresh.sum()), vocab.size)
    np.minimum.at(firsts, number, tokens)
    rank = np.empty(len(firsts), dtype=np.int64)
    rank[np.argsort(firsts)] = np.arange(len(firsts))
    out = np.full(vocab.size, _NEVER, dtype=np.int64)
    out[tokens] = rank[number] + 2
    out[list(vocab.eos)] = _EOS
    return out.astype(np.uint16), len(firsts) + 2


def _mixed(key: np.ndarray, salt: int) -> np.ndarray:
    """The finalizer of SplitMix64."""
    x = key + np.uint64(salt)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed
