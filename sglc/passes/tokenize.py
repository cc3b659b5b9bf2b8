"""From prompts to token sequences: the prompt dialect becomes the kv dialect.  Preserves text.

Constant text that follows a known open tail becomes `kv.ids`, by doing at compile time exactly
what `Prompt.append` does at run time; other text becomes `kv.encode`.  A tail is known after the
root, control tokens and literals; after a gen only if no stop string can apply to it (what a
stop cuts off belongs to the next run).  Ops that read a prompt's text keep their names.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from sglc.errors import IRError, LanguageError
from sglc.ir.module import Block, Lit, Module, Op, Operand, Program, Value
from sglc.ir.types import IDS, KV, PROMPT, Type
from sglc.passes.base import Pass, PassContext
from sglc.passes.edit import replace, set_ops
from sglc.passes.facts import BRANCHES
from sglc.passes.lower_roles import is_repeated
from sglc.tokens.prompt import Prompt
from sglc.tokens.tokenizer import Tokenizer


class Unknown(Enum):
    """What is known of a prompt whose open tail is not: whether it may be the empty prompt."""

    MAYBE_EMPTY = 0
    NOT_EMPTY = 1


State = Prompt | Unknown
"""A prompt with the right tail and flags (its ids before the tail are not those at run time)."""

_RENAMED = {"prompt.root": "kv.root", "prompt.gen": "kv.decode", "prompt.select": "kv.score",
            "prompt.concat": "kv.concat", "prompt.item": "kv.item",
            "prompt.image": "kv.image",
            "prompt.role_begin": "kv.role_begin", "prompt.role_end": "kv.role_end"}
_LOWERED_BEFORE = {"prompt.fork": "functionalize", "prompt.join": "functionalize",
                   "prompt.image": "lower-roles",
                   "prompt.role_begin": "lower-roles", "prompt.role_end": "lower-roles"}


@dataclass(frozen=True)
class Tokenize(Pass):
    """Lower prompts to token sequences; needs a tokenizer."""

    name: ClassVar[str] = "tokenize"

    def run(self, module: Module, context: PassContext) -> dict[str, int]:
        if context.tokenizer is None:
            raise IRError("SGLC203", "the pass tokenize needs a tokenizer",
                          fixes=("give a PassContext with a tokenizer", "leave the pass out"))
        stats = {"constants": 0, "runtime_texts": 0, "tokens": 0}
        for program in module.programs.values():
            _Lowering(context.tokenizer, context.may_stop, stats).program(program)
        return stats


class _Lowering:
    def __init__(self, tokenizer: Tokenizer, may_stop: bool, stats: dict[str, int]) -> None:
        self.tokenizer = tokenizer
        # As chat templates see them: added tokens that are not "special" count too.
        self.control = {**getattr(tokenizer, "added", {}), **tokenizer.special}
        self.may_stop = may_stop
        self.stats = stats
        self.states: dict[Value, State] = {}
        # A prompt just after a border; what came before does not matter to what follows.
        self.border = self._tail("", False)

    def program(self, program: Program) -> None:
        _retype(program.args)
        self.block(program.body)

    def block(self, block: Block) -> None:
        out: list[Op] = []
        for op in block.ops:
            if op.name in _LOWERED_BEFORE and not is_repeated(op) and "text" not in op.attrs:
                raise IRError("SGLC203", f"tokenize meets {op.name}", place=op.loc,
                              fixes=(f"run {_LOWERED_BEFORE[op.name]} before it",))
            if op.name == "prompt.append":
                self._append(op, out)
                continue
            if op.name == "prompt.special":
                self._special(op)
            for region in op.regions:
                _retype(region.args)
                self.block(region)
            state = self._result_state(op)
            op.name = _RENAMED.get(op.name, op.name)
            for result in op.results:
                if result.type == PROMPT:
                    self.states[result] = state
            _retype(op.results)
            out.append(op)
        set_ops(block, out)

    def _tail(self, tail: str, first: bool) -> Prompt:
        """A prompt that is not empty and ends in `tail`, without the ids before it."""
        return Prompt(self.tokenizer, array("q"), tail, first, Prompt.empty(self.tokenizer), None)

    def _state(self, operand: Operand) -> State:
        assert isinstance(operand, Value)
        return self.states.get(operand, Unknown.MAYBE_EMPTY)

    def _append(self, op: Op, out: list[Op]) -> None:
        """`prompt.append` becomes an encoding and the `kv.extend` that takes its place."""
        prompt, text = op.operands
        state = self._state(prompt)
        if isinstance(text, Lit) and not text.value:
            replace(op, (prompt,))
            return
        if isinstance(text, Lit) and isinstance(state, Prompt):
            piece = state.encoded(text.value)
            attrs = {"text": piece.text, "ids": tuple(piece.ids), "held": piece.held}
            if piece.after:
                attrs["after"] = piece.after
            encoding = Op("kv.ids", (), attrs, (IDS,), (), op.loc)
            after: State = self._tail(piece.held, state.first and not piece.ids)
            self.stats["constants"] += 1
            self.stats["tokens"] += len(piece.ids)
        else:
            encoding = Op("kv.encode", (prompt, text), None, (IDS,), (), op.loc)
            certain = state is not Unknown.MAYBE_EMPTY and not _is_empty(state)
            literal = isinstance(text, Lit)
            after = Unknown.NOT_EMPTY if certain or literal else Unknown.MAYBE_EMPTY
            self.stats["runtime_texts"] += 1
        out.append(encoding)
        op.name = "kv.extend"
        op.set_operands((prompt, encoding.results[0]))
        _retype(op.results)
        self.states[op.results[0]] = after
        out.append(op)

    def _special(self, op: Op) -> None:
        token = op.attrs["token"]
        if token not in self.control:
            names = ", ".join(sorted(self.control)[:8]) or "none"
            raise LanguageError("SGLC002", f"the tokenizer has no control token {token!r}",
                                place=op.loc, why=f"Its control tokens are: {names}.",
                                fixes=("write it as plain text",))
        op.name = "kv.special"
        op.attrs["id"] = self.control[token]

    def _result_state(self, op: Op) -> State:
        """The state of the op's prompt result (for a branch: of all of them)."""
        if op.name == "prompt.root":
            return Prompt.empty(self.tokenizer)
        if op.name == "kv.special":
            state = self._state(op.operands[0])
            if op.attrs["id"] != self.tokenizer.bos_id:
                return self.border
            # BOS on an empty prompt is not doubled, and no border.
            if _is_empty(state):
                return state
            return self.border if state is not Unknown.MAYBE_EMPTY else state
        if op.name == "prompt.image":
            return self.border
        if op.name == "prompt.gen":
            stops = self.may_stop or any(op.attrs.get(k) for k in ("stop", "stop_regex", "dtype"))
            return Unknown.NOT_EMPTY if stops else self.border
        if op.name == "prompt.select":
            return Unknown.NOT_EMPTY
        if op.name in BRANCHES:
            return self._joined(op)
        return Unknown.MAYBE_EMPTY

    def _joined(self, branch: Op) -> State:
        """What all arms agree on, if the branch has one prompt result."""
        if sum(r.type == PROMPT for r in branch.results) != 1:
            return Unknown.MAYBE_EMPTY
        index = next(r.index for r in branch.results if r.type == PROMPT)
        states = [self._state(last.operands[index]) for region in branch.regions
                  if (last := region.terminator) is not None]
        first = states[0]
        if isinstance(first, Prompt) and first.parent is not None and all(
                isinstance(s, Prompt) and s.parent is not None
                and (s.tail, s.first) == (first.tail, first.first) for s in states):
            return first
        if any(s is Unknown.MAYBE_EMPTY or _is_empty(s) for s in states):
            return Unknown.MAYBE_EMPTY
        return Unknown.NOT_EMPTY


def _is_empty(state: State) -> bool:
    return isinstance(state, Prompt) and state.parent is None


def _retype(values: Sequence[Value]) -> None:
    for value in values:
        value.type = _kv_type(value.type)


def _kv_type(t: Type) -> Type:
    if t == PROMPT:
        return KV
    if t.args and t.name == "list":
        return Type(t.name, tuple(_kv_type(a) if isinstance(a, Type) else a for a in t.args))
    return t
