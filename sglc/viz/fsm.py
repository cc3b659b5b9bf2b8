"""A constraint's automaton as a picture: states left to right, jump edges bold.

A jump edge stands for a stretch of text about which there is no choice: the engine appends it
without asking the model.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

from sglc.grammar.automaton import Automaton
from sglc.grammar.charset import CharSet
from sglc.viz.escape import escaped, short
from sglc.viz.shapes import text

MOST_STATES = 120
_ROW, _RADIUS, _MARGIN, _LABEL = 64.0, 12.0, 30.0, 26
_FITS = 1800.0  # pixels; wider ones are not scaled down to the page


@dataclass(frozen=True, slots=True)
class Edge:
    """From a state to another by one of some characters, or, if `jump`, by a text."""

    source: int
    target: int
    label: str
    jump: bool


@dataclass(frozen=True, slots=True)
class Machine:
    """A compressed automaton, or the part of it around its start.  states: in the order in which
    they are reached; left_out: how many are not among them."""

    states: tuple[int, ...]
    edges: tuple[Edge, ...]
    accepting: frozenset[int]
    left_out: int = 0


def compressed(automaton: Automaton, most: int = MOST_STATES) -> Machine:
    """The automaton with its forced stretches as jump edges: at most `most` states, those nearest
    the start."""
    found: dict[int, list[Edge]] = {}
    order: list[int] = []
    todo = deque([0] if automaton.rows else [])
    seen = {0}
    while todo:
        q = todo.popleft()
        order.append(q)
        found[q] = _leaving(automaton, q)
        for edge in found[q]:
            if edge.target not in seen:
                seen.add(edge.target)
                todo.append(edge.target)
    kept = frozenset(order[:most])
    return Machine(
        tuple(order[:most]),
        tuple([e for q in order[:most] for e in found[q] if e.target in kept]),
        frozenset(q for q in kept if automaton.accepting[q]), len(order) - len(kept))


def _leaving(automaton: Automaton, q: int) -> list[Edge]:
    forced, at = [], q
    passed = {q}
    while (step := _only(automaton, at)) is not None:
        forced.append(step[0])
        at = step[1]
        if at in passed:  # round and round: a jump stops where it began
            break
        passed.add(at)
    if forced:
        return [Edge(q, at, "".join(forced), True)]
    by_target: dict[int, list[int]] = {}
    for atom, target in automaton.rows[q].items():
        by_target.setdefault(target, []).append(atom)
    return [Edge(q, target, class_text(automaton.atoms.charset(atoms)), False)
            for target, atoms in by_target.items()]


def _only(automaton: Automaton, q: int) -> tuple[str, int] | None:
    """The one character that may follow, and where it leads; None where there is a choice."""
    row = automaton.rows[q]
    if len(row) != 1 or automaton.accepting[q]:
        return None
    (atom, target), = row.items()
    return (chr(automaton.atoms.firsts[atom]), target) if automaton.atoms.sizes[atom] == 1 else None


def class_text(charset: CharSet) -> str:
    """A set of characters as a regex would write it."""
    most = charset.size > 0x80000  # then what is missing is said
    ranges = charset.negate().ranges if most else charset.ranges
    if most:  # unpaired surrogates are in no text
        ranges = tuple([(lo, hi) for lo, hi in ranges if lo < 0xD800 or hi > 0xDFFF])
        if not ranges:
            return "any"
    if charset.size == 1:
        return _char(ranges[0][0])
    inner = "".join([_member(lo) if lo == hi else f"{_member(lo)}-{_member(hi)}" if hi > lo + 1
                     else _member(lo) + _member(hi) for lo, hi in ranges[:24]])
    inner += "…" if len(ranges) > 24 else ""
    return f"[{'^' if most else ''}{inner}]"


def _member(code: int) -> str:
    """A character between square brackets."""
    return f"\\{chr(code)}" if chr(code) in "-]^\\" else _char(code)


def _char(code: int) -> str:
    named = {9: "\\t", 10: "\\n", 13: "\\r", 32: "␣"}
    if code in named:
        return named[code]
    c = chr(code)
    return c if c.isprintable() and not 0xD800 <= code < 0xE000 else f"\\u{code:04x}"


def draw(machine: Machine, name: str) -> str:
    """The picture as SVG."""
    depth = {machine.states[0]: 0} if machine.states else {}
    leaving: dict[int, list[Edge]] = {}
    for e in machine.edges:
        leaving.setdefault(e.source, []).append(e)
    for q in machine.states:
        for e in leaving.get(q, ()):
            depth.setdefault(e.target, depth[q] + 1)
    last = max(depth.values(), default=0) + 1
    for q in machine.states[1:]:
        if not leaving.get(q):  # where texts only end: right of everything
            depth[q] = last
    columns: dict[int, list[int]] = {}
    for q in machine.states:
        columns.setdefault(depth.setdefault(q, 0), []).append(q)
    left, x = {}, _MARGIN + 24
    for column in sorted(columns):
        left[column] = x
        labels = [len(_shown(e)) for q in columns[column] for e in leaving.get(q, ())]
        x += 64 + 6.2 * max(labels, default=4)
    rows = max(map(len, columns.values()), default=1)
    top = _MARGIN + 36
    at = {}
    for column, states in columns.items():
        for i, q in enumerate(states):
            at[q] = left[column], top + (i + (rows - len(states)) / 2) * _ROW
    high = top + rows * _ROW + 50
    entering = Counter(e.target for e in machine.edges)
    parts, labels = [], []
    for e in machine.edges:
        path, label = _edge(e, at, depth, entering[e.target] > len(leaving[e.source]))
        parts.append(path)
        labels.append(label)
    for q, (cx, cy) in at.items():
        accepts = q in machine.accepting
        style = "accepts" if accepts else "state"
        ring = (f'<circle class="{style}" cx="{cx:.1f}" cy="{cy:.1f}" r="{_RADIUS + 3.5:.1f}"/>'
                if accepts else "")
        says = "the text may end here" if accepts else "the text goes on"
        parts.append(f'<g class="fsm-state" data-state="{q}"><title>state {q}: {says}</title>{ring}'
                     f'<circle class="{style}" cx="{cx:.1f}" cy="{cy:.1f}" r="{_RADIUS:.1f}"/>'
                     + text(cx, cy + 4, str(q), "small", "middle") + "</g>")
    if machine.states:
        sx, sy = at[machine.states[0]]
        parts.append(f'<path class="step" d="M{sx - 34:.1f},{sy:.1f} H{sx - 16:.1f} m-6,-4 l6,4 '
                     f'l-6,4"/>')
    fits = " fits" if x <= _FITS else ""
    return (f'<svg xmlns="http://www.w3.org/2000/svg" class="sglc fsm{fits}" role="img" '
            f'width="{x:.0f}" height="{high:.0f}" viewBox="0 0 {x:.0f} {high:.0f}">'
            f"<title>{escaped(name)}</title>{''.join(parts + labels)}</svg>")


def _edge(e: Edge, at: dict[int, tuple[float, float]], depth: dict[int, int],
          gathers: bool) -> tuple[str, str]:
    """An edge's line and its label, which all lines are behind.  gathers: more edges end where it
    ends than begin where it begins."""
    (x1, y1), (x2, y2) = at[e.source], at[e.target]
    style = "jump" if e.jump else "step"
    r = _RADIUS + 4
    if e.source == e.target:
        path = (f"M{x1 - 7:.1f},{y1 - r + 3:.1f} C{x1 - 20:.1f},{y1 - 40:.1f} {x1 + 20:.1f},"
                f"{y1 - 40:.1f} {x1 + 7:.1f},{y1 - r + 3:.1f}")
        tip, label = (x1 + 7, y1 - r + 3, 0.0, 1.0), (x1, y1 - 36)
    elif depth[e.target] == depth[e.source] + 1:
        a, b = x1 + r, x2 - r
        bend = (b - a) / 2.4
        path = (f"M{a:.1f},{y1:.1f} C{a + bend:.1f},{y1:.1f} {b - bend:.1f},{y2:.1f} "
                f"{b:.1f},{y2:.1f}")
        # Beside the end that it has to itself; in the middle if the line is straight.
        half = 3.4 * len(_shown(e)) + 6
        x = (a + b) / 2 if y1 == y2 else min(a + half, b) if gathers else max(b - half, a)
        tip, label = (b, y2, 1.0, 0.0), (x, (y1 if gathers else y2) - 7)
    else:
        low = max(y1, y2) + 34 + min(60.0, abs(x2 - x1) / 24)
        path = (f"M{x1:.1f},{y1 + r:.1f} C{x1:.1f},{low:.1f} {x2:.1f},{low:.1f} {x2:.1f},"
                f"{y2 + r:.1f}")
        own, other = ((x1, y1), (x2, y2)) if gathers else ((x2, y2), (x1, y1))
        along = [c / 64 for c in (27, 27, 9, 1)]  # a quarter of the curve from its own end
        label = (sum(along[:2]) * own[0] + sum(along[2:]) * other[0],
                 along[0] * own[1] + sum(along[1:3]) * low + along[3] * other[1] + 10)
        tip = x2, y2 + r, 0.0, -1.0
    x, y, dx, dy = tip
    head = f"M{x - 6:.1f},{y - 4:.1f} L{x:.1f},{y:.1f} L{x + 4:.1f},{y - 7:.1f}"
    if e.source != e.target:
        head = (f"M{x - 6 * dx - 4 * dy:.1f},{y - 6 * dy - 4 * dx:.1f} L{x:.1f},{y:.1f} "
                f"L{x - 6 * dx + 4 * dy:.1f},{y - 6 * dy + 4 * dx:.1f}")
    said = f"forced: {e.label}" if e.jump else e.label
    return (f'<g class="fsm-edge" data-jump="{int(e.jump)}"><title>{escaped(said)}</title>'
            f'<path class="{style}" d="{path} {head}"/></g>',
            text(*label, _shown(e), "mono over", "middle"))


def _shown(e: Edge) -> str:
    label = e.label.replace("\n", "⏎").replace(" ", "␣") if e.jump else e.label
    return short(label, _LABEL)
