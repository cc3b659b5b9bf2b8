"""Upper bounds on the KV tokens of model calls, where the program alone gives one.

Exact for constant prompts.  Past a gen or a text of unknown tail, a tokenizer with stable cuts
gives at most a token a byte of the text that it encodes, which is the NFC form at most: three
times as many bytes for text beyond ASCII (Unicode Standard Annex 15).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sglc.ir.module import Block, Lit, Op, Operand, Program, Value
from sglc.ir.types import KV
from sglc.passes.base import PassContext
from sglc.passes.constants import constant_prompts, encoded
from sglc.passes.facts import BRANCHES, is_call
from sglc.tokens.prompt import Prompt
from sglc.tokens.text import utf8
from sglc.tokens.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Size:
    """At most `fixed` tokens before the open run's tail, and `tail` tokens in that."""

    fixed: int
    tail: int

    @property
    def tokens(self) -> int:
        return self.fixed + self.tail


def call_bounds(program: Program, context: PassContext) -> dict[Op, int]:
    """The calls that have a bound, with it: prompt, output (all samples, all choices)."""
    if context.tokenizer is None:
        return {}
    sizes = _Sizes(constant_prompts(program, context.tokenizer), context, context.tokenizer)
    sizes.visit(program.body)
    return sizes.bounds


class _Sizes:
    def __init__(self, constants: dict[Value, Prompt], context: PassContext,
                 tokenizer: Tokenizer) -> None:
        self.constants = constants
        self.context = context
        self.tokenizer = tokenizer
        self.sizes: dict[Value, Size] = {}
        self.bounds: dict[Op, int] = {}

    @cached_property
    def longest_leftover(self) -> int:
        """What a stop string can leave of a token; an invalid byte becomes U+FFFD, three bytes."""
        return 3 * max(map(len, self.tokenizer.byte_table), default=1)

    def visit(self, block: Block) -> None:
        for op in block.ops:
            for region in op.regions:
                self.visit(region)
            if is_call(op):
                self._call(op)
            elif op.name in BRANCHES:
                self._branch(op)
            elif op.results and op.results[0].type == KV and not op.regions:
                size = self._extended(op)
                if size is not None:
                    self.sizes[op.results[0]] = size

    def _size(self, operand: Operand) -> Size | None:
        assert isinstance(operand, Value)
        return self.sizes.get(operand)

    def _extended(self, op: Op) -> Size | None:
        known = self.constants.get(op.results[0])
        if known is not None:
            return Size(len(known.ids), _most_tokens(known.tail))
        before = self._size(op.operands[0]) if op.operands else None
        if before is None:
            return None
        if op.name == "kv.special":
            return Size(before.tokens + 1, 0)
        source = op.operands[1].op if isinstance(op.operands[1], Value) else None
        if op.name != "kv.extend" or source is None:
            return None
        if source.name == "kv.ids":
            piece = encoded(op)
            return Size(before.fixed + len(piece.ids), _most_tokens(piece.held))
        text = source.operands[1] if source.name == "kv.encode" else None
        if not isinstance(text, Lit) or not self.tokenizer.can_cut:
            return None
        return Size(before.fixed, before.tail + _most_tokens(text.value))

    def _call(self, op: Op) -> None:
        before = self._size(op.operands[0])
        if before is None:
            return
        known = self.constants.get(op.operands[0])  # type: ignore[arg-type]
        tokens = before.tokens if known is None else len(known.token_ids())
        if known is None and not self.tokenizer.can_cut:
            return
        if op.name == "kv.decode":
            most = self._most(op)
            if most is None:
                return
            self.bounds[op] = tokens + most * (op.attrs.get("n") or 1)
            stops = self.context.may_stop or any(
                op.attrs.get(k) for k in ("stop", "stop_regex", "dtype"))
            self.sizes[op.results[0]] = Size(tokens + most, self.longest_leftover if stops else 0)
            return
        choices = [c.value for c in op.operands[1:] if isinstance(c, Lit)]
        if len(choices) + 1 < len(op.operands) or not self.tokenizer.can_cut:
            return
        lengths = [_most_tokens(c) for c in choices]
        self.sizes[op.results[0]] = Size(before.fixed, before.tail + max(lengths))
        if op.attrs.get("method") != "unconditional_likelihood_normalized":
            self.bounds[op] = before.fixed + sum([before.tail + n for n in lengths])

    def _most(self, op: Op) -> int | None:
        """The tokens that a decode adds at most: what it may, or what its constraint takes."""
        most: int | None = op.attrs.get("max_tokens") or self.context.max_tokens
        longest: int | None = op.attrs.get("most_tokens")
        return most if longest is None else longest if most is None else min(most, longest)

    def _branch(self, op: Op) -> None:
        for result in op.results:
            arms = [region.terminator.operands[result.index] for region in op.regions
                    if region.terminator is not None]
            if result.type == KV:
                sizes = [s for a in arms if (s := self._size(a)) is not None]
                if len(sizes) == len(arms):
                    self.sizes[result] = Size(max(s.fixed for s in sizes),
                                              max(s.tail for s in sizes))


def _most_tokens(text: str) -> int:
    """How many tokens the text can be at most, whatever text it is part of."""
    return len(text) if text.isascii() else 3 * len(utf8(text))
