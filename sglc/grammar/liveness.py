"""Which decoding states can be finished with the tokens that there are.

A vocabulary may lack single bytes, so a state that its automaton can finish need not be
finishable in tokens.  States that single-byte tokens alone can finish are surely live, and for
almost all vocabularies these are all; the others are searched, each once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from sglc.errors import GrammarError
from sglc.grammar.automaton import Automaton
from sglc.grammar.utf8 import meets
from sglc.grammar.vocab import Vocabulary

_MAX_SEARCHED = 20_000


class Liveness:
    """`everything`: all states are live.  Otherwise ask `live`.

    `successors(state)` must give the states that tokens lead to, live or not.
    """

    def __init__(self, automaton: Automaton, vocab: Vocabulary,
                 successors: Callable[[int], np.ndarray]) -> None:
        self.successors = successors
        self.accepting = automaton.accepting
        self.nodes = automaton.front.nodes
        self.known: dict[int, bool] = {}
        self.sure = np.zeros(0, dtype=bool)  # [states * nodes], unless everything is live
        reach = automaton.front.spellable(vocab.single)
        live = _finished_by_bytes(automaton, reach)
        # Where nodes lead on as they do with all bytes, a state inside of a character is live if
        # those between characters are.
        self.everything = bool(live.all() and (reach[1:] == automaton.front.reach[1:]).all())
        if not self.everything:
            sure = _spelled_by_bytes(automaton, reach, live)
            possible = np.ones(sure.shape, dtype=bool)
            possible[:, 1:] = automaton.step[:, automaton.front.atoms:automaton.front.dead] >= 0
            self.everything = bool(sure[possible].all())
            self.sure = sure.ravel()

    def live(self, state: int) -> bool:
        """Whether some sequence of tokens leads from `state` to acceptance."""
        if self.everything or self.sure[state]:
            return True
        if state not in self.known:
            self.search(state)
        return self.known[state]

    def filter(self, states: np.ndarray) -> np.ndarray:
        """bool, for each of `states`."""
        sure: np.ndarray = self.sure[states]
        if sure.all():
            return sure
        unsure = states[~sure]
        kinds, where = np.unique(unsure, return_inverse=True)
        sure[~sure] = np.array([self.live(s) for s in kinds.tolist()])[where]
        return sure

    def search(self, start: int) -> None:
        """Decides `start` and every undecided state that tokens reach from it through
        undecided ones."""
        sources: dict[int, list[int]] = {start: []}
        todo = [start]
        live: list[int] = []
        while todo:
            state = todo.pop()
            if len(sources) + len(self.known) > _MAX_SEARCHED:
                raise GrammarError(
                    "SGLC505", "the tokenizer lacks bytes that the constraint may need",
                    why=f"more than {_MAX_SEARCHED} partial texts would have to be checked")
            for after in self.successors(state).tolist():
                if self.sure[after] or self.known.get(after, False):
                    live.append(state)
                    break
                if after in self.known:
                    continue
                if after not in sources:
                    sources[after] = []
                    todo.append(after)
                sources[after].append(state)
        found: set[int] = set()
        while live:
            state = live.pop()
            if state not in found:
                found.add(state)
                live.extend(sources[state])
        self.known.update({state: state in found for state in sources})


def _finished_by_bytes(automaton: Automaton, reach: np.ndarray) -> np.ndarray:
    """bool [states]: whether tokens of one byte each can finish the state, between characters.

    reach: the front end's, with the bytes that are tokens.
    """
    states = len(automaton.accepting)
    live = np.array(automaton.accepting, dtype=bool)
    if _all_moves_left(automaton.step[:, :automaton.front.atoms], reach[0]):
        live[:] = True
    else:
        usable = {int(a) for a in np.flatnonzero(reach[0])}
        sources: list[list[int]] = [[] for _ in range(states)]
        for q, row in enumerate(automaton.rows):
            for target in {t for a, t in row.items() if a in usable}:
                sources[target].append(q)
        _mark_backwards(live, sources)
    return live


def _spelled_by_bytes(automaton: Automaton, reach: np.ndarray, live: np.ndarray) -> np.ndarray:
    """bool [states, nodes]: the same for every node of the front end."""
    after = automaton.step[:, :automaton.front.atoms]
    out = meets((after >= 0) & live[np.maximum(after, 0)], reach)
    out[:, 0] = live
    return out


def _all_moves_left(step: np.ndarray, usable: np.ndarray) -> bool:
    """Whether with the usable atoms alone each state still leads wherever it does with all."""
    if usable.all():
        return True
    lost, kept = step[:, ~usable], step[:, usable]
    return lost.shape[1] < 64 and all(
        bool(((column < 0) | (kept == column[:, None]).any(axis=1)).all()) for column in lost.T)


def _mark_backwards(live: np.ndarray, sources: Iterable[list[int]]) -> None:
    into = list(sources)
    todo = np.flatnonzero(live).tolist()
    while todo:
        for q in into[todo.pop()]:
            if not live[q]:
                live[q] = True
                todo.append(q)
