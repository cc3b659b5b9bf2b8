"""Which forks of one prompt need each other's results, and so cannot run at the same time."""

from __future__ import annotations

from sglc.ir.module import Block, Lit, Op, Operand, Program, Value
from sglc.ir.signatures import BRANCHES, CHAINS
from sglc.passes.facts import is_call

Child = tuple[Op, int]
"""A fork op, and which of its results."""


def waiting_forks(program: Program) -> dict[Op, dict[Op, tuple[int, Op]]]:
    """For each `prompt.fork` some of whose states wait for others: the calls that do.

    Each call comes with the state it is in, and a call of another state that it needs.
    """
    walk = _Walk()
    walk.block(program.body, {})
    return walk.found


class _Walk:
    """needs: for each value, a call of each fork's state that it comes after.  inside: for each
    prompt, the states of forks that it is in."""

    def __init__(self) -> None:
        self.needs: dict[Value, dict[Child, Op]] = {}
        self.inside: dict[Value, tuple[Child, ...]] = {}
        self.found: dict[Op, dict[Op, tuple[int, Op]]] = {}

    def block(self, block: Block, control: dict[Child, Op]) -> None:
        """control: what decides whether the block runs."""
        for op in block.ops:
            needs = dict(control)
            for operand in op.operands:
                needs.update(self._needs(operand))
            inside = self._inside(op.operands[0]) if op.operands else ()
            if op.name in BRANCHES:
                self._branch(op, needs)
                continue
            if op.name == "prompt.fork":
                for index, result in enumerate(op.results):
                    self.needs[result] = needs
                    self.inside[result] = (*inside, (op, index))
                continue
            if is_call(op):
                self._call(op, inside, needs)
                needs.update(dict.fromkeys(inside, op))
            for result in op.results:
                self.needs[result] = needs
                if op.name in CHAINS or op.name == "prompt.join":
                    self.inside[result] = inside

    def _needs(self, operand: Operand) -> dict[Child, Op]:
        return {} if isinstance(operand, Lit) else self.needs.get(operand, {})

    def _inside(self, operand: Operand) -> tuple[Child, ...]:
        return () if isinstance(operand, Lit) else self.inside.get(operand, ())

    def _call(self, op: Op, inside: tuple[Child, ...], needs: dict[Child, Op]) -> None:
        for fork, own in inside:
            for index in range(len(fork.results)):
                other = needs.get((fork, index))
                if index != own and other is not None:
                    self.found.setdefault(fork, {}).setdefault(op, (own, other))

    def _branch(self, op: Op, needs: dict[Child, Op]) -> None:
        ends: list[tuple[Operand, ...]] = []
        condition = self._needs(op.operands[0])
        for region in op.regions:
            for arg, value in zip(region.args, op.operands[1:], strict=True):
                self.needs[arg] = self._needs(value)
                self.inside[arg] = self._inside(value)
            self.block(region, condition)
            if region.terminator is not None:
                ends.append(region.terminator.operands)
        for result in op.results:
            merged = dict(condition)
            states = [self._inside(end[result.index]) for end in ends]
            for end in ends:
                merged.update(self._needs(end[result.index]))
            self.needs[result] = merged
            if states and all(s == states[0] for s in states):
                self.inside[result] = states[0]
