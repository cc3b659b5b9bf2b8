"""Equal prompts become one value, so that a shared prefix is one node.  Preserves text.

Value numbering of pure ops, scoped by dominance: an op equal to one that is visible from it is
replaced by it.  Pure ops that every arm of a branch computes move above the branch, and constant
prefixes move to the front of the program.  Ids are a function of the prompt value, so merging
equal values is exact.  Model calls and host calls are never merged.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import ClassVar

from sglc.ir.module import Block, Lit, Module, Op, Value
from sglc.ir.signatures import LOOPS
from sglc.passes.base import Pass, PassContext
from sglc.passes.edit import remove, replace, set_ops
from sglc.passes.facts import BRANCHES, is_finished, is_mergeable, is_pure, is_total

Key = tuple[Hashable, ...]


@dataclass(frozen=True)
class HoistPrefixes(Pass):
    """Merge equal prompts.

    min_tokens: what the arms of a branch have in common stays in them if it has fewer tokens.
    """

    name: ClassVar[str] = "hoist-prefixes"
    min_tokens: int = 0

    def run(self, module: Module, context: PassContext) -> dict[str, int]:
        stats = {"merged": 0, "hoisted": 0, "moved": 0, "tokens": 0}
        for program in module.programs.values():
            if is_finished(program):
                continue
            Numbering(context, self.min_tokens, stats).visit(program.body)
            stats["moved"] += _constants_first(program.body)
        return stats


class Numbering:
    """Replaces ops by equal ones that dominate them."""

    def __init__(self, context: PassContext, min_tokens: int, stats: dict[str, int]) -> None:
        self.context = context
        self.min_tokens = min_tokens
        self.stats = stats
        self.visible: dict[Key, Op] = {}  # pure ops that dominate the current position

    def visit(self, block: Block) -> None:
        added: list[Key] = []
        out: list[Op] = []
        for op in block.ops:
            key = self.key(op)
            if key is not None:
                known = self.visible.get(key)
                if known is not None:
                    self.merge(op, known)
                    continue
                self.visible[key] = op
                added.append(key)
            for region in op.regions:
                self.visit(region)
            if op.name in LOOPS:
                out.extend(self._invariant(op))
            if op.name in BRANCHES:
                for common in self._common(op):
                    key = _key(common, _itself)
                    self.visible[key] = common
                    added.append(key)
                    out.append(common)
            out.append(op)
        set_ops(block, out)
        for key in added:
            del self.visible[key]

    def key(self, op: Op) -> Key | None:
        """What equal ops have in common; None for ops that stay."""
        return _key(op, _itself) if is_pure(op) and is_mergeable(op) else None

    def merge(self, op: Op, known: Op) -> None:
        """Let `known` stand for `op` as well."""
        self.stats["merged"] += 1
        self.stats["tokens"] += _tokens(op, self.context)
        self.context.record("merge-prefix", op.name, known.name, op.loc)
        replace(op, known.results)

    def _invariant(self, loop: Op) -> list[Op]:
        """What every round of a loop computes alike, taken out of it."""
        region = loop.regions[0]
        inner = {*region.args, *(r for op in region.ops for r in op.results)}
        found: list[Op] = []
        for op in region.ops:
            if is_pure(op) and is_mergeable(op) and is_total(op) and not any(
                    o in inner for o in op.operands):
                found.append(op)
                inner.difference_update(op.results)
        gone = set(found)
        region.ops = [op for op in region.ops if op not in gone]
        self.stats["hoisted"] += len(found)
        return found

    def _common(self, branch: Op) -> list[Op]:
        """The pure ops that all arms compute from what is above, taken out of the arms."""
        numbers: dict[Key, int] = {}
        arms = [_number_arm(region, numbers) for region in branch.regions]
        shared = set(arms[0]).intersection(*arms[1:])
        if not shared:
            return []
        first = [op for n, op in arms[0].items() if n in shared]
        tokens = sum([_tokens(op, self.context) for op in first])
        if tokens < self.min_tokens:
            return []
        remove_from_first = set(first)
        head = branch.regions[0]
        head.ops = [op for op in head.ops if op not in remove_from_first]
        for region, arm in zip(branch.regions[1:], arms[1:], strict=True):
            gone = {op: arms[0][n] for n, op in arm.items() if n in shared}
            for op, kept in gone.items():
                for result, value in zip(op.results, kept.results, strict=True):
                    result.replace_by(value)
            remove(region, set(gone))
            self.stats["tokens"] += tokens
        self.stats["hoisted"] += len(first)
        self.context.record("hoist", f"{len(first)} ops in each arm", "above the branch",
                            branch.loc)
        return first


def _itself(value: Value) -> Hashable:
    return value


def _key(op: Op, operand: Callable[[Value], Hashable]) -> Key:
    # By repr and type where == is too coarse: 0.0 == -0.0, (1,) == (True,).
    return (op.name, op.results[0].type.name if op.name == "prompt.compute" else "",
            *[operand(o) if isinstance(o, Value) else repr(o.value) for o in op.operands],
            *(sorted([(k, repr(v)) for k, v in op.attrs.items()]) if op.attrs else ()))


def _number_arm(region: Block, numbers: dict[Key, int]) -> dict[int, Op]:
    """The arm's own pure ops that read only outer values and each other, by a number that equal
    ops of all arms share; in order."""
    inner: dict[Value, int | None] = dict.fromkeys(region.args)
    arm: dict[int, Op] = {}
    for op in region.ops:
        number: int | None = None
        if is_pure(op) and is_mergeable(op) and is_total(op) and not any(
                isinstance(o, Value) and inner.get(o, 0) is None for o in op.operands):
            key = _key(op, lambda v: inner.get(v, v))
            number = numbers.setdefault(key, len(numbers))
            arm[number] = op
        for result in op.results:
            inner[result] = number
    return arm


def _tokens(op: Op, context: PassContext) -> int:
    """About how many tokens the op adds to its prompt (0 without a tokenizer)."""
    if op.name in ("prompt.special", "kv.special"):
        return 1
    if op.name != "prompt.append" or context.tokenizer is None:
        return 0
    text = op.operands[1]
    return len(context.tokenizer.encode(text.value)) if isinstance(text, Lit) else 0


_CONSTANT = frozenset({"prompt.append", "prompt.special", "prompt.role_begin",
                       "prompt.role_end", "kv.special", "kv.extend"})


def _constants_first(block: Block) -> int:
    """Move the ops whose prompt is the same in every instance to the front, in order; how many
    moved."""
    constant: set[Value] = set()
    front: list[Op] = []
    rest: list[Op] = []
    moved = 0
    for op in block.ops:
        if op.name in ("prompt.root", "kv.root", "kv.ids") or (op.name in _CONSTANT and all(
                isinstance(o, Lit) or o in constant for o in op.operands)):
            constant.update(op.results)
            front.append(op)
            moved += bool(rest)
        else:
            rest.append(op)
    if moved:
        set_ops(block, front + rest)
    return moved
