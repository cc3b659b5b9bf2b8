"""What a posted program may do: no calls of Python, and bounds on every value it can make.

Pure operations on texts can double a text with each step; so before anything runs, the length of
every value is bounded from the row's arguments and the gens' `max_tokens`, and a program whose
bounds pass `MAX_CHARS` is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sglc.backends.sent_images import MARK, image_arguments
from sglc.config import RunOptions
from sglc.ir.module import Block, Lit, Module, Op, Operand, Program, Value
from sglc.ir.signatures import LOOPS
from sglc.runtime.rounds import Rounds
from sglc.serve.problems import Problem
from sglc.serve.requests import MAX_SAMPLES

MAX_OPS = 20_000
MAX_STEPS = 100_000  # ops of a row, loops laid out
MAX_ALL_STEPS = 2_000_000  # of all rows: about five seconds of looking at them
MAX_CHARS = 4_000_000
MAX_PROMPT = 64_000_000
MAX_CALLS = 4096  # gens and selects of a row
_HOST = frozenset(("prompt.host", "prompt.check", "prompt.break"))
_WIDTHS = frozenset(("text.ljust", "text.rjust", "text.center", "text.zfill", "text.expandtabs"))
_SMALL = frozenset(("eq", "ne", "lt", "le", "gt", "ge", "not", "bool", "contains", "len",
                    "is_none", "int", "float", "truediv", "floordiv", "abs", "neg",
                    *(f"text.{n}" for n in (
                        "startswith", "endswith", "isdigit", "isalpha", "isalnum", "isspace",
                        "isupper", "islower", "isnumeric", "isdecimal", "istitle", "isascii",
                        "isidentifier", "isprintable", "find", "rfind", "index", "rindex",
                        "count"))))


def refuse(module: Module) -> Program:
    """The one program of a module that may run here.  Raises Problem 400 for any other."""
    if len(module.programs) != 1:
        raise Problem(400, "the IR must hold exactly one program", param="ir",
                      code="invalid_program")
    program = next(iter(module.programs.values()))
    for count, op in enumerate(program.walk()):
        if count >= MAX_OPS:
            raise Problem(400, f"the program has more than {MAX_OPS} operations", param="ir",
                          code="program_too_large")
        if op.name in _HOST or op.attrs.get("reader", -1) not in (-1, None):
            raise Problem(400, "the program calls Python, which a server does not do; run it "
                          "with a local backend, or without /v1/programs", param="ir",
                          code="host_ops_refused")
        if op.dialect != "prompt":
            raise Problem(400, f"{op.name} is not of the prompt dialect", param="ir",
                          code="invalid_program")
        if op.attrs.get("stop_regex"):
            raise Problem(400, "stop_regex is not taken from requests: matching a pattern of "
                          "this kind can take exponential time", param="ir", code="unsupported")
        if isinstance(n := op.attrs.get("n"), int) and n > MAX_SAMPLES:
            raise Problem(400, f"n is at most {MAX_SAMPLES}", param="ir", code="invalid_value")
    if image_arguments(program) is None:
        raise Problem(400, "images of a posted program are arguments, or items of arguments, that "
                      "are nothing else", param="ir", code="unsupported")
    return program


def with_images(names: Iterable[str], row: Mapping[str, Any], images: Sequence[Any]) -> Any:
    """The row with images where it names them, and nothing else there.  Raises Problem 400."""
    def image(value: Any, name: str) -> Any:
        if isinstance(value, list):
            return [image(v, name) for v in value]
        number = value.get(MARK) if isinstance(value, dict) and len(value) == 1 else None
        if type(number) is not int or not 0 <= number < len(images):
            raise Problem(400, f"the argument {name} is an image, which a row has as "
                          f'{{"{MARK}": its number in images}}', param="rows",
                          code="invalid_value")
        return images[number]

    return {**row, **{n: image(row[n], n) for n in names if n in row}}


def logprobs_of(program: Program, options: RunOptions, context: int) -> int:
    """How many log-probabilities a gen of a program has at most."""
    most = 0
    for op in program.walk():
        if op.name == "prompt.gen":
            def said(name: str, op: Op = op) -> Any:
                value = op.attrs.get(name)
                return getattr(options, name) if value is None else value

            top = said("top_logprobs_num")
            if top or said("return_logprob"):
                most = max(most, said("n") * min(said("max_tokens"), context) * (1 + top))
    return most


class Bounds:
    """Bounds the lengths of all values of one row (characters, or items and their characters).

    widest: bytes of the tokenizer's longest token.
    """

    def __init__(self, program: Program, arguments: Mapping[str, Any], options: RunOptions,
                 widest: int, context: int) -> None:
        self._rounds = Rounds(program, arguments)
        self._options = options
        self._token = widest
        self._context = context
        self._of: dict[Value, int] = {
            a: len(json.dumps(arguments.get(a.name), default=_as_text)) + 8
            for a in program.args}
        self.steps = 0  # operations, loops laid out
        self.calls = 0  # gens and selects that the row makes at most
        self._block(program.body)

    def _block(self, block: Block) -> list[int]:
        for op in block.ops:
            self.steps += 1
            if self.steps > MAX_STEPS:
                raise _too_large(f"a row takes more than {MAX_STEPS} operations")
            if op.name in ("prompt.yield", "prompt.return"):
                return [self._size(o) for o in op.operands]
            if op.name in LOOPS:
                self._loop(op)
            elif (size := self._op(op)) is not None:
                for result in op.results:
                    self._set(op, result, size)
        return []

    def _set(self, op: Op, result: Value, size: int) -> None:
        """Note a bound.  Prompts share their parts, and are no text before they are read."""
        most = MAX_PROMPT if result.type.name == "prompt" else MAX_CHARS
        if size > most:
            raise _too_large(f"a value of {op.name} can have {size} characters")
        self._of[result] = size

    def _size(self, operand: Operand) -> int:
        if isinstance(operand, Lit):
            return len(str(operand.value)) + 8
        return self._of[operand]

    def _loop(self, op: Op) -> None:
        body = op.regions[0]
        carried = [self._size(o) for o in op.operands[1:]]
        collected = [8] * (len(op.results) - len(carried))
        rounds = 0
        for _ in self._rounds.of(op):
            rounds += 1
            for arg, size in zip(body.args, [20, *carried], strict=False):
                self._of[arg] = size
            out = self._block(body)
            carried = out[:len(carried)] if op.name == "prompt.for" else carried
            fresh = out[-len(collected):] if collected else []
            collected = [a + b + 2 for a, b in zip(collected, fresh, strict=True)]
        for result, size in zip(op.results, [*carried, *collected], strict=True):
            self._set(op, result, size)

    def _op(self, op: Op) -> int | None:
        sizes = [self._size(o) for o in op.operands]
        total = sum(sizes) + 8
        if op.regions:  # a branch: any arm may run
            arms = [self._arm(r) for r in op.regions]
            for i, result in enumerate(op.results):
                size = max((arm[i] for arm in arms if i < len(arm)), default=8)
                self._set(op, result, size)
            return None
        if op.name in ("prompt.gen", "prompt.select"):
            self._call(op)
            if op.name == "prompt.select":
                return total
            given = op.attrs.get("max_tokens")
            most = min(self._context, self._options.max_tokens if given is None else given)
            n = op.attrs.get("n") or self._options.n
            text = n * (most * self._token + 8)
            if len(op.results) == 3:
                for result, size in zip(op.results, (sizes[0] + text, text, 8), strict=True):
                    self._set(op, result, size)
                return None
            return total + text
        if op.name == "prompt.compute":
            return self._compute(op, sizes)
        if op.name == "prompt.format":
            return self._format(op, sizes)
        if op.name in ("prompt.role_begin", "prompt.role_end"):
            return total + 4096  # the template's text
        if op.name == "prompt.bag":
            return total + len(sizes) * (sizes[1] if len(sizes) > 1 else 0)
        return total

    def _arm(self, region: Block) -> list[int]:
        return self._block(region)

    def _call(self, op: Op) -> None:
        self.calls += 1 if op.name == "prompt.gen" else max(1, len(op.operands) - 1)
        if self.calls > MAX_CALLS:
            raise _too_large(f"a row makes more than {MAX_CALLS} model calls")

    def _compute(self, op: Op, sizes: list[int]) -> int:
        fn = op.attrs["fn"]
        total = sum(sizes) + 8
        if fn in _SMALL:
            return 32
        if fn in ("mul", "repeat"):
            factors = [o.value for o in op.operands if isinstance(o, Lit)
                       and type(o.value) is int]
            kinds = {o.type.name for o in op.operands}
            if kinds <= {"int", "float"}:
                return total
            if not factors:
                raise _too_large(f"{fn} by a number that is not written in the program")
            return max(8, min(max(0, f) for f in factors) * total)
        if fn == "pow":
            raise _too_large("a power")
        if fn == "mod" and op.operands[0].type.name != "int":
            raise _too_large("a text % values")
        if fn in _WIDTHS:
            widths = [o.value for o in op.operands[1:] if isinstance(o, Lit)]
            if len(widths) != len(op.operands) - 1:
                raise _too_large(f"{fn} with a width that is not written in the program")
            wide = max([w for w in widths if isinstance(w, int)], default=8)
            return total * (max(1, wide) if fn == "text.expandtabs" else 1) + max(0, wide)
        if fn == "text.replace":
            return (sizes[0] + 1) * (sizes[2] if len(sizes) > 2 else 1) + total
        if fn == "text.join":
            return sizes[0] * (sizes[1] if len(sizes) > 1 else 1) + total
        if fn == "text.format":
            raise _too_large("str.format of a text (f-strings are fine)")
        if fn == "bag.text":
            return total + len(sizes) * sizes[min(1, len(sizes) - 1)]
        if fn in ("text.split", "text.rsplit", "text.splitlines"):
            return 4 * total
        if fn == "repr":
            return 10 * total
        if fn.startswith("text.") and fn[5:] in ("upper", "lower", "title", "casefold",
                                                 "capitalize", "swapcase"):
            return 3 * total  # a character can become three
        return total

    def _format(self, op: Op, sizes: list[int]) -> int:
        total = 8
        for part in op.attrs["parts"]:
            if isinstance(part, str):
                total += len(part)
                continue
            index, conversion, spec = part
            digits = "".join([c if c.isdigit() else " " for c in spec]).split()
            if any(len(d) > 5 for d in digits):
                raise _too_large(f"a format of width {max(digits, key=len)}")
            # An escape of repr() is up to ten characters; a number with :f up to 310.
            wide = 10 if conversion in ("r", "a") else 1
            total += wide * sizes[index] + sum(map(int, digits)) + 350
        return total


def _as_text(value: Any) -> str:
    """What no JSON is, by its length: a set, or an image, of which a prompt's text has a mark."""
    return str(value) if isinstance(value, (set, frozenset)) else "x" * 64


def _too_large(what: str) -> Problem:
    return Problem(400, f"the program is refused: {what}, and a server bounds what values can "
                   "come to", param="ir", code="program_too_large")
