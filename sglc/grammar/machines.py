"""Automata as values that syntax trees can hold: intersection, difference, and by exploration.

For conjunctions (a pattern and a length) and arithmetic (a range of numbers), which expressions
write badly.  Knows no syntax and no tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from sglc.grammar.charset import Atoms, CharSet, partition
from sglc.grammar.determinize import determinize
from sglc.grammar.minimize import Row, minimize
from sglc.grammar.nfa import Limits, TooLarge, build_nfa
from sglc.grammar.syntax import NOTHING, Machine, Node, chars

State = TypeVar("State", bound=Hashable)
_DEAD = -1


@dataclass(frozen=True, slots=True)
class Language:
    """The minimal automaton of a regular language: `rows[q]` atom -> state; none if empty."""

    atoms: Atoms
    rows: list[Row]
    accepting: list[bool]

    def node(self) -> Node:
        """The language as a syntax tree."""
        if not self.rows:
            return NOTHING
        sets: dict[tuple[int, ...], Node] = {}
        edges = []
        for row in self.rows:
            by_target: dict[int, list[int]] = {}
            for atom, target in row.items():
                by_target.setdefault(target, []).append(atom)
            moves = []
            for target, group in sorted(by_target.items()):
                key = tuple(sorted(group))
                if key not in sets:
                    sets[key] = chars(self.atoms.charset(key))
                moves.append((sets[key], target))
            edges.append(tuple(moves))
        return Machine(tuple(edges), tuple(q for q, yes in enumerate(self.accepting) if yes))

    def holds(self, text: str) -> bool:
        """Whether `text` belongs to the language."""
        if not self.rows:
            return False
        sets = [self.atoms.charset((atom,)) for atom in range(self.atoms.count)]
        q = 0
        for c in text:
            atom = next((a for a, s in enumerate(sets) if ord(c) in s), _DEAD)
            q = self.rows[q].get(atom, _DEAD)
            if q < 0:
                return False
        return self.accepting[q]


def language(node: Node, limits: Limits) -> Language:
    """Raises TooLarge past the limits."""
    raw = determinize(build_nfa(node, limits), limits)
    rows, accepting, _ = minimize(raw.rows, raw.accepting)
    return Language(raw.atoms, rows, accepting)


def intersection(one: Node, two: Node, limits: Limits) -> Node:
    """The texts of both.  Raises TooLarge past the limits."""
    return _product(one, two, limits, without=False)


def difference(one: Node, two: Node, limits: Limits) -> Node:
    """The texts of `one` that are none of `two`.  Raises TooLarge past the limits."""
    return _product(one, two, limits, without=True)


def _product(one: Node, two: Node, limits: Limits, without: bool) -> Node:
    a, b = language(one, limits), language(two, limits)
    if not a.rows:
        return NOTHING
    sets = [x.atoms.charset((atom,)) for x in (a, b) for atom in range(x.atoms.count)]
    joint = partition(sets)
    first, second = [_DEAD] * joint.count, [_DEAD] * joint.count
    for number, members in enumerate(joint.members):
        for atom in members:
            if number < a.atoms.count:
                first[atom] = number
            else:
                second[atom] = number - a.atoms.count
    start = (0, 0 if b.rows else _DEAD)
    numbers, order = {start: 0}, [start]
    rows: list[Row] = []
    for p, q in order:  # grows while it is read
        row: Row = {}
        other = b.rows[q] if q >= 0 else {}
        for atom in range(joint.count):
            target = a.rows[p].get(first[atom], _DEAD)
            beside = other.get(second[atom], _DEAD)
            if target < 0 or (beside < 0 and not without):
                continue
            goal = (target, beside)
            row[atom] = numbers.setdefault(goal, len(order))
            if row[atom] == len(order):
                if len(order) >= limits.raw_states:
                    raise TooLarge(f"its automaton has more than {limits.raw_states} states")
                order.append(goal)
        rows.append(row)
    accepting = [a.accepting[p] and (q >= 0 and b.accepting[q]) != without for p, q in order]
    small, ends, _ = minimize(rows, accepting)
    return Language(joint, small, ends).node()


def explored(start: State, alphabet: Iterable[str], step: Callable[[State, str], State | None],
             accepts: Callable[[State], bool], limits: Limits) -> Node:
    """The texts that lead `step` from `start` to a state that `accepts`, read by character."""
    letters = list(alphabet)
    numbers, order = {start: 0}, [start]
    edges: list[tuple[tuple[Node, int], ...]] = []
    for state in order:  # grows while it is read
        by_target: dict[int, list[str]] = {}
        for c in letters:
            after = step(state, c)
            if after is None:
                continue
            number = numbers.setdefault(after, len(order))
            if number == len(order):
                if number >= limits.states:
                    raise TooLarge(f"its automaton has more than {limits.states} states")
                order.append(after)
            by_target.setdefault(number, []).append(c)
        edges.append(tuple((chars(CharSet((ord(c), ord(c)) for c in group)), number)
                           for number, group in by_target.items()))
    ends = tuple(number for number, state in enumerate(order) if accepts(state))
    return Machine(tuple(edges), ends) if ends else NOTHING
