"""The IR's data structures: values, operations, blocks, programs, modules.

SSA with structured control flow: an operation may hold regions, each one block; a block's ops
see the values of the blocks around it.  Use lists are kept up to date by every mutator here, so
do not assign `operands` directly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sglc.errors import Place
from sglc.ir import types
from sglc.ir.types import Type

Attr = Any  # None | bool | int | float | str | tuple of these


class Lit:
    """A literal operand: text, number, bool, None, or plain data (tuples for lists)."""

    __slots__ = ("type", "value")

    def __init__(self, value: Attr) -> None:
        self.value = value
        self.type = types.of_literal(value)

    def __eq__(self, other: object) -> bool:
        # By representation: 0.0 is not -0.0, (1,) is not (True,), and nan is itself.
        return (isinstance(other, Lit) and type(self.value) is type(other.value)
                and repr(self.value) == repr(other.value))

    def __hash__(self) -> int:
        return hash((type(self.value), repr(self.value)))

    def __repr__(self) -> str:
        return f"Lit({self.value!r})"


class Value:
    """A result of an operation or an argument of a block.

    owner: the Op or the Block that defines it.  uses: the ops that read it, once per operand.
    """

    __slots__ = ("index", "name", "owner", "type", "uses")

    def __init__(self, type: Type, owner: Op | Block, index: int, name: str = "") -> None:
        self.type = type
        self.owner = owner
        self.index = index
        self.name = name  # a hint; the printer makes it unique
        self.uses: list[Op] = []

    @property
    def op(self) -> Op | None:
        """The defining op, None for block arguments."""
        return self.owner if isinstance(self.owner, Op) else None

    def replace_by(self, other: Operand) -> None:
        """Make every user read `other` instead."""
        if other is self:
            return
        # All users leave at once: one by one, a value with many users would take quadratic time.
        uses, self.uses = self.uses, []
        for user in dict.fromkeys(uses):
            user._operands = tuple([other if o is self else o for o in user._operands])
        if isinstance(other, Value):
            other.uses.extend(uses)

    def __repr__(self) -> str:
        return f"%{self.name or '?'}:{self.type}"


Operand = Value | Lit


class Op:
    """One operation: `results = name operands {attrs} regions`."""

    __slots__ = ("_operands", "attrs", "block", "loc", "name", "regions", "results")

    def __init__(self, name: str, operands: Sequence[Operand] = (),
                 attrs: dict[str, Attr] | None = None, result_types: Sequence[Type] = (),
                 regions: Sequence[Block] = (), loc: Place | None = None,
                 result_names: Sequence[str] = ()) -> None:
        self.name = name
        self.attrs: dict[str, Attr] = dict(attrs or {})
        self.loc = loc
        self.block: Block | None = None
        self._operands: tuple[Operand, ...] = ()
        names = list(result_names) + [""] * (len(result_types) - len(result_names))
        self.results = tuple(Value(t, self, i, names[i]) for i, t in enumerate(result_types))
        self.regions = tuple(regions)
        for region in self.regions:
            region.parent = self
        self.set_operands(operands)

    @property
    def operands(self) -> tuple[Operand, ...]:
        return self._operands

    def set_operands(self, operands: Sequence[Operand]) -> None:
        for o in self._operands:
            if isinstance(o, Value):
                _remove(o.uses, self)
        self._operands = tuple(operands)
        for o in self._operands:
            if isinstance(o, Value):
                o.uses.append(self)

    @property
    def dialect(self) -> str:
        return self.name.partition(".")[0]

    def walk(self) -> Iterator[Op]:
        """This op and all ops in its regions, outer first, in order."""
        yield self
        for region in self.regions:
            yield from region.walk()

    def replace_by(self, values: Sequence[Operand]) -> None:
        """Replace all uses of the results, then erase this op."""
        for result, value in zip(self.results, values, strict=True):
            result.replace_by(value)
        self.erase()

    def erase(self) -> None:
        """Remove this op (its results must be unused) and everything in its regions."""
        for result in self.results:
            if result.uses:
                raise ValueError(f"{self.name} still has users")
        for region in self.regions:
            for op in reversed(list(region.ops)):
                op.drop()
        self.drop()

    def drop(self) -> None:
        for region in self.regions:
            for op in reversed(list(region.ops)):
                op.drop()
        self.set_operands(())
        if self.block is not None:
            _remove(self.block.ops, self)
            self.block = None

    def __repr__(self) -> str:
        return f"<{self.name} at {self.loc}>"


def _remove(ops: list[Op], op: Op) -> None:
    """Remove `op`, which is near the end where IR is taken down in reverse order."""
    if ops and ops[-1] is op:
        ops.pop()
    elif len(ops) > 1 and ops[-2] is op:
        del ops[-2]
    else:
        ops.remove(op)


class Block:
    """A list of ops with arguments.  Also a region: regions have exactly one block.

    label: the case of a `switch` ("default" last), or "" ; parent: the op that holds it.
    """

    __slots__ = ("args", "label", "ops", "parent")

    def __init__(self, arg_types: Iterable[tuple[str, Type]] = (), label: str = "") -> None:
        self.ops: list[Op] = []
        self.parent: Op | Program | None = None
        self.label = label
        self.args = tuple(Value(t, self, i, name) for i, (name, t) in enumerate(arg_types))

    def append(self, op: Op) -> Op:
        op.block = self
        self.ops.append(op)
        return op

    def insert_before(self, anchor: Op, op: Op) -> Op:
        op.block = self
        self.ops.insert(self.ops.index(anchor), op)
        return op

    def insert_after(self, anchor: Op, op: Op) -> Op:
        op.block = self
        self.ops.insert(self.ops.index(anchor) + 1, op)
        return op

    @property
    def terminator(self) -> Op | None:
        return self.ops[-1] if self.ops else None

    def walk(self) -> Iterator[Op]:
        for op in list(self.ops):
            yield from op.walk()


class Program:
    """A traced program: named arguments and a body.

    returns: the names of the variables that stay observable, in order of first binding.
    attrs: facts about the whole program (`assumed`, `guards`, `stage`), printable.
    """

    __slots__ = ("attrs", "body", "loc", "name", "returns")

    def __init__(self, name: str, args: Iterable[tuple[str, Type]] = (),
                 returns: Sequence[str] = (), loc: Place | None = None,
                 attrs: dict[str, Attr] | None = None) -> None:
        self.name = name
        self.body = Block(args)
        self.body.parent = self
        self.returns = tuple(returns)
        self.loc = loc
        self.attrs: dict[str, Attr] = dict(attrs or {})

    @property
    def args(self) -> tuple[Value, ...]:
        return self.body.args

    def walk(self) -> Iterator[Op]:
        return self.body.walk()


class Module:
    """Programs by name, in order."""

    __slots__ = ("programs",)

    def __init__(self, programs: Iterable[Program] = ()) -> None:
        self.programs: dict[str, Program] = {p.name: p for p in programs}

    def add(self, program: Program) -> Program:
        if program.name in self.programs:
            raise ValueError(f"program @{program.name} exists already")
        self.programs[program.name] = program
        return program

    def walk(self) -> Iterator[Op]:
        for program in self.programs.values():
            yield from program.walk()

    def clone(self) -> Module:
        """A deep copy that shares nothing with this module."""
        from sglc.ir.clone import clone_module

        return clone_module(self)

    def __eq__(self, other: object) -> bool:
        from sglc.ir.clone import equal_modules

        return isinstance(other, Module) and equal_modules(self, other)

    __hash__ = None  # type: ignore[assignment]
