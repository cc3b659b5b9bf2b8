"""A program's IR as a picture to draw: boxes in a prefix tree, and what depends on what.

Runs of appended text become one box of several pieces, wrappers and bookkeeping go.  Knows the
three dialects; how boxes look and where they go is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from sglc.ir.literals import write
from sglc.ir.module import Attr, Block, Lit, Op, Operand, Program, Value
from sglc.ir.ops import SAMPLING_ATTRS
from sglc.ir.printer import value_names
from sglc.ir.signatures import BRANCHES, CALLS, CHAINS, LOOPS, PROMPTS, ROOTS, YIELDING, awaited

Kind = Literal["text", "gen", "select", "branch", "merge", "host", "other"]

_SELECTS = ("prompt.select", "kv.score")
_SPECIALS = ("prompt.special", "kv.special")
_APPENDS = ("prompt.append", "kv.extend")
_IMAGES = ("prompt.image", "kv.image")
_ROLES = ("prompt.role_begin", "prompt.role_end")
_HEADER = 14  # constant text of a chat template next to a control token is at most this long
_SIGNS = {"eq": "=", "ne": "≠", "lt": "<", "le": "≤", "gt": ">", "ge": "≥"}


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text box: constant text, a control token or role, or text known at run time.

    ids: its tokens, with text that the piece before held back; None if not known.  held: what of
    it is encoded with the next piece.
    """

    kind: Literal["constant", "special", "value"]
    text: str
    sources: tuple[Node, ...] = ()  # whose results it is made of
    label: str = ""  # what to show in place of the text
    ids: tuple[int, ...] | None = None
    held: str = ""


@dataclass(slots=True, eq=False)
class Node:
    """One box.  parent: the box whose prompt it continues; label: on the line from it; arms:
    the labels on the lines from a branch; ops: what it stands for; repeats: how many boxes like
    it (see `repeats.py`)."""

    kind: Kind
    title: str
    detail: str = ""
    pieces: list[Piece] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    parent: Node | None = field(default=None, repr=False)
    label: str = ""
    arms: tuple[str, ...] = ()
    joins: list[tuple[Node, str]] = field(default_factory=list, repr=False)  # also end here
    sources: list[Node] = field(default_factory=list, repr=False)  # whose results it uses
    children: list[Node] = field(default_factory=list, repr=False)
    spine: bool = False  # on the way to the program's final prompt
    ops: list[Op] = field(default_factory=list, repr=False)
    repeats: int = 1


@dataclass(frozen=True, slots=True)
class Edge:
    """A line: a prompt goes on ("prompt"), arms meet ("join"), or a result is used ("use")."""

    kind: Literal["prompt", "join", "use"]
    source: Node
    target: Node
    label: str = ""


def picture(program: Program) -> list[Node]:
    """The boxes of a program, each after those it continues or depends on."""
    return _Picture(program).nodes


def edges(nodes: Iterable[Node]) -> list[Edge]:
    """The lines between boxes, each once."""
    out: dict[Edge, None] = {}
    for n in nodes:
        if n.parent is not None and not (n.kind == "merge" and n.joins):
            out[Edge("prompt", n.parent, n, n.label)] = None
        for other, label in n.joins:
            out[Edge("join", other, n, label)] = None
        for other in n.sources:
            out[Edge("use", other, n)] = None
    return list(out)


class _Picture:
    def __init__(self, program: Program) -> None:
        self.names = value_names(program)
        self.nodes: list[Node] = []
        self.at: dict[Value, Node | None] = {}  # prompt value -> the box it ends at
        self.makers: dict[Value, Node] = {}  # other value -> the box that produces it
        self.yields: dict[Value, Value] = {}  # a wrapper's result -> what its region yields
        self.block(program.body, None, "", set())
        end = program.body.terminator
        if end is not None and end.operands and isinstance(end.operands[0], Value):
            _mark(self.at.get(end.operands[0]))
        for node in self.nodes:
            if node.kind == "merge" and node.parent is not None and node.parent.kind == "branch":
                for arm, _ in node.joins:
                    _mark(arm, node.parent)
        self.nodes = _joined(self.nodes)

    # -- blocks ---------------------------------------------------------------------------
    def block(self, block: Block, branch: Node | None, label: str,
              inner: set[Value]) -> list[tuple[Node, str]]:
        """Draw a block; the boxes (with the label of the line) that its yielded prompts end at.

        branch: the box that decides whether the block runs; chains that continue a prompt other
        than the `inner` ones start there.
        """
        inner = {*inner, *block.args}
        for op in block.ops:
            if op.name.endswith((".yield", ".return")):
                continue
            self.op(op, inner, branch, label)
            inner.update(op.results)
        ends: dict[Node, str] = {}
        last = block.terminator
        for value in last.operands if last is not None and last.name.endswith(".yield") else ():
            if isinstance(value, Value) and value.type.name in PROMPTS:
                node = self.at.get(value)
                if branch is not None and value not in inner:
                    ends.setdefault(branch, label)  # the arm adds nothing
                elif node is not None:
                    ends.setdefault(node, "")
        return list(ends.items())

    def op(self, op: Op, inner: set[Value], branch: Node | None, label: str) -> None:
        if op.name in ROOTS:
            self.at[op.results[0]] = branch
        elif op.name in BRANCHES:
            self.branch(op, inner, branch, label)
        elif op.name in YIELDING or op.name in LOOPS:
            if op.name in LOOPS:  # one round is drawn
                label = f"each of {self.phrase(op.operands[0])}"
                for arg, value in zip(op.regions[0].args[1:], op.operands[1:], strict=True):
                    if arg.type.name in PROMPTS:
                        self.at[arg] = self.at.get(value) if isinstance(value, Value) else None
            self.block(op.regions[0], branch, label, inner)
            end = op.regions[0].terminator
            for result, value in zip(op.results, end.operands if end else (), strict=False):
                if isinstance(value, Value):
                    self.yields[result] = value
                    if result.type.name in PROMPTS:
                        self.at[result] = self.at.get(value)
        elif op.name == "prompt.fork" or (op.name == "prompt.join"
                                          and op.attrs.get("mode") == "gather_variable"):
            node, _ = self.start(op.operands[0], inner, branch, label)
            for result in op.results:
                self.at[result] = node
        elif op.name in CHAINS:
            self.chain(op, inner, branch, label)
        elif op.name == "prompt.host":
            title = f"{_plain(op.attrs['fn'])}()"
            node = self.add(Node("host", title, "host call"), op, awaited(op))
            self.makers.update(dict.fromkeys(op.results, node))

    def start(self, prompt: Operand, inner: set[Value], branch: Node | None,
              label: str) -> tuple[Node | None, str]:
        """The box that a prompt is continued from, and the label of the line."""
        if branch is not None and prompt not in inner:
            return branch, label
        return (self.at.get(prompt) if isinstance(prompt, Value) else None), ""

    def chain(self, op: Op, inner: set[Value], branch: Node | None, label: str) -> None:
        node = self.box(op)
        node.parent, node.label = self.start(op.operands[0], inner, branch, label)
        self.add(node, op, op.operands[1:])
        if node.kind == "merge":
            node.joins = [(n, "") for n in dict.fromkeys(
                self.at.get(o) for o in op.operands[1:2 if op.name.endswith("concat") else None]
                if isinstance(o, Value)) if n is not None]
        for result in op.results:
            if result.type.name in PROMPTS:
                self.at[result] = node
            else:
                self.makers[result] = node

    def branch(self, op: Op, inner: set[Value], outer: Node | None, label: str) -> None:
        condition = op.operands[0]
        node = Node("branch", self.phrase(condition))
        entered = [o for region in op.regions for o in _entries(region)]
        if entered:
            node.parent, node.label = self.start(entered[0], inner, outer, label)
        else:
            node.parent, node.label = outer, label
        self.add(node, op, [condition])
        above = _ancestors(node)
        node.sources = [s for s in node.sources if s not in above]
        node.arms = ("yes", "no") if op.name == "prompt.if" else tuple(
            region.label for region in op.regions)
        ends = [end for region, arm in zip(op.regions, node.arms, strict=True)
                for end in self.block(region, node, arm, set())]
        makers = [self.maker(o) for region in op.regions if region.terminator is not None
                  for o in region.terminator.operands]
        prompts = [r for r in op.results if r.type.name in PROMPTS]
        after = node
        if prompts:
            after = self.add(Node("merge", "", parent=node), op, ())
            after.joins = ends
        self.at.update(dict.fromkeys(prompts, after))
        found = next((m for ms in makers for m in ms), None)
        self.makers.update({r: found or node for r in op.results if r not in prompts})

    # -- boxes ----------------------------------------------------------------------------
    def add(self, node: Node, op: Op, used: Iterable[Operand]) -> Node:
        node.ops.append(op)
        if op.loc is not None:
            node.places.append(str(op.loc))
        node.sources = list(dict.fromkeys(
            m for o in used for m in self.maker(o) if node.kind != "merge"))
        if node.parent is not None:
            node.parent.children.append(node)
        self.nodes.append(node)
        return node

    def box(self, op: Op) -> Node:
        if op.name in _APPENDS:
            return Node("text", "", pieces=list(self.pieces(op.operands[1])))
        if op.name in _SPECIALS:
            ids = (op.attrs["id"],) if "id" in op.attrs else None
            return Node("text", "", pieces=[Piece("special", _plain(op.attrs["token"]), ids=ids)])
        if op.name in _IMAGES:
            return Node("text", "", pieces=[
                Piece("special", f"⟨image {_plain(self.phrase(op.operands[1]))}⟩")])
        if op.name in _ROLES:
            role = ("" if op.name.endswith("begin") else "/") + _plain(op.attrs["role"])
            return Node("text", "", pieces=[Piece("special", f"⟨{role}⟩")])
        if op.name in CALLS:
            name = _plain(op.attrs.get("name") or "")
            if op.name in _SELECTS:
                choices = ", ".join(self.phrase(o) for o in op.operands[1:])
                return Node("select", f"select {name}".strip(), choices)
            options = [f"{a} {write(op.attrs[a])}" for a in SAMPLING_ATTRS if a in op.attrs]
            return Node("gen", f"gen {name}".strip(), " · ".join(options))
        if op.name in ("prompt.concat", "kv.concat", "prompt.join"):
            return Node("merge", "join")
        return Node("other", op.name)

    def pieces(self, text: Operand) -> Iterator[Piece]:
        """What an appended text consists of, in order."""
        stack = [text]
        while stack:
            part = stack.pop()
            op = part.op if isinstance(part, Value) else None
            if isinstance(part, Lit):
                yield Piece("constant", _plain(part.value))
            elif op is None or part in self.makers:
                yield Piece("value", self.phrase(part), tuple(self.maker(part)))
            elif op.name == "kv.ids":
                yield Piece("constant", _plain(op.attrs["text"]), ids=op.attrs["ids"],
                            held=_plain(op.attrs["held"]))
            elif op.name == "kv.encode":
                stack.append(op.operands[1])
            elif op.name == "prompt.compute" and op.attrs["fn"] == "concat":
                stack.extend(reversed(op.operands))
            elif op.name == "prompt.format":
                stack.extend(Lit(p) if isinstance(p, str) else op.operands[p[0]]
                             for p in reversed(op.attrs["parts"]))
            else:
                yield Piece("value", self.phrase(part), tuple(self.maker(part)))

    def phrase(self, value: Operand, deep: int = 4) -> str:
        """A value in words: a literal, a variable's name, a simple expression."""
        if isinstance(value, Lit):
            return write(value.value)
        op = value.op
        if op is None or deep == 0 or value in self.makers or op.name != "prompt.compute":
            return value.name or self.names.get(value, "?").lstrip("%")
        parts = [self.phrase(o, deep - 1) for o in op.operands]
        fn = _plain(op.attrs["fn"])
        if fn in _SIGNS and len(parts) == 2:
            return f"{parts[0]} {_SIGNS[fn]} {parts[1]}"
        if fn == "getitem" and len(parts) == 2:
            return f"{parts[0]}[{parts[1]}]"
        if fn.startswith("text.") and parts:
            return f"{parts[0]}.{fn.removeprefix('text.')}({', '.join(parts[1:])})"
        return f"{fn}({', '.join(parts)})"

    def maker(self, value: Operand) -> list[Node]:
        """The boxes whose results a value is computed from."""
        found: dict[Node, None] = {}
        stack, seen = [value], set()
        while stack:
            v = stack.pop()
            if not isinstance(v, Value) or v in seen:
                continue
            seen.add(v)
            if v in self.makers:
                found[self.makers[v]] = None
            elif v in self.yields:
                stack.append(self.yields[v])
            elif v.type.name in PROMPTS:
                node = self.at.get(v)
                if node is not None and node.kind in ("gen", "select"):
                    found[node] = None
            elif v.op is not None:
                stack.extend(reversed(v.op.operands))
        return list(found)


def _plain(value: Attr) -> str:
    return value if isinstance(value, str) else write(value)


def _mark(node: Node | None, until: Node | None = None) -> None:
    """Mark the way from a box back to another one (to the start) as the main one."""
    while node is not None and node is not until and not node.spine:
        node.spine = True
        node = node.parent


def _ancestors(node: Node) -> set[Node]:
    found = set()
    while node.parent is not None:
        node = node.parent
        found.add(node)
    return found


def _entries(block: Block) -> Iterator[Value]:
    """The prompts from outside that a block's ops use, in order."""
    inner = set(block.args)
    for op in block.walk():
        for o in op.operands:
            if isinstance(o, Value) and o.type.name in PROMPTS and o not in inner:
                yield o
        inner.update(op.results)


def _joined(nodes: list[Node]) -> list[Node]:
    """Text boxes that nothing comes between as one, in the last one's place."""
    out: dict[Node, None] = {}
    into: dict[Node, Node] = {}
    ends = {n for node in nodes for n, _ in node.joins}  # text after these is another box
    for node in nodes:
        last = node.parent
        before = node.parent = into.get(last, last) if last is not None else None
        node.joins = [(into.get(n, n), label) for n, label in node.joins]
        node.sources = [into.get(n, n) for n in node.sources]
        if (before is not None and node.kind == before.kind == "text"
                and len(before.children) == 1 and last not in ends):
            before.pieces += node.pieces
            before.places += [p for p in node.places if p not in before.places]
            before.ops += node.ops
            before.sources += [s for s in node.sources if s not in before.sources]
            before.children = node.children
            into[node] = before
            del out[before]
            node = before
        out[node] = None
    for node in out:
        node.pieces = list(_condensed(node.pieces))
    return list(out)


def _condensed(pieces: list[Piece]) -> Iterator[Piece]:
    """Control tokens and the words of a chat template between them, as one piece each."""
    run: list[Piece] = []
    for piece in [*pieces, None]:
        header = piece is not None and piece.kind == "constant" and (
            piece.text.endswith("\n") and len(piece.text.split()) < 2
            and len(piece.text) <= _HEADER)
        if piece is not None and (piece.kind == "special" or (run and header)):
            run.append(piece)
            continue
        if run:
            words = [p.text.strip() for p in run if p.kind == "constant" and p.text.strip()]
            ids = None if any(p.ids is None for p in run) else tuple(
                i for p in run for i in p.ids or ())
            yield Piece("special", "".join(p.text for p in run), ids=ids, held=run[-1].held,
                        label=" ".join(words) or run[-1].text.strip("<|/>"))
            run = []
        if piece is not None:
            yield piece
