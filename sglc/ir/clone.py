"""Deep copies of IR, and structural equality of modules.

Equality looks at values by position, never at name hints, except for the names of a program's
arguments: those are its interface.
"""

from __future__ import annotations

from collections.abc import Mapping

from sglc.ir import literals
from sglc.ir.module import Attr, Block, Lit, Module, Op, Operand, Program, Value


def clone_module(m: Module) -> Module:
    """A deep copy; only immutable data (types, places, literals) is shared."""
    return Module(clone_program(p) for p in m.programs.values())


def clone_program(p: Program) -> Program:
    """A deep copy of one program."""
    copy = Program(p.name, [(a.name, a.type) for a in p.args], p.returns, p.loc, p.attrs)
    values: dict[Value, Operand] = dict(zip(p.args, copy.args, strict=True))
    pairs: list[tuple[Op, Op]] = []
    _copy_ops(p.body, copy.body, values, pairs)
    _connect(pairs, values)
    return copy


def clone_block(block: Block, values: dict[Value, Operand]) -> Block:
    """A copy of `block` without a parent.

    values: what operands become; values that are not in it stay as they are.  It is extended with
    the copies of everything that the block defines.
    """
    copy = Block([(a.name, a.type) for a in block.args], block.label)
    values.update(zip(block.args, copy.args, strict=True))
    pairs: list[tuple[Op, Op]] = []
    _copy_ops(block, copy, values, pairs)
    _connect(pairs, values)
    return copy


def clone_op(op: Op, values: dict[Value, Operand]) -> Op:
    """A copy of `op` that is in no block; `values` as for `clone_block`."""
    pairs: list[tuple[Op, Op]] = []
    copy = _copy_op(op, values, pairs)
    _connect(pairs, values)
    return copy


def _copy_ops(source: Block, target: Block, values: dict[Value, Operand],
              pairs: list[tuple[Op, Op]]) -> None:
    for op in source.ops:
        target.append(_copy_op(op, values, pairs))


def _copy_op(op: Op, values: dict[Value, Operand], pairs: list[tuple[Op, Op]]) -> Op:
    """A copy without operands: they come last, so that even malformed IR keeps to itself."""
    regions = []
    copy = Op(op.name, (), op.attrs, [r.type for r in op.results], (), op.loc,
              [r.name for r in op.results])
    pairs.append((op, copy))
    values.update(zip(op.results, copy.results, strict=True))
    for region in op.regions:
        block = Block([(a.name, a.type) for a in region.args], region.label)
        block.parent = copy
        values.update(zip(region.args, block.args, strict=True))
        _copy_ops(region, block, values, pairs)
        regions.append(block)
    copy.regions = tuple(regions)
    return copy


def _connect(pairs: list[tuple[Op, Op]], values: Mapping[Value, Operand]) -> None:
    for op, copy in pairs:
        copy.set_operands([values.get(o, o) if isinstance(o, Value) else o for o in op.operands])


def equal_modules(a: Module, b: Module) -> bool:
    """Whether two modules are the same but for the names of values."""
    return a is b or explain_difference(a, b) is None


def explain_difference(a: Module, b: Module) -> str | None:
    """The first difference of two modules, with where it is; None if they are equal."""
    if list(a.programs) != list(b.programs):
        return f"programs: {list(a.programs)} != {list(b.programs)}"
    for name, program in a.programs.items():
        difference = _programs(program, b.programs[name])
        if difference is not None:
            return f"@{name}: {difference}"
    return None


def _programs(a: Program, b: Program) -> str | None:
    if (a.name, a.returns, a.loc) != (b.name, b.returns, b.loc):
        return f"header: {(a.name, a.returns, a.loc)} != {(b.name, b.returns, b.loc)}"
    names = [x.name for x in a.args], [x.name for x in b.args]
    if names[0] != names[1]:
        return f"argument names: {names[0]} != {names[1]}"
    return _attrs(a.attrs, b.attrs) or _blocks(a.body, b.body, {})


def _attrs(a: Mapping[str, Attr], b: Mapping[str, Attr]) -> str | None:
    if a.keys() != b.keys():
        return f"attributes: {sorted(a)} != {sorted(b)}"
    for name, value in a.items():
        if not literals.same(value, b[name]):
            return f"attribute {name}: {value!r} != {b[name]!r}"
    return None


def _blocks(a: Block, b: Block, pairs: dict[Value, Value]) -> str | None:
    if a.label != b.label:
        return f"label: {a.label!r} != {b.label!r}"
    types = [x.type for x in a.args], [x.type for x in b.args]
    if types[0] != types[1]:
        return f"argument types: {types[0]} != {types[1]}"
    pairs.update(zip(a.args, b.args, strict=True))
    for index, (x, y) in enumerate(zip(a.ops, b.ops, strict=False)):
        difference = _ops(x, y, pairs)
        if difference is not None:
            return f"op {index} ({x.name}): {difference}"
    if len(a.ops) != len(b.ops):
        return f"number of ops: {len(a.ops)} != {len(b.ops)}"
    return None


def _ops(a: Op, b: Op, pairs: dict[Value, Value]) -> str | None:
    if a.name != b.name:
        return f"name: {a.name} != {b.name}"
    if a.loc != b.loc:
        return f"place: {a.loc} != {b.loc}"
    if len(a.operands) != len(b.operands):
        return f"number of operands: {len(a.operands)} != {len(b.operands)}"
    for index, (x, y) in enumerate(zip(a.operands, b.operands, strict=True)):
        if not _operands_equal(x, y, pairs):
            return f"operand {index}: {x!r} != {y!r}"
    types = [r.type for r in a.results], [r.type for r in b.results]
    if types[0] != types[1]:
        return f"result types: {types[0]} != {types[1]}"
    difference = _attrs(a.attrs, b.attrs) if a.attrs or b.attrs else None
    if difference is not None:
        return difference
    pairs.update(zip(a.results, b.results, strict=True))
    if len(a.regions) != len(b.regions):
        return f"number of regions: {len(a.regions)} != {len(b.regions)}"
    for index, (r, s) in enumerate(zip(a.regions, b.regions, strict=True)):
        difference = _blocks(r, s, pairs)
        if difference is not None:
            return f"region {index}: {difference}"
    return None


def _operands_equal(a: Operand, b: Operand, pairs: Mapping[Value, Value]) -> bool:
    if isinstance(a, Value):
        return isinstance(b, Value) and pairs.get(a, a) is b
    return isinstance(b, Lit) and a.type == b.type and literals.same(a.value, b.value)
