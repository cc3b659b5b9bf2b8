"""Building IR: appends ops to a block, merging equal pure ones (hash-consing)."""

from __future__ import annotations

from collections.abc import Sequence

from sglc.errors import Place
from sglc.ir.module import Attr, Block, Op, Operand
from sglc.ir.ops import OPS
from sglc.ir.types import Type


class Builder:
    """Appends to `block`.  Equal pure ops (same name, operands, attributes, types) are one op, but
    for forks: the states of each go their own ways.

    A nested builder (for a region) sees the pure ops of the builders around it.
    """

    def __init__(self, block: Block, outer: Builder | None = None) -> None:
        self.block = block
        self.outer = outer
        self._pure: dict[tuple[object, ...], Op] = {}

    def op(self, name: str, operands: Sequence[Operand] = (),
           attrs: dict[str, Attr] | None = None, types: Sequence[Type] = (),
           loc: Place | None = None, names: Sequence[str] = (),
           regions: Sequence[Block] = ()) -> Op:
        """The new op, or the equal pure one that is there already."""
        if not OPS[name].pure or regions or name == "prompt.fork":
            return self.block.append(Op(name, operands, attrs, types, regions, loc, names))
        key = self.key(name, operands, attrs or {}, types)
        builder: Builder | None = self
        while builder is not None:
            found = builder._pure.get(key)
            if found is not None and found.block is not None:
                return found
            builder = builder.outer
        op = self.block.append(Op(name, operands, attrs, types, (), loc, names))
        self._pure[key] = op
        return op

    @staticmethod
    def key(name: str, operands: Sequence[Operand], attrs: dict[str, Attr],
            types: Sequence[Type]) -> tuple[object, ...]:
        return (name, tuple(operands), tuple(sorted((k, repr(v)) for k, v in attrs.items())),
                tuple(types))

    def region(self, label: str = "", args: Sequence[tuple[str, Type]] = ()) -> Builder:
        """A builder for a new block inside this one."""
        return Builder(Block(args, label), self)
