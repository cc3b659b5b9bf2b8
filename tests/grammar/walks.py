"""Reading masks, and random texts under a constraint."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import settings

import sglc.grammar as grammar
from sglc.grammar.automaton import Automaton
from sglc.tokens.tokenizer import Tokenizer


def allowed(constraint: grammar.Constraint, state: object, size: int) -> set[int]:
    words = constraint.mask(state)
    assert words.dtype == np.int32
    assert len(words) == (size + 31) // 32
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")
    assert not bits[size:].any()
    return set(np.flatnonzero(bits).tolist())


def walk(constraint: grammar.Constraint, tokenizer: Tokenizer, rng: random.Random,
         most: int = 400) -> str:
    """A text made of random allowed tokens; every state on the way allows something."""
    state, ids = constraint.start(), []
    while True:
        options = sorted(allowed(constraint, state, tokenizer.vocab_size))
        assert options, tokenizer.decode(ids)
        assert bool(tokenizer.eos_ids & set(options)) == constraint.accepting(state)
        ending = [i for i in options if i in tokenizer.eos_ids]
        if ending and (len(ids) > most or rng.random() < 0.2 or len(options) == len(ending)):
            assert constraint.advance(state, ending[0]) == state
            return tokenizer.decode(ids)
        token = rng.choice([i for i in options if i not in ending])
        if len(ids) > most:  # hurry to the end of what has no bound
            token = min((i for i in options if i not in ending),
                        key=lambda i: (len(tokenizer.byte_table[i]), rng.random()))
        assert token not in tokenizer.special_ids
        ids.append(token)
        forced = constraint.jump(state)
        state = constraint.advance(state, token)
        assert state is not None
        text = tokenizer.byte_table[token]
        assert forced.startswith(text) or text.startswith(forced)
        assert len(ids) < 20 * most


def random_text(machine: Automaton, rng: random.Random, most: int = 60) -> str:
    """A random text of the automaton's language; soon done after `most` characters."""
    far = len(machine.rows)
    left = [0 if accepts else far for accepts in machine.accepting]
    changed = True
    while changed:
        changed = False
        for q, row in enumerate(machine.rows):
            best = min((left[t] + 1 for t in row.values()), default=far)
            if best < left[q]:
                left[q], changed = best, True
    ranges: dict[int, list[tuple[int, int]]] = {}
    for lo, hi, atom in machine.atoms.intervals():
        ranges.setdefault(atom, []).append((lo, hi))
    q, out = 0, []
    while not (machine.accepting[q] and (rng.random() < 0.3 or not machine.rows[q])):
        row = machine.rows[q]
        moves = list(row.items())
        if len(out) > most:
            if not left[q]:
                break
            moves = [(a, t) for a, t in moves if left[t] < left[q]]
        atom, q = rng.choice(moves)
        out.append(chr(rng.randint(*rng.choice(ranges[atom]))))
    return "".join(out)


def examples(quick: int) -> int:
    """How many examples hypothesis tries: ten times as many in the slow profile."""
    return quick * (10 if settings().max_examples >= 1000 else 1)
