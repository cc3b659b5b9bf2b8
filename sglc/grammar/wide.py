"""Which sets of characters are worth a Run for an automaton, and masks along them.

Knows only automata all of whose states are live.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from sglc.grammar.automaton import Automaton
from sglc.grammar.minimize import Row
from sglc.grammar.runs import Run
from sglc.grammar.token_index import TokenIndex
from sglc.grammar.walk import Front, Walker

_WIDE = 20  # ASCII characters, from which on a set is worth a Run
_MOST = 4  # sets of one automaton; each costs a pass over the trie, once per tokenizer
_FAR = 6  # characters, from which on a longer chain of states makes no difference

_Atoms = tuple[int, ...]


class WideSets:
    """The wide sets that states of `automaton` lead on with to one successor each."""

    def __init__(self, automaton: Automaton, index: TokenIndex, walker: Walker) -> None:
        self.automaton = automaton
        self.index = index
        self.front = automaton.front
        self.walker = walker

    # Made with the first mask, not with the constraint.
    @cached_property
    def rows(self) -> list[Row]:
        return self.automaton.rows

    @cached_property
    def ascii_size(self) -> list[int]:
        sizes = [0] * self.automaton.atoms.count
        for lo, hi, atom in self.automaton.atoms.intervals():
            if lo < 128:
                sizes[atom] += min(hi, 127) - lo + 1
        return sizes

    @cached_property
    def runs(self) -> list[tuple[_Atoms, Run, np.ndarray]]:
        found = []
        for atoms in self._common():
            run = self.index.run(self.automaton.atoms.charset(atoms))
            found.append((atoms, run, self._partial_nodes(run)))
        return found

    def mask(self, q: int, found: list[np.ndarray]) -> np.ndarray | None:
        """The packed mask of the tokens along a run from q; the other tokens that q allows are
        added to `found`.  None, and nothing added, where no run goes far."""
        best: tuple[int, int] | None = None
        chain: list[int] = []
        chosen: tuple[_Atoms, Run, np.ndarray] | None = None
        for entry in self.runs:
            way = self._chain(q, entry[0], entry[1].depth)
            score = min(len(way) - 1, _FAR), sum(self.ascii_size[a] for a in entry[0])
            if len(way) > 1 and (best is None or score > best):
                best, chain, chosen = score, way, entry
        if chosen is None:
            return None
        _, run, inner = chosen
        taken = len(chain) - 1
        path = np.array(chain, dtype=np.int64)
        end = int(run.exit_end[taken])
        walker = self.walker
        walker.tokens(Front(*walker.enter(
            run.exits[:end], path[run.exit_depth[:end]], inner[run.exit_partial[:end]], found,
            None)), found)
        borders = run.borders[run.border_start[taken]:run.border_start[taken + 1]]
        walker.tokens(Front(borders, np.full(len(borders), chain[-1]),
                            np.zeros(len(borders), np.int64)), found)
        words: np.ndarray = run.words[taken]
        return words

    def _common(self) -> list[_Atoms]:
        """The wide sets that lead on from more than one state, or from a state to itself."""
        uses: dict[_Atoms, int] = {}
        for q, row in enumerate(self.rows):
            by_target: dict[int, list[int]] = {}
            for atom, target in row.items():
                by_target.setdefault(target, []).append(atom)
            for target, group in by_target.items():
                if sum(self.ascii_size[a] for a in group) >= _WIDE:
                    atoms = tuple(group)
                    uses[atoms] = uses.get(atoms, 0) + (2 if target == q else 1)
        return sorted((a for a in uses if uses[a] > 1), key=lambda a: -uses[a])[:_MOST]

    def _chain(self, q: int, atoms: _Atoms, most: int) -> list[int]:
        """The states after 0, 1, ... characters of the set, while it has one successor."""
        chain = [q]
        while len(chain) <= most:
            row = self.rows[q]
            target = row.get(atoms[0], -1)
            if target < 0 or any(row.get(atom, -1) != target for atom in atoms):
                break
            if target == q:
                return chain + [q] * (most + 1 - len(chain))
            q = target
            chain.append(q)
        return chain

    def _partial_nodes(self, run: Run) -> np.ndarray:
        """The front end's node for each unfinished character of the run."""
        front, nodes = self.front, []
        for partial in run.partials:
            node = 0
            for byte in partial:
                node = int(front.table[(node << 8) + byte]) - front.atoms + 1
            nodes.append(node)
        return np.array(nodes, dtype=np.int64)
