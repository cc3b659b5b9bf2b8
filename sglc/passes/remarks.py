"""Remarks on a program: what it keeps the compiler from doing, with the amount, and odd texts.

An analysis of the traced module: it changes nothing.  Amounts are exact (=) with a tokenizer and
estimates (~, four bytes a token) without one or with the byte tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sglc.errors import Diagnostic, Place
from sglc.ir.module import Lit, Module, Op, Operand, Program, Value
from sglc.ir.signatures import CHAINS, offsets
from sglc.passes.base import PassContext
from sglc.passes.choice_remarks import ruled_out
from sglc.passes.eliminate_dead import dead_calls
from sglc.passes.facts import blocks_of
from sglc.passes.fork_order import waiting_forks
from sglc.passes.manager import PassManager
from sglc.tokens.bytes import ByteTokenizer
from sglc.tokens.text import lookalikes
from sglc.tokens.tokenizer import Tokenizer

LEAST_SHARED = 16  # constant tokens behind an argument that are worth a remark
LENGTH_RATIO, LENGTH_GAP = 3, 4  # of the longest choice to the shortest, in tokens


def remarks(module: Module, context: PassContext | None = None) -> list[Diagnostic]:
    """SGLC4xx, and SGLC301 and 330, about a traced module, in order of their places.

    context: the tokenizer, the number of rows and the run's `max_tokens`, as far as known.
    """
    context = context or PassContext()
    functional = PassManager(
        "functionalize,hoist-prefixes,fold,hoist-prefixes", verify=False).run(module, context)
    count = _Count(context.tokenizer)
    found: list[Diagnostic] = []
    for program in module.programs.values():
        found += _serial_forks(program)
    for program in functional.programs.values():
        found += _split_constants(program, count, context.rows)
        found += _repeated_calls(program, context)
        found += _unused_calls(program, context)
        found += _choices(program, count)
        found += ruled_out(program, context)
        found += _control_names(program, context.tokenizer)
    unique = {(d.code, d.what, d.place): d for d in found}
    return sorted(unique.values(), key=lambda d: (
        (d.place.file, d.place.line, d.place.col) if d.place else ("", 0, 0), d.code))


@dataclass(frozen=True, slots=True)
class _Count:
    """Counts tokens of texts."""

    tokenizer: Tokenizer | None

    @property
    def exact(self) -> bool:
        return self.tokenizer is not None and not isinstance(self.tokenizer, ByteTokenizer)

    @property
    def mark(self) -> str:
        return "=" if self.exact else "~"

    def __call__(self, text: str) -> int:
        if self.exact and self.tokenizer is not None:
            return len(self.tokenizer.encode(text))
        return -(-len(text.encode("utf-8", "replace")) // 4)


# --- SGLC401 -----------------------------------------------------------------------------------

def _split_constants(program: Program, count: _Count, rows: int) -> Iterator[Diagnostic]:
    sources = _Sources(program)
    for op in program.walk():
        if op.name != "prompt.append" or not sources.is_constant(op.operands[0]):
            continue
        names = sources.arguments(op.operands[1])
        if not names:
            continue
        behind = sum(count(_literal(inner)) for inner in _behind(op))
        if behind < LEAST_SHARED:
            continue
        which = " and ".join(names)
        stand = "stands" if len(names) == 1 else "stand"
        total = f" ({count.mark} {behind * (rows - 1)} tokens in {rows} rows)" if rows > 1 else ""
        yield Diagnostic(
            "SGLC401", f"{which} {stand} before {count.mark} {behind} constant tokens, which "
            "rows cannot share", op.loc,
            "rows share a prompt only up to the first text in which they differ",
            f"the tokens are computed for every row instead of once{total}",
            (f"put the constant text first, and {which} behind it",))


def _literal(op: Op) -> str:
    text = op.operands[1]
    return text.value if isinstance(text, Lit) else ""


def _behind(op: Op) -> Iterator[Op]:
    """The literal appends after an append, up to a model call or the end of the message."""
    todo = [op]
    while todo:
        for user in todo.pop().results[0].uses:
            if user.name == "prompt.append":
                if isinstance(user.operands[1], Lit):
                    yield user
                todo.append(user)


class _Sources:
    """Where values come from: constants, arguments (by name), or the model and the host."""

    def __init__(self, program: Program) -> None:
        self._names: dict[Value, frozenset[str] | None] = {
            a: frozenset([a.name]) for a in program.args}
        self._constant: set[Value] = set()
        for op in program.walk():
            known = [self._of(o) for o in op.operands]
            names: frozenset[str] | None = None
            if op.name in ("prompt.format", "prompt.compute", "prompt.list") and None not in known:
                names = frozenset().union(*[k for k in known if k is not None])
            for result in op.results:
                self._names[result] = names
            if op.name == "prompt.root" or (
                    op.name in CHAINS and len(op.results) == 1 and self.is_constant(op.operands[0])
                    and all(isinstance(o, Lit) for o in op.operands[1:])):
                self._constant.update(op.results)

    def _of(self, operand: Operand) -> frozenset[str] | None:
        return frozenset() if isinstance(operand, Lit) else self._names.get(operand)

    def arguments(self, operand: Operand) -> list[str]:
        """The arguments that a value is made of; none if it needs the model or the host."""
        return sorted(self._of(operand) or ())

    def is_constant(self, operand: Operand) -> bool:
        """Whether a prompt is the same in all rows."""
        return operand in self._constant


# --- SGLC404, SGLC412 --------------------------------------------------------------------------

def _repeated_calls(program: Program, context: PassContext) -> Iterator[Diagnostic]:
    dead = set(dead_calls(program))
    for block in blocks_of(program):
        groups: dict[tuple[object, ...], list[Op]] = {}
        for op in block.ops:
            if (op.name != "prompt.gen" or op in dead or "seed" in op.attrs
                    or op.attrs.get("temperature") == 0):
                continue
            asked = sorted((k, repr(v)) for k, v in op.attrs.items() if k not in ("path", "name"))
            groups.setdefault((op.operands[0], *asked), []).append(op)
        for same in groups.values():
            if len(same) < 2:
                continue
            temperature = same[0].attrs.get("temperature")
            at = "the run's temperature" if temperature is None else f"temperature {temperature}"
            more = len(same) - 1
            yield Diagnostic(
                "SGLC404", f"{_called(same)} continue the same prompt in the same way and are not "
                "merged", same[1].loc, f"with {at} each may say something else",
                f"{_calls(more)} more{_tokens(same[1:], context)}",
                ("give temperature=0 or the same seed=, and they are one",
                 f"for several samples, say so: gen(n={len(same)}) prefills once"))


def _unused_calls(program: Program, context: PassContext) -> Iterator[Diagnostic]:
    groups: dict[tuple[Place | None, object], list[Op]] = {}
    for op in dead_calls(program):
        groups.setdefault((op.loc, op.attrs.get("name")), []).append(op)
    for same in groups.values():
        one = len(same) == 1
        yield Diagnostic(
            "SGLC412", f"{_called(same)} {'is' if one else 'are'} never used", same[0].loc,
            f"no output, read or later text needs {'it' if one else 'them'}",
            f"left out at -O1 and up; otherwise made for nothing: {_calls(len(same))}"
            f"{_tokens(same, context)}",
            ("read the result, or join the fork", "remove the generation"))


def _called(ops: list[Op]) -> str:
    kinds = {op.name.partition(".")[2] for op in ops}
    names = list(dict.fromkeys(op.attrs.get("name") for op in ops))
    said = ", ".join([f'"{n}"' for n in names if n is not None])
    kind = kinds.pop() if len(kinds) == 1 else "call"
    many = f"{len(ops)} {kind}s" if len(ops) > 1 else f"the {kind}"
    return f"{many} {said}" if said else many


def _calls(n: int) -> str:
    return "= 1 model call" if n == 1 else f"= {n} model calls"


def _tokens(ops: Iterable[Op], context: PassContext) -> str:
    """What the calls generate at most, where that is known."""
    most = [op.attrs.get("max_tokens", context.max_tokens) for op in ops if op.name == "prompt.gen"]
    if not most or None in most:
        return ""
    return f", <= {sum(m for m in most if m is not None)} tokens"


# --- SGLC420, SGLC330, SGLC301 -----------------------------------------------------------------

def _choices(program: Program, count: _Count) -> Iterator[Diagnostic]:
    for op in program.walk():
        if op.name != "prompt.select":
            continue
        operands = op.operands[1:len(op.operands) - len(offsets(op))]
        choices = [o.value for o in operands if isinstance(o, Lit)]
        if len(choices) < len(operands):
            continue
        name = f'the select "{op.attrs["name"]}"' if op.attrs.get("name") else "a select"
        lengths = [count(c) for c in choices]
        short, long = min(lengths), max(lengths)
        method = op.attrs.get("method", "token_length_normalized")
        if (method == "token_length_normalized" and long >= LENGTH_RATIO * short
                and long - short >= LENGTH_GAP):
            yield Diagnostic(
                "SGLC420", f"the choices of {name} have {count.mark} {short} to {long} tokens, "
                "and its score favours long ones", op.loc,
                "the mean log-probability of a long choice rises with every token that is certain "
                "once the choice has begun",
                fixes=("make the choices alike in length",
                       'use choices_method="greedy_token_selection" or '
                       '"unconditional_likelihood_normalized"'))
        if count.tokenizer is not None:
            yield from _colliding(op, name, choices, count.tokenizer)


def _colliding(op: Op, name: str, choices: list[str],
               tokenizer: Tokenizer) -> Iterator[Diagnostic]:
    first: dict[tuple[int, ...], str] = {}
    for choice in choices:
        other = first.setdefault(tuple(tokenizer.encode(choice)), choice)
        if other != choice:
            yield Diagnostic(
                "SGLC330", f"the choices {other!r} and {choice!r} of {name} are the same tokens",
                op.loc, "the tokenizer writes both texts alike",
                "the first of them always wins", ("leave one of them out",))


def _control_names(program: Program, tokenizer: Tokenizer | None) -> Iterator[Diagnostic]:
    tokenizer = tokenizer or ByteTokenizer()  # it has the names that most chat models use
    for op in program.walk():
        if op.name in ("prompt.append", "prompt.select"):
            for operand in op.operands[1:]:
                if not (isinstance(operand, Lit) and isinstance(operand.value, str)):
                    continue
                for name in lookalikes(operand.value, tokenizer):
                    yield Diagnostic(
                        "SGLC301", f"{name} in a text is plain characters, not the control token",
                        op.loc, "only templates and special() write control tokens, so that text "
                        "from outside cannot",
                        fixes=(f"write the token: sgl.special({name!r})",
                               "use chat roles: s += sgl.user(...)"))


# --- SGLC430 -----------------------------------------------------------------------------------

def _serial_forks(program: Program) -> Iterator[Diagnostic]:
    for fork, calls in waiting_forks(program).items():
        first = next(iter(calls))
        children = {child for child, _ in calls.values()}
        yield Diagnostic(
            "SGLC430", f"{len(children)} of {len(fork.results)} forks "
            f"{'waits' if len(children) == 1 else 'wait'} for another one", first.loc,
            f"{_called([first])} needs what {_called([calls[first][1]])} of another fork says",
            f"{_calls(len(calls))} {'starts' if len(calls) == 1 else 'start'} later than the "
            "forks would allow",
            ("let each fork build on the text before the fork only",
             "combine results after the forks, not in them"))
