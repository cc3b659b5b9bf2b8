"""Deterministic automaton -> the minimal one, without dead states.

Works through the strongly connected components from the ends to the start.  A state outside of
cycles is looked up by its row, which is already final (so a long chain costs one pass, where
partition refinement needs one a state); a cyclic component is refined by itself (Hopcroft) and
then compared with the classes on cycles before it.  The result is numbered in breadth-first
order, so equal languages over equal atoms give equal automata.
"""

from __future__ import annotations

from collections.abc import Iterator

Row = dict[int, int]
_Items = tuple[tuple[int, int], ...]
_Sign = tuple[bool, _Items]
_INSIDE = -2


def minimize(rows: list[Row], accepting: list[bool]) -> tuple[list[Row], list[bool], bool]:
    """(rows, accepting, whether the language is infinite); state 0 starts.

    No rows at all if the language is empty.
    """
    merger = _Merger(rows, accepting)
    for component in components(rows):
        merger.merge(component)
    return merger.numbered()


def components(rows: list[Row]) -> Iterator[list[int]]:
    """The strongly connected components reachable from state 0, each after those it leads to
    (Tarjan)."""
    index: dict[int, int] = {0: 0}
    low: dict[int, int] = {0: 0}
    stack = [0]
    waiting = {0}
    path = [(0, iter(set(rows[0].values())))]
    while path:
        state, targets = path[-1]
        for target in targets:
            if target not in index:
                index[target] = low[target] = len(index)
                stack.append(target)
                waiting.add(target)
                path.append((target, iter(set(rows[target].values()))))
                break
            if target in waiting:
                low[state] = min(low[state], index[target])
        else:
            path.pop()
            if path:
                low[path[-1][0]] = min(low[path[-1][0]], low[state])
            if low[state] == index[state]:
                at = len(stack) - 1
                while stack[at] != state:
                    at -= 1
                component = stack[at:]
                del stack[at:]
                waiting.difference_update(component)
                yield component


class _Merger:
    def __init__(self, rows: list[Row], accepting: list[bool]) -> None:
        self.rows = rows
        self.accepting = accepting
        self.merged: dict[int, int] = {}  # state -> its class, -1 if dead
        self.class_rows: list[Row] = []
        self.class_accepting: list[bool] = []
        self.known: dict[_Sign, int] = {}
        # Classes on cycles: by acceptance and one move, and by the signs of a component that
        # nothing leads out of.
        self.by_move: dict[tuple[bool, int, int], list[int]] = {}
        self.closed: dict[tuple[_Sign, ...], list[list[int]]] = {}
        self.infinite = False

    def merge(self, component: list[int]) -> None:
        first = component[0]
        if len(component) == 1 and first not in self.rows[first].values():
            sign = self.sign(first, frozenset())
            self.merged[first] = self.class_of(sign) if sign[0] or sign[1] else -1
            return
        inside = frozenset(component)
        signs = {state: self.sign(state, inside) for state in component}
        if not any(accepts or any(c >= 0 for _, c in items) for accepts, items in signs.values()):
            self.merged.update(dict.fromkeys(component, -1))
            return
        self.infinite = True
        blocks = _refine(signs, self.rows)
        block_of = {state: i for i, block in enumerate(blocks) for state in block}
        leads = [next(iter(block)) for block in blocks]
        classes = self.same_as_before(leads, signs, block_of)
        if classes is None:
            classes = self.add_cycle(leads, signs, block_of)
        for state, block in block_of.items():
            self.merged[state] = classes[block]

    def add_cycle(self, leads: list[int], signs: dict[int, _Sign],
                  block_of: dict[int, int]) -> list[int]:
        """New classes for the blocks of a cyclic component."""
        base = len(self.class_rows)
        for lead in leads:
            accepts, items = signs[lead]
            row = {atom: base + block_of[self.rows[lead][atom]] if goal == _INSIDE else goal
                   for atom, goal in items}
            number = len(self.class_rows)
            self.known[(accepts, tuple(row.items()))] = number
            for atom, goal in row.items():
                self.by_move.setdefault((accepts, atom, goal), []).append(number)
            self.class_rows.append(row)
            self.class_accepting.append(accepts)
        classes = list(range(base, len(self.class_rows)))
        if all(goal == _INSIDE for lead in leads for _, goal in signs[lead][1]):
            kind = tuple(sorted(signs[lead] for lead in leads))
            self.closed.setdefault(kind, []).append(classes)
        return classes

    def sign(self, state: int, inside: frozenset[int]) -> _Sign:
        """Acceptance and the moves to classes, `_INSIDE` for those within the component."""
        merged = self.merged
        items = []
        for atom, target in sorted(self.rows[state].items()):
            goal = _INSIDE if target in inside else merged[target]
            if goal != -1:
                items.append((atom, goal))
        return self.accepting[state], tuple(items)

    def class_of(self, sign: _Sign) -> int:
        found = self.known.setdefault(sign, len(self.class_rows))
        if found == len(self.class_rows):
            self.class_rows.append(dict(sign[1]))
            self.class_accepting.append(sign[0])
        return found

    def same_as_before(self, leads: list[int], signs: dict[int, _Sign],
                       block_of: dict[int, int]) -> list[int] | None:
        """Earlier classes that the blocks of a cyclic component are equivalent to, if any.

        Then all blocks have one, and all of these are on cycles.
        """
        leaving = [(block, signs[lead][0], atom, goal) for block, lead in enumerate(leads)
                   for atom, goal in signs[lead][1] if goal != _INSIDE]
        if leaving:
            block, accepts, atom, goal = leaving[0]
            candidates = self.by_move.get((accepts, atom, goal), [])
        else:  # nothing leads out of an equivalent component either
            kind = tuple(sorted(signs[lead] for lead in leads))
            counts: dict[_Sign, int] = {}
            for sign in kind:
                counts[sign] = counts.get(sign, 0) + 1
            block = min(range(len(leads)), key=lambda i: counts[signs[leads[i]]])
            candidates = [number for classes in self.closed.get(kind, ()) for number in classes]
        for candidate in candidates:
            match = self.simulated(leads, block_of, block, candidate, signs)
            if match is not None:
                return [match[i] for i in range(len(leads))]
        return None

    def simulated(self, leads: list[int], block_of: dict[int, int], block: int,
                  candidate: int, signs: dict[int, _Sign]) -> dict[int, int] | None:
        """Block -> class, if class `candidate` does what `block` does, step by step."""
        match = {block: candidate}
        todo = [block]
        while todo:
            block = todo.pop()
            lead, row = leads[block], self.class_rows[match[block]]
            accepts, items = signs[lead]
            if accepts != self.class_accepting[match[block]] or len(items) != len(row):
                return None
            for atom, goal in items:
                target = row.get(atom, -1)
                if goal == _INSIDE:
                    inner = block_of[self.rows[lead][atom]]
                    if inner not in match:
                        match[inner] = target
                        todo.append(inner)
                    goal = match[inner]
                if target < 0 or goal != target:
                    return None
        return match

    def numbered(self) -> tuple[list[Row], list[bool], bool]:
        start = self.merged[0]
        if start < 0:
            return [], [], False
        order, number = [start], {start: 0}
        for state in order:
            for target in self.class_rows[state].values():
                if target not in number:
                    number[target] = len(order)
                    order.append(target)
        rows = [{a: number[t] for a, t in self.class_rows[s].items()} for s in order]
        return rows, [self.class_accepting[s] for s in order], self.infinite


def _refine(signs: dict[int, _Sign], rows: list[Row]) -> list[set[int]]:
    """The coarsest stable partition of a component's states, starting from their signs."""
    by_sign: dict[_Sign, set[int]] = {}
    for state, sign in signs.items():
        by_sign.setdefault(sign, set()).add(state)
    blocks = list(by_sign.values())
    if len(signs) == 1 or len(blocks) == len(signs):
        return blocks
    into: dict[int, list[tuple[int, int]]] = {state: [] for state in signs}
    for state in signs:
        for atom, target in rows[state].items():
            if target in into:
                into[target].append((atom, state))
    block_of = {state: i for i, block in enumerate(blocks) for state in block}
    waiting = set(range(len(blocks)))
    while waiting:
        splitter = waiting.pop()
        sources: dict[int, list[int]] = {}
        for target in blocks[splitter]:
            for atom, state in into[target]:
                sources.setdefault(atom, []).append(state)
        for states in sources.values():
            touched: dict[int, list[int]] = {}
            for state in states:
                touched.setdefault(block_of[state], []).append(state)
            for number, part in touched.items():
                block = blocks[number]
                if len(part) == len(block):
                    continue
                moved = set(part)
                block -= moved
                blocks.append(moved)
                fresh = len(blocks) - 1
                for state in moved:
                    block_of[state] = fresh
                if number in waiting or len(moved) <= len(block):
                    waiting.add(fresh)
                else:
                    waiting.add(number)
    return blocks
