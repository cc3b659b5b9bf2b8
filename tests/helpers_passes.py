"""A small evaluator of prompt-, kv- and plan-stage modules: what passes must not change.

No engine: a model call is a hash of the ids before it, its path and its attributes.  Prompts are
lists of spans that are encoded whole at every call; at the kv stage each is also a `Prompt`,
built from what the IR says, and both must agree.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sglc.errors import SglcError
from sglc.ir import compute
from sglc.ir.module import Block, Lit, Module, Op, Operand, Value
from sglc.ir.ops import SAMPLING_ATTRS
from sglc.ir.types import KV
from sglc.passes import PassContext
from sglc.tokens.bytes import ByteTokenizer
from sglc.tokens.prompt import Prompt
from sglc.tokens.templates import ChatTemplate
from sglc.tokens.tokenizer import Encoded, Tokenizer
from tests.reference_calls import Span, encode, text_of

_CHATML = ChatTemplate("chatml-test", "Be brief.", {
    role: (f"<|im_start|>{role}\n", "<|im_end|>\n") for role in ("system", "user", "assistant")})


def make_context(tokenizer: Tokenizer | None = None, **facts: Any) -> PassContext:
    """A context with a tokenizer (bytes by default) and a ChatML template."""
    tokenizer = tokenizer or ByteTokenizer()
    return PassContext(tokenizer=tokenizer, template=_CHATML.bind(tokenizer), **facts)


@dataclass(frozen=True)
class Made:
    """A prompt: its spans, and at the kv stage the value built from encodings."""

    spans: tuple[Span, ...] = ()
    prompt: Prompt | None = None


def _hash(*parts: Any) -> int:
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little")


class Fake:
    """The model.  With stops, a part of the text may be left over after the last token."""

    def __init__(self, tokenizer: Tokenizer, may_stop: bool, max_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.may_stop = may_stop
        self.max_tokens = max_tokens

    def gen(self, ids: list[int], path: Any, attrs: Mapping[str, Any]) -> tuple[Any, str]:
        said = sorted((k, v) for k, v in attrs.items() if k in SAMPLING_ATTRS)
        certain = attrs.get("temperature") == 0 or attrs.get("seed") is not None
        h = _hash("gen", ids, None if certain else path, said)
        words = ("", "a", " the", "12", "yes", " an", "swer\n", "x y")
        text = "".join(words[(h >> (3 * i)) % 8] for i in range(h % 4))
        left = ("", " t", "he", ".")[(h >> 40) % 4] if self.may_stop or attrs.get("stop") else ""
        most = attrs.get("max_tokens") or self.max_tokens
        return tuple(self.tokenizer.encode(text)[:most]), left

    def select(self, ids: list[int], longer: list[list[int]], path: Any, method: Any) -> int:
        return _hash("select", ids, longer, method) % len(longer)


@dataclass
class Outcome:
    """What a program did.  `events`: binds, metas, messages and host calls in order."""

    text: str | None = None
    ids: tuple[int, ...] | None = None
    returned: Any = None
    variables: dict[str, Any] = field(default_factory=dict)
    events: list[Any] = field(default_factory=list)
    calls: Counter[Any] = field(default_factory=Counter)
    error: str | None = None

    def seen(self) -> tuple[Any, ...]:
        """All that a caller can see."""
        return (self.text, self.ids, self.returned, self.variables, self.events, self.error)


def evaluate(module: Module, args: Mapping[str, Any] | None = None,
             context: PassContext | None = None, program: str | None = None) -> Outcome:
    """Run one program (the first by default) of a module at any stage."""
    context = context or make_context()
    chosen = module.programs[program] if program else next(iter(module.programs.values()))
    assert context.tokenizer is not None
    machine = _Machine(context)
    for arg in chosen.args:
        machine.values[arg] = (args or {})[arg.name]
    out = machine.out
    try:
        (last, *more) = machine.block(chosen.body)
        out.text = text_of(context.tokenizer, last.spans)
        out.ids = tuple(machine.ids(last))
        out.returned = [machine.plain(v) for v in more]
    except (ValueError, TypeError, IndexError, KeyError, ZeroDivisionError) as error:
        if isinstance(error, SglcError):
            raise
        out.error = type(error).__name__
    return out


class _Machine:
    def __init__(self, context: PassContext) -> None:
        assert context.tokenizer is not None
        self.tokenizer = context.tokenizer
        self.template = context.template
        self.fake = Fake(context.tokenizer, context.may_stop, context.max_tokens or 16)
        self.values: dict[Value, Any] = {}
        self.released: set[Value] = set()
        self.out = Outcome()

    def get(self, operand: Operand) -> Any:
        if isinstance(operand, Lit):
            return operand.value
        assert operand not in self.released, f"{operand} is released"
        return self.values[operand]

    def ids(self, made: Made) -> list[int]:
        ids = encode(self.tokenizer, made.spans)
        if made.prompt is not None:
            assert made.prompt.token_ids().tolist() == ids, (made.spans, made.prompt)
        return ids

    def plain(self, value: Any) -> Any:
        if isinstance(value, Made):
            return text_of(self.tokenizer, value.spans), tuple(self.ids(value))
        return [self.plain(v) for v in value] if isinstance(value, list) else value

    def block(self, block: Block) -> list[Any]:
        for op in block.ops[:-1]:
            results = self.op(op)
            assert len(results) == len(op.results), op
            self.values.update(zip(op.results, results, strict=True))
        last = block.ops[-1].operands
        if any(op.name == "kv.release" for op in block.ops):
            kept = {r for op in block.ops for r in op.results if r.type == KV}
            assert kept - self.released <= set(last), "not released"
        return [self.get(o) for o in last]

    def op(self, op: Op) -> list[Any]:
        dialect, _, short = op.name.partition(".")
        if op.name == "plan.issue":
            self.check_bound(op)
        if op.regions and dialect == "plan":
            return self.block(op.regions[0])
        args = [self.get(o) for o in op.operands]
        if short in ("gen", "decode", "select", "score", "if", "switch", "append", "extend"):
            method = {"decode": "gen", "score": "select", "switch": "if_"}.get(short, short)
            return getattr(self, "if_" if short == "if" else method)(op, args)
        return self.simple(op, short, args, dialect)

    def check_bound(self, issue: Op) -> None:
        """The call's sequences are no more tokens than its bound says."""
        (call, _) = issue.regions[0].ops
        made, *choices = [self.get(o) for o in call.operands]
        before = self.ids(made)
        if call.name == "kv.decode":
            tokens = len(before) + len(self.fake.gen(before, call.attrs["path"], call.attrs)[0])
        else:
            rows = [self.ids(Made((*made.spans, c))) for c in choices]
            tokens = len({tuple(row[:n + 1]) for row in rows for n in range(len(row))})
        assert tokens <= issue.attrs.get("bound", tokens), (tokens, issue)

    def simple(self, op: Op, short: str, args: list[Any], dialect: str) -> list[Any]:
        attrs, events = op.attrs, self.out.events
        match short:
            case "root":
                return [Made((), Prompt.empty(self.tokenizer) if dialect == "kv" else None)]
            case "special":
                return [self.special(args[0], attrs["token"])]
            case "role_begin" | "role_end":
                side = self.template.open if short == "role_begin" else self.template.close
                made = args[0]
                for piece in side(tuple(attrs.get("history", ())), attrs["role"]):
                    made = (self.longer(made, piece) if isinstance(piece, str)
                            else self.special(made, piece.name))
                return [made]
            case "fork":
                return [args[0]] * attrs["size"]
            case "join":
                made, base, *children = args
                for child in children if attrs["mode"] == "concate_and_append" else ():
                    made = self.concat(made, child, base)
                return [made]
            case "concat":
                return [self.concat(*args)]
            case "ids":
                return [Encoded(attrs["text"], array("q", attrs["ids"]), attrs["held"],
                                attrs.get("after", ""))]
            case "encode":
                return [args[0].prompt.encoded(args[1])]
            case "text":
                return [text_of(self.tokenizer, args[0].spans)]
            case "span":
                return [self.since(args[1], args[0])]
            case "format":
                return [compute.run_format(attrs["parts"], args)]
            case "compute":
                return [compute.function(attrs["fn"])(*args)]
            case "list":
                return [list(args)]
            case "bind":
                self.out.variables[attrs["name"]] = self.plain(args[0])
                events.append(("bind", attrs["name"], self.plain(args[0])))
                return []
            case "meta":
                events.append(("meta", attrs["name"], args[0]))
                return []
            case "message":
                events.append(("message", attrs["role"], self.since(args[1], args[0])))
                return []
            case "host":
                shown = [self.plain(a) for a in args]
                events.append(("host", attrs["fn"], shown))
                h = _hash("host", attrs["fn"], shown)
                return [("h" + str(h % 100)) for _ in op.results]
            case "release":
                assert isinstance(op.operands[0], Value)
                self.released.add(op.operands[0])
                return []
            case "pin" | "await" | "prefill":
                return []
        raise AssertionError(f"unknown op {op.name}")

    def longer(self, made: Made, text: str) -> Made:
        return Made((*made.spans, text), made.prompt) if text else made

    def special(self, made: Made, name: str) -> Made:
        token = self.tokenizer.special[name]
        prompt = made.prompt and made.prompt.special(token)
        if not made.spans and token == self.tokenizer.bos_id:
            return Made((), prompt)
        return Made((*made.spans, token), prompt)

    def append(self, op: Op, args: list[Any]) -> list[Any]:
        return [self.longer(args[0], args[1])]

    def extend(self, op: Op, args: list[Any]) -> list[Any]:
        made, piece = args
        return [Made(self.longer(made, piece.text).spans, made.prompt.append_encoded(piece))]

    def since(self, end: Made, begin: Made) -> str:
        n = len(begin.spans)
        assert end.spans[:n] == begin.spans
        return text_of(self.tokenizer, end.spans[n:])

    def concat(self, parent: Made, child: Made, base: Made) -> Made:
        n = len(base.spans)
        assert child.spans[:n] == base.spans
        prompt = None
        if parent.prompt is not None and child.prompt is not None and base.prompt is not None:
            prompt = parent.prompt.append_since(child.prompt, base.prompt)
        return Made(parent.spans + child.spans[n:], prompt)

    def gen(self, op: Op, args: list[Any]) -> list[Any]:
        (made,) = args
        before = self.ids(made)
        self.out.calls["gen", tuple(before), op.attrs["path"]] += 1
        ids, left = self.fake.gen(before, op.attrs["path"], op.attrs)
        text = self.tokenizer.decode(ids)
        prompt = made.prompt and made.prompt.generated(ids, text).append(left)
        spans = (*made.spans, ids, left) if left else (*made.spans, ids)
        return [Made(spans, prompt), text + left, ("meta", len(before), len(ids))]

    def select(self, op: Op, args: list[Any]) -> list[Any]:
        made, *choices = args
        before = self.ids(made)
        options = [Made((*made.spans, c), made.prompt and made.prompt.append(c))
                   for c in choices]
        self.out.calls["select", tuple(before), op.attrs["path"], tuple(choices)] += 1
        best = self.fake.select(before, [self.ids(o) for o in options], op.attrs["path"],
                                op.attrs.get("method"))
        return [options[best], choices[best], ("scores", len(before), best)]

    def if_(self, op: Op, args: list[Any]) -> list[Any]:
        predicate, *inner = args
        if op.name == "prompt.if":
            region = op.regions[0 if predicate else 1]
        else:
            by_label = {r.label: r for r in op.regions}
            region = by_label.get(predicate) or by_label["default"]
        self.values.update(zip(region.args, inner, strict=True))
        return self.block(region)
