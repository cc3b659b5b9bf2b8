"""How many distinct constant tokens a program's model calls have in front of them.

A trie over what stands before each call: tokens of literal text and control tokens, and between
them opaque nodes for what is known at run time only.  Its tokens are what must be prefilled at
least once an instance (arms of branches all counted).  With the arguments of a batch's rows, text
made of them is known too, and the rows share one trie.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sglc.errors import SglcError
from sglc.ir import compute
from sglc.ir.module import Block, Lit, Module, Op, Operand, Value
from sglc.ir.signatures import LOOPS
from sglc.passes.facts import BRANCHES, is_call
from sglc.tokens.images import place_image
from sglc.tokens.tokenizer import Tokenizer

_ITEMS = ("prompt.item", "kv.item")


@dataclass(frozen=True, slots=True)
class Prefill:
    """A number of tokens; `exact` unless text known only at run time stands before a call."""

    tokens: int
    exact: bool

    def __str__(self) -> str:
        return f"{'=' if self.exact else '~'} {self.tokens} tok"


@dataclass(frozen=True, slots=True)
class BatchPrefill:
    """Tokens of a batch's prompts.  unique: each prefix once; alone: each row by itself;
    exact: as for `Prefill`."""

    unique: int
    alone: int
    exact: bool

    @property
    def mark(self) -> str:
        return "=" if self.exact else "~"


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

    def count_rows(self, rows: Iterable[tuple[Module, Mapping[str, Any]]],
                   batch: Mapping[str, int] | None = None) -> BatchPrefill:
        """The distinct tokens of the prompts of many instances.

        rows: for each the module that runs it and its arguments, by their IR names.  batch: what
        orders their bags, if that is known (see `ir/bags.py`).
        """
        trie = _Trie(self)
        trie.batch = batch
        alone = 0
        for module, arguments in rows:
            trie.begin_row(arguments)
            for program in module.programs.values():
                trie.begin_program(program.args)
                trie.visit(program.body)
            alone += len(trie.touched)
        return BatchPrefill(trie.tokens, alone, trie.exact)

    def encode(self, text: str, first: bool) -> list[int]:
        key = (text, first)
        if key not in self._encoded:
            self._encoded[key] = self.tokenizer.encode(text, first)
        return self._encoded[key]


class _Trie:
    """row: which instance is counted; touched: its tokens; known: values that its arguments give;
    at: where its prompts stand."""

    def __init__(self, counter: PrefillCounter) -> None:
        self.counter = counter
        self.children: dict[tuple[int, Hashable], int] = {}
        self.tokens = 0
        self.exact = True
        self.row = 0
        self.arguments: Mapping[str, Any] = {}
        self.at: dict[Value, _Position] = {}
        self.known: dict[Value, Any] = {}
        self.touched: set[int] = set()
        self.batch: Mapping[str, int] | None = None
        self.lists: dict[Value, list[Value]] = {}  # what loops collected
        self.rounds: list[int] = []  # of the loops around

    def begin_row(self, arguments: Mapping[str, Any]) -> None:
        self.row += 1
        self.arguments = arguments
        self.at, self.known, self.touched = {}, {}, set()
        self.lists, self.rounds = {}, []

    def begin_program(self, args: Iterable[Value]) -> None:
        self.known.update({a: self.arguments[a.name] for a in args if a.name in self.arguments})

    def visit(self, block: Block) -> None:
        for op in block.ops:
            if op.name in LOOPS:
                self._loop(op)
                continue
            if (op.name in _ITEMS or op.attrs.get("fn") == "getitem") and self._item(op):
                continue
            regions = self._taken(op)
            for region in regions:
                self.visit(region)
            if is_call(op):
                self._call(op)
            elif op.name in BRANCHES or op.name in ("plan.issue", "plan.group"):
                self._handed_on(op, regions)
            elif op.results and op.results[0].type.name in ("prompt", "kv"):
                self.at[op.results[0]] = self._longer(op)
            elif self.known and len(op.results) == 1:
                self._compute(op)

    def _loop(self, op: Op) -> None:
        """All rounds where the row's arguments say how many; else one, which is not exact."""
        region, end = op.regions[0], op.regions[0].terminator
        carried = list(op.operands[1:])
        if end is None:
            return
        known = self._is_known(op.operands[0])
        self.exact &= known
        lists: list[list[Value]] = [[] for _ in op.results[len(carried):]]
        ends: list[Operand] = carried
        for i in range(self._value(op.operands[0]) if known else 1):
            self.rounds.append(i)
            handed = [self._kept(o) for o in ends[: len(carried)]]
            for inner in region.walk():
                for result in inner.results:
                    self.known.pop(result, None)
                    self.at.pop(result, None)
                    self.lists.pop(result, None)
            if known:
                self.known[region.args[0]] = i
            for arg, value in zip(region.args[1:], handed, strict=True):
                self.known.pop(arg, None)
                self.at.pop(arg, None)
                self._same(arg, value)
            self.visit(region)
            ends = list(end.operands)
            for items, last in zip(lists, ends[len(carried):], strict=True):
                items.append(self._kept(last))
            self.rounds.pop()
        for result, last in zip(op.results[: len(carried)], ends, strict=False):
            self._same(result, self._kept(last))
        self.lists.update(zip(op.results[len(carried):], lists, strict=True))

    def _kept(self, operand: Operand) -> Value:
        """A value of its own that is what `operand` is now."""
        out = Value(operand.type, Block(), 0)
        self._same(out, operand)
        return out

    def _item(self, op: Op) -> bool:
        """A known item of a list that a loop collected; whether it is one."""
        collected = op.operands[0]
        items = self.lists.get(collected) if isinstance(collected, Value) else None
        number = self._value(op.operands[1]) if self._is_known(op.operands[1]) else None
        if items is None or type(number) is not int or not -len(items) <= number < len(items):
            return False
        self._same(op.results[0], items[number])
        return True

    def _taken(self, op: Op) -> tuple[Block, ...]:
        """The regions of an op that may run in this row."""
        if op.name in BRANCHES:
            for region in op.regions:
                for arg, value in zip(region.args, op.operands[1:], strict=True):
                    self._same(arg, value)
            if op.name == "prompt.if" and self._is_known(op.operands[0]):
                return (op.regions[0 if self._value(op.operands[0]) else 1],)
        return op.regions

    def _compute(self, op: Op) -> None:
        if op.name == "prompt.batch" and self.batch is not None:
            self.known[op.results[0]] = self.batch
            return
        if op.name == "prompt.batch" or not all(self._is_known(o) for o in op.operands):
            return
        values = [self._value(o) for o in op.operands]
        try:
            if op.name == "prompt.format":
                self.known[op.results[0]] = compute.run_format(op.attrs["parts"], values)
            elif op.name == "prompt.compute":
                self.known[op.results[0]] = compute.function(op.attrs["fn"])(*values)
            elif op.name == "prompt.list":
                self.known[op.results[0]] = values
        except Exception:
            return  # the row will raise there

    def _is_known(self, operand: Operand) -> bool:
        return isinstance(operand, Lit) or operand in self.known

    def _value(self, operand: Operand) -> Any:
        return operand.value if isinstance(operand, Lit) else self.known[operand]

    def _same(self, value: Value, other: Operand) -> None:
        if self._is_known(other):
            self.known[value] = self._value(other)
        if isinstance(other, Value) and other in self.at:
            self.at[value] = self.at[other]

    def _position(self, operand: Operand) -> _Position:
        known = self.at.get(operand) if isinstance(operand, Value) else None
        return known or _Position(self._step(0, self._opaque(operand)), "", False, False)

    def _opaque(self, operand: object) -> Hashable:
        return "value", id(operand), self.row

    def _longer(self, op: Op) -> _Position:
        if op.name in ("prompt.root", "kv.root"):
            bos = self.counter.tokenizer.bos_id
            return _Position(self._step(0, bos) if bos is not None else 0, "", True, True)
        before = self._position(op.operands[0])
        if op.name in ("prompt.special", "kv.special"):
            return _Position(self._step(self._flush(before), ("token", op.attrs["token"])),
                             "", False, before.exact)
        if op.name in ("prompt.image", "kv.image"):
            return self._image(op, before)
        text = _text(op)
        if isinstance(text, Value) and isinstance(self.known.get(text), str):
            text = str(self.known[text])
        if isinstance(text, str):
            return _Position(before.node, before.text + text, before.first, before.exact)
        opaque = text if isinstance(text, Value) else op.results[0]
        return _Position(self._step(self._flush(before), self._opaque(opaque)), "", False, False)

    def _image(self, op: Op, before: _Position) -> _Position:
        """An image's positions, where it is known and the model has vision."""
        node, source = self._flush(before), op.operands[1]
        if self._is_known(source) and self.row and self.counter.tokenizer.images is not None:
            try:
                placed = place_image(self.counter.tokenizer, self._value(source))
            except SglcError:  # the row will raise there
                return _Position(node, "", False, False)
            for token in placed.ids:
                node = self._step(node, token)
            return _Position(node, "", False, before.exact)
        opaque = source if isinstance(source, Value) else op.results[0]
        return _Position(self._step(node, self._opaque(opaque)), "", False, False)

    def _call(self, op: Op) -> None:
        before = self._position(op.operands[0])
        node = self._flush(before)
        self.exact &= before.exact
        for choice in op.operands[1:]:
            text = self._value(choice) if self._is_known(choice) else None
            if isinstance(text, str):
                self._flush(_Position(before.node, before.text + text, before.first, before.exact))
        # Text after a gen may follow what a stop string cut off: not exact.
        self.at[op.results[0]] = _Position(
            self._step(node, ("call", op.attrs["path"], *self.rounds, self.row)), "", False,
            False)

    def _handed_on(self, op: Op, regions: tuple[Block, ...]) -> None:
        for result in op.results:
            ends = [r.terminator.operands[result.index] for r in regions if r.terminator]
            if len(ends) == 1:
                self._same(result, ends[0])
            if result.type.name in ("prompt", "kv") and result not in self.at:
                self.at[result] = _Position(self._step(0, self._opaque(result)), "", False, False)

    def _flush(self, position: _Position) -> int:
        node = position.node
        if position.text:
            for token in self.counter.encode(position.text, position.first):
                node = self._step(node, token)
        return node

    def _step(self, node: int, element: Hashable) -> int:
        """The child of `node` by a token (an id, or a control token) or an opaque element."""
        child = self.children.get((node, element))
        is_token = isinstance(element, int) or (isinstance(element, tuple)
                                                and element[0] == "token")
        if child is None:
            child = self.children[node, element] = len(self.children) + 1
            self.tokens += is_token
        if is_token and self.row:
            self.touched.add(child)
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
