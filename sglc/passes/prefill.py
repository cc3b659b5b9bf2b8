"""How many distinct constant tokens a program's model calls have in front of them.

A trie over what stands before each call: tokens of literal text and control tokens, and between
them opaque nodes for what is known at run time only.  Its tokens are what must be prefilled at
least once an instance (arms of branches all counted).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from sglc.ir.module import Block, Lit, Module, Op, Operand, Value
from sglc.passes.facts import BRANCHES, is_call
from sglc.tokens.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Prefill:
    """A number of tokens; `exact` unless text known only at run time stands before a call."""

    tokens: int
    exact: bool

    def __str__(self) -> str:
        return f"{'=' if self.exact else '~'} {self.tokens} tok"


@dataclass(frozen=True, slots=True)
class _Position:
    """A node of the trie, and text of the open run that is not in the trie yet."""

    node: int
    text: str
    first: bool
    exact: bool


@dataclass(slots=True)
class PrefillCounter:
    """Counts; encodings are kept from one module to the next."""

    tokenizer: Tokenizer
    _encoded: dict[tuple[str, bool], list[int]] = field(default_factory=dict)

    def count(self, module: Module) -> Prefill:
        trie = _Trie(self)
        for program in module.programs.values():
            trie.visit(program.body)
        return Prefill(trie.tokens, trie.exact)

    def encode(self, text: str, first: bool) -> list[int]:
        key = (text, first)
        if key not in self._encoded:
            self._encoded[key] = self.tokenizer.encode(text, first)
        return self._encoded[key]


class _Trie:
    def __init__(self, counter: PrefillCounter) -> None:
        self.counter = counter
        self.children: dict[tuple[int, Hashable], int] = {}
        self.at: dict[Value, _Position] = {}
        self.tokens = 0
        self.exact = True

    def visit(self, block: Block) -> None:
        for op in block.ops:
            for region in op.regions:
                self.visit(region)
            if is_call(op):
                self._call(op)
            elif op.name in BRANCHES or op.name in ("plan.issue", "plan.group"):
                self._handed_on(op)
            elif op.results and op.results[0].type.name in ("prompt", "kv"):
                self.at[op.results[0]] = self._longer(op)

    def _position(self, operand: Operand) -> _Position:
        known = self.at.get(operand) if isinstance(operand, Value) else None
        return known or _Position(self._step(0, ("value", id(operand))), "", False, False)

    def _longer(self, op: Op) -> _Position:
        if op.name in ("prompt.root", "kv.root"):
            bos = self.counter.tokenizer.bos_id
            return _Position(self._step(0, bos) if bos is not None else 0, "", True, True)
        before = self._position(op.operands[0])
        if op.name in ("prompt.special", "kv.special"):
            return _Position(self._step(self._flush(before), ("token", op.attrs["token"])),
                             "", False, before.exact)
        text = _text(op)
        if isinstance(text, str):
            return _Position(before.node, before.text + text, before.first, before.exact)
        opaque = text if isinstance(text, Value) else op.results[0]
        return _Position(self._step(self._flush(before), ("value", id(opaque))), "", False, False)

    def _call(self, op: Op) -> None:
        before = self._position(op.operands[0])
        node = self._flush(before)
        self.exact &= before.exact
        for choice in op.operands[1:]:
            if isinstance(choice, Lit):
                self._flush(_Position(before.node, before.text + choice.value, before.first,
                                      before.exact))
        # Text after a gen may follow what a stop string cut off: not exact.
        self.at[op.results[0]] = _Position(self._step(node, ("call", op.attrs["path"])), "",
                                           False, False)

    def _handed_on(self, op: Op) -> None:
        for result in op.results:
            ends = [r.terminator.operands[result.index] for r in op.regions if r.terminator]
            if result.type.name in ("prompt", "kv"):
                same = len(ends) == 1 and ends[0] in self.at
                self.at[result] = (self._position(ends[0]) if same else _Position(
                    self._step(0, ("value", id(result))), "", False, False))

    def _flush(self, position: _Position) -> int:
        node = position.node
        if position.text:
            for token in self.counter.encode(position.text, position.first):
                node = self._step(node, token)
        return node

    def _step(self, node: int, element: Hashable) -> int:
        """The child of `node` by a token (an id, or a control token) or an opaque element."""
        child = self.children.get((node, element))
        if child is None:
            child = self.children[node, element] = len(self.children) + 1
            if isinstance(element, int) or (isinstance(element, tuple)
                                            and element[0] == "token"):
                self.tokens += 1
        return child


def _text(op: Op) -> str | Value | None:
    """The text that the op adds: a literal one, a value, or None for other ops."""
    if op.name == "prompt.append":
        text = op.operands[1]
    elif op.name == "kv.extend" and isinstance(op.operands[1], Value):
        source = op.operands[1].op
        if source is not None and source.name == "kv.ids":
            return str(source.attrs["text"])
        if source is None or source.name != "kv.encode":
            return None
        text = source.operands[1]
    else:
        return None
    return text.value if isinstance(text, Lit) else text
