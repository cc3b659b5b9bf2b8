"""Nondeterministic automaton -> deterministic automaton over atoms (subset construction).

Anchors are decided here.  A thread of the subset is an NFA state with a *duty* that its anchors
left it: what the rest of the text must look like.  What stands before is known when a subset is
made: nothing, a newline, or another character.
"""

from __future__ import annotations

from dataclasses import dataclass

from sglc.grammar.charset import NEWLINE, Atoms, partition
from sglc.grammar.nfa import Limits, Nfa, TooLarge

# Duties.
_FREE, _NEWLINE, _FINAL_NEWLINE, _END = range(4)
# Anchor kind -> duty before -> duties after (any of them).
_AFTER: dict[str, dict[int, tuple[int, ...]]] = {
    "text-end": {_FREE: (_END,), _END: (_END,)},
    "final-end": {_FREE: (_END, _FINAL_NEWLINE), _NEWLINE: (_FINAL_NEWLINE,),
                  _FINAL_NEWLINE: (_FINAL_NEWLINE,), _END: (_END,)},
    "line-end": {_FREE: (_END, _NEWLINE), _NEWLINE: (_NEWLINE,),
                 _FINAL_NEWLINE: (_FINAL_NEWLINE,), _END: (_END,)},
}
# What stands before a position.
_OTHER, _LINE, _TEXT = range(3)
_ACCEPT = 1


@dataclass(slots=True)
class RawDfa:
    """`rows[s]`: atom -> next state; state 0 starts.  Not minimal, dead states not removed."""

    atoms: Atoms
    rows: list[dict[int, int]]
    accepting: list[bool]


def determinize(nfa: Nfa, limits: Limits) -> RawDfa:
    """Raises TooLarge past `limits.raw_states` or `limits.moves`."""
    return _Subsets(nfa, limits).run()


class _Subsets:
    def __init__(self, nfa: Nfa, limits: Limits) -> None:
        self.nfa = nfa
        self.limits = limits
        self.size = len(nfa.edges)
        self.atoms = partition([*nfa.sets, NEWLINE] if nfa.anchored else nfa.sets)
        self.newline = self.atoms.members[-1][0] if nfa.anchored else -1
        self.closures: dict[int, tuple[int, ...]] = {}
        self.groups: dict[tuple[int, ...], list[tuple[tuple[int, ...], tuple[int, ...]]]] = {}
        self.numbers: dict[tuple[int, ...], int] = {}
        self.steps = 0

    def run(self) -> RawDfa:
        numbers, order = self.numbers, [self.closure(0, _TEXT)]
        numbers[order[0]] = 0
        rows: list[dict[int, int]] = []
        for subset in order:  # grows while it is read
            row: dict[int, int] = {}
            sets: list[int] = []
            targets: list[int] = []
            for thread in subset:
                duty, state = divmod(thread, self.size)
                if duty == _FREE:
                    for number, target in self.nfa.edges[state]:
                        sets.append(number)
                        targets.append(target)
            if sets:
                for atoms, members in self.grouped(tuple(sets)):
                    if atoms[0] == self.newline:
                        continue
                    goal = self.goal([targets[i] for i in members], _OTHER, order)
                    for atom in atoms:
                        row[atom] = goal
            if self.nfa.anchored:
                self.over_newline(subset, row, order)
            self.count(len(row))
            rows.append(row)
        accept = (_ACCEPT, _ACCEPT + _END * self.size)
        return RawDfa(self.atoms, rows, [any(a in s for a in accept) for s in order])

    def count(self, steps: int) -> None:
        self.steps += steps
        if self.steps > self.limits.moves:
            raise TooLarge(f"its construction takes more than {self.limits.moves} steps")

    def goal(self, states: list[int], before: int, order: list[tuple[int, ...]]) -> int:
        """The number of the subset that holds the closures of `states`."""
        subset = self.closure(states[0], before)
        if len(states) > 1:
            union = set(subset)
            for state in states[1:]:
                union.update(self.closure(state, before))
            subset = tuple(sorted(union))
            self.count(len(subset))
        number = self.numbers.setdefault(subset, len(order))
        if number == len(order):
            if number >= self.limits.raw_states:
                raise TooLarge(f"its automaton has more than {self.limits.raw_states} states")
            order.append(subset)
        return number

    def over_newline(self, subset: tuple[int, ...], row: dict[int, int],
                     order: list[tuple[int, ...]]) -> None:
        """The move over a newline, which meets duties, and after which a line starts."""
        goals: list[int] = []
        for thread in subset:
            duty, state = divmod(thread, self.size)
            if duty != _END:
                after = (_END if duty == _FINAL_NEWLINE else _FREE) * self.size
                goals.extend(after + target for number, target in self.nfa.edges[state]
                             if self.newline in self.atoms.members[number])
        if goals:
            row[self.newline] = self.goal(goals, _LINE, order)

    def grouped(self, sets: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Atoms that the same of these sets hold: [(atoms, positions in `sets`)]."""
        found = self.groups.get(sets)
        if found is None:
            members = self.atoms.members
            if len(sets) == 1 and self.newline < 0:
                found = [(members[sets[0]], (0,))] if members[sets[0]] else []
            else:
                holders: dict[int, list[int]] = {}
                for i, number in enumerate(sets):
                    for atom in members[number]:
                        holders.setdefault(atom, []).append(i)
                groups: dict[tuple[int, ...], list[int]] = {}
                lone = holders.pop(self.newline, None)
                for atom in sorted(holders):
                    groups.setdefault(tuple(holders[atom]), []).append(atom)
                found = [(tuple(atoms), who) for who, atoms in groups.items()]
                if lone:
                    found.append(((self.newline,), tuple(lone)))
            self.count(sum(len(atoms) for atoms, _ in found))
            self.groups[sets] = found
        return found

    def closure(self, thread: int, before: int) -> tuple[int, ...]:
        """The threads reached by empty moves that can read a character or accept, sorted."""
        key = thread * 3 + before
        found = self.closures.get(key)
        if found is None:
            found = self.closures[key] = self.close(thread, before)
        return found

    def close(self, thread: int, before: int) -> tuple[int, ...]:
        edges, empty, size = self.nfa.edges, self.nfa.empty, self.size
        seen = {thread}
        todo = [thread]
        kept: list[int] = []
        while todo:
            thread = todo.pop()
            duty, state = divmod(thread, size)
            if edges[state]:
                if duty != _END:
                    kept.append(thread)
            elif state == _ACCEPT and duty in (_FREE, _END):
                kept.append(thread)
            for kind, target in empty[state]:
                if not kind:
                    duties: tuple[int, ...] = (duty,)
                elif kind == "text-start":
                    duties = (duty,) if before == _TEXT else ()
                elif kind == "line-start":
                    duties = (duty,) if before != _OTHER else ()
                else:
                    duties = _AFTER[kind].get(duty, ())
                for after in duties:
                    fresh = after * size + target
                    if fresh not in seen:
                        seen.add(fresh)
                        todo.append(fresh)
        self.count(len(seen))
        return tuple(sorted(kept))
