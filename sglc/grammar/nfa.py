"""Syntax tree -> nondeterministic automaton over character sets (Thompson's construction).

Anchors become guarded empty moves; `determinize.py` decides them.  Sizes are bounded by counts,
never by time.  Knows no tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sglc.grammar.charset import CharSet
from sglc.grammar.syntax import Alternative, Anchor, Chars, Concat, Machine, Node, Words


class TooLarge(Exception):
    """A construction passed one of its limits; the text says which."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on the construction, all counts, so that the same pattern always ends alike."""

    nfa_states: int = 100_000
    raw_states: int = 40_000
    states: int = 20_000
    moves: int = 1_200_000
    table_cells: int = 8_000_000


@dataclass(slots=True)
class Nfa:
    """State 0 starts, state 1 accepts.  `edges[s]`: (set number, target); `empty[s]`: (anchor
    kind or "", target)."""

    edges: list[list[tuple[int, int]]] = field(default_factory=list)
    empty: list[list[tuple[str, int]]] = field(default_factory=list)
    sets: list[CharSet] = field(default_factory=list)
    anchored: bool = False


def build_nfa(node: Node, limits: Limits) -> Nfa:
    """Raises TooLarge past `limits.nfa_states`."""
    return _Builder(limits).run(node)


class _Builder:
    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.nfa = Nfa()
        self.set_numbers: dict[CharSet, int] = {}
        self.singles: dict[str, int] = {}

    def run(self, node: Node) -> Nfa:
        start, accept = self.state(), self.state()
        self.nfa.empty[self.add(node, start)].append(("", accept))
        return self.nfa

    def state(self) -> int:
        number = len(self.nfa.edges)
        if number >= self.limits.nfa_states:
            raise TooLarge(f"its automaton needs more than {self.limits.nfa_states} positions")
        self.nfa.edges.append([])
        self.nfa.empty.append([])
        return number

    def number(self, charset: CharSet) -> int:
        found = self.set_numbers.setdefault(charset, len(self.nfa.sets))
        if found == len(self.nfa.sets):
            self.nfa.sets.append(charset)
        return found

    def single(self, c: str) -> int:
        found = self.singles.get(c)
        if found is None:
            found = self.singles[c] = self.number(CharSet([(ord(c), ord(c))]))
        return found

    def add(self, node: Node, start: int) -> int:
        """Adds `node` from `start`, which has no moves yet; the fresh state after it."""
        if isinstance(node, Chars):
            end = self.state()
            self.nfa.edges[start].append((self.number(node.charset), end))
            return end
        if isinstance(node, Words):
            return self.add_words(node.words, start)
        if isinstance(node, Concat):
            for part in node.parts:
                start = self.add(part, start)
            return start
        if isinstance(node, Anchor):
            self.nfa.anchored = True
            end = self.state()
            self.nfa.empty[start].append((node.kind, end))
            return end
        end = self.state()
        if isinstance(node, Alternative):
            for option in node.options:
                self.move(self.add(option, self.enter(start)), end)
            return end
        if isinstance(node, Machine):
            return self.add_machine(node, start, end)
        for _ in range(node.least):
            start = self.add(node.body, start)
        if node.most is None:
            loop = self.enter(start)
            self.move(self.add(node.body, self.enter(loop)), loop)
            self.move(loop, end)
            return end
        for _ in range(node.most - node.least):
            self.move(start, end)
            start = self.add(node.body, self.enter(start))
        self.move(start, end)
        return end

    def add_machine(self, node: Machine, start: int, end: int) -> int:
        states = [self.enter(start) if i == 0 else self.state() for i in range(len(node.edges))]
        for state, edges in zip(states, node.edges, strict=True):
            for inner, target in edges:
                self.move(self.add(inner, self.enter(state)), states[target])
        for accepts in node.accepting:
            self.move(states[accepts], end)
        return end

    def enter(self, start: int) -> int:
        fresh = self.state()
        self.move(start, fresh)
        return fresh

    def move(self, start: int, end: int) -> None:
        self.nfa.empty[start].append(("", end))

    def add_words(self, words: tuple[str, ...], start: int) -> int:
        """A trie; `words` is sorted, so that each word shares a prefix with the one before."""
        if len(words) == 1:
            for c in words[0]:
                fresh = self.state()
                self.nfa.edges[start].append((self.single(c), fresh))
                start = fresh
            return start
        end = self.state()
        path, before = [start], ""
        for word in words:
            shared = 0
            for a, b in zip(before, word, strict=False):
                if a != b:
                    break
                shared += 1
            del path[shared + 1:]
            for c in word[shared:]:
                fresh = self.state()
                self.nfa.edges[path[-1]].append((self.single(c), fresh))
                path.append(fresh)
            self.move(path[-1], end)
            before = word
        return end
