"""A program in the form that mutable states can have: forks and joins instead of concats, calls
without offsets.  In place; the prompts stay the same.
"""

from __future__ import annotations

from sglc.errors import IRError
from sglc.ir.module import Op, Operand, Program, Value
from sglc.ir.prompt_flow import in_block
from sglc.ir.signatures import BRANCHES, CHAINS
from sglc.ir.types import PROMPT


def drop_offsets(program: Program) -> None:
    """Take out what only numbers the calls behind a branch (Python states count themselves)."""
    for op in list(program.walk()):
        while op.attrs.get("offset"):
            op.attrs["offset"] = op.attrs["offset"][:-1]
            *operands, offset = op.operands
            op.set_operands(operands)
            _drop_unused(offset)
        op.attrs.pop("offset", None)


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
    anchors = [at for s in known if (at := in_block(s, block)) is not None]
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
