"""Checks that IR is well formed: shape, dominance, use lists, terminators, regions.

What single operations demand beyond that, and what holds along prompt chains, is in rules.py.
One pass over the ops; it never changes anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from sglc.errors import IRError, Place
from sglc.ir.literals import SCALARS, is_plain
from sglc.ir.module import Attr, Block, Lit, Module, Op, Program, Value
from sglc.ir.ops import OPS
from sglc.ir.rules import Facts, shape_problems
from sglc.ir.signatures import BRANCHES, MAX_REGIONS, YIELDING, fits, terminator_of, type_problem


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: in which program, at which op (or none), where, what."""

    program: str
    op: str | None
    place: Place | None
    what: str

    def __str__(self) -> str:
        where = f" ({self.place})" if self.place is not None else ""
        return f"@{self.program}{': ' + self.op if self.op else ''}{where}: {self.what}"


def verify(m: Module) -> None:
    """Returns if `m` is well formed; raises IRError SGLC201 that lists every problem if not."""
    found = problems(m)
    if found:
        listed = "\n".join(f"  {p}" for p in found)
        count = f"{len(found)} problem{'s' if len(found) > 1 else ''}"
        raise IRError("SGLC201", f"the IR is malformed: {count}\n{listed}",
                      place=next((p.place for p in found if p.place is not None), None))


def problems(m: Module) -> list[Problem]:
    """Everything that is wrong with a module, in program order."""
    shapes: set[tuple[object, ...]] = set()  # signatures found right: most ops repeat a few
    out: list[Problem] = []
    for name, program in m.programs.items():
        checker = _Checker(program, shapes)
        if program.name != name:
            checker.report(None, f"the module calls this program @{name}")
        checker.program_()
        out.extend(checker.found)
    return out


class _Checker:
    """The state of checking one program."""

    def __init__(self, program: Program, shapes: set[tuple[object, ...]]) -> None:
        self.program = program
        self.shapes = shapes
        self.found: list[Problem] = []
        self.visible: set[Value] = set()
        self.values: list[Value] = []  # all that are defined, in order
        self.readers: dict[Value, list[Op]] = {}
        self.facts = Facts(self.report)

    def report(self, op: Op | None, what: str) -> None:
        place = op.loc if op is not None else self.program.loc
        self.found.append(Problem(self.program.name, op.name if op else None, place, what))

    def program_(self) -> None:
        program = self.program
        names = [a.name for a in program.args]
        if len(set(names)) < len(names):
            self.report(None, f"arguments share a name: {names}")
        if len(set(program.returns)) < len(program.returns):
            self.report(None, f"returns repeats a name: {list(program.returns)}")
        if program.body.parent is not program:
            self.report(None, "the body's parent is not the program")
        self.attrs(None, program.attrs)
        self.block(program.body, "prompt.return", None, 0)
        self.uses()

    def attrs(self, op: Op | None, attrs: Mapping[str, Attr]) -> None:
        for name, value in attrs.items():
            if type(value) not in SCALARS and not is_plain(value):
                self.report(op, f"attribute {name} is not plain data: {value!r}")

    def define(self, op: Op | None, values: tuple[Value, ...], owner: Op | Block) -> None:
        visible = self.visible
        for index, value in enumerate(values):
            if value in visible:
                self.report(op, f"{value!r} is defined twice")
            if value.owner is not owner or value.index != index:
                self.report(op, f"{value!r} does not know its definition")
            if value.type.args or type(owner) is Block:
                problem = type_problem(value.type)
                if problem is not None:
                    self.report(op, problem)
        visible.update(values)
        self.values.extend(values)

    def block(self, block: Block, terminator: str, parent: Op | None, depth: int) -> None:
        """Check a block and all in it, then forget the values it defined."""
        if depth > MAX_REGIONS:
            self.report(parent, f"regions are nested more than {MAX_REGIONS} deep")
            return
        first = len(self.values)
        if block.args:
            self.define(parent, block.args, block)
            self.facts.arguments(block, parent)
        last = block.ops[-1] if block.ops else None
        if last is None or last.name != terminator:
            self.report(last or parent, f"the {'region' if parent else 'program'} does not end "
                                        f"in {terminator}")
        for op in block.ops:
            self.op(op, block, op is last, depth)
        self.visible.difference_update(self.values[first:])

    def op(self, op: Op, block: Block, last: bool, depth: int) -> None:
        name = op.name
        definition = OPS.get(name)
        operands = op.operands
        results = op.results
        attrs = op.attrs
        visible = self.visible
        readers = self.readers
        if op.block is not block:
            self.report(op, "the op does not know its block")
        for operand in operands:
            if isinstance(operand, Lit):
                if type(operand.value) not in SCALARS and not is_plain(operand.value):
                    self.report(op, f"a literal is not plain data: {operand.value!r}")
                continue
            if operand not in visible:
                self.report(op, f"{operand!r} is used where it is not defined")
            known = readers.get(operand)
            if known is None:
                readers[operand] = [op]
            else:
                known.append(op)
        if definition is None:
            self.report(op, "unknown operation")
            self.define(op, results, op)
            return
        shape = (name, len(operands), *[o.type.name for o in operands],
                 *[r.type.name for r in results], *attrs)
        if shape not in self.shapes:
            wrong = shape_problems(op, definition)
            for what in wrong:
                self.report(op, what)
            if wrong:  # the rules below rely on the shape
                self.define(op, results, op)
                for region in op.regions:
                    self.block(region, terminator_of(definition), op, depth + 1)
                return
            self.shapes.add(shape)
        for value in attrs.values():
            if type(value) not in SCALARS and not is_plain(value):
                self.attrs(op, attrs)
                return
        if definition.effect == "end" and not last:
            self.report(op, "a terminator in the wrong place")
        if op.regions or definition.regions:
            self.regions(op, depth)
        self.facts.op(op, definition)
        if results:
            self.define(op, results, op)

    def regions(self, op: Op, depth: int) -> None:
        definition = OPS[op.name]
        wanted = definition.regions
        if (len(op.regions) != wanted) if wanted != "*" else not op.regions:
            self.report(op, f"has {'1 or more' if wanted == '*' else wanted} regions, "
                            f"{len(op.regions)} given")
        terminator = terminator_of(definition)
        outside = self.facts
        branches: list[Facts] = []
        for region in op.regions:
            if op.name in BRANCHES:
                self.facts = outside.branch()
                branches.append(self.facts)
            if region.parent is not op:
                self.report(op, "a region does not know its op")
            self.block(region, terminator, op, depth + 1)
            end = region.terminator
            if op.name in YIELDING and end is not None and end.name == terminator:
                self.yields(op, end)
        self.facts = outside
        outside.merge(branches)

    def yields(self, op: Op, end: Op) -> None:
        if len(end.operands) != len(op.results):
            self.report(end, f"yields {len(end.operands)} values for {len(op.results)} results")
            return
        for value, result in zip(end.operands, op.results, strict=True):
            if not fits(value.type, result.type):
                self.report(end, f"yields {value!r} ({value.type}) for a {result.type}")

    def uses(self) -> None:
        """Use lists name exactly the ops that read each value, once per operand."""
        readers = self.readers
        none: list[Op] = []
        for value in self.values:
            known = readers.get(value, none)
            if value.uses != known and Counter(value.uses) != Counter(known):
                extra = Counter(value.uses) - Counter(known)
                what = ("names ops that do not read it" if extra else "lacks ops that read it")
                self.report(value.op, f"the use list of {value!r} {what}")
