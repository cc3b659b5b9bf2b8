"""How prompts flow through a program: which chain leads to its end, and what is needed how long.

For writing programs with mutable prompt states, as Python has them.  Knows no Python.
"""

from __future__ import annotations

from collections.abc import Sequence

from sglc.errors import IRError
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

    def _rename(self, new: Value, old: Operand) -> None:
        if new.type == PROMPT and isinstance(old, Value):
            self.same[new] = self.same.get(old, old)

    def _scan(self, block: Block) -> set[Value]:
        """What the block reads; and when it does so for the last time."""
        last: dict[Value, int] = {}
        for index, op in enumerate(block.ops):
            self._index[op] = index
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


def drop_offsets(program: Program) -> None:
    """Take out what only numbers the calls behind a branch (Python states count themselves)."""
    for op in list(program.walk()):
        if op.attrs.pop("offset", None):
            *operands, offset = op.operands
            op.set_operands(operands)
            _drop_unused(offset)


def _drop_unused(operand: Operand) -> None:
    op = operand.op if isinstance(operand, Value) else None
    if op is not None and op.name == "prompt.compute" and not op.results[0].uses:
        operands = op.operands
        op.erase()
        for inner in operands:
            _drop_unused(inner)


def canonical_forks(program: Program) -> None:
    """Write `prompt.concat` as the forks and joins it came from, in place."""
    concats = [op for op in program.walk() if op.name == "prompt.concat"]
    done: set[Op] = set()
    for first in concats:
        if first in done:
            continue
        chain = [first]
        while True:
            users = [u for u in chain[-1].results[0].uses if u.name == "prompt.concat"
                     and u.operands[0] is chain[-1].results[0]
                     and u.operands[2] is first.operands[2] and u.block is first.block]
            if len(users) != 1 or len(chain[-1].results[0].uses) != 1:
                break
            chain.append(users[0])
        done.update(chain)
        _join(chain)


def _join(chain: list[Op]) -> None:
    """Replace concats of one base by a fork of it and a join."""
    first, last = chain[0], chain[-1]
    block, (parent, _, base) = first.block, first.operands
    assert block is not None and isinstance(base, Value)
    children = [op.operands[1] for op in chain]
    starts = [_start(child, base) for child in children]
    known = [s for s in starts if s is not None]
    if len(set(known)) != len(known):
        raise IRError("SGLC008", "joined forks that share text cannot be written as Python",
                      place=first.loc)
    anchors = [at for s in known if (at := _in_block(s, block)) is not None]
    anchor = min(anchors, key=block.ops.index, default=first)
    fork = block.insert_before(anchor, Op(
        "prompt.fork", (base,), {"size": len(chain)}, [PROMPT] * len(chain), (), anchor.loc))
    for index, (start, result) in enumerate(zip(starts, fork.results, strict=True)):
        if start is None:
            children[index] = result
        else:
            for op in start.walk():
                op.set_operands([result if o is base else o for o in op.operands])
    join = block.insert_before(last, Op(
        "prompt.join", (parent, base, *children), {"mode": "concate_and_append"}, (PROMPT,), (),
        last.loc))
    last.results[0].replace_by(join.results[0])
    for op in reversed(chain):
        op.erase()


def _start(child: Operand, base: Value) -> Op | None:
    """The first op between a fork's base and its end, None if there is none."""
    at = child
    start: Op | None = None
    while at is not base:
        op = at.op if isinstance(at, Value) else None
        if op is None or not (op.name in CHAINS or op.name in BRANCHES):
            raise IRError("SGLC008", "a join of prompts from elsewhere cannot be written as Python",
                          place=op.loc if op is not None else None)
        start = op
        if op.name in BRANCHES:
            assert isinstance(at, Value)
            at = _before(op, at)
        else:
            at = op.operands[0]
    return start


def _before(branch: Op, result: Value) -> Operand:
    """The prompt that the first arm of a branch continues."""
    at = branch.regions[0].ops[-1].operands[result.index]
    inside = {op for region in branch.regions for op in region.walk()}
    while isinstance(at, Value) and at.op in inside:
        op = at.op
        assert op is not None
        at = _before(op, at) if op.name in BRANCHES else op.operands[0]
    return at


def _in_block(op: Op, block: Block) -> Op | None:
    at: Op | None = op
    while at is not None and at.block is not block:
        parent = at.block.parent if at.block is not None else None
        at = parent if isinstance(parent, Op) else None
    return at
