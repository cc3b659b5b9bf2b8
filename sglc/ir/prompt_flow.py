"""How prompts flow through a program: which chain leads to its end, and what is needed how long.

For writing programs with mutable prompt states, as Python has them.  Knows no Python.
"""

from __future__ import annotations

from collections.abc import Sequence

from sglc.ir.module import Block, Lit, Op, Operand, Program, Value
from sglc.ir.signatures import BRANCHES, CHAINS, ROOTS
from sglc.ir.types import PROMPT

_EXPRESSIONS = frozenset({"prompt.format", "prompt.compute", "prompt.list"})
# A state says these by itself: it need not be kept at their prompts.
_SILENT = frozenset({"prompt.message", "prompt.meta", "prompt.check"})


class Flow:
    """Facts about one program that stay true while it is written.

    same: prompts that are another one under a new name (gathering joins, arguments of regions,
    further roots) -> that one.  root: the first root.  spine: prompts on the way to the program's
    end, a joined fork's, or that of a span.  heirs: for prompts on the spine, the ops that take
    their state variable on (one on each way through branches).  scopes: spans that are all of
    what a state adds between two points of a block.  read: all values that anything reads.
    """

    def __init__(self, program: Program) -> None:
        self.same: dict[Value, Value] = {}
        self.root: Value | None = None
        self.spine: set[Value] = set()
        self.heirs: dict[Value, set[Op]] = {}
        self.scopes: set[Op] = set()
        self._index: dict[Op, int] = {}
        self._last: dict[Block, dict[Value, int]] = {}
        self._reads: dict[Op, set[Value]] = {}
        self._names: dict[Op, set[object]] = {}
        self._inlined: set[Op] = set()
        self._renamed(program.body)
        self._number(program.body)
        for op in program.walk():
            if op.name in _EXPRESSIONS and len(op.results[0].uses) == 1:
                self._inlined.add(op)
        end = program.body.terminator
        if end is not None and end.operands:
            self._mark(end.operands[0])
        for op in program.walk():
            if op.name == "prompt.join" and op.attrs["mode"] != "gather_variable":
                self._mark(op.operands[0])
                for child in op.operands[2:]:
                    self._mark(child)
        for op in program.walk():
            if op.name == "prompt.span":
                self._mark(op.operands[1])
                if self._is_scope(op):
                    self.scopes.add(op)
        self._scan(program.body)
        self.read: set[Value] = set().union(*self._reads.values())

    def is_inlined(self, op: Op) -> bool:
        """Whether the op is written where its one user is."""
        return op in self._inlined

    def is_heir(self, op: Op, prompt: Value) -> bool:
        """Whether the state variable at the prompt goes on with `op`."""
        return op in self.heirs.get(prompt, ())

    def is_live_after(self, value: Value, op: Op) -> bool:
        """Whether something reads the value after `op`, on a way that goes through it."""
        at: Op | None = op
        while at is not None and at.block is not None:
            if self._last[at.block].get(value, -1) > self._index[at]:
                return True
            parent = at.block.parent
            at = parent if isinstance(parent, Op) else None
        return False

    def reads_of(self, op: Op) -> set[Value]:
        """What the op and its regions read."""
        return self._reads[op]

    def names_defined_in(self, op: Op) -> set[object]:
        """Variables that a branch may define."""
        return self._names.get(op, set())

    def users_of_chain(self, value: Value) -> list[Op]:
        """The ops that read the prompt or one that continues it."""
        found: list[Op] = []
        todo = [value]
        seen: set[Value] = set()
        while todo:
            prompt = todo.pop()
            if prompt in seen:
                continue
            seen.add(prompt)
            for user in prompt.uses:
                found.append(user)
                if user.name in CHAINS and user.operands[0] is prompt:
                    todo.extend(user.results)
                if user.name == "prompt.yield" and user.block is not None:
                    holder = user.block.parent
                    if isinstance(holder, Op):
                        todo.extend(r for r in holder.results if r.type == PROMPT)
        return found

    def _renamed(self, block: Block) -> None:
        for op in block.ops:
            if op.name in ROOTS:
                if self.root is None:
                    self.root = op.results[0]
                else:
                    self.same[op.results[0]] = self.root
            elif op.name == "prompt.join" and op.attrs["mode"] == "gather_variable":
                self._rename(op.results[0], op.operands[0])
            for region in op.regions:
                if op.name in BRANCHES:
                    for arg, value in zip(region.args, op.operands[1:], strict=True):
                        self._rename(arg, value)
                self._renamed(region)

    def _number(self, block: Block) -> None:
        for index, op in enumerate(block.ops):
            self._index[op] = index
            for region in op.regions:
                self._number(region)

    def _rename(self, new: Value, old: Operand) -> None:
        if new.type == PROMPT and isinstance(old, Value):
            self.same[new] = self.same.get(old, old)

    def _scan(self, block: Block) -> set[Value]:
        """What the block reads; and when it does so for the last time."""
        last: dict[Value, int] = {}
        for index, op in enumerate(block.ops):
            read: set[Value] = set()
            names: set[object] = set()
            if op.name not in _SILENT and op not in self._inlined:
                for operand in self._operands(op):
                    self._leaves(operand, read)
            for region in op.regions:
                read |= self._scan(region)
                for inner in region.ops:
                    names |= self._names.get(inner, set())
                    if inner.name in ("prompt.gen", "prompt.select", "prompt.bind"):
                        names.add(inner.attrs.get("name"))
            if names:
                self._names[op] = names
            self._reads[op] = read
            for value in read:
                last[value] = index
        self._last[block] = last
        return set(last)

    def _operands(self, op: Op) -> Sequence[Operand]:
        """The operands that are written."""
        if op.name == "prompt.host":
            return op.operands[:op.attrs.get("args")]
        if op.name == "prompt.read":
            return op.operands[1:]
        if op.name == "prompt.join":
            joins = op.attrs["mode"] != "gather_variable"
            return (op.operands[0], *op.operands[2:]) if joins else ()
        return op.operands[1:] if op in self.scopes else op.operands

    def _leaves(self, operand: Operand, into: set[Value]) -> None:
        if isinstance(operand, Lit):
            return
        op = operand.op
        if op is not None and op in self._inlined:
            for inner in op.operands:
                self._leaves(inner, into)
        else:
            into.add(self.same.get(operand, operand))

    def _mark(self, end: Operand) -> None:
        """Put the way from the root, or from the fork, to a prompt on the spine."""
        todo: list[tuple[Operand, Op | None]] = [(end, None)]
        while todo:
            at, heir = todo.pop()
            if not isinstance(at, Value):
                continue
            at = self.same.get(at, at)
            heirs = self.heirs.setdefault(at, set())
            if heir is not None and all(_is_same_way(heir, other) for other in heirs):
                heirs.add(heir)
            if at in self.spine:
                continue
            self.spine.add(at)
            op = at.op
            if op is None or op.name == "prompt.fork":
                continue
            if op.name in BRANCHES:
                todo.extend((r.ops[-1].operands[at.index], op) for r in op.regions if r.ops)
            elif op.name in CHAINS or op.name == "prompt.join":
                todo.append((op.operands[0], op))

    def _is_scope(self, span: Op) -> bool:
        begin, end = (self.same.get(o, o) for o in span.operands if isinstance(o, Value))
        block = span.block
        assert block is not None
        for heir in self.heirs.get(end, ()):
            holder = in_block(heir, block)
            if holder is not None and self._index[holder] < self._index[span]:
                return False  # the state has gone on since
        at = end
        while at is not begin:
            op = at.op
            if op is None or op.block is not span.block or op.name in BRANCHES:
                return False
            before = op.operands[0]
            if not isinstance(before, Value):
                return False
            before = self.same.get(before, before)
            if not self.is_heir(op, before):
                return False
            at = before
        return True


def _is_same_way(a: Op, b: Op) -> bool:
    """Whether two ops are in different arms of a branch, or one inside the other."""
    above_a, above_b = _arms_above(a), _arms_above(b)
    return (a is b or a in above_b or b in above_a
            or any(above_b.get(op, arm) is not arm for op, arm in above_a.items()))


def _arms_above(op: Op) -> dict[Op, Block]:
    """The ops that `op` is in, and by which region."""
    found: dict[Op, Block] = {}
    block = op.block
    while block is not None and isinstance(block.parent, Op):
        found[block.parent] = block
        block = block.parent.block
    return found


def in_block(op: Op, block: Block) -> Op | None:
    """The op of `block` that is `op` or holds it; None if it lies elsewhere."""
    at: Op | None = op
    while at is not None and at.block is not block:
        parent = at.block.parent if at.block is not None else None
        at = parent if isinstance(parent, Op) else None
    return at
