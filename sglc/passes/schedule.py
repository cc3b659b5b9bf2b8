"""From a program to a plan over its batch: soft order and bounds.  Preserves text.

The body moves into one `plan.group`, which hands on what the program returns.  Each model call
sits in a `plan.issue` with its rank (smaller first: the longest remaining chain of calls, then
program order) and, where known, a bound on its KV tokens.  Host calls that need a model's result
follow a `plan.await` of it.  Ranks never change results.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from sglc.errors import IRError
from sglc.ir.module import Block, Module, Op, Program, Value
from sglc.ir.signatures import LOOPS, awaited
from sglc.passes.base import Pass, PassContext
from sglc.passes.bounds import call_bounds
from sglc.passes.constants import constant_prompts
from sglc.passes.edit import set_ops
from sglc.passes.facts import BRANCHES, all_inputs, is_call


@dataclass(frozen=True)
class Schedule(Pass):
    """Add the plan dialect to kv-stage programs."""

    name: ClassVar[str] = "schedule"

    def run(self, module: Module, context: PassContext) -> dict[str, int]:
        stats = {"calls": 0, "awaits": 0, "bounded": 0, "shared_tokens": 0}
        for program in module.programs.values():
            if any(op.dialect == "plan" for op in program.body.ops):
                continue
            if any(op.name in ("prompt.root", "prompt.gen", "prompt.select")
                   for op in program.walk()):
                raise IRError("SGLC203", f"schedule meets prompt-stage ops in @{program.name}",
                              place=program.loc, fixes=("run tokenize before it",))
            chains = remaining_chains(program)
            bounds = call_bounds(program, context)
            order = sorted(chains, key=lambda op: -chains[op])
            shared = _shared_ids(program, context)
            stats["awaits"] += _await_results(program)
            ranks = {call: rank for rank, call in enumerate(order)}
            for block in {id(call.block): call.block for call in order}.values():
                if block is not None:
                    set_ops(block, [_issue(op, ranks[op], bounds.get(op)) if op in ranks else op
                                    for op in block.ops])
            _group(program, context.rows, shared)
            stats["calls"] += len(order)
            stats["bounded"] += len(bounds)
            stats["shared_tokens"] = max(stats["shared_tokens"], len(shared))
        return stats


def remaining_chains(program: Program) -> dict[Op, int]:
    """For each model call, in program order: how many calls follow one another from it on,
    itself included."""
    chains: dict[Op, int] = {}
    below: dict[Value, int] = {}  # the longest chain among what reads a value

    def visit(block: Block) -> int:
        """The longest chain that starts in the block, once what is below it is known."""
        longest = 0
        for op in reversed(block.ops):
            chain = max([below.get(r, 0) for r in op.results], default=0)
            if is_call(op):
                chain += 1
                chains[op] = chain
            if op.regions:
                inner = 0
                for region in op.regions:
                    last = region.terminator
                    if (op.name in BRANCHES or op.name in LOOPS) and last is not None:
                        for operand, result in zip(last.operands, op.results, strict=True):
                            if isinstance(operand, Value):
                                below[operand] = max(below.get(operand, 0), below.get(result, 0))
                    inner = max(inner, visit(region))
                chain = max(chain, inner)
            for operand in op.operands:
                if isinstance(operand, Value):
                    below[operand] = max(below.get(operand, 0), chain)
            longest = max(longest, chain)
        return longest

    visit(program.body)
    return {op: chains[op] for op in program.walk() if op in chains}


def _shared_ids(program: Program, context: PassContext) -> tuple[int, ...]:
    """The longest ids that open a prompt in every instance and that no text can change."""
    if context.tokenizer is None:
        return ()
    longest: tuple[int, ...] = ()
    for value, prompt in constant_prompts(program, context.tokenizer).items():
        unconditional = value.op is not None and value.op.block is program.body
        if unconditional and len(prompt.ids) + len(prompt.tail) > len(longest):
            ids = tuple(prompt.stable_ids())
            if len(ids) > len(longest):
                longest = ids
    return longest


def _await_results(program: Program) -> int:
    """Put a `plan.await` before each host call for each of its inputs that a model decides."""
    decided: set[Value] = set()
    inputs = all_inputs(program)
    awaits = 0

    def visit(block: Block, branch_decided: bool) -> bool:
        """Whether the block holds a model call."""
        nonlocal awaits
        out: list[Op] = []
        calls = False
        for op in block.ops:
            read = [v for v in inputs[op] if v in decided]
            by_model = bool(read) or is_call(op) or branch_decided
            for region in op.regions:
                carried = region.args[1:] if op.name in LOOPS else region.args
                decided.update(a for a, o in zip(carried, op.operands[1:], strict=True)
                               if o in decided)
                has_calls = visit(region, branch_decided or op.operands[0] in decided)
                calls |= has_calls
                by_model |= has_calls
            calls |= is_call(op)
            if by_model:
                decided.update(op.results)
            if op.name == "prompt.host":
                for value in dict.fromkeys(awaited(op)):
                    if value in decided:
                        out.append(Op("plan.await", (value,), None, (), (), op.loc))
                        awaits += 1
            out.append(op)
        set_ops(block, out)
        return calls

    visit(program.body, False)
    return awaits


def _issue(call: Op, rank: int, bound: int | None) -> Op:
    """The `plan.issue` that holds a call."""
    attrs: dict[str, Any] = {"rank": rank}
    if bound is not None:
        attrs["bound"] = bound
    region = Block()
    issue = Op("plan.issue", (), attrs, [r.type for r in call.results], (region,), call.loc,
               [r.name for r in call.results])
    for old, new in zip(call.results, issue.results, strict=True):
        old.replace_by(new)
    region.append(call)
    region.append(Op("plan.yield", call.results))
    return issue


def _group(program: Program, rows: int, shared: tuple[int, ...]) -> None:
    """Move the body into a `plan.group` and return what it yields."""
    body = program.body
    *ops, last = body.ops
    region = Block()
    inner = {r for op in ops for r in op.results}
    handed = list(dict.fromkeys(
        o for o in last.operands if isinstance(o, Value) and o in inner))
    attrs: dict[str, Any] = {"rows": rows}
    if shared:
        attrs.update(shared_tokens=len(shared), shared=shared)
    group = Op("plan.group", (), attrs, [v.type for v in handed], (region,), last.loc,
               [v.name for v in handed])
    results = dict(zip(handed, group.results, strict=True))
    last.set_operands([results.get(o, o) if isinstance(o, Value) else o for o in last.operands])
    set_ops(region, [*ops, Op("plan.yield", handed)])
    set_ops(body, [group, last])
