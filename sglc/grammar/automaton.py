"""A pattern's automaton: minimal, over atoms, with its UTF-8 front end.  Knows no tokenizer.

A state is the pair (q, u) as one number `q * nodes + u`: q a state of the minimal automaton, u
a node of the front end.  0 starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from sglc.grammar.charset import Atoms
from sglc.grammar.determinize import determinize
from sglc.grammar.minimize import Row, minimize
from sglc.grammar.nfa import Limits, TooLarge, build_nfa
from sglc.grammar.syntax import Node
from sglc.grammar.utf8 import FrontEnd, front_end, meets

_ATOM_FIELDS = ("starts", "ids", "sizes", "firsts", "lasts")


class Automaton:
    """The minimal automaton of a regular language, all of whose states can reach acceptance.

    Attributes:
        rows: for each state atom -> next state; none at all if the language is empty.
        accepting: for each state.
        infinite: whether there are texts without bound.
        atoms, front: the alphabet and its UTF-8 front end.
        step: int16 [states, codes], `step[q, code]` = next state or -1; for the code of an inner
            node, q itself where that node still leads somewhere.
    """

    def __init__(self, node: Node, limits: Limits) -> None:
        raw = determinize(build_nfa(node, limits), limits)
        self.rows, self.accepting, self.infinite = minimize(raw.rows, raw.accepting)
        self.atoms: Atoms = raw.atoms
        self.front: FrontEnd = front_end(self.atoms.intervals(), self.atoms.count)
        if len(self.rows) > limits.states:
            raise TooLarge(f"its automaton has more than {limits.states} states")
        if len(self.rows) * self.front.codes > limits.table_cells:
            raise TooLarge(f"its tables have more than {limits.table_cells} cells")
        self.step = self._step_table()

    def _step_table(self) -> np.ndarray:
        states, atoms, front = len(self.rows), self.atoms.count, self.front
        step = np.full((states, front.codes), -1, dtype=np.int16)
        for q, row in enumerate(self.rows):
            if row:
                step[q, list(row)] = list(row.values())
        if front.nodes > 1:
            live = meets(step[:, :atoms] >= 0, front.reach[1:])
            own = np.arange(states, dtype=np.int16)[:, None]
            step[:, atoms:front.dead] = np.where(live, own, np.int16(-1))
        return step

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it as arrays, for `from_arrays`."""
        atoms = self.atoms
        return {
            "step": self.step, "accepting": np.array(self.accepting, dtype=bool),
            "infinite": np.array([self.infinite]), "table": self.front.table,
            "reach": self.front.reach,
            **{name: np.array(getattr(atoms, name), dtype=np.int32) for name in _ATOM_FIELDS}}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Automaton:
        """What `arrays` was made from.  Raises ValueError for what it did not make."""
        step, table, reach = arrays["step"], arrays["table"], arrays["reach"]
        fields = {name: tuple(arrays[name].tolist()) for name in _ATOM_FIELDS}
        self = cls.__new__(cls)
        self.atoms = Atoms(members=(), **fields)
        count, nodes = self.atoms.count, len(reach)
        self.front = FrontEnd(table, count, nodes, reach)
        self.accepting = arrays["accepting"].tolist()
        self.infinite = bool(arrays["infinite"][0])
        self.step = step
        states = len(self.accepting)
        if not (step.dtype == np.int16 and step.shape == (states, self.front.codes)
                and table.dtype == np.int32 and len(table) == nodes * 256
                and reach.dtype == bool and reach.shape == (nodes, count)
                and -1 <= step.min(initial=0) <= step.max(initial=-1) < states
                and 0 <= table.min() <= table.max() < self.front.codes
                and len(self.atoms.starts) == len(self.atoms.ids)
                and max(self.atoms.ids, default=-1) < count):
            raise ValueError("no automaton")
        return self

    @cached_property
    def rows(self) -> list[Row]:
        rows: list[Row] = [{} for _ in self.accepting]
        after = self.step[:, :self.atoms.count]
        where, atoms = np.nonzero(after >= 0)
        for q, atom, target in zip(where.tolist(), atoms.tolist(),
                                   after[where, atoms].tolist(), strict=True):
            rows[q][atom] = target
        return rows

    @cached_property
    def bytes_left(self) -> list[int] | None:
        """For each state the bytes of the longest text that leads to acceptance; None if
        infinite."""
        if self.infinite:
            return None
        width = [len(chr(last).encode()) for last in self.atoms.lasts]
        left = [-1] * len(self.rows)
        todo = [0] if self.rows else []
        while todo:
            row = self.rows[todo[-1]]
            missing = [t for t in row.values() if left[t] < 0]
            if missing:
                todo.extend(missing)
                continue
            q = todo.pop()
            left[q] = max((width[a] + left[t] for a, t in row.items()), default=0)
        return left

    def longest_text(self) -> str | None:
        """A text of the most UTF-8 bytes, None if there are texts without bound."""
        left = self.bytes_left
        if left is None or not self.rows:
            return None
        out: list[str] = []
        q = 0
        while self.rows[q]:
            lasts = self.atoms.lasts
            atom, q = max(self.rows[q].items(),
                          key=lambda move: len(chr(lasts[move[0]]).encode()) + left[move[1]])
            out.append(chr(lasts[atom]))
        return "".join(out)

    def texts(self, most: int) -> tuple[str, ...] | None:
        """All texts of the language, by code points; None if there are more than `most`."""
        if self.infinite:
            return None
        members = [size <= most for size in self.atoms.sizes]
        found: list[str] = []
        todo = [("", 0)] if self.rows else []
        while todo:
            text, q = todo.pop()
            if self.accepting[q]:
                found.append(text)
            for atom, target in self.rows[q].items():
                if not members[atom]:
                    return None
                todo.extend((text + chr(code), target)
                            for lo, hi in self.atoms.charset((atom,)).ranges
                            for code in range(lo, hi + 1))
            if len(found) + len(todo) > most:  # every state leads to a text, each to another one
                return None
        return tuple(sorted(found))

    @cached_property
    def _forced(self) -> list[tuple[bytes, int] | None]:
        """For each state the one character that every continuation starts with, and where it
        leads; None where there is a choice or the text may end."""
        out: list[tuple[bytes, int] | None] = []
        for row, accepts in zip(self.rows, self.accepting, strict=True):
            forced = None
            if len(row) == 1 and not accepts:
                (atom, target), = row.items()
                if self.atoms.sizes[atom] == 1:
                    forced = chr(self.atoms.firsts[atom]).encode(), target
            out.append(forced)
        return out

    def forced(self, state: int) -> bytes:
        """The longest run of whole characters that every continuation of `state` starts with.

        Stops where the text may end; ends because every state can reach acceptance.  A
        character begun is finished if only one way is left.
        """
        q, node = divmod(state, self.front.nodes)
        out = bytearray()
        while node:
            codes = self.front.table[node * 256:node * 256 + 256]
            nexts = self.step[q, codes]
            ways = np.flatnonzero(nexts >= 0)
            if len(ways) != 1:
                return b""
            code = int(codes[ways[0]])
            out.append(int(ways[0]))
            q = int(nexts[ways[0]])
            node = code - self.front.atoms + 1 if code >= self.front.atoms else 0
        while (forced := self._forced[q]) is not None:
            out += forced[0]
            q = forced[1]
        return bytes(out)
